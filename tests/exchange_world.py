"""Datasets to convert, and pairs of pictures as other programs write them."""

import json
import warnings
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

CORNER = (500000.0, 5100000.0)


def dataset(tmp_path_factory):
    """Open a committed dataset of its own."""
    from tests import dataset_world as dw

    from chipmill.dataset.reader import open_dataset

    base = tmp_path_factory.getbasetemp() / "dataset"
    return open_dataset(dw.committed(base, tmp_path_factory.mktemp("exchange")).path)


def save(path: Path, pixels: np.ndarray, at: int | None = 0, **options) -> None:
    """Write a GeoTIFF (band, y, x), the ``at``-th of a row of neighbours, or (None) without a place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, rows, cols = pixels.shape
    if at is not None:
        corner = Affine(10, 0, CORNER[0] + at * cols * 10, 0, -10, CORNER[1])
        options = {"crs": "EPSG:32633", "transform": corner} | options
    profile = {"driver": "GTiff", "width": cols, "height": rows, "count": bands, "dtype": pixels.dtype.name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **(profile | options)) as target:
            target.write(pixels)


def pair(
    folder: Path, name: str, at: int, *, values=(0, 1, 2), size: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Write images/<name>.tif and labels/<name>.tif below a folder and return their pixels."""
    rng = np.random.default_rng(at)
    image = rng.integers(0, 255, (3, size, size), dtype=np.uint8)
    label = rng.choice(np.array(values, np.uint8), (1, size, size))
    save(folder / "images" / f"{name}.tif", image, at)
    save(folder / "labels" / f"{name}.tif", label, at)
    return image, label


def esri(folder: Path, count: int = 4) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write a folder as ArcGIS exports it: NoData among the classes, a first line that comes again, both slashes."""
    names = [f"{number:09d}" for number in range(count)]
    made = {name: pair(folder, name, at) for at, name in enumerate(names)}
    lines = [f"images\\{names[2]}.tif  labels\\{names[2]}.tif "]
    lines += [f"images/{name}.tif  labels/{name}.tif " for name in names]
    (folder / "map.txt").write_text("\r\n".join(lines) + "\r\n")
    classes = [(0, "NoData", [0, 0, 0]), (2, "Open Water", [10, 20, 255]), (1, "Forêt", [-1, -1, -1])]
    stats = {"NumTiles": count + 1, "MetaDataMode": "Classified_Tiles"}
    (folder / "esri_accumulated_stats.json").write_text(json.dumps(stats))
    emd = {
        "ImageHeight": "e.g. 256",
        "MetaDataMode": "Classified_Tiles",
        "Classes": [{"Value": value, "Name": name, "Color": color} for value, name, color in classes],
    }
    (folder / "esri_model_definition.emd").write_text(json.dumps(emd))
    return made
