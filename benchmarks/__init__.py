"""Side-by-side measurements, each against what a user would do without chipmill: `python -m benchmarks NAME`.

- baseline  the model's map against a per-pixel random forest, and water against NDWI on real scenes
- ranking   how often a block of a mask is decoded, and the time over decoding alone
- scaling   composites of 64 tiles by one and two workers; peak memory over tiles and dates
- search    requests of one search for 400 tiles x 5 slots

A benchmark is a module with `run(quick: bool) -> list[Figure]`, named in `__main__`; `archive` and `counting` serve them.
"""
