"""One running `chipmill up` for all tests of services; those of the screen take the same one."""

import pytest
from tests.canary_world import SECRETS
from tests.up_world import up  # noqa: F401 - a fixture


@pytest.fixture(scope="session", autouse=True)
def secrets_of_the_service():
    """The service starts with these, so that its runs may send them; they are looked for in all that it writes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        yield
