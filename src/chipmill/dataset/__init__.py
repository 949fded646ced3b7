"""dataset: from composites and label layers to shards, tables and the manifest that is the dataset.

In the order of the work: ``labels`` (with ``classes``, ``painting``, ``static``), ``stack`` (with ``rasters``,
``vrt``), ``windows`` (with ``histograms``), ``splits``, ``selection``, ``records``, ``shards``, ``manifest``; then
``reader`` (with ``opening``, ``batching``, ``feeding``, ``tensors``; ``views`` and ``plotting`` for notebooks; ``union``
and ``leaks`` for several datasets as one) and ``verify`` for those who use it.
"""
