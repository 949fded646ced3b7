"""fit_model on a real dataset: it learns, it is the same to the byte, and a stop costs nothing but time."""

import csv
import dataclasses

import numpy as np
import pytest
from tests import stack_world
from tests.learning.conftest import train_config
from tests.learning_world import commit, learnable

from chipmill.core.errors import BadInputError, SchemaMismatchError, SplitMismatchError, TrainingError
from chipmill.core.store import sha256_file
from chipmill.learning import losses, training
from chipmill.learning.feed import Feed
from chipmill.learning.files import ModelDir
from chipmill.learning.training import fit_model, model_fingerprint

pytestmark = pytest.mark.tensorflow


class Stopped(BaseException):
    """What ends a process between two epochs."""


def stop_after(epoch):
    def progress(done, _total, _row):
        if done == epoch:
            raise Stopped

    return progress


def digests(fit):
    files = ModelDir(fit.path)
    return sha256_file(files.weights), sha256_file(files.history)


@pytest.fixture(scope="module")
def straight(ground, tmp_path_factory):
    """A training in one go, and what it said of its progress."""
    calls = []
    train = train_config(tmp_path_factory.mktemp("straight"))
    fit = fit_model((ground.dataset,), train, lambda *call: calls.append(call))
    return train, fit, calls


def test_it_learns_and_tells_its_progress(straight):
    _, fit, calls = straight
    assert [call[:2] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    losses_, scores = [call[2]["loss"] for call in calls], [call[2]["val_miou"] for call in calls]
    assert losses_[-1] < 0.6 * losses_[0]
    assert max(scores) > 0.8
    assert fit.best_epoch == 1 + int(np.argmax(scores))
    with ModelDir(fit.path).history.open() as stream:
        assert [float(row["val_miou"]) for row in csv.DictReader(stream)] == pytest.approx(scores)


def test_a_stopped_training_ends_with_the_bytes_of_an_uninterrupted_one(ground, straight, tmp_path):
    train = train_config(tmp_path)
    for epoch in (1, 2):
        with pytest.raises(Stopped):
            fit_model((ground.dataset,), train, stop_after(epoch))
    epochs = []
    fit = fit_model((ground.dataset,), train, lambda done, *_: epochs.append(done))
    assert epochs == [3]
    assert digests(fit) == digests(straight[1])


def test_a_finished_training_is_found_again(ground, straight):
    train, fit, _ = straight
    assert fit_model((ground.dataset,), train, stop_after(1)) == fit


def test_nan_names_epoch_and_batch(ground, tmp_path, monkeypatch):
    monkeypatch.setitem(
        losses.LOSSES, "dice+ce", lambda label, logits: losses.dice(label, logits) * float("nan")
    )
    with pytest.raises(TrainingError, match="nan in epoch 1, batch 1: lower learning_rate"):
        fit_model((ground.dataset,), train_config(tmp_path))


def test_patience_ends_a_training_that_gets_no_better(ground, tmp_path):
    train = train_config(tmp_path, epochs=30, patience=2, learning_rate=1e-9)
    fit = fit_model((ground.dataset,), train)
    assert fit.epochs == fit.best_epoch + 2 < 30


def test_the_fingerprint_follows_what_is_learnt_not_where_it_is_put(ground, tmp_path):
    train, sets = train_config(tmp_path), (ground.dataset,)
    mark = model_fingerprint(train, sets)
    assert model_fingerprint(train_config(tmp_path / "x", name="other"), sets) == mark
    for changes in ({"seed": 9}, {"loss": "ce"}, {"preset": "small"}, {"epochs": 4}, {"augment": False}):
        assert model_fingerprint(train_config(tmp_path, **changes), sets) != mark
    assert model_fingerprint(train, (dataclasses.replace(ground.dataset, fingerprint="z"),)) != mark


def test_two_datasets_are_one_feed_and_their_statistics_those_of_the_union(ground, tmp_path, monkeypatch):
    from chipmill.dataset.union import dataset_schema, merged_schema

    overlapping = commit(learnable(tmp_path / "near", 4, 4, seed=11, dataset=_rules(32, 16)))[1]
    with pytest.raises(SplitMismatchError, match="are in"):
        fit_model((ground.dataset, overlapping), train_config(tmp_path))
    monkeypatch.setattr(stack_world, "ORIGIN", (60_032, 500_032))
    other = commit(learnable(tmp_path / "second", 4, 4, seed=11, dataset=_rules(32, 16)))[1]
    feed = Feed((ground.dataset, other), "train")
    parts = [Feed((one,), "train") for one in (ground.dataset, other)]
    assert len(feed) == sum(len(part) for part in parts)
    image, label = feed.read([len(parts[0]) - 1, len(parts[0])])
    assert (image[0] == parts[0].read([len(parts[0]) - 1])[0][0]).all()
    assert (label[1] == parts[1].read([0])[1][0]).all()
    merged = merged_schema([ground.dataset.path, other.path])
    own = [dataset_schema(one.path).sums[0] for one in (ground.dataset, other)]
    assert merged.sums[0].n == own[0].n + own[1].n
    fit = fit_model((ground.dataset, other), train_config(tmp_path, epochs=1))
    assert fit.epochs == 1


def test_datasets_that_do_not_fit_together_are_refused_before_work(ground, tmp_path):
    other = commit(learnable(tmp_path / "second", 4, 4, indices=[], dataset=_rules(32, 16)))[1]
    with pytest.raises(SchemaMismatchError, match="bands differs"):
        fit_model((ground.dataset, other), train_config(tmp_path))


def test_chips_that_the_network_cannot_halve_are_refused(tmp_path):
    odd = commit(learnable(tmp_path / "odd", 4, 4, dataset=_rules(31, 16)))[1]
    with pytest.raises(BadInputError, match="chips of 31 px"):
        fit_model((odd,), train_config(tmp_path))


def test_nothing_to_learn_from_is_said(tmp_path):
    with pytest.raises(TrainingError, match="nothing to learn from"):
        fit_model((), train_config(tmp_path))


def test_the_learning_rate_rises_then_falls_to_zero():
    class Plan:
        train, steps = train_config("x", epochs=10, learning_rate=0.02), 20

    rates = [training._Session.rate(Plan, step) for step in range(200)]
    assert rates[0] == pytest.approx(0.002)
    assert max(rates) == pytest.approx(0.02, rel=0.02)
    assert rates.index(max(rates)) == 9
    assert rates[-1] < 1e-5


def _rules(size, stride):
    return {
        "chips": {"size_px": size, "stride_px": stride},
        "splits": {"block_px": 32, "train": 0.6, "val": 0.2, "test": 0.2},
    }
