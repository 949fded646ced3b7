"""What can be known to be wrong with a training before anything is built or TensorFlow is loaded."""

from chipmill.core.errors import BadInputError
from chipmill.learning.model import check_chip_size, preset_widths
from chipmill.region.config import Region
from chipmill.region.jobs import TrainConfig
from chipmill.region.load import load_region
from chipmill.region.roots import check_roots


def check_training(train: TrainConfig, region: Region | None = None) -> None:
    """Refuse a preset that cannot take the chips of the regions that it learns from, and series.

    Args:
        train: the train file.
        region: the region that is built in the same run, if any; learnt from where the file lists no other.

    Raises:
        RegionFileError: a region file that the train file lists is missing, wrong, or outside CHIPMILL_ROOTS.
        BadInputError: ``size_px`` cannot be halved as often as the network needs, or differs between regions; or a
            region's samples have an axis of time, which the networks here do not take.
    """
    listed = [check_roots(load_region(train.resolve(path))) for path in train.datasets]
    regions = listed or ([region] if region is not None else [])
    for one in regions:
        if one.dataset.layout == "series":
            raise BadInputError(
                f"{one.file or one.name} has dataset.layout series, and model {train.name} takes no axis of time: set it "
                "to stack, or learn from the series with another program"
            )
    sizes = {one.dataset.chips.size_px: one.file or one.name for one in regions}
    for size_px, name in sizes.items():
        try:
            check_chip_size(size_px, preset_widths(train.preset))
        except BadInputError as error:
            raise BadInputError(f"{name} with preset {train.preset} of {train.name}: {error}") from error
    if len(sizes) > 1:
        told = ", ".join(f"{size_px} in {name}" for size_px, name in sizes.items())
        raise BadInputError(
            f"model {train.name} needs chips of one size, dataset.chips.size_px is {told}: make them equal"
        )
