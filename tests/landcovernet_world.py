"""The real LandCoverNet labels as a static catalog, and imagery simulated on their grids: for tests of label items.

The labels lie beside the project without a catalog of their own, so their items and rasters are copied below one.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import rasterio
from tests.imagery_world import Archive

from chipmill.region.config import Region

LABELS = "ref_landcovernet_af_v1_labels"
CLASSES = (
    "water",
    "artificial-bare",
    "natural-bare",
    "snow-ice",
    "woody",
    "cultivated",
    "natural-vegetation",
)
"""Value 1 is the first; 0 is nodata."""
MIN_CONFIDENCE = 60
CLOUD, CLEAR = 9, 4
CLOUDY = np.s_[:8, :8]
"""The pixels of each chip that the simulated mask calls cloud."""


def raw_labels(shared: Path) -> dict[str, tuple[np.ndarray, rasterio.Affine, int]]:
    """Return (classes and confidence ``(2, 256, 256)``, transform, EPSG code) by item id."""
    found = {}
    for path in sorted((shared / "landcovernet").glob(f"{LABELS}_*/labels.tif")):
        with rasterio.open(path) as source:
            found[path.parent.name] = source.read(), source.transform, source.crs.to_epsg()
    return found


def expected_codes(raw: np.ndarray) -> np.ndarray:
    """Return uint8 `(y, x)`: value - 1; 255 for nodata, for what is not sure enough and under the simulated cloud."""
    codes = np.where((raw[0] > 0) & (raw[1] >= MIN_CONFIDENCE), raw[0] - 1, 255).astype(np.uint8)
    codes[CLOUDY] = 255
    return codes


def simulated(classes: np.ndarray) -> dict[str, np.ndarray]:
    """Return red and nir as DN `(y, x)` uint16: a level for each class, and a pattern that tells pixels apart."""
    rows, cols = np.indices(classes.shape)
    pattern = (7 * rows + 3 * cols) % 50
    return {
        "red": (500 + 200 * classes + pattern).astype(np.uint16),
        "nir": (4000 - 300 * classes + pattern).astype(np.uint16),
    }


def write_labels(shared: Path, folder: Path) -> Path:
    """Copy the original items and rasters below a catalog of their own; return catalog.json."""
    folder.mkdir(parents=True)
    ids = list(raw_labels(shared))
    for name in ids:
        (folder / name).mkdir()
        for file in ("labels.tif", "stac.json"):
            shutil.copyfile(shared / "landcovernet" / name / file, folder / name / file)
    links = [{"rel": "item", "href": f"./{name}/stac.json"} for name in ids]
    collection = json.loads((shared / "landcovernet" / "collection_head.json").read_text())
    (folder / "collection.json").write_text(json.dumps(collection | {"links": links}))
    catalog = {"type": "Catalog", "id": "labels", "links": [{"rel": "child", "href": "./collection.json"}]}
    (folder / "catalog.json").write_text(json.dumps(catalog))
    return folder / "catalog.json"


def write_imagery(shared: Path, folder: Path) -> Path:
    """Write one simulated scene on the grid of each label, of the label's day; return catalog.json."""
    archive = Archive(folder)
    for name, (raw, place, epsg) in raw_labels(shared).items():
        mask = np.full(raw.shape[1:], CLEAR, np.uint8)
        mask[CLOUDY] = CLOUD
        archive.scene(
            "2018-07-01", simulated(raw[0]), mask, name=f"sim_{name[-8:]}", place=place, crs=f"EPSG:{epsg}"
        )
    return archive.write()


def landcovernet(shared: Path, folder: Path) -> Region:
    """Return a region of all label chips: half of Africa, ten CRSs, a sample per chip and date."""
    values = {
        "name": "landcovernet",
        "file": str(folder / "landcovernet.yaml"),
        "aoi": {"bbox": [-20, -35, 50, 35]},
        "time": {"range": ["2018-01-01", "2019-01-01"], "slots": {"around_label": {}}},
        "tiles": {"from": "label-items", "source": {"catalog": str(write_labels(shared, folder / "labels"))},
                  "collection": LABELS, "asset": "labels"},
        "imagery": [{"name": "sim", "source": {"catalog": str(write_imagery(shared, folder / "imagery"))},
                     "bands": {"red": "red", "nir": "nir"}, "mask": {"asset": "scl"}}],
        "labels": {"classes": {str(value): name for value, name in enumerate(CLASSES, 1)},
                   "confidence": {"band": 2, "min": MIN_CONFIDENCE}},
        "dataset": {"layout": "single", "chips": {"size_px": 64, "stride_px": 64},
                    "splits": {"train": 0.6, "val": 0.2, "test": 0.2, "block_px": 128}},
    }  # fmt: skip
    return Region.model_validate(values)
