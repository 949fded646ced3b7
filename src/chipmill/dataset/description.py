"""What dataset.json says: frozen, typed, and checked when it is read. The file to change for a fact about a dataset.

Nothing here depends on when, where or by how many workers the dataset was made. Paths are relative to the folder of
dataset.json and lie below it, but for ``sources``, which may climb to the region's own directory.
"""

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final, Literal

from chipmill.core.errors import DamagedFileError
from chipmill.core.store import canonical_json
from chipmill.dataset.encodings import Encoding
from chipmill.dataset.framing import Compression
from chipmill.dataset.records import RecordSpec
from chipmill.dataset.statistics import BandSums
from chipmill.region.dataset import By
from chipmill.region.fields import Model

SCHEMA_VERSION: Final = 2


class Statistics(Model):
    """Of one band over its valid pixels under written train windows, each ground pixel once, in stored values."""

    n: str
    """Number of pixels; a decimal, since JSON readers keep no more than 53 bits of a number."""
    sum: str
    """Exact sum."""
    squares: str
    """Exact sum of squares."""
    mean: float
    """From the exact sums."""
    std: float
    """Population standard deviation, from the exact sums."""

    @classmethod
    def of_sums(cls, sums: BandSums) -> "Statistics":
        """Make it of exact sums."""
        n, total, squares = sums.texts()
        return cls(n=n, sum=total, squares=squares, mean=sums.mean, std=sums.std)

    @property
    def sums(self) -> BandSums:
        """The exact sums: add those of several datasets to merge them without rounding."""
        return BandSums.of_texts((self.n, self.sum, self.squares))


class BandFacts(Model):
    """One band of the image, in the order of its last axis."""

    name: str
    kind: Literal["band", "index", "static"]
    source: str
    """Imagery or static layer that it is from."""
    slot: str
    """"" for what has no time."""
    dtype: str
    """Type in the stack; the record's type is ``Manifest.dtype``."""
    scale: float
    """Stored value x scale + offset = physical value."""
    offset: float
    nodata: float
    saturated_px: int | None = None
    """Pixels of the band's source files that did not fit into ``dtype`` and stand at its end; None where not counted."""
    statistics: Statistics | None
    """None where nothing was written for training."""


class SlotFacts(Model):
    """One slot and the half-open UTC intervals that it stood for: one, or several where tiles differ."""

    name: str
    intervals: tuple[tuple[str, str], ...]


class ClassFacts(Model):
    """One class."""

    code: int
    name: str
    color: str
    """``#rrggbb``."""
    values: tuple[str, ...]
    """Source values and inclusive ranges."""


class FeatureFacts(Model):
    """One feature of a record, for any reader of ``tf.train.Example``."""

    name: str
    kind: Literal["bytes", "float", "int64"]
    """Which list of the Example holds it."""
    dtype: str
    """Type of the numbers once they are read, or utf-8."""
    encoding: Literal["raw", "list", "text", "png", "jpeg", "geotiff"] = "raw"
    """raw: little-endian numbers, row by row; list: numbers of the list itself; else a file of that form."""
    shape: tuple[int, ...]
    """() for a single value."""
    axes: tuple[str, ...]


class GridFacts(Model):
    """One pixel lattice that chips lie on."""

    lattice: str
    epsg: int
    origin: tuple[float, float]
    """Upper left corner of pixel (0, 0), CRS units."""
    resolution: tuple[float, float]
    """Width and height of a pixel, CRS units."""


class FileFacts(Model):
    """A file and what it must be."""

    path: str
    bytes: int
    sha256: str


class ShardFacts(FileFacts):
    """One TFRecord file."""

    split: Literal["train", "val", "test"]
    count: int
    """Records."""

    @property
    def stem(self) -> str:
        """Its name in chips.parquet."""
        return PurePosixPath(self.path).name.partition(".")[0]


class FailureFacts(Model):
    """A unit of work that failed in a run that was told to commit the rest."""

    stage: str
    unit: str
    reason: str


class Counts(Model):
    """planned = written + filtered + failed, over windows."""

    planned: int
    """From geometry alone, before a pixel was read."""
    written: int
    filtered: dict[str, int]
    """By reason."""
    failed: dict[str, int]
    """By reason."""
    splits: dict[str, int]
    """Written chips of each split."""


