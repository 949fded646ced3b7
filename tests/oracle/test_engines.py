"""The three readers give the same pixels with nearest resampling, through the same gate and with the same errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.warp import calculate_default_transform
from tests import imagery_world as iw
from tests.fault_archive import serve

from chipmill.core.buffers import Buffers
from chipmill.core.errors import AssetMismatchError, AssetReadError, ChipmillError, TransientReadError
from chipmill.core.store import sha256_file
from chipmill.core.tables import RANKING, read_table
from chipmill.core.units import load_batches
from chipmill.imagery import composite, engine_odc, engine_stackstac, engines, sources
from chipmill.imagery.catalog import search_items
from chipmill.imagery.hrefs import source_root
from chipmill.imagery.orders import Orders
from chipmill.imagery.planning import tile_aoi
from chipmill.imagery.ranking import close_ranking, rank_items
from chipmill.imagery.reading import Grid, open_band
from chipmill.imagery.scaling import Own
from chipmill.region import identity
from chipmill.region.load import load_region

# How they call shapely and affine is their own affair.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}:{module}")
    for kind in ("DeprecationWarning", "PendingDeprecationWarning")
    for module in ("odc", "stackstac")
]

ENGINES = ("blocks", "odc-stac", "stackstac")
FOREIGN = ENGINES[1:]
SHAPE = (iw.SIDE, iw.SIDE)
DATES = ("2019-02-01", "2019-03-01", "2019-04-01")
ZONE_32 = "EPSG:32632"
REGIONS = Path(__file__).resolve().parents[2] / "deployments" / "regions"


def scene(seed, shape=SHAPE, cloud=0.1, empty=0.1):
    """Return DN of red and nir with nodata 0, and a mask."""
    rng = np.random.default_rng(seed)
    bands = {name: rng.integers(1, 6000, shape).astype(np.uint16) for name in ("red", "nir")}
    for pixels in bands.values():
        pixels[rng.random(shape) < empty] = 0
    mask = np.full(shape, iw.CLEAR, np.uint8)
    mask[rng.random(shape) < cloud] = iw.CLOUD
    mask[:3] = iw.EMPTY
    return bands, mask


def same_grid(made):
    for seed, when in enumerate(DATES):
        made.scene(when, *scene(seed, cloud=0.02))
    return {"mask": {"asset": "scl", "dilation_px": 2}}


def coarser_files(made):
    """A mask and a band of 20 m."""
    for seed, when in enumerate(DATES):
        bands, mask = scene(seed)
        made.scene(when, bands, mask)
        place = iw.transform() @ Affine.scale(2)
        folder = made.folder / f"s{when}"
        iw.save(folder / "scl.tif", mask[::2, ::2], nodata=iw.EMPTY, place=place)
        iw.save(folder / "nir.tif", bands["nir"][::2, ::2], nodata=0, place=place)


def partly_outside(made):
    """Whole and broken shifts; the last does not touch the tile's middle."""
    for seed, (when, shift) in enumerate(zip(DATES, (17.0, -0.3, 50.4), strict=True)):
        made.scene(when, *scene(seed), place=iw.transform() @ Affine.translation(shift, -shift / 2))


def another_zone(made):
    place, width, height = calculate_default_transform(
        "EPSG:32633", ZONE_32, iw.SIDE, iw.SIDE, *iw.LATTICE.bounds(iw.PLACE), resolution=10
    )
    for seed, when in enumerate(DATES):
        made.scene(when, *scene(seed, (height, width)), place=place, crs=ZONE_32)


def without_nodata(made):
    for seed, (when, shift) in enumerate(zip(DATES, (0, 20, -40), strict=True)):
        place = iw.transform() @ Affine.translation(shift, 0)
        made.scene(when, *scene(seed), nodata=None, place=place)
    for item in made.items:
        item["assets"]["nir"]["raster:bands"][0]["nodata"] = 0  # told by the item alone


def floats(made):
    for seed, when in enumerate(DATES):
        bands, mask = scene(seed)
        bands = {
            name: np.where(one == 0, np.nan, one / 7.0).astype(np.float32) for name, one in bands.items()
        }
        made.scene(when, bands, mask, nodata=None)


