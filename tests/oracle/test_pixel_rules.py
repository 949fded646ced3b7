"""Pixels by rule, from files to composites: quality bits, probabilities, nearest date, geomedian, radar, two collections."""

import datetime as dt
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests import imagery_world as iw

from chipmill.core.errors import TilesFailedError
from chipmill.core.store import fingerprint, read_sidecar
from chipmill.core.tables import RANKING, read_table
from chipmill.imagery.geomedian import geomedian
from chipmill.imagery.kernels import conversion
from chipmill.imagery.nearest import nearness, reference_day, refusal
from chipmill.imagery.negatives import Negatives
from chipmill.imagery.orders import STAGE_VERSION, Order, composite_path
from chipmill.imagery.reading import Grid
from chipmill.imagery.reducers import reduce_bands
from chipmill.imagery.strips import Strip
from chipmill.region.grid import Window
from chipmill.region.imagery import Nearest
from chipmill.region.slots import TimeRange

SHAPE = (iw.SIDE, iw.SIDE)
DATES = ("2019-02-01", "2019-05-20", "2019-08-02")
ALL_CLEAR = {"threshold": 0.0, "floor": 0.0}


def numbers(seed, low=1, high=6000, dtype=np.uint16):
    return np.random.default_rng(seed).integers(low, high, SHAPE).astype(dtype)


def archive(folder, masks, *, mask_dtype=np.uint16, mask_nodata=None, bands=("red", "nir"), **properties):
    """Scenes of random bands on DATES; the masks go into an asset of their own, qa."""
    made = iw.Archive(folder)
    made.bands = []
    for number, (when, mask) in enumerate(zip(DATES, masks, strict=False)):
        pixels = {name: numbers(10 * number + place) for place, name in enumerate(bands)}
        item = made.scene(when, pixels, **properties)
        if mask is not None:
            iw.save(made.folder / item["id"] / "qa.tif", mask.astype(mask_dtype), nodata=mask_nodata)
            item["assets"]["qa"] = {"href": "./qa.tif"}
        made.bands.append(pixels)
    made.path = made.write()
    return made


def composite(tmp_path, made, indices=(), **imagery):
    """Return (bands of the composite, rows of the ranking, its sidecar's notes)."""
    config = iw.region(
        tmp_path, {"catalog": str(made.path)}, imagery={"clear": ALL_CLEAR} | imagery, indices=indices
    )
    _, rows, path, failed = iw.run(config)
    assert not failed
    return iw.read(path), rows, read_sidecar(path).extra


def masked_median(stack, clear):
    held = np.ma.masked_array(np.stack(stack).astype(float), ~np.stack(clear))
    return np.rint(np.ma.median(held, axis=0).filled(-32768)).astype(np.int16)


# --- masks


def test_quality_bits_mask_a_landsat_composite(tmp_path):
    # clear, water, dilated cloud, high confidence cloud, shadow, cirrus, snow, fill: values of the product guide
    published = np.array([21824, 21888, 21826, 22280, 23888, 54596, 30048, 1])
    masks = [published[np.random.default_rng(seed).integers(0, 8, SHAPE)] for seed in range(3)]
    made = archive(tmp_path / "a", masks)
    bands, rows, _ = composite(tmp_path, made, mask={"asset": "qa", "qa": "landsat-c2"})
    clear = [np.isin(mask, (21824, 21888, 30048)) for mask in masks]
    for name in ("red", "nir"):
        np.testing.assert_array_equal(bands[name], masked_median([one[name] for one in made.bands], clear))
    np.testing.assert_array_equal(bands["valid_count"], np.sum(clear, axis=0))
    np.testing.assert_array_equal(bands["observed_count"], np.sum([mask != 1 for mask in masks], axis=0))
    found = {row["datetime"].date().isoformat(): row["clear_fraction"] for row in rows}
    cover = np.s_[2:-2, 2:-2]  # of the AOI
    for when, one in zip(DATES, clear, strict=True):
        assert found[when] == pytest.approx(one[cover].mean(), abs=0.02)
    # Shadow over water is kept when it is asked for so.
    kept, _, _ = composite(tmp_path, made, mask={"asset": "qa", "qa": "landsat-c2: cloud or cirrus"})
    assert kept["valid_count"].sum() > bands["valid_count"].sum()


