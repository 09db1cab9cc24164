"""How far along the way from one state to another: the geometry of `gee_polygons.recovery`."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons._change.series import Floats
from gee_polygons.embeddings.directional import normalize

__all__ = ["mean_start", "share_of_way"]

_LEAST_HEIGHT: Final = 0.05  # cosine; a vector so far off the way's middle has no share of it
_NEIGHBOURS: Final = 15  # sites whose starts are averaged for the way's direction


def mean_start(start: Floats) -> Floats:
    """Return the mean starting state of each site and those most like it: where the way of its kind begins.

    What sets a site apart from its kind may stay or go as it recovers. Measured along the way of its kind, which is
    nearly perpendicular to that, it changes the share in neither case; along its own way it would, by up to a fifth.
    """
    seen = np.flatnonzero(np.isfinite(start[:, 0]))
    found = start.copy()
    k = min(_NEIGHBOURS, max(1, len(seen) // 2))
    if k < 2:
        return found
    for first in range(0, len(seen), 1_000):
        rows = seen[first : first + 1_000]
        cosine = start[rows] @ start[seen].T
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        found[rows] = normalize(start[seen][nearest].mean(axis=1))
    return found


def share_of_way(vectors: Floats, start: Floats, target: Floats, kind: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the share of the way that vectors have gone, its slope in the vectors, and what lies off the way.

    A mixture ``(1 - p) a + p r``, scaled to length 1, lies on the great circle from a to r. With k the mean start of
    the site's kind, all are scaled to the plane ``x . (k + r) = 1``: there the mixture is on a straight line again, and
    ``p = (u' - a') . e / ((r' - a') . e)``, e being r' - k'. What sets the site apart from its kind is nearly
    perpendicular to both k + r and e, so it changes p neither by staying nor by going.

    Parameters
    ----------
    vectors, start, target, kind : float arrays, shape (..., 64)
        Unit vectors u, a, r, and the mean start of the site's kind.

    Returns
    -------
    p, shape (...); dp/du, shape (..., 64), for carrying noise over; angle off the way in degrees, shape (...).
    """
    across = normalize(kind + target)
    height = np.sum(vectors * across, axis=-1, keepdims=True)
    a, r, k, on_plane = (_on_plane(v, across) for v in (start, target, kind, vectors))
    e = r - k
    length = np.sum((r - a) * e, axis=-1)
    p = np.sum((on_plane - a) * e, axis=-1) / length
    slope = e / height / length[..., None]
    on_way = normalize((1 - p)[..., None] * start + p[..., None] * target)
    off = np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(vectors - on_way, axis=-1) / 2, 0, 1)))
    return p, slope, off


def _on_plane(vectors: Floats, across: Floats) -> Floats:
    """Scale vectors so that their product with `across` is 1; NaN where they lie nearly beside it."""
    height = np.sum(vectors * across, axis=-1, keepdims=True)
    scaled: Floats = vectors / np.where(height > _LEAST_HEIGHT, height, np.nan)
    return scaled


def interpolated_year(years: NDArray[np.float64], share: Floats, level: float) -> float:
    """Return when a share first reaches a level and isn't below it in the next year with data, between years."""
    for i in np.flatnonzero(share >= level):
        if i + 1 < len(share) and share[i + 1] < level:
            continue
        if i == 0:
            return float(years[0])
        before = share[i - 1]
        part = (level - before) / (share[i] - before) if share[i] > before else 1.0
        return float(years[i - 1] + np.clip(part, 0, 1) * (years[i] - years[i - 1]))
    return float("nan")
