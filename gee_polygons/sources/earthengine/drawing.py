"""What pictures need of Earth Engine: pixels of any image, and shapes of its geometries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import shapely
import shapely.geometry

from gee_polygons.alphaearth import BANDS
from gee_polygons.errors import UsageError
from gee_polygons.reduction.plan import EmbeddingImage
from gee_polygons.reduction.windows import lattice_window
from gee_polygons.sources.earthengine.pixels import compute_grid
from gee_polygons.sources.earthengine.session import earth_engine, service_identity
from gee_polygons.sources.earthengine.transport import Service
from gee_polygons.zonal.grid import Lattice
from gee_polygons.zonal.zones import bounding_boxes, home_zones

FINEST_M: Final = 10.0  # pixels of the finest dataset here; finer ones would only be copies
MOST_NATIVE_PX: Final = 1_500_000  # a picture of more ground is read coarser, no finer than it shows
MISSING: Final = -1e30  # far from every value, and a float32
_REMEMBERED: Final = 256

_known: OrderedDict[tuple[str, str], shapely.Geometry] = OrderedDict()
_lock = threading.Lock()


def fetch_pixels(
    image: Any, region: shapely.Geometry, bands: Sequence[str] | None, dimensions: int | tuple[int, int] | str
) -> EmbeddingImage:
    """Return the pixels of an `ee.Image` that a picture of a region needs.

    Parameters
    ----------
    image : ee.Image
        Any image.
    region : shapely geometry in EPSG:4326
        What is shown.
    bands : sequence of str or None
        Which bands; None for all.
    dimensions : int, (width, height) or "WIDTHxHEIGHT"
        Largest size of the picture.

    Returns
    -------
    EmbeddingImage
        float32, NaN where the image is masked, on the UTM grid of the region's centroid.

    Raises
    ------
    EarthEngineError
        If Earth Engine can't be asked, or refuses.
    """
    import ee

    earth_engine()
    if not isinstance(image, ee.Image):
        raise UsageError(f"image is an ee.Image, found {type(image).__name__}; a collection needs .mosaic() first")
    if bands is not None:
        image = image.select(list(dict.fromkeys(bands)))
    box = bounding_boxes(np.array([region], object))[0]
    crs = str(home_zones(np.array([box], object))[0])
    lattice = Lattice(crs, FINEST_M, FINEST_M)
    window = lattice_window(box, lattice)
    if window.height * window.width > MOST_NATIVE_PX:
        side = max(window.height, window.width) * FINEST_M / _longest(dimensions)
        step = max(FINEST_M, side)
        lattice = Lattice(crs, step, step)
        window = lattice_window(box, lattice)
    service = Service()
    try:
        n_bands = len(BANDS) if bands is None else len(set(bands))
        filled = image.toFloat().unmask(MISSING, False)
        found = compute_grid(service, filled, lattice, window, n_bands=n_bands, itemsize=4)
    finally:
        service.close()
    names = tuple(found.dtype.names or ())
    values = np.stack([found[name].astype(np.float32) for name in names])
    values[values <= MISSING / 2] = np.nan
    return EmbeddingImage(values=values, grid=lattice.grid(window), bands=names, source="earthengine")


def shapely_geometry(geometry: Any) -> shapely.Geometry:
    """Return an `ee.Geometry` as shapely, EPSG:4326.

    One that was written out here, such as `site.geometry`, is converted without a request; one that Earth Engine
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
        return _shape(geometry.toGeoJSON())
    except ee.EEException:
        pass  # computed
    key = (service_identity(), serializer.toJSON(geometry))
    with _lock:
        if key in _known:
            return _known[key]
    service = Service()
    try:
        found = _shape(service.value(geometry))
    finally:
        service.close()
    with _lock:
        _known[key] = found
        while len(_known) > _REMEMBERED:
            _known.popitem(last=False)
    return found


def _shape(geojson: dict[str, Any]) -> shapely.Geometry:
    """GeoJSON to shapely; rings may be open, as they are sent."""
    kind, coordinates = geojson["type"], geojson.get("coordinates", [])
    if kind == "Polygon":
        return shapely.Polygon(coordinates[0], coordinates[1:])
    if kind == "MultiPolygon":
        return shapely.MultiPolygon([(rings[0], rings[1:]) for rings in coordinates])
    return shapely.geometry.shape(geojson)


def _longest(dimensions: int | tuple[int, int] | str) -> int:
    if isinstance(dimensions, str):
        return max(int(part) for part in dimensions.lower().split("x"))
    return max(dimensions) if isinstance(dimensions, tuple | list) else int(dimensions)