class Certificate(Model):
    """What the written chips prove about the splits."""

    kind: By = "blocks"
    """How the chips were parted: ``dataset.splits.by``."""
    shared_px: int
    """Lattice pixels that a train chip shares with a val or test chip of any date: 0, but for splits by time and random."""
    leak_px: int = 0
    """Of these, pixels whose values of the same day training and val or test both see: 0, but for random splits."""
    warning: str = ""
    """What figures on val and test do not tell because of them; "" where they share nothing."""
    nearest_px: float | None
    """Smallest distance in pixels between a train chip and a val or test chip; None where there is only one side."""
    class_px: dict[str, tuple[int, ...]]
    """Labelled pixels of each class in the chips of a split; overlapping chips count a pixel each."""
    class_shares: dict[str, tuple[float, ...]]
    """The same as shares of the split's labelled pixels."""
    infeasible: tuple[str, ...]
    """Classes that a split lacks."""
    blocks_sha256: str | None
    """Content of the region's blocks.parquet; None where nothing was dealt."""


class Inputs(Model):
    """What the dataset was made from."""

    config: str
    """Fingerprint of the region's parameters and of the files that they name."""
    stack_config: str = ""
    """The same without ``dataset``: what ``chipmill select`` must find unchanged."""
    items: int
    """Number of items found."""
    items_fingerprint: str
    ranking: str
    stack: str
    chips: str | None
    """Fingerprint of selection and shard plan."""
    origin: str | None = None
    """Format that it was imported from; None where the chips were cut here."""
    origin_sha256: str | None = None
    """Of the names and contents of the files that it was imported from."""


class Manifest(Model):
    """dataset.json."""

    schema_version: Literal[2]
    region: str
    cell: tuple[str, str]
    """Half-open interval of UTC dates."""
    layout: Literal["stack", "series", "single"]
    """What the axes of the image are stands in ``features``; the bands of a series are listed slot by slot."""
    chip_size_px: int
    stride_px: int
    block_px: int
    """Side of a split block."""
    dtype: str
    """Of the image in a record."""
    dtype_rule: str = ""
    """How the bands' own types became ``dtype``."""
    encoding: Encoding = "array"
    """How a record holds the image."""
    compression: Compression = "none"
    """gzip: each record is a gzip member of its own, and offset and length in chips.parquet are the member's."""
    quality: int | None = None
    """Of JPEG, which loses detail; None for encodings that lose nothing."""
    ignore: int
    """Label value that no loss and no metric sees."""
    bands: tuple[BandFacts, ...]
    slots: tuple[SlotFacts, ...]
    classes: tuple[ClassFacts, ...]
    features: tuple[FeatureFacts, ...]
    grids: tuple[GridFacts, ...]
    shards: tuple[ShardFacts, ...]
    counts: Counts
    certificate: Certificate | None
    """None where there are no chips."""
    failures: tuple[FailureFacts, ...]
    inputs: Inputs
    files: tuple[FileFacts, ...]
    """Tables and stacks of the version."""
    sources: tuple[FileFacts, ...]
    """Composites, static layers and labels that the stacks name."""
    fingerprint: str
    digest: str = ""
    """Of all the rest of dataset.json, see :func:`digest_of`."""

    def sealed(self) -> "Manifest":
        """Return it with its digest; to be called last."""
        return self.model_copy(update={"digest": digest_of(self.model_dump(mode="json"))})

    def record_spec(self) -> RecordSpec:
        """Return how its records are stored, for those who read or write them."""
        series = self.layout == "series"
        return RecordSpec(
            self.dtype,
            self.encoding,
            self.compression,
            self.quality,
            bands=tuple(band.name for band in self.bands),
            slots=len(self.slots) if series else 0,
            statics=sum(band.kind == "static" for band in self.bands) if series else 0,
            weight=any(feature.name == "weight" for feature in self.features),
            size_px=self.chip_size_px,
        )

    def named(self) -> tuple[FileFacts, ...]:
        """Return every file that belongs to the dataset."""
        return (*self.files, *self.shards, *self.sources)

    def shards_of(self, split: str | None = None) -> tuple[ShardFacts, ...]:
        """Return the shards of a split, or all, in their order."""
        return tuple(shard for shard in self.shards if split is None or shard.split == split)


def digest_of(facts: Mapping[str, Any]) -> str:
    """Return the sha256 of the canonical JSON (on one line) of the parsed dataset.json without its digest.

    It ties the parts of the manifest to each other: a changed one is found even where its sidecar was made anew.
    """
    rest = {name: value for name, value in facts.items() if name != "digest"}
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()


def parse_manifest(text: str | bytes, where: str) -> Manifest:
    """Return the manifest in a text; raises DamagedFileError, naming ``where``, when it is none of ours."""
    try:
        return Manifest.model_validate_json(text)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise DamagedFileError(
            f"{where} is not a manifest of schema {SCHEMA_VERSION} ({reason}): run it again"
        ) from error
