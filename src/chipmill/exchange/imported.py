"""A dataset version from the chips of another program: shards, chips.parquet and dataset.json, in one pass.

The file to change for how an imported version is written. It has no tiles, items, ranking or stacks; all else is as in
a version that was cut here: records, offsets, exact statistics, certificate, hashes.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.errors import AssetMismatchError, BadInputError
from chipmill.core.paths import VersionDir
from chipmill.core.store import canonical_json, commit_file, fingerprint, seal_file
from chipmill.core.tables import CHIPS, write_table
from chipmill.dataset.classes import IGNORE
from chipmill.dataset.description import Manifest, ShardFacts
from chipmill.dataset.facts import files_of
from chipmill.dataset.index import place_chips
from chipmill.dataset.manifest import WRITTEN
from chipmill.dataset.places import SPLITS
from chipmill.dataset.records import RecordSpec, Sample, write_records
from chipmill.dataset.statistics import BandSums, band_sums, merge
from chipmill.exchange.imported_facts import ImportedChip, ImportFacts, Written, describe
from chipmill.exchange.places import Ground, Lattices, valid_px

STAGE_VERSION: Final = 1
_SHARD_BYTES: Final = 128 << 20


class _Writer:
    """Writes the chips as they come, and keeps what the tables and the manifest will say."""

    def __init__(self, version: VersionDir, first: ImportedChip, facts: ImportFacts) -> None:
        self.version, self.facts = version, facts
        self.dtype, self.shape = first.sample.image.dtype, first.sample.image.shape
        _check_first(first, facts)
        self.spec = RecordSpec(
            self.dtype.name, bands=tuple(band.name for band in facts.bands), size_px=self.shape[0]
        )
        self.lattices = Lattices()
        self.shards: dict[tuple[str, int], pa.Table] = {}
        """Split and number of a shard -> its rows of CHIPS, without the shard's name."""
        self._source_of: dict[str, str] = {}
        self.sums = tuple(BandSums() for _ in facts.bands)
        self._ground, self._nodata = Ground(self.shape[0]), np.array(facts.nodata())
        version.shards.mkdir(parents=True)

    def write(self, first: ImportedChip, rest: Iterator[ImportedChip]) -> dict[str, int]:
        """Write all shards; return the number of shards of each split."""
        counts: dict[str, int] = {}
        waiting: ImportedChip | None = first
        while waiting is not None:
            split = waiting.split
            if split in counts and split != next(reversed(self.shards))[0]:
                raise BadInputError(
                    f"{waiting.source} comes after another split: give the chips split by split"
                )
            waiting = self._write_shard(waiting, rest, counts.setdefault(split, 0))
            counts[split] += 1
        return counts

    def _write_shard(
        self, first: ImportedChip, rest: Iterator[ImportedChip], number: int
    ) -> ImportedChip | None:
        """Write a shard of one split; return the chip that comes after it, None where there is none."""
        rows: list[dict[str, Any]] = []
        after: list[ImportedChip] = []

        def samples() -> Iterator[Sample]:
            size = 0
            for chip in itertools.chain([first], rest):
                if size >= _SHARD_BYTES or chip.split != first.split:
                    after.append(chip)
                    return
                self._check(chip)
                rows.append(self._row(chip))
                size += chip.sample.image.nbytes + chip.sample.label.nbytes
                yield chip.sample

        places = write_records(self.part(first.split, number), samples(), self.spec)
        for row, place in zip(rows, places, strict=True):
            row.update(zip(("offset", "length", "crc"), place, strict=True))
        self.shards[first.split, number] = pa.Table.from_pylist(rows, schema=CHIPS)
        return after[0] if after else None

    def part(self, split: str, number: int) -> Path:
        """The file of a shard while the number of shards is not known."""
        return self.version.shards / f"{split}-{number:05d}"

    def _check(self, chip: ImportedChip) -> None:
        chip_id = chip.sample.chip_id
        if chip_id in self._source_of:
            raise BadInputError(
                f"{chip.source} and {self._source_of[chip_id]} would both be chip {chip_id}: rename one"
            )
        self._source_of[chip_id] = chip.source
        image, label = chip.sample.image, chip.sample.label
        if (image.shape, image.dtype) != (self.shape, self.dtype) or label.shape != self.shape[:2]:
            raise AssetMismatchError(
                f"{chip.source} has an image (y, x, band) of {image.shape} {image.dtype} and a label of {label.shape}, "
                f"expected {self.shape} {self.dtype} as in the first chip: chips of a dataset have one form"
            )

    def _row(self, chip: ImportedChip) -> dict[str, Any]:
        sample, classes = chip.sample, len(self.facts.classes)
        place = self.lattices.place(sample.crs, sample.transform, sample.label.shape, chip.source)
        if chip.split == SPLITS[0]:
            counted = self._ground.claim(place, sample.anchor)
            own = band_sums(np.moveaxis(sample.image, 2, 0), self._nodata.tolist(), counted)
            self.sums = merge([self.sums, own], len(self.sums))
        window = place[1] if place else None
        counts = np.bincount(sample.label.ravel(), minlength=256)
        return {
            "chip_id": sample.chip_id, "tile_id": sample.chip_id, "lattice": place[0] if place else "",
            "anchor": sample.anchor, "col_off": window.col_off if window else 0,
            "row_off": window.row_off if window else 0, "width": self.shape[1], "height": self.shape[0],
            "block": "", "class_px": counts[:classes].tolist(), "ignore_px": int(counts[IGNORE]),
            "slots": [], "nodata_fraction": [], "cloud_fraction": [],
            "valid_fraction": float(valid_px(sample.image, self._nodata).mean()), "empty_slot": False,
            "source_id": chip.source_id, "split": chip.split, "state": WRITTEN, "reason": "",
        }  # fmt: skip


