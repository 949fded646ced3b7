"""TensorFlow as the judge of our records: what it reads of them, and that we read what it writes."""

import numpy as np
import pytest

from chipmill.dataset.framing import iter_frames
from chipmill.dataset.records import RecordSpec, Sample, decode_example, encode_example, write_record

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def tf():
    tensorflow = pytest.importorskip("tensorflow")
    tensorflow.config.set_visible_devices([], "GPU")
    return tensorflow


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(8)
    return [
        Sample(
            rng.integers(-32768, 32767, (24, 32, 5), dtype=np.int16),
            rng.integers(0, 256, (24, 32), dtype=np.uint8),
            f"32633-00000000_{number}_-{number}_2019-01-01",
            "2019-01-01",
            "EPSG:32633",
            (10.0, 0.0, 1 / 3 + number, 0.0, -10.0, -1e-300),
        )
        for number in range(7)
    ]


@pytest.fixture(scope="module")
def shard(samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "train-00000-of-00001.tfrecord"
    with path.open("wb") as stream:
        for one in samples:
            write_record(stream, one)
    return path


def spec(tf):
    texts = ("image", "label", "chip_id", "anchor", "crs", "transform")
    return {name: tf.io.FixedLenFeature([], tf.string) for name in texts} | {
        "shape": tf.io.FixedLenFeature([3], tf.int64)
    }


def test_tensorflow_reads_every_record_as_it_was(tf, shard, samples):
    records = list(tf.data.TFRecordDataset(str(shard)))
    assert len(records) == len(samples)
    for record, one in zip(records, samples, strict=True):
        found = tf.io.parse_single_example(record, spec(tf))
        assert found["shape"].numpy().tolist() == [24, 32, 5]
        image = tf.reshape(tf.io.decode_raw(found["image"], tf.int16), found["shape"])
        np.testing.assert_array_equal(image.numpy(), one.image)
        label = tf.reshape(tf.io.decode_raw(found["label"], tf.uint8), found["shape"][:2])
        np.testing.assert_array_equal(label.numpy(), one.label)
        texts = [found[name].numpy().decode() for name in ("chip_id", "anchor", "crs")]
        assert texts == [one.chip_id, one.anchor, one.crs]
        assert tf.io.decode_raw(found["transform"], tf.float64).numpy().tolist() == list(one.transform)


def test_a_batch_is_parsed_at_once(tf, shard, samples):
    (batch,) = tf.data.TFRecordDataset(str(shard)).batch(len(samples))
    found = tf.io.parse_example(batch, spec(tf))
    image = tf.reshape(tf.io.decode_raw(found["image"], tf.int16), (-1, 24, 32, 5))
    np.testing.assert_array_equal(image.numpy(), np.stack([one.image for one in samples]))


def test_the_shard_is_the_one_that_tensorflow_would_frame(tf, shard, samples, tmp_path):
    path = str(tmp_path / "theirs")
    with tf.io.TFRecordWriter(path) as writer:
        for one in samples:
            writer.write(encode_example(one))
    assert (tmp_path / "theirs").read_bytes() == shard.read_bytes()


def test_we_read_what_tensorflow_writes(tf, samples, tmp_path):
    def of(value):
        if isinstance(value, list):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=value))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    one = samples[3]
    values = {
        "transform": np.array(one.transform, "<f8").tobytes(), "crs": one.crs.encode(), "anchor": one.anchor.encode(),
        "chip_id": one.chip_id.encode(), "label": one.label.tobytes(), "image": one.image.tobytes(),
        "shape": list(one.image.shape), "unknown": b"feature",
    }  # fmt: skip
    example = tf.train.Example(features=tf.train.Features(feature={k: of(v) for k, v in values.items()}))
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        writer.write(example.SerializeToString())
    (frame,) = iter_frames(tmp_path / "theirs")
    found = decode_example(frame.data, "int16")
    np.testing.assert_array_equal(found.image, one.image)
    np.testing.assert_array_equal(found.label, one.label)
    assert (found.chip_id, found.transform) == (one.chip_id, one.transform)


