"""The step that all land shares in a year: estimated from a background, robustly, and taken off.

Two models. *Translation*: the same vector d(y) is added to every place's vector before it is scaled to length 1, so a
site moves by the part of d that is tangent to the sphere where it lies. *Rotation*: all directions are turned alike,
by the smallest rotation that takes the background's mean direction of the base year to that of the year.

Sources: Weiszfeld's algorithm for the geometric median (Vardi & Zhang, PNAS 97, 2000); Tukey's biweight (Maronna,
Martin & Yohai, *Robust Statistics*, 2006).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.series import Flags, Floats, Series
from gee_polygons.embeddings.directional import normalize

_ITERATIONS: Final = 40
_CUTOFF: Final = 2.5  # biweight: what is further off than so many median distances counts for nothing
_CLEARLY: Final = 0.9  # sites of one cover show both models nearly alike: a small gain is chance
_RIDGE: Final = 1e-3  # keeps the tangent spaces' equations solvable for one or two background sites


@dataclass(frozen=True, kw_only=True, eq=False)
class Drift:
    """What is shared by year, relative to the base years.

    Parameters
    ----------
    steps : float array, shape (years, 64)
        Translation of each year; 0 where the background can't tell.
    centre : float array, shape (64,)
        Mean direction of the background in the base years: what a rotation turns.
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
        """Return the drift that isn't corrected."""
        steps = np.zeros((n_years, N_BANDS))
        return cls(steps=steps, centre=steps[0], known=np.ones(n_years, np.bool_), model="none")

    def remove(self, units: Floats) -> Floats:
        """Take it off vectors of shape (sites, years, 64): as if every year were the base year."""
        if self.model == "none":
            return units
        if self.model == "rotation":
            return np.stack([units[:, y] @ self._turn(y) for y in range(len(self.steps))], axis=1)
        return normalize(units - self.steps)

    def add(self, vector: Floats, year: int) -> Floats:
        """Carry vectors (..., 64) from the base years to a year: what they would be there without a change."""
        if self.model == "none":
            return vector
        if self.model == "rotation":
            return vector @ self._turn(year).T
        return normalize(vector + self.steps[year])

    def _turn(self, year: int) -> Floats:
        """Return R^T of the rotation R from the base years to a year: row vectors times it go back."""
        a, b = self.centre, normalize(self.centre + self.steps[year])
        k = np.outer(b, a) - np.outer(a, b)
        turn: Floats = np.eye(N_BANDS) + k + k @ k / (1 + a @ b)
        return turn


def base_years(present: Flags) -> Flags:
    """Return the first year in which at least half as many sites have data as in the best year, as a mask."""
    count = present.sum(axis=0)
    first = int(np.argmax(2 * count >= count.max()))
    chosen: Flags = np.arange(len(count)) == first
    return chosen


