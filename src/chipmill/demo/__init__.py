"""The embedded world: a simulated region with scenes, labels and terrain, and a local STAC API that serves it.

Everything that `chipmill demo` and most tests work on is made here, without a network and the same for the same seed.

- world        make_world: the whole region as files, and World, which says where they lie
- landscape    terrain, rivers, fields, towns, forests: which land cover each pixel has
- signatures   the classes and how each cover looks in each band through the year
- scenes       the dates of the year; clouds, shadows, snow, haze and noise of one acquisition
- granules     cuts a pass into the files of both UTM zones
- noise        fractal fields and hashed random numbers
- rasters      writes COGs and label polygons
- stac_files   writes STAC items and the static catalog
- engine       reads a static catalog and answers item searches in process; query: what may be asked
- conditions   what an item must meet: the query extension and CQL2; arranging: sortby and fields
- api          the same search over HTTP, and the files with range requests; handlers: the answers
"""
