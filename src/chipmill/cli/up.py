"""`up`: the service in the foreground, until Ctrl-C."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from chipmill.cli.console import Terminal
from chipmill.core.errors import BadInputError

_POLL_S: Final = 1.0
_MAX_PORT: Final = 65535


def run_service(view: Terminal, port: int, roots: list[Path], deployments: Path | None, at_once: int) -> None:
    """Start server, pools, deployments and workers, say where they are, and keep them until Ctrl-C or SIGTERM.

    With ``--json`` one line of JSON is printed when all is ready. Raises BadInputError for options that cannot be
    meant, LockedError where another `chipmill up` lives, ServerError where a part does not start or dies for good.
    """
    if not 0 <= port <= _MAX_PORT:
        raise BadInputError(f"--port {port}: expected 1 to {_MAX_PORT}, or 0 for any free one")
    if at_once < 1:
        raise BadInputError(f"--at-once {at_once}: expected 1 or more runs")
    from chipmill.core.redact import install
    from chipmill.orchestration.up import UpOptions, own_service, wait_while_well

    install()
    with _asked_to_stop() as (asked, ready):
        view.note("starting the workflow server, its pools, deployments and workers")
        options = UpOptions(port, tuple(roots), deployments, at_once)
        try:
            with own_service(options) as ref:
                ready.set()
                if view.as_json:
                    facts = {
                        "ok": True,
                        "url": ref.url,
                        "ui": ref.ui_url,
                        "user": ref.user,
                        "password": ref.password,
                    }
                    sys.stdout.write(json.dumps(facts) + "\n")
                    sys.stdout.flush()
                view.say(f"ready     {ref.ui_url}", "bold")
                view.say(f"login     user {ref.user}, password {ref.password}")
                view.say(
                    "stop      Ctrl-C; runs that go on are then stopped, and go on where they were when redone"
                )
                wait_while_well(ref, lambda: asked.wait(_POLL_S))
                view.note("stopping")
        except KeyboardInterrupt:
            view.note("stopped before it was ready")


@contextmanager
def _asked_to_stop() -> Iterator[tuple[threading.Event, threading.Event]]:
    """Give an event that Ctrl-C and SIGTERM set, and one to set when all is ready: before, they raise KeyboardInterrupt."""
    asked, ready = threading.Event(), threading.Event()

    def stop(_number: int, _frame: Any) -> None:
        first = not asked.is_set()
        asked.set()  # also where the exception is lost inside a callback of a library
        if first and not ready.is_set():
            raise KeyboardInterrupt

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield asked, ready
    finally:
        for number, handler in before:
            signal.signal(number, handler)
