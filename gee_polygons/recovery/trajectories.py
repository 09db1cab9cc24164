"""Measures the trajectories of all sites: where each starts, where the references are, and its position each year."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.change.drift import Drift
from gee_polygons.change.numerics import Flags, Floats
from gee_polygons.change.series import Series, has_data
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.similarity import angular_distance_deg
from gee_polygons.recovery.geometry import Position, local_mean_start, locate
from gee_polygons.recovery.scatter import fill_gaps

_RANGE: Final = 0.1  # the reference range begins at this quantile of the reference sites


@dataclass(frozen=True, kw_only=True, eq=False)
class StartingStates:
    """The starting state of each site.

    Parameters
    ----------
    state : float array, shape (sites, 64)
        As in the base year; NaN where it isn't known.
    cover : float array, shape (sites, 64)
        Mean starting state of the sites with a similar cover.
    status : object array, shape (sites,)
        ``"ok"``, ``"no_baseline"``, ``"not_started"`` or ``"no_data"``.
    before : bool array, shape (sites, years)
        Years with data before the start, of which the state is the mean.
    stood_in : bool array, shape (sites,)
        Whether the state is the mean of degraded sites.
    """

    state: Floats
    cover: Floats
    status: NDArray[Any]
    before: Flags
    stood_in: Flags

    @classmethod
    def of(cls, units: Floats, years: NDArray[np.int64], starts: list[int], degraded: Floats) -> StartingStates:
        """Average each site's years before its start.

        Parameters
        ----------
        units : float array, shape (sites, years, 64)
            Without drift.
        years : int array, shape (years,)
        starts : list of int
            First year of each site's restoration.
        degraded : float array, shape (m, years, 64)
            Sites whose mean stands in for sites without data before the start; may be empty.
        """
        present = has_data(units)
        before = present & (years[None] < np.array(starts, np.float64)[:, None])
        n_before = before.sum(axis=1)
        state = normalize(np.where(before[..., None], units, 0.0).sum(axis=1))
        status = np.where(present.any(axis=1), np.where(n_before > 0, "ok", "no_baseline"), "no_data").astype(object)
        status[(n_before > 0) & (n_before == present.sum(axis=1))] = "not_started"
        stood_in = (status == "no_baseline") & (len(degraded) > 0)
        state[stood_in] = normalize(np.nansum(degraded, axis=(0, 1)))
        status[stood_in] = "ok"
        return cls(state=state, cover=local_mean_start(state), status=status, before=before, stood_in=stood_in)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectories:
    """Positions of all sites and years on the trajectories from starting states to references.

    Parameters
    ----------
    position : Position
        Of shape (sites, years).
    similarity : float array, shape (sites, years)
        Cosine to the mean direction of the year's references.
    range_low : float array, shape (sites, years)
        Share of recovery at which the reference range begins.
    length_deg : float array, shape (sites,)
        Angle from start to references, mean over the years.
    count : int array, shape (years,)
        References with data.
    coherence : float array, shape (years,)
        Mean resultant length of the references' unit means.
    """

    position: Position
    similarity: Floats
    range_low: Floats
    length_deg: Floats
    count: NDArray[np.int64]
    coherence: Floats

    @classmethod
    def of(cls, sites: Series, references: Series, starts: StartingStates, drift: Drift) -> Trajectories:
        """Measure the trajectories without drift, in the frame of the base year.

        There both ends of a trajectory keep their lengths; a drift added to both would move the middle of it.
        """
        n, t, n_bands = sites.units.shape
        seen = references.present
        centre = normalize(np.nan_to_num(fill_gaps(references.units)).sum(axis=0))
        filled = fill_gaps(drift.remove(references.units))
        total = np.nan_to_num(filled).sum(axis=0)
        shape = (n, t, n_bands)
        a, k = (np.broadcast_to(v[:, None], shape) for v in (starts.state, starts.cover))
        r = np.broadcast_to(normalize(total), shape)
        low = np.full((n, t), np.nan)
        for y in np.flatnonzero(seen.any(axis=0)):
            own = locate(filled[None, :, y], a[:, y, None], r[:, y, None], k[:, y, None])
            low[:, y] = np.quantile(own.share, _RANGE, axis=1)
        length = angular_distance_deg(a, r)
        known = np.isfinite(length)
        length = np.where(known, length, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return cls(
            position=locate(drift.remove(sites.units), a, r, k),
            similarity=np.sum(sites.units * centre, axis=2),
            range_low=low,
            length_deg=length,
            count=seen.sum(axis=0),
            coherence=np.linalg.norm(total, axis=1) / max(len(filled), 1),
        )
