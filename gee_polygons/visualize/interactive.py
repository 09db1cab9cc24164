"""Draws interactive maps with lonboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import geopandas

from gee_polygons.errors import optional_import
from gee_polygons.sources.earthengine.session import earth_engine
from gee_polygons.visualize.basemap import tiles_of

OUTLINE: Final = [255, 176, 0, 255]
FILL: Final = [255, 176, 0, 40]


def interactive_map(
    sites: geopandas.GeoDataFrame,
    image: Any = None,
    vis_params: Mapping[str, Any] | None = None,
    basemap: bool | str = False,
) -> Any:
    """Return a lonboard map of sites, over a base map and an `ee.Image` if they are given."""
    needed = 'an interactive map needs lonboard: pip install "gee_polygons[map]"; render_image draws without it'
    lonboard = optional_import("lonboard", needed)
    urls = [tiles_of(basemap).build_url()] if basemap else []
    if image is not None:
        earth_engine()
        urls.append(image.getMapId(dict(vis_params or {}))["tile_fetcher"].url_format)
    layers = [lonboard.BitmapTileLayer(data=url, tile_size=256) for url in urls]
    outlines = lonboard.PolygonLayer.from_geopandas(
        _arrow_ready(sites), get_line_color=OUTLINE, get_fill_color=FILL, line_width_min_pixels=2
    )
    return lonboard.Map([*layers, outlines])


def _arrow_ready(sites: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Convert columns of mixed values, such as ids 7 and "a", to text: an Arrow column has one type."""
    mixed = [name for name in sites.columns.drop(sites.geometry.name) if sites[name].dtype == object]
    return sites.assign(**{name: sites[name].map(str, na_action="ignore") for name in mixed})
