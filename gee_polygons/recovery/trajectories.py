"""Measures sites on the trajectory from their start to the references: share of recovery, and what lies off the way.

A mixture ``(1 - p) a + p r`` of start a and reference r, scaled to length 1, lies on the great circle from a to r.
Scaled to the plane ``x . (a + r) = const`` it is on a straight line again, and p is the projection on that line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gee_polygons.change.numerics import Floats, student_t_quantile
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.similarity import angular_distance_deg
from gee_polygons.recovery.scatter import DIRECTIONS, Scatter

_LEAST_HEIGHT: Final = 0.05  # cosine to the middle of the trajectory; vectors with less have no share of recovery


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectories:
    """Sites of one table on their trajectories.

    Parameters
    ----------
    share : float array, shape (sites, years)
        0 at the start, 1 at the references, not clipped.
    gradient : float array, shape (sites, years, 64)
        Derivative of the share by the vector.
    covariance : float array, shape (sites, years, years)
        Of the shares' errors from yearly noise.
    freedom : float array, shape (sites,)
        Degrees of freedom of that covariance.
    reference_variance : float array, shape (sites,)
        Variance that the choice of references gives a share of 1.
    reference_freedom : float
        Degrees of freedom of that variance.
    range_low : float array, shape (sites, years)
        Share that a tenth of the references don't reach.
    off_deg : float array, shape (3, sites, years)
        Angle to the nearest point of the trajectory, and the interval of the part that isn't noise.
    distance_deg : float array, shape (3, sites, years)
        The same of the angle to the references' mean.
    length_deg : float array, shape (sites,)
        Angle from start to references, mean over the years.
    """

    share: Floats
    gradient: Floats
    covariance: Floats
    freedom: Floats
    reference_variance: Floats
    reference_freedom: float
    range_low: Floats
    off_deg: Floats
    distance_deg: Floats
    length_deg: Floats

    def half_width(self, contrast: Floats, value: Floats, confidence: float) -> Floats:
        """Return the half-width of the interval of ``sum contrast(y) share(y)``, shape (sites,).

        The error from noise has the variance ``c' C c``; the references' choice scales all shares of a site alike, so
        its error is proportional to the value. Their degrees of freedom are combined (Welch-Satterthwaite).
        """
        by_noise = np.einsum("ny,nyz,nz->n", contrast, self.covariance, contrast)
        by_references = value**2 * self.reference_variance
        parts = by_noise**2 / self.freedom + by_references**2 / self.reference_freedom
        total = by_noise + by_references
        freedom = np.divide(total**2, parts, out=np.full(len(total), DIRECTIONS), where=parts > 0)
        found: Floats = student_t_quantile((1 + confidence) / 2, freedom) * np.sqrt(total)
        return found


def measure(
    units: Floats,
    start: Floats,
    before: Floats,
    target: Floats,
    noise: Scatter,
    references: Scatter,
    degraded: Scatter | None,
    confidence: float,
) -> Trajectories:
    """Measure sites on their trajectories, all vectors without the background's movement.

    Parameters
    ----------
    units : float array, shape (sites, years, 64)
        Unit vectors.
    start : float array, shape (sites, 64)
        Unit vectors of the starting states.
    before : float array, shape (sites, years)
        Weights of the years in the starting state, summing to 1; 0 where degraded sites stand in.
    target : float array, shape (years, 64)
        Mean of the references' unit vectors.
    noise, references, degraded : Scatter
        Of unchanged sites between years, of the references, of the degraded sites (None if there are none).
    confidence : float
        Of the intervals.
    """
    a, r = start[:, None], normalize(target)[None]
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
    steepness = np.linalg.norm(gradient, axis=2, keepdims=True)
    # noise along the trajectory looks like progress; across it is seen, and has the same contrasts between years
    fraction = noise.along(gradient / steepness) / noise.total if noise.total > 0 else np.full(p.shape, 1 / DIRECTIONS)
    off = np.nan_to_num((flat_u - flat_a - share[..., None] * way) * height)
    seen = off * np.nan_to_num(steepness * np.sqrt(fraction / (1 - fraction))[..., None])
    covariance = np.einsum("nyb,nzb->nyz", seen, seen, optimize=True)
    expected = noise.total * (1 + (1 - p) ** 2 * np.sum(before**2, axis=1)[:, None])
    freedom = np.full(len(units), DIRECTIONS)
    if degraded is not None:
        stood_in = before.sum(axis=1) == 0
        spread = (1 - p) * np.sqrt(degraded.along(direction) * (1 + 1 / degraded.n)) / length
        spread = np.nan_to_num(spread) * stood_in[:, None]
        covariance += spread[:, :, None] * spread[:, None]
        freedom[stood_in] = degraded.freedom
    along = references.along(direction) / length**2
    reach = float(student_t_quantile(0.9, np.array([references.freedom]))[0])
    nearest = normalize((1 - share)[..., None] * a + share[..., None] * r)
    return Trajectories(
        share=share,
        gradient=gradient,
        covariance=covariance,
        freedom=freedom,
        reference_variance=_mean(along) / references.n,
        reference_freedom=references.freedom,
        range_low=1 - reach * np.sqrt(along * (1 + 1 / references.n)),
        off_deg=with_interval(angular_distance_deg(units, nearest), expected, confidence),
        distance_deg=with_interval(angular_distance_deg(units, r), expected, confidence),
        length_deg=_mean(angular_distance_deg(a, r)),
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
    error *= student_t_quantile((1 + confidence) / 2, np.array([DIRECTIONS]))[0]
    low, high = (np.degrees(2 * np.arcsin(np.sqrt(np.clip(end, 0, 4)) / 2)) for end in (true - error, true + error))
    return np.stack([angle_deg, np.minimum(low, angle_deg), np.maximum(high, angle_deg)])


def _on_plane(vectors: Floats, across: Floats) -> Floats:
    """Scale vectors so that their product with `across` is 1; NaN for those nearly perpendicular to it."""
    height = np.sum(vectors * across, axis=-1, keepdims=True)
    return vectors / np.where(height > _LEAST_HEIGHT, height, np.nan)


def _mean(values: Floats) -> Floats:
    """Return means over the years with data; 0 without any."""
    known = np.isfinite(values)
    return np.asarray(np.where(known, values, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1), np.float64)
