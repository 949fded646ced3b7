"""Composites that are ready, a folder for each year, with terrain: glaciers as in GlacierCoverNet."""
