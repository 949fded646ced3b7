"""region: from a region file to what is to be done - parameters, grids, tiles, slots, windows - without reading pixels."""
