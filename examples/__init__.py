"""Worked examples: each folder holds a region file, a page on what it shows, and a script that simulates its data."""
