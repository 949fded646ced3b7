"""The process that takes runs from the pools: `python -m chipmill.orchestration.worker_child POOL...`.

One worker of Prefect for each pool, all in one process. Unlike Prefect's process worker it runs nothing but flows of
this package: whatever a deployment, a pool or a run says of commands, environments, directories or pull steps has no
effect here or is refused. Everybody who has the login may write those, and they would be a shell.

It ends with its parent, whose pipe it reads (`child`), and its flow runs end with it (`flow_child`).
"""

import contextlib
import json
import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import psutil
from prefect.runner._flow_run_executor import FlowRunExecutor, FlowRunExecutorContext
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.utilities.processutils import command_to_string
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from chipmill.core.errors import BadInputError
from chipmill.core.redact import install
from chipmill.orchestration.lost_runs import crash_lost_runs, crash_unfinished

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.client.schemas.responses import DeploymentResponse

_OURS: Final = re.compile(r"chipmill\.flows\.([a-z_]+)\.\1")
_HARMLESS_STEP: Final = "prefect.deployments.steps.set_working_directory"
_GRACE_S: Final = 10.0
_ORPHANS_S: Final = 15.0
"""More than the runs of a killed worker take to end by themselves."""
_LAST_WORDS_S: Final = 1.5
_STOPPING: Final = threading.Event()


class FlowJob(BaseJobConfiguration):
    """How a run is started: always the same way."""

    entrypoint: str = ""

    @classmethod
    async def from_template_and_values(cls, *_: Any, **__: Any) -> Self:
        """Return the one way; what the pool's template and the job variables say is not looked at."""
        return cls()

    def prepare_for_flow_run(
        self, flow_run: "FlowRun", deployment: "DeploymentResponse | None" = None, *others: Any, **named: Any
    ) -> None:
        """Take the entrypoint of the deployment; raises BadInputError for one that is not a flow of ours."""
        super().prepare_for_flow_run(flow_run, deployment, *others, **named)
        self.entrypoint = checked_entrypoint(deployment)


def checked_entrypoint(deployment: "DeploymentResponse | None") -> str:
    """Return the entrypoint of a deployment; raises BadInputError where it would run anything but a flow of ours."""
    entrypoint = (deployment and deployment.entrypoint) or ""
    if not _OURS.fullmatch(entrypoint):
        raise BadInputError(
            f"the entrypoint {entrypoint[:100]!r} is no flow of chipmill: expected chipmill.flows.<flow>.<flow>, as "
            "deployments/prefect.yaml has it"
        )
    steps = [name for step in (deployment and deployment.pull_steps) or () for name in step]
    if strange := [name for name in steps if name != _HARMLESS_STEP]:
        raise BadInputError(
            f"the deployment has the pull step {strange[0][:100]!r}: expected {_HARMLESS_STEP} alone, as "
            "deployments/prefect.yaml has it"
        )
    return entrypoint


class _NoHooks:
    """Flows of ours have no hooks; looking for them would import the flow into the worker."""

    async def run_crashed_hooks(self, flow_run: "FlowRun", state: "State[Any]") -> None:
        """Do nothing."""

    async def run_cancellation_hooks(self, flow_run: "FlowRun", state: "State[Any]") -> None:
        """Do nothing."""


class FlowWorker(BaseWorker[FlowJob, BaseVariables, BaseWorkerResult]):
    """Takes the runs of one pool and gives each a process."""

    type = "chipmill"  # in Prefect's registry of kinds, where "process" is taken
    job_configuration = FlowJob
    job_configuration_variables = BaseVariables

    def __init__(self, pool: str) -> None:
        super().__init__(pool, name=f"chipmill-{pool}", create_pool_if_not_found=False)
        self.type = "process"

    async def get_and_submit_flow_runs(self) -> "list[FlowRun]":
        """Take what is due, unless we are about to end."""
        return [] if _STOPPING.is_set() else await super().get_and_submit_flow_runs()

    async def run(
        self, flow_run: "FlowRun", configuration: FlowJob, task_status: Any = anyio.TASK_STATUS_IGNORED
    ) -> BaseWorkerResult:
        """Run a flow in a process and return how that ended; whatever it left open is then closed."""
        async with FlowRunExecutorContext() as context:
            starter = EngineCommandStarter(
                command=command_to_string(
                    [sys.executable, "-m", "chipmill.orchestration.flow_child", configuration.entrypoint]
                ),
                cwd=os.getcwd(),  # noqa: PTH109 - ours is the state directory of the service
                env=dict(configuration.env),
                control_channel=context.control_channel,
            )
            executor = context.create_executor(
                flow_run, starter, hook_runner=_NoHooks(), propose_submitting=False
            )
            code = await _executed(executor, task_status)
        await anyio.to_thread.run_sync(crash_unfinished, flow_run.id)
        return BaseWorkerResult(identifier=str(flow_run.id), status_code=code)


async def _executed(executor: FlowRunExecutor, task_status: Any) -> int:
    """Run a flow's process to its end and return the exit code; ``task_status`` is told its pid when it has begun."""
    codes: list[int] = []

    async def execute(*, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        done = await executor.submit(task_status=task_status)
        codes.append(1 if done is None or done.status_code is None else done.status_code)

    async with anyio.create_task_group() as group:
        handle = await group.start(execute)
        task_status.started(handle.pid)
    return codes[0]


def main() -> None:
    """Take runs until the parent is gone."""
    facts = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not facts:
        sys.exit(0)  # the parent died before it said anything
    os.environ.update(facts)
    install()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    anyio.run(_serve, sys.argv[1:])


async def _serve(pools: list[str]) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    changes = {
        PREFECT_API_URL: os.environ["PREFECT_API_URL"],
        PREFECT_API_AUTH_STRING: os.environ["PREFECT_API_AUTH_STRING"],
    }
    with temporary_settings(updates=changes):
        await anyio.to_thread.run_sync(crash_lost_runs, pools, _ORPHANS_S)
        async with anyio.create_task_group() as group:
            for pool in pools:
                group.start_soon(FlowWorker(pool).start)


def _end_with_parent() -> None:
    """End the flow runs in order, then this process, when the parent is gone or asks for it."""
    while sys.stdin.buffer.read(1 << 16):
        pass
    _STOPPING.set()
    runs = psutil.Process().children()
    for run in runs:
        with contextlib.suppress(psutil.NoSuchProcess):
            run.terminate()
    for run in psutil.wait_procs(runs, timeout=_GRACE_S)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            run.kill()
    if runs:
        time.sleep(_LAST_WORDS_S)  # the loop above us tells the server how they ended
    os._exit(0)


if __name__ == "__main__":
    main()
