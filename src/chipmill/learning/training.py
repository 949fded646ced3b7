"""fit_model: from shards to the weights of the best epoch. Another optimiser, schedule or stopping rule: change it here.

A training is a chain of epochs, and each is a pure function of the state before it: the order of the chips and their
turns come from (seed, epoch), the network has no random layer, and TensorFlow runs its deterministic kernels. The
state is committed after each epoch, so a killed training goes on at that border and ends with the same bytes.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from chipmill.core.errors import TrainingError
from chipmill.core.paths import OutputDir
from chipmill.core.store import commit_file, fingerprint, is_good, link_file, lock, read_sidecar
from chipmill.core.versions import Versions, open_attempt
from chipmill.dataset.manifest import DatasetRef
from chipmill.dataset.union import InputSchema, merged_schema
from chipmill.learning import augmentation, losses, model, schema
from chipmill.learning.checkpoints import Row, State, load_state, save_state
from chipmill.learning.feed import Batch, Feed
from chipmill.learning.files import ModelDir
from chipmill.learning.metrics import confusion_matrix, plain, score
from chipmill.region.jobs import TrainConfig

STAGE_VERSION: Final = 1
_WARM_UP: Final = 0.05  # share of all steps in which the rate rises
_WEIGHT_DECAY: Final = 1e-4

type Progress = Callable[[int, int, Mapping[str, float | int | None]], None]
"""Called after each epoch with (epochs done, epochs at most, row of history.csv)."""


@dataclass(frozen=True, slots=True)
class FitRef:
    """A trained network in its attempt."""

    path: Path  # directory of the attempt
    fingerprint: str  # of the model: configuration, datasets, stage versions
    epochs: int
    best_epoch: int  # counted from 1


def model_fingerprint(train: TrainConfig, datasets: Sequence[DatasetRef]) -> str:
    """Return what identifies a model: the training configuration without names and places, and what it learnt from."""
    config = train.model_dump(mode="json", exclude={"name", "output", "file", "datasets"})
    stages = [STAGE_VERSION, model.STAGE_VERSION, losses.STAGE_VERSION, schema.STAGE_VERSION]
    widths = model.preset_widths(train.preset)
    return fingerprint("model", stages, config, widths, [one.fingerprint for one in datasets])


def model_versions(train: TrainConfig) -> Versions:
    """Return the versioned directory of the model that a train file names."""
    return OutputDir(train.output_dir).models(train.name)


def fit_model(
    datasets: tuple[DatasetRef, ...],
    train: TrainConfig,
    progress: Progress | None = None,
    run: str = "",
) -> FitRef:
    """Train on the union of `datasets` and commit weights and history in the model's attempt.

    A finished training is found again, in the attempt or in the version in force, and a killed one is continued.
    Raises SchemaMismatchError when the datasets differ in bands, scales or classes, BadInputError for a chip size
    that the network cannot halve, TrainingError when there is no chip or the loss is not a number.
    """
    if not datasets:
        raise TrainingError(f"model {train.name} has nothing to learn from: list region files under datasets")
    merged = merged_schema([one.path for one in datasets])
    model.check_chip_size(merged.chip_px, model.preset_widths(train.preset))
    mark, versions = model_fingerprint(train, datasets), model_versions(train)
    with lock(versions.folder / ".lock", run):
        files = ModelDir(open_attempt(versions, mark))
        adopt_products(versions, files, mark, ("weights", "history"))
        if not _is_fitted(files, mark):
            _fit(datasets, train, merged, files, mark, progress)
    extra = read_sidecar(files.weights)
    facts: Mapping[str, Any] = extra.extra if extra is not None else {}
    return FitRef(files.root, mark, int(facts["epochs"]), int(facts["best_epoch"]))


def adopt_products(versions: Versions, files: ModelDir, mark: str, names: Sequence[str]) -> None:
    """Hard-link what the newest version has already, good and of the same fingerprint, into the attempt."""
    number = versions.newest()
    if number is None:
        return
    current = ModelDir(versions.path(number))
    for name in names:
        source, target = getattr(current, name), getattr(files, name)
        if is_good(source, mark) and not is_good(target, mark):
            link_file(source, target)


def _is_fitted(files: ModelDir, mark: str) -> bool:
    return is_good(files.weights, mark) and is_good(files.history, mark)


def _fit(
    datasets: tuple[DatasetRef, ...],
    train: TrainConfig,
    merged: InputSchema,
    files: ModelDir,
    mark: str,
    progress: Progress | None,
) -> None:
    chips, held = Feed(datasets, "train"), Feed(datasets, "val")
    if not len(chips):
        raise TrainingError(
            f"model {train.name}: the datasets hold no training chip: loosen dataset.select, or take a larger area"
        )
    session = _Session(train, merged, max(1, len(chips) // train.batch_size))
    state = load_state(files, mark)
    session.restore(state)
    while state.epoch < train.epochs and not _is_stale(state, train.patience):
        loss = session.train_epoch(chips, state.epoch)
        held_score = session.validate(held) if len(held) else None
        row: Row = {
            "epoch": state.epoch + 1,
            "loss": loss,
            "val_miou": held_score,
            "learning_rate": session.rate(session.steps * (state.epoch + 1) - 1),
        }
        state = session.advance(state, row)
        save_state(files, state, mark)
        if progress is not None:
            progress(state.epoch, train.epochs, row)
    _write_history(files, state, mark)
    session.write_best(files, state, mark)


def _is_stale(state: State, patience: int) -> bool:
    """Tell whether `patience` epochs went by without a better score; never without validation chips."""
    return state.best_score is not None and state.epoch - state.best_epoch >= patience


class _Session:
    """The network and its optimiser while a training runs."""

    def __init__(self, train: TrainConfig, merged: InputSchema, steps: int) -> None:
        self.keras = model.import_keras()
        model.make_deterministic(train.seed)
        self.train, self.steps, self.classes = train, steps, len(merged.classes)
        self.net = model.build_for(merged, train.preset)
        self.optimizer = self.keras.optimizers.AdamW(train.learning_rate, weight_decay=_WEIGHT_DECAY)
        self.optimizer.build(self.net.trainable_variables)
        self.step = self._compile_step()
        self.predict = model.logits_fn(self.net)

    def _compile_step(self) -> Callable[..., Any]:
        import tensorflow as tf

        loss_fn, net, optimizer = losses.LOSSES[self.train.loss], self.net, self.optimizer

        def step(image: Any, label: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = loss_fn(label, net(image, training=True))
            gradients = tape.gradient(loss, net.trainable_variables)
            optimizer.apply(gradients, net.trainable_variables)
            return loss

        compiled: Callable[..., Any] = tf.function(step, reduce_retracing=True)
        return compiled

    def rate(self, step: int) -> float:
        """Return the learning rate of a step counted over all epochs: a linear rise, then half a cosine to 0."""
        total = self.steps * self.train.epochs
        rise = min(1.0, (step + 1) / max(1.0, _WARM_UP * total))
        return self.train.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / total))

    def train_epoch(self, chips: Feed, epoch: int) -> float:
        """Train on every chip once, in an order of (seed, epoch); return the mean loss."""
        order = np.random.default_rng([self.train.seed, epoch]).permutation(len(chips))
        size, total = self.train.batch_size, 0.0
        groups = [order[step * size : (step + 1) * size] for step in range(self.steps)]

        def turn(step: int, batch: Batch) -> Batch:
            return augmentation.augment(*batch, self.train.seed, epoch, step) if self.train.augment else batch

        for step, (image, label) in enumerate(chips.batches(groups, turn)):
            self.optimizer.learning_rate.assign(self.rate(epoch * self.steps + step))
            loss = float(self.step(image.astype(np.float32), label))
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss of model {self.train.name} is {loss} in epoch {epoch + 1}, batch {step + 1}: "
                    f"lower learning_rate (now {self.train.learning_rate:g}) or look at the chips of that batch"
                )
            total += loss
        return total / self.steps

    def validate(self, held: Feed) -> float:
        """Return the mIoU over the valid pixels of all validation chips."""
        counts = np.zeros((self.classes, self.classes), np.int64)
        size = self.train.batch_size
        groups = [np.arange(first, min(first + size, len(held))) for first in range(0, len(held), size)]
        for image, label in held.batches(groups):
            counts += confusion_matrix(label, self.predict(image).argmax(axis=-1), self.classes)
        # no valid pixel at all: nothing was told apart
        return plain(score(counts).miou) or 0.0

    def advance(self, state: State, row: Row) -> State:
        """Return the state after an epoch; the first of equally good epochs stays the best."""
        weights = tuple(variable.numpy() for variable in self.net.weights)
        optimizer = tuple(variable.numpy() for variable in self.optimizer.variables)
        after = replace(
            state, epoch=state.epoch + 1, weights=weights, optimizer=optimizer, history=(*state.history, row)
        )
        value = row["val_miou"]
        if value is None or state.best_score is None or value > state.best_score:
            after = replace(after, best=weights, best_epoch=after.epoch, best_score=value)
        return after

    def restore(self, state: State) -> None:
        """Set network and optimiser to a state; a fresh one leaves their first values."""
        if state.epoch:
            _assign(self.net.weights, state.weights)
            _assign(self.optimizer.variables, state.optimizer)

    def write_best(self, files: ModelDir, state: State, mark: str) -> None:
        """Commit the weights of the best epoch."""
        _assign(self.net.weights, state.best)
        facts = {"epochs": state.epoch, "best_epoch": state.best_epoch, "parameters": self.net.count_params()}
        with commit_file(files.weights, mark, extra=facts) as temp:
            # Keras insists on the ending of the name
            named = temp.with_name(f"{temp.name}.weights.h5")
            self.net.save_weights(named)
            named.rename(temp)


def _assign(variables: Sequence[Any], values: Sequence[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _write_history(files: ModelDir, state: State, mark: str) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, ["epoch", "loss", "val_miou", "learning_rate"], lineterminator="\n")
    table.writeheader()
    table.writerows(state.history)
    with commit_file(files.history, mark, records=len(state.history)) as temp:
        temp.write_text(text.getvalue())
