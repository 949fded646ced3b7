"""The part of a dataset's page on its imagery: how clear it was, what was chosen, what the composites look like."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from chipmill.core.paths import VersionDir
from chipmill.core.tables import RANKING, read_table
from chipmill.region.config import Region
from chipmill.region.slots import cell_range
from chipmill.report.blocks import Chart, Gallery, Picture, Ramp, Section, Text, section
from chipmill.report.grids import Pass, calendar_chart, heat_map
from chipmill.report.images import (
    SEQUENCE,
    band_names,
    color_bands,
    limits,
    picture,
    stretch,
    trim,
)
from chipmill.report.numbers import percent, plural
from chipmill.report.zones import pixels_of, read_together

_MAX_ROWS: Final = 24
"""Rows of a chart that can still be read; the page says how many are left out."""
_QUICKLOOK_PX: Final = 480
_MAX_MOSAIC_PX: Final = 64_000_000
"""Above that a quicklook of the whole region would cost minutes of reading; some tiles are shown instead."""
_MAX_TILES: Final = 8


def cloud_section(version: VersionDir, region: Region) -> Section:
    """Return the heat map of tiles x slots and the calendar of acquisitions, from ranking.parquet."""
    rows: list[dict[str, Any]] = (
        read_table(version.ranking, RANKING).to_pylist() if version.ranking.exists() else []
    )
    lead = (
        "Left to right through the year: how much of each tile was seen without cloud in each slot by the best "
        "acquisition, and below it every acquisition; tall marks were used in a composite."
    )
    if not rows:
        empty = "No acquisition was ranked, because the search found no item over the tiles in this time."
        return section("clouds", "Clouds", lead, (), empty)
    tiles = sorted({row["tile_id"] for row in rows})
    shown = tiles[:_MAX_ROWS]
    left_out = len(tiles) - len(shown)
    rest = Text(f"{plural(left_out, 'more tile')} in ranking.parquet.") if left_out else None
    blocks = (
        _heat(rows, shown),
        Ramp("all cloud", "all clear", SEQUENCE),
        _calendar(rows, shown, region),
        rest,
    )
    return section("clouds", "Clouds", lead, blocks)


def _heat(rows: Sequence[dict[str, Any]], tiles: Sequence[str]) -> Chart:
    best: dict[tuple[str, str], float] = {}
    slots: dict[str, Any] = {}
    for row in rows:
        slots.setdefault(row["slot"], row["slot_start"])
        fraction = _clear(row)
        if row["chosen"] and fraction is not None:
            key = (row["tile_id"], row["slot"])
            best[key] = max(best.get(key, 0.0), fraction)
    names = sorted(slots, key=lambda slot: slots[slot])
    values = [[best.get((tile, slot)) for slot in names] for tile in tiles]
    label = f"Best clear share of {plural(len(tiles), 'tile')} in {plural(len(names), 'slot')}"
    return Chart(
        heat_map(tiles, names, values, label), "Best clear share by tile and slot; grey: nothing chosen."
    )


def _clear(row: dict[str, Any]) -> float | None:
    """Return the measured clear fraction, else what the metadata say of the scene's clouds."""
    if row["clear_fraction"] is not None:
        return float(row["clear_fraction"])
    return None if row["cloud_cover_pct"] is None else 1 - float(row["cloud_cover_pct"]) / 100


def _calendar(rows: Sequence[dict[str, Any]], tiles: Sequence[str], region: Region) -> Chart:
    wanted = set(tiles)
    passes = [
        Pass(row["tile_id"], row["datetime"], _clear(row), bool(row["chosen"]), row["acquisition"])
        for row in sorted(rows, key=lambda row: (row["tile_id"], row["datetime"]))
        if row["tile_id"] in wanted
    ]
    time = cell_range(region)
    chart = calendar_chart(passes, time.start, time.end, "Acquisitions over time by tile")
    return Chart(chart, "Every acquisition; rest the pointer on a mark for its name and its clear share.")


def composite_section(version: VersionDir, region: Region, remarks: Sequence[Text] = ()) -> Section:
    """Return one picture per slot, of the whole region where that is cheap, else of its first tiles; then remarks."""
    lead = (
        "Cloud-free composites, all stretched alike (2nd to 98th percentile of the darkest slot), so that colours can "
        "be compared; where nothing was seen the page shines through."
    )
    views = _views(version, region)
    if not views:
        return section(
            "composites", "Composites", lead, (), "No stack was built, so there is nothing to show."
        )
    names = [band.rsplit("_", 1)[-1] for band in views[0].bands]
    colors = "red, green and blue of the screen" if len(names) == 3 else "brightness"
    note = Text(f"{colors} = {', '.join(names)}".capitalize() + f"; {views[0].place}.")
    pictures = _pictures(views)
    size = {1: 480, 2: 480, 3: 327, 4: 480}.get(len(pictures), 240)  # so many fill a row of the page
    gallery = Gallery(tuple((one,) for one in pictures), size_px=size)
    return section("composites", "Composites", lead, (gallery, note, *remarks))


@dataclass(frozen=True, slots=True)
class _View:
    """One slot of one raster, or of those of several UTM zones, to be shown as one picture."""

    sources: tuple[Path, ...]
    bands: tuple[str, ...]
    title: str
    place: str


def _views(version: VersionDir, region: Region) -> list[_View]:
    mosaics = tuple(sorted(version.root.glob("stack-*.vrt")))
    if mosaics and pixels_of(mosaics) <= _MAX_MOSAIC_PX:
        slots = _slot_bands(band_names(mosaics[0]), region)
        return [_View(mosaics, bands, slot, "the whole region") for slot, bands in slots.items()]
    stacks = sorted(version.stacks.glob("*.vrt"))
    place = f"{min(len(stacks), _MAX_TILES)} of {plural(len(stacks), 'tile')}"
    return [
        _View((stack,), bands, f"{stack.stem}, {slot}" if slot else stack.stem, place)
        for stack in stacks[:_MAX_TILES]
        for slot, bands in _slot_bands(band_names(stack), region).items()
    ]


def _slot_bands(names: Sequence[str], region: Region) -> dict[str, tuple[str, ...]]:
    """Return for each slot of a stack the bands to show, in the order of the slots."""
    known = {name for imagery in region.imagery for name in imagery.bands}
    by_slot: dict[str, list[str]] = defaultdict(list)
    for name in names:
        slot, _, band = name.partition("_")
        if band in known:
            by_slot[slot].append(name)
    return {slot: color_bands(bands) for slot, bands in by_slot.items()}


def _pictures(views: Sequence[_View]) -> list[Picture]:
    small = [trim(read_together(view.sources, view.bands, _QUICKLOOK_PX, smooth=True)) for view in views]
    each = np.stack(
        [limits(one.data, one.valid) for one in small if one.valid.any()]
        or [limits(small[0].data, small[0].valid)]
    )
    # the darkest slot decides on both ends: a snowy one would make all the others black
    ranges = each.min(axis=0)
    return [
        picture(
            stretch(one.data, one.valid, ranges),
            f"Composite, slot {view.title}",
            f"{view.title}: {percent(float(one.valid.mean()))} with data",
            crisp=one.valid.shape[1] * 2 <= _QUICKLOOK_PX,
        )
        for view, one in zip(views, small, strict=True)
    ]
