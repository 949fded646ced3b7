"""What the arrays of a record are, for dataset.json: its features, its bands, and how their types were unified.

The file to change for what other programs are told of a record.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from chipmill.core.paths import layer_of, relative, span_name
from chipmill.core.store import read_sidecar
from chipmill.dataset.cutting import predictors_of
from chipmill.dataset.description import BandFacts, FeatureFacts, Statistics
from chipmill.dataset.encodings import PICTURES
from chipmill.dataset.records import RecordSpec
from chipmill.dataset.stack import StackBand
from chipmill.dataset.statistics import BandSums
from chipmill.region.plan import Plan


def feature_facts(spec: RecordSpec) -> tuple[FeatureFacts, ...]:
    """Return the features of a record in the order in which they are written."""
    side = (spec.size_px, spec.size_px)
    masks = ("label", "weight") if spec.weight else ("label",)
    if spec.encoding == "float":
        pixels = [_pixels(name, spec.dtype, side, "list") for name in spec.bands]
        pixels += [_pixels(name, "uint8", side, "list") for name in masks]
    else:
        form = spec.encoding if spec.encoding in PICTURES else "raw"
        pixels = [_pixels("image", spec.dtype, spec.image_shape, form)]
        if spec.statics:
            pixels.append(_pixels("static", spec.dtype, (*side, spec.statics), "raw"))
        pixels += [_pixels(name, "uint8", side, "raw") for name in masks]
    axes = len(spec.image_shape)
    texts = [
        FeatureFacts(name=name, kind="bytes", dtype="utf-8", encoding="text", shape=(), axes=())
        for name in ("chip_id", "anchor", "crs")
    ]
    return (
        *pixels,
        FeatureFacts(
            name="shape", kind="int64", dtype="int64", encoding="list", shape=(axes,), axes=("of image",)
        ),
        *texts,
        FeatureFacts(name="transform", kind="bytes", dtype="float64", shape=(6,), axes=("a to f",)),
    )


def _pixels(
    name: str, dtype: str, shape: tuple[int, ...], form: Literal["raw", "list", "png", "jpeg", "geotiff"]
) -> FeatureFacts:
    axes = ("y", "x") if len(shape) == 2 else ("t", "y", "x", "band")[-len(shape) :]
    kind: Literal["bytes", "float"] = "float" if form == "list" else "bytes"
    return FeatureFacts(name=name, kind=kind, dtype=dtype, encoding=form, shape=shape, axes=axes)


def dtype_rule(layers: Sequence[StackBand]) -> str:
    """Return in a sentence how the types of the bands became that of the image."""
    predictors = predictors_of(layers)
    types = sorted({layer.dtype for layer in predictors})
    if len(types) == 1:
        return f"every band is stored as {types[0]}, and so is the image"
    return (
        f"bands of {', '.join(types)} are widened to the smallest type that holds every value of each exactly; "
        "no value is changed"
    )


def band_facts(
    layers: Sequence[StackBand],
    sums: Sequence[BandSums] | None,
    saturated: Counter[tuple[str, str, str]],
) -> tuple[BandFacts, ...]:
    """Return what the predictors of a stack are; ``saturated`` as :func:`saturated_px` counts it."""
    return tuple(
        BandFacts(
            name=layer.name,
            kind=layer.kind,
            source=layer.source,
            slot=layer.slot,
            dtype=layer.dtype,
            scale=layer.scale,
            # scales and offsets of the sources are applied before a value is stored
            offset=0.0,
            nodata=layer.nodata,
            saturated_px=saturated[layer.source, layer.slot, layer.name.removeprefix(f"{layer.slot}_")],
            statistics=None if sums is None else Statistics.of_sums(sums[index]),
        )
        for index, layer in enumerate(predictors_of(layers))
        if layer.kind in ("band", "index", "static")
    )


def saturated_px(plan: Plan, sources: Iterable[Path]) -> Counter[tuple[str, str, str]]:
    """Return how many pixels did not fit into the stored type, by (imagery or static layer, slot, band).

    ``sources`` are the files that the stacks name; the counts stand in their sidecars.
    """
    slots: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for tile in plan.tiles():
        for slot in plan.slots(tile):
            span = span_name(slot.time.start_date, slot.time.end_date)
            for imagery in plan.region.imagery:
                key = (f"{imagery.name}-{span}", tile.tile_id)
                slots.setdefault(key, []).append((imagery.name, slot.name))
    found: Counter[tuple[str, str, str]] = Counter()
    for path in sources:
        sidecar = read_sidecar(path)
        noted = sidecar.extra.get("saturated_px") if sidecar else None
        layer, tile_id = layer_of(relative(path, plan.region_dir.root))
        if isinstance(noted, dict):
            for source, name in slots.get((layer, tile_id), []):
                found.update({(source, name, band): count for band, count in noted.items()})
        elif noted is not None:
            found[layer, "", layer] += noted
    return found
