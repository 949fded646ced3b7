"""The masked median composite of one tile: against reading the same blocks alone, and against odc-stac and stackstac.

4 slots of 3 dates, 4 bands and a class band of 20 m, 2048 x 2048 px; what is timed ends with the pixels in memory, from
files in the page cache. All contenders have the same number of threads and are timed in turn; the fastest of each counts.

The peers' calls: odc-stac eagerly with its own thread pool (`load(..., pool=threads)`) or by Dask chunks of 1024 px, then
`where(clear).median("time")`; stackstac always with epsg, resolution, bounds, `rescale=False` and chunks of 1024 px, then
the same. xarray takes bottleneck for the eager median. The fastest of them is the one to beat; `context` says which.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from benchmarks.archive import BANDS
from benchmarks.counting import Block, Decodes
from benchmarks.figure import Figure
from benchmarks.kernel import interleaved
from benchmarks.scene import DROPPED, Scene, make_scene
from chipmill.imagery import reading
from chipmill.imagery.blocks import Counts, threads
from chipmill.imagery.composite import compose, strips_of

CHUNK: Final = 1024
OF_READING: Final = 0.85
OF_PEERS: Final = 10.0


def run(quick: bool) -> list[Figure]:
    """Return the figures; ``quick`` takes a tile of 1024 px and fewer runs."""
    with tempfile.TemporaryDirectory() as name:
        scene = make_scene(Path(name), 1024 if quick else 2048)
        blocks, counts = _counted(scene)
        peers = _peers(scene)
        _check_equal(scene, peers)
        image = _image(scene)
        ours: dict[str, Callable[[], object]] = {
            "reading": lambda: read_blocks(blocks, threads()),
            "chipmill": lambda: compose_all(scene, [image] * len(scene.orders)),
        }
        rounds = [
            interleaved(peers, 1) | interleaved(ours, 2 if quick else 6) for _ in range(1 if quick else 3)
        ]
        size = blocks_bytes(blocks)
    times = {name: min(one[name] for one in rounds) for name in rounds[0]}
    best = min(peers, key=times.__getitem__)
    share, gain = times["reading"] / times["chipmill"], times[best] / times["chipmill"]
    context: dict[str, object] = {
        "side_px": scene.grid.width,
        "slots": len(scene.orders),
        "dates": sum(len(order.acquisitions) for order in scene.orders),
        "threads": threads(),
        "decoded_mb": round(size / 1e6, 1),
        "seconds": {name: round(value, 4) for name, value in times.items()},
        "blocks_decoded": counts.decoded,
        "blocks_skipped": counts.skipped,
        "fastest_peer": best,
    }
    often = max(blocks.values())
    return [
        Figure("composite", size / 1e6 / times["chipmill"], "MB/s", context=context),
        _timed("composite / reading alone", share, OF_READING, quick, context),
        _timed(f"composite / {best}", gain, OF_PEERS, quick, context),
        Figure("composite: most decodes of a block", often, "decodes", "<= 1", often == 1, context),
        Figure(
            "composite: blocks masked out and not decoded",
            counts.skipped,
            "blocks",
            "> 0",
            counts.skipped > 0,
            context,
        ),
    ]


def _timed(name: str, value: float, goal: float, quick: bool, context: dict[str, object]) -> Figure:
    """Return a ratio of times; the goal is that of the whole size."""
    if quick:
        return Figure(name, value, "x", context=context)
    return Figure(name, value, "x", f">= {goal:g}", value >= goal, context)


def _image(scene: Scene) -> NDArray[np.int16]:
    return np.empty((len(scene.orders[0].names), scene.grid.height, scene.grid.width), np.int16)


def _composed(scene: Scene, counts: Counts | None = None) -> list[NDArray[np.int16]]:
    """Compose all slots with our own reader."""
    images = [_image(scene) for _ in scene.orders]
    compose_all(scene, images, counts)
    return images


def compose_all(scene: Scene, images: list[NDArray[np.int16]], counts: Counts | None = None) -> None:
    """Compose the slots of a tile as the stage does, each into its image."""
    with contextlib.closing(strips_of(scene.orders, counts)) as strips:
        for order, image in zip(scene.orders, images, strict=True):
            compose(order, image, strips=strips)


def _counted(scene: Scene) -> tuple[dict[Block, int], Counts]:
    """Return how often each block is decoded, as seen from outside, and the reader's own counts."""
    seen, counts = Decodes(), Counts()
    with patch.object(reading, "open_asset", seen.watch(reading.open_asset)):
        _composed(scene, counts)
    return dict(seen.blocks), counts


