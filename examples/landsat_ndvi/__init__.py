"""A year of two Landsats, masked by their quality bits, as a median with NDVI."""
