"""Measures sites on the trajectory from their start to the references: share of recovery, and what lies off the way.

A site's unit vector u is the nearest mixture ``alpha a + beta r`` of start a and references r, and a rest:
``p = beta / (alpha + beta)`` is the share of recovery. The rest is off the way, and shows the noise, which isn't known
along it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.change.numerics import Flags, Floats, student_t
from gee_polygons.change.series import has_data
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.similarity import angular_distance_deg

DIRECTIONS: Final = 17.0  # of yearly noise: median participation ratio on 16 real scenes
_MOST_NOISE: Final = 2.0  # times its mean square: more has a chance of 1 % in 17 directions
SITE_DIRECTIONS: Final = 5.0  # in which alike sites differ: the same of 15 alike sites, on 8 scenes (4.8 to 8.5)
LAND_SCATTER: Final = 1 - (0.818 / 0.905) ** 2  # for a single site: squares of 20 x 20 px in their square kilometre
LEAST_MOVE_DEG: Final = 10.0  # smaller angles on real land are mostly not real
_FAR_OFF_DEG: Final = 20.0  # off the trajectory, a site became something else; or half of the way, if that is shorter
_ONE_COVER_DEG: Final = 20.0  # what counts as near the references where a single one doesn't show how they differ
_PRIOR_NOISE: Final = 0.004  # variance of a mean over 20 alike pixels, for tables without unchanged sites
_LEAST_HEIGHT: Final = 0.05  # cosine to the middle of the trajectory; vectors with less have no share of recovery


@dataclass(frozen=True, kw_only=True, eq=False)
class Cover:
    """Sites of one cover: their mean, and how they differ from it.

    Parameters
    ----------
    mean : float array, shape (years, 64)
        Mean of the sites' unit vectors; NaN in a year without any of them.
    scatter : float
        Mean squared distance of sites from their mean.
    n : int
        Number of sites.
    """

    mean: Floats
    scatter: float
    n: int

    @classmethod
    def of(cls, units: Floats) -> Cover:
        """Describe sites of one cover, shape (sites, years, 64)."""
        whole = fill_gaps(units)
        own = np.nanmean(whole, axis=1)
        scatter = float(np.sum(np.var(own, axis=0, ddof=1))) if len(own) > 1 else LAND_SCATTER
        return cls(mean=whole.mean(axis=0), scatter=scatter, n=len(own))

    @property
    def direction(self) -> Floats:
        """Mean direction over the years, shape (64,)."""
        return normalize(np.nansum(self.mean, axis=0))

    def square_of_half_width(self, confidence: float) -> float:
        """Return the square of how far sites lie from the true mean along any direction, by Student's t."""
        return student_t(SITE_DIRECTIONS * max(self.n - 1, 1), confidence) ** 2 * self.scatter / SITE_DIRECTIONS

    @property
    def radius_deg(self) -> float:
        """Angle from the mean that 95 % of further sites of this cover don't exceed, and at least 10 degrees."""
        if self.n < 2:
            return _ONE_COVER_DEG
        distance = np.sqrt(self.scatter * (1 + 1 / self.n)) * (1 + 1.645 / np.sqrt(2 * DIRECTIONS * (self.n - 1)))
        return max(float(np.degrees(2 * np.arcsin(min(distance / 2, 1.0)))), LEAST_MOVE_DEG)


def fill_gaps(units: Floats) -> Floats:
    """Fill gaps of series (sites, years, 64) with the site's own mean plus the mean deviation of the others that year.

    Otherwise the mean of few sites jumps in a year without data of one of them. Years without any data stay NaN.
    """
    seen = has_data(units)
    own = np.nanmean(units, axis=1, keepdims=True)
    count = seen.sum(axis=0)[:, None]
    shift = np.divide(np.nansum(units - own, axis=0), count, out=np.full(units.shape[1:], np.nan), where=count > 0)
    return np.where(seen[..., None], units, own + shift)