# the other encodings


def stored(spec, tmp_path):
    """Three chips of a spec, and the shard that holds them."""
    rng, info = np.random.default_rng(8), np.iinfo(spec.dtype)
    side = (spec.size_px, spec.size_px)

    def noise(shape):
        return rng.integers(info.min, info.max, shape, dtype=spec.dtype, endpoint=True)

    chips = [
        Sample(
            noise(spec.image_shape), rng.integers(0, 256, side, dtype=np.uint8), f"c{number}", "2019-01-01",
            "EPSG:32633", (10.0, 0.0, 5e5, 0.0, -10.0, 5e6),
            weight=rng.integers(0, 255, side, dtype=np.uint8), static=noise((*side, spec.statics)),
        )
        for number in range(3)
    ]  # fmt: skip
    path = tmp_path / "shard"
    with path.open("wb") as stream:
        for one in chips:
            write_record(stream, one, spec)
    return chips, str(path)


def names(count):
    return tuple(f"b{number}" for number in range(count))


@pytest.mark.parametrize(("dtype", "bands"), [("uint8", 1), ("uint8", 3), ("uint16", 1), ("uint16", 4)])
def test_tensorflow_decodes_our_png(tf, dtype, bands, tmp_path):
    chips, path = stored(RecordSpec(dtype, "png", bands=names(bands), size_px=24), tmp_path)
    for record, one in zip(tf.data.TFRecordDataset(path), chips, strict=True):
        found = tf.io.parse_single_example(record, {"image": tf.io.FixedLenFeature([], tf.string)})
        image = tf.io.decode_png(found["image"], channels=bands, dtype=tf.as_dtype(dtype))
        np.testing.assert_array_equal(image.numpy(), one.image)


@pytest.mark.parametrize("bands", [1, 3])
def test_tensorflow_and_we_decode_our_jpeg_alike(tf, bands, tmp_path):
    spec = RecordSpec("uint8", "jpeg", quality=95, bands=names(bands), size_px=24)
    _, path = stored(spec, tmp_path)
    for record in tf.data.TFRecordDataset(path):
        found = tf.io.parse_single_example(record, {"image": tf.io.FixedLenFeature([], tf.string)})
        image = tf.io.decode_jpeg(found["image"], dct_method="INTEGER_ACCURATE").numpy()
        ours = decode_example(record.numpy(), spec).image
        assert image.shape == ours.shape == (24, 24, bands)
        assert int(np.abs(image.astype(int) - ours).max()) <= 1


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(("slots", "statics"), [(0, 0), (2, 1)])
def test_tensorflow_reads_lists_of_floats(tf, compression, slots, statics, tmp_path):
    spec = RecordSpec(
        "int16", "float", compression, bands=names(5), slots=slots, statics=statics, weight=True, size_px=24
    )
    chips, path = stored(spec, tmp_path)
    features = {name: tf.io.FixedLenFeature([24, 24], tf.float32) for name in (*names(5), "label", "weight")}
    records = list(tf.data.TFRecordDataset(path, compression_type="GZIP" if compression == "gzip" else ""))
    for record, one in zip(records, chips, strict=True):
        found = tf.io.parse_single_example(record, features)
        got = np.stack([found[name].numpy() for name in names(5)], axis=-1)
        whole = one.image
        if slots:
            whole = np.concatenate([*one.image, one.static], axis=-1)
        np.testing.assert_array_equal(got, whole)
        np.testing.assert_array_equal(found["label"].numpy(), one.label)
        np.testing.assert_array_equal(found["weight"].numpy(), one.weight)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_tensorflow_reads_a_series(tf, compression, tmp_path):
    spec = RecordSpec("uint16", compression=compression, bands=names(7), slots=3, statics=1, size_px=24)
    chips, path = stored(spec, tmp_path)
    (batch,) = tf.data.TFRecordDataset(path, compression_type="GZIP" if compression == "gzip" else "").batch(
        3
    )
    texts = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "static", "label", "weight")}
    found = tf.io.parse_example(batch, texts | {"shape": tf.io.FixedLenFeature([4], tf.int64)})
    assert found["shape"].numpy().tolist() == [[3, 24, 24, 2]] * 3
    image = tf.reshape(tf.io.decode_raw(found["image"], tf.uint16), (3, 3, 24, 24, 2))
    np.testing.assert_array_equal(image.numpy(), np.stack([one.image for one in chips]))
    static = tf.reshape(tf.io.decode_raw(found["static"], tf.uint16), (3, 24, 24, 1))
    np.testing.assert_array_equal(static.numpy(), np.stack([one.static for one in chips]))
    weight = tf.reshape(tf.io.decode_raw(found["weight"], tf.uint8), (3, 24, 24))
    np.testing.assert_array_equal(weight.numpy(), np.stack([one.weight for one in chips]))


