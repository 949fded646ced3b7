"""The region files that ship: valid, and the real one finds the same items in the static catalog and through the API."""

from pathlib import Path

import pytest

from chipmill.demo.api import serve
from chipmill.imagery.catalog import find_items
from chipmill.imagery.planning import make_tiles
from chipmill.region.fields import Source
from chipmill.region.identity import config_fingerprint
from chipmill.region.load import load_predict, load_region, load_train
from chipmill.region.plan import stack_bands

FOLDER = Path(__file__).resolve().parents[2] / "deployments" / "regions"


@pytest.mark.parametrize(
    ("train", "learnt", "predict", "mapped"),
    [
        ("boadella-train", ["boadella"], "boadella-predict", ["boadella"]),
        ("boadella-rgbn-train", ["boadella-rgbn"], "belgium-predict", ["mol", "antwerp"]),
    ],
)
def test_train_and_predict_files_name_region_files_that_are_there(train, learnt, predict, mapped):
    learning, mapping = load_train(FOLDER / f"{train}.yaml"), load_predict(FOLDER / f"{predict}.yaml")
    learnt_from, maps = (
        [load_region(FOLDER / f"{name}.yaml") for name in names] for names in (learnt, mapped)
    )
    assert [learning.resolve(name) for name in learning.datasets] == [Path(one.file) for one in learnt_from]
    assert [mapping.resolve(name) for name in mapping.regions] == [Path(one.file) for one in maps]
    assert mapping.model == learning.name
    assert {one.output_dir for one in (learning, mapping, *learnt_from, *maps)} == {learning.output_dir}
    # what the model is given is what it has learnt to read
    assert len({(stack_bands(one), one.dataset.layout) for one in (*learnt_from, *maps)}) == 1


def test_the_model_of_four_bands_differs_from_the_other_in_its_bands_alone():
    one, other = (load_region(FOLDER / f"{name}.yaml") for name in ("boadella", "boadella-rgbn"))
    bands = {name: name for name in ("blue", "green", "red", "nir")}
    imagery = one.imagery[0].model_copy(update={"bands": bands})
    assert one.model_copy(update={"name": other.name, "file": other.file, "imagery": (imagery,)}) == other


@pytest.mark.real
def test_boadella_is_the_same_through_the_api_and_from_the_static_catalog(shared_data):
    region = load_region(FOLDER / "boadella.yaml")
    tiles = make_tiles(region)
    assert [tile.anchor for tile in tiles] == ["2020-02-02", "2020-06-21", "2020-09-14", "2021-07-16"]
    direct = find_items(region, tiles)
    with serve([shared_data / "catalog"]) as api:
        (imagery,) = region.imagery
        asked = region.model_copy(
            update={
                "imagery": (
                    imagery.model_copy(update={"source": Source(stac=api.url, collection="boadella-s2-l2a")}),
                ),
                "tiles": region.tiles.model_copy(update={"source": Source(stac=api.url)}),
            }
        )
        assert [tile.tile_id for tile in make_tiles(asked)] == [tile.tile_id for tile in tiles]
        through = find_items(asked, tiles)
    # not the fingerprints: these items bring no checksum, and a size is known only of files on this machine
    assert [(one.collection, one.item_id) for one in through.items] == [
        (one.collection, one.item_id) for one in direct.items
    ]
    assert config_fingerprint(asked) == config_fingerprint(region)
    dates = {item.datetime.date().isoformat() for item in direct.items}
    assert {tile.anchor for tile in tiles} <= dates
