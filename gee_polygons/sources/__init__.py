"""Where pixels or statistics come from: the protocols in `base`, one module per kind of source."""

from gee_polygons.sources.opening import open_source

__all__ = ["open_source"]
