"""Every kind of source gives the same composite of the same files; ready composites come through as they are."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from tests import imagery_world as iw
from tests.store_world import serve_store
from typer.testing import CliRunner

from chipmill import cli
from chipmill.core.errors import AoiError, BadInputError, ItemSearchError
from chipmill.core.tables import RANKING, read_table
from chipmill.core.units import load_batches
from chipmill.imagery import stores
from chipmill.imagery.catalog import find_items, search_items
from chipmill.imagery.composite import composite_tiles
from chipmill.imagery.geoparquet import write_parquet_items
from chipmill.imagery.orders import composite_path
from chipmill.imagery.planning import tile_aoi
from chipmill.imagery.ranking import close_ranking, rank_items
from chipmill.region.config import Slots, Time
from chipmill.region.fields import S3_LOGIN, Source
from chipmill.region.load import load_region

DATES = ("2019-02-01", "2019-05-01", "2019-08-01")
REGIONS = Path(__file__).resolve().parents[2] / "deployments" / "regions"
SHAPE = (iw.SIDE, iw.SIDE)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder that is a bucket too: scenes with clouds, a catalog, both kinds of item lists, and files by their names."""
    for name in (*stores._ENDPOINTS, *stores._REGIONS, *S3_LOGIN):
        monkeypatch.delenv(name, raising=False)
    random = np.random.default_rng(5)
    archive = iw.Archive(tmp_path / "store" / "bucket")
    for when in DATES:
        bands = {name: random.integers(1, 9000, SHAPE, np.uint16) for name in ("red", "nir")}
        mask = np.where(random.random(SHAPE) < 0.2, iw.CLOUD, iw.CLEAR).astype(np.uint8)
        for asset in archive.scene(when, bands, mask, updated="2020-01-01T00:00:00Z")["assets"].values():
            asset["file:size"] = 1  # a store does not tell the search; all sources shall say the same
    archive.write()
    for item in archive.items:
        for key, asset in item["assets"].items():
            asset["href"] = f"./{item['id']}/{key}.tif"
            named = archive.folder / "own" / f"{item['id'][1:].replace('-', '')}_t1_{key}.tif"
            named.parent.mkdir(exist_ok=True)
            shutil.copy(archive.folder / asset["href"], named)
            with rasterio.open(named, "r+") as target:
                target.scales = (1.0 if key == "scl" else 1e-4,)
    page = {"type": "FeatureCollection", "features": archive.items}
    (archive.folder / "items.json").write_text(json.dumps(page))
    write_parquet_items(archive.folder / "items.parquet", archive.items)
    return archive.folder


def made(folder, source, **more):
    """Return (fingerprint of the items, bands of the composite) of a source."""
    folder.mkdir()
    imagery = {"clear": {"threshold": 0.5}} | more.pop("imagery", {})
    plan, rows, path, failed = iw.run(iw.region(folder, source, imagery=imagery, **more))
    assert not failed
    assert all(row["chosen"] for row in rows)
    return find_items(plan.region, plan.tiles()).fingerprint, iw.read(path)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_list_gives_what_the_catalog_gives_on_disk_and_in_a_store(tmp_path, bucket, monkeypatch):
    wanted = made(tmp_path / "a", {"catalog": str(bucket / "catalog.json")})
    assert len(np.unique(wanted[1]["valid_count"])) > 2
    with serve_store(bucket.parent) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.url)
        for number, place in enumerate((str(bucket), "s3://bucket")):
            for kind in ("json", "parquet"):
                got = made(tmp_path / f"{number}-{kind}", {"items": f"{place}/items.{kind}"})
                assert got[0] == wanted[0]
                assert_same(got[1], wanted[1])
        assert {login for *_, login in store.requests} == {""}
        store.login = "AKIDEXAMPLE"
        for name, value in zip(S3_LOGIN, (store.login, "secret"), strict=True):
            monkeypatch.setenv(name, value)
        private = {"auth": {"kind": "s3"}, "clear": {"threshold": 0.5}}
        got = made(tmp_path / "private", {"items": "s3://bucket/items.parquet"}, imagery=private)
        assert got[0] == wanted[0]
        assert_same(got[1], wanted[1])
    assert {path for _, path, _, _ in store.requests} >= {"/bucket/s2019-02-01/red.tif", "/bucket/items.json"}