def mixed_scales_and_two_granules(made):
    for seed, when in enumerate(DATES):
        item = made.scene(when, *scene(seed))
        item["assets"]["red"]["raster:bands"][0]["offset"] = -0.1 * seed
    east = iw.transform() @ Affine.translation(iw.SIDE // 2, 0)
    made.scene(DATES[0], *scene(9), name="east", place=east)


def several_bands_in_one_file(made):
    for seed, when in enumerate(DATES):
        bands, mask = scene(seed)
        item = made.scene(when, bands, mask)
        iw.save(made.folder / f"s{when}" / "all.tif", np.stack([bands["nir"], bands["red"]]), nodata=0)
        told = [{"name": "nir", "scale": 1e-4}, {"name": "red", "scale": 1e-4}]
        item["assets"] = {"all": {"href": "./all.tif", "eo:bands": told, "raster:bands": told}} | {
            "scl": item["assets"]["scl"]
        }


def without_a_mask(made):
    for seed, when in enumerate(DATES):
        made.scene(when, scene(seed)[0])
    return {"mask": None}


CASES = [same_grid, coarser_files, partly_outside, another_zone, without_nodata, floats,
         mixed_scales_and_two_granules, several_bands_in_one_file, without_a_mask]  # fmt: skip


def config(tmp_path, source, **imagery):
    settings = {"clear": {"threshold": 0.0, "floor": 0.0}, "resampling": "nearest"}
    return iw.region(tmp_path, source, imagery=settings | imagery)


def order_of(region):
    """Search and rank; return the order of the one tile and slot."""
    made = iw.plan(region)
    items = search_items(made)
    for batch in load_batches(made.attempt, "rank_items"):
        assert not rank_items(made, items, batch).failed
    table = read_table(close_ranking(made, items).path, RANKING)
    tile = made.tiles()[0]
    return Orders(made, table).order(tile, region.imagery[0], made.slots(tile)[0])


def with_engine(order, name):
    """Return the order read by another engine."""
    imagery = order.imagery.model_copy(update={"engine": name})
    return type(order)(order.region, imagery, order.grid, order.acquisitions)


def composed(order, name):
    """Return the composite (band, y, x) by an engine."""
    image = np.zeros((len(order.names), order.grid.height, order.grid.width), np.int16)
    composite.compose(with_engine(order, name), image)
    return image


@pytest.mark.parametrize("build", CASES, ids=lambda build: build.__name__)
def test_the_three_engines_agree_pixel_for_pixel(tmp_path, build):
    made = iw.Archive(tmp_path / "archive")
    imagery = build(made) or {}
    order = order_of(config(tmp_path, {"catalog": str(made.write())}, **imagery))
    assert len(order.acquisitions) == len(DATES)
    whole = composed(order, "blocks")
    assert (whole[-2] > 0).mean() > 0.2, "else little would be compared"
    assert (whole[-2] < len(DATES)).any(), "and something is masked"
    for name in FOREIGN:
        np.testing.assert_array_equal(composed(order, name), whole, name)


@pytest.mark.parametrize("build", [same_grid, another_zone], ids=lambda build: build.__name__)
def test_a_tile_in_strips_is_the_same_as_in_one(tmp_path, monkeypatch, build):
    made = iw.Archive(tmp_path / "archive")
    imagery = build(made) or {}
    order = order_of(config(tmp_path, {"catalog": str(made.write())}, **imagery))
    whole = composed(order, "blocks")
    monkeypatch.setattr(engines, "BUDGET_BYTES", 1 << 18)  # 28 rows at a time
    for name in FOREIGN:
        with engines.open_engine(name, order, source_root(order.region, order.imagery.source)) as source:
            assert [window.height for window in source.windows()] == [28, 28, 8]
        np.testing.assert_array_equal(composed(order, name), whole, name)


def test_from_file_to_file_they_leave_the_same_name_and_bytes(tmp_path):
    made = iw.Archive(tmp_path / "archive")
    same_grid(made)
    source = {"catalog": str(made.write())}
    left = set()
    for name in ENGINES:
        *_, path, failed = iw.run(config(tmp_path / name, source, engine=name))
        assert not failed
        left.add((path.name, sha256_file(path)))
    assert len(left) == 1


@pytest.mark.real
@pytest.mark.parametrize("name", ["boadella", "mol"])
def test_the_three_agree_on_real_scenes(tmp_path, shared_data, name):
    """In degrees and in UTM, as the examples give them, but with resampling nearest."""
    region = load_region(REGIONS / f"{name}.yaml").model_copy(update={"output": str(tmp_path)})
    imagery = region.imagery[0].model_copy(update={"resampling": "nearest"})
    plan = tile_aoi(region.model_copy(update={"imagery": (imagery,)}))
    items = search_items(plan)
    for batch in load_batches(plan.attempt, "rank_items"):
        assert not rank_items(plan, items, batch).failed
    known = Orders(plan, read_table(close_ranking(plan, items).path, RANKING))
    tile = plan.tiles()[0]
    order = known.order(tile, imagery, plan.slots(tile)[0])
    whole = composed(order, "blocks")
    assert (whole[-2] > 0).mean() > 0.9
    for engine in FOREIGN:
        np.testing.assert_array_equal(composed(order, engine), whole, engine)


def test_they_agree_on_a_large_grid_of_another_zone(tmp_path):
    """Warped as a whole or in strips: the approximation of the way between zones moves no pixel."""
    side = 1024
    place = type(iw.PLACE)(iw.PLACE.col_off, iw.PLACE.row_off, side, side)
    transform, bounds = iw.LATTICE.transform(place), iw.LATTICE.bounds(place)
    own, width, height = calculate_default_transform(
        "EPSG:32633", ZONE_32, side, side, *bounds, resolution=10
    )
    pixels = np.random.default_rng(8).integers(1, 60_000, (height, width)).astype(np.uint16)
    path = str(iw.save(tmp_path / "a.tif", pixels, nodata=0, crs=ZONE_32, place=own, block=256))
    with open_band(iw.asset(), path, Grid("EPSG:32633", transform, side, side)) as reader:
        values, valid = reader.read(0, side)
    files = [engines.File(iw.asset(), path, Own(np.dtype(np.uint16), 1.0, 0.0), 0.0)]
    for load in (engine_odc.load, engine_stackstac.load):
        for row, rows in ((0, side), (300, 200)):
            strip = Grid("EPSG:32633", transform @ Affine.translation(0, row), side, rows)
            found = np.nan_to_num(load(files, strip, "nearest")[0])
            np.testing.assert_array_equal(found, np.where(valid, values, 0)[row : row + rows])


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("resampling", ["bilinear", "cubic"])
def test_other_resamplings_are_near_and_are_another_product(tmp_path, name, resampling):
    made = iw.Archive(tmp_path / "archive")
    smooth = np.add.outer(np.arange(iw.SIDE), 2 * np.arange(iw.SIDE)) * 10 + 1000
    place = iw.transform() @ Affine.translation(0.4, 0.2)
    made.scene(DATES[0], {"red": smooth.astype(np.uint16), "nir": smooth.astype(np.uint16)}, place=place)
    region = config(tmp_path, {"catalog": str(made.write())}, mask=None, resampling=resampling)
    order = order_of(region)
    ours, theirs = composed(order, "blocks"), composed(order, name)
    both = (ours[-2] > 0) & (theirs[-2] > 0)
    assert both.mean() > 0.9
    assert np.abs(ours[:2].astype(int) - theirs[:2])[:, both].max() <= 1
    assert with_engine(order, name).fingerprint != order.fingerprint


def test_the_engine_changes_no_name_where_it_changes_no_pixel(tmp_path):
    made = iw.Archive(tmp_path / "archive")
    made.scene(DATES[0], *scene(1))
    order = order_of(config(tmp_path, {"catalog": str(made.write())}))
    assert {with_engine(order, name).fingerprint for name in ENGINES} == {order.fingerprint}


def test_the_default_engine_leaves_older_fingerprints_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "fingerprint", lambda *parts: json.dumps(parts))
    plain = iw.region(tmp_path, {"catalog": "c.json"})
    other = iw.region(tmp_path, {"catalog": "c.json"}, imagery={"engine": "stackstac"})
    assert '"engine"' not in identity.config_fingerprint(plain)
    assert '"engine": "stackstac"' in identity.config_fingerprint(other)


