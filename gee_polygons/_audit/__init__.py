"""What stands behind `gee_polygons.audit`.

`report`: findings, and how they are shown. `table`: which columns are vectors, sites and years. `values`: what single
rows give away. `rows`: what rows say about each other. `against`: what a reference table shows.
"""
