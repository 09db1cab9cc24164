"""The global Zarr mosaic of embeddings."""
