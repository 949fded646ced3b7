"""Debris on glaciers: optical and terrain of the year of each outline, and moving windows where classes mix."""
