"""plan_map and predict_strips: rows of a raster through the model, staged as small files.

A strip is one restartable unit: it reads its rows and what the windows around them need, and writes classes,
confidence and probabilities. What a pixel gets does not depend on the strips (see `learning.blending`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import DamagedFileError
from chipmill.core.paths import OutputDir, VersionDir
from chipmill.core.store import fingerprint, is_good, link_file, lock
from chipmill.core.units import Batch, BatchResult, UnitResult, freeze_batches, work_batch
from chipmill.core.versions import Versions, open_attempt
from chipmill.dataset.manifest import DatasetRef
from chipmill.dataset.rasters import write_layer
from chipmill.dataset.union import check_input, dataset_schema
from chipmill.learning import blending
from chipmill.learning.bundle import Bundle, ModelRef, load_bundle, load_model
from chipmill.learning.calibration import apply_temperature
from chipmill.learning.model import probability_fn
from chipmill.learning.stacks import Raster, StackReader, open_stack, stack_rasters
from chipmill.mapping.files import LAYERS, MapDir
from chipmill.region.config import Region
from chipmill.region.grid import Window
from chipmill.region.jobs import PredictConfig
from chipmill.region.slots import cell_range
from chipmill.region.tiles import cover_mask

STAGE_VERSION: Final = 1
STAGE: Final = "predict_strips"
NODATA: Final = 255
STEPS: Final = 254  # a probability p is stored as round(254 p)
STRIP_PX: Final = 256  # rows of a strip; its probabilities are in memory as float32
_PX_PER_SECOND: Final = 250_000  # small U-Net on one core, windows overlapping by a quarter

type Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class MapPlan:
    """What crosses from stage to stage of a map: small, only names and paths."""

    attempt: Path
    fingerprint: str  # of model, dataset, overlap, decision and stage versions
    run: str
    dataset: Path  # directory of the dataset version whose stacks are mapped
    model: Path  # directory of the model version
    overlap: float
    on_failed: str
    versions: Versions
    region: str
    span: tuple[str, str]  # ISO dates of the cell, the end excluded
    notes: tuple[str, ...]  # what whoever uses the map must be told, one sentence each

    @property
    def redo(self) -> str:
        """The command that redoes what failed, and only that."""
        return "chipmill predict, with the same predict file"

    @property
    def files(self) -> MapDir:
        """Names of the files of the attempt."""
        return MapDir(self.attempt)


def map_fingerprint(dataset: DatasetRef, model: ModelRef, predict: PredictConfig) -> str:
    """Return what identifies a map; the number of the model's version is not in it."""
    stages = [STAGE_VERSION, blending.STAGE_VERSION]
    return fingerprint(
        "map", stages, model.fingerprint, dataset.fingerprint, predict.overlap, predict.decision
    )


def map_versions(region: Region, model: ModelRef, predict: PredictConfig) -> Versions:
    """Return the versioned directory of the map of a region's cell by one version of a model."""
    time = cell_range(region)
    maps = OutputDir(predict.output_dir)
    return maps.maps(model.name, model.version, region.name, time.start_date, time.end_date)


def plan_map(
    region_dataset: DatasetRef, region: Region, model: ModelRef, predict: PredictConfig, run: str = ""
) -> MapPlan:
    """Open the attempt at a map and freeze its strips and batches.

    Files of a map with the same fingerprint by an older version of the model are linked into it.
    Raises SchemaMismatchError when the region's stacks are not what the model learnt from, BadInputError for an
    overlap above one half.
    """
    bundle = load_bundle(model.path)
    offered = dataset_schema(region_dataset.path)
    notes = check_input(
        bundle.schema, offered, f"model {model.name}@{model.version}", f"region {region.name}"
    )
    blending.step_px(bundle.schema.chip_px, predict.overlap)
    mark, versions = map_fingerprint(region_dataset, model, predict), map_versions(region, model, predict)
    with lock(versions.folder / ".lock", run):
        attempt = open_attempt(versions, mark)
        time = cell_range(region)
        plan = MapPlan(
            attempt, mark, run, region_dataset.path, model.path, predict.overlap, region.on_failed, versions,
            region.name, (time.start_date, time.end_date), notes,
        )  # fmt: skip
        rasters = _rasters(plan.dataset)
        _adopt_layers(plan, model, predict, region)
        units = {unit: window for raster in rasters.values() for unit, window in strips(raster)}
        widest = max((window.width * window.height for window in units.values()), default=1)
        freeze_batches(attempt, STAGE, list(units), widest / _PX_PER_SECOND, mark)
    return plan


def _adopt_layers(plan: MapPlan, model: ModelRef, predict: PredictConfig, region: Region) -> None:
    """Link good rasters of the same fingerprint, newest version of the model first."""
    for number in range(model.version, 0, -1):
        older = ModelRef(model.path, model.name, number, model.fingerprint, None)
        versions = map_versions(region, older, predict)
        newest = versions.newest()
        if newest is None:
            continue
        for name in _rasters(plan.dataset):
            for layer in LAYERS:
                source, target = (
                    MapDir(versions.path(newest)).layer(layer, name),
                    plan.files.layer(layer, name),
                )
                if is_good(source, plan.fingerprint) and not is_good(target, plan.fingerprint):
                    link_file(source, target)


