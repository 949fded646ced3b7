"""imagery: from the archive to composites - search, frozen items, ranking per tile and slot, reduction over time.

The file to change: another source of items - catalog, api, static; another STAC dialect or offset rule - stac;
how files are opened - sources; how pixels reach a tile's grid - reading; which acquisitions are used - ranking;
another composite - composite and its arithmetic in kernels; another index - indices.
"""
