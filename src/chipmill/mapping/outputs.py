"""stitch_map and publish_map: the strips of a raster become cloud-optimised GeoTIFFs. Another output file: add it here.

classes-<raster>.tif has the class codes with colour table and names and overviews by mode, confidence and
probabilities have overviews by average; 255 is nodata in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from chipmill.core.store import commit_file, is_good, lock, read_json, write_text
from chipmill.core.tiff import copy_tiff
from chipmill.core.units import settle
from chipmill.core.versions import publish
from chipmill.dataset.manifest import DatasetRef
from chipmill.dataset.rasters import open_raster, read_header
from chipmill.dataset.union import ModelClass
from chipmill.dataset.vrt import Band, Source, vrt_xml
from chipmill.learning.bundle import ModelRef, load_bundle
from chipmill.learning.stacks import Raster
from chipmill.mapping.files import LAYERS, Layer, MapDir
from chipmill.mapping.prediction import (
    NODATA,
    STAGE,
    MapPlan,
    is_stitched,
    map_fingerprint,
    map_versions,
    rasters_of,
    strips,
)
from chipmill.region.config import Region
from chipmill.region.jobs import PredictConfig

STAGE_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class StitchedRef:
    """The rasters of a map in its attempt."""

    path: Path  # directory of the attempt
    rasters: tuple[str, ...]  # names: EPSG codes, ids of tiles without neighbours
    failed: tuple[str, ...]  # strips that are nodata because they failed, under on_failed: commit


@dataclass(frozen=True, slots=True)
class MapRef:
    """A map version, or a sealed attempt at one."""

    path: Path  # its directory
    region: str
    version: int  # the number that it has or will have
    fingerprint: str
    failed: int  # strips that are nodata because they failed


def map_notes(path: Path) -> tuple[str, ...]:
    """Return what whoever uses a map version must be told, one sentence each."""
    return tuple(read_json(MapDir(path).facts).get("notes", ()))


def stitch_map(plan: MapPlan) -> StitchedRef:
    """Close predict_strips and commit the GeoTIFFs of every raster.

    Raises TilesFailedError when a strip failed and the region says stop.
    """
    failed = {one.unit for one in settle(plan.attempt, [STAGE], plan.on_failed, plan.redo)}
    classes = load_bundle(plan.model).schema.classes
    rasters = rasters_of(plan)
    with lock(plan.versions.folder / ".lock", plan.run):
        for raster in rasters:
            names = plan.files.layer("classes", raster.name)
            write_text(names.with_name(f"{names.name}.aux.xml"), category_xml([one.name for one in classes]))
            if not is_stitched(plan, raster.name):
                units = [unit for unit, _ in strips(raster) if unit not in failed]
                _stitch(plan, raster, units, classes)
    return StitchedRef(plan.attempt, tuple(raster.name for raster in rasters), tuple(sorted(failed)))


def _stitch(plan: MapPlan, raster: Raster, units: Sequence[str], classes: Sequence[ModelClass]) -> None:
    headers = [read_header(plan.files.strip(unit)) for unit in units]
    names = [one.name for one in classes]

    def band(number: int, name: str, colors: tuple[str, ...] = ()) -> Band:
        return Band(name, "uint8", NODATA, tuple(Source(header, number) for header in headers), colors)

    layers: dict[Layer, list[Band]] = {
        "classes": [band(1, "class", tuple(one.color for one in classes))],
        "confidence": [band(2, "confidence")],
        "probabilities": [band(3 + code, name) for code, name in enumerate(names)],
    }
    for layer in LAYERS:
        final = plan.files.layer(layer, raster.name)
        _write_cog(final, plan.fingerprint, vrt_xml(raster.lattice, raster.extent, layers[layer]), layer)


def _write_cog(final: Path, mark: str, mosaic: str, layer: Layer) -> None:
    """Commit a mosaic (the XML of a VRT) of bytes as a cloud-optimised GeoTIFF with overviews."""
    options: dict[str, Any] = {
        "driver": "COG",
        "compress": "deflate",
        "predictor": "no",  # class codes and quantised shares are not smooth
        "blocksize": 512,
        "overview_resampling": "mode" if layer == "classes" else "average",
        "bigtiff": "if_safer",
    }
    with commit_file(final, mark) as temp, open_raster(mosaic, driver="VRT") as opened:
        copy_tiff(opened, temp, options, opened.count * opened.height * opened.width)


def category_xml(names: Sequence[str]) -> str:
    """Return GDAL's side file (<file>.aux.xml) with the names of classes 0, 1, ..: a TIFF has no place for them."""
    categories = "".join(f"      <Category>{escape(name)}</Category>\n" for name in names)
    return (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{categories}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )


def publish_map(plan: MapPlan, ref: MapRef) -> MapRef:
    """Make a sealed attempt the version in force; safe to repeat."""
    with lock(plan.versions.folder / ".lock", plan.run):
        number = publish(plan.versions, plan.attempt)
    return MapRef(plan.versions.path(number), ref.region, number, ref.fingerprint, ref.failed)


def current_map(
    dataset: DatasetRef, region: Region, model: ModelRef, predict: PredictConfig
) -> MapRef | None:
    """Return the version in force when it is the wanted map and whole; None where there is something to do.

    A map with failed strips is wanted again.
    """
    from chipmill.core.store import read_json

    versions = map_versions(region, model, predict)
    number = versions.current()
    if number is None:
        return None
    files, mark = MapDir(versions.path(number)), map_fingerprint(dataset, model, predict)
    if not is_good(files.facts, mark) or not is_good(files.areas, mark):
        return None
    facts = read_json(files.facts)
    layers = [files.layer(layer, raster) for raster in facts["rasters"] for layer in LAYERS]
    if facts["failed"] or not all(is_good(path, mark) for path in layers):
        return None
    return MapRef(files.root, region.name, number, mark, 0)