@functools.lru_cache(maxsize=4)
def _rasters(dataset: Path) -> Mapping[str, Raster]:
    """Return the rasters of a dataset version by name; a committed version never changes."""
    return {raster.name: raster for raster in stack_rasters(VersionDir(dataset))}


def rasters_of(plan: MapPlan) -> tuple[Raster, ...]:
    """Return the rasters that a map has, in order."""
    return tuple(_rasters(plan.dataset).values())


def strips(raster: Raster) -> list[tuple[str, Window]]:
    """Return (unit `<raster>-<k>`, window) of the strips of a raster, from the top."""
    extent = raster.extent
    starts = range(extent.row_off, extent.row_end, STRIP_PX)
    return [
        (
            f"{raster.name}-{index}",
            Window(extent.col_off, row, extent.width, min(STRIP_PX, extent.row_end - row)),
        )
        for index, row in enumerate(starts)
    ]


def is_stitched(plan: MapPlan, raster: str) -> bool:
    """Tell whether all layers of a raster stand already, so that its strips need not be made."""
    return all(is_good(plan.files.layer(layer, raster), plan.fingerprint) for layer in LAYERS)


def predict_strips(plan: MapPlan, batch: Batch) -> BatchResult:
    """Predict the strips of a batch that are not done and stage them.

    A staged strip is a uint8 GeoTIFF: class, confidence, then one probability per class; 255 is nodata in all.
    """

    def work(unit: str) -> UnitResult:
        raster = _rasters(plan.dataset)[unit.rpartition("-")[0]]
        if is_stitched(plan, raster.name):
            return UnitResult()
        path = plan.files.strip(unit)
        window = dict(strips(raster))[unit]
        bands = predict_strip(plan, raster, window)
        names = ["class", "confidence", *_load(plan.model).bundle.schema.class_names]
        write_layer(path, plan.fingerprint, bands, (raster.lattice, window), nodata=NODATA, names=names)
        return UnitResult(products=(path,))

    return work_batch(plan.attempt, plan.run, batch, work, lambda unit: fingerprint(plan.fingerprint, unit))


def predict_strip(plan: MapPlan, raster: Raster, window: Window) -> Bytes:
    """Return uint8 `(2 + class, y, x)`: class, confidence, probabilities; 255 where nothing was seen or wanted.

    Raises AssetReadError when a pixel of the stack cannot be read.
    """
    loaded = _load(plan.model)
    schema = loaded.bundle.schema
    result = np.full((2 + len(schema.classes), *window.shape), NODATA, np.uint8)
    with open_stack(raster, schema.bands) as reader:
        valid = reader.observed(reader.pixels(window)) & covered(raster, window)
        columns = np.flatnonzero(valid.any(axis=0))
        if not len(columns):
            return result
        left, right = int(columns[0]), int(columns[-1]) + 1
        part = Window(window.col_off + left, window.row_off, right - left, window.height)
        probability = _probability(reader, loaded, part, plan.overlap)
    result[:, :, left:right] = np.where(valid[:, left:right], quantise(probability), NODATA)
    return result


def _probability(reader: StackReader, loaded: _Loaded, window: Window, overlap: float) -> NDArray[np.float32]:
    chip_px = loaded.bundle.schema.chip_px
    extent = reader.extent_for(chip_px)
    raw = blending.predict_window(loaded.predict, reader.pixels, extent, window, chip_px, overlap)
    return apply_temperature(raw, loaded.bundle.temperature)


def quantise(probability: NDArray[np.float32]) -> Bytes:
    """Return uint8 `(2 + class, y, x)` of calibrated probabilities `(y, x, class)`: class, confidence, probabilities.

    Confidence is the largest probability; both are stored as round(254 p).
    """
    steps = np.rint(np.clip(probability, 0, 1) * STEPS).astype(np.uint8)
    decided = probability.argmax(axis=-1).astype(np.uint8)
    return np.concatenate([decided[None], steps.max(axis=-1)[None], np.moveaxis(steps, -1, 0)])


def covered(raster: Raster, window: Window) -> NDArray[np.bool_]:
    """Return bool `(y, x)`, True where a tile of the raster answers for the pixel: AOI and UTM zone."""
    cover = np.zeros(window.shape, bool)
    for tile in raster.tiles:
        part = tile.window.intersection(window)
        if part is not None:
            rows = slice(part.row_off - window.row_off, part.row_end - window.row_off)
            cols = slice(part.col_off - window.col_off, part.col_end - window.col_off)
            cover[rows, cols] |= cover_mask(tile, part)
    return cover


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model in this process."""

    bundle: Bundle
    predict: Callable[[NDArray[Any]], NDArray[np.float32]]


@functools.lru_cache(maxsize=1)
def _load(model: Path) -> _Loaded:
    """Load a model once per process; the next one takes its place."""
    bundle = load_bundle(model)
    if not is_good(model / "model.json"):
        raise DamagedFileError(f"{model}/model.json differs from what was committed: train the model again")
    return _Loaded(bundle, probability_fn(load_model(bundle)))
