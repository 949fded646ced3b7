"""The model card for people and the STAC item (machine learning model extension) for programs, made from facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_MLM: Final = "https://crim-ca.github.io/mlm-extension/v1.5.0/schema.json"
_FILE: Final = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_WORLD: Final = [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]]

type Facts = Mapping[str, Any]


def model_card(facts: Facts, metrics: Facts) -> str:
    """Return card.md from the contents of model.json and metrics.json."""
    given = facts["input"]
    lines = [
        f"# Model {facts['name']}, version {facts['version']}",
        "",
        (
            f"U-Net `{facts['preset']}` ({facts['parameters']:,} parameters), {facts['train']['loss']} loss, "
            f"{facts['epochs']} epochs, the best was epoch {facts['best_epoch']}."
        ),
        "",
        "## What it is for",
        "",
        (
            f"Maps the classes {', '.join(one['name'] for one in given['classes'])} from {len(given['bands'])} bands at "
            f"{given['resolution_m']:g} m, for places and seasons like those that it learnt from. Elsewhere its figures "
            "say nothing."
        ),
        "",
        "## What it learnt from",
        "",
        *(
            f"- dataset version {one['version']}, {one['chips']:,} chips, fingerprint `{one['fingerprint'][:16]}`"
            for one in facts["datasets"]
        ),
        "",
        "## How good it is",
        "",
        *_figures(metrics),
        "",
        f"Probabilities are calibrated with temperature {facts['temperature']:g}, fitted on validation blocks.",
        "",
        "## Input",
        "",
        f"`{given['dtype']}` `(y, x, band)` in stored values, chips of {given['chip_px']} px; scaling and nodata are "
        "part of the model. Bands in order: "
        + ", ".join(f"`{band['name']}`" for band in given["bands"])
        + ".",
        "",
    ]
    return "\n".join(lines)


def _figures(metrics: Facts) -> list[str]:
    test = metrics["splits"].get("test") or metrics["splits"].get("val")
    if test is None:
        return ["No held-out block: nothing is known of its accuracy."]
    rows = [
        f"| {one['name']} | {_number(one['iou'])} | {_interval(one['iou_ci95'])} | {_number(one['precision'])} | "
        f"{_number(one['recall'])} | {one['label_px']:,} |"
        for one in test["classes"]
    ]
    return [
        (
            f"On {test['pixels']:,} pixels of {test['blocks']} held-out blocks, each pixel once, from the blended map: "
            f"mIoU {_number(test['miou'])} {_interval(test['miou_ci95'])}, overall accuracy "
            f"{_number(test['accuracy'])} {_interval(test['accuracy_ci95'])}, kappa {_number(test['kappa'])}. "
            "Intervals are 95 %, from resampling whole blocks."
        ),
        "",
        *(line for remark in metrics.get("remarks", ()) for line in (f"Mind: {remark}.", "")),
        "| class | IoU | 95 % | precision | recall | label px |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(value: list[float] | None) -> str:
    return "-" if value is None else f"{value[0]:.3f}..{value[1]:.3f}"


def model_item(facts: Facts, weights: Path) -> dict[str, Any]:
    """Return the STAC item of a model, after the MLM extension 1.5.0.

    It has no place and no date of its own: the geometry is the world and the time is open.
    """
    given = facts["input"]
    names = [band["name"] for band in given["bands"]]
    classes = [
        {"value": one["code"], "name": one["name"], "color_hint": one["color"].removeprefix("#").upper()}
        for one in given["classes"]
    ]
    size = given["chip_px"]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [_MLM, _FILE],
        "id": f"{facts['name']}-{facts['version']}",
        "geometry": {"type": "Polygon", "coordinates": _WORLD},
        "bbox": [-180, -90, 180, 90],
        "properties": {
            "datetime": None,
            "start_datetime": "1970-01-01T00:00:00Z",
            "end_datetime": "9999-12-31T23:59:59Z",
            "mlm:name": facts["name"],
            "mlm:architecture": "U-Net",
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:framework": "TensorFlow",
            "mlm:total_parameters": facts["parameters"],
            "mlm:pretrained": False,
            "mlm:pretrained_source": None,
            "mlm:batch_size_suggestion": facts["train"]["batch_size"],
            "mlm:hyperparameters": facts["train"],
            "mlm:input": [
                {
                    "name": "chip",
                    "bands": names,
                    "input": {
                        "shape": [-1, size, size, len(names)],
                        "dim_order": ["batch", "height", "width", "bands"],
                        "data_type": given["dtype"],
                    },
                    "value_scaling": None,
                    "resize_type": None,
                    "pre_processing_function": None,
                }
            ],
            "mlm:output": [
                {
                    "name": "logits",
                    "tasks": ["semantic-segmentation"],
                    "result": {
                        "shape": [-1, size, size, len(classes)],
                        "dim_order": ["batch", "height", "width", "classes"],
                        "data_type": "float32",
                    },
                    "classification:classes": classes,
                    "post_processing_function": None,
                }
            ],
        },
        "links": [],
        "assets": {
            "weights": {
                "href": f"./{weights.name}",
                "type": "application/x-hdf5",
                "title": "Keras weights of the best epoch; model.json says what to build",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "keras.Model.save_weights",
                "file:size": facts["weights"]["bytes"],
                "file:checksum": f"1220{facts['weights']['sha256']}",
            }
        },
    }
