"""Warns of years in which no site has data, with what the source covers and where the sites are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.errors import GeePolygonsError, warn_data
from gee_polygons.periods import years_text
from gee_polygons.zonal.projection import transformer

Bounds = tuple[float, ...]

_WITHOUT_DATA: Final = ("no_data", "masked")  # a mosaic's chunk that was never written counts as masked
_TRIED: Final = 3  # sites that are looked for with longitude and latitude swapped


def degrees(bounds: Bounds, crs: str) -> Bounds:
    """Return (west, south, east, north) of a grid in degrees."""
    west, south, east, north = bounds
    return tuple(map(float, transformer(crs, "EPSG:4326").transform_bounds(west, south, east, north)))


def warn_of_nothing(
    source: Any, polygons: NDArray[Any], years: Sequence[int], status: NDArray[Any],
    reduce: Callable[[NDArray[Any], list[int]], NDArray[Any]],
) -> list[int]:  # fmt: skip
    """Warn if no site has data in some year.

    Parameters
    ----------
    source : Source
        Its `years` are stated, and its `extent` (degrees) if it has such a method.
    polygons : array of shapely Polygon or MultiPolygon
        EPSG:4326.
    years : sequence of int
        Years asked for.
    status : array of str, shape (polygons, years)
        Status of each site-year.
    reduce : callable
        Returns the status of other polygons and years: with it sites are looked for with longitude and latitude
        swapped, where nothing at all was found.

    Returns
    -------
    list of int
        The years without data.
    """
    nothing = np.atleast_1d(np.isin(status, _WITHOUT_DATA).all(axis=0))
    found = [int(year) for year, is_empty in zip(years, nothing, strict=True) if is_empty]
    if not found or not len(polygons):
        return []
    is_swapped = False
    with suppress(GeePolygonsError):  # the source can't be read any more
        here = [year for year in years if year in source.years()]
        swapped = _swapped(polygons) if nothing.all() and here else polygons[:0]
        is_swapped = bool(len(swapped)) and bool((reduce(swapped, here[-1:]) == "ok").any())
    warn_data(
        f"no site has data{'' if nothing.all() else f' in {years_text(found)}'}: {both_extents(source, polygons)}"
        + ("; with longitude and latitude swapped they have data" if is_swapped else "")
    )
    return found


def both_extents(source: Any, polygons: NDArray[Any]) -> str:
    """Say which places and years a source covers, and where sites are."""
    said: list[str] = []
    with suppress(GeePolygonsError):
        said = [_area(source.extent() if hasattr(source, "extent") else None), years_text(source.years())]
    covers = ", ".join(text for text in said if text) or "other places or years"
    return f"the source {source.name} covers {covers}; your sites are at {_area(shapely.total_bounds(polygons))}"


def _swapped(polygons: NDArray[Any]) -> NDArray[Any]:
    """Return a few of the polygons with longitude and latitude swapped, if that is a place on Earth."""
    few = polygons[np.unique(np.linspace(0, len(polygons) - 1, _TRIED).astype(int))]
    few = np.array(shapely.transform(few, lambda xy: xy[:, ::-1]), object)
    return few[np.abs(shapely.bounds(few)[:, [1, 3]]).max(axis=1) <= 90]


def _area(bounds: Bounds | None) -> str:
    if bounds is None or not np.isfinite(bounds).all():
        return ""
    west, south, east, north = bounds
    return f"longitude {west:.3f}..{east:.3f}, latitude {south:.3f}..{north:.3f}"
