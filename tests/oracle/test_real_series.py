"""What is chosen of the real series, slot by slot, after every quicklook was looked at; and reading beyond small images.

The rules believe the mask, and the producer's SCL is wrong on some dates. Mol 2022-12-06 and 2022-12-16 are under
cloud from edge to edge and the SCL calls them water, unclassified and bare soil; Antwerp 2023-10-22 is under thin cloud
with coloured fringes and the SCL calls all of it clear. They would be chosen, so the shipped regions leave them out by
their filters: then Mol's December has nothing, and Antwerp's October takes 2023-10-07, which the eye finds clear and the
SCL to 41 %. Antwerp 2023-10-02 and 2023-10-17 show the ground through haze and the SCL calls all of it cloud: they are
left out. Boadella's masks were derived for these data and agree with the eye; 2021-06-26 has haze in the west, for which
the threshold falls.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from benchmarks import chain

from chipmill.core.paths import VersionDir
from chipmill.core.tables import RANKING, read_table
from chipmill.core.units import load_batches
from chipmill.dataset.union import check_input, dataset_schema
from chipmill.imagery.catalog import find_items, search_items
from chipmill.imagery.planning import tile_aoi
from chipmill.imagery.ranking import close_ranking, rank_items
from chipmill.learning.stacks import open_stack, stack_rasters
from chipmill.region.config import Region, Slots, Time
from chipmill.region.fields import Source
from chipmill.region.grid import Window
from chipmill.region.load import load_region
from chipmill.region.tiling import Tiles

pytestmark = pytest.mark.real

REGIONS = Path(__file__).resolve().parents[2] / "deployments" / "regions"


def shipped(name: str, output: Path, **changes) -> Region:
    return load_region(REGIONS / f"{name}.yaml").model_copy(update={"output": str(output), **changes})


def by_month(region: Region, every: str = "P1M") -> Region:
    return region.model_copy(update={"time": Time(range=region.time.range, slots=Slots(every=every))})


def ranked(region: Region) -> list[dict]:
    """Return the rows of ranking.parquet."""
    plan = tile_aoi(region)
    items = search_items(plan)
    for batch in load_batches(plan.attempt, "rank_items"):
        assert not rank_items(plan, items, batch).failed
    return read_table(close_ranking(plan, items).path, RANKING).to_pylist()


def choice(rows: list[dict]) -> dict[str, list[str]]:
    """Return (tile's slot -> dates of the chosen items, best first), with slots that have none."""
    found: dict[str, list[str]] = {f"{row['slot']} {row['slot_start']:%Y-%m-%d}": [] for row in rows}
    for row in rows:
        if row["chosen"]:
            found[f"{row['slot']} {row['slot_start']:%Y-%m-%d}"] += [name[-8:] for name in row["item_ids"]]
    return found


def test_mol_by_month_and_the_empty_mosaic_is_never_chosen(shared_data, tmp_path):
    rows = ranked(by_month(shipped("mol", tmp_path)))
    assert choice(rows) == {
        "p1 2022-11-01": ["20221111"],
        "p2 2022-12-01": [],
        "p3 2023-01-01": ["20230116"],
        "p4 2023-02-01": ["20230211"],
    }
    _never_chosen(rows, "S2_MOL_20221211")
    assert len(rows) == 18


def test_mol_in_one_slot_as_it_is_mapped(shared_data, tmp_path):
    rows = ranked(shipped("mol", tmp_path))
    assert choice(rows) == {"p1 2022-11-01": ["20230116", "20230211", "20221111"]}
    _never_chosen(rows, "S2_MOL_20221211")


def test_without_its_filter_mol_takes_two_cloudy_dates_for_december(shared_data, tmp_path):
    """Why the shipped region has a filter, and that the search says how many items it left out."""
    region = by_month(shipped("mol", tmp_path))
    assert "s2: 2 items do not meet the filter" in find_items(region, tile_aoi(region).tiles()).notes
    bare = region.imagery[0].model_copy(update={"filter": None})
    rows = ranked(region.model_copy(update={"imagery": (bare,), "output": str(tmp_path / "bare")}))
    assert choice(rows)["p2 2022-12-01"] == ["20221206", "20221216"]
    assert len(rows) == 20


@pytest.mark.parametrize("mask", [True, False])
def test_nothing_makes_the_empty_mosaic_a_choice(shared_data, tmp_path, mask):
    """Not without a mask either, although nothing is known of its clouds and all that is left is asked for."""
    region = shipped("mol", tmp_path)
    imagery = region.imagery[0]
    clear = imagery.clear.model_copy(update={"floor": 0.0, "min_count": 19})
    changes = {"clear": clear, "mask": imagery.mask if mask else None}
    rows = ranked(region.model_copy(update={"imagery": (imagery.model_copy(update=changes),)}))
    _never_chosen(rows, "S2_MOL_20221211")


def _never_chosen(rows: list[dict], item: str) -> None:
    (own,) = [row for row in rows if row["item_ids"] == [item]]
    assert (own["chosen"], own["cloud_cover_pct"], own["coverage_fraction"]) == (False, None, 0)
    assert own["reason"] == f"item {item} says that it holds no data (s2:nodata_pixel_percentage 100)"


def test_without_that_word_of_its_metadata_the_mask_tells_the_same(shared_data, tmp_path):
    source = shared_data / "catalog"
    raw = json.loads((source / "items.geojson").read_text())
    raw["features"] = [one for one in raw["features"] if one["collection"] == "mol-s2-l2a"]
    for one in raw["features"]:
        one["properties"].pop("s2:nodata_pixel_percentage", None)
    region = shipped("mol", tmp_path)
    imagery = region.imagery[0]
    for path in source.glob("mol-s2-l2a/*/*.tif"):
        copy = tmp_path / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (tmp_path / "items.geojson").write_text(json.dumps(raw))
    changed = imagery.model_copy(update={"source": Source(items=str(tmp_path / "items.geojson"))})
    rows = ranked(region.model_copy(update={"imagery": (changed,)}))
    (own,) = [row for row in rows if row["item_ids"] == ["S2_MOL_20221211"]]
    assert (own["chosen"], own["evidence"], own["reason"]) == (False, "mask", "no data over the tile")


def test_antwerp_by_month_has_no_november(shared_data, tmp_path):
    rows = ranked(by_month(shipped("antwerp", tmp_path)))
    assert choice(rows) == {"p1 2023-10-01": ["20231007"], "p2 2023-11-01": [], "p3 2023-12-01": ["20231226"]}
    reasons = {row["item_ids"][0][-8:]: row["reason"] for row in rows}
    assert "20231022" not in reasons
    assert reasons["20231017"] == "no clear pixel over the tile"


def test_without_its_filter_antwerp_takes_thin_cloud_for_october(shared_data, tmp_path):
    region = by_month(shipped("antwerp", tmp_path))
    bare = region.imagery[0].model_copy(update={"filter": None})
    rows = ranked(region.model_copy(update={"imagery": (bare,)}))
    assert choice(rows)["p1 2023-10-01"] == ["20231022"]
    reasons = {row["item_ids"][0][-8:]: row["reason"] for row in rows}
    assert reasons["20231007"] == "clear 0.4102 below 0.9"


def test_antwerp_in_one_slot_as_it_is_mapped(shared_data, tmp_path):
    assert choice(ranked(shipped("antwerp", tmp_path))) == {"p1 2023-10-01": ["20231226"]}


def test_boadella_at_its_label_dates_and_by_half_year(shared_data, tmp_path):
    at_labels = choice(ranked(shipped("boadella-rgbn", tmp_path / "labels")))
    assert at_labels == {
        f"p1 {date[:4]}-{date[4:6]}-{date[6:]}": [date]
        for date in ("20200202", "20200621", "20200914", "20210716")
    }
    whole = Time(range=("2020-01-01", "2022-07-01"), slots=Slots(every="P6M"))
    region = shipped("boadella-rgbn", tmp_path / "halves", tiles=Tiles(), labels=None, time=whole)
    assert choice(ranked(region)) == {
        "p1 2020-01-01": ["20200621", "20200202", "20200128"],
        "p2 2020-07-01": ["20200914"],
        "p3 2021-01-01": ["20210626"],
        "p4 2021-07-01": ["20210721", "20210716"],
        "p5 2022-01-01": ["20220601", "20220308"],
    }


@pytest.fixture(scope="module")
def antwerp(shared_data, tmp_path_factory):
    """The committed stacks of the shipped region."""
    return chain.build(shipped("antwerp", tmp_path_factory.mktemp("antwerp")))


def test_the_stack_of_a_region_without_labels_is_what_was_chosen(antwerp, shared_data):
    assert (antwerp.chips, antwerp.shards, antwerp.failed) == (0, 0, 0)
    (raster,) = stack_rasters(VersionDir(antwerp.path))
    scene = shared_data / "catalog" / "antwerp-s2-l2a" / "S2_ANTWERP_20231226"
    schema = dataset_schema(antwerp.path)
    assert schema.names == ("p1_blue", "p1_green", "p1_red", "p1_nir", "p1_ndwi")
    with open_stack(raster, schema.bands) as reader:
        pixels = reader.pixels(raster.extent)
    assert pixels.shape == (52, 52, 5)
    for index, band in enumerate(("blue", "green", "red", "nir")):
        np.testing.assert_array_equal(pixels[:, :46, index], _read(scene / f"{band}.tif"))
    assert (pixels[:, 46:] == -32768).all()


def _read(path: Path):
    with rasterio.open(path) as source:
        return source.read(1)


def test_beyond_a_raster_that_is_smaller_than_a_chip_lies_nodata(antwerp):
    (raster,) = stack_rasters(VersionDir(antwerp.path))
    with open_stack(raster, dataset_schema(antwerp.path).bands) as reader:
        inside = reader.pixels(raster.extent)
        assert reader.extent_for(32) == raster.extent
        grown = reader.extent_for(64)
        assert grown == Window(raster.extent.col_off, raster.extent.row_off, 64, 64)
        padded = np.pad(inside, ((0, 12), (0, 12), (0, 0)), constant_values=-32768)
        np.testing.assert_array_equal(reader.pixels(grown), padded)
        around = reader.pixels(raster.extent.padded(3))
        np.testing.assert_array_equal(
            around, np.pad(inside, ((3, 3), (3, 3), (0, 0)), constant_values=-32768)
        )
        away = reader.pixels(Window(raster.extent.col_end + 5, 0, 4, 4))
        assert (away == -32768).all()
        assert away.dtype == inside.dtype


def test_the_three_series_mean_the_same_to_a_model(antwerp, shared_data, tmp_path):
    """Degrees at 42 degrees north against UTM metres: within the rounding, so there is nothing to tell."""
    schemas = [dataset_schema(chain.build(shipped(name, tmp_path)).path) for name in ("boadella-rgbn", "mol")]
    for other in (schemas[1], dataset_schema(antwerp.path)):
        assert check_input(schemas[0], other, "boadella", "other") == ()
    assert schemas[0].resolution_m == pytest.approx(10, rel=1e-3)
