"""The file of `init`: every field, with its description, and valid as it stands."""

from pydantic import BaseModel

from chipmill.cli.template import example_region, render_template
from chipmill.core.yaml import parse_yaml
from chipmill.region.config import Region

TEXT = render_template(example_region("savinja"), "savinja.yaml")


def every_field(model, seen):
    """Names and descriptions of the fields of a model and of those inside it."""
    for name, field in model.model_fields.items():
        if name != "file":
            yield field.alias or name, field.description
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in seen:
                seen.add(part)
                yield from every_field(part, seen)


def test_it_reads_back_as_the_region_that_it_was_written_from():
    assert Region.model_validate(parse_yaml(TEXT, "text")) == example_region("savinja")


def test_every_top_level_field_stands_there_with_its_description():
    for name, field in Region.model_fields.items():
        if name != "file":
            (line,) = [line for line in TEXT.splitlines() if line.startswith(f"{name}:")]
            assert " ".join(field.description.split()) in line


def test_fields_of_the_groups_that_are_shown_have_descriptions():
    shown = [line for line in TEXT.splitlines() if not line.startswith("#")]
    assert all("  # " in line for line in shown)
    described = dict(every_field(Region, set()))
    assert all(described.values()), "a field without a description cannot be explained"
    for name in (
        "tile_px",
        "min_count",
        "keep_negatives",
        "block_px",
        "target_mb",
        "max_nodata_fraction",
        "asset",
    ):
        assert any(line.lstrip(" -#").startswith(f"{name}:") for line in TEXT.splitlines()), name


def test_five_fields_are_to_be_filled_in_and_the_unused_ones_are_comments():
    marked = [line.split(":")[0] for line in TEXT.splitlines() if "FILL IN: " in line]
    assert marked == ["name", "aoi", "time", "imagery", "labels"]
    assert "  # bbox: null" in TEXT
    assert TEXT.splitlines()[-1].startswith("output: out")
