"""What a run of a forge may do in a cell folder, by the name in its spec."""

from collections.abc import Callable
from pathlib import Path

from benchmarks import chain
from tests.faults.store import cell

from chipmill.dataset.reselect import select_dataset
from chipmill.exchange.chips import ImportOptions
from chipmill.exchange.dtypes import DtypeOptions, convert_dtype
from chipmill.exchange.earthengine_out import export_chips
from chipmill.exchange.esri import export_esri
from chipmill.exchange.folders import export_folders, import_folders
from chipmill.region.config import Region

PAIRS = "pairs"
"""Folder of GeoTIFF pairs beside the output, made before by the verb to-folders, for the verbs that read them."""


def _current(folder: Path) -> Path:
    return cell.cell_of(folder).versions.current_path()


def converted(folder: Path) -> Path:
    """Return where a verb that converts writes to; below the output, so that its calls count."""
    return folder / "out" / "converted"


CONVERSIONS: dict[str, Callable[[Path], object]] = {
    "to-esri": lambda folder: export_esri(_current(folder), converted(folder)),
    "to-folders": lambda folder: export_folders(_current(folder), converted(folder)),
    "to-earth-engine": lambda folder: export_chips(_current(folder), converted(folder)),
    "from-folders": lambda folder: import_folders(
        folder / PAIRS, converted(folder), ImportOptions(name="again", date="2019-03-01")
    ),
    "dtype": lambda folder: convert_dtype(folder / PAIRS, converted(folder), DtypeOptions("float32")),
}


def work(verb: str, folder: Path, region: Region) -> None:
    """Do what a verb says."""
    if verb == "build":
        chain.build(region)
    elif verb == "select":
        select_dataset(region)
    else:
        CONVERSIONS[verb](folder)
