"""The command line: one thin function per command; what a command shows is in the files beside these.

- application exit codes, help
- making      the commands from a region to dataset, model and map
- results     the commands for what stands
- convert     `convert`: datasets from and to the formats of other programs; earthengine has those of Earth Engine
- console     errors as one sentence, ``--json``, tables
- progress    bars and lines while a job works
- work        what the commands do that run a flow: run, build, train, predict, demo
- places      what a path on the command line means
- index       `index`
- select      `select`
- standing    `status`
- backfill    many cells
- up          the service in the foreground
- template    the file that `init` writes
"""

from chipmill.cli import convert, earthengine, making, results
from chipmill.cli.application import app

__all__ = ["app", "convert", "earthengine", "making", "results"]
