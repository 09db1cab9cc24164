"""Turns what users give as sites, a file or a table, into a `SiteCollection`."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import geopandas

from gee_polygons.errors import SiteError
from gee_polygons.site.collection import SiteCollection, collected
from gee_polygons.site.files import read_sites
from gee_polygons.site.site import Site
from gee_polygons.site.table import site_table


def load_sites(
    path: str | PathLike[str],
    *,
    id_column: str | None = None,
    start_year_column: str | None = None,
    crs: Any = None,
    layer: str | None = None,
    skip_invalid: bool = False,
) -> SiteCollection:
    """Read sites from a vector file: whatever geopandas reads, GeoParquet included, also in a ZIP file.

    Coordinates are brought to EPSG:4326 from the CRS that the file states; edges longer than 1 km of a projected CRS
    get vertices first, so that they stay where they were. Z is dropped, holes and multipolygons are kept, collections
    of polygons become multipolygons. Invalid rings are repaired with `shapely.make_valid` (polygonal parts only), with
    a `SiteRepairWarning`, and listed in `SiteCollection.repaired`. A site across the antimeridian is kept as one piece
    that runs on past 180.

    Parameters
    ----------
    path : str or path
        GeoJSON, GeoPackage, Shapefile, FlatGeobuf, GeoParquet, KML, KMZ, CSV with WKT in a column ``geometry``,
        ``wkt`` or ``geom``, ..., or a ZIP file with such files, in whatever folder.
    id_column : str, optional
        Column with unique ids. Default: ``site_id``, ``rid``, ``id`` or ``fid`` in any case, whichever is found first
        with an id in any row; else the integer ``id`` members of GeoJSON features; else the row number, from 0. The
        hidden ``fid`` of a GeoPackage is used if ``id_column="fid"`` asks for it. Whole floats become ints, texts stay.
    start_year_column : str, optional
        Column with years or dates. Default: ``start_year``, else the year of ``start_date``, else None for all.
        Negative numbers, 0 and 9999 are codes for no year: None.
    crs : anything pyproj reads, optional
        CRS of the coordinates, for a file that doesn't state it. A GeoJSON without ``crs`` member is WGS 84
        (RFC 7946) unless this says otherwise; one with ``"crs": null`` doesn't state it.
    layer : str, optional
        Layer of a file with several: of a GeoPackage, a folder of a KML, a file in a ZIP file.
    skip_invalid : bool
        Leave out rows that can't be sites (no polygon, an id that is missing or double, a start year that is none),
        with a `SiteRefusedWarning` whose `refused` lists them, instead of raising.

    Returns
    -------
    SiteCollection
        In the order of the file.

    Raises
    ------
    InputFileError
        If the file doesn't exist or isn't a vector file.
    CrsError
        If no CRS is known.
    SiteError
        If there are no features, if ids are missing or double, or if a geometry can't be a site: the message names
        the id and the row (counted from 0).
    UsageError
        If a column or layer doesn't exist, or if `crs` contradicts the file.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> text = '''{"type": "FeatureCollection", "features": [{"type": "Feature",
    ...   "properties": {"rid": 3107, "start_year": 2016.0, "method": "planting"}, "geometry": {"type": "Polygon",
    ...   "coordinates": [[[-50, -10], [-49.99, -10], [-49.99, -9.99], [-50, -9.99], [-50, -10]]]}}]}'''
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "sites.geojson").write_text(text)
    ...     sites = load_sites(Path(folder, "sites.geojson"))
    >>> sites[0]
    Site(id=3107, start_year=2016)
    >>> sites["3107"].properties["method"]
    'planting'
    """
    columns = read_sites(
        path, id_column=id_column, start_year_column=start_year_column, crs=crs, layer=layer, skip_invalid=skip_invalid
    )
    return collected(columns, where=str(path))


def sites_from_geodataframe(
    gdf: geopandas.GeoDataFrame,
    *,
    id_column: str | None = None,
    start_year_column: str | None = None,
    crs: Any = None,
) -> SiteCollection:
    """Make sites of a GeoDataFrame; everything is checked and normalised as in `load_sites`.

    Parameters
    ----------
    gdf : GeoDataFrame
        One row per site; it isn't changed. A named index counts as a column.
    id_column, start_year_column : str, optional
        As in `load_sites`.
    crs : anything pyproj reads, optional
        CRS of the coordinates, for a GeoDataFrame without one.

    Returns
    -------
    SiteCollection
        In the order of the rows.

    Raises
    ------
    CrsError, SiteError, UsageError
        As in `load_sites`.

    Examples
    --------
    >>> import geopandas, shapely
    >>> gdf = geopandas.GeoDataFrame({"name": ["a"]}, geometry=[shapely.box(-50, -10, -49.99, -9.99)], crs="EPSG:4326")
    >>> sites_from_geodataframe(gdf, id_column="name")
    SiteCollection(1 site: 'a')
    """
    where = "the GeoDataFrame"
    columns = site_table(gdf, id_column=id_column, start_year_column=start_year_column, crs=crs, where=where)
    return collected(columns, where=where)


def as_sites(sites: Any) -> SiteCollection:
    """Return what a user gave as sites as a `SiteCollection`.

    Parameters
    ----------
    sites : SiteCollection, Site, sequence of Site, or GeoDataFrame
        A GeoDataFrame goes through `sites_from_geodataframe`.

    Raises
    ------
    SiteError
        For anything else.
    """
    if isinstance(sites, SiteCollection):
        return sites
    if isinstance(sites, Site):
        return SiteCollection([sites])
    if hasattr(sites, "geometry") and hasattr(sites, "crs"):
        return sites_from_geodataframe(sites)
    if isinstance(sites, Sequence) and sites and all(isinstance(site, Site) for site in sites):
        return SiteCollection(sites)
    raise SiteError(
        f"sites are a SiteCollection, a Site or a GeoDataFrame, found {type(sites).__name__}; see load_sites"
    )
