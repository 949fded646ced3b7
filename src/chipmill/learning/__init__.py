"""learning: from shards to a model with honest figures.

- model        the U-Net; scaling and nodata are part of it     -> another network
- losses       Dice, cross-entropy, with an ignore label        -> another loss
- schema       what model.json keeps of what a model expects of its input (see dataset.union)
- augmentation flips and turns of chips                         -> another augmentation
- feed         the chips of several datasets as one sequence
- training     fit_model: the epochs, early stopping, resume    -> another optimiser or schedule
- checkpoints  the state of a training between two epochs, on disk
- blending     overlapping windows blended into one seamless prediction; evaluation and maps both use it
- metrics      scores of a confusion matrix and their intervals -> another figure
- calibration  temperature of the probabilities and the calibration error
- stacks       the stacks of a dataset version as rasters to predict on
- evaluation   evaluate_model: whole held-out blocks, each pixel once
- bundle       the model directory: sealed, published, found again, loaded
- files        names of the files of a model version
- card         the model card and the STAC item, for people and other programs

TensorFlow and Keras are imported inside functions only.
"""
