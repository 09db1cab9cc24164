"""Reads the global Zarr mosaic of embeddings.

``source`` plans and reads blocks of an opened ``mosaic``; ``zarr_store`` opens its array, ``layout`` reads its grid,
years and bands, ``chunks`` finds the byte ranges of its chunks, and ``blocks`` decodes them into pixels.
"""

from gee_polygons.sources.mosaic.source import MOSAIC_URL, MosaicSource

__all__ = ["MOSAIC_URL", "MosaicSource"]
