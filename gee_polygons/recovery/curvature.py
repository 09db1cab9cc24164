"""What sites tell by lying beside their ways: how far ways bend, and how far their ends differ.

Young forest isn't half pasture and half old forest. Let sites at a share p lie off the straight way by ``p (1 - p) b``,
the simplest path that leaves it and comes back. What of b lies *beside* the way is seen; what lies along it makes the
share too large or too small by ``p (1 - p) b_along / length``, and nothing in a table can tell that from growth. But b
has as many directions as land varies in, D, and the way is one of them: if no direction is special, the one unseen is
Student's t with D - 1 degrees of freedom, of the root mean square of those seen. D is that of the years' noise (the
only scatter that isn't along the way to begin with), by Satterthwaite.

Sites are pooled as studies are: generalised least squares of each series beside its way, b of all sites about one mean
(random effects; DerSimonian & Laird, *Meta-analysis in clinical trials*, Control. Clin. Trials 7, 1986).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.change.noise import Noise, spectral_freedom
from gee_polygons.change.series import Floats, ar1
from gee_polygons.recovery.scatter import Scatter
from gee_polygons.recovery.trajectories import Starts, Ways

_LEAST_HUMP: Final = 0.05  # largest p (1 - p) of a site whose bend can be seen
_NOTHING: Final = 1e-9  # variance added where noise is 0; distance between references that are copies of each other
_LEAST_SHARE: Final = 0.01  # of the way: before it nothing can be seen of the end
_LARGEST_END: Final = 4.0  # times the references' variance: a site beyond that isn't on the way at all
_FEWEST_DIRECTIONS: Final = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Shared:
    """What errs alike in all sites.

    Parameters
    ----------
    step_variance : float array, shape (years,)
        Squared length of the error of the background's step, noise and what it can't tell together.
    reference_variance : float
        Squared length of the noise of the references' mean in a year.
    own_background : bool
        Whether the references are the background: their noise is then the step's.
    """

    step_variance: Floats
    reference_variance: float
    own_background: bool

    def variance(self, by_year: Floats, by_end: Floats, together: Floats) -> float:
        """Return that of a mean over sites that counts a year's vector and its references so much."""
        step = (by_year if self.own_background else by_year - by_end) * np.sqrt(self.step_variance)
        end = 0.0 if self.own_background else self.reference_variance * float(by_end @ together @ by_end)
        return float(step @ together @ step) + end


@dataclass(frozen=True, kw_only=True, eq=False)
class Bend:
    """How far ways bend, beside themselves.

    Parameters
    ----------
    common : float
        Squared length of the bend that all sites share.
    own : float
        Variance of a site's bend about it, squared length.
    directions : float
        In which it may point.
    """

    common: float
    own: float
    directions: float

    @classmethod
    def none(cls) -> Bend:
        """Return that of straight ways."""
        return cls(common=0.0, own=0.0, directions=np.inf)

    def along(self, ways: Ways, draws: int, rng: np.random.Generator) -> Floats:
        """Draw what the bend adds to shares, shape (draws, sites, years)."""
        n, t = ways.place.share.shape
        if self.common + self.own <= 0:
            return np.zeros((1, n, t))
        p = np.clip(np.nan_to_num(ways.place.share), 0, 1)
        reach = p * (1 - p) / np.sqrt(np.maximum(np.nan_to_num(ways.place.length_squared, nan=1.0), _NOTHING))
        seen = self.directions - 1
        common, own = rng.standard_t(seen, size=(2, draws, 1, 1))
        found: Floats = reach * (np.sqrt(self.common / seen) * common + np.sqrt(self.own / seen) * own)
        return found