def _check_first(first: ImportedChip, facts: ImportFacts) -> None:
    image = first.sample.image
    if image.ndim != 3 or image.shape[0] != image.shape[1]:
        raise BadInputError(
            f"{first.source} has the shape {image.shape}: expected a square chip (y, x, band)"
        )
    if image.dtype.kind not in "iu" or image.dtype.itemsize > 4:
        raise BadInputError(
            f"{first.source} holds {image.dtype}: expected integers of at most 32 bits; convert them with "
            "`chipmill convert dtype`, which scales, rounds and counts what does not fit"
        )
    if image.shape[2] != len(facts.bands):
        raise BadInputError(
            f"{first.source} has {image.shape[2]} bands, expected the {len(facts.bands)} that are named"
        )


def write_dataset(target: Path, chips: Iterable[ImportedChip], facts: ImportFacts) -> Manifest:
    """Write a version of a dataset into the folder ``target``, which is made, and return its manifest.

    Args:
        target: in a folder of a conversion, which commits it.
        chips: split by split, within one in the order in which the records shall stand; one is in memory at a time.
        facts: what holds for all of them.

    Statistics are exact, over valid pixels of train chips, each pixel of the ground once for a date where chips have a
    place, and every pixel of every chip where they have none. Raises BadInputError and AssetMismatchError that name
    the chip that does not fit, GridError for one that is not north-up, and what ``chips`` raises.
    """
    every = iter(chips)
    first = next(every, None)
    if first is None:
        raise BadInputError(f"{facts.name} has no chips: there is nothing to import")
    version = VersionDir(target)
    writer = _Writer(version, first, facts)
    counts = writer.write(first, every)
    mark = fingerprint("import", STAGE_VERSION, facts)
    shards = _name_shards(writer, counts, mark)
    table = _write_chips(writer, counts, mark)
    written = Written(table, writer.spec, writer.sums, writer.lattices, shards)
    manifest = describe(version, facts, written, mark).sealed()
    with commit_file(version.manifest, manifest.fingerprint, records=manifest.counts.written) as temp:
        temp.write_text(canonical_json(manifest, indent=1) + "\n")
    return manifest


def _name_shards(writer: _Writer, counts: Mapping[str, int], mark: str) -> tuple[ShardFacts, ...]:
    """Give the shards their final names, seal them, and return what the manifest says of them: train, val, test."""
    named = []
    for split, number in sorted(writer.shards, key=lambda one: (SPLITS.index(one[0]), one[1])):
        final, held = (
            writer.version.shard(split, number, counts[split]),
            writer.shards[split, number].num_rows,
        )
        writer.part(split, number).rename(final)
        seal_file(final, fingerprint(mark, final.name), records=held)
        (file,) = files_of(writer.version.root, [final])
        named.append(ShardFacts(**file.model_dump(), split=split, count=held))
    return tuple(named)


def _write_chips(writer: _Writer, counts: Mapping[str, int], mark: str) -> pa.Table:
    """Write chips.parquet, with the place of each chip on the map where all have one; return its rows."""
    at = CHIPS.get_field_index("shard")
    parts = []
    for (split, number), rows in writer.shards.items():
        stem = writer.version.shard(split, number, counts[split]).stem
        parts.append(rows.set_column(at, CHIPS.field(at), pa.array([stem] * rows.num_rows, pa.string())))
    table = pa.concat_tables(parts)
    placed, schema = table, CHIPS
    if "" not in pc.unique(table["lattice"]).to_pylist():
        placed, schema = place_chips(table, writer.lattices.known)
    write_table(writer.version.chips, placed, schema, fingerprint(mark, "chips"))
    return table