def test_a_probability_masks_and_grows(tmp_path):
    made = archive(tmp_path / "a", [np.zeros(SHAPE)], mask_dtype=np.uint8)
    probability = np.zeros(SHAPE, np.uint8)
    probability[20, 20], probability[40, 40], probability[5, 5] = 41, 40, 255
    iw.save(made.folder / "s2019-02-01" / "qa.tif", probability)
    mask = {"asset": "qa", "probability": {"above": 0.4}, "nodata": 255, "dilation_px": 2}
    bands, _, _ = composite(tmp_path, made, mask=mask)
    valid = np.ones(SHAPE, bool)
    y, x = np.mgrid[: iw.SIDE, : iw.SIDE]
    valid[(y - 20) ** 2 + (x - 20) ** 2 <= 4] = False
    valid[5, 5] = False
    np.testing.assert_array_equal(bands["valid_count"] == 1, valid)
    assert bands["observed_count"][5, 5] == 0 and bands["observed_count"][20, 20] == 1


def test_bits_that_the_file_does_not_have_fail_the_tile(tmp_path):
    made = archive(tmp_path / "a", [np.zeros(SHAPE)], mask_dtype=np.uint8)
    imagery = {"mask": {"asset": "qa", "qa": "landsat-c2"}, "clear": ALL_CLEAR}
    with pytest.raises(TilesFailedError, match=r"the mask qa has 8 bits, and mask.qa asks for bit 15"):
        iw.run(iw.region(tmp_path, {"catalog": str(made.path)}, imagery=imagery))


def test_a_mask_that_only_ranks_leaves_the_pixels_alone(tmp_path):
    masks = [np.full(SHAPE, share, np.uint8) for share in (90, 10, 50)]
    made = archive(tmp_path / "a", masks, mask_dtype=np.uint8)
    masks[1][:32] = 100
    iw.save(made.folder / f"s{DATES[1]}" / "qa.tif", masks[1])
    mask = {"asset": "qa", "probability": {"above": 0.4}, "use": "rank"}
    bands, rows, _ = composite(tmp_path, made, mask=mask, reduce="least-cloudy")
    assert [row["evidence"] for row in rows] == ["mask"] * 3
    assert rows[0]["datetime"].date() == day(DATES[1]) and rows[0]["clear_fraction"] == pytest.approx(
        0.5, abs=0.02
    )
    np.testing.assert_array_equal(bands["red"], made.bands[1]["red"])  # its cloudy half too
    unmasked, _, _ = composite(tmp_path, made, mask=None, reduce="first-valid")
    np.testing.assert_array_equal(unmasked["red"], made.bands[0]["red"])


# --- nearest


def day(text):
    return dt.date.fromisoformat(text)


def test_the_wanted_day_is_given_or_the_labels_or_the_middle_of_the_slot():
    slot = TimeRange(iw.day("2019-01-01"), iw.day("2019-01-31"))
    label = TimeRange(iw.day("2019-03-05"), iw.day("2019-03-06"))
    assert reference_day(Nearest(reference=day("2018-07-01")), label, slot) == day("2018-07-01")
    assert reference_day(Nearest(), label, slot) == reference_day(None, label, slot) == day("2019-03-05")
    assert reference_day(None, None, slot) == day("2019-01-16")
    assert reference_day(None, None, TimeRange(iw.day("2019-01-01"), iw.day("2019-01-02"))) == day(
        "2019-01-01"
    )


def test_order_of_nearness_counts_days_and_takes_the_earlier_of_two():
    instants = [
        "2019-05-10T23:59",
        "2019-05-16T00:01",
        "2019-05-13T12:00",
        "2019-05-13T01:00",
        "2019-05-12T00:00",
    ]
    keys = sorted(
        nearness(day("2019-05-13"), iw.day(text), f"{place}") for place, text in enumerate(instants)
    )
    assert [key[2] for key in keys] == ["2", "3", "4", "0", "1"]


def test_dates_that_may_not_be_used_are_half_open():
    limits = Nearest(min_date=day("2019-02-01"), max_date=day("2019-05-20"))
    assert refusal(None, iw.day("2000-01-01")) == refusal(limits, iw.day("2019-02-01")) == ""
    assert refusal(limits, iw.day("2019-05-19T23:59")) == ""
    assert refusal(limits, iw.day("2019-01-31T23:59")) == "2019-01-31 lies before nearest.min_date 2019-02-01"
    assert (
        refusal(limits, iw.day("2019-05-20")) == "2019-05-20 does not lie before nearest.max_date 2019-05-20"
    )
    with pytest.raises(ValueError, match="min_date 2019-05-20 must lie before max_date 2019-05-20"):
        Nearest(min_date=day("2019-05-20"), max_date=day("2019-05-20"))


