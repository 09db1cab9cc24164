"""Bands around shares: what the references, the years' noise and the pixels leave open.

A share p is ``(u - a) . e / ((r - a) . e)``: its error is, to first order, the sum of

* the site's own noise in the year, less 1 - p of what its starting state had (both of one AR(1) series, so that what
  a site remembers from its start cancels); or, with a table of blocks, the scatter of spatial blocks of pixels
  resampled together for all years;
* p times how far the chosen references' mean lies off that of all such sites (`between`: Student's t), and how far the
  site's own end lies off it. References differ for good, and so may ends: how much, the sites tell themselves, by how
  far they lie *beside* the way (`beside`);
* p (1 - p) times how far the way may bend (`beside`, again);
* for stand-ins, 1 - p times how far degraded sites differ;
* the noise of the background's step and of the references' mean, the same for all sites of a year.

Drawn together in each replicate, so that rates and rankings have the same errors as shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from gee_polygons._change.beside import Bend
from gee_polygons._change.between import Scatter
from gee_polygons._change.noise import Noise
from gee_polygons._change.series import Floats, Series, ar1
from gee_polygons._change.ways import Starts, Ways
from gee_polygons.embeddings._inputs import band_matrix
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.quantization import N_BANDS
from gee_polygons.errors import UsageError

__all__ = ["Bands", "Doubt", "bootstrap_bands"]

_NOTHING: Final = 1e-9  # squared length of a way to references that lie where the site starts


@dataclass(frozen=True, kw_only=True, eq=False)
class Doubt:
    """What the bands are drawn from.

    Parameters
    ----------
    noise : Noise
        Of the sites that are measured.
    references : Scatter
        How reference sites differ for good.
    reference_variance : float
        Squared length of the noise of the references' mean in a year.
    degraded : Scatter, optional
        The same of degraded stand-ins.
    step_variance : float
        Squared length of the noise of the background's step in a year; 0 without a background.
    unseen_steps : float array, shape (years, 64, 64)
        Covariance of what the background can't tell of a year's step.
    own_background : bool
        Whether the references are the background.
    own_end : float
        Variance of the sites' ends about the references' mean, as a share of the references' own.
    bend : Bend
        How far ways bend.
    """

    noise: Noise
    references: Scatter
    reference_variance: float
    degraded: Scatter | None
    step_variance: float
    unseen_steps: Floats
    own_background: bool
    own_end: float
    bend: Bend


@dataclass(frozen=True, kw_only=True, eq=False)
class Bands:
    """Bootstrap deviations of shares, shape (draws, sites, years)."""

    deviations: Floats

    def interval(self, share: Floats, confidence: float) -> tuple[Floats, Floats]:
        """Return the band of each share."""
        with np.errstate(invalid="ignore"):
            low, high = np.quantile(self.deviations, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        return share + low, share + high

    def rates(self, share: Floats, since: Any, confidence: float) -> list[tuple[float, float, float]]:
        """Return each site's least-squares share per year since its start, until it has arrived, with its band."""
        found = []
        for i in range(len(share)):
            use = np.flatnonzero(np.isfinite(share[i]) & (since[i] >= -1))
            arrived = np.flatnonzero(share[i, use] >= 1.0)
            if len(arrived):  # a site that is there doesn't go on: its rate is that of its way
                use = use[: max(int(arrived[0]) + 1, 2)]
            if len(use) < 2:
                found.append((np.nan, np.nan, np.nan))
                continue
            x = since[i, use] - since[i, use].mean()
            slope = float(x @ share[i, use] / (x @ x))
            spread = self.deviations[:, i, use] @ x / (x @ x)
            low, high = np.quantile(spread, [(1 - confidence) / 2, (1 + confidence) / 2])
            found.append((slope, slope + float(low), slope + float(high)))
        return found


