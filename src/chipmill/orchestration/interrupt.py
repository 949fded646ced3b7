"""Ctrl-C: heard once, never lost.

Python raises KeyboardInterrupt wherever the main thread happens to be; inside a callback of a library or a destructor
it is printed and forgotten. The request is kept here and raised again at the next step of the flow.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_ASKED = threading.Event()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Listen for Ctrl-C while the block runs; a block that ends although it was asked to stop raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's business
        return
    _ASKED.clear()
    before = signal.signal(signal.SIGINT, _ask)
    try:
        yield
        stop_if_asked()
    finally:
        signal.signal(signal.SIGINT, before)
        _ASKED.clear()


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed and got lost."""
    if _ASKED.is_set():
        raise KeyboardInterrupt


def _ask(_number: int, _frame: Any) -> None:
    _ASKED.set()
    raise KeyboardInterrupt
