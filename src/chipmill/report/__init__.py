"""What people look at: one self-contained HTML page for each dataset, model, map and run.

- dataset, model, map, run   the four pages: which sections, in which order, from which files   -> another section
- scenes, acquisitions, chips, gallery, predictions   the parts that need pixels: composites, what they were chosen
             from, split map, chips, predictions
- remarks    what composites note of themselves, e.g. values that were cut
- quicklooks one acquisition read small from its archive
- blocks     what a page is made of: tables, facts, pictures, charts
- page       blocks to HTML; templates/style.css is how it looks
- charts, grids, svg   drawings as pure functions
- images     arrays to pictures
- zones      one picture of a region in several UTM zones
- numbers    how numbers are written for people
"""
