"""`deployments/prefect.yaml` onto a server: what `prefect deploy --all` does, without asking and without a second import.

Times, parameters and limits stand in the file; whether a schedule is on is also set on the screen, and stays as it was
set there. Schedules that were added on the screen stay, too.
"""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

import chipmill
from chipmill.core.errors import BadInputError, ServerError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate

POOLS: Final[Mapping[str, int | None]] = {"work": None, "gpu": 1, "control": None}
"""Pool -> runs at once; None = as many as are asked for."""
_SHIPPED: Final = Path(chipmill.__file__).parent / "deployments"


def find_deployments(named: Path | None) -> Path:
    """Return the file of deployments: the one named, that of the working directory, else the one in the package.

    Raises BadInputError where the named one does not exist.
    """
    if named is not None:
        if not named.is_file():
            raise BadInputError(
                f"--deployments {named} is no file: expected one like deployments/prefect.yaml"
            )
        return named.absolute()
    here = Path("deployments/prefect.yaml").absolute()
    return here if here.is_file() else _SHIPPED / "prefect.yaml"


def load_deployments(file: Path) -> list[dict[str, Any]]:
    """Return the deployments of a file with their pull steps; raises BadInputError for a file without any."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        pull = content.get("pull")
        return [
            {"pull": pull, **one, "flow": _load_flow(one["entrypoint"])} for one in content["deployments"]
        ]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ImportError, ValueError) as error:
        raise BadInputError(
            f"{file} is no file of deployments ({type(error).__name__}: {error}): see the one that chipmill ships in "
            f"{_SHIPPED}"
        ) from error


def make_pools(limits: Mapping[str, int | None] = POOLS) -> None:
    """Make the work pools, or set their limits; runs in them cannot bring a command or an environment."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    template = json.loads((_SHIPPED / "work-pool.json").read_text(encoding="utf-8"))
    with get_client(sync_client=True) as client:
        for name, limit in limits.items():
            pool = WorkPoolCreate(
                name=name, type="process", base_job_template=template, concurrency_limit=limit
            )
            client.create_work_pool(pool, overwrite=True)


def deploy(deployments: list[dict[str, Any]]) -> None:
    """Make or renew deployments; raises ServerError where the server refuses one."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    with get_client(sync_client=True) as client:
        for one in deployments:
            try:
                _deploy_one(client, one)
            except PrefectHTTPStatusError as error:
                raise ServerError(
                    f"the server refuses the deployment {one['flow'].name}/{one['name']}: {error}"
                ) from error


def _load_flow(entrypoint: str) -> Any:
    module, _, name = entrypoint.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _deploy_one(client: "SyncPrefectClient", one: dict[str, Any]) -> None:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyOptions
    from prefect.utilities.callables import parameter_schema

    flow = one["flow"]
    limit = ConcurrencyLimitConfig(**one["concurrency_limit"]) if "concurrency_limit" in one else None
    client.create_deployment(
        client.create_flow(flow),
        one["name"],
        schedules=_schedules(client, f"{flow.name}/{one['name']}", one.get("schedules", [])),
        concurrency_limit=limit.limit if limit else None,
        concurrency_options=ConcurrencyOptions(collision_strategy=limit.collision_strategy)
        if limit
        else None,
        parameters=one.get("parameters", {}),
        description=one.get("description"),
        work_pool_name=one["work_pool"]["name"],
        tags=one.get("tags"),
        entrypoint=one["entrypoint"],
        path=".",
        pull_steps=one["pull"],
        parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        enforce_parameter_schema=True,
    )


def _schedules(
    client: "SyncPrefectClient", name: str, wanted: list[dict[str, Any]]
) -> "list[DeploymentScheduleCreate]":
    """Return the schedules of the file, on or off as they are on the server, and those that only the server has."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.exceptions import ObjectNotFound

    try:
        present = client.read_deployment_by_name(name).schedules
    except ObjectNotFound:
        present = []
    switched = {one.slug: one.active for one in present if one.slug}
    listed = {one["slug"] for one in wanted}
    return [
        *(
            DeploymentScheduleCreate(
                slug=one["slug"],
                active=switched.get(one["slug"], one["active"]),
                schedule=CronSchedule(cron=one["cron"], timezone=one["timezone"]),
                parameters=one.get("parameters", {}),
            )
            for one in wanted
        ),
        *(
            DeploymentScheduleCreate(
                slug=one.slug, active=one.active, schedule=one.schedule, parameters=one.parameters
            )
            for one in present
            if one.slug not in listed
        ),
    ]
