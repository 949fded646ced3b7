"""What dataset.json says: frozen, typed, and checked when it is read. The file to change for a fact about a dataset.

Nothing here depends on when, where or by how many workers the dataset was made. Paths are relative to the folder of
dataset.json and lie below it, but for ``sources``, which may climb to the region's own directory.
"""

from typing import Final, Literal

from chipmill.core.errors import DamagedFileError
from chipmill.dataset.statistics import BandSums
from chipmill.region.fields import Model

SCHEMA_VERSION: Final = 1


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
    kind: Literal["bytes", "int64"]
    """Which list of the Example holds it."""
    dtype: str
    """What the bytes are: raw little-endian numbers, or utf-8."""
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

    shared_px: int
    """Lattice pixels that a train chip shares with a val or test chip of any date: 0."""
    nearest_px: float | None
    """Smallest distance in pixels between a train chip and a val or test chip; None where there is only one side."""
    class_px: dict[str, tuple[int, ...]]
    """Labelled pixels of each class in the chips of a split; overlapping chips count a pixel each."""
    class_shares: dict[str, tuple[float, ...]]
    """The same as shares of the split's labelled pixels."""
    infeasible: tuple[str, ...]
    """Classes that a split lacks."""
    blocks_sha256: str | None
    """Content of the region's blocks.parquet; None where every tile brings its own split."""


class Inputs(Model):
    """What the dataset was made from."""

    config: str
    """Fingerprint of the region's parameters and of the files that they name."""
    items: int
    """Number of items found."""
    items_fingerprint: str
    ranking: str
    stack: str
    chips: str | None
    """Fingerprint of selection and shard plan."""


class Manifest(Model):
    """dataset.json."""

    schema_version: int
    region: str
    cell: tuple[str, str]
    """Half-open interval of UTC dates."""
    layout: Literal["stack", "single"]
    chip_size_px: int
    stride_px: int
    block_px: int
    """Side of a split block."""
    dtype: str
    """Of the image in a record."""
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

    def named(self) -> tuple[FileFacts, ...]:
        """Return every file that belongs to the dataset."""
        return (*self.files, *self.shards, *self.sources)

    def shards_of(self, split: str | None = None) -> tuple[ShardFacts, ...]:
        """Return the shards of a split, or all, in their order."""
        return tuple(shard for shard in self.shards if split is None or shard.split == split)


def parse_manifest(text: str, where: str) -> Manifest:
    """Return the manifest in a text; raises DamagedFileError, naming ``where``, when it is none of ours."""
    try:
        return Manifest.model_validate_json(text)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise DamagedFileError(
            f"{where} is not a manifest of schema {SCHEMA_VERSION} ({reason}): run it again"
        ) from error
