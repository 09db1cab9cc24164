"""How far along the way from one state to another: the geometry of `gee_polygons.recovery.estimation`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.change.series import Floats
from gee_polygons.embeddings.directional import normalize

_LEAST_HEIGHT: Final = 0.05  # cosine; a vector so far off the way's middle has no share of it
_NEIGHBOURS: Final = 15  # sites that are surely of a kind
_NEAR: Final = 1.5  # times as far as these from the middle: still of that kind
_SHIFTS: Final = 4  # times that the mean of the sites near is taken for the middle
_LEAST_WAY: Final = 0.25  # of the way's squared length that must be left beside what sets a site apart
_NOTHING: Final = 1e-12  # squared length of what sets a site apart from a kind that is the site alone


def mean_start(start: Floats) -> Floats:
    """Return the mean starting state of each site's kind: where the way of its kind begins.

    A site's own neighbours lean towards it, the more the more directions it has; so all sites near *their* mean are
    taken, and again (mean shift; Fukunaga & Hostetler, IEEE Trans. Inf. Theory 21, 1975). Near is what isn't much
    further off than the nearest few: in 64 dimensions sites of one cover are all about equally far from its middle.
    """
    seen = np.flatnonzero(np.isfinite(start[:, 0]))
    found = start.copy()
    k = min(_NEIGHBOURS, len(seen) // 2)
    if k < 2:
        return found
    for first in range(0, len(seen), 1_000):
        rows = seen[first : first + 1_000]
        for _ in range(_SHIFTS):
            square = 2 - 2 * found[rows] @ start[seen].T
            near = np.median(np.partition(square, k - 1, axis=1)[:, :k], axis=1)
            found[rows] = normalize((square <= _NEAR**2 * near[:, None]).astype(np.float64) @ start[seen])
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Where vectors are on their ways.

    Parameters
    ----------
    share : float array, shape (...)
        Share of the way, not cut to 0..1.
    slope : float array, shape (..., 64)
        Its derivative in the vector, for carrying noise over.
    off_deg : float array, shape (...)
        Angle to the nearest point of the way, degrees.
    aside : float array, shape (..., 64)
        From that point to the vector, on the unit sphere, without what the site had of its own from the start.
    length_squared : float array, shape (...)
        Of the way, measured as the share is.
    mixed : float array, shape (...)
        Length of the mixture, at most 1: the shorter a mean is, the further the same noise turns it.
    """

    share: Floats
    slope: Floats
    off_deg: Floats
    aside: Floats
    length_squared: Floats
    mixed: Floats


def share_of_way(vectors: Floats, start: Floats, target: Floats, kind: Floats) -> Place:
    """Measure the share of the way that vectors have gone.

    A mixture ``(1 - p) a + p r``, scaled to length 1, lies on the great circle from a to r. Scaled to a plane
    ``x . (k + r) = 1``, with k the mean start of the site's kind, it is on a straight line again. What sets the site
    apart from its kind, ``o = a - k``, may stay or go as it recovers: ``u - a = p (r - a) + q o`` with an unknown q.
    So ``p = (u - a) . e / ((r - a) . e)``, with e the way of the kind, r - k, without its part along o (partial
    regression; Frisch & Waugh, *Econometrica* 1, 1933): whatever the site keeps of its own, p is the same. Along
    r - a it would be off by up to a fifth, and by what the noise of a has in common with itself.

    Parameters
    ----------
    vectors, start, target, kind : float arrays, shape (..., 64)
        Unit vectors u, a, r, and the mean start of the site's kind.
    """
    across = normalize(kind + target)
    height = np.sum(vectors * across, axis=-1, keepdims=True)
    a, r, k, on_plane = (_on_plane(v, across) for v in (start, target, kind, vectors))
    apart, e = a - k, r - k
    square = np.sum(apart * apart, axis=-1, keepdims=True)
    lean = np.sum(e * apart, axis=-1, keepdims=True) / np.where(square > _NOTHING, square, np.inf)
    beyond = e - lean * apart
    # a site that is ahead of its kind on the same way differs by nothing else: without that part no way is left
    e = np.where(
        np.sum(beyond**2, axis=-1, keepdims=True) > _LEAST_WAY * np.sum(e**2, axis=-1, keepdims=True), beyond, e
    )
    length = np.sum((r - a) * e, axis=-1, keepdims=True)
    p = np.sum((on_plane - a) * e, axis=-1) / length[..., 0]
    slope = (e - np.sum(on_plane * e, axis=-1, keepdims=True) * across) / (height * length)
    mixed = (1 - p)[..., None] * start + p[..., None] * target
    on_way = normalize(mixed)
    off = np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(vectors - on_way, axis=-1) / 2, 0, 1)))
    rest = on_plane - a - p[..., None] * (r - a)
    kept = np.sum(rest * apart, axis=-1, keepdims=True) / np.where(square > _NOTHING, square, np.inf)
    aside = (rest - kept * apart) * height
    scale = np.sum(target * across, axis=-1) ** 2
    return Place(
        share=p,
        slope=slope,
        off_deg=off,
        aside=aside,
        length_squared=length[..., 0] * scale,
        mixed=np.linalg.norm(mixed, axis=-1),
    )


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
