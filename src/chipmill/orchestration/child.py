"""Processes that this one starts and keeps: they end with it, also by kill -9, and one that dies is started again.

A child is told what it must know in the first line of its standard input and then keeps reading: end of file means
that its parent has closed the pipe or is gone. Nothing secret is in its arguments or in its environment.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_SHORT_LIFE_S: Final = 20.0
_SHORT_LIVES: Final = 3
_BACK_OFF_S: Final = 1.0


class Child:
    """A module of ours that runs in a process of its own, with its output in a log file."""

    def __init__(
        self,
        module: str,
        arguments: tuple[str, ...],
        facts: Mapping[str, Any],
        home: Path,
        log: Path,
        fd: int = -1,
    ) -> None:
        """Start ``python -m module arguments`` in the directory ``home``; ``fd`` is a descriptor that it inherits."""
        self.log: Final = log
        self.given_up: Final = threading.Event()
        """Set where it died at once so often that it is not started again."""
        self._command: Final = [sys.executable, "-m", module, *arguments]
        self._first_line: Final = json.dumps(facts).encode() + b"\n"
        self._home: Final = home
        self._fds: Final = (fd,) if fd >= 0 else ()
        self._ending: Final = threading.Event()
        self._guard: Final = threading.Lock()
        log.write_bytes(b"")
        self._process = self._start()

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    def ended_with(self) -> int | None:
        """Return the exit code of a child that is not kept yet; None while it runs."""
        return self._process.poll()

    def keep(self) -> None:
        """From now on start it again whenever it dies."""
        threading.Thread(target=self._watch, daemon=True).start()

    def end(self, grace_s: float) -> None:
        """Close the pipe, which tells the child to end, and wait for it; after ``grace_s`` seconds kill it."""
        with self._guard:
            self._ending.set()
        _close(self._process)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as stream:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                pass_fds=self._fds,
                start_new_session=True,  # Ctrl-C is for this process, which then ends its children in order
                cwd=self._home,
                env={name: value for name, value in os.environ.items() if name != "PREFECT_API_KEY"},
            )
        assert process.stdin is not None  # noqa: S101 - for the type checker; it was asked for as a pipe
        with contextlib.suppress(
            BrokenPipeError
        ):  # a child that died at once is seen by whoever waits for it
            process.stdin.write(self._first_line)
            process.stdin.flush()
        return process

    def _watch(self) -> None:
        short = 0
        while not self.given_up.is_set():
            began = time.monotonic()
            self._process.wait()
            short = short + 1 if time.monotonic() - began < _SHORT_LIFE_S else 0
            with self._guard:
                if self._ending.is_set():
                    return
                _close(self._process)
                if short >= _SHORT_LIVES:
                    self.given_up.set()
                else:
                    self._process = self._start()
            self._ending.wait(_BACK_OFF_S * short)


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101 - for the type checker; it was asked for as a pipe
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
