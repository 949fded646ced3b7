"""Chips for people: xarray knows time, band, place and CRS; a picture shows what the numbers say."""

import builtins
import io
import json

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import xarray as xr
from odc.geo.xr import spatial_dims
from tests import dataset_world as dw

from chipmill.core.errors import BadInputError, SplitMismatchError
from chipmill.core.tables import CHIPS, RANKING, read_table, write_table
from chipmill.dataset.reader import open_dataset
from chipmill.dataset.records import Sample
from chipmill.dataset.union import dataset_schema
from chipmill.exchange.imported import write_dataset
from chipmill.exchange.imported_facts import ImportedBand, ImportedChip, ImportFacts


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A committed dataset: two slots of red, nir, ndvi in int16, chips of 32 px."""
    return open_dataset(
        dw.committed(tmp_path_factory.getbasetemp() / "dataset", tmp_path_factory.mktemp("views")).path
    )


def test_a_chip_has_time_band_y_x_and_its_values(dataset):
    sample, found = dataset[5], dataset.to_xarray(5)
    assert found.image.dims == ("time", "band", "y", "x")
    assert found.image.shape == (2, 3, 32, 32)
    assert found.image.dtype == np.int16
    assert found.band.values.tolist() == ["red", "nir", "ndvi"]
    assert found.slot.values.tolist() == ["p1", "p2"]
    for slot in range(2):
        for band in range(3):
            np.testing.assert_array_equal(found.image[slot, band], sample.image[..., 3 * slot + band])
    np.testing.assert_array_equal(found.label, sample.label)
    assert found.chip_id == sample.chip_id
    starts = [one.intervals[0][0][:10] for one in dataset.manifest.slots]
    assert found.time.dt.strftime("%Y-%m-%d").values.tolist() == starts
    assert found.time_end.values[0] == found.time.values[1]


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # odc-geo's own
def test_the_place_is_what_gdal_and_odc_make_of_it(dataset):
    sample, found = dataset[5], dataset.to_xarray(5)
    assert spatial_dims(found.image) == ("y", "x")
    box = found.image.odc.geobox
    assert (f"EPSG:{box.crs.epsg}", tuple(box.transform)[:6]) == (sample.crs, sample.transform)
    assert box.shape == (32, 32)
    a, _, c, _, e, f = sample.transform
    assert (float(found.x[0]), float(found.y[0])) == (c + a / 2, f + e / 2)
    numbers = [float(one) for one in found.spatial_ref.attrs["GeoTransform"].split()]
    assert rasterio.Affine.from_gdal(*numbers) == rasterio.Affine(*sample.transform)


def test_decoding_and_scaling_agree(dataset):
    decoded = xr.decode_cf(dataset.to_xarray(3))
    scaled = dataset.to_xarray(3, scaled=True)
    raw = dataset[3].image
    assert scaled.image.dtype == np.float32
    assert np.isnan(scaled.image).sum() == (raw == -32768).sum() > 0
    np.testing.assert_allclose(decoded.image, scaled.image, rtol=1e-6)
    np.testing.assert_allclose(scaled.image.sel(band="nir")[1], np.where(raw[..., 4] == -32768, np.nan, raw[..., 4] * 1e-4), rtol=1e-6)  # fmt: skip


def test_several_chips_have_a_dimension_of_their_own(dataset):
    some = dataset.split("val")[2:6]
    found = some.to_xarray()
    assert found.image.dims == ("chip", "time", "band", "y", "x")
    assert found.chip.values.tolist() == list(some.chip_ids)
    for place, sample in enumerate(some):
        own = some.to_xarray(place)
        np.testing.assert_array_equal(found.image[place], own.image)
        np.testing.assert_array_equal(found.label[place], sample.label)
        np.testing.assert_array_equal(found.x_centre[place], own.x)
        np.testing.assert_array_equal(found.y_centre[place], own.y)
    assert found.spatial_ref.attrs["crs_wkt"] == own.spatial_ref.attrs["crs_wkt"]
    assert "GeoTransform" not in found.spatial_ref.attrs
    assert some.to_xarray(slice(1, 3)).chip.values.tolist() == list(some.chip_ids[1:3])


def test_a_chip_beyond_the_end_and_no_chip_are_said(dataset):
    with pytest.raises(IndexError):
        dataset.to_xarray(len(dataset))
    for empty in (dataset[:0].to_xarray, dataset[:0].plot):
        with pytest.raises(BadInputError, match="there is no chip to show"):
            empty()


def test_slots_that_differ_from_tile_to_tile_have_the_times_of_the_chips_own_tile(tmp_path_factory, tmp_path):
    """Tiles of other years: the manifest lists both intervals of a slot, the ranking says whose is whose."""
    root = dw.committed(tmp_path_factory.getbasetemp() / "dataset", tmp_path).path
    table = read_table(root / "chips.parquet", CHIPS)
    tile_of = dict(zip(table["chip_id"].to_pylist(), table["tile_id"].to_pylist(), strict=True))
    late = tile_of[open_dataset(root).chip_ids[0]]
    rows = read_table(root / "ranking.parquet", RANKING).to_pylist()
    for row in rows:
        for name in ("slot_start", "slot_end"):
            row[name] = row[name].replace(year=row[name].year + 1) if row["tile_id"] == late else row[name]
    write_table(root / "ranking.parquet", pa.Table.from_pylist(rows, schema=RANKING), RANKING, "f")
    facts = json.loads((root / "dataset.json").read_text())
    for slot in facts["slots"]:
        slot["intervals"].append(["2020-01-01T00:00:00+00:00", "2020-07-01T00:00:00+00:00"])
    (root / "dataset.json").write_text(json.dumps(facts))
    dataset = open_dataset(root)
    other = next(place for place, name in enumerate(dataset.chip_ids) if tile_of[name] != late)
    years = [dataset.to_xarray(place).time.dt.year.values.tolist() for place in (0, other)]
    assert years == [[2020, 2020], [2019, 2019]]
    both = dataset.to_xarray(slice(0, other + 1, other))
    assert "time" not in both.coords
    assert both.time_start.dt.year.values.tolist() == years


def drawn(figure):
    stream = io.BytesIO(figure._repr_png_())
    with rasterio.MemoryFile(stream.read()) as memory, memory.open(driver="PNG") as source:
        return source.read()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_plot_shows_images_and_labels_with_their_classes(dataset):
    figure = dataset.plot(3, ["p2_nir", "p2_red", "p1_nir"])
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 6
    places = [0, round((len(dataset) - 1) / 2), len(dataset) - 1]
    for pair, place in zip(zip(shown[::2], shown[1::2], strict=True), places, strict=True):
        image, label = (axis.images[0].get_array() for axis in pair)
        sample = dataset[place]
        assert pair[0].get_title(loc="left") == sample.chip_id
        valid = (sample.image[..., [4, 3, 1]] != -32768).all(axis=-1)
        np.testing.assert_array_equal(image[..., 3] > 0, valid)
        nir = sample.image[..., 4][valid]
        assert image[..., 0][valid][nir.argmax()] == 1
        assert image[..., 0][valid][nir.argmin()] == 0
        np.testing.assert_array_equal(label[..., 3] == 0, sample.label == 255)
        for one in dataset.manifest.classes:
            colors = label[sample.label == one.code][:, :3]
            assert (colors == list(bytes.fromhex(one.color[1:]))).all()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [one.name for one in dataset.manifest.classes]
    assert drawn(figure).std() > 10


def test_without_bands_a_plot_takes_what_there_is(dataset):
    figure = dataset.plot(1)
    assert "p1_red, p1_nir, p1_ndvi" in figure.get_suptitle()


@pytest.mark.parametrize("bands", [["p1_red", "p1_nir"], ["red"], []])
def test_other_bands_are_refused(dataset, bands):
    with pytest.raises(BadInputError, match="plot shows one band or three of p1_red, p1_nir"):
        dataset.plot(1, bands)


def test_without_matplotlib_one_sentence_says_what_to_install(dataset, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BadInputError, match=r"install chipmill\[notebook\]"):
        dataset.plot(1)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A sealed series of two slots, and elevation beside them."""
    folder = tmp_path_factory.mktemp("series")
    area = dw.stack_world.place(3, 3)
    values = np.arange(area.height * area.width, dtype=np.int16).reshape(area.height, area.width) % 3000
    dw.stack_world.save_raster(folder / "dem.tif", values, area)
    static = [{"name": "elevation", "path": "dem.tif", "resampling": "nearest"}]
    chain = dw.planned(folder, 3, 3, static=static, dataset=dw.DATASET | {"layout": "series"})
    chain.write_shards()
    chain.seal()
    return open_dataset(chain.plan.attempt)


