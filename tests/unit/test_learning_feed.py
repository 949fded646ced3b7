"""What a training is fed with: chips of all datasets in any order, and nothing that a network cannot take."""

import numpy as np
import pytest
from tests import dataset_world as dw

from chipmill.core.errors import SchemaMismatchError
from chipmill.learning.feed import Feed


def test_chips_come_in_the_order_that_is_asked_for(tmp_path_factory, tmp_path):
    ref = dw.committed(tmp_path_factory.getbasetemp() / "dataset", tmp_path)
    feed = Feed((ref,), "train")
    groups = [np.array([5, 0]), np.array([3, 3])]
    seen = list(feed.batches(groups, lambda step, batch: (batch[0] + 7 * step, batch[1])))
    for step, (group, (image, label)) in enumerate(zip(groups, seen, strict=True)):
        expected = feed.read(group)
        np.testing.assert_array_equal(image, expected[0] + 7 * step)
        np.testing.assert_array_equal(label, expected[1])
    assert (seen[1][0][0] == seen[1][0][1]).all() and (seen[0][0][0] != seen[0][0][1]).any()
    assert len(feed) > len(Feed((ref,), "val")) > 0


def test_a_series_is_refused_in_one_sentence(tmp_path):
    chain = dw.planned(tmp_path, 3, 3, dataset=dw.DATASET | {"layout": "series"})
    chain.write_shards()
    with pytest.raises(
        SchemaMismatchError, match=r"has dataset\.layout series, .* run its region with layout stack"
    ):
        Feed((chain.seal(),), "train")
