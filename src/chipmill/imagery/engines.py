"""Composites read by odc-stac or stackstac instead of our own reader, behind the same protocol of strips.

The engines are handed nothing that they could open. A file is a number to them, and the reader that each is given opens
that number through :mod:`chipmill.imagery.sources`: the same drivers, gate, secrets and errors as everywhere. What is
theirs is the way from blocks of a file to pixels of a grid: windows, overlaps, warping.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import MaskFlags

from chipmill.core.buffers import Buffers
from chipmill.core.errors import AssetMismatchError
from chipmill.core.redact import redact
from chipmill.imagery.hrefs import resolve_href
from chipmill.imagery.items import MASK, Acquisition, Asset, Item
from chipmill.imagery.kernels import Conversion
from chipmill.imagery.masks import classify, dilate
from chipmill.imagery.orders import Order
from chipmill.imagery.reading import Grid
from chipmill.imagery.scaling import Own, Scaling, own_of
from chipmill.imagery.sources import check_metadata, open_asset
from chipmill.imagery.strips import BUDGET_BYTES, Strip, StripSource, row_windows
from chipmill.region.grid import Window

_ADDRESS: Final = "https://file.invalid/"


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """One band of a file, looked at once before an engine may read it."""

    asset: Asset
    location: str
    """Absolute URL or path, with what the gate needs to know of it."""
    own: Own
    nodata: float | None
    """The file's own, else that of its item."""


class Engine(Protocol):
    """How an engine puts files on a grid."""

    def __call__(self, files: Sequence[File], grid: Grid, resampling: str) -> NDArray[np.floating[Any]]:
        """Return (file, y, x) DN in floats that hold them exactly; not a number where there is no valid pixel.

        Raises AssetReadError and TransientReadError.
        """


def address(number: int) -> str:
    """Return what stands for file ``number`` in the items that an engine is given: a URL of a host that cannot be."""
    return f"{_ADDRESS}{number}"


def file_of(files: Sequence[File], url: str) -> File:
    """Return the file that an :func:`address` stands for."""
    return files[int(url.removeprefix(_ADDRESS))]


def float_type(files: Sequence[File]) -> np.dtype[Any]:
    """Return the smallest type of floats that holds all DN of the files: 32 bit for 8 and 16 bit, else 64."""
    return np.result_type(np.float32, *(file.own.dtype for file in files))


@contextlib.contextmanager
def open_engine(name: str, order: Order, root: str) -> Iterator[StripSource]:
    """Open the files of an order with the engine of that name, ``odc-stac`` or ``stackstac``.

    Raises:
        AssetReadError, TransientReadError: a file cannot be opened.
        AssetMismatchError: its georeference contradicts its item, or the engine would read it wrongly.
    """
    engine: Engine
    if name == "odc-stac":
        from chipmill.imagery.engine_odc import load as engine
    else:
        from chipmill.imagery.engine_stackstac import load as engine
    yield EngineStrips(engine, name, order, root)


