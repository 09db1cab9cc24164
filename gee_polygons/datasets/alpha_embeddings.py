"""AlphaEarth Foundations annual embeddings: a vector of 64 numbers for every 10 m of land and every year.

A single band has no meaning: the vector of a pixel has length 1, and its direction says what is there. The mean over a
polygon is shorter, the more varied the polygon is; `gee_polygons.similarity_matrix` takes that into account.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import shapely

from gee_polygons.alphaearth import ALPHA_EMBEDDINGS, BANDS, EMBEDDING_YEARS, checked_bands
from gee_polygons.errors import UsageError

__all__ = [
    "ALPHA_EMBEDDINGS",
    "EMBEDDING_BANDS",
    "EMBEDDING_VIS_ALT1",
    "EMBEDDING_VIS_ALT2",
    "EMBEDDING_VIS_DEFAULT",
    "EMBEDDING_YEARS",
    "get_embedding_image",
]

EMBEDDING_BANDS: Final[list[str]] = list(BANDS)
"""Band names A00..A63; a list, so that ``df[EMBEDDING_BANDS]`` takes columns."""

EMBEDDING_VIS_DEFAULT: Final[dict[str, Any]] = {"min": -0.3, "max": 0.3, "bands": ["A01", "A16", "A09"]}
"""The bands that Google's examples show as red, green and blue."""
EMBEDDING_VIS_ALT1: Final[dict[str, Any]] = {"min": -0.3, "max": 0.3, "bands": ["A00", "A32", "A63"]}
"""'Spread': first, middle and last band."""
EMBEDDING_VIS_ALT2: Final[dict[str, Any]] = {"min": -0.3, "max": 0.3, "bands": ["A05", "A25", "A45"]}
"""'Alt': another three."""


def get_embedding_image(geometry: Any, year: int, bands: Sequence[str] | None = None, *, source: Any = None) -> Any:
    """Return the embedding image of a year around a geometry.

    Parameters
    ----------
    geometry : shapely geometry in EPSG:4326, or ee.Geometry
        Region of interest: `Site.polygon`, `Site.region()` or `Site.geometry`.
    year : int
        2017 or later.
    bands : sequence of str, optional
        Bands to select, in this order. Default: all 64.
    source : str, path or Source, optional
        For a shapely geometry: where pixels come from, see `gee_polygons.open_source`.

    Returns
    -------
    EmbeddingImage for a shapely geometry, ee.Image for an ee.Geometry
        Either kind goes into `gee_polygons.visualize.render_image`.

    Raises
    ------
    UsageError
        For an unknown band, a year without embeddings, or a geometry of another type.

    Examples
    --------
    >>> import shapely
    >>> region = shapely.box(-48.048, -22.344, -48.043, -22.339)
    >>> get_embedding_image(region, 2023, ["A01", "A16", "A09"], source="sample")
    EmbeddingImage(3 bands, ...2023, EPSG:32722)
    """
    wanted = _year(year)
    names = _bands(bands)
    if isinstance(geometry, shapely.Geometry):
        from gee_polygons.sources.opening import open_source

        opened = open_source(source)
        if wanted not in (there := opened.years()):
            raise UsageError(f"source {opened.name!r} has no year {wanted}; it has {_span(there)}")
        return opened.image(geometry, wanted, names)
    ee = sys.modules.get("ee")  # imported by whoever made an ee.Geometry
    if ee is not None and isinstance(geometry, ee.ComputedObject):
        from gee_polygons.sources.earthengine.images import layer_image
        from gee_polygons.sources.earthengine.reductions import possible_years
        from gee_polygons.sources.earthengine.session import earth_engine

        if source not in (None, "earthengine"):
            raise UsageError(
                f"an ee.Geometry is read from Earth Engine, not from source={source!r}; pass site.polygon instead"
            )
        # also a year published since this version was made; one that isn't published yet is an image without data
        if wanted not in possible_years():
            raise UsageError(f"no embeddings are published for {wanted}; there are {_span(EMBEDDING_YEARS)}")
        earth_engine()
        image = layer_image(replace(ALPHA_EMBEDDINGS, last_year=None), geometry, wanted)
        return image if names is None else image.select(names)
    raise UsageError(
        "geometry must be a shapely geometry (site.polygon) or an ee.Geometry (site.geometry), "
        f"found {type(geometry).__name__}"
    )


def _year(year: int) -> int:
    try:
        wanted = operator.index(year)
    except TypeError:
        raise UsageError(f"year must be an int such as 2023, found {year!r}") from None
    if wanted < EMBEDDING_YEARS.start:
        raise UsageError(f"embeddings begin with {EMBEDDING_YEARS.start}, asked for {wanted}")
    return wanted


def _bands(bands: Sequence[str] | None) -> list[str] | None:
    if bands is None:
        return None
    names = [bands] if isinstance(bands, str) else list(bands)
    checked_bands(list(dict.fromkeys(names)))  # an image may have a band twice
    return names


def _span(years: Sequence[int]) -> str:
    if not years:
        return "none"
    first, last = min(years), max(years)
    gaps = sorted(set(range(first, last + 1)) - set(years))
    return f"{first}..{last}" + (f" without {', '.join(map(str, gaps))}" if gaps else "")