@pytest.mark.parametrize(
    ("nearest", "order"),
    [
        ({"reference": "2019-07-30"}, (2, 1, 0)),
        ({"reference": "2018-01-01"}, (0, 1, 2)),
        (None, (2, 1, 0)),  # the middle of the year is 2 July: 43 days from May, 31 from August
        ({"min_date": "2019-02-02"}, (2, 1)),
        ({"reference": "2019-07-30", "max_date": "2019-08-02"}, (1, 0)),
    ],
)
def test_each_pixel_is_of_the_nearest_clear_date(tmp_path, nearest, order):
    masks = [np.random.default_rng(seed).integers(0, 2, SHAPE) * 8 for seed in range(3)]
    made = archive(tmp_path / "a", masks)
    bands, rows, noted = composite(
        tmp_path, made, mask={"asset": "qa", "qa": "bit(3)"}, reduce="nearest", nearest=nearest
    )
    expected = np.full(SHAPE, -32768, np.int16)
    for place in reversed(order):
        expected = np.where(masks[place] == 0, made.bands[place]["red"].astype(np.int16), expected)
    np.testing.assert_array_equal(bands["red"], expected)
    assert [name.rsplit("/", 1)[-1] for name in noted["acquisitions"]] == [DATES[place] for place in order]
    refused = [row for row in rows if "nearest." in row["reason"]]
    assert len(rows) == 3 and len(refused) == 3 - len(order)
    assert all(not row["chosen"] and row["clear_fraction"] is None for row in refused)


def test_nearest_is_only_for_its_reducer():
    with pytest.raises(ValueError, match="reduce is median: set reduce to nearest"):
        iw.region(Path("x"), {"catalog": "c"}, imagery={"nearest": {"reference": "2019-01-01"}})


# --- geomedian


def test_a_geomedian_composite_is_the_kernel_over_masked_spectra(tmp_path):
    masks = [np.random.default_rng(seed).integers(0, 2, SHAPE) * 8 for seed in range(3)]
    made = archive(tmp_path / "a", masks)
    bands, _, _ = composite(tmp_path, made, mask={"asset": "qa", "qa": "bit(3)"}, reduce="geomedian")
    points = np.stack([[one[name] for one in made.bands] for name in ("red", "nir")]).astype(float)
    valid = np.stack(masks) == 0
    found = geomedian(points.reshape(2, 3, -1), valid.reshape(3, -1)).reshape(2, *SHAPE)
    for name, spectrum in zip(("red", "nir"), found, strict=True):
        expected = np.where(valid.any(axis=0), np.rint(spectrum), -32768).astype(np.int16)
        np.testing.assert_array_equal(bands[name], expected)


# --- radar


def radar(folder, scenes, nodata=np.nan):
    """Scenes (vv, vh) without scale, as Sentinel-1 RTC has them."""
    made = iw.Archive(folder)
    for when, pixels in zip(DATES, scenes, strict=False):
        item = made.scene(when, pixels, nodata=nodata)
        for one in item["assets"].values():
            del one["raster:bands"]
    made.path = made.write()
    return made


RADAR = {"name": "s1", "bands": {"vv": "vv", "vh": "vh"}, "mask": None, "reduce": "mean"}


def test_float_radar_without_scale_is_power_as_it_stands(tmp_path):
    scenes = []
    for seed in range(3):
        random = np.random.default_rng(seed)
        scenes.append({name: random.gamma(4, 0.02, SHAPE).astype(np.float32) for name in ("vv", "vh")})
        scenes[-1]["vv"][seed, :] = np.nan
    bands, rows, _ = composite(tmp_path, radar(tmp_path / "a", scenes), **RADAR, unit="linear")
    valid = [np.isfinite(one["vv"]) for one in scenes]
    for name in ("vv", "vh"):
        held = np.ma.masked_array(
            np.stack([one[name] for one in scenes]).astype(np.float64), ~np.stack(valid)
        )
        expected = np.rint(held.mean(axis=0) * 1e4)
        assert np.abs(bands[name] - expected).max() <= 1  # almost-halves
        assert (bands[name] == expected).mean() > 0.99
        assert bands[name].max() > 300  # and not rint(0.05)
    assert {row["evidence"] for row in rows} == {"none"} and all(row["chosen"] for row in rows)


