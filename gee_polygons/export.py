"""The names of the module `export` of version 0.0.4, see `gee_polygons.moved`."""

from gee_polygons.moved import with_old_names

with_old_names(__name__)