def read_blocks(blocks: Iterable[Block], count: int) -> None:
    """Read these blocks with plain rasterio, one call each, file by file in ``count`` threads."""
    files: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for location, _, band, row, column in blocks:
        files[location, band].append((row, column))

    def read(file: tuple[str, int]) -> None:
        location, band = file
        with rasterio.open(location) as source:
            height, width = source.block_shapes[band - 1]
            for row, column in files[file]:
                source.read(band, window=Window(column * width, row * height, width, height))

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(read, files))


def blocks_bytes(blocks: Iterable[Block]) -> int:
    """Return how many bytes these blocks are when they are decoded."""
    return sum(map(_bytes, blocks))


def _bytes(block: Block) -> int:
    location, _, band, row, column = block
    with rasterio.open(location) as source:
        height, width = source.block_shapes[band - 1]
        rows = min(height, source.height - row * height)
        columns = min(width, source.width - column * width)
        return int(rows * columns * np.dtype(source.dtypes[band - 1]).itemsize)


def _peers(scene: Scene) -> dict[str, Callable[[], list[Any]]]:
    return {
        "odc-stac, eager": lambda: [_odc(items, scene, lazy=False) for items in scene.slots],
        "odc-stac, dask": lambda: [_odc(items, scene, lazy=True) for items in scene.slots],
        "stackstac, dask": lambda: [_stackstac(items, scene) for items in scene.slots],
    }


def _odc(items: tuple[dict[str, Any], ...], scene: Scene, *, lazy: bool) -> Any:
    """Return the medians of a slot as an xarray Dataset, NaN where nothing is clear."""
    import odc.stac
    import pystac
    from odc.geo.geobox import GeoBox

    grid = scene.grid
    how: dict[str, Any] = {"chunks": {"x": CHUNK, "y": CHUNK}} if lazy else {"pool": threads()}
    cube = odc.stac.load(
        [pystac.Item.from_dict(item) for item in items],
        bands=[*BANDS, "scl"],
        geobox=GeoBox((grid.height, grid.width), grid.transform, grid.crs),
        resampling="nearest",
        **how,
    )
    return _median(cube[[*BANDS]], cube["scl"])


def _stackstac(items: tuple[dict[str, Any], ...], scene: Scene) -> Any:
    """Return the medians of a slot as an xarray DataArray with the bands of the tile."""
    import stackstac

    grid = scene.grid
    left, top = grid.transform @ (0, 0)
    right, bottom = grid.transform @ (grid.width, grid.height)
    cube = stackstac.stack(
        list(items),
        assets=[*BANDS, "scl"],
        epsg=int(grid.crs.removeprefix("EPSG:")),
        resolution=grid.transform.a,
        bounds=(left, bottom, right, top),
        snap_bounds=False,
        chunksize=CHUNK,
        dtype="uint16",
        fill_value=np.uint16(0),
        rescale=False,
        xy_coords=False,
        properties=False,
        band_coords=False,
    )
    return _median(cube.sel(band=[*BANDS]), cube.sel(band="scl", drop=True))


def _median(bands: Any, classes: Any) -> Any:
    import dask

    clear = ~classes.isin(DROPPED)
    with warnings.catch_warnings(), dask.config.set(scheduler="threads", num_workers=threads()):
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels that are never clear
        return bands.where(clear & (bands != 0)).median("time").compute()


def _check_equal(scene: Scene, peers: dict[str, Callable[[], list[Any]]]) -> None:
    """Refuse to compare what is not the same composite: medians agree but for the rounding of halves."""
    images = _composed(scene)
    for name, call in peers.items():
        for image, found in zip(images, call(), strict=True):
            pixels = found.to_dataarray("band") if hasattr(found, "data_vars") else found
            theirs = np.asarray(pixels.sel(band=[*BANDS]).values, np.float64)
            ours = np.where(image[: len(BANDS)] == np.iinfo(np.int16).min, np.nan, image[: len(BANDS)])
            if not np.allclose(ours, theirs, rtol=0.0, atol=0.5, equal_nan=True):
                raise RuntimeError(f"{name} makes other pixels than we do: the comparison means nothing")
