"""`python -m benchmarks NAME [--quick] [--json]`: one line per figure; exit 1 when a goal is missed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import baseline

_BENCHMARKS = {"baseline": baseline.measure}


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*sorted(_BENCHMARKS), "all"])
    parser.add_argument("--quick", action="store_true", help="smaller forest, one fold")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument(
        "--demo", type=Path, default=Path("out/demo"), help="output directory of chipmill demo"
    )
    parser.add_argument("--fold", type=int, help="one spatial fold of Boadella; default: all three")
    options = parser.parse_args(arguments)
    good = True
    for name in _BENCHMARKS if options.name == "all" else [options.name]:
        for figure in _BENCHMARKS[name](options):
            print(figure.line(as_json=options.json), flush=True)
            good = good and figure.holds is not False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
