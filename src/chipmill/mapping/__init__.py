"""mapping: from a model and the stacks of a region to a map with areas.

- prediction  plan_map, predict_strips: rows of the raster, predicted and staged
- outputs     stitch_map, publish_map: the strips as cloud-optimised GeoTIFFs   -> another output file
- areas       estimate_areas: hectares per class                                -> another area figure
- files       names of the files of a map version
"""
