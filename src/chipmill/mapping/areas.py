"""estimate_areas: hectares per class of a map, and Olofsson's estimator for those who have a probability sample.

Counting pixels gives the *mapped* area: it carries the map's errors and is labelled so. An estimate of the true area
needs reference labels of a probability sample; `olofsson` turns their error matrix into areas with intervals.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.plain import csv_cell
from chipmill.core.store import commit_file, write_json
from chipmill.dataset.rasters import open_raster
from chipmill.learning.bundle import load_bundle
from chipmill.learning.stacks import Raster
from chipmill.mapping.files import MapDir
from chipmill.mapping.outputs import MapRef, StitchedRef
from chipmill.mapping.prediction import MapPlan, rasters_of
from chipmill.region.grid import Lattice, Window, projector

STAGE_VERSION: Final = 1
_BLOCK_PX: Final = 512  # side within which the size of a pixel is taken as constant across columns
_HECTARE: Final = 10_000.0  # m2
_A: Final = 6_378_137.0  # WGS 84: half axis in metres, and the square of the eccentricity
_E2: Final = 0.00669437999014
_REACH_PX: Final = (
    8  # of the differences that stand for derivatives: above the noise of a projection, below its bend
)

type Floats = NDArray[np.float64]


def estimate_areas(plan: MapPlan, stitched: StitchedRef) -> MapRef:
    """Commit areas.csv (mapped pixels and hectares per class) and map.json; the attempt then lacks only the report."""
    bundle = load_bundle(plan.model)
    classes = bundle.schema.classes
    pixels, square_metres = np.zeros(len(classes), np.int64), np.zeros(len(classes))
    for raster in rasters_of(plan):
        counted, measured = mapped_areas(plan.files, raster, len(classes))
        pixels += counted
        square_metres += measured
    files = plan.files
    with commit_file(files.areas, plan.fingerprint, records=len(classes)) as temp:
        temp.write_text(areas_table([one.name for one in classes], pixels, square_metres / _HECTARE))
    facts = {
        "region": plan.region,
        "cell": list(plan.span),
        "model": {"name": bundle.name, "version": bundle.version, "fingerprint": bundle.fingerprint},
        "rasters": list(stitched.rasters),
        "failed": list(stitched.failed),
        "notes": list(plan.notes),
        "classes": [{"code": code, "name": one.name, "color": one.color} for code, one in enumerate(classes)],
        "overlap": plan.overlap,
        "temperature": bundle.temperature,
        "areas": "mapped area: pixels counted, without correction for the map's errors",
        "fingerprint": plan.fingerprint,
    }
    with commit_file(files.facts, plan.fingerprint) as temp:
        write_json(temp, facts)
    number = int(plan.attempt.name.removeprefix("."))
    return MapRef(plan.attempt, plan.region, number, plan.fingerprint, len(stitched.failed))


def areas_table(names: Sequence[str], pixels: NDArray[np.int64], hectares: Floats) -> str:
    """Return areas.csv: class, mapped_px, mapped_ha, mapped_share (of the mapped ground)."""
    total = float(hectares.sum())
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["class", "mapped_px", "mapped_ha", "mapped_share"])
    for name, count, area in zip(names, pixels, hectares, strict=True):
        share = float(area) / total if total else 0.0
        table.writerow([csv_cell(name), int(count), f"{float(area):.4f}", f"{share:.6f}"])
    return text.getvalue()


def mapped_areas(files: MapDir, raster: Raster, classes: int) -> tuple[NDArray[np.int64], Floats]:
    """Return pixels and square metres on the ellipsoid per class of classes-<raster>.tif, read block by block."""
    from rasterio.windows import Window as FileWindow

    pixels, area = np.zeros(classes, np.int64), np.zeros(classes)
    extent = raster.extent
    with open_raster(files.layer("classes", raster.name)) as opened:
        for row in range(0, extent.height, _BLOCK_PX):
            for col in range(0, extent.width, _BLOCK_PX):
                height, width = min(_BLOCK_PX, extent.height - row), min(_BLOCK_PX, extent.width - col)
                codes = opened.read(1, window=FileWindow(col, row, width, height))
                counts = np.zeros((height, classes), np.int64)
                for code in range(classes):
                    counts[:, code] = (codes == code).sum(axis=1)
                place = Window(extent.col_off + col, extent.row_off + row, width, height)
                pixels += counts.sum(axis=0)
                area += pixel_areas_m2(raster.lattice, place) @ counts
    return pixels, area


def pixel_areas_m2(lattice: Lattice, window: Window) -> Floats:
    """Return the true area of a pixel in each row of a window, float64 `(y,)` square metres on the WGS 84 ellipsoid.

    M N cos(lat) |d(lon, lat) / d(x, y)| res_x res_y at the middle of the row, M and N being the radii of curvature of
    the meridian and the prime vertical (Snyder 1987, equations 4-18 to 4-20); so degrees, UTM and Mercator alike give
    ground.
    """
    row = np.arange(window.row_off, window.row_end) + 0.5
    y = lattice.origin_y - row * lattice.res_y
    x = np.full(len(row), lattice.origin_x + (window.col_off + window.width / 2) * lattice.res_x)
    to_degrees = projector(lattice.epsg, 4326).transform
    latitude = np.radians(np.asarray(to_degrees(x, y)[1]))
    half_x, half_y = _REACH_PX * lattice.res_x, _REACH_PX * lattice.res_y
    east = _turned(to_degrees(x - half_x, y), to_degrees(x + half_x, y)) / (2 * half_x)
    north = _turned(to_degrees(x, y - half_y), to_degrees(x, y + half_y)) / (2 * half_y)
    swelling = 1 - _E2 * np.sin(latitude) ** 2
    radii = _A**2 * (1 - _E2) / swelling**2
    per_unit = np.abs(east[0] * north[1] - east[1] * north[0]) * radii * np.cos(latitude)
    areas: Floats = per_unit * lattice.res_x * lattice.res_y
    return areas


def _turned(start: Any, end: Any) -> Floats:
    """Return the way from one (longitude, latitude) to another in radians, the short way round."""
    difference = np.asarray(end, np.float64) - np.asarray(start, np.float64)
    way: Floats = np.radians((difference + 180) % 360 - 180)
    return way


@dataclass(frozen=True, slots=True)
class AreaEstimate:
    """Areas and accuracies with their 95 % half-widths, per class; areas in the unit of the map's total."""

    area: Floats
    area_ci95: Floats
    users_accuracy: Floats
    producers_accuracy: Floats
    overall_accuracy: float
    overall_ci95: float


