"""What `gee_polygons.change` and `gee_polygons.recovery` are made of: series, drift, templates, testing.

Arrays in, arrays out; nothing here reads a file. The public names are in those two modules.
"""
