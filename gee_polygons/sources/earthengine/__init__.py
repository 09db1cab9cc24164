"""Google Earth Engine: embeddings and other layers, reduced on its servers."""

from gee_polygons.sources.earthengine.drawing import fetch_pixels, shapely_geometry
from gee_polygons.sources.earthengine.session import connect
from gee_polygons.sources.earthengine.source import EarthEngineSource, RequestCost

__all__ = ["EarthEngineSource", "RequestCost", "connect", "fetch_pixels", "shapely_geometry"]
