"""Uses the ring around each site as its local background: makes the rings, and subtracts their own drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gee_polygons.change.drift import Drift, base_years
from gee_polygons.change.numerics import Floats
from gee_polygons.change.series import Series
from gee_polygons.embeddings.directional import normalize
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
        ring = polygonal_parts(ring.difference(shapely.union_all(sites.polygons[near])) if len(near) else ring)
        if ring is not None:
            found.append(Site(polygon=ring, site_id=site.site_id, start_year=site.start_year))
    return SiteCollection(found)


def polygonal_parts(geometry: Any) -> Any:
    """Return the polygons of a geometry as a Polygon or MultiPolygon, without lines and points; None if it has none."""
    import shapely

    parts = [part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon" and part.area > 0]
    if len(parts) > 1:
        return shapely.MultiPolygon(parts)
    return parts[0] if parts else None


def subtract_ring_drift(series: Series, units: Floats, rings: Series, drift: Drift) -> tuple[Floats, float]:
    """Subtract a share of the movement that each site's ring shows beyond the common drift; the share is estimated.

    A ring is a noisy measurement of local drift (weather, a tile's edge). With the ring's movement g and the site's r,
    ``r = w g + noise`` gives ``w = r.g / g.g``: its median over the sites, which changed sites hardly move, clipped
    to 0..1.

    Parameters
    ----------
    series : Series
        The sites.
    units : float array, shape (sites, years, 64)
        Their vectors without the common drift.
    rings : Series
        Rings with the ids of their sites, in the same years.
    drift : Drift
        The common drift.

    Returns
    -------
    Corrected vectors, shape (sites, years, 64), and the share w.
    """
    place = {str(site_id): i for i, site_id in enumerate(rings.site_ids)}
    ring_of_site = np.array([place.get(str(site_id), -1) for site_id in series.site_ids])
    has_ring = ring_of_site >= 0
    base = base_years(series.present)
    around = drift.remove(rings.units[ring_of_site[has_ring]])
    ring_moved = np.nan_to_num(around - around[:, base].mean(axis=1, keepdims=True))
    site_moved = np.nan_to_num(units[has_ring] - units[has_ring][:, base].mean(axis=1, keepdims=True))
    both = np.einsum("ntb,ntb->n", site_moved, ring_moved)
    own = np.einsum("ntb,ntb->n", ring_moved, ring_moved)
    shares = both[own > 0] / own[own > 0]
    share = float(np.clip(np.median(shares), 0, 1)) if len(shares) else 0.0
    found = units.copy()
    found[has_ring] = normalize(units[has_ring] - share * ring_moved)
    return found, share
