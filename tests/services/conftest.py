"""What the one running `chipmill up` of this tier is started with."""

import pytest
from tests.canary_world import SECRETS


@pytest.fixture(scope="session", autouse=True)
def secrets_of_the_service():
    """The service starts with these, so that its runs may send them; they are looked for in all that it writes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        yield
