"""Cuts a site into square blocks, for confidence intervals from resampling them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gee_polygons.change.rings import polygonal_parts
from gee_polygons.errors import UsageError

if TYPE_CHECKING:
    from gee_polygons.site import Site, SiteCollection


def block_sites(site: Site, *, block_m: float = 100.0) -> SiteCollection:
    """Cut a site into square blocks: extract these, and give `recovery` the table as `blocks`.

    Parameters
    ----------
    site : Site
        To cut.
    block_m : float
        Side of a block in metres. Pixels are correlated over about 150 m (`AEF_CORRELATION`): blocks of that size
        or more are nearly independent; smaller ones make the intervals too narrow.

    Returns
    -------
    SiteCollection of the pieces, ids ``<site>/<number>``, with the properties `block_of` and `block_id`.

    Raises
    ------
    UsageError
        If `block_m` isn't positive.

    Examples
    --------
    >>> import shapely
    >>> from gee_polygons import Site
    >>> site = Site(polygon=shapely.box(-48.01, -22.01, -48.0, -22.0), site_id="a", start_year=2019)
    >>> len(block_sites(site, block_m=300))
    16
    """
    import shapely

    from gee_polygons.site import Site, SiteCollection

    if not block_m > 0:
        raise UsageError(f"block_m is a length in metres, found {block_m!r}")
    west, south, east, north = site.polygon.bounds
    height = block_m / 110_574.0
    width = block_m / (111_320.0 * float(np.cos(np.radians((south + north) / 2))))
    pieces: list[Site] = []
    for x in np.arange(west, east, width):
        for y in np.arange(south, north, height):
            piece = polygonal_parts(shapely.intersection(site.polygon, shapely.box(x, y, x + width, y + height)))
            if piece is not None:
                properties = {"block_of": site.site_id, "block_id": len(pieces)}
                pieces.append(Site(polygon=piece, site_id=f"{site.site_id}/{len(pieces)}", properties=properties))
    return SiteCollection(pieces)