def test_a_series_keeps_static_bands_apart(series):
    sample, found = series[4], series.to_xarray(4, scaled=False)
    assert found.image.dims == ("time", "band", "y", "x")
    np.testing.assert_array_equal(found.image, np.moveaxis(sample.image, -1, 1))
    assert found.band.values.tolist() == ["red", "nir", "ndvi"]
    assert found.static.values.tolist() == ["elevation"]
    np.testing.assert_array_equal(found.static_image[0], sample.static[..., 0])
    assert series.to_xarray(slice(2)).static_image.dims == ("chip", "static", "y", "x")
    assert "elevation" in series.plot(1, ["elevation"]).get_suptitle()


def test_imported_chips_without_a_place_have_neither_crs_nor_nodata(tmp_path):
    rng = np.random.default_rng(2)
    bands = (ImportedBand("red", "uint8"), ImportedBand("nir", "uint8"))
    facts = ImportFacts("old", "test", bands, (("a", "#102030", ()), ("b", "#a0b0c0", ())), ())
    samples = [
        Sample(
            rng.integers(0, 255, (16, 16, 2)).astype(np.uint8), rng.integers(0, 2, (16, 16)).astype(np.uint8),
            f"old-{number}", "2020-06-01", "", (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
        )
        for number in range(4)
    ]  # fmt: skip
    write_dataset(tmp_path / "old", [ImportedChip(one, "train", one.chip_id, one.chip_id) for one in samples], facts)  # fmt: skip
    dataset = open_dataset(tmp_path / "old")
    found = dataset.to_xarray(2)
    assert "spatial_ref" not in found.coords
    assert "_FillValue" not in found.image.attrs
    np.testing.assert_array_equal(found.image[0], np.moveaxis(samples[2].image, -1, 0))
    assert str(found.time.values[0])[:10] == "2020-06-01"
    assert dataset.to_xarray(scaled=True).image.notnull().all()
    assert dataset_schema(tmp_path / "old").resolution_m == 0
    assert len(dataset.plot(4).axes) == 8
    with pytest.raises(SplitMismatchError, match="chip old-0 and 3 others are in"):
        open_dataset([tmp_path / "old", tmp_path / "old"])
