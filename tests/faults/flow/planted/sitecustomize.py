"""Planted faults for processes that the tests start; Python imports this file by its name when it is on the path.

PLANTED is a file with a list of faults as JSON, each ``{"stage": .., "unit": id or number of a unit, "do": .., "mark":
path}``, which happens to the worker that begins this unit:

kill       it is killed, each time
kill-once  it is killed, the first time
hog        it takes memory until it is killed, each time
hold       it tells the test that it is there, and goes on when it is told to
"""

import json
import os
import signal
import time
from pathlib import Path

PLAN = os.environ.get("PLANTED")
PLANTED = json.loads(Path(PLAN).read_text()) if PLAN else []
DEADLINE_S = 120.0
PIECE, MOST = 32 << 20, 6 << 30
"""Bytes: a hog takes pieces, and a limit that nobody enforces must not cost the machine."""


def happen(fault):
    mark = Path(fault["mark"])
    first = not mark.exists()
    mark.touch()
    if fault["do"] == "kill" or (fault["do"] == "kill-once" and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if fault["do"] == "hog":
        taken = []
        while len(taken) * PIECE < MOST:
            taken.append(b"x" * PIECE)
            time.sleep(0.01)  # the nanny looks every 0.1 s
        raise AssertionError(f"nobody minded that one worker took {MOST} bytes")
    if fault["do"] == "hold":
        end = time.monotonic() + DEADLINE_S
        while not mark.with_name(f"{mark.name}.go").exists() and time.monotonic() < end:
            time.sleep(0.02)


if PLANTED:
    from chipmill.core import units

    work_batch = units.work_batch

    def faulty(attempt, run, batch, work, fingerprint, closed=False):
        here = [fault for fault in PLANTED if fault["stage"] == batch.stage]
        order = (
            [unit for one in units.load_batches(attempt, batch.stage) for unit in one.units] if here else []
        )

        def work_or_fail(unit):
            for fault in here:
                wanted = fault["unit"]
                if unit == (order[wanted % len(order)] if isinstance(wanted, int) else wanted):
                    happen(fault)
            return work(unit)

        return work_batch(attempt, run, batch, work_or_fail, fingerprint, closed)

    units.work_batch = faulty