def bootstrap_bands(
    ways: Ways, sites: Series, starts: Starts, doubt: Doubt, blocks: pd.DataFrame | None, draws: int, seed: int
) -> Bands:
    """Draw deviations of all shares; first-order in each source of doubt."""
    rng = np.random.default_rng(seed)
    n, t = ways.place.share.shape
    slope = np.nan_to_num(ways.place.slope)
    p = np.clip(np.nan_to_num(ways.place.share), 0, 1)
    along = doubt.noise.along(slope) / np.nan_to_num(ways.place.mixed, nan=1.0)
    root = np.linalg.cholesky(ar1(t, doubt.noise.memory))
    mean_of_base = starts.before / np.maximum(starts.before.sum(axis=1), 1)[:, None]

    def series(shape: tuple[int, ...]) -> Floats:
        drawn: Floats = rng.normal(size=(*shape, t)) @ root.T
        return drawn

    own = series((draws, n)) * (along * np.sqrt(doubt.noise.variance)[:, None])
    if blocks is not None:
        own = _from_blocks(blocks, sites, slope, own, rng)
    found = own - (1 - p) * np.einsum("dnt,nt->dn", own, mean_of_base)[..., None]
    found += _shared(doubt, series, (draws, 1), p, along, mean_of_base)
    unseen = np.einsum("ntb,tbc,ntc->nt", slope, doubt.unseen_steps, slope, optimize=True)
    found += series((draws, 1)) * np.sqrt(np.maximum(unseen, 0))
    stretches = doubt.references.stretches(draws, rng)
    found -= p * doubt.references.of_mean(slope, stretches, rng)
    found += p * _shortening(ways, doubt.references)
    found -= p * np.sqrt(doubt.own_end) * doubt.references.of_one(slope, stretches, rng)
    found += doubt.bend.along(ways, draws, rng)
    if doubt.degraded is not None and starts.stood_in.any():
        i = starts.stood_in
        stretches = doubt.degraded.stretches(draws, rng)
        differ = doubt.degraded.of_mean(slope[i], stretches, rng) + doubt.degraded.of_one(slope[i], stretches, rng)
        found[:, i] -= (1 - p[i]) * differ
    return Bands(deviations=found)


def _shortening(ways: Ways, references: Scatter) -> Floats:
    """Return by how much the chosen references make shares too small, per share.

    A mean of m sites lies off the true one in all directions, so the way to it is longer than the true way, by their
    variance over m (regression dilution; Fuller, *Measurement Error Models*, 1987, 1.1).
    """
    if references.n_sites < 2:
        return np.zeros(ways.place.share.shape)
    longer = references.length**2 / references.n_sites
    true = np.maximum(np.nan_to_num(ways.place.length_squared) - longer, max(longer, _NOTHING))
    found: Floats = longer / true
    return found


def _shared(doubt: Doubt, series: Any, shape: tuple[int, int], p: Floats, along: Floats, base: Floats) -> Floats:
    """Draw what the noise of the background and of the references does to all sites of a year."""
    step = series(shape) * np.sqrt(doubt.step_variance)
    of_base = np.einsum("dnt,nt->dn", np.broadcast_to(step, (shape[0], *p.shape)), base)[..., None]
    if doubt.own_background:  # where a site is carried to, and what it is compared with, err together
        together: Floats = -(step - (1 - p) * of_base) * along
        return together
    end = series(shape) * np.sqrt(doubt.reference_variance)
    found: Floats = -((1 - p) * (step - of_base) + p * end) * along
    return found


def _from_blocks(blocks: pd.DataFrame, sites: Series, slope: Floats, own: Floats, rng: np.random.Generator) -> Floats:
    """Replace the noise of sites that have blocks by resampling those, the same ones in all years."""
    for name in ("site_id", "block_id", "year", "n_pixels"):
        if name not in blocks.columns:
            raise UsageError(f"a table of blocks needs a column {name!r}; see block_sites")
    vectors = band_matrix(blocks)
    place = {str(site_id): i for i, site_id in enumerate(sites.site_ids)}
    for site_id, rows in blocks.groupby("site_id", sort=False).indices.items():
        i = place.get(str(site_id))
        codes, ids = pd.factorize(blocks["block_id"].to_numpy()[rows])
        if i is None or len(ids) < 2:
            continue
        years = blocks["year"].to_numpy(np.int64)[rows]
        column = np.searchsorted(sites.years, years)
        known = np.isin(years, sites.years)
        cube = np.zeros((len(ids), len(sites.years), N_BANDS))
        size = np.zeros((len(ids), len(sites.years)))
        good = known & np.isfinite(vectors[rows, 0])
        pixels = blocks["n_pixels"].to_numpy(np.float64)[rows]
        cube[codes[good], column[good]] = vectors[rows][good] * pixels[good, None]
        size[codes[good], column[good]] = pixels[good]
        # what is the same in all years is the place, not the year: it moves start and end alike
        counts = rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=len(own))
        total = np.einsum("dk,ktb->dtb", counts, cube)
        drawn = normalize(total) - sites.units[i]
        shift = np.nan_to_num(np.einsum("dtb,tb->dt", drawn, slope[i]))
        shift -= shift.mean(axis=0)
        common = shift.mean(axis=1, keepdims=True)
        widen = np.sqrt(len(ids) / (len(ids) - 1))
        own[:, i] = (shift - common) * widen
    return own
