"""Sites on the standard archive, in metres."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyproj
import shapely

from gee_polygons.site import Site, SiteCollection


def lonlat(shape: Any, epsg: int = 32722) -> Any:
    """Project a shape in metres to longitude and latitude."""
    to = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True)
    return shapely.transform(shape, to.transform, interleaved=False)


def utm(sites: SiteCollection, epsg: int = 32722) -> Any:
    to = pyproj.Transformer.from_crs(4326, epsg, always_xy=True)
    return shapely.transform(np.array(sites.polygons), to.transform, interleaved=False)


CODES = SimpleNamespace(utm=utm)


def blob(x: float, y: float, radius: float, vertices: int = 24, seed: int = 0) -> Any:
    """An irregular outline."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    r = radius * (1 + 0.1 * rng.standard_normal(vertices).clip(-2, 2) / np.sqrt(vertices / 24))
    return shapely.Polygon(np.column_stack([x + r * np.cos(angle), y + r * np.sin(angle)]))


def site_at(site_id: int, x: float, y: float, half: float = 100, epsg: int = 32722) -> Site:
    """A square in metres."""
    return Site(polygon=lonlat(shapely.box(x - half, y - half, x + half, y + half), epsg), site_id=site_id)


def fields(n: int, seed: int = 0) -> SiteCollection:
    """Fields inside the western tile of the standard archive, x 700000..700960, y 7500000..7500960."""
    rng = np.random.default_rng(seed)
    places = rng.uniform((700_120, 7_500_120), (700_840, 7_500_840), (n, 2))
    return SiteCollection(
        Site(polygon=lonlat(blob(x, y, rng.uniform(40, 100), seed=i)), site_id=i) for i, (x, y) in enumerate(places)
    )
