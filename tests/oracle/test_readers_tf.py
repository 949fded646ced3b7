"""What TensorFlow is handed by our readers: the batches of the TensorFlow-free ones, with shapes that a model is built on."""

import shutil

import numpy as np
import pytest
from tests import dataset_world as dw

from chipmill.dataset import tensors
from chipmill.dataset.batching import Batch
from chipmill.dataset.reader import open_dataset
from chipmill.dataset.records import RecordSpec

pytestmark = pytest.mark.tensorflow
SIDE = 8


@pytest.fixture(scope="module")
def tf():
    tensorflow = pytest.importorskip("tensorflow")
    tensorflow.config.set_visible_devices([], "GPU")
    return tensorflow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return dw.committed(
        tmp_path_factory.getbasetemp() / "dataset", tmp_path_factory.mktemp("readers_tf")
    ).path


@pytest.mark.parametrize("options", [{}, {"shuffle_seed": 3, "epoch": 2}, {"drop_remainder": True}])
def test_both_readers_hand_out_the_same_batches(tf, root, options):
    dataset = open_dataset(root)
    ours = list(dataset.split("train").batches(16, **options))
    theirs = dataset.to_tf("train", 16, **options)
    assert int(theirs.cardinality()) == len(ours)
    for _ in range(2):  # an epoch can be gone through again
        for one, (image, label) in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(image.numpy(), one.image)
            np.testing.assert_array_equal(label.numpy(), one.label)
    size = 16 if "drop_remainder" in options else None
    assert [tuple(spec.shape) for spec in theirs.element_spec] == [(size, 32, 32, 6), (size, 32, 32)]
    assert [spec.dtype for spec in theirs.element_spec] == [tf.int16, tf.uint8]


def test_a_slice_and_an_empty_split_can_be_fed(tf, root):
    dataset = open_dataset(root)
    some = dataset.split("train")[3:9]
    images = np.concatenate([image.numpy() for image, _ in some.to_tf("train", 4)])
    np.testing.assert_array_equal(images, np.stack([sample.image for sample in some]))
    assert list(some.to_tf("val", 4)) == []


def test_weights_go_from_0_to_1_and_a_series_keeps_its_static_bands_apart(tf):
    rng = np.random.default_rng(5)
    spec = RecordSpec("int16", bands=("a", "b", "a", "b", "e"), slots=2, statics=1, weight=True, size_px=SIDE)
    image = rng.integers(0, 99, (4, 2, SIDE, SIDE, 2)).astype(np.int16)
    label, weight = (rng.integers(0, 255, (4, SIDE, SIDE)).astype(np.uint8) for _ in range(2))
    static = rng.integers(0, 99, (4, SIDE, SIDE, 1)).astype(np.int16)

    def read(places):
        ids = tuple(map(str, places))
        return Batch(image[places], label[places], ids, weight[places], static[places])

    fed = tensors.feed(read, [np.arange(2), np.arange(2, 4)], spec)
    (first, _, _), (second, last_label, last_weight) = fed
    assert {name: tuple(one.shape) for name, one in fed.element_spec[0].items()} == {
        "image": (2, 2, SIDE, SIDE, 2),
        "static": (2, SIDE, SIDE, 1),
    }
    np.testing.assert_array_equal(np.concatenate([first["image"], second["image"]]), image)
    np.testing.assert_array_equal(second["static"], static[2:])
    np.testing.assert_array_equal(last_label, label[2:])
    np.testing.assert_allclose(last_weight, weight[2:] / np.float32(254), rtol=1e-6)
    assert last_weight.dtype == tf.float32


def test_damage_ends_an_epoch_with_the_name_of_the_chip(tf, root, tmp_path):
    shutil.copytree(root.parents[5], tmp_path, dirs_exist_ok=True)
    copy = open_dataset(tmp_path / root.relative_to(root.parents[5]))
    shard = copy.parts[0].files[0]
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(tf.errors.OpError, match=f"chip {copy.chip_ids[0]} in .* fails its checksum"):
        list(copy.to_tf("train", 8))