def api_items(made, url):
    """Return the items of an archive with absolute hrefs."""
    features = json.loads(json.dumps(made.items))
    for item in features:
        for asset in item["assets"].values():
            asset["href"] = f"{url}/{item['id']}/{asset['href'][2:]}"
    return features


@pytest.fixture
def online(tmp_path, monkeypatch):
    """An archive behind HTTP that wants a header, and the region that asks it."""
    monkeypatch.setenv("CHIPMILL_SECRET_KEY", "opensesame")
    made = iw.Archive(tmp_path / "archive")
    for seed, when in enumerate(DATES):
        made.scene(when, *scene(seed))
    with serve(made.folder) as server:
        features = api_items(made, server.url)
        server.search = lambda body: {"type": "FeatureCollection", "features": features, "links": []}
        server.allows = lambda path, headers: headers.get("X-Key") == "opensesame"
        auth = {"kind": "header", "name": "X-Key", "env": "CHIPMILL_SECRET_KEY"}
        server.region = config(tmp_path, {"stac": f"{server.url}/stac", "collection": "toy"}, auth=auth)
        yield server


@pytest.mark.parametrize("name", FOREIGN)
def test_they_read_through_our_gate_with_our_secret(online, name):
    order = order_of(online.region)
    np.testing.assert_array_equal(composed(order, name), composed(order, "blocks"))


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize(("status", "error"), [(404, AssetReadError), (503, TransientReadError)])
def test_a_dead_or_tired_server_is_the_same_error(online, monkeypatch, name, status, error):
    monkeypatch.setitem(sources.GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY", "0")
    order = order_of(online.region)
    online.faults[f"/s{DATES[1]}/nir.tif"] = [status] * 50
    with pytest.raises(error, match=r"nir\.tif"):
        composed(order, name)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_virtual_raster_in_disguise_is_not_followed(tmp_path, name, when):
    """Also where it takes the place of a file that was looked at before: each engine opens by our gate every time."""
    made = iw.Archive(tmp_path / "archive")
    made.scene(DATES[0], *scene(1))
    order = order_of(config(tmp_path, {"catalog": str(made.write())}))
    disguised = made.folder / f"s{DATES[0]}" / "red.tif"

    def disguise():
        secret = iw.save(tmp_path / "secret.tif", np.full(SHAPE, 7, np.uint16))
        disguised.unlink()
        rasterio.shutil.copy(secret, disguised, driver="VRT")
        with rasterio.open(disguised) as opened:
            assert opened.read(1)[0, 0] == 7, "else the test could not fail"

    if when == "before":
        disguise()
    root = source_root(order.region, order.imagery.source)
    if when == "before":
        with pytest.raises(AssetReadError, match=r"red\.tif"), engines.open_engine(name, order, root):
            pass
        return
    with engines.open_engine(name, order, root) as source:
        disguise()
        with pytest.raises(AssetReadError, match=r"red\.tif"):
            source.read(source.windows()[0], Buffers())


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_was_cut_is_an_error_and_never_zeros(tmp_path, name):
    made = iw.Archive(tmp_path / "archive")
    made.scene(DATES[0], *scene(1))
    order = order_of(config(tmp_path, {"catalog": str(made.write())}))
    cut = made.folder / f"s{DATES[0]}" / "red.tif"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with pytest.raises(ChipmillError, match=r"red\.tif"):
        composed(order, name)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_mask_inside_a_file_counts_or_is_refused(tmp_path, name):
    made = iw.Archive(tmp_path / "archive")
    bands, mask = scene(1)
    made.scene(DATES[0], bands, mask, nodata=None)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(made.folder / f"s{DATES[0]}" / "red.tif", "r+") as target,
    ):
        target.write_mask(bands["red"] > 3000)
    order = order_of(config(tmp_path, {"catalog": str(made.write())}))
    if name == "odc-stac":
        with pytest.raises(AssetMismatchError, match=r"red\.tif.*use engine blocks or stackstac"):
            composed(order, name)
        return
    ours = composed(order, "blocks")
    assert 0.2 < (ours[-2] > 0).mean() < 0.8
    np.testing.assert_array_equal(composed(order, name), ours)
