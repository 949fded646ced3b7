"""Simulate six label chips in three UTM zones and a year of Sentinel-2 over each: run it once before the region."""

import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from examples.archive import Archive, Asset, Place

SIDE: Final = 128
CLEAR, CLOUD = 4, 9
"""Classes of the SCL."""
CHIPS: Final = {
    "lcn_36nzh_01": Place(32636, 402_343.7, 112_341.3),  # grids that no rounding to whole metres finds again
    "lcn_36nzh_02": Place(32636, 462_343.7, 112_341.3),
    "lcn_29nmg_01": Place(32629, 512_300.0, 812_500.0),
    "lcn_29nmg_02": Place(32629, 532_300.0, 812_500.0),
    "lcn_34kev_01": Place(32734, 601_005.0, 7_712_345.0),
    "lcn_34kev_02": Place(32734, 641_005.0, 7_712_345.0),
}
NO_FOURTH: Final = "lcn_34kev_02"
"""Chip without any scene in the fourth period."""
SCENES: Final = (
    # platform and instant, share of the chip that is clear, and what the metadata say of the whole scene, per cent
    ("s2a", "2018-01-05T10:00:00Z", 1.0, 0),
    ("s2b", "2018-01-25T10:00:00Z", 1.0, 0),
    ("s2a", "2018-02-04T10:00:00Z", 1.0, 0),
    ("s2a", "2018-04-10T10:00:00Z", 0.55, 5),
    ("s2b", "2018-05-01T10:00:00Z", 0.2, 5),
    ("s2a", "2018-06-01T10:00:00Z", 0.6, 5),
    ("s2a", "2018-07-01T10:00:00Z", 0.95, 85),
    ("s2b", "2018-07-20T10:00:00Z", 0.0, 1),
    ("s2b", "2018-09-10T10:00:00Z", 1.0, 0),
    ("s2a", "2018-09-30T10:00:00Z", 1.0, 0),
    ("s2a", "2018-10-20T00:00:00Z", 0.8, 20),
    ("s2b", "2018-12-31T10:30:00Z", 1.0, 0),
)


def make(folder: Path) -> None:
    """Write ``data/labels`` and ``data/imagery`` below a folder."""
    labels = Archive(folder / "data" / "labels", "landcovernet-labels")
    imagery = Archive(folder / "data" / "imagery", "sentinel-2-l2a")
    for number, (name, place) in enumerate(CHIPS.items()):
        rng = np.random.default_rng(number)
        classes = _patches(rng)
        confidence = np.where(_patches(rng) > 1, 90, 40).astype(np.uint8)
        labels.add(name, "2018-07-01T00:00:00Z", place, {"labels": Asset(np.stack([classes, confidence]), 0)})
        for count, (platform, when, clear, cloud_pct) in enumerate(SCENES):
            if name == NO_FOURTH and "2018-08-08" <= when[:10] < "2018-10-20":
                continue
            item_id = f"{platform}_{name[4:]}_{when[:10].replace('-', '')}"
            properties = {"platform": platform, "eo:cloud_cover": cloud_pct}
            imagery.add(item_id, when, place, _scene(classes, clear, 20 * count), **properties)
    labels.write()
    imagery.write()


def _patches(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return classes 1 to 7 in squares of 16 px, with a column that holds no label."""
    classes = np.kron(rng.integers(1, 8, (SIDE // 16, SIDE // 16)), np.ones((16, 16), np.int64))
    classes[:, -1] = 0
    return classes.astype(np.uint8)


def _scene(classes: NDArray[np.uint8], clear: float, shift: int) -> dict[str, Asset]:
    """Return three bands of a level for each class, bright as sand where the class is 2, and the SCL."""
    rows, columns = np.indices(classes.shape)
    level = (
        np.where(classes == 2, 9000, 300 + 250 * classes.astype(np.int64)) + shift + (3 * rows + columns) % 50
    )
    mask = np.full(classes.shape, CLEAR, np.uint8)
    mask[round(clear * SIDE) :] = CLOUD
    level[mask == CLOUD] = 12_000
    scaling = {"raster:bands": [{"scale": 0.0001, "offset": 0.0}]}
    bands = {
        key: Asset((level + tint).astype(np.uint16), 0, scaling)
        for key, tint in (("B02", 0), ("B03", 60), ("B04", 140))
    }
    return {**bands, "SCL": Asset(mask, 0)}


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
