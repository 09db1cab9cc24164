"""Embeddings and imagery from Google Earth Engine, reduced on its servers."""

from gee_polygons.sources.earthengine.source import (
    EarthEngineSource,
    RequestCost,
    connect,
    fetch_pixels,
    shapely_geometry,
)

__all__ = ["EarthEngineSource", "RequestCost", "connect", "fetch_pixels", "shapely_geometry"]
