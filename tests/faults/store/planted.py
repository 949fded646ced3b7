"""Faults planted into a process: every call that changes the output is counted, and the N-th is its last or fails.

Counted are, below one folder: opening for writing, every write, fsync, rename, link, mkdir and removal by Python (an
audit hook and wrapped functions), and each table or raster handed to pyarrow and GDAL, whose own writes cannot be
seen from here; what those do on a full disk is tested on one.
"""

import errno
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

KILL = "kill"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = {"os.rename": 1, "os.link": 1, "os.mkdir": 0, "os.remove": 0, "os.rmdir": 0}
"""Audit event -> which of its arguments names the place that changes."""
_GROWS = ("open", "write", "fsync", "table", "raster", "os.rename", "os.link", "os.mkdir")
"""What needs space; removing never fails for want of it."""


class Fault:
    """Counts events below ``root``; at the ``at``-th acts: SIGKILL, EIO once, or ENOSPC from then on."""

    def __init__(self, root: Path, at: int = 0, action: str = KILL) -> None:
        self.root = str(root)
        self.at = at
        self.action = action
        self.count = 0
        self.hit = ""
        """Name of the first event that failed."""

    def event(self, name: str) -> None:
        """Count, and act when it is time."""
        self.count += 1
        if not self.at or self.count < self.at:
            return
        if self.action == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, self.action)
        if name in _GROWS if code == errno.ENOSPC else self.count == self.at:
            self.hit = self.hit or name
            raise OSError(code, os.strerror(code))

    def below(self, path: object) -> bool:
        """Tell whether a path is one of those that count."""
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root)

    def plant(self) -> None:
        """Install the hook and the wrappers in this process, for good."""
        import sys

        import pyarrow.parquet
        import rasterio.io

        sys.addaudithook(self._audit)
        io.open = self._open
        # What a killed process has written is in the kernel already: only the call counts, not the wait for the disk.
        os.fsync = lambda handle: self.event("fsync")
        for name in ("write", "pwrite", "writev"):
            setattr(os, name, self._counted(getattr(os, name), "write"))
        pyarrow.parquet.write_table = self._counted(pyarrow.parquet.write_table, "table")
        rasterio.io.DatasetWriter.write = self._counted(rasterio.io.DatasetWriter.write, "raster")

    def _audit(self, name: str, arguments: tuple) -> None:
        if name == "open":
            path, _, flags = arguments
            counts = bool(flags & _WRITING) and self.below(path)
        elif name in _CHANGES:
            # shutil.rmtree names files relative to an open folder
            counts = self.below(arguments[_CHANGES[name]]) or arguments[-1] != -1
        else:
            return
        if counts:
            self.event(name)

    def _counted(self, real: Callable, name: str) -> Callable:
        def counted(*arguments, **options):
            self.event(name)
            return real(*arguments, **options)

        return counted

    def _open(self, path, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **options):
        if options or not self.below(path) or not set(mode) & set("wax+"):
            return _OPEN(path, mode, buffering, encoding, errors, newline, **options)
        raw = _Counting(path, mode.replace("b", "").replace("t", ""))
        raw.fault = self
        buffered = io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


_OPEN = io.open


class _Counting(io.FileIO):
    """A file whose every write is an event; one that fails or kills has written its first half."""

    fault: Fault

    def write(self, data) -> int:
        half = len(data) // 2
        if half and self.fault.at == self.fault.count + 1:
            super().write(memoryview(data)[:half])
        self.fault.event("write")
        return super().write(data)
