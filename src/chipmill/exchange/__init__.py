"""Datasets in the formats of other programs, in and out; `chipmill convert` is the command.

- staging      an output folder that appears whole or not at all; nothing is overwritten
- sources      what lies in a source folder: sorted, hashed, links refused
- origin       chipmill.json and chips.csv beside an export: what came from where, read again at the import
- chips        a chip on its way: from and to a sample of ours
- imported     a version of a dataset from chips of others; imported_facts has its manifest, places its lattices
- exporting    the splits of an exported dataset, a folder each
- importing    where that version lies in the output folder
- pairs        chips as two pictures of one name
- dealing      train, val and test for a folder that is not divided
- rasters      the pictures of other programs, one driver each
- esri         Esri Classified Tiles in and out; esri_files has its text and JSON files, esri_tally the figures in them
- folders      folders of GeoTIFF pairs in and out
- dtypes       a tree of GeoTIFFs in another pixel type
- mixer        Earth Engine's mixer.json: where each patch lies
- ee_records   Earth Engine's TFRecords: lists of floats, integers or bytes; ee_values stores them as integers
- earthengine  Earth Engine's records into a dataset; earthengine_map joins patches to a raster, earthengine_out writes
- dl_records   TFRecords of dl_image_segmentation in
"""
