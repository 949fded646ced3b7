"""An output folder appears whole or not at all, whatever happens while it is written."""

import errno
import fcntl
import os

import pytest

from chipmill.core.errors import DiskFullError, LockedError, OutputError, StoreError
from chipmill.exchange.staging import new_folder


def test_it_appears_when_the_block_ends_and_not_before(tmp_path):
    with new_folder(tmp_path / "a" / "out") as staging:
        (staging / "sub").mkdir()
        (staging / "sub" / "x").write_text("1")
        assert not (tmp_path / "a" / "out").exists()
    assert (tmp_path / "a" / "out" / "sub" / "x").read_text() == "1"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_an_error_leaves_nothing(tmp_path, error):
    def work():
        with new_folder(tmp_path / "out") as staging:
            (staging / "x").write_text("1")
            raise error

    with pytest.raises(type(error)):
        work()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(DiskFullError, match=r"no space is left to write .*out"), new_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_conversion_left_is_cleared(tmp_path):
    left = tmp_path / ".out.partial"
    (left / "sub").mkdir(parents=True)
    (left / "sub" / "old").write_text("1")
    (left / "link").symlink_to(tmp_path)
    with new_folder(tmp_path / "out") as staging:
        assert list(staging.iterdir()) == []
    assert list((tmp_path / "out").iterdir()) == [] and list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_two_at_once_do_not_share_a_folder(tmp_path):
    with new_folder(tmp_path / "out") as staging:
        (staging / "x").write_text("1")
        with pytest.raises(LockedError, match="another conversion"), new_folder(tmp_path / "out"):
            pass
        assert (staging / "x").exists()
    assert (tmp_path / "out" / "x").exists()


def test_a_claim_on_a_folder_that_is_gone_counts_for_nothing(tmp_path, monkeypatch):
    real = fcntl.flock

    def replaced(handle, how):
        real(handle, how)
        (tmp_path / ".out.partial").rename(tmp_path / "taken")
        (tmp_path / ".out.partial").mkdir()

    monkeypatch.setattr(fcntl, "flock", replaced)
    with pytest.raises(LockedError), new_folder(tmp_path / "out"):
        pass


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text("1")])
def test_nothing_that_stands_is_written_over_even_if_it_came_meanwhile(tmp_path, make):
    with pytest.raises(OutputError, match="is there already"), new_folder(tmp_path / "out"):
        make(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_links_are_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="link"), new_folder(tmp_path / "out"):
        pass
    (tmp_path / ".next.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="link"), new_folder(tmp_path / "next"):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("1")
    with pytest.raises(OutputError, match="cannot be written"), new_folder(tmp_path / "file" / "out"):
        pass
