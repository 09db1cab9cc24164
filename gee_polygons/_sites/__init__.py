"""What stands behind `gee_polygons.site`: the door (files, tables, polygons), measures on the ellipsoid, drawings.

`files` reads, `table` finds ids and years, `polygons` brings geometries to EPSG:4326; behind the door nothing is
checked again. Private: import from `gee_polygons.site`.
"""
