"""Estimates drift, the change that all land shares in a year, from background sites, and removes it.

Two models. *Translation*: one vector d(y) is added to all vectors before they are scaled to length 1, so that a site
moves by the part of d that is tangent to the sphere at its place. *Rotation*: all vectors are rotated alike, by the
smallest rotation that takes the background's mean direction of the base year to its mean direction of the year.

Sources: Weiszfeld's algorithm for the geometric median (Vardi & Zhang, PNAS 97, 2000); Tukey's biweight (Maronna,
Martin & Yohai, *Robust Statistics*, 2006).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.numerics import Flags, Floats
from gee_polygons.change.series import Series, has_data
from gee_polygons.embeddings.directional import normalize

_ITERATIONS: Final = 40
_CUTOFF: Final = 2.5  # biweight: points further off than so many median distances have no weight
_CLEARLY: Final = 0.9  # sites of one cover fit both models nearly alike, so that a smaller gain may be chance
_RIDGE: Final = 1e-3  # keeps the equations over tangent spaces solvable for one or two background sites


@dataclass(frozen=True, kw_only=True, eq=False)
class Drift:
    """The shared change of each year relative to the base years.

    Parameters
    ----------
    steps : float array, shape (years, 64)
        Translation of each year; 0 in years without background data.
    centre : float array, shape (64,)
        Mean direction of the background in the base years, which a rotation turns.
    known : bool array, shape (years,)
        Whether the background has data in the year.
    model : str
        ``"translation"``, ``"rotation"`` or ``"none"``.
    """

    steps: Floats
    centre: Floats
    known: Flags
    model: str

    @classmethod
    def none(cls, n_years: int) -> Drift:
        """Return a drift that changes nothing."""
        steps = np.zeros((n_years, N_BANDS))
        return cls(steps=steps, centre=steps[0], known=np.ones(n_years, np.bool_), model="none")

    def remove(self, units: Floats) -> Floats:
        """Return vectors of shape (sites, years, 64) as they would be in the base years."""
        return np.stack([self.remove_from_year(units[:, year], year) for year in range(len(self.steps))], axis=1)

    def remove_from_year(self, vectors: Floats, year: int) -> Floats:
        """Return vectors of one year, shape (n, 64), as they would be in the base years."""
        if self.model == "none":
            return vectors
        if self.model == "translation":
            return normalize(vectors - self.steps[year])
        # rows times R^T, with R the rotation from a to b
        a, b = self.centre, normalize(self.centre + self.steps[year])
        k = np.outer(b, a) - np.outer(a, b)
        return vectors @ (np.eye(N_BANDS) + k + k @ k / (1 + a @ b))


def base_years(present: Flags) -> Flags:
    """Return, as a mask, the first year in which at least half as many sites have data as in the best year."""
    count = present.sum(axis=0)
    first = int(np.argmax(2 * count >= count.max()))
    chosen: Flags = np.arange(len(count)) == first
    return chosen


def robust_location(points: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Estimate the centre of points with outliers: geometric median, then Tukey's biweight.

    Parameters
    ----------
    points : float array, shape (n, bands)
    noise : float array, shape (n,)
        Relative standard deviation of each.

    Returns
    -------
    The centre, shape (bands,), and the weight of each point, shape (n,).
    """
    centre: Floats = np.median(points, axis=0)
    for _ in range(_ITERATIONS):
        distance = np.maximum(np.linalg.norm(points - centre, axis=1) * noise, 1e-12)
        weight = 1 / distance
        moved = weight @ points / weight.sum()
        if np.linalg.norm(moved - centre) < 1e-7:
            break
        centre = moved
    for _ in range(5):
        distance = np.linalg.norm(points - centre, axis=1) / noise
        scale = max(float(np.median(distance)), 1e-12)
        weight = np.clip(1 - (distance / (_CUTOFF * scale)) ** 2, 0, None) ** 2 / noise**2
        centre = weight @ points / weight.sum()
    return centre, weight


def estimate_drift(background: Series, base: Flags, model: str = "auto") -> Drift:
    """Estimate each year's drift from background sites.

    Parameters
    ----------
    background : Series
        Sites most of which didn't change.
    base : bool array, shape (years,)
        Base years.
    model : {"auto", "translation", "rotation"}
        ``"auto"``: the model that leaves less of the background's movement (median over sites and years).
    """
    units = background.units
    home = _mean_direction(units, base)
    noise = 1 / np.sqrt(background.n_effective)
    steps, known = _steps(units, home, noise, base)
    # a control that varies for reasons of its own (crop rotation) gets less weight than a stable one
    moved = np.sum((normalize(units - steps) - home[:, None]) ** 2, axis=2)[:, ~base]
    own = np.array([np.nanmean(row) if np.isfinite(row).any() else np.nan for row in moved])
    if np.isfinite(own).sum() > 2 and np.nanmedian(own) > 0:
        noise = np.sqrt(np.nan_to_num(own, nan=float(np.nanmedian(own))) + 0.1 * float(np.nanmedian(own)))
        steps, known = _steps(units, home, noise, base)
    seen = np.isfinite(home[:, 0])
    centre = normalize(home[seen].mean(axis=0)) if seen.any() else np.eye(N_BANDS)[0]
    translation = Drift(steps=steps, centre=centre, known=known, model="translation")
    rotation = replace(translation, model="rotation")
    if model == "auto":
        left, left_by_rotation = (_median_distance(drift, units, home, noise) for drift in (translation, rotation))
        return rotation if left_by_rotation < _CLEARLY * left else translation
    return rotation if model == "rotation" else translation


def _steps(units: Floats, home: Floats, noise: Floats, base: Flags) -> tuple[Floats, Flags]:
    """Return each year's translation from the base years, and whether the year has data."""
    steps, known = np.zeros((units.shape[1], N_BANDS)), base.copy()
    for year in np.flatnonzero(~base):
        both = has_data(home) & has_data(units[:, year])
        if not both.any():
            continue
        known[year] = True
        difference = units[both, year] - home[both]
        _, weight = robust_location(difference, noise[both])
        # a site shows only what is tangent to the sphere at its place: least squares over all tangent spaces
        at = normalize(home[both] + units[both, year])
        tangent = difference - np.sum(difference * at, axis=1, keepdims=True) * at
        system = weight.sum() * (1 + _RIDGE) * np.eye(N_BANDS) - (at * weight[:, None]).T @ at
        steps[year] = np.linalg.solve(system, weight @ tangent)
    return steps, known


def _median_distance(drift: Drift, units: Floats, home: Floats, noise: Floats) -> float:
    """Return the median distance from home that is left without the drift, relative to each site's noise."""
    distance = np.linalg.norm(drift.remove(units) - home[:, None], axis=2) / noise[:, None]
    seen = distance[np.isfinite(distance)]
    return float(np.median(seen)) if len(seen) else 0.0


def _mean_direction(units: Floats, years: Flags) -> Floats:
    """Return the mean direction over some of the years, shape (sites, 64); NaN where none of them has data."""
    use = years & has_data(units)
    return normalize(np.where(use[..., None], units, 0.0).sum(axis=1))
