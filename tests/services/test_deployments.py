"""What `chipmill up` deploys, and what deploying again leaves as it was."""

import subprocess
import sys
from pathlib import Path

import pytest

from chipmill.core.errors import BadInputError
from chipmill.orchestration.deployments import POOLS, deploy, find_deployments, load_deployments

FLOWS = {
    "build-dataset": "work",
    "train-model": "gpu",
    "predict-map": "work",
    "refresh-region": "work",
    "backfill-regions": "control",
}
REGIONS = ["antwerp", "boadella", "boadella-rgbn", "mol"]


def schedules(client):
    return client.read_deployment_by_name("refresh-region/cell").schedules


def shown(client):
    """What the screen shows of each deployment, without what the server counts."""
    flows = {flow.id: flow.name for flow in client.read_flows()}
    hidden = {
        "id",
        "created",
        "updated",
        "last_polled",
        "schedules",
        "work_queue_id",
        "status",
        "path",
        "branch",
    }
    hidden |= {"version", "version_id", "version_info", "labels", "created_by", "updated_by"}
    found = {
        flows[one.flow_id]: one.model_dump(mode="json", exclude=hidden, warnings=False)
        for one in client.read_deployments()
    }
    for one in found.values():  # the stock command leaves it out where there are none
        one["parameter_openapi_schema"].setdefault("definitions", {})
    return found


def test_each_flow_has_one_deployment_in_its_pool(up):
    with up.client() as client:
        found = shown(client)
        pools = {pool.name: pool for pool in client.read_work_pools()}
    assert {name: one["work_pool_name"] for name, one in found.items()} == FLOWS
    assert {one["name"] for one in found.values()} == {"cell"}
    assert {one["entrypoint"] for one in found.values()} == {
        f"chipmill.flows.{name}.{name}" for name in (flow.replace("-", "_") for flow in FLOWS)
    }
    assert all("chipmill" in one["tags"] and one["description"] for one in found.values())
    assert all(one["enforce_parameter_schema"] for one in found.values())
    assert {name: pools[name].concurrency_limit for name in POOLS} == {"work": 2, "gpu": 1, "control": None}
    assert all("command" not in str(pools[name].base_job_template) for name in POOLS)


def test_a_second_deployment_neither_switches_schedules_nor_doubles_them(up, request, monkeypatch):
    """First as `up` does it, which keeps what was switched on the screen; then as the stock command does it."""
    tree = Path(request.config.rootpath)
    from prefect.client.schemas.schedules import IntervalSchedule

    with up.client() as client:
        cell = client.read_deployment_by_name("refresh-region/cell")
        assert sorted(one.slug for one in cell.schedules) == REGIONS
        assert not any(one.active for one in cell.schedules)
        by_slug = {one.slug: one for one in cell.schedules}
        client.update_deployment_schedule(cell.id, by_slug["mol"].id, active=True)
        client.create_deployment_schedules(cell.id, [(IntervalSchedule(interval=86400 * 400), False)])
        before = shown(client)

        monkeypatch.chdir(tree)
        deploy(load_deployments(find_deployments(None)))
        assert {one.slug: one.active for one in schedules(client)} == {
            **dict.fromkeys(REGIONS, False),
            "mol": True,
            None: False,
        }
        assert len(schedules(client)) == len(REGIONS) + 1
        assert shown(client) == before

        deploy_by_the_stock_command(up, tree)
        assert sorted(one.slug for one in schedules(client)) == REGIONS
        assert not any(one.active for one in schedules(client))
        assert shown(client) == before
        mol = next(one for one in schedules(client) if one.slug == "mol")
        assert (mol.schedule.cron, mol.schedule.timezone) == ("0 5 * * 1", "Europe/Brussels")
        assert mol.parameters["region"]["file"] == "deployments/regions/mol.yaml"


def deploy_by_the_stock_command(up, tree):
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("prefect")), "--no-prompt", "deploy", "--all"),
            *("--prefect-file", "deployments/prefect.yaml"),
        ],
        cwd=tree,
        env=up.env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("entrypoint", "steps", "sentence"),
    [
        ("os.system", None, "no flow of chipmill"),
        ("chipmill.flows.build_dataset.os", None, "no flow of chipmill"),
        ("chipmill.flows.build_dataset:build_dataset", None, "no flow of chipmill"),
        (None, None, "no flow of chipmill"),
        (
            "chipmill.flows.build_dataset.build_dataset",
            [{"prefect.deployments.steps.run_shell_script": {"script": "true"}}],
            "pull step 'prefect.deployments.steps.run_shell_script'",
        ),
    ],
)
def test_workers_run_nothing_but_flows_of_ours(entrypoint, steps, sentence):
    from types import SimpleNamespace

    from chipmill.orchestration.worker_child import checked_entrypoint

    with pytest.raises(BadInputError, match=sentence):
        checked_entrypoint(SimpleNamespace(entrypoint=entrypoint, pull_steps=steps))


def test_a_file_without_deployments_is_named(tmp_path):
    file = tmp_path / "prefect.yaml"
    for text in ("a: [", "deployments: [{name: cell}]", "deployments: [{entrypoint: nowhere.at.all}]", "[]"):
        file.write_text(text)
        with pytest.raises(BadInputError, match=rf"{file} is no file of deployments"):
            load_deployments(file)
