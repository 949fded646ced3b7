"""The commit protocol: nothing is ever written in place, and a file counts only once its sidecar stands beside it.

Order of a commit: temporary name in the same directory, write, fsync, rename, fsync of the directory, then the
sidecar ``<file>.json`` the same way. A kill at any point leaves either no file, or a file that the next run remakes,
or a good file. Versioned directories and their pointer are in :mod:`chipmill.core.versions`.
"""

import contextlib
import dataclasses
import datetime as dt
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final

from chipmill.core.errors import DamagedFileError, LockedError, OutputError
from chipmill.core.links import refuse_links
from chipmill.core.space import refuse_full, space_for

_CHUNK: Final = 1 << 20
_TEMP: Final = ".tmp-"
_HOLDER_WAIT_S: Final = 1.0


def canonical_json(value: object, indent: int | None = None) -> str:
    """Return JSON with sorted keys for plain values, paths, times, dataclasses and pydantic models.

    Raises TypeError for anything else, so that no object slips into a fingerprint by its repr.
    """
    return json.dumps(
        value, sort_keys=True, indent=indent, default=_plain, ensure_ascii=False, allow_nan=False
    )


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no canonical form: give plain values to the fingerprint")


def fingerprint(*parts: object) -> str:
    """Return the sha256 (64 hex digits) of the canonical JSON of the parts, in their order."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 (64 hex digits) of a file's content, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Give a temporary path beside ``final``; when the block ends well it is synced and renamed onto ``final``.

    Raises DiskFullError where no space is left; any error removes the temporary file and leaves ``final`` as it was.
    """
    refuse_links(final.parent)
    temp = final.with_name(f"{_TEMP}{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}-{final.name}")
    try:
        with space_for(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            yield temp
            sync(temp)
            refuse_full(final)
            temp.replace(final)
            sync(final.parent)
    finally:
        temp.unlink(missing_ok=True)


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def sync(path: Path) -> None:
    """Have the disk keep what a file or a folder holds now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(final: Path, data: bytes) -> None:
    """Replace ``final`` by ``data`` atomically."""
    with atomic_path(final) as temp:
        temp.write_bytes(data)


def write_text(final: Path, text: str) -> None:
    """Replace ``final`` by UTF-8 ``text`` atomically."""
    write_bytes(final, text.encode())


def write_json(final: Path, value: object) -> None:
    """Replace ``final`` by canonical JSON (sorted keys, one space of indent, final newline) atomically."""
    write_text(final, canonical_json(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Return the parsed JSON of a file of ours; raises DamagedFileError when it is not JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DamagedFileError(f"{path} is not JSON ({error}): remove it and run again") from error


@dataclasses.dataclass(frozen=True, slots=True)
class Sidecar:
    """What is known of a committed file."""

    bytes: int
    sha256: str
    fingerprint: str
    """Of everything that the content depends on: configuration, inputs, stage version."""
    records: int | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def sidecar_path(path: Path) -> Path:
    """Return the place of a file's sidecar."""
    return path.with_name(path.name + ".json")


def read_sidecar(path: Path) -> Sidecar | None:
    """Return the sidecar of ``path``, or None where there is none or it is not readable as one."""
    try:
        return Sidecar(**json.loads(sidecar_path(path).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


@contextlib.contextmanager
def commit_file(
    final: Path, fingerprint: str, *, records: int | None = None, extra: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """As :func:`atomic_path`, then write the sidecar; ``extra`` may be filled inside the block."""
    sidecar_path(final).unlink(missing_ok=True)
    with atomic_path(final) as temp:
        yield temp
    seal_file(final, fingerprint, records=records, extra=extra)


def seal_file(
    final: Path, fingerprint: str, *, records: int | None = None, extra: Mapping[str, Any] | None = None
) -> None:
    """Write the sidecar of a file that stands under its final name."""
    sidecar = Sidecar(final.stat().st_size, sha256_file(final), fingerprint, records, dict(extra or {}))
    write_json(sidecar_path(final), sidecar)


def is_good(path: Path, fingerprint: str | None = None, *, full: bool = False) -> bool:
    """Tell whether a committed file is what its sidecar says; a link in its place is not.

    Size and times are trusted; the content is hashed where the file is newer than its sidecar, or when ``full``.
    """
    sidecar = read_sidecar(path)
    if sidecar is None or (fingerprint is not None and sidecar.fingerprint != fingerprint):
        return False
    try:
        stat = path.lstat()
    except FileNotFoundError:
        return False
    if not S_ISREG(stat.st_mode) or stat.st_size != sidecar.bytes:
        return False
    newer = stat.st_mtime_ns > sidecar_path(path).stat().st_mtime_ns
    return sha256_file(path) == sidecar.sha256 if full or newer else True


def link_file(source: Path, target: Path) -> None:
    """Hard-link a committed file and its sidecar under another name; copy where links are impossible."""
    refuse_links(target.parent)
    with space_for(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for one, other in ((source, target), (sidecar_path(source), sidecar_path(target))):
            if one.exists() and not other.exists():
                _link_or_copy(one, other)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        with atomic_path(target) as temp:
            shutil.copy2(source, temp)


@contextlib.contextmanager
def lock(path: Path, run: str) -> Iterator[None]:
    """Hold an exclusive lock (flock) on ``path``; it falls with the process, also by kill -9.

    Raises LockedError that names the holder, OutputError where the folder cannot be written.
    """
    refuse_links(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise OutputError(
            f"{path.parent} cannot be written ({error.strerror}): choose another output"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                f"{path.parent} is locked by {_holder(handle)}: wait for it to end, or end it"
            ) from error
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        text = f"run {run} on {socket.gethostname()} (pid {os.getpid()}) since {now}\n"
        with space_for(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, text.encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(handle, 0)  # so that nobody names a run that is over
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    """Return what the holder of a lock wrote into it; one that took it this moment is about to write."""
    deadline = time.monotonic() + _HOLDER_WAIT_S
    while not (text := os.pread(handle, 4096, 0)) and time.monotonic() < deadline:
        time.sleep(0.005)
    return text.decode(errors="replace").strip() or "an unknown run"


def remove_temporaries(folder: Path) -> int:
    """Remove what killed writers of this host left below ``folder``; return how many files that were.

    A temporary name holds host and process id, so that the files of a writer that lives are left alone.
    """
    refuse_links(folder)
    stale = [path for path in folder.rglob(f"{_TEMP}{_host()}-*") if not _alive(path.name.split("-")[2])]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
