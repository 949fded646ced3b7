"""What is said of imported chips, and the manifest that is made of it.

The file to change for what dataset.json says of an import.
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from chipmill.core.paths import VersionDir
from chipmill.core.store import fingerprint
from chipmill.dataset.axes import feature_facts
from chipmill.dataset.certificate import certify
from chipmill.dataset.classes import IGNORE
from chipmill.dataset.description import (
    SCHEMA_VERSION,
    BandFacts,
    Certificate,
    ClassFacts,
    Counts,
    GridFacts,
    Inputs,
    Manifest,
    ShardFacts,
    SlotFacts,
    Statistics,
)
from chipmill.dataset.facts import files_of, grid_facts
from chipmill.dataset.places import SPLITS
from chipmill.dataset.records import RecordSpec, Sample
from chipmill.dataset.statistics import BandSums
from chipmill.exchange.places import Lattices


@dataclasses.dataclass(frozen=True, slots=True)
class ImportedBand:
    """A band of imported chips."""

    name: str
    dtype: str
    scale: float = 1.0
    """Stored value x scale + offset = physical value."""
    offset: float = 0.0
    nodata: float | None = None
    """None where every value is data."""
    kind: str = "band"
    source: str = ""
    slot: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ImportedChip:
    """A chip of another program."""

    sample: Sample
    split: str
    source: str
    """Where it came from, for messages."""
    source_id: str
    """The same for chips.parquet: without the place of the source folder, so that the bytes depend on content alone."""


@dataclasses.dataclass(frozen=True, slots=True)
class ImportFacts:
    """What is said of a whole import."""

    name: str
    """Of the dataset."""
    format: str
    bands: tuple[ImportedBand, ...]
    classes: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(name, colour ``#rrggbb``, values of the source) in the order of the codes."""
    sources: tuple[tuple[str, str], ...]
    """(relative name, sha256) of every file that was read."""
    slots: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()

    def nodata(self) -> tuple[float, ...]:
        """Return the nodata value of each band; where it has none, one that its type cannot hold."""
        return tuple(
            float(np.iinfo(band.dtype).min - 1) if band.nodata is None else band.nodata for band in self.bands
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Written:
    """What was written, chip by chip."""

    table: pa.Table
    """Rows of CHIPS."""
    spec: RecordSpec
    sums: tuple[BandSums, ...]
    """Of the train chips, band by band."""
    lattices: Lattices
    shards: tuple[ShardFacts, ...]


def describe(version: VersionDir, facts: ImportFacts, written: Written, mark: str) -> Manifest:
    """Return the manifest of a version whose shards and chips.parquet stand; ``mark`` is the fingerprint of ``facts``."""
    anchors = sorted(set(written.table["anchor"].to_pylist()))
    last = dt.date.fromisoformat(anchors[-1]) + dt.timedelta(days=1)
    size, count = written.spec.size_px, written.table.num_rows
    splits = written.table["split"].to_pylist()
    return Manifest(
        schema_version=SCHEMA_VERSION,
        region=facts.name,
        cell=(anchors[0], last.isoformat()),
        layout="stack",
        chip_size_px=size,
        stride_px=size,
        block_px=size,
        dtype=written.spec.dtype,
        ignore=IGNORE,
        bands=_bands(facts, written.sums, with_statistics=SPLITS[0] in splits),
        slots=tuple(SlotFacts(name=name, intervals=spans) for name, spans in facts.slots),
        classes=tuple(
            ClassFacts(code=code, name=name, color=color, values=values)
            for code, (name, color, values) in enumerate(facts.classes)
        ),
        features=feature_facts(written.spec),
        grids=_grids(written.lattices),
        shards=written.shards,
        counts=Counts(
            planned=count,
            written=count,
            filtered={},
            failed={},
            splits={name: splits.count(name) for name in SPLITS},
        ),
        certificate=_certificate(written.table, len(facts.classes)),
        failures=(),
        inputs=_inputs(facts, mark),
        files=files_of(version.root, [version.chips]),
        sources=(),
        fingerprint=fingerprint(mark, [shard.sha256 for shard in written.shards]),
    )


def _bands(facts: ImportFacts, sums: Sequence[BandSums], *, with_statistics: bool) -> tuple[BandFacts, ...]:
    return tuple(
        BandFacts(
            **(dataclasses.asdict(band) | {"nodata": nodata}),
            statistics=Statistics.of_sums(own) if with_statistics else None,
        )
        for band, nodata, own in zip(facts.bands, facts.nodata(), sums, strict=True)
    )


def _grids(lattices: Lattices) -> tuple[GridFacts, ...]:
    return tuple(grid_facts(one, name) for name, one in sorted(lattices.known.items()))


def _certificate(table: pa.Table, classes: int) -> Certificate | None:
    """Return what the places prove; None where a chip has none.

    Who made the splits is not known: where they share ground that is told, as for random ones, and not refused.
    """
    if "" in table["lattice"].to_pylist():
        return None
    found = certify(table, classes, None, "random")
    return found if found.leak_px else found.model_copy(update={"kind": "given"})


def _inputs(facts: ImportFacts, mark: str) -> Inputs:
    return Inputs(
        config=mark, items=0, items_fingerprint="", ranking="", stack="", chips=None,
        origin=facts.format, origin_sha256=fingerprint(facts.sources),
    )  # fmt: skip
