"""chipmill: from a region file to chips, a trained segmentation model and a map.

The rooms stand in data order, and each imports only from those before it: core, region, imagery, dataset,
learning, mapping, report and exchange, orchestration; then tasks (how it runs), flows (in which order), and
demo, doctor and cli. This file imports nothing before it is asked for, so that `import chipmill` costs nothing.

`chipmill.open_dataset` is what a notebook needs: see :mod:`chipmill.dataset.reader`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chipmill.dataset.reader import open_dataset

__all__ = ["open_dataset"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name in __all__:
        from chipmill.dataset import reader

        return getattr(reader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