@pytest.mark.parametrize("reduce", ["mean", "median", "geomedian", "first-valid"])
def test_decibels_are_reduced_as_power(tmp_path, reduce):
    scenes = [
        {name: np.random.default_rng(seed * 2 + place).normal(-13, 4, SHAPE).astype(np.float32)
         for place, name in enumerate(("vv", "vh"))}
        for seed in range(2)
    ]  # fmt: skip
    imagery = RADAR | {"reduce": reduce, "unit": "db", "out": {"scale": 0.01}}
    bands, _, _ = composite(tmp_path, radar(tmp_path / "a", scenes), indices=["dprvivv"], **imagery)
    vv, vh = 10 ** (bands["vv"] / 1000), 10 ** (bands["vh"] / 1000)  # an index is of power
    np.testing.assert_array_equal(bands["dprvivv"], np.rint(4 * vh / (vv + vh) * 100))
    for name in ("vv", "vh"):
        decibels = np.stack([one[name] for one in scenes]).astype(np.float64)
        # Of two values mean, median and geomedian are the same.
        expected = (
            decibels[0] if reduce == "first-valid" else 10 * np.log10((10 ** (decibels / 10)).mean(axis=0))
        )
        assert np.abs(bands[name] / 100 - expected).max() <= 0.00501
    if reduce == "mean":
        assert (bands["vv"] / 100 - np.stack([one["vv"] for one in scenes]).mean(axis=0)).mean() > 0.3


def test_decibels_need_room_in_the_stored_type():
    with pytest.raises(
        ValueError, match=r"out holds -3.277 to 3.277, and decibels of radar lie in -50 to 20"
    ):
        iw.region(Path("x"), {"catalog": "c"}, imagery=RADAR | {"unit": "db"})


# --- several collections in one region


def test_two_collections_keep_their_masks_dates_bands_and_empty_slots(tmp_path):
    masks = [np.random.default_rng(seed).integers(0, 2, SHAPE) * 8 for seed in range(3)]
    optical = archive(tmp_path / "optical", masks)
    power = [{name: np.full(SHAPE, value, np.float32) for name, value in (("vv", 0.2), ("vh", 0.05))}]
    spring = radar(tmp_path / "radar", power)
    s2 = {"name": "s2", "source": {"catalog": str(optical.path)}, "bands": {"red": "red", "nir": "nir"},
          "mask": {"asset": "qa", "qa": "bit(3)"}, "clear": ALL_CLEAR}  # fmt: skip
    s1 = RADAR | {"source": {"catalog": str(spring.path)}, "clear": ALL_CLEAR, "empty": "fill"}
    time = {"range": ("2019-01-01", "2020-01-01"), "slots": {"n": 2}}
    config = iw.region(tmp_path, {"catalog": "unused"}, time=time, indices=["ndvi", "vhvvr"])
    config = type(config).model_validate(config.model_dump(by_alias=True) | {"imagery": [s1, s2]})
    made, rows, _, failed = iw.run(config)
    assert not failed
    table = read_table(made.version.ranking, RANKING)
    (tile,) = made.tiles()

    def bands(imagery, slot):
        return iw.read(composite_path(made, table, tile, imagery, slot))

    half1, half2 = made.slots(tile)
    radar_, optical_ = made.region.imagery
    assert [(row["imagery"], row["slot"]) for row in rows] == [
        ("s1", "p1"), ("s2", "p1"), ("s2", "p1"), ("s2", "p2")
    ]  # fmt: skip
    first, second = bands(radar_, half1), bands(optical_, half1)
    assert list(first) == ["vv", "vh", "vhvvr", "valid_count", "observed_count"]
    assert list(second) == ["red", "nir", "ndvi", "valid_count", "observed_count"]
    assert (first["vv"] == 2000).all() and (first["vh"] == 500).all() and (first["vhvvr"] == 2500).all()
    clear = [mask == 0 for mask in masks]
    for name in ("red", "nir"):
        np.testing.assert_array_equal(
            second[name], masked_median([one[name] for one in optical.bands[:2]], clear[:2])
        )
    assert (bands(radar_, half2)["vv"] == -32768).all() and not bands(radar_, half2)["observed_count"].any()
    np.testing.assert_array_equal(
        bands(optical_, half2)["red"], masked_median([optical.bands[2]["red"]], clear[2:])
    )


