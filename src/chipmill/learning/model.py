"""The network: a small U-Net that takes raw integer chips. To try another network, write it here.

It reads like any Keras model: `build_unet` is the whole of it. Two things differ from a textbook U-Net, and both are
there so that training and prediction cannot drift apart: the scaling by the dataset's exact statistics is part of
the model, and so is the meaning of nodata (0 after scaling, which is the mean of the band).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import BadInputError
from chipmill.dataset.union import InputSchema

STAGE_VERSION: Final = 1

PRESETS: Final[dict[str, tuple[int, ...]]] = {
    "tiny": (8, 16),  # tests
    "small": (16, 32, 64),  # minutes on two cores
    "base": (32, 64, 128, 256),  # a GPU, or patience
}


def import_keras() -> Any:
    """Return the module keras on its TensorFlow backend; the one place that imports it.

    Raises BadInputError where TensorFlow is not installed.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import keras
        import tensorflow as tf  # noqa: F401  keras imports it late, and then blames the wrong line
    except ImportError as error:
        raise BadInputError(
            f"TensorFlow cannot be imported here ({error}): install chipmill[train], or use the trainer image"
        ) from error
    return keras


def preset_widths(preset: str) -> tuple[int, ...]:
    """Return the filters per level of a preset; raises BadInputError for an unknown name."""
    if preset not in PRESETS:
        raise BadInputError(f"preset {preset!r} is unknown: choose one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def check_chip_size(size_px: int, widths: Sequence[int]) -> None:
    """Raise BadInputError when chips of `size_px` cannot be halved once per level below the first."""
    factor = 2 ** (len(widths) - 1)
    if size_px % factor:
        raise BadInputError(
            f"chips of {size_px} px cannot pass a U-Net of {len(widths)} levels: size_px must be a multiple of "
            f"{factor}, e.g. {(size_px // factor + 1) * factor}"
        )


def build_unet(
    classes: int,
    widths: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    nodata: Sequence[float | None],
) -> Any:
    """Build the network: input integers `(n, y, x, band)`, output float32 logits `(n, y, x, class)`.

    `mean`, `std` and `nodata` have one entry per band, in DN; side lengths must be multiples of
    `2 ** (len(widths) - 1)`. After Ronneberger et al. 2015, with batch normalisation (momentum 0.9) and He
    initialisation, which reach more in few steps than Keras' defaults do.
    """
    keras = import_keras()
    layers = keras.layers

    inputs = keras.Input((None, None, len(mean)), dtype="float32", name="dn")
    x = scale_bands(inputs, mean, std, nodata)

    # layers have names of their own: Keras' counters would write other bytes for a second network of a process
    skips = []
    for level, width in enumerate(widths[:-1]):
        x = _two_convs(x, width, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"down{level}_pool")(x)
    x = _two_convs(x, widths[-1], "bottom")
    for level in reversed(range(len(skips))):
        width = widths[level]
        x = layers.Conv2DTranspose(
            width, 2, strides=2, kernel_initializer="he_normal", name=f"up{level}_grow"
        )(x)
        x = layers.Concatenate(name=f"up{level}_join")([skips[level], x])
        x = _two_convs(x, width, f"up{level}")

    logits = layers.Conv2D(classes, 1, name="logits")(x)
    return keras.Model(inputs, logits, name="unet")


def _two_convs(x: Any, filters: int, name: str) -> Any:
    """Convolution, batch normalisation, ReLU, twice."""
    from keras import layers

    for half in "ab":
        part = f"{name}{half}"
        x = layers.Conv2D(
            filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{part}_conv"
        )(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{part}_norm")(x)
        x = layers.ReLU(name=f"{part}_relu")(x)
    return x


def scale_bands(dn: Any, mean: Sequence[float], std: Sequence[float], nodata: Sequence[float | None]) -> Any:
    """Return `(dn - mean) / std` per band as float32, and 0 where `dn` is nodata; `dn` is `(n, y, x, band)`."""
    from keras import ops

    scaled = (dn - _row(mean)) / _row([value if value > 0 else 1.0 for value in std])
    # a band without nodata gets a value that no integer DN can have
    missing = ops.equal(dn, _row([0.5 if value is None else value for value in nodata]))
    return ops.where(missing, 0.0, scaled)


def _row(values: Sequence[float]) -> Any:
    return np.asarray(values, np.float32)[None, None, None, :]


def build_for(schema: InputSchema, preset: str) -> Any:
    """Build the network of a preset for the bands, statistics and classes of a schema."""
    return build_unet(
        len(schema.classes),
        preset_widths(preset),
        [sums.mean for sums in schema.sums],
        [sums.std for sums in schema.sums],
        [band.nodata for band in schema.bands],
    )


def load_network(schema: InputSchema, preset: str, weights: Path) -> Any:
    """Build the network of a preset and read its weights."""
    net = build_for(schema, preset)
    net.load_weights(weights)
    return net


def probability_fn(net: Any) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """Return a function from chips `(n, y, x, band)` in DN to probabilities `(n, y, x, class)`, uncalibrated."""
    logits = logits_fn(net)

    def predict(chips: NDArray[Any]) -> NDArray[np.float32]:
        raw = logits(chips)
        powers = np.exp(raw - raw.max(axis=-1, keepdims=True))
        probability: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(
            np.float32, copy=False
        )
        return probability

    return predict


def logits_fn(net: Any) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """Return a function from chips `(n, y, x, band)` in DN to logits `(n, y, x, class)`, compiled once."""
    import tensorflow as tf

    signature = [tf.TensorSpec((None, None, None, net.input_shape[-1]), tf.float32)]
    call = tf.function(lambda image: net(image, training=False), input_signature=signature)

    def predict(image: NDArray[Any]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = call(image.astype(np.float32)).numpy()
        return logits

    return predict


def make_deterministic(seed: int) -> None:
    """Seed every generator and let TensorFlow use deterministic kernels only, in this process."""
    keras = import_keras()
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
