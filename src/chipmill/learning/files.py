"""Names of the files of a model version (see `core.paths` for the directories above it)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelDir:
    """One version of a model, or the attempt at one."""

    root: Path

    @property
    def model(self) -> Path:
        """What the model is and expects: all that is needed to rebuild it, but its weights."""
        return self.root / "model.json"

    @property
    def weights(self) -> Path:
        """The weights of the best epoch, as Keras reads them."""
        return self.root / "weights.weights.h5"

    @property
    def history(self) -> Path:
        """One row per epoch."""
        return self.root / "history.csv"

    @property
    def metrics(self) -> Path:
        """Figures of the held-out blocks."""
        return self.root / "metrics.json"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.root / "card.md"

    @property
    def item(self) -> Path:
        """STAC item with the machine learning model extension."""
        return self.root / "item.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.root / "report.html"

    @property
    def epochs(self) -> Path:
        """States of a training between two epochs; only attempts have it."""
        return self.root / "staging" / "epochs"

    def epoch(self, number: int) -> Path:
        """The state after `number` epochs."""
        return self.epochs / f"epoch-{number:05d}.npz"

    @property
    def products(self) -> tuple[Path, ...]:
        """Every file that a committed version must have."""
        return self.model, self.weights, self.history, self.metrics, self.card, self.item
