"""`Site`: a polygon with an id, a start year and properties."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import shapely

from gee_polygons.alphaearth import EMBEDDING_YEARS
from gee_polygons.errors import SiteError, UsageError
from gee_polygons.moved import with_old_members
from gee_polygons.site import geodesy as measures
from gee_polygons.site import html
from gee_polygons.site.polygons import polygon_fault
from gee_polygons.site.values import plain, plain_id, plain_year
from gee_polygons.site.verbs import SiteVerbs

SHOWN_PROPERTIES: Final = 10  # in the HTML of a notebook


@with_old_members
@dataclass(frozen=True, kw_only=True, repr=False)
class Site(SiteVerbs):
    """A polygon with an id, a start year and other properties; immutable.

    Usually made by `load_sites`, which also repairs and reprojects. Here the polygon must be valid and in EPSG:4326.

    Parameters
    ----------
    polygon : shapely.Polygon or shapely.MultiPolygon
        EPSG:4326 (longitude, latitude), valid. Z is dropped.
    site_id : int or str
        Unique within a collection.
    start_year : int, optional
        Year in which the restoration (or another intervention) started.
    properties : mapping, optional
        Other attributes; made read-only, with plain Python values and None for missing ones.

    Raises
    ------
    SiteError
        If the polygon is not a valid polygon in longitude and latitude.

    Examples
    --------
    >>> import shapely
    >>> site = Site(polygon=shapely.box(-50, -10, -49.99, -9.99), site_id=3107, start_year=2016)
    >>> site
    Site(id=3107, start_year=2016)
    >>> round(site.area_ha, 2)
    121.27
    """

    polygon: Any
    site_id: int | str
    start_year: int | None = None
    properties: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        site_id = plain_id(self.site_id)
        if site_id is None:
            raise SiteError(f"a site needs an id, found {self.site_id!r}")
        if fault := polygon_fault(self.polygon):
            raise SiteError(f"site {site_id}: its polygon {fault}; `load_sites` repairs and reprojects")
        self._set(shapely.force_2d(self.polygon), site_id, plain_year(self.start_year), plain(self.properties))

    @classmethod
    def _trusted(cls, polygon: Any, site_id: int | str, start_year: int | None, properties: dict[str, Any]) -> Site:
        """Make a site of values that are normalised already, without checking them again."""
        site = object.__new__(cls)
        site._set(polygon, site_id, start_year, properties)
        return site

    def _set(self, polygon: Any, site_id: int | str, start_year: int | None, properties: dict[str, Any]) -> None:
        object.__setattr__(self, "polygon", polygon)
        object.__setattr__(self, "site_id", site_id)
        object.__setattr__(self, "start_year", start_year)
        object.__setattr__(self, "properties", MappingProxyType(properties))

    def __reduce__(self) -> tuple[Any, ...]:
        # leaves out the cached Earth Engine objects, which belong to a session
        return Site._trusted, (self.polygon, self.site_id, self.start_year, dict(self.properties))

    def __repr__(self) -> str:
        return f"Site(id={self.site_id!r}, start_year={self.start_year})"

    def _repr_html_(self) -> str:
        centre = self.polygon.centroid
        facts = {
            "site_id": self.site_id,
            "start_year": self.start_year,
            "area": f"{self.area_ha:.2f} ha",
            "centre": f"{centre.y:.5f}, {centre.x:.5f} (latitude, longitude)",
        }
        shown = html.record(facts, self.properties, SHOWN_PROPERTIES)
        rows = [{"": name, " ": value} for name, value in shown.items()]
        more = len(self.properties) - SHOWN_PROPERTIES
        note = f"and {more} more properties" if more > 0 else ""
        return html.table_html(repr(self), rows, note=note, drawing=html.outline_svg(self.polygon))

    @cached_property
    def area_ha(self) -> float:
        """Geodesic area on the WGS 84 ellipsoid, in hectares; holes are subtracted."""
        return measures.area_ha(self.polygon)

    def years(self) -> list[int]:
        """Return the years for which AlphaEarth embeddings are published, before *and* after `start_year`.

        `open_source(...).years()` returns the years of one source.

        Examples
        --------
        >>> import shapely
        >>> Site(polygon=shapely.box(0, 0, 1, 1), site_id=1, start_year=2021).years()[:3]
        [2017, 2018, 2019]
        """
        return list(EMBEDDING_YEARS)

    def buffer(self, buffer_m: float) -> Any:
        """Return the polygon buffered by a distance in metres.

        Distances are measured in the UTM zone of the polygon's centroid, accurate to 0.1 % within the zone.

        Parameters
        ----------
        buffer_m : float
            Metres; a negative distance shrinks the polygon, which leaves out the edges of a site.

        Returns
        -------
        shapely.Polygon or shapely.MultiPolygon
            EPSG:4326.

        Raises
        ------
        SiteError
            If shrinking leaves nothing.

        Examples
        --------
        >>> import shapely
        >>> site = Site(polygon=shapely.box(-50, -10, -49.99, -9.99), site_id=1)
        >>> site.buffer(100).contains(site.polygon)
        True
        """
        distance = _metres(buffer_m)
        polygon = measures.buffered(self.polygon, distance)
        if polygon.is_empty:
            raise SiteError(f"site {self.site_id}: nothing is left after a buffer of {distance:g} m")
        return polygon

    def region(self, buffer_m: float = 500) -> Any:
        """Return the bounding box of the buffered site, in longitude and latitude.

        Parameters
        ----------
        buffer_m : float
            Metres, 0 or more.

        Returns
        -------
        shapely.Polygon
            EPSG:4326.

        Examples
        --------
        >>> import shapely
        >>> Site(polygon=shapely.box(-50, -10, -49.99, -9.99), site_id=1).region(0).bounds
        (-50.0, -10.0, -49.99, -9.99)
        """
        distance = _metres(buffer_m)
        if distance < 0:
            raise UsageError(f"buffer_m of a region must be 0 or more, found {buffer_m!r}")
        return shapely.box(*(self.buffer(distance) if distance else self.polygon).bounds)


def _metres(buffer_m: float) -> float:
    try:
        distance = float(buffer_m)
    except (TypeError, ValueError):
        distance = math.nan
    if not math.isfinite(distance):
        raise UsageError(f"buffer_m must be a number of metres, found {buffer_m!r}")
    return distance
