"""Cuts a site into square blocks, and estimates the noise of its yearly means from how the blocks differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gee_polygons.change.numerics import Flags, Floats
from gee_polygons.change.rings import polygonal_parts
from gee_polygons.change.series import Series
from gee_polygons.embeddings.inputs import band_matrix
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


def check_blocks(blocks: pd.DataFrame, site_ids: Sequence[Any]) -> pd.DataFrame:
    """Return a table of blocks with its sites' ids as text in `block_of`.

    Raises
    ------
    UsageError
        If a column is missing, or a block is of none of the sites.
    """
    owner = "block_of" if "block_of" in blocks.columns else "site_id"
    for name in (owner, "block_id", "year", "n_pixels"):
        if name not in blocks.columns:
            raise UsageError(f"a table of blocks needs a column {name!r}; see block_sites")
    found = blocks.assign(block_of=blocks[owner].astype(str))
    unknown = set(found["block_of"]) - set(map(str, site_ids))
    if unknown:
        raise UsageError(
            f"blocks: {owner} {min(unknown)!r} is none of the {len(site_ids)} sites that are measured; blocks need "
            "their site's id, as in the property block_of of block_sites, in a column block_of"
        )
    return found


def block_covariances(
    blocks: pd.DataFrame, sites: Series, gradient: Floats, before: Flags
) -> Iterator[tuple[int, Floats, float]]:
    """Return position, covariance of the shares between years, and degrees of freedom of each site with blocks.

    A block's share is ``gradient . v``, less its mean over the years before the start: what the place keeps doesn't
    count. A site's share is the mean of k blocks weighted by their pixels, with the covariance
    ``k / (k - 1) sum w^2 d d'``, where d are the blocks' deviations from that mean (Cochran, *Sampling Techniques*,
    1977, 6.8).
    """
    place = {str(site_id): i for i, site_id in enumerate(sites.site_ids)}
    known = blocks["block_of"].isin(place) & blocks["year"].isin(sites.years)
    for site_id, rows in blocks[known].groupby("block_of"):
        i, vectors = place[str(site_id)], band_matrix(rows)
        column = np.searchsorted(sites.years, rows["year"])
        codes, ids = pd.factorize(rows["block_id"])
        k = len(ids)
        if k < 2:
            continue
        share, weight = np.zeros((2, k, len(sites.years)))
        share[codes, column] = np.nan_to_num(np.sum(vectors * gradient[i, column], axis=1))
        weight[codes, column] = np.where(np.isfinite(vectors[:, 0]), rows["n_pixels"], 0.0)
        weight /= np.maximum(weight.sum(axis=0), 1e-300)
        share -= share[:, before[i]].sum(axis=1, keepdims=True) / max(before[i].sum(), 1)
        deviations = weight * (share - np.sum(weight * share, axis=0))
        yield i, k / (k - 1) * deviations.T @ deviations, float(k - 1)
