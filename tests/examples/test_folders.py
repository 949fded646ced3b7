"""What a reader finds in each folder: a region file that says how its data are made, and a page with both commands."""

import re

import pytest
from tests.examples.conftest import FOLDER

from chipmill.region.load import load_region

NAMES = sorted(path.parent.name for path in FOLDER.glob("*/region.yaml"))


def test_the_index_names_them_all():
    listed = re.findall(r"\]\((\w+)/README\.md\)", (FOLDER / "README.md").read_text())
    assert sorted(listed) == NAMES
    assert listed == [
        "landcovernet",
        "earth_engine",
        "glacier_debris",
        "esri",
        "landsat_ndvi",
        "glacier_yearly",
        "nearest_mosaic",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_page_names_the_two_commands_and_the_test(name):
    page = (FOLDER / name / "README.md").read_text()
    assert re.search(
        rf"^python -m examples\.{name}\.make_data\nchipmill (run|build) examples/{name}/region\.yaml$",
        page,
        re.MULTILINE,
    )
    (test,) = re.findall(r"`(tests/examples/\w+\.py)`", page)
    assert (FOLDER.parent / test).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_the_region_file_is_valid_and_keeps_to_its_folder(name):
    path = FOLDER / name / "region.yaml"
    region = load_region(path)
    assert f"python -m examples.{name}.make_data" in path.read_text().splitlines()[0]
    assert region.output_dir.is_relative_to(path.parent)
    assert ".." not in path.read_text().split()
