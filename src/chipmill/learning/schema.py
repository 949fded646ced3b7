"""What model.json keeps of what a model expects of its input; the schema itself is :mod:`chipmill.dataset.union`'s.

It is taken from the manifest of a dataset, stored in model.json, and compared wherever a model meets data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from chipmill.dataset.stack import StackBand
from chipmill.dataset.statistics import BandSums
from chipmill.dataset.union import InputSchema, ModelClass

STAGE_VERSION: Final = 2


def schema_to_json(schema: InputSchema) -> dict[str, Any]:
    """Return the schema as plain values for model.json; mean and standard deviation are there to be read."""
    bands = [
        {**asdict(band), "sums": sums.texts(), "mean": sums.mean, "std": sums.std}
        for band, sums in zip(schema.bands, schema.sums, strict=True)
    ]
    return {
        "layout": schema.layout,
        "dtype": schema.dtype,
        "bands": bands,
        "classes": [
            {"code": code, "name": one.name, "color": one.color} for code, one in enumerate(schema.classes)
        ],
        "chip_px": schema.chip_px,
        "resolution_m": schema.resolution_m,
    }


def schema_from_json(facts: Mapping[str, Any]) -> InputSchema:
    """Return what `schema_to_json` stored; the sums come back exact."""
    names = StackBand.__dataclass_fields__
    return InputSchema(
        layout=facts["layout"],
        dtype=facts["dtype"],
        bands=tuple(StackBand(**{name: band[name] for name in names}) for band in facts["bands"]),
        sums=tuple(BandSums.of_texts(band["sums"]) for band in facts["bands"]),
        classes=tuple(ModelClass(one["name"], one["color"]) for one in facts["classes"]),
        chip_px=facts["chip_px"],
        resolution_m=facts["resolution_m"],
    )
