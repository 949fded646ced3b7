"""What people look at: one self-contained HTML page for each dataset, model, map and run.

- dataset, model, map, run   the four pages: which sections, in which order, from which files   -> another section
- scenes, chips, gallery, predictions   the parts that need pixels: composites, split map, chips, predictions
- blocks     what a page is made of: tables, facts, pictures, charts
- page       blocks to HTML; templates/style.css is how it looks
- charts, grids, svg   drawings as pure functions
- images     arrays to pictures
- numbers    how numbers are written for people
"""
