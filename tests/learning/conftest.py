"""One committed dataset and one trained model for all tests of this folder; TensorFlow is imported once."""

import dataclasses
from pathlib import Path

import pytest
from tests.learning_world import commit, learnable

from chipmill.dataset.manifest import DatasetRef
from chipmill.learning.bundle import ModelRef, publish_model, seal_model
from chipmill.learning.evaluation import evaluate_model
from chipmill.learning.training import fit_model
from chipmill.region.config import Region
from chipmill.region.jobs import TrainConfig

RULES = {
    "chips": {"size_px": 32, "stride_px": 16},
    "splits": {"block_px": 32, "train": 0.6, "val": 0.2, "test": 0.2},
}


@dataclasses.dataclass
class Ground:
    """A region with its dataset."""

    region: Region
    dataset: DatasetRef


@pytest.fixture(scope="session")
def ground(tmp_path_factory) -> Ground:
    return Ground(*commit(learnable(tmp_path_factory.mktemp("ground"), 4, 4, dataset=RULES)))


def train_config(output: Path, **changes) -> TrainConfig:
    values = {"name": "toy", "preset": "tiny", "epochs": 3, "batch_size": 8, "learning_rate": 0.01}
    return TrainConfig(**(values | {"output": str(output)} | changes))


def make_model(train: TrainConfig, *datasets: DatasetRef) -> ModelRef:
    """Fit, evaluate, seal, publish."""
    fit = fit_model(datasets, train)
    return publish_model(seal_model(datasets, fit, evaluate_model(datasets, fit, train), train), train)


@pytest.fixture(scope="session")
def trained(ground, tmp_path_factory) -> tuple[TrainConfig, ModelRef]:
    train = train_config(tmp_path_factory.mktemp("model"))
    return train, make_model(train, ground.dataset)
