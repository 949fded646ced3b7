"""The redactor where flows run: besides log records, what Prefect tells its server of exceptions, and stores of them.

The message of a failed state is made of the exception, which may be a library's and carry a signed URL. The exception
itself, with all that it came from, would be written as a pickle into the folder or store that the server names, and
whoever has the login may name one; read back from there, a pickle is a program. Nothing of ours needs such results,
the store is the truth: none is written and none is read.

Called where flows are imported and where a Dask worker starts.
"""

from types import ModuleType, TracebackType
from typing import Any

from chipmill.core.plain import plain
from chipmill.core.redact import install, redact


def keep_secrets() -> None:
    """Redact what this process logs and tells the workflow server, and let Prefect write and read no results.

    Safe to repeat.
    """
    install()
    import prefect._internal.states
    import prefect.states
    from prefect._internal.result_records import ResultRecord
    from prefect.results import ResultStore

    # The engine has its own copy of the functions that make states. A version of Prefect without one of these names
    # fails here or in tests, which look at the state of a failed run and for files of results.
    for module in (prefect.states, prefect._internal.states):  # noqa: SLF001 - there is no public place for this
        _redact_exceptions(module)
    ResultStore.persist_result_record = _write_nothing  # type: ignore[assignment]
    ResultStore.apersist_result_record = _write_nothing_async  # type: ignore[assignment]
    for name in ("deserialize", "deserialize_from_result_and_metadata"):
        getattr(ResultRecord, name)
        setattr(ResultRecord, name, _read_nothing)


def _redact_exceptions(module: ModuleType) -> None:
    given = module.format_exception
    if getattr(given, "chipmill", False):
        return

    def format_exception(exc: BaseException, tb: TracebackType | None = None) -> str:
        return plain(redact(given(exc, tb)))

    format_exception.chipmill = True  # type: ignore[attr-defined]
    vars(module)["format_exception"] = format_exception


def _write_nothing(_store: Any, result_record: Any, holder: str | None = None) -> None:
    """Stand for ResultStore.persist_result_record."""


async def _write_nothing_async(_store: Any, result_record: Any, holder: str | None = None) -> None:
    """Stand for ResultStore.apersist_result_record."""


def _read_nothing(*_: Any, **__: Any) -> None:
    """Stand for the ways from bytes to a ResultRecord."""
    from prefect.exceptions import MissingResult

    raise MissingResult("chipmill reads no results of Prefect: look into the store")
