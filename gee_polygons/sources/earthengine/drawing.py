"""Reads the pixels of any `ee.Image` for rendering, and converts `ee.Geometry` to shapely."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any, Final

import numpy as np
import shapely
from shapely.geometry import shape

from gee_polygons.alphaearth import BANDS
from gee_polygons.errors import UsageError
from gee_polygons.reduction.plan import EmbeddingImage
from gee_polygons.sources.earthengine.pixels import compute_grid, window_of_region
from gee_polygons.sources.earthengine.session import earth_engine, service_identity
from gee_polygons.sources.earthengine.transport import Service

FINEST_M: Final = 10.0  # pixel size of the finest dataset here; finer pixels would only be copies
MAX_NATIVE_PX: Final = 1_500_000  # larger regions are read in the resolution of the picture
MISSING: Final = -1e30  # in place of masked pixels: far from every value, and a float32


def fetch_pixels(image: Any, region: shapely.Geometry, bands: Sequence[str] | None, longest_px: int) -> EmbeddingImage:
    """Return the pixels of an `ee.Image` in a region, as fine as a picture of a given size needs.

    Parameters
    ----------
    image : ee.Image
        Any image.
    region : shapely geometry in EPSG:4326
        The region.
    bands : sequence of str or None
        Band names; None for all.
    longest_px : int
        Longer side of the picture.

    Returns
    -------
    EmbeddingImage
        float32, NaN where the image is masked, on the UTM grid of the region's centroid.

    Raises
    ------
    EarthEngineError
        If Earth Engine isn't initialised, or the request fails.
    """
    import ee

    earth_engine()
    if not isinstance(image, ee.Image):
        raise UsageError(f"image is an ee.Image, found {type(image).__name__}; a collection needs .mosaic() first")
    if bands is not None:
        image = image.select(list(dict.fromkeys(bands)))
    lattice, window = window_of_region(region, FINEST_M)
    if window.height * window.width > MAX_NATIVE_PX:
        side_m = max(window.height, window.width) * FINEST_M
        lattice, window = window_of_region(region, max(FINEST_M, side_m / longest_px))
    n_bands = len(BANDS) if bands is None else len(set(bands))
    filled = image.toFloat().unmask(MISSING, False)
    with closing(Service()) as service:
        found = compute_grid(service, filled, lattice, window, n_bands=n_bands, itemsize=4)
    names = tuple(found.dtype.names or ())
    values = np.stack([found[name].astype(np.float32) for name in names])
    values[values <= MISSING / 2] = np.nan
    return EmbeddingImage(values=values, grid=lattice.grid(window), bands=names, source="earthengine")


def shapely_geometry(geometry: Any) -> shapely.Geometry:
    """Return an `ee.Geometry` as shapely, EPSG:4326.

    A geometry of known coordinates, such as `site.geometry`, is converted without a request; one that Earth Engine
    computes, such as ``site.geometry.buffer(500).bounds()``, takes one request, once.
    """
    import ee
    from ee import serializer

    earth_engine()
    if isinstance(geometry, ee.Feature | ee.FeatureCollection):
        geometry = geometry.geometry()
    if not isinstance(geometry, ee.Geometry):
        raise UsageError(f"a geometry is an ee.Geometry or a shapely geometry, found {type(geometry).__name__}")
    try:
        return shape(geometry.toGeoJSON())
    except ee.EEException:
        pass  # computed
    return _computed_shape(service_identity(), str(serializer.toJSON(geometry)))


@lru_cache(256)
def _computed_shape(service_name: str, expression: str) -> shapely.Geometry:
    """Return a geometry that a service (the name only tells results of several apart) computes."""
    with closing(Service()) as service:
        return shape(service.value(json.loads(expression)))
