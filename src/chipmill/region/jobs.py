"""Parameters of train.yaml and predict.yaml: one model learns from many regions and maps regions that have no label."""

from typing import Annotated, Literal

from pydantic import Field

from chipmill.region.fields import FileModel, Fraction, Id


class TrainConfig(FileModel):
    """What to learn, from what, and how."""

    name: Id
    """Name of the model, a directory of the output."""
    datasets: tuple[str, ...] = ()
    """Region files whose versions in force are learnt from, relative to this file."""
    preset: Literal["tiny", "small", "base"] = "small"
    """Size of the U-Net: tiny for tests, small for a CPU, base for a GPU."""
    loss: Literal["dice+ce", "ce"] = "dice+ce"
    """Loss over valid pixels; ignore (255) never counts."""
    epochs: Annotated[int, Field(ge=1, le=10000)] = 40
    """Most epochs."""
    patience: Annotated[int, Field(ge=1)] = 10
    """Epochs without a better validation mIoU after which training ends."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    """Chips per step."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Largest learning rate."""
    augment: bool = True
    """Flips and quarter turns of the training chips."""
    seed: int = 8
    """Seed of the weights, the order and the augmentation."""


class PredictConfig(FileModel):
    """What to map, with which model, and how."""

    regions: tuple[str, ...] = ()
    """Region files to map, relative to this file; they need no label."""
    model: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}(@[1-9][0-9]*)?$")]
    """Name of the model: the version in force, or name@3."""
    overlap: Annotated[Fraction, Field(lt=1)] = 0.25
    """Share of a window's side by which neighbouring windows overlap."""
    decision: Literal["argmax"] = "argmax"
    """How probabilities become a class."""
