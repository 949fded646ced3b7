"""TensorFlow as the judge of the records that we exchange: what it reads of ours, and that we read what it writes."""

import io

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile
from tests import exchange_world as ew

from chipmill.core.errors import AssetMismatchError, BadInputError, DamagedFileError, LabelError
from chipmill.dataset.reader import open_dataset
from chipmill.dataset.verify import verify_dataset
from chipmill.exchange.chips import ImportOptions
from chipmill.exchange.dl_records import import_dl_records
from chipmill.exchange.earthengine import RecordOptions, import_earthengine
from chipmill.exchange.earthengine_out import RasterOptions, export_chips, export_raster
from chipmill.exchange.ee_values import Storing

pytestmark = pytest.mark.tensorflow
OPTIONS = ImportOptions(name="toy", date="2019-06-01", classes={0: "other", 1: "crop"})


@pytest.fixture(scope="module")
def tf():
    tensorflow = pytest.importorskip("tensorflow")
    tensorflow.config.set_visible_devices([], "GPU")
    return tensorflow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return ew.dataset(tmp_path_factory)


def example(tf, **features):
    """Serialise an Example with the lists that the types of the values ask for."""

    def of(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        values = np.ravel(value)
        if values.dtype.kind == "f":
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    made = {name.replace("__", "/"): of(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write(tf, path, records, compression=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type=compression)) as writer:
        for one in records:
            writer.write(one)


@pytest.mark.parametrize(("kind", "compressed"), [("float", True), ("int64", False)])
def test_tensorflow_reads_the_chips_that_we_write_for_earth_engine(tf, dataset, tmp_path, kind, compressed):
    export_chips(dataset.parts[0].root, tmp_path / "ee", kind, compressed=compressed)
    names = [band.name for band in dataset.manifest.bands]
    dtype = tf.float32 if kind == "float" else tf.int64
    spec = {name: tf.io.FixedLenFeature([32, 32], dtype) for name in (*names, "label")}
    files = sorted(map(str, (tmp_path / "ee" / "val").glob("*.tfrecord*")))
    records = list(tf.data.TFRecordDataset(files, compression_type="GZIP" if compressed else ""))
    chips = list(dataset.split("val"))
    assert len(records) == len(chips) > 0
    for record, sample in zip(records, chips, strict=True):
        found = tf.io.parse_single_example(record, spec)
        image = np.stack([found[name].numpy() for name in names], axis=2)
        np.testing.assert_array_equal(image, sample.image)
        np.testing.assert_array_equal(found["label"].numpy(), sample.label)


def test_tensorflow_reads_the_patches_of_a_raster_in_the_order_of_the_files(tf, tmp_path):
    pixels = np.random.default_rng(8).normal(size=(2, 20, 30)).astype(np.float32)
    ew.save(tmp_path / "map.tif", pixels)
    export_raster(tmp_path / "map.tif", tmp_path / "ee", RasterOptions((10, 10), (4, 4), file_bytes=4000))
    files = sorted(map(str, (tmp_path / "ee").glob("*.tfrecord.gz")))
    spec = {name: tf.io.FixedLenFeature([14, 14], tf.float32) for name in ("b1", "b2")}
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2)))
    records = list(tf.data.TFRecordDataset(files, compression_type="GZIP"))
    assert len(records) == 6 and len(files) > 1
    for number, record in enumerate(records):
        row, col = number // 3 * 10, number % 3 * 10
        found = tf.io.parse_single_example(record, spec)
        np.testing.assert_array_equal(found["b2"].numpy(), padded[1, row : row + 14, col : col + 14])


def test_we_read_what_tensorflow_writes_as_earth_engine_does(tf, tmp_path):
    rng = np.random.default_rng(8)
    made = [
        {
            "B4": rng.integers(0, 4000, (9, 9)).astype(np.float32),
            "ndvi": rng.uniform(-1, 1, (9, 9)).astype(np.float32),
            "qa": rng.integers(-5, 1 << 14, (9, 9)),
            "label": rng.integers(0, 2, (9, 9)),
        }
        for _ in range(5)
    ]
    records = [example(tf, **one, id=b"00000000000000000042", longitude=13.5) for one in made]
    write(tf, tmp_path / "in" / "points.tfrecord.gz", records, "GZIP")
    storing = Storing("int16", {"ndvi": 0.0001})
    import_earthengine(tmp_path / "in", tmp_path / "out", OPTIONS, RecordOptions(storing=storing))
    found = open_dataset(tmp_path / "out")
    assert [band.name for band in found.manifest.bands] == ["b4", "ndvi", "qa"]
    for sample, one in zip(found, made, strict=True):
        np.testing.assert_array_equal(sample.image[..., 0], one["B4"])
        np.testing.assert_array_equal(sample.image[..., 1], np.rint(one["ndvi"].astype(float) / 0.0001))
        np.testing.assert_array_equal(sample.image[..., 2], one["qa"])
        np.testing.assert_array_equal(sample.label, one["label"])
    ((image, label),) = found.to_tf("train", 5)
    np.testing.assert_array_equal(image.numpy(), np.stack([sample.image for sample in found]))
    np.testing.assert_array_equal(label.numpy(), np.stack([sample.label for sample in found]))


