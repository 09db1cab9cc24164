"""Makes the ring around each site, its local background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gee_polygons.errors import UsageError

if TYPE_CHECKING:
    from gee_polygons.site import SiteCollection


def ring_sites(sites: SiteCollection, *, inner_m: float = 60.0, outer_m: float = 500.0) -> SiteCollection:
    """Return a ring around each site, as its own background: extract the rings, and give `change` that table.

    Parameters
    ----------
    sites : SiteCollection
        The sites. Their polygons are cut out of every ring, so that no site is another one's background.
    inner_m, outer_m : float
        Where the ring begins and ends, in metres from the site's edge. 60 m keeps mixed pixels and shade out.

    Returns
    -------
    SiteCollection with the same ids; a site whose ring is wholly covered by other sites is left out.

    Raises
    ------
    UsageError
        If `inner_m` is negative or not less than `outer_m`.

    Examples
    --------
    >>> from gee_polygons import sites_from_geodataframe
    >>> from gee_polygons.sources.sample import sample_sites
    >>> rings = ring_sites(sites_from_geodataframe(sample_sites()[:2]))
    >>> rings.site_ids, bool(rings[0].polygon.intersects(rings[0].polygon.centroid))
    (('pasture-fast', 'pasture-medium'), False)
    """
    import shapely

    from gee_polygons.site import Site, SiteCollection

    if not 0 <= inner_m < outer_m:
        raise UsageError(f"a ring begins nearer than it ends, found inner_m={inner_m}, outer_m={outer_m}")
    tree = shapely.STRtree(sites.polygons)
    found = []
    for site in sites:
        ring = site.buffer(outer_m).difference(site.buffer(inner_m) if inner_m else site.polygon)
        near = tree.query(ring, predicate="intersects")
        ring = ring.difference(shapely.union_all(sites.polygons[near]))
        if not ring.is_empty:
            found.append(Site(polygon=ring, site_id=site.site_id, start_year=site.start_year))
    return SiteCollection(found)
