"""Splits that need no dealing: what the tiles, polygons, attributes or dates say, or chance for each chip alone.

The file to change for another kind of split. Each kind gives every window a split and says which windows cannot stay in
theirs; blocks and groups, which are dealt, are in :mod:`chipmill.dataset.splits`. Nothing here reads pixels, so the
same functions look ahead from geometry before a run.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chipmill.core.errors import SplitError
from chipmill.core.plain import quoted
from chipmill.dataset.filters import texts
from chipmill.dataset.places import (
    BUFFER,
    KEPT,
    NO_SPLIT,
    NONE,
    SPLITS,
    STRADDLES,
    TEST,
    TRAIN,
    VAL,
    Ints,
    Places,
    near_any,
    near_reasons,
)
from chipmill.region.attributes import split_of, text_of
from chipmill.region.config import Region
from chipmill.region.dataset import Splits
from chipmill.region.grid import Lattice, Window, reproject_shape
from chipmill.region.points import point_windows
from chipmill.region.slots import tile_slots
from chipmill.region.tiles import Tile, densified
from chipmill.region.vectors import polygons_of, read_layer

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

type Texts = npt.NDArray[Any]
type Placed = tuple[Ints, Texts]
"""Split code of each window (NONE where it has none), and why it is dropped, "" where it is not."""

DEALT: Final = ("blocks", "group")
"""Kinds of splits that are dealt and stick; the others follow from rules alone."""
_EDGE_PX: Final = 1e-3  # windows that only touch a polygon, whatever the rounding of its corners
_SHOWN: Final = 5


def place_by_kind(region: Region, tiles: Sequence[Tile], windows: pa.Table, places: Places) -> Placed:
    """Return the splits of windows by a kind that is not dealt.

    Args:
        region: whose ``dataset.splits`` are the rules.
        tiles: all tiles of the cell.
        windows: columns chip_id, tile_id, anchor and, by attribute, attributes of WINDOWS.
        places: where they lie.

    Raises SplitError where what is named says no split, RegionFileError where the file of polygons cannot be used.
    """
    rules = region.dataset.splits
    if rules.by == "polygons":
        return _by_polygons(region, tiles, places)
    if rules.by == "time":
        return _by_time(region, tiles, windows, places)
    if rules.by == "random":
        return by_chance(windows["chip_id"].to_pylist(), rules), np.full(windows.num_rows, KEPT, dtype=object)
    if rules.by == "given":
        splits = given_splits(tiles, windows, places, region.dataset.chips.size_px)
    else:
        splits = _by_attribute(rules, attribute_values(rules, windows))
    drops = near_reasons(places, splits, rules.buffer_px)
    drops[splits == NONE] = NO_SPLIT
    return splits, drops


def given_splits(tiles: Sequence[Tile], windows: pa.Table, places: Places, size_px: int) -> Ints:
    """Return the split code that each window's tile or point brings, else NONE; ``size_px`` is the side of a chip."""
    codes = {tile.tile_id: SPLITS.index(tile.split) for tile in tiles if tile.split is not None}
    names = texts(windows, "tile_id")
    splits = np.array([codes.get(name, NONE) for name in names], dtype=np.int64)
    of_points = {
        (tile.tile_id, window.col_off, window.row_off): SPLITS.index(point.split)
        for tile in tiles
        if tile.points is not None
        for window, point in point_windows(tile, size_px).items()
        if point.split is not None
    }
    if of_points:
        keys = zip(names.tolist(), places.col.tolist(), places.row.tolist(), strict=True)
        splits = np.array([of_points.get(key, own) for key, own in zip(keys, splits.tolist(), strict=True)])
    return splits


def by_chance(chip_ids: Sequence[str], rules: Splits) -> Ints:
    """Return the split code of each chip by seed and id alone: neither order nor other chips matter."""
    draws = np.array(
        [
            int.from_bytes(hashlib.sha256(f"{rules.seed}/{chip_id}".encode()).digest()[:8]) / 2**64
            for chip_id in chip_ids
        ]
    )
    shares = np.array([rules.train, rules.val, rules.test])
    # the number of bounds that are not above a draw; a share of 0 has two equal bounds and gets nothing
    return np.searchsorted((shares / shares.sum()).cumsum()[:2], draws, side="right").astype(np.int64)


def attribute_values(rules: Splits, windows: pa.Table) -> list[str | None]:
    """Return each window's value of ``splits.attribute``, None where it has none."""
    rows = windows["attributes"].to_pylist(maps_as_pydicts="strict")
    return [(row or {}).get(str(rules.attribute)) for row in rows]


def _by_attribute(rules: Splits, values: Sequence[str | None]) -> Ints:
    codes = {value: _code(rules, value) for value in sorted({value for value in values if value is not None})}
    _refuse_unknown(rules, codes)
    return np.array([NONE if value is None else codes[value] for value in values], dtype=np.int64)


def _code(rules: Splits, value: str) -> int | None:
    """Return the split code that a value of the attribute means, None where it means none."""
    try:
        split = rules.map.get(value) if rules.map else split_of(value)
    except ValueError:
        return None
    return None if split is None else SPLITS.index(split)


