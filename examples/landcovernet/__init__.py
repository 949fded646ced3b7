"""Label items with five periods of imagery each, as in LandCoverNet."""
