"""The open archive of Cloud Optimized GeoTIFFs: its index, its tiles' headers, UTM zones and pixels."""

from gee_polygons.sources.cog.source import CogSource

__all__ = ["CogSource"]
