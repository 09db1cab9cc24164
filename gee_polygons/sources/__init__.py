"""Sources of embeddings, a folder or a module for each kind; `opening` opens one by its name, path or URL."""

from gee_polygons.sources.opening import open_source

__all__ = ["open_source"]
