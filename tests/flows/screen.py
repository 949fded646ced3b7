"""What the tests read from the workflow server's API: graphs, states of task runs, artifacts."""

import time
from collections.abc import Callable

DEADLINE_S = 30.0


def wait_for[T](read: Callable[[], T], good: Callable[[T], bool]) -> T:
    """The server writes records down behind the events: read until they are as expected, or the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not good(found := read()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def graph(client, flow_run_id) -> dict:
    return client.request("GET", f"/flow_runs/{flow_run_id}/graph-v2").json()


def edges(client, flow_run_id) -> set[tuple[str, str]]:
    """The edges of a run's graph between kinds of nodes: batches of a stage and runs of a flow count as one node."""
    nodes = dict(graph(client, flow_run_id)["nodes"])
    return {
        (kind(nodes[parent["id"]]["label"]), kind(node["label"]))
        for node in nodes.values()
        for parent in node["parents"]
    }


def kind(label: str) -> str:
    """The name of a task without the number of its batch, of a flow without the name of its run."""
    name = label.split(" / ", maxsplit=1)[0]
    stem, _, number = name.rpartition("-")
    return stem if number.isdigit() else name


def task_runs(client, flow_run_id) -> dict[str, str]:
    """Name -> type of state of all task runs of a flow run."""
    query = {"flow_runs": {"id": {"any_": [str(flow_run_id)]}}, "limit": 200}
    return {
        run["name"]: run["state_type"]
        for run in client.request("POST", "/task_runs/filter", json=query).json()
    }


def open_task_runs(client, flow_run_id) -> list[str]:
    return [name for name, state in task_runs(client, flow_run_id).items() if state in ("RUNNING", "PENDING")]


def artifacts(client, flow_run_id) -> dict[str, dict]:
    """Key -> artifact, over a flow run and its tasks."""
    query = {"flow_runs": {"id": {"any_": [str(flow_run_id)]}}, "limit": 200}
    return {one["key"]: one for one in client.request("POST", "/artifacts/filter", json=query).json()}
