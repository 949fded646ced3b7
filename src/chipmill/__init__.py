"""chipmill: from a region file to chips, a trained segmentation model and a map.

The rooms stand in data order, and each imports only from those before it: core, region, imagery, dataset,
learning, mapping, report and exchange, orchestration; then tasks (how it runs), flows (in which order), and
demo, doctor and cli. This file imports nothing, so that `import chipmill` costs nothing.
"""

__version__ = "0.1.0"