def test_files_by_their_names_give_what_the_catalog_gives_and_an_index_the_same_items(tmp_path, bucket):
    pattern = "{date:%Y%m%d}_{tile}_{band}.tif"
    wanted = made(tmp_path / "a", {"catalog": str(bucket / "catalog.json")})[1]
    items, composite = made(tmp_path / "b", {"files": f"{bucket / 'own'}/{pattern}"})
    assert_same(composite, wanted)
    done = CliRunner().invoke(cli.app, ["index", str(bucket / "own"), "--pattern", pattern])
    assert done.exit_code == 0, done.output
    listed, composite = made(tmp_path / "c", {"items": str(bucket / "own" / "items.parquet")})
    assert listed == items
    assert_same(composite, wanted)


def test_bands_of_one_file_are_found_by_their_names(tmp_path, bucket):
    wanted = made(tmp_path / "a", {"catalog": str(bucket / "catalog.json")}, imagery={"mask": None})[1]
    for when in DATES:
        scene = bucket / f"s{when}"
        both = np.stack([rasterio.open(scene / f"{name}.tif").read(1) for name in ("nir", "red")])
        path = iw.save(bucket / "stacked" / f"{when}.tif", both, nodata=0)
        with rasterio.open(path, "r+") as target:
            target.descriptions, target.scales = ("nir", "red"), (1e-4, 1e-4)
    got = made(tmp_path / "b", {"files": f"{bucket}/stacked/{{date:%Y-%m-%d}}.tif"}, imagery={"mask": None})[
        1
    ]
    assert_same(got, wanted)


def test_names_with_signs_of_urls_are_read(tmp_path, bucket):
    """A colon is no scheme, and neither a percent nor a hash nor a question mark begins anything in a file's name."""
    wanted = made(tmp_path / "a", {"catalog": str(bucket / "catalog.json")})[1]
    for when in DATES:
        for band in ("red", "nir", "scl"):
            (bucket / "odd").mkdir(exist_ok=True)
            shutil.copy(
                bucket / f"s{when}" / f"{band}.tif",
                bucket / "odd" / f"T:{when}T10:00:00 50%20#1?x={band}.tif",
            )
    pattern = "T:{date:%Y-%m-%dT%H:%M:%S} 50%20#1?x={band}.tif"
    assert_same(made(tmp_path / "b", {"files": f"{bucket}/odd/{pattern}"})[1], wanted)


@pytest.fixture
def yearly(tmp_path):
    """Composites of two years with a hole; those of 2019 are in physical values on a grid of half the pixel size."""
    folder = tmp_path / "ready"
    first = np.arange(iw.SIDE**2, dtype=np.int16).reshape(SHAPE) - 100
    second = np.repeat(np.repeat((first[::-1] / 1e4).astype(np.float32), 2, 0), 2, 1)
    second[60:62, 6:8] = np.nan
    first[3, 4] = -32768
    fine = iw.transform() @ Affine.scale(0.5)
    for band in ("red", "nir"):
        iw.save(folder / "2018" / f"{band}.tif", first, nodata=-32768)
        iw.save(folder / "2019" / f"{band}.tif", second, nodata=np.nan, place=fine)
    return folder, first


def ready(folder, source, time, **more):
    folder.mkdir()
    region = iw.region(folder, {"composites": str(source) + "/{year}/{band}.tif"}, time=time,
                       imagery={"mask": None, "resampling": "nearest", **more})  # fmt: skip
    return iw.run(region)


@pytest.mark.parametrize("reduce", ["median", "first-valid"])
def test_a_ready_composite_comes_through_as_it_is(tmp_path, yearly, reduce):
    source, first = yearly
    _, rows, path, failed = ready(
        tmp_path / "a", source, {"range": ("2018-01-01", "2019-01-01"), "slots": {"n": 1}}, reduce=reduce
    )
    assert not failed
    assert [(row["chosen"], row["evidence"], row["clear_fraction"]) for row in rows] == [(True, "none", None)]
    got = iw.read(path)
    np.testing.assert_array_equal(got["red"], first)
    holes = (got["valid_count"] == 0) & (got["observed_count"] == 0)
    assert np.argwhere(holes).tolist() == [[3, 4]]


def test_physical_values_on_another_grid_come_onto_ours_and_a_season_takes_its_year(tmp_path, yearly):
    source, _ = yearly
    season = {"range": ("2019-06-01", "2019-09-01"), "slots": {"n": 1}}
    _, _, path, failed = ready(tmp_path / "a", source, season)
    assert not failed
    wanted = np.arange(iw.SIDE**2, dtype=np.int16).reshape(SHAPE)[::-1] - 100
    wanted[30, 3] = -32768
    np.testing.assert_array_equal(iw.read(path)["red"], wanted)


