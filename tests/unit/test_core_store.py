import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chipmill.core import store
from chipmill.core.errors import DamagedFileError, DiskFullError, LockedError


def test_fingerprint_depends_on_values_and_order_of_parts_only():
    assert store.fingerprint({"b": 1, "a": [2, Path("x")]}) == store.fingerprint({"a": [2, "x"], "b": 1})
    assert store.fingerprint("a", "b") != store.fingerprint("b", "a")
    assert store.fingerprint(1) != store.fingerprint("1")


def test_fingerprint_refuses_what_has_no_canonical_form():
    with pytest.raises(TypeError, match="set"):
        store.fingerprint({1, 2})
    with pytest.raises(ValueError, match="nan"):
        store.fingerprint(float("nan"))


def test_commit_leaves_file_and_sidecar_that_agree(tmp_path):
    final = tmp_path / "deep" / "a.bin"
    with store.commit_file(final, "f1", records=3, extra={"k": 1}) as temp:
        temp.write_bytes(b"hello")
    assert final.read_bytes() == b"hello"
    sidecar = store.read_sidecar(final)
    assert (sidecar.bytes, sidecar.fingerprint, sidecar.records, sidecar.extra) == (5, "f1", 3, {"k": 1})
    assert sidecar.sha256 == store.sha256_file(final)
    assert sorted(path.name for path in final.parent.iterdir()) == ["a.bin", "a.bin.json"]


def test_an_error_inside_the_block_leaves_the_old_file(tmp_path):
    final = tmp_path / "a.txt"
    store.write_text(final, "old")
    with pytest.raises(IsADirectoryError), store.atomic_path(final) as temp:  # noqa: PT012
        temp.write_text("new")
        tmp_path.read_text()
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "open"])
def test_every_failing_call_of_a_commit_leaves_no_half_file(tmp_path, monkeypatch, code, call):
    final = tmp_path / "a.txt"
    store.write_text(final, "old")
    real = getattr(os, call)
    for number in range(1, 10):
        seen = 0

        def failing(*args, _number=number, **kwargs):
            nonlocal seen
            seen += 1
            if seen == _number:
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        monkeypatch.setattr(store.os, call, failing)
        try:
            store.write_text(final, f"new {number}")
            broken = False
        except OSError as error:
            broken = True
            kind = isinstance(error, DiskFullError)
        finally:
            monkeypatch.setattr(store.os, call, real)
        if broken:
            assert kind == (code == errno.ENOSPC)
        assert final.read_text() in {"old", *(f"new {one}" for one in range(1, number + 1))}
        assert list(tmp_path.iterdir()) == [final]
        if not broken:
            return
    pytest.fail("the loop never reached a commit without a fault")


def test_is_good_sees_missing_cut_changed_and_foreign_files(tmp_path):
    final = tmp_path / "a.bin"
    with store.commit_file(final, "f1") as temp:
        temp.write_bytes(b"12345678")
    assert store.is_good(final) and store.is_good(final, "f1") and not store.is_good(final, "f2")
    final.write_bytes(b"1234567")
    assert not store.is_good(final)
    final.write_bytes(b"12345679")
    os.utime(final, ns=(time.time_ns() + 10**9,) * 2)
    assert not store.is_good(final), "newer than its sidecar: hashed"
    final.write_bytes(b"12345678")
    os.utime(final, ns=(time.time_ns() + 10**9,) * 2)
    assert store.is_good(final), "touched but the same"
    final.unlink()
    assert not store.is_good(final)


def test_only_a_full_check_finds_old_bit_rot(tmp_path):
    final = tmp_path / "a.bin"
    with store.commit_file(final, "f1") as temp:
        temp.write_bytes(b"12345678")
    stat = final.stat()
    final.write_bytes(b"12345679")
    os.utime(final, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.is_good(final)
    assert not store.is_good(final, full=True)


def test_linked_files_are_good_and_share_their_bytes(tmp_path):
    source, target = tmp_path / "a" / "x.bin", tmp_path / "b" / "x.bin"
    with store.commit_file(source, "f") as temp:
        temp.write_bytes(b"1")
    store.link_file(source, target)
    assert store.is_good(target, "f") and source.stat().st_ino == target.stat().st_ino


def test_read_json_names_the_damaged_file(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(DamagedFileError, match=r"x\.json"):
        store.read_json(path)


def test_a_second_lock_names_the_holder_and_falls_with_kill_9(tmp_path):
    path = tmp_path / "cell" / ".lock"
    code = (
        "import sys, pathlib\nfrom chipmill.core.store import lock\n"
        "with lock(pathlib.Path(sys.argv[1]), 'other'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=rf"run other .*pid {holder.pid}"), store.lock(path, "mine"):
            pass
        holder.kill()
    with store.lock(path, "mine"):
        assert "run mine" in path.read_text()


def test_temporaries_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path):
    code = (
        "import sys, os, pathlib\nfrom chipmill.core.store import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as temp:\n    temp.write_text('x')\n    os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "dead")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with store.atomic_path(tmp_path / "living") as temp:
        temp.write_text("y")
        assert store.remove_temporaries(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [temp]


def test_canonical_json_is_readable_and_ends_with_a_newline(tmp_path):
    store.write_json(tmp_path / "x.json", {"b": 1, "a": "é"})
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == {"a": "é", "b": 1}
    assert text == '{\n "a": "é",\n "b": 1\n}\n'
