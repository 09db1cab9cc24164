"""The archive as a table: build it once, filter it with any tool, read only the pixels that are needed.

A `Collection` is a list of tiles with all that their headers say, one row a tile, in one GeoParquet file. DuckDB,
Polars, pyarrow and GeoPandas read it as a table; its pixels come as NumPy, xarray, GeoPandas, samples at points or a
TorchGeo dataset; and it is a source, ``extract_embeddings(sites, source=collection)``, that asks for no header again.
"""

from __future__ import annotations

from gee_polygons.collection.building import as_collection, build, build_from_table, load
from gee_polygons.collection.catalogue import Dataset, dataset, datasets, register
from gee_polygons.collection.tiles import Collection

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
