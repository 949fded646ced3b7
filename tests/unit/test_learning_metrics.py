"""Figures of confusion matrices against sums written out by hand, and intervals against what they promise."""

import numpy as np
import pytest

from chipmill.learning.metrics import bootstrap, confusion_matrix, plain, report, score


def test_confusion_counts_truth_by_prediction_and_leaves_out_ignored_pixels():
    label = np.array([[0, 0, 1], [1, 255, 2]], np.uint8)
    guess = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    assert confusion_matrix(label, guess, 3).tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]


def test_confusion_equals_a_loop_over_pixels():
    rng = np.random.default_rng(1)
    label = rng.integers(0, 4, 500).astype(np.uint8)
    label[rng.random(500) < 0.2] = 255
    guess = rng.integers(0, 4, 500)
    expected = np.zeros((4, 4), int)
    for truth, got in zip(label, guess, strict=True):
        if truth != 255:
            expected[truth, got] += 1
    assert (confusion_matrix(label, guess, 4) == expected).all()


def test_confusion_refuses_codes_that_are_no_class():
    with pytest.raises(ValueError, match="below 2"):
        confusion_matrix(np.array([0, 1], np.uint8), np.array([0, 2]), 2)


def test_scores_of_a_small_matrix():
    scores = score(np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]]))
    assert scores.iou[:2] == pytest.approx([8 / 11, 9 / 12])
    assert np.isnan(scores.iou[2])
    assert scores.miou == pytest.approx((8 / 11 + 9 / 12) / 2)
    assert scores.precision[:2] == pytest.approx([8 / 9, 9 / 11])
    assert scores.recall[:2] == pytest.approx([0.8, 0.9])
    assert scores.f1[0] == pytest.approx(2 * 8 / (10 + 9))
    assert scores.accuracy == pytest.approx(0.85)
    assert scores.kappa == pytest.approx((0.85 - 0.5) / 0.5)
    assert scores.pixels == 20


def test_a_class_that_is_only_predicted_counts_as_zero():
    scores = score(np.array([[5, 5], [0, 0]]))
    assert scores.iou.tolist() == [0.5, 0.0]
    assert scores.miou == 0.25


def test_no_pixel_gives_nan_and_json_gets_null():
    scores = score(np.zeros((2, 2), int))
    assert np.isnan(scores.miou)
    assert plain(scores.miou) is None


def test_bootstrap_is_repeatable_and_widens_with_unlike_blocks():
    alike = np.tile(np.array([[90, 10], [10, 90]]), (20, 1, 1))
    unlike = alike.copy()
    unlike[::2] = [[60, 40], [40, 60]]
    narrow, wide = bootstrap(alike, 8), bootstrap(unlike, 8)
    assert narrow["miou"][0] == pytest.approx(narrow["miou"][1])
    assert wide["miou"][1] - wide["miou"][0] > 0.05
    assert wide == bootstrap(unlike, 8)
    assert wide["blocks"] == 20


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    # accuracy of a block is drawn around 0.8: the interval of 40 blocks has to hold 0.8 in about 95 % of surveys
    rng, held = np.random.default_rng(5), 0
    for survey in range(100):
        right = np.clip(rng.normal(0.8, 0.1, 40), 0, 1) * 1000
        blocks = np.array(
            [[[hit / 2, (1000 - hit) / 2], [(1000 - hit) / 2, hit / 2]] for hit in right]
        ).astype(int)
        low, high = bootstrap(blocks, survey, draws=300)["accuracy"]
        held += low <= 0.8 <= high
    assert 86 <= held <= 100


def test_one_block_has_no_interval():
    assert bootstrap(np.ones((1, 2, 2), int), 8)["miou"] is None


def test_report_is_plain_json_with_one_row_per_class():
    import json

    facts = report(np.array([[[3, 1, 0], [0, 4, 0], [0, 0, 0]]] * 3), ["a", "b", "c"], 8)
    assert json.loads(json.dumps(facts)) == facts
    assert [row["name"] for row in facts["classes"]] == ["a", "b", "c"]
    assert facts["classes"][2]["iou"] is None
    assert facts["pixels"] == 24
