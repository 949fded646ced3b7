"""The forms of the UI are made of what Prefect reads from the flows: every field says what it is, in which unit."""

import jsonschema
import pytest
from prefect.utilities.callables import parameter_schema

from chipmill.cli.work import load_flow
from chipmill.core.yaml import read_yaml
from chipmill.region.fields import form_title

FLOWS = ["build", "train", "predict", "refresh"]
ASKED_FOR = {
    "build": {"region"},
    "train": {"train"},
    "predict": {"region", "predict"},
    "refresh": {"region"},
}
UNITS = {"_m": "(m)", "_px": "(px)", "_pct": "(%)", "_mb": "(MB)", "_days": "(days)", "_fraction": "(0 to 1)"}
UNIT_IN_TEXT = {
    "Aoi.bbox": "degrees",
    "Grid.resolution": "units of the CRS",
    "OutType.scale": "physical value",
    "Imagery.offset_override": "units of the scaled value",
    "TrainConfig.batch_size": "Chips",
    "TrainConfig.epochs": "epochs",
    "TrainConfig.patience": "Epochs",
}
REQUIRED = {
    "Region": {"name", "aoi", "time", "imagery"},
    "Imagery": {"name", "source", "bands"},
    "TrainConfig": {"name"},
    "PredictConfig": {"model"},
    "Time": {"range"},
    "Mask": {"asset"},
    "Static": {"name", "path"},
    "LabelLayer": {"path"},
    "Confidence": {"band", "min"},
    "SlotSpan": {"name", "start", "end"},
    "TileYear": {"attribute"},
}
"""What has no default that could be right; every other field has one."""


def schema(kind):
    return parameter_schema(load_flow(kind)).model_dump()


def fields(kind):
    """Yield (block, name, field) of a whole form: "" is the flow itself."""
    whole = schema(kind)
    blocks = {"": whole} | whole["definitions"]
    for block, content in blocks.items():
        for name, field in content.get("properties", {}).items():
            yield block, name, shown(field, whole)


def shown(field, whole):
    """A block's own title and text stand where the field says nothing else."""
    refs = [field, *field.get("allOf", [])]
    named = next((one["$ref"].rsplit("/", 1)[-1] for one in refs if "$ref" in one), None)
    return (whole["definitions"][named] if named else {}) | field


@pytest.mark.parametrize("kind", FLOWS)
def test_every_field_has_a_title_and_says_what_it_is(kind):
    found = list(fields(kind))
    assert len(found) > 10
    bare = [
        f"{block}.{name}"
        for block, name, field in found
        if not field.get("title") or len(field.get("description", "")) < 8
    ]
    assert bare == []


def test_the_unit_of_a_number_is_in_its_title_or_text():
    found = {f"{block}.{name}": field for block, name, field in fields("refresh")}
    suffixed = [(name, unit) for name in found for suffix, unit in UNITS.items() if name.endswith(suffix)]
    assert len(suffixed) > 10
    assert [name for name, unit in suffixed if unit not in found[name]["title"]] == []
    assert {name: text for name, text in UNIT_IN_TEXT.items() if text not in found[name]["description"]} == {}


@pytest.mark.parametrize("kind", FLOWS)
def test_only_what_cannot_be_guessed_has_to_be_filled_in(kind):
    whole = schema(kind)
    assert set(whole["required"]) == ASKED_FOR[kind]
    blocks = {
        name: block for name, block in whole["definitions"].items() if not name.endswith("Ref")
    }  # of those a person fills in none
    required = {name: set(block["required"]) for name, block in blocks.items() if "required" in block}
    assert required == {name: wanted for name, wanted in REQUIRED.items() if name in blocks}
    for name, block in blocks.items():
        defaults = {key for key, field in block["properties"].items() if "default" in field}
        assert block["properties"].keys() - defaults == REQUIRED.get(name, set()), name


def test_what_people_leave_empty_says_so():
    found = {f"{block}.{name}": field["description"] for block, name, field in fields("refresh")}
    assert all("Left empty by people" in found[name] for name in (".dataset", ".model"))
    assert "May be left empty" in found["Region.file"]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("size_px", "Size (px)"),
        ("max_nodata_fraction", "Max nodata fraction (0 to 1)"),
        ("from_", "From"),
        ("m", "M"),
        ("scene_cloud_max_pct", "Scene cloud max (%)"),
    ],
)
def test_titles_are_words_with_a_unit(name, title):
    assert form_title(name) == title


@pytest.mark.parametrize("name", ["boadella", "boadella-rgbn", "mol", "antwerp"])
def test_the_server_takes_the_shipped_region_files_as_they_are_written(name, request):
    """It checks parameters by the schema alone, before any of our code sees them: numbers stay numbers there."""
    folder = request.config.rootpath / "deployments" / "regions"
    content = read_yaml(folder / f"{name}.yaml")
    if "labels" in content:
        content["labels"]["ignore"] = [0, "90-99"]
    whole = schema("build")
    jsonschema.validate({"region": content}, {"type": "object", **whole, "required": ["region"]})
