"""Polygons in, exact yearly AlphaEarth embeddings out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gee_polygons.bulk import Run, extract_to_parquet
    from gee_polygons.collection import Collection, as_collection, build, build_from_table, load
    from gee_polygons.costs import compare_sources
    from gee_polygons.embeddings.similarity import similarity_matrix
    from gee_polygons.extract import extract_embeddings
    from gee_polygons.layers import CategoricalLayer, ContinuousLayer
    from gee_polygons.site import Site, SiteCollection, load_sites, sites_from_geodataframe
    from gee_polygons.sources import open_source
    from gee_polygons.version import __version__ as __version__

__all__ = [
    "CategoricalLayer",
    "Collection",
    "ContinuousLayer",
    "Run",
    "Site",
    "SiteCollection",
    "as_collection",
    "build",
    "build_from_table",
    "compare_sources",
    "extract_embeddings",
    "extract_to_parquet",
    "load",
    "load_sites",
    "open_source",
    "similarity_matrix",
    "sites_from_geodataframe",
]

# name -> module; imported at first use, so that `import gee_polygons` stays fast
_HOME = {
    "__version__": "gee_polygons.version",
    "CategoricalLayer": "gee_polygons.layers",
    "Collection": "gee_polygons.collection",
    "ContinuousLayer": "gee_polygons.layers",
    "Run": "gee_polygons.bulk",
    "Site": "gee_polygons.site",
    "SiteCollection": "gee_polygons.site",
    "as_collection": "gee_polygons.collection",
    "build": "gee_polygons.collection",
    "build_from_table": "gee_polygons.collection",
    "compare_sources": "gee_polygons.costs",
    "extract_embeddings": "gee_polygons.extract",
    "extract_to_parquet": "gee_polygons.bulk",
    "load": "gee_polygons.collection",
    "load_sites": "gee_polygons.site",
    "open_source": "gee_polygons.sources.opening",
    "similarity_matrix": "gee_polygons.embeddings.similarity",
    "sites_from_geodataframe": "gee_polygons.site",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        return importlib.import_module("gee_polygons.moved").old_name(__name__, name)
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