def fit_bend(ways: Ways, starts: Starts, noise: Noise, references: Scatter, shared: Shared) -> Bend:
    """Estimate how far ways bend from the sites that are on them, each site's noise and end being random."""
    t = ways.place.share.shape[1]
    together, of_end = ar1(t, noise.memory), references.length**2
    bends, variances, by_year, by_end = [], [], [], []
    for i in _measured(ways, starts):
        use = np.flatnonzero(np.isfinite(ways.place.share[i]) & ~starts.before[i])
        p = np.clip(ways.place.share[i, use], 0, 1)
        hump = p * (1 - p)
        if hump.max(initial=0.0) < _LEAST_HUMP:
            continue
        contrast = _contrast(ways, starts, i, use)
        error = noise.variance[i] * contrast @ together @ contrast.T + of_end * np.outer(p, p)
        error[np.diag_indices(len(use))] += _NOTHING
        weight = np.linalg.solve(error, hump)
        variances.append(1 / float(weight @ hump))
        weight *= variances[-1]
        bends.append(weight @ ways.place.aside[i, use])
        by_year.append(weight @ contrast)
        by_end.append(weight @ (p[:, None] * np.eye(t)[use]))
    if not bends:
        return Bend.none()
    b, v = np.array(bends), np.array(variances)
    own = _between(b, v)
    w = 1 / (v + own)
    w /= w.sum()
    variance = float(w**2 @ (v + own)) + of_end / references.n_sites * float(np.sum(w @ by_end)) ** 2
    variance += shared.variance(w @ np.array(by_year), w @ np.array(by_end), together)
    mean = w @ b
    return Bend(
        common=max(float(mean @ mean) - variance, 0.0),
        own=own,
        directions=max(spectral_freedom(noise.shape), _FEWEST_DIRECTIONS),
    )


def _between(bends: Floats, v: Floats) -> float:
    """Return how much sites' bends differ beyond their errors (DerSimonian & Laird 1986, eq. 8)."""
    if len(bends) < 2:
        return 0.0
    w = 1 / v
    apart = bends - w @ bends / w.sum()
    q = float(w @ np.sum(apart**2, axis=1))
    return max((q - (len(bends) - 1)) / float(w.sum() - (w @ w) / w.sum()), 0.0)


def own_end(ways: Ways, starts: Starts, noise: Noise, references: Scatter, bend: Bend) -> float:
    """Return how much sites' ends differ from the references' mean, as a share of the references' own variance.

    What lies beside the way is ``q = p f + p (1 - p) b + noise``, f being the end's deviation: so
    ``(|q|^2 - bend - noise) / p^2`` estimates its squared length, at the last year with data. Median over sites by
    p^2; the definition of a reference, that a site which has arrived is one more of them, counts as one site.
    """
    if references.length < _NOTHING:
        return 1.0
    share = ways.place.share
    values, weights = [1.0], [1.0]
    together = ar1(share.shape[1], noise.memory)
    for i in _measured(ways, starts):
        last = np.flatnonzero(np.isfinite(share[i]))[-1:]
        p = float(np.clip(share[i, last[0]], 0, 1))
        if p <= _LEAST_SHARE:
            continue
        contrast = _contrast(ways, starts, i, last)[0]
        by_noise = noise.variance[i] * float(contrast @ together @ contrast)
        by_bend = (p * (1 - p)) ** 2 * (bend.common + bend.own)
        beside = float(np.sum(ways.place.aside[i, last[0]] ** 2))
        values.append((beside - by_noise - by_bend) / (p * references.length) ** 2 - 1 / references.n_sites)
        weights.append(p * p)
    order = np.argsort(values)
    upto = np.cumsum(np.array(weights)[order])
    return float(np.clip(np.array(values)[order][np.searchsorted(upto, upto[-1] / 2)], 0, _LARGEST_END))


def _measured(ways: Ways, starts: Starts) -> list[int]:
    """Return which sites have shares, from a start of their own."""
    shares = np.isfinite(ways.place.share).any(axis=1)
    found: list[int] = np.flatnonzero(shares & ~starts.stood_in & (starts.status == "ok")).tolist()
    return found


def _contrast(ways: Ways, starts: Starts, i: int, use: NDArray[np.intp]) -> Floats:
    """Return how the noise of years moves site i off its way, shape (len(use), years): its own, less its start's."""
    left = 1 - np.clip(ways.place.share[i, use], 0, 1)
    years = np.eye(starts.before.shape[1])[use] / ways.place.mixed[i, use, None]
    found: Floats = years - left[:, None] * starts.before[i] / starts.before[i].sum()
    return found
