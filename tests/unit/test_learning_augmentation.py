"""Turns and flips: all eight symmetries, label and image together, the same for the same seed, epoch and step."""

import numpy as np

from chipmill.learning.augmentation import augment, turn


def test_the_eight_elements_are_all_different_and_keep_the_pixels():
    chip = np.arange(9).reshape(3, 3)
    seen = {turn(chip, element).tobytes() for element in range(8)}
    assert len(seen) == 8
    assert all(sorted(np.frombuffer(one, chip.dtype)) == list(range(9)) for one in seen)


def test_label_and_every_band_turn_with_the_image():
    label = np.arange(16 * 4 * 4).reshape(16, 4, 4).astype(np.uint8)
    image = np.stack([label, label], axis=-1).astype(np.int16)
    turned, labels = augment(image, label, 8, 3, 1)
    assert (turned[..., 0] == labels).all()
    assert (turned[..., 1] == labels).all()
    assert (labels != label).any()


def test_the_draw_is_a_function_of_seed_epoch_and_step():
    label = np.arange(64 * 4).reshape(64, 2, 2).astype(np.uint8)
    image = label[..., None].astype(np.int16)
    first = augment(image, label, 8, 3, 1)[1]
    assert (augment(image, label, 8, 3, 1)[1] == first).all()
    for other in ((9, 3, 1), (8, 4, 1), (8, 3, 2)):
        assert (augment(image, label, *other)[1] != first).any()
