"""Planted faults for processes that the tests start; Python imports this file by its name when it is on the path.

PLANTED_KILL=stage.unit: a worker that begins this unit is killed, each time.
"""

import os
import signal

PLANTED = os.environ.get("PLANTED_KILL")

if PLANTED:
    from chipmill.core import units

    work_batch = units.work_batch

    def deadly(attempt, run, batch, work, fingerprint, closed=False):
        def work_or_die(unit):
            if f"{batch.stage}.{unit}" == PLANTED:
                os.kill(os.getpid(), signal.SIGKILL)
            return work(unit)

        return work_batch(attempt, run, batch, work_or_die, fingerprint, closed)

    units.work_batch = deadly
