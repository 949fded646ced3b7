"""Every error that chipmill raises on purpose: one sentence with what, where, expected against got, and the way out.

Each class also inherits the builtin that fits, so that callers may catch either. ``exit_code`` is what the command
line returns; ``transient`` tells a stage that the same unit may succeed a moment later.
"""

from typing import ClassVar


class ChipmillError(Exception):
    """Root of the tree; its text is one sentence for a person."""

    exit_code: ClassVar[int] = 1
    transient: ClassVar[bool] = False


class BadInputError(ChipmillError, ValueError):
    """What the user gave cannot be worked on; found before any work."""

    exit_code = 2


class RegionFileError(BadInputError):
    """A region, train or predict file has a field that is missing, unknown or wrong."""


class AoiError(BadInputError):
    """The area of interest is empty, broken or outside what can be covered."""


class GridError(BadInputError):
    """A pixel grid is not usable or does not fit another one."""


class LabelError(BadInputError):
    """A label layer holds undeclared values, lies on another grid or cannot be read as classes."""


class SplitError(BadInputError):
    """Blocks cannot be dealt to train, validation and test as asked."""


class SplitMismatchError(SplitError):
    """Of datasets that are used together, one trains on ground that another one holds back."""


class ItemSearchError(ChipmillError, OSError):
    """A catalog did not answer, or answered something that cannot be the whole truth."""


class AssetReadError(ChipmillError, OSError):
    """A raster could not be read; never replaced by zeros."""


class TransientReadError(AssetReadError):
    """A read failed in a way that may pass: throttled, timed out, cut connection."""

    transient = True


class AssetMismatchError(ChipmillError, ValueError):
    """A file and what is said of it disagree: band, grid, scale or offset."""


class OffsetContradictionError(AssetMismatchError):
    """An item says two things of its offset."""


class StoreError(ChipmillError, OSError):
    """The output directory could not be written or is not what it should be."""


class OutputError(StoreError):
    """The output cannot take what a run would write: no permission, no folder, or no room; found before any work."""

    exit_code = 2


class LockedError(StoreError):
    """Another run holds the lock of the same cell, model or map."""

    exit_code = 2


class DiskFullError(StoreError):
    """No space is left; the version in force is intact."""


class DamagedFileError(StoreError):
    """A file differs from what was committed."""


class VersionNotFoundError(StoreError, FileNotFoundError):
    """There is no committed version at this place."""


class TilesFailedError(ChipmillError, RuntimeError):
    """All other work of a stage is done, and these units failed."""

    exit_code = 3


class CountError(ChipmillError, RuntimeError):
    """planned = written + filtered + failed does not hold."""


class PoisonUnitError(ChipmillError, RuntimeError):
    """A unit of work killed its worker twice."""


class TrainingError(ChipmillError, RuntimeError):
    """Training cannot go on, for example because the loss is not a number."""


class SchemaMismatchError(ChipmillError, ValueError):
    """A model and a dataset, or two datasets, do not have the same bands, scales or classes."""


class CanaryError(ChipmillError, RuntimeError):
    """This rasterio/GDAL pair reads missing data as zeros, or a setting makes it unsafe."""


class ServerError(ChipmillError, RuntimeError):
    """The workflow server or the cluster could not be started or reached."""
