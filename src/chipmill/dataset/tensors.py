"""A dataset as a ``tf.data.Dataset``: batches come ready from our reader, so TensorFlow parses and copies nothing.

The file to change for what TensorFlow is handed. It is imported where TensorFlow is wanted and nowhere else.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from chipmill.dataset.batching import Batch, forms
from chipmill.dataset.places import Ints
from chipmill.dataset.records import RecordSpec

if TYPE_CHECKING:
    import tensorflow as tf

_AHEAD: Final = 2
_FULL_WEIGHT: Final = 254
"""What a weight of 1 is stored as."""


def feed(read: Callable[[Ints], Batch], groups: Sequence[Ints], spec: RecordSpec) -> "tf.data.Dataset":
    """Return a batch for each group of places, in order; ``read`` makes it, on the threads of tf.data.

    The elements are those of :meth:`chipmill.dataset.reader.Dataset.to_tf`.
    """
    import tensorflow as tf

    kinds = {name: (shape, tf.as_dtype(dtype)) for name, (shape, dtype) in forms(spec).items() if shape[0]}
    # all but the last are of one size
    size = len(groups[0]) if len({len(group) for group in groups}) == 1 else None

    def arrays(step: int) -> list[Any]:
        batch = read(groups[step])
        return [getattr(batch, name) for name in kinds]

    def made(step: Any) -> tuple[Any, ...]:
        found = tf.numpy_function(arrays, [step], [dtype for _, dtype in kinds.values()])
        pixels = {
            name: tf.ensure_shape(one, (size, *shape))
            for one, (name, (shape, _)) in zip(found, kinds.items(), strict=True)
        }
        return _elements(pixels)

    steps = tf.data.Dataset.range(len(groups))
    return steps.map(made, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(_AHEAD)


def _elements(pixels: dict[str, Any]) -> tuple[Any, ...]:
    """(image, label), image and static as a dict where there are both, and the weight 0..1 where there is one."""
    import tensorflow as tf

    image: Any = pixels["image"]
    if "static" in pixels:
        image = {"image": image, "static": pixels["static"]}
    if "weight" not in pixels:
        return image, pixels["label"]
    return image, pixels["label"], tf.cast(pixels["weight"], tf.float32) / _FULL_WEIGHT