def dl_record(tf, image, target, identifier, shape=None):
    """A record as convert_to_example of dl_image_segmentation makes it; ``shape`` is that of encoded pictures."""
    rows, cols, bands = shape or image.shape
    as_bytes = isinstance(image, bytes) or (image.dtype == np.uint8 and target.dtype == np.uint8)

    def data(value):
        if isinstance(value, bytes):
            return value
        return value.tobytes() if as_bytes else value.astype(np.float32)

    return example(
        tf, image__image_data=data(image), image__height=rows, image__width=cols, image__channels=bands,
        target__target_data=data(target), target__height=rows, target__width=cols, identifier=identifier.encode(),
    )  # fmt: skip


def encoded(pixels, driver):
    bands, rows, cols = pixels.shape
    where = rasterio.Affine(2, 0, 0, 0, -2, 0)
    with MemoryFile() as memory:
        with memory.open(
            driver=driver, count=bands, height=rows, width=cols, dtype=pixels.dtype, transform=where
        ) as file:
            file.write(pixels)
        return io.BytesIO(memory.getbuffer()).getvalue()


def pictures(dtype, count=5):
    rng = np.random.default_rng(8)
    image = rng.integers(0, 200, (count, 12, 12, 3), dtype=np.uint8).astype(dtype) * (
        300 if dtype != np.uint8 else 1
    )
    return image, rng.choice(np.array([0, 1, 255], np.uint8), (count, 12, 12))


def place(number):
    return f"chip_{number}.tif|[{500000.0 + number * 120}, 10.0, 0.0, 5100000.0, 0.0, -10.0]|EPSG:32633"


@pytest.mark.parametrize("form", ["bytes", "png", "tiff", "uint16 floats"])
def test_records_of_dl_image_segmentation_are_read(tf, tmp_path, form):
    dtype = np.uint16 if form in ("uint16 floats", "tiff") else np.uint8
    images, targets = pictures(dtype)
    records = []
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):
        given = image, target
        if form in ("png", "tiff"):
            driver = {"png": "PNG", "tiff": "GTiff"}[form]
            given = encoded(np.moveaxis(image, 2, 0), driver), encoded(target[np.newaxis], driver)
        records.append(dl_record(tf, *given, place(number), image.shape))
    # two shards, named without an ending, as many records as fell to each
    write(tf, tmp_path / "in" / "toy-00000-of-00002", records[:2])
    write(tf, tmp_path / "in" / "toy-00001-of-00002", records[2:])
    done = import_dl_records(tmp_path / "in", tmp_path / "out", OPTIONS, Storing("uint16"))
    assert (done.chips, done.notes) == (5, ())
    found = open_dataset(tmp_path / "out")
    assert found.manifest.dtype == dtype.__name__ and found.chip_ids == tuple(f"chip_{at}" for at in range(5))
    for number, sample in enumerate(found):
        np.testing.assert_array_equal(sample.image, images[number])
        np.testing.assert_array_equal(sample.label, targets[number])
        assert (sample.crs, sample.transform) == (
            "EPSG:32633",
            (10, 0, 500000 + number * 120, 0, -10, 5100000),
        )
    assert verify_dataset(tmp_path / "out", data=True).problems == ()


def test_the_key_of_a_tile_is_kept_and_names_no_place(tf, tmp_path):
    images, targets = pictures(np.uint8, 2)
    keys = ("64:0:10.0:33:-1:500", "64:0:10.0:33:-1:501")
    records = [dl_record(tf, *one) for one in zip(images, targets, keys, strict=True)]
    write(tf, tmp_path / "in" / "toy-00000-of-00001", records)
    import_dl_records(tmp_path / "in", tmp_path / "out", OPTIONS, Storing())
    found = open_dataset(tmp_path / "out")
    assert found.chip_ids == tuple(key.replace(":", "_") for key in keys) and found[0].crs == ""


def test_what_is_wrong_with_such_records_is_named(tf, tmp_path):
    images, targets = pictures(np.uint8, 3)
    good = [dl_record(tf, images[at], targets[at], place(at)) for at in range(3)]
    other = dl_record(tf, images[0], targets[0] * 0 + 7, place(8))
    cases = {
        "a": ({"toy-00000-of-00002": good}, BadInputError, r"lacks 1 of 2 shards \(00001\)"),
        "b": ({"toy-00000-of-00001": good, "x-00000-of-00001": good}, BadInputError, "of one set"),
        "c": ({"toy-00000-of-00001": [good[0], good[0]]}, BadInputError, "would both be chip chip_0"),
        "d": (
            {"toy-00000-of-00001": [good[0], other]},
            LabelError,
            r"record 1 of .* no class declares \(7\)",
        ),
        "e": (
            {"toy-00000-of-00001": [example(tf, image=b"1")]},
            DamagedFileError,
            "is no record of dl_image",
        ),
        "f": (
            {"toy-00000-of-00001": [good[0], dl_record(tf, images[1][:, :, :1], targets[1], place(1))]},
            AssetMismatchError,
            "expected one place and 3 bands",
        ),
    }
    for name, (files, error, says) in cases.items():
        for file, records in files.items():
            write(tf, tmp_path / name / file, records)
        with pytest.raises(error, match=says):
            import_dl_records(tmp_path / name, tmp_path / "out", OPTIONS, Storing())
    write(tf, tmp_path / "g" / "toy-00000-of-00001", good)
    with pytest.raises(BadInputError, match="stored as they are: leave the scale out"):
        import_dl_records(tmp_path / "g", tmp_path / "out", OPTIONS, Storing(scales={"b1": 0.1}))
    assert not (tmp_path / "out").exists()
