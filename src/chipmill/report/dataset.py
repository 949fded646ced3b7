"""The page of a dataset: what was planned and what became of it, where it lies, what it looks like, what it is made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from chipmill.core.errors import BadInputError
from chipmill.core.paths import VersionDir
from chipmill.core.tables import CHIPS, TILES, read_table
from chipmill.dataset.description import Manifest, parse_manifest
from chipmill.region.config import Region
from chipmill.region.load import load_region
from chipmill.report.acquisitions import acquisition_section
from chipmill.report.blocks import (
    Block,
    Cell,
    Chart,
    Facts,
    Folded,
    Gallery,
    Legend,
    Page,
    Section,
    Text,
    facts,
    section,
    table,
)
from chipmill.report.charts import Bar, bar_chart, share_bars
from chipmill.report.chips import certificate_section, split_section
from chipmill.report.gallery import chip_pictures, label_picture, pick_chips, read_chips, shown_px
from chipmill.report.grids import SPLIT_COLORS
from chipmill.report.images import class_colors
from chipmill.report.numbers import count, decimal, interval, percent, plural, size
from chipmill.report.page import write_page
from chipmill.report.remarks import composite_remarks
from chipmill.report.scenes import cloud_section, composite_section

REASONS: Final = {
    "rejected": "on a tile that is rejected, or reaching into one",
    "neighbour_year": "reaching into a tile of another year",
    "sparse": "dense window where the key class does not mix with others",
    "not_train": "dense window outside train",
    "empty_slot": "a slot without any acquisition",
    "nodata": "too much nodata in a slot",
    "cloud": "too much of it always under cloud",
    "static_nodata": "too much nodata in static layers",
    "no_label": "no labelled pixel",
    "buffer": "train, but within the buffer of another split",
    "straddles": "val or test, but reaching into another split",
    "no_split": "nothing says its split",
    "key_class": "train, but too little of the key class",
    "quota": "train, but its classes have their quotas",
}
"""What the reasons of chips.parquet mean; others speak for themselves."""

_CHIPS_SHOWN: Final = 6
_WRITTEN: Final = "var(--accent)"
_FILTERED: Final = "#d8a33a"
_FAILED: Final = "#c0453a"


def dataset_page(version: Path, out: Path | None = None, *, archive: Region | None = None) -> Path:
    """Write the page of a sealed or committed dataset and return its path.

    Args:
        version: directory of the version, or of the attempt that lacks only its report.
        out: where to write; beside dataset.json where None, which is for versions that are not committed yet.
        archive: the region as its own file has it, which says where the archive is; without it no acquisition is
            shown.

    Raises BadInputError for a dataset that was imported: it has chips, but no tiles to draw.
    """
    files = VersionDir(version)
    manifest = parse_manifest(files.manifest.read_text(encoding="utf-8"), str(files.manifest))
    if manifest.inputs.origin is not None:
        raise BadInputError(
            f"{version} was imported from {manifest.inputs.origin}: a page needs the tiles and the imagery of a region, look "
            "at its chips with chipmill.open_dataset"
        )
    region = load_region(files.region_yaml)
    chips = read_table(files.chips, CHIPS) if files.chips.exists() else None
    colors = class_colors([one.color for one in manifest.classes])
    failed = sum(manifest.counts.failed.values()) + len(manifest.failures)
    page = Page(
        manifest.region,
        f"Dataset · {interval(*manifest.cell)}",
        ("complete", "good") if not failed else ("with failures", "bad"),
        _summary(manifest, files),
        (
            _funnel(manifest),
            cloud_section(files, region),
            acquisition_section(files, region, archive),
            composite_section(
                files, region, composite_remarks(version, [one.path for one in manifest.sources])
            ),
            split_section(chips, region),
            _gallery(version, manifest, chips, colors),
            _balance(manifest, colors),
            _statistics(manifest),
            certificate_section(manifest, region),
            _failures(manifest, files),
            _provenance(manifest, files),
        ),
        f"Dataset {manifest.region}, {manifest.cell[0]} to {manifest.cell[1]}, fingerprint {manifest.fingerprint}",
    )
    return write_page(out or files.report, page)


def _summary(manifest: Manifest, files: VersionDir) -> Facts:
    return facts(
        {
            "Tiles": count(read_table(files.tiles, TILES).num_rows),
            "Items": count(manifest.inputs.items),
            "Chips": count(manifest.counts.written),
            "Shards": count(len(manifest.shards)),
            "Shard bytes": size(sum(shard.bytes for shard in manifest.shards)),
            "Bands": count(len(manifest.bands)),
            "Classes": count(len(manifest.classes)),
        },
        large=True,
    )


def _funnel(manifest: Manifest) -> Section:
    counts = manifest.counts
    lead = "Every window planned from geometry is written, filtered for one reason, or failed for one reason."
    if not counts.planned:
        empty = (
            "No window was planned, because the region has no labels: its stacks are for prediction alone."
        )
        return section("funnel", "From windows to chips", lead, (), empty)
    rows = [("planned", "", counts.planned, "var(--soft)")]
    rows += [("filtered", reason, number, _FILTERED) for reason, number in sorted(counts.filtered.items())]
    rows += [("failed", reason, number, _FAILED) for reason, number in sorted(counts.failed.items())]
    rows.append(("written", "", counts.written, _WRITTEN))
    bars = [
        Bar(
            reason_text(reason) if reason else outcome,
            number,
            color,
            f"{count(number)}  ({percent(number / counts.planned)})",
        )
        for outcome, reason, number, color in rows
    ]
    total = counts.written + sum(counts.filtered.values()) + sum(counts.failed.values())
    parts = f"{count(counts.written)} written + {count(sum(counts.filtered.values()))} filtered"
    parts += f" + {count(sum(counts.failed.values()))} failed = {count(total)}"
    check = Text(f"{count(counts.planned)} planned; {parts}.", "good" if total == counts.planned else "bad")
    legend = Legend((("written", _WRITTEN), ("filtered", _FILTERED), ("failed", _FAILED)))
    chart = Chart(bar_chart(bars, "Windows by outcome", name_px=300))
    return section("funnel", "From windows to chips", lead, (legend, chart, check))


def reason_text(reason: str) -> str:
    """Return what a reason of chips.parquet means; that of ``nodata:s1`` names the imagery."""
    kind, _, source = reason.partition(":")
    return f"{REASONS.get(kind, kind)}{f' of {source}' if source else ''}"


def _gallery(version: Path, manifest: Manifest, chips: pa.Table | None, colors: Sequence[str]) -> Section:
    lead = (
        "Records as a model reads them, image beside label, from as many blocks as possible; "
        "ignored pixels of a label are transparent."
    )
    blocks: list[Block] = [
        Legend(tuple((one.name, color) for one, color in zip(manifest.classes, colors, strict=True)))
    ]
    names = [band.name for band in manifest.bands]
    nodata = [band.nodata for band in manifest.bands]
    slot = manifest.slots[len(manifest.slots) // 2].name if manifest.slots else ""
    for split in SPLIT_COLORS:
        rows = pick_chips(chips, split, _CHIPS_SHOWN) if chips is not None else []
        if rows:
            samples = read_chips(version, rows, manifest.record_spec())
            images = chip_pictures(samples, names, nodata, slot)
            groups = tuple(
                (image, label_picture(one, colors)) for image, one in zip(images, samples, strict=True)
            )
            title = f"{split}: {plural(manifest.counts.splits.get(split, 0), 'chip')}"
            blocks.append(Gallery(groups, title, shown_px(manifest.chip_size_px)))
    empty = "No chip was written, so there is none to show."
    return section("chips", "Chips", lead, blocks if len(blocks) > 1 else (), empty)


def _balance(manifest: Manifest, colors: Sequence[str]) -> Section:
    lead = (
        "Labelled pixels by class in the chips of each split; a pixel in two overlapping chips counts twice."
    )
    proof = manifest.certificate
    if proof is None or not any(any(row) for row in proof.class_px.values()):
        return section(
            "classes", "Class balance", lead, (), "No chip was written, so no class can be counted."
        )
    names = [one.name for one in manifest.classes]
    rows = {split: proof.class_px[split] for split in SPLIT_COLORS if any(proof.class_px.get(split, ()))}
    chart = Chart(share_bars(rows, names, colors, "Class shares by split"))
    head = ("Class", "Values", *(f">{split} px" for split in rows), *(f">{split} share" for split in rows))
    body: list[tuple[str | Cell, ...]] = [
        (
            Cell(one.name, swatch=color),
            ", ".join(one.values),
            *(count(rows[split][one.code]) for split in rows),
            *(percent(proof.class_shares[split][one.code], 2) for split in rows),
        )
        for one, color in zip(manifest.classes, colors, strict=True)
    ]
    legend = Legend(tuple(zip(names, colors, strict=True)))
    return section("classes", "Class balance", lead, (legend, chart, table(head, body)))


def _statistics(manifest: Manifest) -> Section:
    lead = (
        "Exact mean and standard deviation over the valid pixels under written train chips, each ground pixel once, "
        "in physical units; the manifest holds the exact integer sums."
    )
    rows = [
        (
            band.name,
            band.kind,
            band.slot or "any time",
            count(int(band.statistics.n)),
            decimal(band.statistics.mean * band.scale + band.offset, 4),
            decimal(band.statistics.std * band.scale, 4),
            f"{band.scale:g}",
            f"{band.nodata:g}",
        )
        for band in manifest.bands
        if band.statistics is not None
    ]
    head = ("Band", "Kind", "Slot", ">Pixels", ">Mean", ">Std. deviation", ">Scale", ">Nodata")
    empty = "No train chip was written, so there are no statistics."
    return section("bands", "Band statistics", lead, (table(head, rows),) if rows else (), empty)


def _failures(manifest: Manifest, files: VersionDir) -> Section:
    lead = "Units that failed while the rest was committed; the same command redoes only these."
    rows = [(one.stage, one.unit, one.reason) for one in manifest.failures]
    tiles = read_table(files.tiles, TILES).select(["tile_id", "state", "reason"]).to_pylist()
    rows += [("tile", one["tile_id"], one["reason"]) for one in tiles if one["state"] == "failed"]
    empty = "Nothing failed: every tile and every shard of the plan was made."
    return section(
        "failures", "Failures", lead, (table(("Stage", "Unit", "Reason"), rows),) if rows else (), empty
    )


def _provenance(manifest: Manifest, files: VersionDir) -> Section:
    lead = "Where it comes from; equal fingerprints mean equal bytes, whoever made it and when."
    marks = [
        ("dataset", manifest.fingerprint),
        ("region and its files", manifest.inputs.config),
        (f"{count(manifest.inputs.items)} items", manifest.inputs.items_fingerprint),
        ("ranking", manifest.inputs.ranking),
        ("stacks", manifest.inputs.stack),
        ("selection", manifest.inputs.chips or "no chips"),
    ]
    slots = [(one.name, " and ".join(interval(*pair) for pair in one.intervals)) for one in manifest.slots]
    shards = [
        (one.path, one.split, count(one.count), size(one.bytes), one.sha256[:16]) for one in manifest.shards
    ]
    blocks = (
        table(("Of", "Fingerprint"), marks),
        table(("Slot", "Interval"), slots) if slots else None,
        table(("Shard", "Split", ">Records", ">Size", "sha256"), shards) if shards else None,
        Folded("The region file as resolved", files.region_yaml.read_text(encoding="utf-8")),
    )
    return section("provenance", "Provenance", lead, blocks)
