"""How tasks are run: which errors a task is tried again for, how long it waits, and that Prefect keeps no results.

The store decides what is skipped, so no task is cached and no result is persisted. The HTTP client retries first
(seconds), then the task (here), then a person. Batches on Dask have no task retries at all: a waiting retry holds its
worker, so `stage` works on their failed units again instead.
"""

from typing import TYPE_CHECKING, Any, Final

from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from chipmill.core.errors import ChipmillError, ItemSearchError

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State, TaskRun


def transient(task: "Task[..., Any]", run: "TaskRun", state: "State[Any]") -> bool:  # noqa: ARG001 - Prefect's signature
    """Tell Prefect whether a failed task is worth another try: errors that say so, a catalog or connection that broke.

    An answer that a catalog gave and that cannot be used (it has no raised cause) will be the same the next time.

    A plain function on purpose: Prefect silently never retries for a partial or a callable object.
    """
    try:
        state.result()
    except ChipmillError as error:
        return error.transient or (isinstance(error, ItemSearchError) and error.__cause__ is not None)
    except (ConnectionError, TimeoutError):
        return True
    except Exception:  # noqa: BLE001 - the question is only whether to try again; Prefect keeps the error
        return False
    return False


DIRECT: Final[dict[str, Any]] = {"cache_policy": NO_CACHE, "persist_result": False}
"""Options of a task that is called in the flow's process."""

BATCH: Final[dict[str, Any]] = DIRECT
"""Options of a task that works on a batch: no retries, a waiting one would hold its worker."""

API_CALL: Final[dict[str, Any]] = DIRECT | {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": transient,
}
"""Options of a task that asks a catalog: three more tries after about 2, 4 and 8 s."""
