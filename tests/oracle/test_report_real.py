"""The quicklooks of the real series show what was used and what was not, pixels and masks as the files have them.

What an eye sees on them: Boadella is right in all half-years, 2021-06-26 with haze in the west. Mol is right with the
shipped filter; without it 2022-12-06 and 2022-12-16 stand there white beside masks that call them clear. Antwerp is right
with its filter; without it October uses 2023-10-22, patchy thin cloud with coloured fringes under a mask that is all
clear, and not 2023-10-07, which is clear to the eye where its mask drops houses and forest.
"""

import base64

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile
from tests.oracle.test_real_series import by_month, shipped

from chipmill.core.units import load_batches
from chipmill.imagery.catalog import search_items
from chipmill.imagery.planning import tile_aoi
from chipmill.imagery.ranking import close_ranking, rank_items
from chipmill.report.acquisitions import acquisition_section
from chipmill.report.images import rgb
from chipmill.report.quicklooks import CLEAR, DROPPED

pytestmark = pytest.mark.real


@pytest.fixture
def galleries(shared_data, tmp_path):
    """Name of a shipped region -> its galleries by month: title, and the pictures by their date."""

    def make(name, **changes):
        region = by_month(shipped(name, tmp_path))
        region = region.model_copy(update={"imagery": (region.imagery[0].model_copy(update=changes),)})
        plan = tile_aoi(region)
        items = search_items(plan)
        for batch in load_batches(plan.attempt, "rank_items"):
            assert not rank_items(plan, items, batch).failed
        close_ranking(plan, items)
        section = acquisition_section(plan.version, region, region)
        assert not [block for block in section.blocks if block.kind == "text" and block.tone == "bad"]
        return [
            (block.title, {picture.caption[:10]: picture for (picture,) in block.groups})
            for block in section.blocks
            if block.kind == "gallery"
        ]

    return make


def rgba(picture):
    with MemoryFile(base64.b64decode(picture.uri.partition(",")[2])) as memory, memory.open() as source:
        return np.moveaxis(source.read(), 0, -1)


def test_mol_shows_its_three_clear_months_and_a_december_without_any(galleries):
    found = galleries("mol")
    assert [title.rpartition("; ")[2] for title, _ in found] == [
        "1 of 5 acquisitions used",
        "0 of 3 acquisitions used",
        "1 of 4 acquisitions used",
        "1 of 5 acquisitions used",
    ]
    used = [day for _, shown in found for day, picture in shown.items() if picture.caption.endswith("; used")]
    assert used == ["2022-11-11", "2023-01-16", "2023-02-11"]
    assert not {"2022-12-06", "2022-12-11", "2022-12-16"} & {day for _, shown in found for day in shown}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_mask_of_the_refused_date_of_antwerp_is_that_of_its_file(galleries, shared_data):
    (_, october), *_ = galleries("antwerp", filter=None)
    assert list(october) == ["2023-10-22", "2023-10-07", "2023-10-12", "2023-10-17"]
    assert "41.0 % clear by its mask; not used: clear 0.4102 below 0.9" in october["2023-10-07"].caption
    pixels = rgba(october["2023-10-07"])
    with rasterio.open(shared_data / "catalog/antwerp-s2-l2a/S2_ANTWERP_20231007/scl.tif") as source:
        classes = source.read(1)
    dropped = np.isin(classes, (1, 3, 8, 9, 10))
    mask = pixels[:, -classes.shape[1] :]
    np.testing.assert_array_equal((mask == (*rgb(DROPPED), 255)).all(axis=-1), dropped)
    np.testing.assert_array_equal((mask == (*rgb(CLEAR), 255)).all(axis=-1), ~dropped & (classes != 0))
    assert 0.3 < dropped.mean() < 0.8
    assert (pixels[:, : classes.shape[1], 3] == 255).all()
