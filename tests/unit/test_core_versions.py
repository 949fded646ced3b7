import pytest

from chipmill.core.errors import StoreError, VersionNotFoundError
from chipmill.core.store import commit_file, is_good
from chipmill.core.versions import Versions, open_attempt, prune, publish, seed


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path / "versions", tmp_path / "CURRENT")


def _put(path, text, fingerprint="f"):
    with commit_file(path, fingerprint) as temp:
        temp.write_text(text)


def test_an_attempt_of_the_same_configuration_is_continued(versions):
    first = open_attempt(versions, "a")
    _put(first / "x.txt", "1")
    assert open_attempt(versions, "a") == first and (first / "x.txt").exists()
    assert first.name == ".1"


def test_another_configuration_or_fresh_discards_the_attempt(versions):
    first = open_attempt(versions, "a")
    _put(first / "x.txt", "1")
    assert not (open_attempt(versions, "b") / "x.txt").exists()
    _put(first / "x.txt", "1")
    assert not (open_attempt(versions, "b", fresh=True) / "x.txt").exists()


def test_publish_moves_the_attempt_swaps_the_pointer_and_can_be_repeated(versions):
    attempt = open_attempt(versions, "a")
    _put(attempt / "x.txt", "1")
    assert versions.current() is None
    assert publish(versions, attempt) == 1 == publish(versions, attempt)
    assert versions.pointer.read_text() == "1\n"
    assert sorted(path.name for path in versions.current_path().iterdir()) == ["x.txt", "x.txt.json"]
    assert open_attempt(versions, "a").name == ".2"


def test_publish_of_an_attempt_that_is_gone_says_so(versions):
    with pytest.raises(StoreError, match="gone"):
        publish(versions, versions.attempt_path(3))


def test_seed_takes_good_files_only(versions):
    old = open_attempt(versions, "a")
    for name in ("good.txt", "bad.txt", "left.txt", "deep/good.txt"):
        _put(old / name, name)
    (old / "stray.txt").write_text("no sidecar")
    publish(versions, old)
    (versions.path(1) / "bad.txt").write_text("cut")
    attempt = open_attempt(versions, "b")
    assert seed(attempt, versions.path(1), leave=("left.txt",)) == 2
    assert is_good(attempt / "good.txt") and is_good(attempt / "deep/good.txt")
    assert not any((attempt / name).exists() for name in ("bad.txt", "left.txt", "stray.txt"))


def test_the_newest_version_counts_where_a_kill_left_the_pointer_behind(versions):
    assert versions.newest() is None
    for _ in range(2):
        publish(versions, open_attempt(versions, "a"))
    versions.pointer.write_text("1\n")
    assert (versions.current(), versions.newest()) == (1, 2)
    assert open_attempt(versions, "a").name == ".3"


def test_prune_keeps_what_is_named(versions):
    attempt = open_attempt(versions, "a")
    for name in ("keep.txt", "shards/old.txt"):
        _put(attempt / name, name)
    prune(attempt, [attempt / "keep.txt"])
    left = sorted(path.relative_to(attempt).as_posix() for path in attempt.rglob("*") if path.is_file())
    assert left == ["keep.txt", "keep.txt.json", "units/attempt.json"]


def test_no_version_in_force(versions):
    with pytest.raises(VersionNotFoundError, match="no version in force"):
        versions.current_path()
    versions.pointer.parent.mkdir(parents=True, exist_ok=True)
    versions.pointer.write_text("seven\n")
    with pytest.raises(StoreError, match="number"):
        versions.current()
    versions.pointer.write_text("7\n")
    assert versions.current() is None
