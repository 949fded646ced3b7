"""Network and losses against numpy: scaling and nodata are inside, ignored pixels have no influence."""

import numpy as np
import pytest

from chipmill.core.errors import BadInputError
from chipmill.learning import losses
from chipmill.learning.model import build_unet, check_chip_size, import_keras, logits_fn, preset_widths

pytestmark = pytest.mark.tensorflow
MEAN, STD, NODATA = [100.0, -5.0], [20.0, 0.0], [-32768, None]


@pytest.fixture(scope="module")
def net():
    import_keras().utils.set_random_seed(1)
    return build_unet(3, (4, 8), MEAN, STD, NODATA)


def numpy_losses(label, logits):
    """Dice and cross-entropy, written out pixel by pixel."""
    count = logits.shape[-1]
    probability = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    pixels = [(probability[at], label[at]) for at in np.ndindex(label.shape) if label[at] != 255]
    entropy = -np.mean([np.log(p[truth]) for p, truth in pixels])
    terms = []
    for code in range(count):
        truth = np.array([float(own == code) for _, own in pixels])
        if truth.any():
            guess = np.array([p[code] for p, _ in pixels])
            terms.append(1 - 2 * (truth * guess).sum() / max((truth + guess).sum(), 1))
    return np.mean(terms), entropy


@pytest.mark.parametrize("seed", [0, 1])
def test_losses_equal_numpy_with_ignored_pixels_and_absent_classes(seed):
    rng = np.random.default_rng(seed)
    label = rng.choice(np.array([0, 1, 3, 255], np.uint8), (2, 5, 6))  # class 2 is absent
    logits = rng.normal(size=(2, 5, 6, 4)).astype(np.float32)
    dice, entropy = numpy_losses(label, logits)
    assert float(losses.dice(label, logits)) == pytest.approx(dice, rel=1e-5)
    assert float(losses.cross_entropy(label, logits)) == pytest.approx(entropy, rel=1e-5)
    assert float(losses.dice_ce(label, logits)) == pytest.approx(dice + entropy, rel=1e-5)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_ignored_pixels_have_no_influence_and_alone_cost_nothing(name):
    loss, rng = losses.LOSSES[name], np.random.default_rng(2)
    label = rng.choice(np.array([0, 1, 255], np.uint8), (1, 8, 8))
    logits = rng.normal(size=(1, 8, 8, 2)).astype(np.float32)
    other = np.where((label == 255)[..., None], rng.normal(0, 50, logits.shape), logits).astype(np.float32)
    assert float(loss(label, other)) == pytest.approx(float(loss(label, logits)), rel=1e-6)
    assert float(loss(np.full_like(label, 255), logits)) == 0.0


def test_every_configured_loss_exists():
    from chipmill.region.jobs import TrainConfig

    allowed = TrainConfig.model_json_schema()["properties"]["loss"]["enum"]
    assert set(allowed) <= set(losses.LOSSES)


def test_nodata_is_the_mean_of_its_band(net):
    """After scaling nodata is 0, and so is the mean: both must give the same logits; another value must not."""
    chip = np.random.default_rng(3).integers(50, 150, (1, 8, 8, 2)).astype(np.int16)
    logits = logits_fn(net)
    missing, mean, other = chip.copy(), chip.copy(), chip.copy()
    missing[0, 2:4, 3, 0], mean[0, 2:4, 3, 0], other[0, 2:4, 3, 0] = -32768, 100, 160
    assert logits(missing) == pytest.approx(logits(mean), abs=1e-6)
    assert np.abs(logits(missing) - logits(other)).max() > 1e-3


def test_scaling_uses_the_exact_statistics_and_a_constant_band_survives():
    keras = import_keras()
    from chipmill.learning.model import scale_bands

    inputs = keras.Input((None, None, 2))
    scaled = keras.Model(inputs, scale_bands(inputs, MEAN, STD, NODATA))
    chip = np.array([[[[140, -4], [-32768, -5]]]], np.float32)
    assert scaled.predict(chip, verbose=0).tolist() == [[[[2.0, 1.0], [0.0, 0.0]]]]


def test_large_stored_values_keep_their_last_digit(net):
    """DN go in as float32: neighbours at 30,000 must not fall together as they would in half precision."""
    chip = np.full((1, 4, 4, 2), 30_000, np.int16)
    assert (logits_fn(net)(chip) != logits_fn(net)(chip + 1)).any()


def test_output_has_one_logit_per_class_at_full_resolution(net):
    assert logits_fn(net)(np.zeros((2, 12, 8, 2), np.int16)).shape == (2, 12, 8, 3)


def test_chip_sizes_that_cannot_be_halved_are_refused():
    check_chip_size(64, (4, 8, 16))
    with pytest.raises(BadInputError, match=r"multiple of 4, e\.g\. 68"):
        check_chip_size(66, (4, 8, 16))


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(BadInputError, match="tiny, small, base"):
        preset_widths("huge")
