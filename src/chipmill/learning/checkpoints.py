"""The state of a training between two epochs: written whole or not at all, and read back to the bit.

Keras' own checkpoints are written in place, so a kill while saving loses the good one; they also forget the best
weights and how long ago they were. Here a state is one file under the commit protocol, and the last two are kept: a
damaged newest one costs one epoch, not the training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.store import commit_file, is_good, sidecar_path
from chipmill.learning.files import ModelDir

_KEPT: Final = 2

type Arrays = tuple[NDArray[Any], ...]
type Row = dict[str, float | int | None]


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """All that the next epoch depends on."""

    epoch: int = 0  # epochs done
    weights: Arrays = ()
    optimizer: Arrays = ()
    best: Arrays = ()  # weights of the best epoch so far
    best_epoch: int = 0  # counted from 1; 0 = none yet
    best_score: float | None = None  # validation mIoU of it
    history: tuple[Row, ...] = ()  # one row per epoch, the columns of history.csv


def save_state(files: ModelDir, state: State, fingerprint: str) -> None:
    """Commit a state and drop all but the last two."""
    facts = {
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "best_score": state.best_score,
        "history": list(state.history),
    }
    arrays = {
        f"{group}_{index:04d}": array
        for group in ("weights", "optimizer", "best")
        for index, array in enumerate(getattr(state, group))
    }
    with commit_file(files.epoch(state.epoch), fingerprint) as temp, temp.open("wb") as stream:
        np.savez(stream, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)
    for old in _states(files)[:-_KEPT]:
        old.unlink()
        sidecar_path(old).unlink(missing_ok=True)


def load_state(files: ModelDir, fingerprint: str) -> State:
    """Return the newest state of this training that is whole, hashed in full; a fresh one where there is none."""
    for path in reversed(_states(files)):
        if is_good(path, fingerprint, full=True):
            return _read(path)
    return State()


def _states(files: ModelDir) -> list[Path]:
    return sorted(files.epochs.glob("epoch-*.npz"))


def _read(path: Path) -> State:
    with np.load(path, allow_pickle=False) as stored:
        facts = json.loads(stored["facts"].tobytes())
        groups: dict[str, Sequence[NDArray[Any]]] = {
            group: tuple(stored[name] for name in sorted(stored.files) if name.startswith(f"{group}_"))
            for group in ("weights", "optimizer", "best")
        }
    return State(
        epoch=facts["epoch"],
        weights=tuple(groups["weights"]),
        optimizer=tuple(groups["optimizer"]),
        best=tuple(groups["best"]),
        best_epoch=facts["best_epoch"],
        best_score=facts["best_score"],
        history=tuple(facts["history"]),
    )