# --- the offset


def offset_archive(folder):
    """Three dates of dark ground, a bright pixel here and there; the second is declared with an offset by mistake."""
    made = iw.Archive(folder)
    made.values = []
    for number, when in enumerate(DATES):
        values = numbers(number, 300, 900)
        values[::7, ::5] = 4000
        values[: 16 * number] = 0  # nodata, which an offset makes negative too
        item = made.scene(when, {"red": values, "nir": np.where(values, values + 2500, 0).astype(np.uint16)})
        made.values.append(values)
        if number == 1:
            for one in item["assets"].values():
                one["raster:bands"] = [{"scale": 1e-4, "offset": -0.1}]
    made.path = made.write()
    return made


def checked(tmp_path, made, check):
    imagery = {"mask": None, "offset_check": check}
    return composite(tmp_path, made, **imagery)


def test_a_doubled_offset_is_noted_or_left_out_or_stops(tmp_path):
    made = offset_archive(tmp_path / "a")
    stack = np.ma.masked_equal(np.stack(made.values).astype(np.int32), 0)
    stack[1] -= 1000
    bands, _, noted = checked(tmp_path, made, "warn")
    np.testing.assert_array_equal(bands["red"], np.rint(np.ma.median(stack, axis=0)))
    name = f"toy/sat-1/{DATES[1]}"
    share = (stack[1][::4, ::4].compressed() < 0).mean()
    assert 0.8 < share < 1
    assert noted["negative_fraction"] == {name: {"red": round(share, 4), "nir": 0.0}}
    assert noted["offset_doubtful"] == {name: pytest.approx(share / 2, abs=1e-4)}
    bands, _, noted = checked(tmp_path, made, "exclude")
    np.testing.assert_array_equal(bands["red"], np.rint(np.ma.median(stack[[0, 2]], axis=0)))
    assert noted["acquisitions"] == [f"toy/sat-1/{DATES[0]}", f"toy/sat-1/{DATES[2]}"]
    assert list(noted["offset_doubtful"]) == [name]
    *_, failed = iw.run(
        iw.region(tmp_path, {"catalog": str(made.path)}, imagery={"mask": None, "offset_check": "stop"})
    )
    assert len(failed) == 1
    assert f"of the pixels of {name} are negative after the offset" in failed[0].reason


def test_the_share_does_not_depend_on_how_the_tile_is_cut(tmp_path, monkeypatch):
    made = offset_archive(tmp_path / "a")
    _, _, whole = checked(tmp_path / "1", made, "warn")
    monkeypatch.setattr("chipmill.imagery.strips.BUDGET_BYTES", 1)
    _, _, cut = checked(tmp_path / "2", made, "warn")
    assert whole["negative_fraction"] == cut["negative_fraction"]


def test_an_acquisition_without_a_valid_pixel_has_no_share():
    asset = iw.asset(offset=-0.1)
    seen, unseen = (
        SimpleNamespace(acquisition_id=name, items=[SimpleNamespace(assets={"red": asset})]) for name in "ab"
    )
    negatives = Negatives([seen, unseen], ["red"])
    valid = np.stack([np.ones((8, 8), bool), np.zeros((8, 8), bool)])
    none = np.zeros((8, 8), np.int16)
    strip = Strip({"red": np.full((2, 8, 8), 900, np.uint16)}, valid, none, none)
    negatives.add(Window(0, 0, 8, 8), strip, {"red": conversion(1e-4, -0.1, 1e-4, "int16", -32768)})
    assert negatives.fractions() == {"a": {"red": 1.0}}
    assert negatives.doubtful() == {"a": 1.0}


def test_an_offset_that_is_right_is_not_doubted(tmp_path):
    made = iw.Archive(tmp_path / "a")
    values = numbers(1, 1000, 1900)
    item = made.scene(DATES[0], {"red": values, "nir": values})
    for one in item["assets"].values():
        one["raster:bands"] = [{"scale": 1e-4, "offset": -0.1}]
    made.path = made.write()
    _, _, noted = checked(tmp_path, made, "stop")
    assert noted["negative_fraction"] == {f"toy/sat-1/{DATES[0]}": {"red": 0.0, "nir": 0.0}}
    assert "offset_doubtful" not in noted


