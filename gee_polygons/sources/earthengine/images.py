"""From a layer to one `ee.Image` of a period: filter, prepare, composite. Everything here only builds expressions.

A fully masked blank with the layer's bands lies under every composite. A period without a single image is then an image
without data (nulls), and not an image without bands (an error as soon as a band is asked for). Bands are cast, because
composites want all images alike.
"""

from __future__ import annotations

from typing import Any

import shapely

from gee_polygons.errors import UsageError
from gee_polygons.layers import CategoricalLayer, ContinuousLayer

Layer = ContinuousLayer | CategoricalLayer


def ee_region(geometry: Any) -> Any:
    """Return an `ee.Geometry` with straight edges in longitude and latitude.

    Parameters
    ----------
    geometry : shapely geometry in EPSG:4326, or ee.Geometry
        An `ee.Geometry` is returned as it is.
    """
    import ee

    if isinstance(geometry, shapely.Geometry):
        return ee.Geometry(shapely.geometry.mapping(geometry), None, False)
    if isinstance(geometry, ee.ComputedObject):
        return geometry
    raise UsageError(
        "geometry must be a shapely geometry (site.polygon) or an ee.Geometry (site.geometry), "
        f"found {type(geometry).__name__}"
    )


def period(layer: Layer, year: int, month: int | None = None) -> tuple[str, str]:
    """Return the first day of a year or month, and the first day after it: Earth Engine's ends are exclusive.

    Examples
    --------
    >>> layer = ContinuousLayer(name="n", collection_id="X/Y", bands=("b",), scale_m=10, first_year=2017)
    >>> period(layer, 2020)
    ('2020-01-01', '2021-01-01')
    >>> period(layer, 2020, 12)
    ('2020-12-01', '2021-01-01')
    """
    if isinstance(year, bool) or not isinstance(year, int):
        raise UsageError(f"year must be an int such as 2023, found {year!r}")
    if year < layer.first_year or (layer.last_year is not None and year > layer.last_year):
        last = "" if layer.last_year is None else f" and ends with {layer.last_year}"
        raise UsageError(f"{layer.name} begins with {layer.first_year}{last}, asked for {year}")
    if month is None:
        return f"{year}-01-01", f"{year + 1}-01-01"
    if month not in range(1, 13):
        raise UsageError(f"month must be 1..12, found {month!r}")
    following = f"{year + 1}-01-01" if month == 12 else f"{year}-{month + 1:02d}-01"
    return f"{year}-{month:02d}-01", following


def layer_collection(layer: Layer, geometry: Any, start: str, end: str) -> Any:
    """Return the layer's images of a period around a geometry, each with exactly the layer's bands.

    Parameters
    ----------
    layer : ContinuousLayer or CategoricalLayer
        A layer that is a collection of images.
    geometry : shapely geometry in EPSG:4326, ee.Geometry or None
        Where; None takes every image there is.
    start, end : str
        ISO dates; the end is not part of it.

    Returns
    -------
    ee.ImageCollection
        `system:time_start` is kept.
    """
    import ee

    found = ee.ImageCollection(layer.collection_id).filterDate(start, end)
    if geometry is not None:
        found = found.filterBounds(ee_region(geometry))

    def prepared(image: Any) -> Any:
        bands = layer.prepare(image) if layer.prepare is not None else image
        return _cast(layer, bands.select(_names(layer))).copyProperties(image, ["system:time_start"])

    return found.map(prepared)


def layer_image(layer: Layer, geometry: Any, year: int, month: int | None = None) -> Any:
    """Return one image of a year or month, with exactly the layer's bands; masked where there is no data.

    Parameters
    ----------
    layer : ContinuousLayer or CategoricalLayer
        What.
    geometry : shapely geometry in EPSG:4326, ee.Geometry or None
        Where images are looked for; pixels are not clipped to it.
    year : int
        When.
    month : int, optional
        1..12; the whole year if it isn't given.

    Returns
    -------
    ee.Image
        Of a collection it has no projection of its own: always reduce it with a `crs` and a `scale`.

    Raises
    ------
    UsageError
        For a year that the layer doesn't cover, or a month of a layer that has one image per year.
    """
    import ee

    start, end = period(layer, year, month)
    if isinstance(layer, CategoricalLayer) and layer.is_image:
        if month is not None:
            raise UsageError(f"{layer.name} has one image per year; leave month out")
        return _cast(layer, ee.Image(layer.collection_id).select([layer.band_of(year)], [layer.band_name]))
    names = _names(layer)
    blank = _cast(layer, ee.Image.constant([0] * len(names)).rename(names)).updateMask(0)
    images = ee.ImageCollection([blank]).merge(layer_collection(layer, geometry, start, end))
    return getattr(images, layer.composite)()


def _names(layer: Layer) -> list[str]:
    return [layer.band_name] if isinstance(layer, CategoricalLayer) else list(layer.bands)


def _cast(layer: Layer, image: Any) -> Any:
    return image.toInt16() if isinstance(layer, CategoricalLayer) else image.toFloat()
