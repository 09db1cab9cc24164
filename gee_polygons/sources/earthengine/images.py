"""Builds the `ee.Image` of a layer and a period: filter, prepare, composite. No request is made.

A fully masked image with the layer's bands lies under every composite. So a period without a single image gives nulls,
and not an image without bands, of which every computation fails. Bands are cast, because composites need images of one
type.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pandas as pd
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


@lru_cache(4096)
def limits(period: str) -> tuple[str, str]:
    """Return the first day of a period, and the first day after it: Earth Engine's ends are exclusive.

    Examples
    --------
    >>> limits("2020"), limits("2020-12"), limits("2020-02-28")
    (('2020-01-01', '2021-01-01'), ('2020-12-01', '2021-01-01'), ('2020-02-28', '2020-02-29'))
    """
    span = pd.Period(period)
    return str(span.start_time.date()), str((span + 1).start_time.date())


def checked_period(layer: Layer, year: int, month: int | None = None) -> str:
    """Return the period of a year or month that the layer covers.

    Examples
    --------
    >>> layer = ContinuousLayer(name="n", collection_id="X/Y", bands=("b",), scale_m=10, first_year=2017)
    >>> checked_period(layer, 2020), checked_period(layer, 2020, 3)
    ('2020', '2020-03')
    """
    if isinstance(year, bool) or not isinstance(year, int):
        raise UsageError(f"year must be an int such as 2023, found {year!r}")
    if year < layer.first_year or (layer.last_year is not None and year > layer.last_year):
        last = "" if layer.last_year is None else f" and ends with {layer.last_year}"
        raise UsageError(f"{layer.name} begins with {layer.first_year}{last}, asked for {year}")
    if month is None:
        return f"{year}"
    if month not in range(1, 13):
        raise UsageError(f"month must be 1..12, found {month!r}")
    return f"{year}-{month:02d}"


def layer_collection(layer: Layer, geometry: Any, start: str, end: str) -> Any:
    """Return the layer's images of a period around a geometry over a blank one, each with exactly the layer's bands.

    Parameters
    ----------
    layer : ContinuousLayer or CategoricalLayer
        A layer whose asset is a collection of images.
    geometry : shapely geometry in EPSG:4326, ee.Geometry or None
        Region of interest; None takes images of all places.
    start, end : str
        ISO dates; the end is exclusive.

    Returns
    -------
    ee.ImageCollection
        `system:time_start` is kept.
    """
    import ee

    names = _names(layer)
    found = ee.ImageCollection(layer.collection_id).filterDate(start, end)
    if geometry is not None:
        found = found.filterBounds(ee_region(geometry))

    def prepared(image: Any) -> Any:
        bands = layer.prepare(image) if layer.prepare is not None else image
        return _cast(layer, bands.select(names)).copyProperties(image, ["system:time_start"])

    blank = _cast(layer, blank_image(names))
    return ee.ImageCollection([blank]).merge(found.map(prepared))


def blank_image(names: Sequence[str]) -> Any:
    """Return an `ee.Image` with float bands of these names, masked everywhere."""
    import ee

    return ee.Image.constant([0] * len(names)).toFloat().rename(list(names)).updateMask(0)


def layer_image(layer: Layer, geometry: Any, year: int, month: int | None = None) -> Any:
    """Return one image of a year or month, with exactly the layer's bands; masked where there is no data.

    Parameters
    ----------
    layer : ContinuousLayer or CategoricalLayer
        The layer.
    geometry : shapely geometry in EPSG:4326, ee.Geometry or None
        Selects images; pixels are not clipped to it.
    year : int
        Year.
    month : int, optional
        1..12. Default: the whole year.

    Returns
    -------
    ee.Image
        A composite has no projection of its own: always reduce it with a `crs` and a `scale`.

    Raises
    ------
    UsageError
        For a year that the layer doesn't cover, or a month of a layer that has one image per year.
    """
    import ee

    start, end = limits(checked_period(layer, year, month))
    if isinstance(layer, CategoricalLayer) and layer.is_image:
        if month is not None:
            raise UsageError(f"{layer.name} has one image per year; leave month out")
        return _cast(layer, ee.Image(layer.collection_id).select([layer.band_of(year)], [layer.band_name]))
    return getattr(layer_collection(layer, geometry, start, end), layer.composite)()


def _names(layer: Layer) -> list[str]:
    return [layer.band_name] if isinstance(layer, CategoricalLayer) else list(layer.bands)


def _cast(layer: Layer, image: Any) -> Any:
    return image.toInt16() if isinstance(layer, CategoricalLayer) else image.toFloat()