def test_each_year_is_a_slot_and_two_years_in_one_are_refused(tmp_path, yearly):
    source, _ = yearly
    both = ("2018-01-01", "2020-01-01")
    plan, rows, *_ = ready(tmp_path / "a", source, {"range": both, "slots": {"every": "P1Y"}})
    assert [(row["slot"], row["item_ids"]) for row in rows] == [("p1", ["2018"]), ("p2", ["2019"])]
    with pytest.raises(
        BadInputError, match=r"slot p1 .* is not cut as the ready composites are, it holds 2 of them"
    ):
        ready(tmp_path / "b", source, {"range": both, "slots": {"n": 1}})
    assert plan.region.imagery[0].mask is None


def test_a_composite_made_anew_at_the_same_size_is_another_one(tmp_path, yearly):
    source, first = yearly
    year = {"range": ("2018-01-01", "2019-01-01"), "slots": {"n": 1}}
    for band in ("red", "nir"):
        iw.save(source / "2018" / f"{band}.tif", first, nodata=-32768, compress=None)
    plan, *_ = ready(tmp_path / "a", source, year)
    before, size = (
        find_items(plan.region, plan.tiles()).fingerprint,
        (source / "2018" / "red.tif").stat().st_size,
    )
    iw.save(source / "2018" / "red.tif", first + 1, nodata=-32768, compress=None)
    assert (source / "2018" / "red.tif").stat().st_size == size
    assert find_items(plan.region, plan.tiles()).fingerprint != before


@pytest.mark.parametrize("kind", ["parquet", "files"])
def test_an_aoi_beside_the_archive_is_told_from_a_season_without_images(tmp_path, bucket, kind):
    source = {
        "parquet": {"items": str(bucket / "items.parquet")},
        "files": {"files": f"{bucket / 'own'}/{{date:%Y%m%d}}_{{tile}}_{{band}}.tif"},
    }[kind]
    away = iw.region(tmp_path, source, aoi={"bbox": [14.0, 40.0, 14.001, 40.001]})
    tiles = iw.plan(away).tiles()
    with pytest.raises(AoiError, match="lies outside the imagery s2"):
        find_items(away, tiles)
    early = iw.region(tmp_path, source, time={"range": ("2001-01-01", "2002-01-01")})
    tiles = iw.plan(early).tiles()
    with pytest.raises(ItemSearchError, match=r"no item of the source is left .*, of 3 that the source gave"):
        find_items(early, tiles)


@pytest.mark.real
def test_a_real_series_by_its_file_names_is_ranked_and_composited_as_by_its_catalog(shared_data, tmp_path):
    """Antwerp's 19 dates: the same clear fractions and choice for each, the same pixels of each month."""
    catalog = load_region(REGIONS / "antwerp.yaml")
    series = shared_data / "catalog" / "antwerp-s2-l2a"
    imagery = catalog.imagery[0].model_copy(update={"filter": None})  # it speaks of the catalog's ids
    named = imagery.model_copy(
        update={"source": Source(files=f"{series}/S2_ANTWERP_{{date:%Y%m%d}}/{{band}}.tif")}
    )
    months = Time(range=catalog.time.range, slots=Slots(every="P1M"))
    told, pixels = [], []
    for folder, entry in (("a", imagery), ("b", named)):
        changes = {"output": str(tmp_path / folder), "imagery": (entry,), "time": months}
        plan, rows, composites = real_chain(catalog.model_copy(update=changes))
        told.append(
            [(row["slot"], f"{row['datetime']:%Y%m%d}", row["clear_fraction"], row["chosen"]) for row in rows]
        )
        pixels.append([iw.read(path) for path in composites])
        assert len(plan.tiles()) == 1
    assert len(told[0]) == 19
    assert told[0] == told[1]
    for one, other in zip(*pixels, strict=True):
        assert_same(one, other)


def real_chain(region):
    """Return (plan, rows of the ranking, composites in the order of the slots) of a region."""
    plan = tile_aoi(region)
    items = search_items(plan)
    for batch in load_batches(plan.attempt, "rank_items"):
        assert not rank_items(plan, items, batch).failed
    ranking = close_ranking(plan, items)
    for batch in load_batches(plan.attempt, "composite_tiles"):
        assert not composite_tiles(plan, ranking, batch).failed
    table = read_table(ranking.path, RANKING)
    (tile,) = plan.tiles()
    paths = [composite_path(plan, table, tile, region.imagery[0], slot) for slot in plan.slots(tile)]
    return plan, table.to_pylist(), paths
