"""Training states on disk: exact, the last two kept, a damaged one passed over."""

import numpy as np

from chipmill.learning.checkpoints import State, load_state, save_state
from chipmill.learning.files import ModelDir


def state(epoch):
    rng = np.random.default_rng(epoch)
    arrays = tuple(rng.normal(size=(3, 2)).astype(np.float32) for _ in range(12))
    row = {"epoch": epoch, "loss": 0.1 + epoch / 3, "val_miou": None, "learning_rate": 1e-3}
    return State(
        epoch, arrays, (*arrays, np.array(epoch, np.int64)), arrays[::-1], epoch, 0.1 * epoch, (row,)
    )


def same(one, other):
    groups = ("weights", "optimizer", "best")
    arrays = all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for group in groups
        for a, b in zip(getattr(one, group), getattr(other, group), strict=True)
    )
    return arrays and (one.epoch, one.best_epoch, one.best_score, one.history) == (
        other.epoch, other.best_epoch, other.best_score, other.history,
    )  # fmt: skip


def test_nothing_stored_is_a_fresh_state(tmp_path):
    assert load_state(ModelDir(tmp_path), "fp").epoch == 0


def test_a_state_comes_back_to_the_bit_and_two_are_kept(tmp_path):
    files = ModelDir(tmp_path)
    for epoch in (1, 2, 3):
        save_state(files, state(epoch), "fp")
    assert same(load_state(files, "fp"), state(3))
    assert sorted(path.name for path in files.epochs.glob("*.npz")) == ["epoch-00002.npz", "epoch-00003.npz"]


def test_a_damaged_newest_state_costs_one_epoch(tmp_path):
    files = ModelDir(tmp_path)
    save_state(files, state(1), "fp")
    save_state(files, state(2), "fp")
    data = bytearray(files.epoch(2).read_bytes())
    data[len(data) // 2] ^= 1
    files.epoch(2).write_bytes(data)
    assert same(load_state(files, "fp"), state(1))


def test_a_state_of_another_configuration_is_not_taken(tmp_path):
    save_state(ModelDir(tmp_path), state(1), "fp")
    assert load_state(ModelDir(tmp_path), "other").epoch == 0
