"""The ways of all sites: where each starts, where it should go, and how far it is in each year."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.change.drift import Drift
from gee_polygons.change.series import Flags, Floats, Series
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.similarity import angular_distance_deg
from gee_polygons.recovery.geometry import Place, mean_start, share_of_way
from gee_polygons.recovery.scatter import balanced

_RANGE: Final = 0.1  # the reference range begins at this quantile of the reference sites


@dataclass(frozen=True, kw_only=True, eq=False)
class Starts:
    """Where sites start.

    Parameters
    ----------
    state : float array, shape (sites, 64)
        In the frame of the base year; NaN where it isn't known.
    status : object array, shape (sites,)
        ``"ok"``, ``"no_baseline"``, ``"not_started"`` or ``"no_data"``.
    before : bool array, shape (sites, years)
        Years with data before the start: the state is their mean.
    stood_in : bool array, shape (sites,)
        Whether the state is that of degraded sites.
    """

    state: Floats
    status: NDArray[Any]
    before: Flags
    stood_in: Flags


def starting_states(units: Floats, years: NDArray[np.int64], starts: list[int], degraded: Floats | None) -> Starts:
    """Find where each site starts.

    Parameters
    ----------
    units : float array, shape (sites, years, 64)
        With the background's step taken off.
    starts : list of int
        First year of each site's restoration.
    degraded : float array, shape (m, years, 64), optional
        Sites that stand in where there are no data before the start.
    """
    present = np.isfinite(units[..., 0])
    before = present & (years[None] < np.array(starts, np.float64)[:, None])
    n_base = before.sum(axis=1)
    state = normalize(np.where(before[..., None], units, 0.0).sum(axis=1))
    status = np.where(present.any(axis=1), np.where(n_base > 0, "ok", "no_baseline"), "no_data").astype(object)
    status[(n_base > 0) & (n_base == present.sum(axis=1))] = "not_started"
    stood_in = np.zeros(len(units), np.bool_)
    if degraded is not None:
        stood_in = status == "no_baseline"
        state[stood_in] = normalize(np.nansum(degraded, axis=(0, 1)))
        status[stood_in] = "ok"
    return Starts(state=state, status=status, before=before, stood_in=stood_in)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ways:
    """Shares of all sites and years, and what is needed to carry noise over to them."""

    place: Place  # (sites, years)
    similarity: Floats  # (sites, years)
    range_low: Floats  # (sites, years), share at which the reference range begins
    length_deg: Floats  # (sites,), mean over the years
    count: NDArray[np.int64]  # (years,), references with data
    coherence: Floats  # (years,), mean resultant length of the references

    @classmethod
    def of(cls, sites: Series, reference: Series, start: Floats, drift: Drift) -> Ways:
        """Measure the ways from starting states to each year's references, in the frame of the base year.

        There the vectors of a way's two ends keep their lengths; a step added to both would change what a half is.
        """
        n, t, _ = sites.units.shape
        seen = np.isfinite(reference.units[..., 0])
        centre = normalize(np.nan_to_num(balanced(reference.units)).sum(axis=0))
        filled = balanced(drift.remove(reference.units))
        total = np.nan_to_num(filled).sum(axis=0)
        shape = (n, t, start.shape[1])
        a, k = np.broadcast_to(start[:, None], shape), np.broadcast_to(mean_start(start)[:, None], shape)
        r = np.broadcast_to(normalize(total), shape)
        low = np.full((n, t), np.nan)
        for y in np.flatnonzero(seen.any(axis=0)):
            own = share_of_way(filled[None, :, y], a[:, y, None], r[:, y, None], k[:, y, None])
            low[:, y] = np.quantile(own.share, _RANGE, axis=1)
        length = angular_distance_deg(a, r)
        known = np.isfinite(length)
        length = np.where(known, length, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return cls(
            place=share_of_way(drift.remove(sites.units), a, r, k),
            similarity=np.sum(sites.units * centre, axis=2),
            range_low=low,
            length_deg=length,
            count=seen.sum(axis=0),
            coherence=np.linalg.norm(total, axis=1) / max(len(filled), 1),
        )
