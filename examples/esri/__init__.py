"""Polygons as labels, Esri's Classified Tiles out of them, and TFRecords out of those."""
