"""Measures sites on the trajectory from their start to the references: share of recovery, and what lies off the way.

A mixture ``(1 - p) a + p r`` of start a and reference r, scaled to length 1, lies on the great circle from a to r.
Scaled to the plane ``x . (a + r) = const`` it is on a straight line again, and p is the projection on that line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.change.numerics import Flags, Floats, student_t_quantile
from gee_polygons.change.series import has_data
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.similarity import angular_distance_deg
from gee_polygons.recovery.scatter import DIRECTIONS, Cover

_LEAST_HEIGHT: Final = 0.05  # cosine to the middle of the trajectory; vectors with less have no share of recovery


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectories:
    """Sites of one table on their trajectories.

    Parameters
    ----------
    status : object array, shape (sites,)
        As in the result.
    share : float array, shape (sites, years)
        0 at the start, 1 at the references, not clipped.
    gradient : float array, shape (sites, years, 64)
        Derivative of the share by the vector.
    noise : float array, shape (sites, years, years)
        Covariance of the shares' errors from yearly noise, times the square of its Student's t.
    choice : float array, shape (sites,)
        Variance that the choice of references gives a share of 1, times the square of its Student's t.
    range_low : float array, shape (sites,)
        Share that a tenth of the references don't reach.
    off_deg : float array, shape (3, sites, years)
        Angle to the nearest point of the trajectory, and the interval of the part that isn't noise.
    distance_deg : float array, shape (3, sites, years)
        The same of the angle to the references' mean.
    length_deg : float array, shape (sites,)
        Angle from the start to the references' mean.
    radius_deg : float
        Angle within which a site is one of the references.
    """

    status: NDArray[np.object_]
    share: Floats
    gradient: Floats
    noise: Floats
    choice: Floats
    range_low: Floats
    off_deg: Floats
    distance_deg: Floats
    length_deg: Floats
    radius_deg: float


def measure(
    units: Floats, before: Flags, references: Cover, degraded: Cover | None, noise: float, confidence: float
) -> Trajectories:
    """Measure sites on their trajectories, all vectors without the background's movement.

    Parameters
    ----------
    units : float array, shape (sites, years, 64)
        Unit vectors.
    before : bool array, shape (sites, years)
        Years of the starting state: those with data before the start.
    references, degraded : Cover
        What the trajectories lead to, and the starting state of sites without such years (None: they have no share).
    noise : float
        Variance of unchanged sites between years.
    confidence : float
        Of the intervals.
    """
    n_before, n_seen = before.sum(axis=1), has_data(units).sum(axis=1)
    status = np.where(n_seen > 0, np.where(n_before > 0, "ok", "no_baseline"), "no_data").astype(object)
    status[(n_before > 0) & (n_before == n_seen)] = "not_started"
    start = normalize(np.where(before[..., None], units, 0.0).sum(axis=1))
    stood_in = status == ("no_baseline" if degraded is not None else "")
    if degraded is not None:
        start[stood_in], status[stood_in] = degraded.direction, "ok"
    a, r = start[:, None], normalize(references.mean)[None]
    across = normalize(a + r)
    flat_a, flat_r, flat_u = (_on_plane(v, across) for v in (a, r, units))
    way = flat_r - flat_a
    length = np.linalg.norm(way, axis=2)
    direction = way / length[..., None]
    share = np.sum((flat_u - flat_a) * direction, axis=2) / length
    p = np.clip(share, 0, 1)
    height = np.sum(units * across, axis=2, keepdims=True)
    gradient = direction - np.sum(flat_u * direction, axis=2, keepdims=True) * across
    gradient /= height * length[..., None]
    # noise along the trajectory looks like progress; across it is seen, and has the same contrasts between years
    off = np.nan_to_num((flat_u - flat_a - share[..., None] * way) * height)
    seen = off * np.nan_to_num(np.linalg.norm(gradient, axis=2, keepdims=True)) / np.sqrt(DIRECTIONS - 1)
    covariance = np.einsum("nyb,nzb->nyz", seen, seen, optimize=True) * t_of(DIRECTIONS, confidence) ** 2
    if degraded is not None:
        spread = np.sqrt(degraded.along(direction) * (1 + 1 / degraded.n)) * (1 - p) / length
        spread = np.nan_to_num(spread) * stood_in[:, None] * t_of(degraded.freedom, confidence)
        covariance += spread[:, :, None] * spread[:, None]
    length_deg = angular_distance_deg(start, references.direction)
    whole = 2 * np.tan(np.radians(length_deg) / 2)  # on the plane
    along = references.along(normalize(references.direction - start)) / whole**2
    nearest = normalize((1 - share)[..., None] * a + share[..., None] * r)
    expected = noise * (1 + (1 - p) ** 2 * ((n_before > 0) / np.maximum(n_before, 1))[:, None])
    status[(status == "ok") & (length_deg <= references.radius_deg)] = "at_reference"
    return Trajectories(
        status=status,
        share=share,
        gradient=gradient,
        noise=covariance,
        choice=along / references.n * t_of(references.freedom, confidence) ** 2,
        range_low=1 - t_of(references.freedom, 0.8) * np.sqrt(along * (1 + 1 / references.n)),
        off_deg=with_interval(angular_distance_deg(units, nearest), expected, confidence),
        distance_deg=with_interval(angular_distance_deg(units, r), expected, confidence),
        length_deg=length_deg,
        radius_deg=references.radius_deg,
    )


def with_interval(angle_deg: Floats, noise_variance: Floats, confidence: float) -> Floats:
    """Return angles, and the interval of the angle that would be seen without noise: shape (3, ...).

    With noise of variance s^2, the same in D directions, the squared distance d^2 to a point at the true distance x
    has the mean ``x^2 + s^2`` and the variance ``2 s^4 / D + 4 x^2 s^2 / D`` (noncentral chi-squared).
    The interval includes the angle that was measured.
    """
    square = (2 * np.sin(np.radians(angle_deg) / 2)) ** 2
    true = np.maximum(square - noise_variance, 0)
    error = np.sqrt((2 * noise_variance**2 + 4 * true * noise_variance) / DIRECTIONS)
    error *= t_of(DIRECTIONS, confidence)
    low, high = (np.degrees(2 * np.arcsin(np.sqrt(np.clip(end, 0, 4)) / 2)) for end in (true - error, true + error))
    return np.stack([angle_deg, np.minimum(low, angle_deg), np.maximum(high, angle_deg)])


def t_of(freedom: float, confidence: float) -> float:
    """Return the Student's t that a two-sided interval reaches."""
    return float(student_t_quantile((1 + confidence) / 2, np.array([freedom]))[0])


def _on_plane(vectors: Floats, across: Floats) -> Floats:
    """Scale vectors so that their product with `across` is 1; NaN for those nearly perpendicular to it."""
    height = np.sum(vectors * across, axis=-1, keepdims=True)
    return vectors / np.where(height > _LEAST_HEIGHT, height, np.nan)
