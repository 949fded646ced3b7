"""chipmill.json and chips.csv beside an export: what came from where, so that an import gives the same dataset again.

The file to change for what an export remembers of its dataset. The formats of other programs know neither the scale of
a band nor the id, date or split of a chip. The two files are read as a stranger's: typed, bounded, and names checked.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from chipmill.core.errors import BadInputError
from chipmill.core.plain import csv_cell
from chipmill.core.store import write_json
from chipmill.dataset.description import Manifest
from chipmill.dataset.records import Sample
from chipmill.region.fields import Id, Model

FACTS, CHIPS = "chipmill.json", "chips.csv"
_COLUMNS: Final = ("name", "chip_id", "anchor", "crs", "transform")
_MOST_BYTES: Final = 1 << 28

Date = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
ChipId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]


class OriginBand(Model):
    """A band of the exported dataset."""

    name: Id
    kind: Literal["band", "index", "static"]
    source: str
    slot: str
    dtype: str
    scale: float
    """Stored value x scale + offset = physical value."""
    offset: float
    nodata: float | None


class OriginClass(Model):
    """A class of the exported dataset, in the order of its codes."""

    name: Id
    color: Annotated[str, StringConstraints(pattern=r"^#[0-9a-f]{6}$")]
    values: tuple[str, ...]
    """Values of the source that the label was made from."""
    written: Annotated[int, Field(ge=0, le=255)]
    """Value in the exported label."""


class Origin(Model):
    """chipmill.json."""

    schema_version: Literal[1] = 1
    format: str
    name: Id
    """Region that the dataset is of."""
    cell: tuple[Date, Date]
    fingerprint: str
    """Of the dataset."""
    dtype: Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"]
    """Of the pixels, as they were in a record."""
    ignore: Annotated[int, Field(ge=0, le=255)]
    """Value in the exported label that means: not known."""
    slots: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """Names and half-open UTC intervals."""
    bands: tuple[OriginBand, ...]
    classes: tuple[OriginClass, ...]


class OriginChip(Model):
    """One row of chips.csv."""

    name: str
    """Of the pair of files, or number of the record."""
    chip_id: ChipId
    anchor: Date
    crs: Annotated[str, StringConstraints(pattern=r"^(EPSG:\d{4,6})?$")]
    transform: Annotated[str, StringConstraints(max_length=400)]
    """Six numbers with spaces between them, as Affine (a, b, c, d, e, f)."""

    @property
    def affine(self) -> tuple[float, float, float, float, float, float]:
        """The transform; raises ValueError where it is none."""
        a, b, c, d, e, f = map(float, self.transform.split())
        return a, b, c, d, e, f

    @classmethod
    def of(cls, name: str, sample: Sample) -> "OriginChip":
        """Make it of a sample that is written under a name."""
        transform = " ".join(map(repr, map(float, sample.transform)))
        return cls(
            name=name, chip_id=sample.chip_id, anchor=sample.anchor, crs=sample.crs, transform=transform
        )


def origin_of(manifest: Manifest, kind: str, written: Sequence[int], ignore: int) -> Origin:
    """Return what an export in the format ``kind`` remembers; ``written[code]`` is the label value of each class."""
    return Origin(
        format=kind,
        name=manifest.region,
        cell=manifest.cell,
        fingerprint=manifest.fingerprint,
        dtype=manifest.dtype,
        ignore=ignore,
        slots=tuple((slot.name, slot.intervals) for slot in manifest.slots),
        bands=tuple(
            OriginBand(**{name: getattr(band, name) for name in OriginBand.model_fields})
            for band in manifest.bands
        ),
        classes=tuple(
            OriginClass(name=one.name, color=one.color, values=one.values, written=value)
            for one, value in zip(manifest.classes, written, strict=True)
        ),
    )


def write_origin(folder: Path, origin: Origin, chips: Iterable[OriginChip]) -> int:
    """Write both files into a folder, row by row as the chips come, and return their number."""
    write_json(folder / FACTS, origin)
    count = 0
    with (folder / CHIPS).open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for chip in chips:
            rows.writerow([csv_cell(getattr(chip, name)) for name in _COLUMNS])
            count += 1
    return count


def read_origin(folder: Path) -> Origin | None:
    """Return what an export of ours says of itself, None for a folder of another program.

    Raises BadInputError where chipmill.json is not what it should be.
    """
    path = folder / FACTS
    if not path.is_file():
        return None
    try:
        return Origin.model_validate_json(read_text(path))
    except ValueError as error:
        if isinstance(error, BadInputError):
            raise
        raise BadInputError(
            f"{path} is none of ours ({str(error).splitlines()[0]}): export again, or remove it and say what it said"
        ) from error


def read_chips(folder: Path) -> Mapping[str, OriginChip]:
    """Return the rows of chips.csv by name; none where there is no such file. Raises BadInputError for a bad row."""
    path = folder / CHIPS
    if not path.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(read_text(path)))
    found: dict[str, OriginChip] = {}
    try:
        for row in rows:
            chip = OriginChip(**{name: row[name].removeprefix("'") for name in _COLUMNS})
            _ = chip.affine
            found[chip.name] = chip
    except (KeyError, ValueError, TypeError) as error:
        raise BadInputError(
            f"{path}, line {rows.line_num}, is no chip with {', '.join(_COLUMNS)}: export again, or remove the file"
        ) from error
    return found


def read_text(path: Path) -> str:
    """Return the UTF-8 text of a small file of another program; raises BadInputError where it is none."""
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise BadInputError(f"{path} has {size:,} bytes: expected a text of at most {_MOST_BYTES:,}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{path} is no UTF-8 text ({error.reason} at byte {error.start}): export it again"
        ) from error