def yearly_noise(units: Floats, lost: float = 0.0) -> float:
    """Return the mean squared distance of unchanged sites (sites, years, 64) from their own means over the years.

    `lost` is the fraction of the variance that was removed with a background made of these very sites.
    """
    deviations = (units - np.nanmean(units, axis=1, keepdims=True))[has_data(units)]
    n = (len(deviations) - len(units)) * (1 - lost)
    return float(np.sum(deviations**2) / n) if n >= 1 else _PRIOR_NOISE


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectories:
    """Sites of one table on their trajectories.

    Parameters
    ----------
    status : object array, shape (sites,)
        As in the result.
    share : float array, shape (sites, years)
        0 at the start, 1 at the references, not clipped.
    noise : float array, shape (sites, years, years)
        Covariance of the shares' errors from yearly noise, times the square of its Student's t.
    choice : float array, shape (sites,)
        Variance that the choice of references gives a share of 1, times the square of its Student's t.
    range_low : float array, shape (sites,)
        Share that a tenth of the references don't reach.
    off_deg : float array, shape (3, sites, years)
        Angle to the nearest point of the trajectory, and the interval of the part that isn't noise.
    is_far_off : bool array, shape (sites, years)
        Whether that angle is more than 20 degrees, or half of the way.
    distance_deg : float array, shape (sites, years)
        Angle to the references' mean.
    is_away : bool array, shape (sites, years)
        Whether it is certainly 10 degrees larger than at the start, and more than other references'.
    length_deg : float array, shape (sites,)
        Angle from the start to the references' mean.
    """

    status: NDArray[np.object_]
    share: Floats
    noise: Floats
    choice: Floats
    range_low: Floats
    off_deg: Floats
    is_far_off: Flags
    distance_deg: Floats
    is_away: Flags
    length_deg: Floats


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
    to_a, to_r, cosine = (np.sum(x * y, axis=2, keepdims=True) for x, y in ((units, a), (units, r), (a, r)))
    height = np.where(to_a + to_r > _LEAST_HEIGHT * np.sqrt(2 + 2 * cosine), to_a + to_r, np.nan)
    p = (to_r - cosine * to_a) / ((1 - cosine) * height)
    gradient = ((r - cosine * a) / (1 - cosine) - p * (a + r)) / height
    off = units - height / (1 + cosine) * ((1 - p) * a + p * r)
    share, left = p[..., 0], 1 - np.clip(p[..., 0], 0, 1)
    expected = noise * (1 + left**2 * ((n_before > 0) / np.maximum(n_before, 1))[:, None])
    # what lies along the trajectory looks like progress; across it is seen, and has the same contrasts between years:
    # noise as in its many directions, and what is more than noise (a curved way, drift of the cover) as in few
    square = np.maximum(np.sum(off**2, axis=2), 1e-12)
    noisy = np.minimum(square, _MOST_NOISE * expected)
    along = noisy / (DIRECTIONS - 1) + (square - noisy) / SITE_DIRECTIONS
    seen = np.nan_to_num(off * (np.linalg.norm(gradient, axis=2) * np.sqrt(along / square))[..., None])
    covariance = np.einsum("nyb,nzb->nyz", seen, seen, optimize=True) * student_t(DIRECTIONS, confidence) ** 2
    length_deg = angular_distance_deg(start, references.direction)
    length = 2 * np.tan(np.radians(length_deg) / 2)  # by which a distance along the way is divided for a share
    if degraded is not None:
        spread = stood_in[:, None] * np.nan_to_num(left / length[:, None])
        variance = degraded.square_of_half_width(confidence) * (1 + 1 / degraded.n)
        covariance += variance * spread[:, :, None] * spread[:, None]
    off_deg = with_interval(np.degrees(np.arcsin(np.minimum(np.linalg.norm(off, axis=2), 1.0))), expected, confidence)
    distance_deg, at_least, _ = with_interval(angular_distance_deg(units, r), expected, confidence)
    status[(status == "ok") & (length_deg <= references.radius_deg)] = "at_reference"
    return Trajectories(
        status=status,
        share=share,
        noise=covariance,
        choice=references.square_of_half_width(confidence) / references.n / length**2,
        range_low=1 - np.sqrt(references.square_of_half_width(0.8) * (1 + 1 / references.n)) / length,
        off_deg=off_deg,
        is_far_off=off_deg[0] > np.minimum(_FAR_OFF_DEG, length_deg / 2)[:, None],
        distance_deg=distance_deg,
        is_away=at_least > np.maximum(length_deg + LEAST_MOVE_DEG, references.radius_deg)[:, None],
        length_deg=length_deg,
    )


def with_interval(angle_deg: Floats, noise: Floats, confidence: float) -> Floats:
    """Return angles, and the interval of the angle that would be seen without noise: shape (3, ...).

    With `noise` the variance s^2, the same in D directions, the squared distance d^2 to a point at the true distance x
    has the mean ``x^2 + s^2`` and the variance ``2 s^4 / D + 4 x^2 s^2 / D`` (noncentral chi-squared).
    The interval includes the angle that was measured.
    """
    square = (2 * np.sin(np.radians(angle_deg) / 2)) ** 2
    true = np.maximum(square - noise, 0)
    error = student_t(DIRECTIONS, confidence) * np.sqrt((2 * noise**2 + 4 * true * noise) / DIRECTIONS)
    low, high = (np.degrees(2 * np.arcsin(np.sqrt(np.clip(end, 0, 4)) / 2)) for end in (true - error, true + error))
    return np.stack([angle_deg, np.minimum(low, angle_deg), np.maximum(high, angle_deg)])