def olofsson(sample: NDArray[np.int64], mapped: NDArray[Any]) -> AreaEstimate:
    """Estimate areas from a stratified random sample (Olofsson et al. 2014, equations 1, 2, 5, 9-11).

    `sample` is `(class, class)`: row = map class (stratum), column = reference; `mapped` the area of each map class,
    in any unit. Every stratum needs at least two samples, or its variance is unknown (ValueError).
    """
    counts = sample.astype(np.float64)
    per_stratum = counts.sum(axis=1)
    if (per_stratum < 2).any():
        raise ValueError(f"each map class needs at least two samples, got {per_stratum.astype(int).tolist()}")
    total = float(np.sum(mapped))
    weight = np.asarray(mapped, np.float64) / total
    share = counts / per_stratum[:, None]
    joint = weight[:, None] * share
    spread = (share * (1 - share) / (per_stratum - 1)[:, None] * weight[:, None] ** 2).sum(axis=0)
    users = np.diag(share)
    overall_variance = float((weight**2 * users * (1 - users) / (per_stratum - 1)).sum())
    reference = joint.sum(axis=0)
    return AreaEstimate(
        area=total * reference,
        area_ci95=1.96 * total * np.sqrt(spread),
        users_accuracy=users,
        producers_accuracy=np.diag(joint) / reference,
        overall_accuracy=float(np.trace(joint)),
        overall_ci95=1.96 * overall_variance**0.5,
    )
