"""The model directory: sealed, published, found again, loaded. The file to change for what a model version holds.

A bundle is model.json (what to build and what it expects) beside the weights. No code and no pickle is in it, and
Keras' own model files, which can carry code, are never loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import ConfigDict

from chipmill.core.errors import DamagedFileError, TrainingError, VersionNotFoundError
from chipmill.core.paths import OutputDir
from chipmill.core.store import commit_file, is_good, lock, read_json, read_sidecar, write_json
from chipmill.core.versions import publish
from chipmill.dataset.manifest import DatasetRef
from chipmill.dataset.union import InputSchema, merged_schema
from chipmill.learning import model
from chipmill.learning.card import model_card, model_item
from chipmill.learning.evaluation import MetricsRef
from chipmill.learning.files import ModelDir
from chipmill.learning.schema import schema_from_json, schema_to_json
from chipmill.learning.training import FitRef, model_fingerprint, model_versions
from chipmill.region.jobs import TrainConfig

STAGE_VERSION: Final = 1
_SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model version, or a sealed attempt at one."""

    # a parameter of flows: the form of the UI shows these texts
    __pydantic_config__: ClassVar = ConfigDict(use_attribute_docstrings=True)

    path: Path
    """Its directory."""
    name: str
    """Name of the model."""
    version: int
    """The number that it has or will have."""
    fingerprint: str
    """Of what it was made of."""
    miou: float | None
    """Mean IoU (0 to 1) on the held-out test blocks; null where there are none."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What model.json says."""

    path: Path
    name: str
    version: int
    fingerprint: str
    preset: str
    temperature: float
    schema: InputSchema
    weights_sha256: str


def seal_model(
    datasets: Sequence[DatasetRef], fit: FitRef, metrics: MetricsRef, train: TrainConfig, run: str = ""
) -> ModelRef:
    """Write model.json, the card and the STAC item into the attempt, which then lacks only the report.

    Raises TrainingError when the attempt was trained by another configuration.
    """
    if fit.fingerprint != model_fingerprint(train, datasets):
        raise TrainingError(
            f"{fit.path} was trained by another configuration of {train.name}: run the same command again"
        )
    files, number = ModelDir(fit.path), int(fit.path.name.removeprefix("."))
    with lock(files.root.parent / ".lock", run):
        facts = _facts(datasets, fit, metrics, train, number)
        figures = read_json(files.metrics)
        with commit_file(files.model, fit.fingerprint) as temp:
            write_json(temp, facts)
        with commit_file(files.card, fit.fingerprint) as temp:
            temp.write_text(model_card(facts, figures))
        with commit_file(files.item, fit.fingerprint) as temp:
            write_json(temp, model_item(facts, files.weights))
    return ModelRef(fit.path, train.name, number, fit.fingerprint, metrics.miou)


def _facts(
    datasets: Sequence[DatasetRef], fit: FitRef, metrics: MetricsRef, train: TrainConfig, number: int
) -> dict[str, Any]:
    """Return the content of model.json."""
    sidecar = read_sidecar(ModelDir(fit.path).weights)
    if sidecar is None:
        raise DamagedFileError(f"{fit.path} has no good weights: run the same command again")
    merged = merged_schema([one.path for one in datasets])
    return {
        "schema_version": _SCHEMA_VERSION,
        "name": train.name,
        "version": number,
        "fingerprint": fit.fingerprint,
        "architecture": "unet",
        "preset": train.preset,
        "widths": list(model.preset_widths(train.preset)),
        "parameters": sidecar.extra["parameters"],
        "input": schema_to_json(merged),
        "temperature": metrics.temperature,
        "train": train.model_dump(mode="json", exclude={"output", "file"}),
        "epochs": fit.epochs,
        "best_epoch": fit.best_epoch,
        "datasets": [
            {"fingerprint": one.fingerprint, "version": one.version, "chips": one.chips} for one in datasets
        ],
        "weights": {
            "file": ModelDir(fit.path).weights.name,
            "bytes": sidecar.bytes,
            "sha256": sidecar.sha256,
        },
    }


def publish_model(ref: ModelRef, train: TrainConfig, run: str = "") -> ModelRef:
    """Make a sealed attempt the version in force; safe to repeat."""
    versions = model_versions(train)
    with lock(versions.folder / ".lock", run):
        number = publish(versions, ref.path)
    return ModelRef(versions.path(number), ref.name, number, ref.fingerprint, ref.miou)


def current_model(train: TrainConfig, datasets: Sequence[DatasetRef]) -> ModelRef | None:
    """Return the version in force when it is what this configuration would make of these datasets, and whole.

    None: there is something to do (train, or only evaluate, see `training.adopt_products`).
    """
    versions = model_versions(train)
    number = versions.current()
    if number is None:
        return None
    files, mark = ModelDir(versions.path(number)), model_fingerprint(train, datasets)
    own = [files.model, files.weights, files.history, files.card, files.item]
    if not all(is_good(path, mark) for path in own) or not is_good(files.metrics):
        return None
    return ModelRef(files.root, train.name, number, mark, _miou(files))


def _miou(files: ModelDir) -> float | None:
    value: float | None = read_json(files.metrics)["miou"]
    return value


def find_model(name: str, output: Path) -> ModelRef:
    """Return a model by `name` (the version in force) or `name@3`, below an output directory.

    Raises VersionNotFoundError where there is none.
    """
    plain, _, wanted = name.partition("@")
    versions = OutputDir(output).models(plain)
    number = int(wanted) if wanted else versions.current()
    if number is None or not versions.path(number).is_dir():
        raise VersionNotFoundError(
            f"model {name} is not in {versions.folder}: train it first, or give the output of its train file"
        )
    files = ModelDir(versions.path(number))
    return ModelRef(files.root, plain, number, load_bundle(files.root).fingerprint, _miou(files))


def load_bundle(path: Path) -> Bundle:
    """Read model.json of a version; raises DamagedFileError when a key is missing or the format is a later one."""
    facts = read_json(ModelDir(path).model)
    try:
        if facts["schema_version"] != _SCHEMA_VERSION:
            raise DamagedFileError(
                f"{path} has model format {facts['schema_version']}, this chipmill reads {_SCHEMA_VERSION}: update it"
            )
        return Bundle(
            path=path,
            name=facts["name"],
            version=facts["version"],
            fingerprint=facts["fingerprint"],
            preset=facts["preset"],
            temperature=facts["temperature"],
            schema=schema_from_json(facts["input"]),
            weights_sha256=facts["weights"]["sha256"],
        )
    except (KeyError, TypeError) as error:
        raise DamagedFileError(f"{path}/model.json lacks {error}: train the model again") from error


def load_model(bundle: Bundle) -> Any:
    """Build the network of a bundle and load its weights; the Keras model gives logits.

    Raises DamagedFileError when the weights are not those that model.json names.
    """
    files = ModelDir(bundle.path)
    sidecar = read_sidecar(files.weights)
    if sidecar is None or sidecar.sha256 != bundle.weights_sha256 or not is_good(files.weights):
        raise DamagedFileError(f"{files.weights} is not what model.json names: train the model again")
    return model.load_network(bundle.schema, bundle.preset, files.weights)
