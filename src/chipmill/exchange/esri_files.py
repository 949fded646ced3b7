"""The text and JSON files of Esri Classified Tiles: written from sums, and read as a stranger's.

The file to change for what stands in map.txt, stats.txt, esri_accumulated_stats.json and esri_model_definition.emd.
Source of the formats: exports of "Export Training Data For Deep Learning", and what arcgis.learn reads of them (class
value 0 is NoData to it; the three files are needed together).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Final

from chipmill.core.errors import BadInputError
from chipmill.dataset.rasters import rgb
from chipmill.exchange.esri_tally import Tally
from chipmill.exchange.origin import read_text
from chipmill.exchange.pairs import IMAGES, LABELS, Pair

EMD, MAP, STATS_TEXT, STATS = (
    "esri_model_definition.emd", "map.txt", "stats.txt", "esri_accumulated_stats.json",
)  # fmt: skip
NODATA: Final = 0
"""Label value that ArcGIS takes for "no data"; classes begin at 1."""
MODE: Final = "Classified_Tiles"


@dataclass(frozen=True, slots=True)
class EsriClass:
    """A class of an .emd file."""

    value: int
    name: str
    color: str | None
    """``#rrggbb``; None where the file has none."""


def write_files(folder: Path, tally: Tally, classes: Sequence[EsriClass]) -> None:
    """Write the four files of a folder whose pairs were counted."""
    pairs = [f"{IMAGES}\\{name}.tif  {LABELS}\\{name}.tif \n" for name in tally.names]
    (folder / MAP).write_text("".join(pairs))
    (folder / STATS_TEXT).write_text(_stats_text(tally, classes))
    _write(folder / STATS, _stats(tally, classes))
    _write(folder / EMD, _emd(tally, classes))


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")


def _stats_text(tally: Tally, classes: Sequence[EsriClass]) -> str:
    rows, cols = tally.shape
    span = tally.per_image
    lines = [
        f"images = {len(tally.names)} *{len(tally.bands)}*{rows}*{cols}",
        f"classes = {len(classes)}",
        f"classes per image = [min = {span.low}, mean = {span.mean:.2f}, max = {span.high}]",
        f"{'cls name':<20}{'cls value':>10}{'images':>10}{'pixels':>14}{'min size':>10}{'mean size':>12}{'max size':>10}",
    ]
    for one, own in zip(classes, tally.per_class, strict=True):
        head = f"{one.name:<20}{one.value:>10}{own.images:>10}{own.total:>14}"
        lines.append(f"{head}{own.low:>10}{own.mean:>12.2f}{own.high:>10}")
    return "\n".join(lines) + "\n"


def _stats(tally: Tally, classes: Sequence[EsriClass]) -> dict[str, Any]:
    rows, cols = tally.shape
    return {
        "Version": 1,
        "NumBands": len(tally.bands),
        "TileSizeX": cols,
        "TileSizeY": rows,
        "NumClasses": len(classes),
        "NumTiles": len(tally.names),
        "OutputFeatures": False,
        "MetaDataMode": MODE,
        "Classes": [{"ClassValue": one.value, "ClassName": one.name} for one in classes],
        "ClassPixelStats": {
            "NumClasses": len(classes),
            "NumImagesTotal": len(tally.names),
            "NumImagesPerClass": [own.images for own in tally.per_class],
            "NumPixelsPerClass": [own.total for own in tally.per_class],
            "NumClassesPerImage": tally.per_image.facts(),
            "PixelsPerClass": [own.facts() for own in tally.per_class],
        },
        "BandStatsState": [
            {"Min": own.low or 0, "Max": own.high or 0, "M1": own.mean, "M2": own.deviations, "Num": own.n}
            for own in tally.sums
        ],
    }


