"""Temperature and calibration error on probabilities whose truth is known."""

import numpy as np
import pytest

from chipmill.learning.calibration import Reliability, apply_temperature, fit_temperature


def survey(sharpness, pixels=40_000, seed=4):
    """Labels drawn from known probabilities, and the overconfident (sharpness > 1) probabilities of a model."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (pixels, 4))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (true.cumsum(axis=1) < rng.random(pixels)[:, None]).sum(axis=1).clip(0, 3).astype(np.uint8)
    return apply_temperature(true.astype(np.float32), 1 / sharpness), label


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_over_and_underconfidence(sharpness):
    probability, label = survey(sharpness)
    assert fit_temperature(probability, label) == pytest.approx(sharpness, rel=0.05)


def test_calibration_error_falls_and_the_decision_stays():
    probability, label = survey(2.5)
    calibrated = apply_temperature(probability, fit_temperature(probability, label))
    before, after = Reliability(), Reliability()
    before.add(probability, label)
    after.add(calibrated, label)
    assert before.error() > 0.1
    assert after.error() < 0.02
    assert (calibrated.argmax(axis=1) == probability.argmax(axis=1)).all()
    assert calibrated.sum(axis=1) == pytest.approx(np.ones(len(label)), abs=1e-5)


def test_pieces_add_up():
    probability, label = survey(1.5, pixels=1000)
    whole, parts = Reliability(), Reliability()
    whole.add(probability, label)
    for start in range(0, 1000, 130):
        parts.add(probability[start : start + 130], label[start : start + 130])
    assert parts.error() == pytest.approx(whole.error())


def test_error_of_two_pixels_by_hand():
    tally = Reliability()
    tally.add(np.array([[0.9, 0.1], [0.9, 0.1]], np.float32), np.array([0, 1], np.uint8))
    assert tally.error() == pytest.approx(0.4)


def test_without_pixels_nothing_is_changed():
    assert fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, np.uint8)) == 1.0
    assert np.isnan(Reliability().error())


def test_certainty_of_zero_and_one_stays_finite():
    assert np.isfinite(apply_temperature(np.array([[1.0, 0.0]], np.float32), 3.0)).all()
