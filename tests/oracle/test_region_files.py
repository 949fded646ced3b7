"""The region files that ship: valid, and the real one finds the same items in the static catalog and through the API."""

from pathlib import Path

import pytest

from chipmill.demo.api import serve
from chipmill.imagery.catalog import find_items
from chipmill.imagery.planning import make_tiles
from chipmill.region.fields import Source
from chipmill.region.identity import config_fingerprint
from chipmill.region.load import load_predict, load_region, load_train

FOLDER = Path(__file__).resolve().parents[2] / "deployments" / "regions"


def test_train_and_predict_files_name_region_files_that_are_there():
    train, predict = (
        load_train(FOLDER / "boadella-train.yaml"),
        load_predict(FOLDER / "boadella-predict.yaml"),
    )
    region = load_region(FOLDER / "boadella.yaml")
    assert [train.resolve(name) for name in train.datasets] == [Path(region.file)]
    assert [predict.resolve(name) for name in predict.regions] == [Path(region.file)]
    assert predict.model == train.name
    assert train.output_dir == predict.output_dir == region.output_dir


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
