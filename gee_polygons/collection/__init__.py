"""Builds, opens and reads collections: an archive's tiles as a table, from which only the pixels needed are read.

A `Collection` is a table with one row for each tile, headers included, in one GeoParquet file. DuckDB,
Polars, pyarrow and GeoPandas read it as a table; its pixels come as NumPy, xarray, GeoPandas, samples at points or a
TorchGeo dataset; and it is a source, ``extract_embeddings(sites, source=collection)``, that reads no header again.
"""

from __future__ import annotations

from gee_polygons.collection.building import as_collection, build, build_from_table, load
from gee_polygons.collection.catalogue import Dataset, dataset, datasets, register
from gee_polygons.collection.tiles import Collection
from gee_polygons.moved import with_old_names

__all__ = [
    "Collection",
    "Dataset",
    "as_collection",
    "build",
    "build_from_table",
    "dataset",
    "datasets",
    "load",
    "register",
]

with_old_names(__name__)
