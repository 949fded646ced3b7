"""What dataset.json says, worked out again from chips.parquet and the records: for ``verify`` alone.

The file to change for another thing that is counted twice. Nothing here reads what the first count was made from but the
files of the dataset itself.
"""

import collections
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.errors import ChipmillError
from chipmill.core.store import canonical_json, read_sidecar
from chipmill.dataset.certificate import certify
from chipmill.dataset.classes import IGNORE
from chipmill.dataset.description import Manifest, Statistics, digest_of
from chipmill.dataset.manifest import WRITTEN, count_states
from chipmill.dataset.places import SPLITS, TRAIN
from chipmill.dataset.records import Sample, planes
from chipmill.dataset.statistics import BandSums, band_sums, merge, unclaimed
from chipmill.region.grid import Window
from chipmill.region.tiles import Tile

_MEASURED: Final = ("shared_px", "leak_px", "warning", "nearest_px", "class_px", "class_shares")
"""What of the certificate can be seen in the table."""


def check_text(file: Path) -> Iterator[str]:
    """Tell whether dataset.json is the text that was sealed: its own digest, and the one way to write it."""
    text = file.read_text(encoding="utf-8")
    facts = json.loads(text)
    digest = digest_of(facts)
    if facts.get("digest") != digest:
        yield f"{file}: its digest is {facts.get('digest')!r}, its content gives {digest!r}: it was changed"
    elif text != canonical_json(facts, indent=1) + "\n":
        yield f"{file}: is not the canonical text of its content: it was changed"


def check_table(manifest: Manifest, chips: pa.Table) -> Iterator[str]:
    """Tell what of counts, places and certificate does not follow from the rows of chips.parquet."""
    counted = count_states(chips)
    for name in type(counted).model_fields:
        said, found = getattr(manifest.counts, name), getattr(counted, name)
        if said != found:
            yield f"chips.parquet: {name} is {found}, dataset.json says {said}"
    written = chips.filter(pc.equal(chips["state"], WRITTEN))
    ids = pc.value_counts(written["chip_id"])
    for one in ids.filter(pc.greater(ids.field("counts"), 1)).to_pylist()[:5]:
        yield f"chips.parquet: chip {one['values']} is written {one['counts']} times"
    yield from _check_certificate(manifest, written)


def _check_certificate(manifest: Manifest, written: pa.Table) -> Iterator[str]:
    proof = manifest.certificate
    if proof is None:
        return
    try:
        found = certify(written, len(manifest.classes), proof.blocks_sha256, proof.kind)
    except (ChipmillError, ValueError, IndexError) as error:
        yield f"chips.parquet: no certificate follows from it ({error})"
        return
    for name in _MEASURED:
        if getattr(found, name) != getattr(proof, name):
            yield (
                f"dataset.json: its certificate says {name} {getattr(proof, name)}, chips.parquet gives "
                f"{getattr(found, name)}"
            )


def check_statistics(root: Path, manifest: Manifest) -> Iterator[str]:
    """Tell whether means follow from the sums, and the sums from those that stand beside the train shards."""
    known = [(band.name, band.statistics) for band in manifest.bands if band.statistics is not None]
    for name, stated in known:
        if Statistics.of_sums(stated.sums) != stated:
            yield f"dataset.json: mean and deviation of {name} do not follow from its sums"
    sidecars = [read_sidecar(root / shard.path) for shard in manifest.shards_of(SPLITS[TRAIN])]
    sums = [one.extra.get("statistics") for one in sidecars if one is not None]
    if manifest.failures or None in sums or len(sums) < len(sidecars):
        return  # counted anew for the shards that are lost, or never counted by shard
    try:
        whole = merge(
            [[BandSums.of_texts(texts) for texts in one or ()] for one in sums], len(manifest.bands)
        )
    except (ValueError, TypeError) as error:
        yield f"{root}: a sidecar of its train shards holds no sums of all bands ({error})"
        return
    yield from _compare_sums(manifest, whole, "the sidecars of its shards")


def _compare_sums(manifest: Manifest, sums: Sequence[BandSums], who: str) -> Iterator[str]:
    for band, found in zip(manifest.bands, sums, strict=True):
        said = band.statistics.sums if band.statistics is not None else BandSums()
        if said != found:
            yield (
                f"dataset.json: n, sum and sum of squares of {band.name} are {', '.join(said.texts())}, {who} give "
                f"{', '.join(found.texts())}"
            )


class Ground:
    """The sums of the train chips' pixels as they are read, each ground pixel once."""

    def __init__(self, manifest: Manifest, tiles: Iterable[Tile]) -> None:
        """``tiles``: of the version, none where it was imported; padding beyond a lone tile is nobody's ground."""
        self._manifest = manifest
        self._lone = {tile.tile_id: tile.window for tile in tiles if not tile.lattice_tile}
        self._sums = merge([], len(manifest.bands))
        self._seen: dict[tuple[Any, ...], list[Window]] = collections.defaultdict(list)

    def add(self, sample: Sample, row: Mapping[str, Any]) -> None:
        """Count a train chip; ``row`` is that of chips.parquet."""
        chip = Window(*(int(row[name]) for name in ("col_off", "row_off", "width", "height")))
        window = chip.intersection(self._lone.get(row["tile_id"], chip)) or chip
        side = self._manifest.chip_size_px
        cells = [
            (row["lattice"], row["anchor"], col, line)
            for col in range(window.col_off // side, (window.col_end - 1) // side + 1)
            for line in range(window.row_off // side, (window.row_end - 1) // side + 1)
        ]
        placed = bool(row["lattice"])  # chips without a place share no ground
        before = [one for cell in cells for one in self._seen[cell]] if placed else []
        image = np.stack(planes(sample))
        found = band_sums(
            image, [band.nodata for band in self._manifest.bands], unclaimed(chip, [window], before)
        )
        self._sums = merge([self._sums, found], len(found))
        for cell in cells:
            self._seen[cell].append(window)

    def check(self) -> Iterator[str]:
        """Tell where the statistics of dataset.json are not those of the chips that were added."""
        yield from _compare_sums(self._manifest, self._sums, "its records")


def check_classes(sample: Sample, row: Mapping[str, Any], where: str) -> Iterator[str]:
    """Tell whether a chip's label has the pixels of each class that chips.parquet says."""
    counts = np.bincount(sample.label.ravel(), minlength=IGNORE + 1)
    said = row["class_px"] or []
    if said != counts[: len(said)].tolist() or counts[len(said) : IGNORE].any():
        found = counts[: max(len(said), int(np.flatnonzero(counts[:IGNORE]).max(initial=0)) + 1)].tolist()
        yield f"{where}: its label has {found} pixels of each class, chips.parquet says {said}"
