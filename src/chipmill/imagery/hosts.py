"""How many requests are under way at one host at a time, over all processes of this machine: a server is not flooded.

A turn is a lock on one of a host's N files in the state directory, so a process that is killed gives its turns back.
Who has to wait stands in line by a file named by the time, locked too: one that is just done comes after those. Both are
removed by whoever holds them; what a process left that ended in mid-turn belongs to the next one that gets the place.
Processes that share a state directory share the turns; on several machines give each its part of N. What a proxy of
the environment reads for us is not counted.
"""

import contextlib
import fcntl
import hashlib
import os
import random
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from chipmill.core.errors import BadInputError
from chipmill.core.state import make_state_dir, state_dir

VARIABLE: Final = "CHIPMILL_HOST_REQUESTS"
_DEFAULT: Final = 16
_LOOK_S: Final = ((0.001, 0.004), (0.004, 0.016))
"""Between two looks of the first in line, and of the others."""


def requests_per_host() -> int:
    """Return N, from the environment; raises BadInputError where it is no whole number from 1 up."""
    text = os.environ.get(VARIABLE) or str(_DEFAULT)
    if not text.isascii() or not text.isdigit() or not int(text):
        raise BadInputError(f"{VARIABLE} is {text!r}: expected a whole number from 1 up")
    return int(text)


def prepare() -> Path:
    """Make the folder of the locks and return it; raises ServerError where that is impossible, BadInputError as above."""
    requests_per_host()
    return make_state_dir(state_dir() / "hosts")


class NoTurnError(TimeoutError):
    """Others kept a host busy for too long; the text says which, and what may be set."""


class Turn:
    """The right of one connection to have a request under way at a host; one that is held ends with its process."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        name = hashlib.sha256(f"{host}:{port}".encode()).hexdigest()[:16]
        self._folder = state_dir() / "hosts" / name
        self._line = self._folder / "line"
        self._line.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._count = requests_per_host()
        self._place: tuple[Path, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give()

    @property
    def held(self) -> bool:
        """Whether it is ours now."""
        return self._place is not None

    def take(self, timeout_s: float, wanted: Callable[[], bool] = lambda: True) -> None:
        """Wait until it is ours; raises NoTurnError after ``timeout_s``, or once it is not ``wanted`` any more."""
        if self.held:
            return
        ends = time.monotonic() + timeout_s
        with _Ticket(self._line) as ticket:
            while True:
                first = ticket.is_first()
                if first and (place := self._free()) is not None:
                    self._place = place
                    return
                ticket.show()
                if time.monotonic() >= ends or not wanted():
                    raise NoTurnError(
                        f"others keep {self._host} busy, where {VARIABLE} allows {self._count} requests at a time"
                    )
                # so that those who wait do not look at the same moment
                time.sleep(random.uniform(*_LOOK_S[0 if first else 1]))

    def give(self) -> None:
        """Let the next one have it."""
        if self._place is not None:
            _remove(*self._place)
            self._place = None

    def _free(self) -> tuple[Path, int] | None:
        first = random.randrange(self._count)
        places = (self._folder / str((first + step) % self._count) for step in range(self._count))
        return next(((place, file) for place in places if (file := _locked(place)) is not None), None)


class _Ticket:
    """A place in the line of a host: a file that is locked as long as its owner waits."""

    def __init__(self, line: Path) -> None:
        self._path = line / f"{time.monotonic_ns():020d}-{secrets.token_hex(4)}"
        self._file: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            _remove(self._path, self._file)

    def show(self) -> None:
        """Stand in line, where that is not so yet: another may hold it for the moment of a look."""
        if self._file is None:
            self._file = _locked(self._path)

    def is_first(self) -> bool:
        """Tell whether nobody alive came earlier; what the dead left in the line is cleared away."""
        for other in sorted(self._path.parent.iterdir()):
            if other >= self._path:
                break
            with contextlib.suppress(FileNotFoundError):  # gone by now
                file = _locked(other, make=False)
                if file is None:
                    return False
                _remove(other, file)
        return True


def _locked(path: Path, *, make: bool = True) -> int | None:
    """Return the descriptor of a file that is locked by us alone, None where it is another's."""
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = _is_at(path, file)
    except BlockingIOError:
        ours = False
    except BaseException:
        os.close(file)
        raise
    if ours:
        return file
    os.close(file)
    return None


def _is_at(path: Path, file: int) -> bool:
    """Tell whether a file still has its name: its holder may have removed it between our opening and locking it."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(file))
    return False


def _remove(path: Path, file: int) -> None:
    """Remove a file whose lock we hold, then let go of it: no other that has the name can be locked in between."""
    path.unlink(missing_ok=True)
    os.close(file)
