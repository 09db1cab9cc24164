"""Extracts any number of sites into a dataset of GeoParquet files: in chunks, resumable, on one machine or on many."""

from gee_polygons.bulk.run import Run, extract_to_parquet

__all__ = ["Run", "extract_to_parquet"]
