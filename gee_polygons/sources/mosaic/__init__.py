"""Reads the global Zarr mosaic of embeddings."""

from gee_polygons.sources.mosaic.source import MOSAIC_URL, MosaicSource

__all__ = ["MOSAIC_URL", "MosaicSource"]
