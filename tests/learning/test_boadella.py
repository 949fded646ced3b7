"""On real Sentinel-2 scenes the model finds water as well as the index does, on pixels that it has never seen."""

import os
import sys

import pytest
from benchmarks.baseline import boadella_trial

FOLDS = 3 if os.environ.get("CHIPMILL_PROFILE") == "nightly" else 1


@pytest.mark.real
@pytest.mark.tensorflow
@pytest.mark.timeout(900)
def test_water_on_held_back_pixels_is_as_good_as_ndwi(shared_data, tmp_path):
    trials = [boadella_trial(fold, tmp_path / str(fold)) for fold in range(FOLDS)]
    model = sum(trial.model for trial in trials) / FOLDS
    ndwi = sum(trial.ndwi for trial in trials) / FOLDS
    sys.stdout.write(f"water IoU over {FOLDS} folds: model {model:.3f}, NDWI > 0 {ndwi:.3f}\n")
    assert ndwi > 0.8, "the index finds this water: else the held-back pixels are not what they should be"
    assert model >= ndwi - 0.03