def test_we_read_every_kind_of_list_that_tensorflow_writes(tf):
    from chipmill.dataset.examples import iter_features

    example = tf.train.Example(
        features=tf.train.Features(
            feature={
                "floats": tf.train.Feature(float_list=tf.train.FloatList(value=[1.5, -2.25, 3e30])),
                "ints": tf.train.Feature(int64_list=tf.train.Int64List(value=[0, -1, 2**62, -(2**63)])),
                "texts": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"a", b"", b"bc"])),
                "nothing": tf.train.Feature(),
                "empty": tf.train.Feature(float_list=tf.train.FloatList()),
            }
        )
    )
    found = dict(iter_features(example.SerializeToString()))
    np.testing.assert_array_equal(found["floats"].floats, np.float32([1.5, -2.25, 3e30]))
    assert found["ints"].ints == [0, -1, 2**62, -(2**63)]
    assert list(map(bytes, found["texts"].parts)) == [b"a", b"", b"bc"]
    assert found["empty"].floats.size == 0
    assert "nothing" not in found
    # unpacked, as older writers do: field 1 of the list once for each value
    unpacked = bytes.fromhex("0a130a110a0166120c120a0d0000c03f0d000010c0")
    assert tf.train.Example.FromString(unpacked).features.feature["f"].float_list.value == [1.5, -2.25]
    ((name, feature),) = iter_features(unpacked)
    assert (name, feature.floats.tolist()) == ("f", [1.5, -2.25])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    from tests import dataset_world as dw

    from chipmill.dataset.reader import open_dataset

    ref = dw.committed(tmp_path_factory.getbasetemp() / "dataset", tmp_path_factory.mktemp("tf"))
    return open_dataset(ref.path)


def epoch(dataset, **options):
    batches = list(dataset.to_tf("train", 16, **options))
    return np.concatenate([image.numpy() for image, _ in batches]), np.concatenate(
        [label.numpy() for _, label in batches]
    )


def test_a_dataset_is_fed_as_it_is_read(tf, dataset):
    train = dataset.split("train")
    image, label = epoch(dataset)
    np.testing.assert_array_equal(image, np.stack([sample.image for sample in train]))
    np.testing.assert_array_equal(label, np.stack([sample.label for sample in train]))
    assert int(dataset.to_tf("train", 16).cardinality()) == -(-len(train) // 16)
    assert int(dataset.to_tf("train", 16, drop_remainder=True).cardinality()) == len(train) // 16


def test_the_order_depends_on_seed_and_epoch_alone(tf, dataset):
    first, labels = epoch(dataset, shuffle_seed=8, epoch=3)
    again, _ = epoch(dataset, shuffle_seed=8, epoch=3)
    np.testing.assert_array_equal(first, again)
    plain, _ = epoch(dataset)
    for other in (
        plain,
        epoch(dataset, shuffle_seed=8, epoch=4)[0],
        epoch(dataset, shuffle_seed=9, epoch=3)[0],
    ):
        assert (first != other).any()
        rows = {image.tobytes() for image in other}
        assert rows == {image.tobytes() for image in first}  # the same chips, each once
    assert len({image.tobytes() for image in first}) == len(labels)