def _emd(tally: Tally, classes: Sequence[EsriClass]) -> dict[str, Any]:
    rows, cols = tally.shape
    return {
        "Framework": "",
        "ModelConfiguration": "",
        "ModelType": "ImageClassification",
        "ModelFile": "",
        "ImageHeight": rows,
        "ImageWidth": cols,
        "ExtractBands": list(range(len(tally.bands))),
        "DataRange": [0, 1],
        "ModelPadding": 0,
        "BatchSize": 1,
        "PerProcessGPUMemoryFraction": 1.0,
        "MetaDataMode": MODE,
        "ImageSpaceUsed": "MAP_SPACE",
        "Classes": [
            {
                "Value": one.value,
                "Name": one.name,
                "Color": [-1, -1, -1] if one.color is None else list(rgb(one.color)),
            }
            for one in classes
        ],
        "InputRastersProps": {
            "RasterCount": 1,
            "SensorName": "Raster Dataset",
            "BandNames": [band.name for band in tally.bands],
        },
        "AllTilesStats": [
            {
                "BandName": band.name,
                "Min": own.low or 0,
                "Max": own.high or 0,
                "Mean": own.mean,
                "StdDev": own.std,
            }
            for band, own in zip(tally.bands, tally.sums, strict=True)
        ],
        "IsMultidimensional": False,
    }


def read_emd(folder: Path) -> tuple[tuple[EsriClass, ...], tuple[str, ...]]:
    """Return the classes but NoData, and the names of the bands, () where the file has none.

    Raises BadInputError where a file is missing that ArcGIS needs, the folder is of another kind, or names no class.
    """
    missing = [name for name in (EMD, MAP, STATS) if not (folder / name).is_file()]
    if missing:
        raise BadInputError(f"{folder} lacks {', '.join(missing)}: export the training data again, as {MODE}")
    facts, stats = _read(folder / EMD), _read(folder / STATS)
    mode = facts.get("MetaDataMode") or stats.get("MetaDataMode")
    if mode != MODE:
        raise BadInputError(f"{folder} holds training data of the kind {str(mode)[:40]!r}, expected {MODE!r}")
    try:
        classes = tuple(_classes(facts["Classes"]))
        props = facts.get("InputRastersProps") or {}
        bands = tuple(map(str, props.get("BandNames") or ()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInputError(f"{folder / EMD} is not what ArcGIS writes ({error!r}): export again") from error
    if not classes:
        raise BadInputError(
            f"{folder / EMD} names no class but NoData (value 0): declare the classes and export again"
        )
    return classes, bands


def _classes(listed: Sequence[Mapping[str, Any]]) -> Iterator[EsriClass]:
    for one in listed:
        value = int(one["Value"])
        color = [int(part) for part in one.get("Color") or (-1,)]
        shown = f"#{bytes(color).hex()}" if len(color) == 3 and 0 <= min(color) <= max(color) < 256 else None
        if value != NODATA:
            yield EsriClass(value, str(one["Name"]), shown)


def _read(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadInputError):
            raise
        raise BadInputError(f"{path} is not JSON ({error}): export again") from error
    if not isinstance(facts, dict):
        raise BadInputError(f"{path} holds no JSON object: export again")
    return facts


def read_map(folder: Path) -> list[Pair]:
    """Return the pairs that map.txt lists, each once, by name; either slash may stand in a path.

    Raises BadInputError for a line that is no pair, or a path that leaves the folder.
    """
    path = folder / MAP
    found: dict[str, Pair] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        parts = [PureWindowsPath(part) for part in re.split(r"\s{2,}|\t", line.strip()) if part]
        if not parts:
            continue
        safe = all(len(part.parts) == 2 and ".." not in part.parts and not part.anchor for part in parts)
        if len(parts) != 2 or not safe or parts[0].stem != parts[1].stem:
            raise BadInputError(
                f"{path}, line {number}: expected two files of one name, as images\\000000000.tif  labels\\000000000.tif"
            )
        image, label = (folder.joinpath(*part.parts) for part in parts)
        found.setdefault(parts[0].stem, Pair(parts[0].stem, image, label))
    return [found[name] for name in sorted(found)]
