"""Each site's own ring: how much of what it did beside the common step is the site's surroundings' step too."""

from __future__ import annotations

import numpy as np

from gee_polygons.change.drift import Drift, base_years
from gee_polygons.change.series import Floats, Series
from gee_polygons.embeddings.directional import normalize


def blend_rings(series: Series, units: Floats, rings: Series, drift: Drift) -> tuple[Floats, float]:
    """Take off a share of what each site's ring still moved after the common step; the share is estimated.

    A ring is a noisy witness of local drift (weather, a tile's edge). Over all sites, ``r = w g + noise`` with the
    ring's movement g and the site's r gives ``w = sum r.g / sum g.g`` (median over sites, so that changed ones
    don't count), kept within 0..1.

    Returns
    -------
    Corrected vectors, and the share w.
    """
    place = {str(site_id): i for i, site_id in enumerate(rings.site_ids)}
    has = np.array([str(site_id) in place for site_id in series.site_ids])
    rows = np.array([place[str(site_id)] for site_id in series.site_ids if str(site_id) in place], np.intp)
    base = base_years(series.present)
    around = drift.remove(rings.units[rows])
    ring_moved = np.nan_to_num(around - around[:, base].mean(axis=1, keepdims=True))
    site_moved = np.nan_to_num(units[has] - units[has][:, base].mean(axis=1, keepdims=True))
    both = np.einsum("ntb,ntb->n", site_moved, ring_moved)
    own = np.einsum("ntb,ntb->n", ring_moved, ring_moved)
    shares = both[own > 0] / own[own > 0]
    share = float(np.clip(np.median(shares), 0, 1)) if len(shares) else 0.0
    found = units.copy()
    found[has] = normalize(units[has] - share * ring_moved)
    return found, share
