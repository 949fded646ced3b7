"""A torch DataLoader takes a dataset as it is: in its own process, spawned and forked. Needs the group ``torch``."""

import numpy as np
import pytest
from tests import dataset_world as dw

from chipmill.dataset.reader import open_dataset

WORKERS = {0: [None], 2: ["spawn", "fork"]}


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip(
        "torch", reason="torch is in no lock: install the dependency group torch to run these tests"
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(
        dw.committed(tmp_path_factory.getbasetemp() / "dataset", tmp_path_factory.mktemp("torch")).path
    )


@pytest.mark.parametrize(
    ("workers", "context"), [(count, one) for count, contexts in WORKERS.items() for one in contexts]
)
def test_every_chip_comes_once_as_it_was_written(torch, dataset, workers, context):
    train = dataset.split("train")
    first = train[0]  # a file is open when workers start
    loader = torch.utils.data.DataLoader(
        train, batch_size=8, shuffle=True, num_workers=workers, multiprocessing_context=context,
        generator=torch.Generator().manual_seed(8),
    )  # fmt: skip
    seen = {}
    for batch in loader:
        assert (batch.image.dtype, batch.label.dtype) == (torch.int16, torch.uint8)
        for place, chip_id in enumerate(batch.chip_id):
            seen[chip_id] = (batch.image[place].numpy(), batch.label[place].numpy())
    assert sorted(seen) == sorted(train.chip_ids)
    for sample in train:
        np.testing.assert_array_equal(seen[sample.chip_id][0], sample.image)
        np.testing.assert_array_equal(seen[sample.chip_id][1], sample.label)
    assert list(seen) != list(train.chip_ids)
    np.testing.assert_array_equal(train[0].image, first.image)


def test_a_sample_becomes_a_tensor_without_a_copy_or_a_warning(torch, dataset):
    sample = dataset[0]
    tensor = torch.from_numpy(sample.image)
    tensor[0, 0, 0] = 77
    assert sample.image[0, 0, 0] == 77
    assert tensor.shape == (32, 32, 6)


def test_our_own_batches_become_tensors(torch, dataset):
    batch = next(dataset.batches(4, shuffle_seed=1))
    assert torch.from_numpy(batch.image).shape == (4, 32, 32, 6)
    assert torch.from_numpy(batch.label).dtype == torch.uint8