def _refuse_unknown(rules: Splits, codes: Mapping[str, int | None]) -> None:
    unknown = [value for value, code in codes.items() if code is None]
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise SplitError(
            f"{quoted(str(rules.attribute))} has the values {', '.join(map(quoted, unknown[:_SHOWN]))}{more}, which say no "
            f"split: give them one in dataset.splits.map ({'it has ' + ', '.join(rules.map) if rules.map else 'it is empty'})"
        )


def _by_time(region: Region, tiles: Sequence[Tile], windows: pa.Table, places: Places) -> Placed:
    """Anchors decide; train windows that hold ground and days of a held-out one are dropped, other days may share it."""
    rules = region.dataset.splits
    anchors, names = texts(windows, "anchor"), texts(windows, "tile_id")
    codes = {anchor: anchor_split(rules, str(anchor)) for anchor in set(anchors.tolist())}
    splits = np.array([codes[anchor] for anchor in anchors], dtype=np.int64)
    drops = np.full(len(splits), KEPT, dtype=object)
    spans = {tile.tile_id: _span(region, tile) for tile in tiles}
    keys = sorted(set(spans.values()))
    number = {span: place for place, span in enumerate(keys)}
    rows = np.array([number[spans[name]] for name in names], dtype=np.int64)
    for span in sorted({int(one) for one in rows[splits == TRAIN]}):
        meeting = [other for other in range(len(keys)) if _meet(keys[span], keys[other])]
        held = (splits > TRAIN) & np.isin(rows, meeting)
        near = near_any(places, (splits == TRAIN) & (rows == span), held, rules.buffer_px)
        drops[near] = BUFFER
    return splits, drops


def anchor_split(rules: Splits, anchor: str) -> int:
    """Return the split code of a day (ISO 8601) by ``splits.hold_out``."""
    day, held = dt.date.fromisoformat(anchor), rules.hold_out
    for code, days in ((VAL, held and held.val), (TEST, held and held.test)):
        if days and days[0] <= day < days[1]:
            return code
    return TRAIN


type _Span = tuple[dt.datetime, dt.datetime]


def _span(region: Region, tile: Tile) -> _Span:
    slots = tile_slots(region, tile.time)
    return min(slot.time.start for slot in slots), max(slot.time.end for slot in slots)


def _meet(one: _Span, other: _Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _by_polygons(region: Region, tiles: Sequence[Tile], places: Places) -> Placed:
    """The polygon of the centre pixel decides; val and test must lie wholly in theirs, train must keep off them."""
    import shapely

    rules = region.dataset.splits
    lattices = {tile.lattice.lattice_id: tile.lattice for tile in tiles}
    splits = np.full(len(places.col), NONE)
    drops = np.full(len(places.col), KEPT, dtype=object)
    shapes, epsg = _read_polygons(region)
    for lattice_id in sorted(set(places.lattice.tolist())):
        rows = np.flatnonzero(places.lattice == lattice_id)
        ground = {code: _in_pixels(shape, epsg, lattices[lattice_id]) for code, shape in shapes.items()}
        own = places.take(rows)
        left, top = own.col + _EDGE_PX, own.row + _EDGE_PX
        right, bottom = own.col + own.width - _EDGE_PX, own.row + own.height - _EDGE_PX
        boxes = shapely.box(left, top, right, bottom)
        centre = own.col + own.width // 2 + 0.5, own.row + own.height // 2 + 0.5
        for code, shape in ground.items():
            shapely.prepare(shape)
            splits[rows[shapely.contains_xy(shape, *centre)]] = code
        for code, shape in ground.items():
            here, mine = splits[rows], splits[rows] == code
            if code == TRAIN:
                continue
            drops[rows[(here == TRAIN) & shapely.dwithin(shape, boxes, float(rules.buffer_px))]] = BUFFER
            drops[rows[mine & ~shapely.covers(shape, boxes)]] = STRADDLES
            drops[rows[(here > TRAIN) & ~mine & shapely.intersects(shape, boxes)]] = STRADDLES
    drops[splits == NONE] = NO_SPLIT
    return splits, drops


def _in_pixels(shape: "BaseGeometry", epsg: int, lattice: Lattice) -> "BaseGeometry":
    """Return a shape in pixels of a lattice: x to the right, y down."""
    import shapely

    metric = reproject_shape(densified(shape), epsg, lattice.epsg)
    inverse = ~lattice.transform(Window(0, 0, 1, 1))

    def moved(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack(inverse @ (points[:, 0], points[:, 1]))

    return shapely.transform(metric, moved)


def _read_polygons(region: Region) -> tuple[dict[int, "BaseGeometry"], int]:
    """Return the union of the polygons of each split code, train first, in the file's CRS, and its EPSG code."""
    rules = region.dataset.splits
    path, name = region.resolve(str(rules.path)), str(rules.attribute)
    layer = read_layer(path, "dataset.splits.path", [name], error=SplitError)
    if layer.epsg is None:
        raise SplitError(f"{path} names no CRS with an EPSG code: save it in EPSG:4326, which it then says")
    codes = _by_attribute(rules, [text_of(value) or None for value in layer.fields[name]])
    shapes = {}
    for code in (TRAIN, VAL, TEST):
        union = polygons_of(layer.shapes[codes == code])
        if not union.is_empty:
            shapes[code] = union
    if not shapes:
        raise SplitError(
            f"{path} holds no polygon that says a split in {quoted(name)}: draw them, or name another one"
        )
    return shapes, layer.epsg
