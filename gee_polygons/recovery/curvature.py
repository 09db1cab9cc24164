"""Estimates the curvature of recovery trajectories, and the scatter of their ends, from offsets perpendicular to them.

Young forest isn't half pasture and half old forest. Sites with a share of recovery p are taken to lie off the straight
trajectory by ``p (1 - p) b``, the simplest path that leaves it and comes back. The part of b perpendicular to the
trajectory is seen. The part along it makes the share too large or too small by ``p (1 - p) b_along / length``, which
nothing in a table can distinguish from growth. But b has as many directions as land varies in, D, and the trajectory is
one of them: if no direction is special, the unseen part has Student's t distribution with D - 1 degrees of freedom,
scaled by the root mean square of the seen ones. D is the effective number of dimensions of the years' noise, the only
scatter that isn't along the trajectory to begin with.

Sites are pooled as in a meta-analysis: generalised least squares of each series' offsets, with the curvatures of the
sites distributed about a common mean (random effects; DerSimonian & Laird, *Meta-analysis in clinical trials*, Control.
Clin. Trials 7, 1986).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.change.numerics import Floats, ar1_correlation, effective_dimensions
from gee_polygons.recovery.geometry import Position
from gee_polygons.recovery.trajectories import StartingStates
from gee_polygons.recovery.uncertainty import Curvature, Uncertainty

_LEAST_REACH: Final = 0.05  # largest p (1 - p) of a site whose curvature can be estimated
_NOTHING: Final = 1e-9  # variance added where noise is 0; distance between references that are copies of each other
_LEAST_SHARE: Final = 0.01  # of recovery: before it nothing is known of the end
_LARGEST_END: Final = 4.0  # times the references' variance: a site beyond that isn't on the trajectory at all
_LEAST_DIRECTIONS: Final = 3.0


def estimate_curvature(position: Position, starts: StartingStates, errors: Uncertainty) -> Curvature:
    """Estimate the curvature from all sites with a start of their own; their noise and ends are random."""
    t = position.share.shape[1]
    correlation, end_square = ar1_correlation(t, errors.noise.ar1), errors.references.length**2
    curvatures, variances, by_year, by_end = [], [], [], []
    for i in _with_own_start(position, starts):
        use = np.flatnonzero(np.isfinite(position.share[i]) & ~starts.before[i])
        p = np.clip(position.share[i, use], 0, 1)
        reach = p * (1 - p)
        if reach.max(initial=0.0) < _LEAST_REACH:
            continue
        contrast = _noise_contrast(position, starts, i, use)
        error = errors.noise.variance[i] * contrast @ correlation @ contrast.T + end_square * np.outer(p, p)
        error[np.diag_indices(len(use))] += _NOTHING
        weight = np.linalg.solve(error, reach)
        variances.append(1 / float(weight @ reach))
        weight *= variances[-1]
        curvatures.append(weight @ position.offset[i, use])
        by_year.append(weight @ contrast)
        by_end.append(weight @ (p[:, None] * np.eye(t)[use]))
    if not curvatures:
        return Curvature()
    b, v = np.array(curvatures), np.array(variances)
    own = _between_site_variance(b, v)
    w = 1 / (v + own)
    w /= w.sum()
    variance = float(w**2 @ (v + own)) + end_square / errors.references.n_sites * float(np.sum(w @ by_end)) ** 2
    variance += errors.shared_variance(w @ np.array(by_year), w @ np.array(by_end), correlation)
    mean = w @ b
    return Curvature(
        common=max(float(mean @ mean) - variance, 0.0),
        own=own,
        directions=max(effective_dimensions(errors.noise.shape), _LEAST_DIRECTIONS),
    )


def _between_site_variance(curvatures: Floats, variances: Floats) -> float:
    """Return how much sites differ beyond their errors (DerSimonian & Laird 1986, eq. 8)."""
    if len(curvatures) < 2:
        return 0.0
    w = 1 / variances
    deviations = curvatures - w @ curvatures / w.sum()
    q = float(w @ np.sum(deviations**2, axis=1))
    return max((q - (len(curvatures) - 1)) / float(w.sum() - (w @ w) / w.sum()), 0.0)


def estimate_end_variance(position: Position, starts: StartingStates, errors: Uncertainty) -> float:
    """Return the variance of the sites' ends about the references' mean, relative to the references' own variance.

    The offset from the trajectory is ``q = p f + p (1 - p) b + noise``, with f the deviation of the end. So
    ``(|q|^2 - curvature - noise) / p^2`` estimates the squared length of f, in the last year with data. The result is
    the median over sites, weighted by p^2, together with one more site of ratio 1: by the definition of a reference, a
    site that has arrived is one of them.
    """
    references = errors.references
    if references.length < _NOTHING:
        return 1.0
    ratios, weights = [1.0], [1.0]
    correlation = ar1_correlation(position.share.shape[1], errors.noise.ar1)
    for i in _with_own_start(position, starts):
        last = np.flatnonzero(np.isfinite(position.share[i]))[-1:]
        p = float(np.clip(position.share[i, last[0]], 0, 1))
        if p <= _LEAST_SHARE:
            continue
        contrast = _noise_contrast(position, starts, i, last)[0]
        by_noise = errors.noise.variance[i] * float(contrast @ correlation @ contrast)
        by_curvature = (p * (1 - p)) ** 2 * (errors.curvature.common + errors.curvature.own)
        square = float(np.sum(position.offset[i, last[0]] ** 2))
        ratios.append((square - by_noise - by_curvature) / (p * references.length) ** 2 - 1 / references.n_sites)
        weights.append(p * p)
    order = np.argsort(ratios)
    cumulative = np.cumsum(np.array(weights)[order])
    median = np.array(ratios)[order][np.searchsorted(cumulative, cumulative[-1] / 2)]
    return float(np.clip(median, 0, _LARGEST_END))


def _with_own_start(position: Position, starts: StartingStates) -> NDArray[np.intp]:
    """Return the sites that have shares, from a starting state of their own."""
    measured = np.isfinite(position.share).any(axis=1)
    return np.flatnonzero(measured & ~starts.stood_in & (starts.status == "ok"))


def _noise_contrast(position: Position, starts: StartingStates, i: int, use: NDArray[np.intp]) -> Floats:
    """Return how noise moves site i off its trajectory, shape (len(use), years): each year's own less the start's."""
    left = 1 - np.clip(position.share[i, use], 0, 1)
    years = np.eye(starts.before.shape[1])[use] / position.mixture_length[i, use, None]
    found: Floats = years - left[:, None] * starts.before[i] / starts.before[i].sum()
    return found
