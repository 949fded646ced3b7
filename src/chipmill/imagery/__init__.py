"""imagery: from the archive to composites - search, frozen items, ranking per tile and slot, reduction over time.

The file to change: another source of items - asking; another STAC dialect - stac; what a product's numbers mean, and
the offset of Sentinel-2 - profiles; what servers are sent of a condition - pushdown; how files are opened - sources;
how pixels reach a tile's grid - reading; which acquisitions are used - ranking;
another composite - composite and its arithmetic in kernels; another index - indices.
"""
