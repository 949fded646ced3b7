"""The page of a map: the classes and how sure they are, on the ground, and the area of each."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from chipmill.core.store import read_json
from chipmill.mapping.files import LAYERS, Layer, MapDir
from chipmill.report.blocks import (
    Block,
    Cell,
    Chart,
    Facts,
    Legend,
    Page,
    Pair,
    Picture,
    Ramp,
    Section,
    Table,
    Text,
    facts,
    section,
    table,
)
from chipmill.report.charts import Bar, bar_chart
from chipmill.report.images import (
    SEQUENCE,
    band_names,
    class_colors,
    paint_classes,
    paint_fractions,
    picture,
    raster_shape,
    trim,
)
from chipmill.report.numbers import count, decimal, interval, percent, plural
from chipmill.report.page import write_page
from chipmill.report.zones import read_together

_SIDE_PX: Final = 1000
_MAX_RASTERS: Final = 6
_CONTENT: Final[Mapping[Layer, str]] = {
    "classes": "class codes, 255 outside; colours and names inside",
    "probabilities": "one band per class, round(254 p), 255 outside",
    "confidence": "largest probability, round(254 p), 255 outside",
}
_STEPS: Final = 254
"""A probability p is stored as round(254 p)."""


def map_page(version: Path, out: Path | None = None) -> Path:
    """Write the page of a sealed or committed map and return its path.

    Args:
        version: directory of the version, or of the attempt that lacks only its report.
        out: where to write; beside map.json where None, which is for versions that are not committed yet.
    """
    files = MapDir(version)
    about = read_json(files.facts)
    with files.areas.open(newline="", encoding="utf-8") as stream:
        areas = list(csv.DictReader(stream))
    colors = class_colors([one["color"] for one in about["classes"]])
    model = f"{about['model']['name']}@{about['model']['version']}"
    failed = about["failed"]
    page = Page(
        about["region"],
        f"Map by {model} · {interval(*about['cell'])}",
        ("with failures", "bad") if failed else ("complete", "good"),
        _summary(about, areas),
        (
            *_notes(about.get("notes", ())),
            _classes(files, about, colors),
            _confidence(files, about),
            _areas(about, areas, colors),
            _failures(failed),
            _provenance(files, about, model),
        ),
        f"Map of {about['region']} by {model}, fingerprint {about['fingerprint']}",
    )
    return write_page(out or files.report, page)


def _summary(about: Mapping[str, Any], areas: Sequence[Mapping[str, str]]) -> Facts:
    pixels = sum(int(row["mapped_px"]) for row in areas)
    hectares = sum(float(row["mapped_ha"]) for row in areas)
    largest = max(areas, key=lambda row: int(row["mapped_px"]))
    return facts(
        {
            "Mapped area": f"{decimal(hectares, 0)} ha",
            "Mapped pixels": count(pixels),
            "Largest class": f"{largest['class']}, {percent(float(largest['mapped_share']), 0)}",
            "Rasters": count(len(about["rasters"])),
            "Failed strips": count(len(about["failed"])),
        },
        large=True,
    )


def _notes(notes: Sequence[str]) -> tuple[Section, ...]:
    lead = "What to know before believing the map."
    return (section("notes", "Notes", lead, tuple(Text(note, "bad") for note in notes)),) if notes else ()


def _pictured(rasters: Sequence[str]) -> list[tuple[str, ...]]:
    """Return what one picture shows each: the UTM zones of a region together, any other raster alone."""
    zones = tuple(raster for raster in rasters if raster.isdigit())  # named by their EPSG code
    alone = [(raster,) for raster in rasters if not raster.isdigit()]
    return [*([zones] if zones else []), *alone][:_MAX_RASTERS]


def _left_out(rasters: Sequence[str]) -> Text | None:
    more = len(rasters) - sum(map(len, _pictured(rasters)))
    return Text(f"{plural(more, 'more raster')} beside this page.") if more > 0 else None


def _arranged(pictures: Sequence[Picture]) -> tuple[Block, ...]:
    """Return one picture at full width, several two by two."""
    return tuple(pictures) if len(pictures) == 1 else (Pair(tuple(pictures)),)


def _classes(files: MapDir, about: Mapping[str, Any], colors: Sequence[str]) -> Section:
    lead = "The class of each pixel; outside the area of interest, and where nothing was seen, the page shines through."
    names = [one["name"] for one in about["classes"]]
    pictures, room = [], _room(about["rasters"])
    for rasters in _pictured(about["rasters"]):
        paths = [files.layer("classes", raster) for raster in rasters]
        small = read_together(paths, band_names(paths[0]), _SIDE_PX)
        codes = trim(small).data[0].astype(np.uint8)
        title, note = f"Map of classes, {' and '.join(rasters)}", _scale_note(paths, small.valid.shape[0])
        pictures.append(picture(paint_classes(codes, colors), title, note, fill_px=room))
    legend = Legend(tuple(zip(names, colors, strict=True)))
    blocks = (legend, *_arranged(pictures), _left_out(about["rasters"]))
    empty = "The map has no raster, because the region has no tile."
    return section("map", "Map", lead, blocks if pictures else (), empty)


def _room(rasters: Sequence[str]) -> int:
    """Return the width of the page that one picture has."""
    return _SIDE_PX if len(_pictured(rasters)) == 1 else _SIDE_PX // 2


def _scale_note(paths: Sequence[Path], shown_rows: int) -> str:
    if len(paths) > 1:
        return f"{' and '.join(path.name for path in paths)}: the UTM zones of the region in one picture"
    height, width = raster_shape(paths[0])
    size = f"{paths[0].name}: {count(width)} x {count(height)} px"
    return size if shown_rows == height else f"{size}, shown {height / shown_rows:.1f} times smaller"


def _confidence(files: MapDir, about: Mapping[str, Any]) -> Section:
    lead = (
        "The largest calibrated probability of each pixel: dark where the model hesitates, which is where a second "
        "look at the imagery or another label pays most."
    )
    pictures, shares, room = [], [], _room(about["rasters"])
    for rasters in _pictured(about["rasters"]):
        paths = [files.layer("confidence", raster) for raster in rasters]
        small = trim(read_together(paths, band_names(paths[0]), _SIDE_PX))
        values = small.data[0].astype(np.float64) / _STEPS
        shares.append(values[small.valid])
        title, files_shown = f"Confidence, {' and '.join(rasters)}", " and ".join(path.name for path in paths)
        pictures.append(picture(paint_fractions(values, small.valid), title, files_shown, fill_px=room))
    known = np.concatenate(shares) if shares else np.zeros(0)
    floor = 1 / max(len(about["classes"]), 1)
    note = (
        Text(
            f"Median {percent(float(np.median(known)))}; {percent(float((known < 0.5).mean()))} of the pixels are "
            f"below 50 %; pure guessing would be {percent(floor)}."
        )
        if len(known)
        else None
    )
    blocks = (Ramp("0 %", "100 %", SEQUENCE), *_arranged(pictures), note)
    return section("confidence", "Confidence", lead, blocks if len(known) else (), "No pixel was mapped.")


def _areas(about: Mapping[str, Any], areas: Sequence[Mapping[str, str]], colors: Sequence[str]) -> Section:
    lead = f"This is {about['areas']}; hectares are true areas on the ellipsoid."
    bars = [
        Bar(row["class"], float(row["mapped_ha"]), color, f"{decimal(float(row['mapped_ha']), 1)} ha")
        for row, color in zip(areas, colors, strict=True)
    ]
    rows: list[tuple[str | Cell, ...]] = [
        (
            Cell(row["class"], swatch=color),
            count(int(row["mapped_px"])),
            decimal(float(row["mapped_ha"]), 2),
            percent(float(row["mapped_share"]), 2),
        )
        for row, color in zip(areas, colors, strict=True)
    ]
    total: Table = table(("Class", ">Pixels", ">Hectares", ">Share"), rows)
    chart = Chart(bar_chart(bars, "Mapped hectares per class", width=560, name_px=130))
    return section("areas", "Areas", lead, (Pair((chart, total)),), "No class was mapped.")


def _failures(failed: Sequence[str]) -> Section:
    lead = "Strips without data, because they failed while the rest was committed."
    rows = [(unit,) for unit in failed]
    empty = "Nothing failed: every strip was predicted."
    return section("failures", "Failures", lead, (table(("Strip",), rows),) if rows else (), empty)


def _provenance(files: MapDir, about: Mapping[str, Any], model: str) -> Section:
    items = {
        "Model": model,
        "Model fingerprint": about["model"]["fingerprint"],
        "Map fingerprint": about["fingerprint"],
        "Overlap of windows": percent(about["overlap"], 0),
        "Temperature": decimal(about["temperature"]),
    }
    layers = [
        (files.layer(layer, raster).name, _CONTENT[layer])
        for rasters in _pictured(about["rasters"])
        for raster in rasters
        for layer in LAYERS
    ]
    lead = "What it was made from, and the files beside this page."
    return section("provenance", "Provenance", lead, (facts(items), table(("File", "Content"), layers)))
