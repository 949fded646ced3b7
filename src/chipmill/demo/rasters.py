"""Files of the embedded world that hold pixels or polygons: COGs and the label layer. Equal input, equal bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes

STRIP_PX = 2048  # rows whose polygons are held at once


def write_cog(
    path: Path,
    pixels: NDArray[np.generic],
    transform: Affine,
    crs: str,
    nodata: float,
    resampling: str = "average",
    colors: dict[int, tuple[int, int, int]] | None = None,
) -> None:
    """Write one band `(y, x)` as a COG: zstd level 1, predictor, 512 px blocks, overviews by `resampling`."""
    floating = np.issubdtype(pixels.dtype, np.floating)
    profile = {
        "driver": "COG",
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "count": 1,
        "dtype": pixels.dtype.name,
        "crs": crs,
        "transform": transform,
        "nodata": nodata,
        "blocksize": 512,
        "compress": "zstd",
        "level": 1,
        "predictor": "floating_point" if floating else "standard",
        "overview_resampling": resampling,
        "statistics": "no",
    }
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels, 1)
        if colors is not None:
            target.write_colormap(1, colors)


def write_polygons(
    path: Path,
    classes: NDArray[np.uint8],
    transform: Affine,
    crs: str,
    names: dict[int, str],
) -> int:
    """Write the patches of equal class as polygons with `class` (value) and `name`; 0 is left out.

    The outlines follow the pixel edges, so burning the polygons gives back `classes`. Patches are cut every
    STRIP_PX rows, which bounds the memory. Returns the number of polygons.
    """
    import pyogrio
    import shapely

    geometries: list[bytes] = []
    values: list[int] = []
    for top in range(0, classes.shape[0], STRIP_PX):
        strip = classes[top : top + STRIP_PX]
        shift = transform @ Affine.translation(0, top)
        for geometry, value in shapes(strip, mask=strip > 0, transform=shift):
            geometries.append(shapely.to_wkb(shapely.geometry.shape(geometry)))
            values.append(int(value))
    # a GeoPackage notes when it was written; a fixed date keeps the bytes equal from run to run
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2020-01-01T00:00:00.000Z"})
    try:
        pyogrio.raw.write(
            path,
            np.array(geometries, dtype=object),
            [np.array(values, np.int32), np.array([names[v] for v in values], dtype=object)],
            ["class", "name"],
            layer="landcover",
            driver="GPKG",
            geometry_type="Polygon",
            crs=crs,
        )
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
    return len(values)
