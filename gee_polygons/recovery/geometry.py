"""Locates embeddings on the trajectory from a starting state to a reference state: share of recovery and offset."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.change.numerics import Floats
from gee_polygons.change.series import has_data
from gee_polygons.embeddings.directional import normalize

_LEAST_HEIGHT: Final = 0.05  # cosine to the middle of the trajectory; vectors with less have no share of recovery
_NEIGHBOURS: Final = 15  # sites that are taken to be of one cover
_NEAR: Final = 1.5  # times as far from the middle as these: still the same cover
_SHIFTS: Final = 4  # rounds of mean shift
_LEAST_LENGTH: Final = 0.25  # of the squared length, to be left without the site's own deviation
_NOTHING: Final = 1e-12  # squared length of the deviation of a site that is alone


def local_mean_start(start: Floats) -> Floats:
    """Return, for each site, the mean starting state of the sites with a similar cover, shape (sites, 64).

    The mean of a site's nearest neighbours is drawn towards the site, the more the more dimensions there are. So all
    sites near that mean are averaged, and again (mean shift; Fukunaga & Hostetler, IEEE Trans. Inf. Theory 21, 1975).
    Near: not much further off than the nearest few, as in 64 dimensions sites of one cover are all about equally far
    from its mean.
    """
    seen = np.flatnonzero(has_data(start))
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
class Position:
    """Positions of vectors relative to their trajectories.

    Parameters
    ----------
    share : float array, shape (...)
        Share of recovery: 0 at the start, 1 at the references, not clipped.
    gradient : float array, shape (..., 64)
        Derivative of the share by the vector, for error propagation.
    off_deg : float array, shape (...)
        Off-trajectory distance: angle to the nearest point of the trajectory, degrees.
    offset : float array, shape (..., 64)
        From that point to the vector, on the unit sphere, without the site's own deviation at its start.
    length_squared : float array, shape (...)
        Squared length of the trajectory, as the share measures it.
    mixture_length : float array, shape (...)
        Length of the mixture of start and reference, at most 1: the same noise turns a shorter mean further.
    """

    share: Floats
    gradient: Floats
    off_deg: Floats
    offset: Floats
    length_squared: Floats
    mixture_length: Floats

    def take(self, rows: slice) -> Position:
        """Return some of the sites."""
        return Position(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def locate(vectors: Floats, start: Floats, target: Floats, cover: Floats) -> Position:
    """Measure the share of recovery of vectors, and how far they lie off their trajectories.

    A mixture ``(1 - p) a + p r`` of start a and reference r, scaled to length 1, lies on the great circle from a to r.
    Scaled to the plane ``x . (k + r) = 1``, with k the mean start of the site's cover, it is on a straight line again.
    The site's own deviation from its cover, ``o = a - k``, may persist or vanish as it recovers:
    ``u - a = p (r - a) + q o`` with an unknown q. So ``p = (u - a) . e / ((r - a) . e)``, with e the direction r - k
    without its part along o (partial regression; Frisch & Waugh, *Econometrica* 1, 1933): p is the same for any q.
    Along r - a it would be off by up to a fifth, and by the correlation of the noise of a with itself.

    Parameters
    ----------
    vectors, start, target, cover : float arrays, shape (..., 64)
        Unit vectors u, a, r, and the mean start k of the site's cover.
    """
    across = normalize(cover + target)
    height = np.sum(vectors * across, axis=-1, keepdims=True)
    a, r, k, u = (_on_plane(v, across) for v in (start, target, cover, vectors))
    own, e = a - k, r - k
    square = np.sum(own * own, axis=-1, keepdims=True)
    square = np.where(square > _NOTHING, square, np.inf)
    without = e - np.sum(e * own, axis=-1, keepdims=True) / square * own
    # a site ahead of its cover on the same trajectory deviates along e alone: then nothing is taken out
    is_long = np.sum(without**2, axis=-1, keepdims=True) > _LEAST_LENGTH * np.sum(e**2, axis=-1, keepdims=True)
    e = np.where(is_long, without, e)
    length = np.sum((r - a) * e, axis=-1, keepdims=True)
    p = np.sum((u - a) * e, axis=-1) / length[..., 0]
    mixture = (1 - p)[..., None] * start + p[..., None] * target
    off = np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(vectors - normalize(mixture), axis=-1) / 2, 0, 1)))
    rest = u - a - p[..., None] * (r - a)
    kept = np.sum(rest * own, axis=-1, keepdims=True) / square
    return Position(
        share=p,
        gradient=(e - np.sum(u * e, axis=-1, keepdims=True) * across) / (height * length),
        off_deg=off,
        offset=(rest - kept * own) * height,
        length_squared=length[..., 0] * np.sum(target * across, axis=-1) ** 2,
        mixture_length=np.linalg.norm(mixture, axis=-1),
    )


def _on_plane(vectors: Floats, across: Floats) -> Floats:
    """Scale vectors so that their product with `across` is 1; NaN for those nearly perpendicular to it."""
    height = np.sum(vectors * across, axis=-1, keepdims=True)
    return vectors / np.where(height > _LEAST_HEIGHT, height, np.nan)


def interpolated_year(years: NDArray[np.float64], share: Floats, level: float) -> float:
    """Return when a share first reaches a level without falling below it in the next year with data, between years."""
    for i in np.flatnonzero(share >= level):
        if i + 1 < len(share) and share[i + 1] < level:
            continue
        if i == 0:
            return float(years[0])
        before = share[i - 1]
        part = (level - before) / (share[i] - before) if share[i] > before else 1.0
        return float(years[i - 1] + np.clip(part, 0, 1) * (years[i] - years[i - 1]))
    return float("nan")
