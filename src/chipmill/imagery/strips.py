"""Windows of all acquisitions of a slot: bands, validity and counts, ready to be reduced over time.

Clouds are masked here, before any reduction, and a pixel is valid only where all bands are. The masks of a window are
read first; then, by several threads, those blocks of the bands that hold a clear pixel. Windows end where blocks end
and fit a budget, so that a tile of any size and any number of dates is composited in bounded memory.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from itertools import accumulate
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from chipmill.core.buffers import Buffers
from chipmill.imagery import kernels
from chipmill.imagery.blocks import Counts, Layout, Needed, cut_windows, drop_outside, needed, threads
from chipmill.imagery.hrefs import resolve_href
from chipmill.imagery.items import MASK, Asset, Item
from chipmill.imagery.mask_rows import MaskRows
from chipmill.imagery.masks import dilate
from chipmill.imagery.orders import Order
from chipmill.imagery.reader_pool import ReaderPool
from chipmill.imagery.reading import Grid
from chipmill.imagery.scaling import Own, Scaling
from chipmill.imagery.validity import settle
from chipmill.imagery.workers import lent_readers, results
from chipmill.region.grid import Window

BUDGET_BYTES: Final = 72 << 20
"""Of the values and validity of the windows that are held at once."""
_MASKS_SHARE: Final = 3
"""A third as much may hold rows of masks that the next window needs too."""
AHEAD: Final = 2
"""Windows that are read at once, so that no thread waits for the last block of one of them."""
_HELD: Final = AHEAD + 1
"""One more is reduced meanwhile."""


@dataclasses.dataclass(frozen=True, slots=True)
class Strip:
    """A window of a tile at all times; ``values`` and ``valid`` have the time first, in the order of the acquisitions."""

    values: Mapping[str, NDArray[Any]]
    """Our band name -> (time, y, x) DN, or composite units in float64 where DN of the band mean different things."""
    valid: NDArray[np.bool_]
    """(time, y, x) True where all bands are valid and the mask is clear."""
    counted: NDArray[np.int16]
    """(y, x) number of acquisitions that are valid."""
    observed: NDArray[np.int16]
    """(y, x) number of acquisitions that saw the pixel, cloud or not."""


class StripSource(Protocol):
    """What a composite is made from: a tile in windows."""

    def windows(self) -> Sequence[Window]:
        """Return the windows of the order's grid in which it is best read, each pixel in one of them."""

    def rule(self, band: str) -> kernels.Conversion:
        """Return how a reduced value of a band becomes a composite's integer."""

    def read(self, window: Window, room: Buffers) -> Strip:
        """Return a window of :meth:`windows`, in arrays of ``room``; raises AssetReadError and TransientReadError."""


def row_windows(grid: Grid, rows: int) -> tuple[Window, ...]:
    """Return windows of ``rows`` rows over the whole width of a grid."""
    return tuple(
        Window(0, row, grid.width, min(rows, grid.height - row)) for row in range(0, grid.height, rows)
    )


@contextlib.contextmanager
def open_blocks(order: Order, root: str, counts: Counts | None = None) -> Iterator["BlockStrips"]:
    """Open the files of an order for our own reader; ``counts`` is told what is read.

    Raises:
        AssetReadError, TransientReadError: a file cannot be opened.
        AssetMismatchError: its georeference contradicts its item.
    """
    with lent_readers(threads()) as workers, ReaderPool() as pool:
        yield BlockStrips(order, root, pool, workers, counts or Counts())


@dataclasses.dataclass(slots=True)
class _Pass:
    """One item of an acquisition in a window: where it is wanted, and what comes of it."""

    time: int
    """Which acquisition."""
    turn: int
    """Which item of it: the values of the first one may stand where they are not wanted."""
    item: Item
    wanted: NDArray[np.bool_]
    """(y, x) clear, and not valid by an item before it; becomes False where a band is not valid."""
    guard: threading.Lock = dataclasses.field(default_factory=threading.Lock)


