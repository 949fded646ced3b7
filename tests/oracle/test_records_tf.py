"""TensorFlow as the judge of our records: what it reads of them, and that we read what it writes."""

import numpy as np
import pytest

from chipmill.dataset.records import Sample, decode_example, encode_example, iter_frames, write_record

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