def robust_location(points: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Return where most of the points are, and the weight of each: geometric median, then Tukey's biweight.

    Parameters
    ----------
    points : float array, shape (n, bands)
    noise : float array, shape (n,)
        Relative standard deviation of each.
    """
    centre: Floats = np.median(points, axis=0)
    for _ in range(_ITERATIONS):
        distance = np.maximum(np.linalg.norm(points - centre, axis=1) * noise, 1e-12)
        weight = 1 / distance
        moved = weight @ points / weight.sum()
        if np.linalg.norm(moved - centre) < 1e-7:
            break
        centre = moved
    weight = np.ones(len(points))
    for _ in range(5):
        distance = np.linalg.norm(points - centre, axis=1) / noise
        scale = max(float(np.median(distance)), 1e-12)
        weight = np.clip(1 - (distance / (_CUTOFF * scale)) ** 2, 0, None) ** 2 / noise**2
        centre = weight @ points / weight.sum()
    return centre, weight


def estimate_drift(background: Series, base: Flags, model: str = "auto", trusted: Flags | None = None) -> Drift:
    """Estimate each year's shared step from background sites.

    Parameters
    ----------
    background : Series
        Sites that mostly didn't change.
    base : bool array, shape (years,)
        Base years.
    model : {"auto", "translation", "rotation"}
        ``"auto"``: whichever leaves less of the background's movement (median over sites and years).
    trusted : bool array, shape (sites,), optional
        Sites to use; all by default.
    """
    units = background.units if trusted is None else background.units[trusted]
    n_eff = background.n_effective if trusted is None else background.n_effective[trusted]
    home = _mean_where(units, np.broadcast_to(base, units.shape[:2]))
    noise = 1 / np.sqrt(n_eff)
    steps, known = _steps(units, home, noise, base)
    # a control that is restless for reasons of its own (a crop that rotates) counts for less than a calm one
    moved = np.sum((normalize(units - steps) - home[:, None]) ** 2, axis=2)[:, ~base]
    own = np.array([np.nanmean(row) if np.isfinite(row).any() else np.nan for row in moved])
    if np.isfinite(own).sum() > 2 and np.nanmedian(own) > 0:
        noise = np.sqrt(np.nan_to_num(own, nan=float(np.nanmedian(own))) + 0.1 * float(np.nanmedian(own)))
        steps, known = _steps(units, home, noise, base)
    seen = np.isfinite(home[:, 0])
    centre = normalize(home[seen].mean(axis=0)) if seen.any() else np.eye(N_BANDS)[0]
    found = [Drift(steps=steps, centre=centre, known=known, model=m) for m in ("translation", "rotation")]
    if model != "auto":
        return found[model == "rotation"]
    left = [_what_is_left(drift, units, home, noise) for drift in found]
    return found[left[1] < _CLEARLY * left[0]]


def _steps(units: Floats, home: Floats, noise: Floats, base: Flags) -> tuple[Floats, Flags]:
    """Return each year's translation from the base years, and whether there was anything to tell it from."""
    steps, known = np.zeros((units.shape[1], N_BANDS)), base.copy()
    for year in np.flatnonzero(~base):
        both = np.isfinite(home[:, 0]) & np.isfinite(units[:, year, 0])
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


def unseen_steps(drift: Drift, witnesses: Floats, variance: Floats) -> Floats:
    """Return the covariance of what the background can't tell of each year's translation, shape (years, 64, 64).

    A site shows only what is tangent to the sphere where it lies: sites of one cover hardly show the part that points
    at them. For places with directions x_j and noise v_j a direction (squared, summed over the bands), and steps whose
    own variance a direction is s = |step|^2 / 63, that covariance is ``(sum (I - x_j x_j^T) / v_j + I / s)^-1`` (Gelman
    et al., *Bayesian Data Analysis*, 2013, 14.2), less what it is where all sites show it.
    """
    found = np.zeros((len(drift.steps), N_BANDS, N_BANDS))
    if drift.model != "translation" or not len(witnesses):
        return found
    weight = (N_BANDS - 1) / (2 * variance)  # a step is a difference of two years
    seen = weight.sum() * np.eye(N_BANDS) - (witnesses * weight[:, None]).T @ witnesses
    for y, step in enumerate(drift.steps):
        own = float(step @ step) / (N_BANDS - 1)
        if own > 0:
            values, axes = np.linalg.eigh(seen + np.eye(N_BANDS) / own)
            found[y] = (axes * (1 / values - 1 / values[-1])) @ axes.T
    return found


def _what_is_left(drift: Drift, units: Floats, home: Floats, noise: Floats) -> float:
    distance = np.linalg.norm(drift.remove(units) - home[:, None], axis=2) / noise[:, None]
    seen = distance[np.isfinite(distance)]
    return float(np.median(seen)) if len(seen) else 0.0


def _mean_where(units: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Mean direction over some of the years; NaN where none of them has data."""
    use = chosen & np.isfinite(units[..., 0])
    total = np.where(use[..., None], units, 0.0).sum(axis=1)
    return normalize(total)