class BlockStrips:
    """Our own reader: every block of a source that is needed, once, by several threads."""

    def __init__(
        self,
        order: Order,
        root: str,
        pool: ReaderPool,
        workers: Executor,
        counts: Counts,
    ) -> None:
        """Open the files of all bands; made by :func:`open_blocks`."""
        self._order, self._pool, self._workers, self._counts = order, pool, workers, counts
        self._imagery, self._grid = order.imagery, order.grid
        self._halo = order.imagery.mask.dilation_px if order.imagery.mask else 0
        items = [item for one in order.acquisitions for item in one.items]
        self._locations = {
            asset: resolve_href(root, asset.href) for item in items for asset in item.assets.values()
        }
        assets = list({item.assets[band]: None for item in items for band in order.imagery.bands})
        looks = [workers.submit(self._look, asset) for asset in assets]
        looked = dict(zip(assets, results(looks), strict=True))
        self._layouts = {asset: layout for asset, (_, layout, _) in looked.items()}
        self._scaling = Scaling(
            order.acquisitions, order.imagery, {one: own for one, (own, _, _) in looked.items()}
        )
        kinds = set(self._scaling.dtypes.values())
        self._alike = next(iter(kinds)) if len(kinds) == 1 else None
        """The type of all bands, None where they differ: then they do not lie in one array."""
        self._late = self._left_for_later({asset: code for asset, (_, _, code) in looked.items()})
        masks = [item.assets[MASK] for item in items if MASK in item.assets]
        mask, room = order.imagery.mask, BUDGET_BYTES // _MASKS_SHARE // max(1, len(masks))
        self._rows = {asset: MaskRows(mask, room) for asset in masks} if mask else {}
        self._places: dict[Window, int] = {}
        """Window -> its number in :meth:`windows`."""
        self._lowest: list[int] = []
        """For each, the first row that it, one after it or one that is read at the same time may want."""

    def _look(self, asset: Asset) -> tuple[Own, Layout, tuple[bool, int | None]]:
        with self._use(asset) as reader:
            return reader.own, reader.layout, (reader.told_by_value, reader.code)

    def _left_for_later(
        self, told: Mapping[Asset, tuple[bool, int | None]]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return (band, time) which values are looked at for nodata once all are read, and that nodata value.

        That is cheaper than file by file, and possible where an acquisition is one item: else the next one must know
        where it is wanted. A band without a nodata value is not looked at, but counts as left for later all the same.
        """
        shape = (len(self._imagery.bands), len(self._order.acquisitions))
        tested, codes = np.zeros(shape, np.bool_), np.zeros(shape, np.int64)
        self._later: set[tuple[int, str]] = set()
        if self._alike is None or self._scaling.mixed:
            return tested, codes
        for time, one in enumerate(self._order.acquisitions):
            for place, band in enumerate(self._imagery.bands if len(one.items) == 1 else ()):
                by_value, code = told[one.items[0].assets[band]]
                if by_value:
                    self._later.add((time, band))
                    tested[place, time], codes[place, time] = code is not None, code or 0
        return tested, codes

    def _use(self, asset: Asset) -> Any:
        return self._pool.use(asset, self._locations[asset], self._grid, self._imagery.resampling)

    def windows(self) -> Sequence[Window]:
        """Return windows that end where the blocks of the files end."""
        pixel = len(self._order.acquisitions) * (
            2 + sum(dtype.itemsize for dtype in self._scaling.dtypes.values())
        )
        made = cut_windows(
            self._grid.width, self._grid.height, self._layouts.values(), pixel, BUDGET_BYTES // _HELD
        )
        self._places = {window: place for place, window in enumerate(made)}
        rows = [window.row_off for window in made]
        later = list(accumulate(reversed(rows), min))[::-1]
        self._lowest = [later[max(0, place - AHEAD + 1)] for place in range(len(made))]
        return made

    def rule(self, band: str) -> kernels.Conversion:
        """Return how a reduced value of a band becomes a composite's integer."""
        return self._scaling.rule(band)

    def read(self, window: Window, room: Buffers) -> Strip:
        """Return a window; raises AssetReadError and TransientReadError."""
        acquisitions = self._order.acquisitions
        shape = (len(acquisitions), *window.shape)
        cube = None
        if self._alike is None:
            values = {band: room.array(band, shape, dtype) for band, dtype in self._scaling.dtypes.items()}
        else:
            cube = room.array(" values", (len(self._scaling.dtypes), *shape), self._alike)
            values = dict(zip(self._scaling.dtypes, cube, strict=True))
        valid = room.array(" valid", shape, np.dtype(np.bool_))
        seen = room.array(" seen", shape, np.dtype(np.bool_))
        passes = self._masks(window, valid, seen)
        for turn in sorted({one.turn for one in passes}):
            now = [one for one in passes if one.turn == turn]
            for one in now if turn else ():
                one.wanted &= ~valid[one.time]
            self._read_bands(now, window, values)
            for one in now if turn else ():
                valid[one.time] |= one.wanted
        tested, codes = self._late
        nothing = np.empty((0, *shape), np.uint8)
        counted, observed = settle(nothing if cube is None else cube, codes, tested, valid, seen)
        return Strip(values, valid, counted, observed)

    def _masks(self, window: Window, valid: NDArray[np.bool_], seen: NDArray[np.bool_]) -> list["_Pass"]:
        """Read the masks of all items: fill ``seen`` with what is dropped, and return where bands are wanted."""
        passes = [
            # The first item of an acquisition works in the window's own array: nothing is to be merged.
            _Pass(time, turn, item, np.empty(window.shape, np.bool_) if turn else valid[time])
            for time, one in enumerate(self._order.acquisitions)
            for turn, item in enumerate(one.items)
        ]
        dropped = [np.empty(window.shape, np.bool_) if one.turn else seen[one.time] for one in passes]
        asked = [
            self._workers.submit(self._mask, one.item, window, one.wanted, cloud)
            for one, cloud in zip(passes, dropped, strict=True)
        ]
        results(asked)
        for one, cloud in zip(passes, dropped, strict=True):
            if one.turn:
                seen[one.time] |= cloud
        return passes

    def _mask(self, item: Item, window: Window, clear: NDArray[np.bool_], cloud: NDArray[np.bool_]) -> None:
        """Fill clear and dropped pixels of an item, the dropped ones grown."""
        mask, halo = self._imagery.mask, self._halo
        if mask is None:
            clear[:], cloud[:] = True, False
            return
        asset = item.assets[MASK]
        # The margin makes clouds beyond the window and the tile grow into it, so that neighbours fit together.
        around, whole = _grown(window, halo), _grown(Window(0, 0, self._grid.width, self._grid.height), halo)
        padded = self._grid.padded(halo)
        with self._pool.use(asset, self._locations[asset], padded, "nearest") as reader:
            frame, good, bad = self._rows[asset].read(
                reader, around, whole, self._lowest[self._places[window]]
            )
        if not halo:
            frame.spread(good, clear)
            frame.spread(bad, cloud)
            return
        good, bad = frame.spread(good), frame.spread(bad)
        grown = dilate(bad, halo)
        inside = np.s_[halo : halo + window.height, halo : halo + window.width]
        np.logical_and(good[inside], ~grown[inside], out=clear)
        np.logical_and((good | bad)[inside], grown[inside], out=cloud)

    def _read_bands(
        self, passes: Sequence[_Pass], window: Window, values: Mapping[str, NDArray[Any]]
    ) -> None:
        """Read the bands of items where they are wanted; drop what is not valid from ``wanted``."""
        jobs = []
        for one in passes:
            plans: dict[Layout, Needed] = {}
            for band in values:
                layout = self._layouts[one.item.assets[band]]
                if layout not in plans:
                    plans[layout] = needed(layout, window, one.wanted)
                jobs.append((one, band, plans[layout]))
            for layout in plans:
                drop_outside(one.wanted, layout.extent, window)
        futures = [
            self._workers.submit(self._read_band, one, band, plan, window, values[band][one.time])
            for one, band, plan in jobs
        ]
        for (one, band, plan), part in zip(jobs, results(futures), strict=True):
            self._counts.add(plan.decoded, plan.skipped)
            if part is not None:
                np.copyto(values[band][one.time], part, where=one.wanted)

    def _read_band(
        self, one: _Pass, band: str, plan: Needed, window: Window, target: NDArray[Any]
    ) -> NDArray[Any] | None:
        """Read a band of an item into the window's array, or into one of its own that is returned."""
        if not plan.regions:
            return None
        asset = one.item.assets[band]
        direct = not one.turn and band not in self._scaling.mixed
        with self._use(asset) as reader:
            part = target if direct else np.zeros(window.shape, reader.own.dtype)
            valid = None if (one.time, band) in self._later else one.wanted
            for region in plan.regions:
                reader.read_into(region, window, part, valid, one.guard)
        return None if direct else self._scaling.scaled(band, asset, part)


def _grown(window: Window, px: int) -> Window:
    """Return a window of the grid as one of the grid that is padded by ``px``, with that margin around it."""
    return dataclasses.replace(window, width=window.width + 2 * px, height=window.height + 2 * px)