class EngineStrips:
    """The acquisitions of an order on its grid, read by an engine. Make it by :func:`open_engine`."""

    def __init__(self, engine: Engine, name: str, order: Order, root: str) -> None:
        self._engine, self._name, self._imagery, self._grid = engine, name, order.imagery, order.grid
        self._acquisitions: Sequence[Acquisition] = order.acquisitions
        self._items = [(time, item) for time, one in enumerate(order.acquisitions) for item in one.items]
        self._files = {band: self._looked_at(band, root) for band in order.imagery.bands}
        self._masks = self._looked_at(MASK, root) if order.imagery.mask else []
        self._halo = order.imagery.mask.dilation_px if order.imagery.mask else 0
        own = {file.asset: file.own for files in self._files.values() for file in files}
        self._scaling = Scaling(order.acquisitions, order.imagery, own)

    def _looked_at(self, band: str, root: str) -> list[File]:
        return [self._file(item.assets[band], root) for _, item in self._items]

    def _file(self, asset: Asset, root: str) -> File:
        location = resolve_href(root, asset.href)
        with open_asset(location) as dataset:
            check_metadata(dataset, asset, location)
            place = asset.band - 1
            told = dataset.nodatavals[place]
            nodata = asset.nodata if told is None else told
            if nodata is None and self._name == "odc-stac":
                _refuse_masked(dataset.mask_flag_enums[place], location)
            return File(asset, location, own_of(dataset, asset.band), nodata)

    def windows(self) -> Sequence[Window]:
        """Return strips that fit the budget: all items of one are held, as floats and as what they become."""
        loaded = [*self._files.values(), self._masks]
        pixel = sum(2 * float_type(files).itemsize for files in loaded if files)
        rows = BUDGET_BYTES // 2 // max(1, pixel * self._grid.width * len(self._items))  # one is read ahead
        return row_windows(self._grid, min(max(1, rows), self._grid.height))

    def rule(self, band: str) -> Conversion:
        """Return how a reduced value of a band becomes a composite's integer."""
        return self._scaling.rule(band)

    def read(self, window: Window, _room: Buffers) -> Strip:
        """Return a window, in arrays of its own; raises AssetReadError and TransientReadError."""
        corner = self._grid.transform @ Affine.translation(window.col_off, window.row_off)
        grid = Grid(self._grid.crs, corner, window.width, window.height)
        shape = (len(self._acquisitions), *window.shape)
        values = {band: np.zeros(shape, dtype) for band, dtype in self._scaling.dtypes.items()}
        valid = np.zeros(shape, np.bool_)
        seen = np.zeros(shape, np.bool_)
        if self._items:
            bands = {band: self._load(files, grid) for band, files in self._files.items()}
            masks = self._engine(self._masks, grid.padded(self._halo), "nearest") if self._masks else None
            for place, (time, item) in enumerate(self._items):
                clear, cloud = self._masked(None if masks is None else masks[place], place, grid)
                good = clear & np.all([np.isfinite(loaded[place]) for loaded in bands.values()], axis=0)
                take = good & ~valid[time]
                for band, loaded in bands.items():
                    part = self._as_stored(band, place, item, loaded[place])
                    np.copyto(values[band][time], part, where=take, casting="same_kind")
                valid[time] |= good
                seen[time] |= good | cloud
        counted, observed = (np.count_nonzero(one, axis=0).astype(np.int16) for one in (valid, seen))
        return Strip(values, valid, counted, observed)

    def _load(self, files: Sequence[File], grid: Grid) -> NDArray[np.floating[Any]]:
        return self._engine(files, grid, self._imagery.resampling)

    def _as_stored(
        self, band: str, place: int, item: Item, loaded: NDArray[np.floating[Any]]
    ) -> NDArray[Any]:
        part = _stored(loaded, self._files[band][place].own.dtype)
        return self._scaling.scaled(band, item.assets[band], part)

    def _masked(
        self, loaded: NDArray[np.floating[Any]] | None, place: int, grid: Grid
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return clear and dropped pixels of an item, the dropped ones grown."""
        mask, halo = self._imagery.mask, self._halo
        if mask is None or loaded is None:
            shape = (grid.height, grid.width)
            return np.ones(shape, np.bool_), np.zeros(shape, np.bool_)
        classes = _stored(loaded, self._masks[place].own.dtype)
        clear, dropped = classify(classes, np.isfinite(loaded), mask)
        grown = dilate(dropped, halo)
        inside = np.s_[halo : halo + grid.height, halo : halo + grid.width]
        return clear[inside] & ~grown[inside], (clear | dropped)[inside] & grown[inside]


def _stored(loaded: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return floats as the type that the file has, rounded where that is whole numbers; 0 where there is no number."""
    if dtype.kind == "f":
        return loaded.astype(dtype)
    limits = np.iinfo(dtype)
    whole = np.clip(np.rint(np.nan_to_num(loaded)), limits.min, limits.max)
    return np.asarray(whole, dtype)


def _refuse_masked(flags: Sequence[MaskFlags], location: str) -> None:
    if MaskFlags.all_valid not in flags:
        raise AssetMismatchError(
            f"{redact(location)} tells by a mask of its own which pixels are valid, and odc-stac does not look at it: "
            "use engine blocks or stackstac"
        )
