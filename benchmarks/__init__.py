"""Side-by-side measurements, each against what a user would do without chipmill: `python -m benchmarks NAME`.

- baseline  the model's map against a per-pixel random forest, and water against NDWI on real scenes

A benchmark is a module with `measure(options) -> Iterator[Figure]`, named in `__main__`.
"""
