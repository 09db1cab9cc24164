"""What `gee_polygons.collection` is made of: the catalogue, the table, geometries of any kind, and pixels."""
