"""Points of a survey: neighbourhoods of 257 pixels with NDVI, as Earth Engine's arrays have them."""
