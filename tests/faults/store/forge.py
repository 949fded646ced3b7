"""A warm process that forks runs of the library: a run that is killed costs what it worked, not what it imported.

Reads one request a line from stdin and answers one line: ``[{folder, verb, dataset, imagery, at, action}, ...]`` starts the
runs of the list at once and gives ``[{signal, error, message, events, hit}, ...]``. It ends with its stdin.
"""

import contextlib
import json
import os
import select
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from benchmarks import chain
from tests.faults.store import cell, planted, verbs

from chipmill.core import store

DEADLINE_S = 60.0
"""Of one run; it works for well under a second."""


def serve() -> None:
    """Answer requests until stdin ends."""
    # the threads are those of pyarrow and the BLAS, which start theirs anew in a fork
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a run prints must not get between the answers
    warm_up()
    for line in sys.stdin:
        print(json.dumps(run_all(json.loads(line))), file=answers, flush=True)


def warm_up() -> None:
    """Run a cell once, elsewhere, so that all is imported and compiled; caches go by path and stay cold."""
    folder = Path(tempfile.mkdtemp())
    try:
        cell.make_inputs(folder / "inputs")
        chain.build(cell.region(cell.new_cell(folder / "inputs", folder / "cell"), cell.SECOND))
    finally:
        shutil.rmtree(folder)


def run_all(specs: list[dict]) -> list[dict]:
    """Fork a child for each spec, let them go at the same moment, and wait for all."""
    gate, opening = os.pipe()
    tried = os.pipe()
    children = []
    for spec in specs:
        result, sending = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(opening)
            _child(spec, gate, sending, tried, len(specs))
        os.close(sending)
        children.append((pid, result))
    os.close(opening)
    told = [_wait(*child) for child in children]
    for handle in (gate, *tried):
        os.close(handle)
    return told


def _child(spec: dict, gate: int, sending: int, tried: tuple[int, int], count: int) -> None:
    """Run and tell how it ended; never returns into the server."""
    told: dict = {"error": None, "message": ""}
    try:
        os.read(gate, 1)  # ends when the server closes the other end
        folder = Path(spec["folder"])
        fault = planted.Fault(folder / "out", spec.get("at", 0), spec.get("action", planted.KILL))
        if count > 1:
            chain.lock = _racing(tried, count)
        fault.plant()
        try:
            region = cell.region(folder, spec.get("dataset", {}), spec.get("imagery"))
            verbs.work(spec.get("verb", "build"), folder, region)
        except Exception as error:  # noqa: BLE001 - handed to the test
            told = {"error": type(error).__name__, "message": str(error)}
        fault.at = 0
        with os.fdopen(sending, "w") as stream:
            json.dump(told | {"events": fault.count, "hit": fault.hit}, stream)
    finally:
        os._exit(0)


def _racing(tried: tuple[int, int], count: int):
    """Return a lock that is held until every one of ``count`` runs has tried to take it."""

    @contextlib.contextmanager
    def lock(path: Path, run: str) -> Iterator[None]:
        try:
            with store.lock(path, run):
                os.write(tried[1], b"x")
                for _ in range(count):
                    if select.select([tried[0]], [], [], DEADLINE_S)[0]:
                        os.read(tried[0], 1)
                yield
        except store.LockedError:
            os.write(tried[1], b"x")
            raise

    return lock


def _wait(pid: int, result: int) -> dict:
    deadline = time.monotonic() + DEADLINE_S
    data = b""
    with os.fdopen(result, "rb", buffering=0) as stream:
        while select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not (part := stream.read(1 << 16)):
                break
            data += part
        else:
            os.kill(pid, 9)
            data = b'{"error": "TimeoutError", "message": "the run did not end"}'
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    told = json.loads(data) if data else {"error": None, "message": "", "events": 0}
    return told | {"signal": -status if status < 0 else 0}


if __name__ == "__main__":
    serve()
