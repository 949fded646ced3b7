"""`python -m benchmarks NAME [--quick] [--json] [--record]`: one line per figure; exit 1 when a goal is missed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.record import record

_BENCHMARKS = (
    "baseline",
    "chips",
    "composite",
    "end_to_end",
    "kernel",
    "ranking",
    "reading",
    "records",
    "scale",
    "scaling",
    "search",
    "selection",
)
"""Modules of this folder; each is imported when it is asked for: some of what they need takes seconds to load."""


def _figures(name: str, options: argparse.Namespace) -> Iterable[Figure]:
    module = import_module(f"benchmarks.{name}")
    return module.measure(options) if name == "baseline" else module.run(options.quick)


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*_BENCHMARKS, "all"])
    parser.add_argument("--quick", action="store_true", help="less of everything: to try it, not to measure")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/results/NAME.jsonl")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument(
        "--demo", type=Path, default=Path("out/demo"), help="output directory of chipmill demo"
    )
    parser.add_argument("--fold", type=int, help="one spatial fold of Boadella; default: all three")
    options = parser.parse_args(arguments)
    good = True
    for name in _BENCHMARKS if options.name == "all" else [options.name]:
        made: list[Figure] = []
        for figure in _figures(name, options):
            print(figure.line(as_json=options.json), flush=True)
            made.append(figure)
            good = good and figure.holds is not False
        if options.record:
            record(name, made)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