@pytest.mark.real
@pytest.mark.parametrize("override", [-0.1, 0.0])
def test_real_dark_ground_tells_a_doubled_offset(shared_data, tmp_path, override):
    imagery = {
        "source": {"catalog": str(shared_data / "catalog" / "catalog.json"), "collection": "boadella-s2-l2a"},
        "bands": {"blue": "blue", "red": "red", "nir": "nir"},
        "offset_override": override,
        "clear": {"threshold": 0.6, "floor": 0.6},
    }
    where = {
        "aoi": {"bbox": [2.81, 42.345, 2.82, 42.355], "rule": "intersects"},
        "grid": {"crs": "EPSG:32631", "tile_px": 512},
    }
    time = {"range": ("2020-01-01", "2022-01-01"), "slots": {"n": 1}}
    made, rows, path, failed = iw.run(
        iw.region(tmp_path, {"catalog": "x"}, imagery=imagery, time=time, **where)
    )
    assert not failed
    noted = read_sidecar(path).extra
    chosen = {
        row["acquisition"] for row in rows if row["chosen"] and row["tile_id"] == made.tiles()[0].tile_id
    }
    assert len(chosen) > 6
    if override:
        assert set(noted["offset_doubtful"]) == set(noted["negative_fraction"]) == chosen
        assert min(noted["offset_doubtful"].values()) > 0.5
    else:
        assert "negative_fraction" not in noted  # nothing was taken away, so there is nothing to doubt


def test_orbits_are_chosen_by_a_filter(tmp_path):
    scenes = [{name: np.full(SHAPE, value, np.float32) for name in ("vv", "vh")} for value in (0.1, 0.2, 0.3)]
    made = radar(tmp_path / "a", scenes)
    for item, orbit in zip(made.items, ("ascending", "descending", "ascending"), strict=True):
        item["properties"]["sat:orbit_state"] = orbit
    made.write()
    bands, rows, _ = composite(tmp_path, made, **RADAR, filter="\"sat:orbit_state\" = 'ascending'")
    assert (bands["vv"] == 2000).all() and len(rows) == 2


def test_names_of_composites_stay_until_a_rule_is_used(tmp_path):
    def name(**imagery):
        config = iw.region(tmp_path, {"catalog": "c.json"}, imagery=imagery)
        return Order(config, config.imagery[0], Grid("EPSG:32633", iw.transform(), 64, 64), ()).fingerprint

    config = iw.region(tmp_path, {"catalog": "c.json"})
    (imagery,) = config.imagery
    mask = {"asset": "scl", "drop": [0, 1, 3, 8, 9, 10], "nodata": 0, "dilation_px": 0}
    how = [["red", "nir"], mask, "median", "bilinear", imagery.out, []]
    where = ["EPSG:32633", [float(number).hex() for number in iw.transform()[:6]], 64, 64]
    assert name() == fingerprint(STAGE_VERSION, how, where, [])
    assert name(unit="linear") == name(), "it means nothing for pixels"
    others = [
        {"mask": {"asset": "scl", "qa": "bit(3)"}}, {"mask": {"asset": "scl", "qa": "bit(4)"}},
        {"mask": {"asset": "scl", "probability": {}}}, {"mask": {"asset": "scl", "probability": {"above": 0.5}}},
        {"offset_check": "exclude"}, {"offset_check": "stop"}, {"reduce": "geomedian"}, {"reduce": "nearest"},
        {"unit": "db", "out": {"scale": 0.01}}, {"out": {"scale": 0.01}},
    ]  # fmt: skip
    names = [name(**one) for one in others]
    assert len({*names, name()}) == len(others) + 1


# --- reducers


def test_decibels_beyond_the_type_are_cut_and_counted():
    imagery = iw.region(
        Path("x"), {"catalog": "c"}, imagery=RADAR | {"unit": "db", "out": {"dtype": "int16", "scale": 0.01}}
    ).imagery[0]
    values = {"vv": np.array([[[-13.0, 900.0, -900.0, 5.0]]], np.float32)}
    out = {"vv": np.zeros((1, 4), np.int16)}
    rule = {"vv": conversion(1.0, 0.0, 0.01, "int16", -32768)}
    valid = np.array([[[True, True, True, False]]])
    assert reduce_bands(imagery, values, valid, rule, out) == {"vv": 2}
    assert out["vv"].tolist() == [[-1300, 6623, -32767, -32768]]  # power is held up to 66 dB
