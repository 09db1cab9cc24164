"""Bands around shares: what the references, the years' noise and the pixels leave open.

Sources of doubt, drawn independently in each bootstrap replicate: which reference sites were chosen (resampled with
replacement; Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993), and which of them the site would end like;
its own noise in each year; the noise of its starting state, which all its years share; the error of the background's
step. The noise is that of the table's own series about their best paths (so a change isn't taken for noise), scaled
from site to site by the effective number of pixels; or, with a table of blocks, the scatter of spatial blocks of
pixels resampled together for all years.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from gee_polygons._change.series import Floats, Series
from gee_polygons._change.templates import MIN_YEARS, Templates, fit_templates
from gee_polygons.embeddings._inputs import band_matrix
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.quantization import N_BANDS
from gee_polygons.errors import UsageError

__all__ = ["Bands", "bootstrap_bands", "noise_covariance"]

# Reference sites differ, and a site's own end may lie as far off their mean. How much of that it keeps isn't known:
# half of the variance is assumed (all of it: bands that hold 95-98 % on simulated sites; none: 64-69 %).
OWN_END: Final = 0.5**0.5
# Where the table can't tell (two years of data): the incoherent part of a real pixel's yearly step, half for each year
PRIOR_VARIANCE: Final = 0.35 * 2 * (1 - 0.973) / 2


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


def noise_covariance(units: Floats, n_effective: Floats) -> Floats:
    """Return the covariance of one year's noise for one effective pixel, shape (64, 64)."""
    t = units.shape[1]
    prior = np.eye(N_BANDS) * PRIOR_VARIANCE / N_BANDS
    if t < MIN_YEARS:
        return prior
    fit = fit_templates(units, Templates.over(t))
    r = fit.residuals
    seen = np.isfinite(r[..., 0])
    # a mean and a path's direction are taken from each series: two years' worth
    freedom = np.maximum(seen.sum(axis=1) - 2, 0)
    use = freedom > 0
    if not use.any():
        return prior
    r = np.nan_to_num(r[use]) * np.sqrt(n_effective[use] / freedom[use])[:, None, None]
    # a few sites that no path fits must not set everyone's noise
    size = np.einsum("ntb,ntb->n", r, r)
    cap = 3 * np.median(size)
    r = r * np.sqrt(np.minimum(1.0, cap / np.maximum(size, 1e-12)))[:, None, None]
    flat = r.reshape(-1, N_BANDS)
    weight = float(freedom[use].sum())
    pooled = flat.T @ flat / use.sum()
    found: Floats = (weight * pooled + 5.0 * prior) / (weight + 5.0)
    return found


def bootstrap_bands(
    share: Floats, slope: Floats, sites: Series, references: Floats, centre: Floats,
    n_base: Floats, noise: Floats, background_pixels: float, blocks: pd.DataFrame | None, draws: int, seed: int,
) -> Bands:  # fmt: skip
    """Draw deviations of all shares; first-order in each source of doubt."""
    rng = np.random.default_rng(seed)
    n, t = share.shape
    safe = np.nan_to_num(slope)
    along = np.sqrt(np.maximum(np.einsum("ntb,bc,ntc->nt", safe, noise, safe, optimize=True), 0))
    # the background's step is a mean of noisy sites as well; its error is everybody's in a year
    left = 1 - np.clip(np.nan_to_num(share), 0, 1)
    shared = rng.normal(size=(draws, 1, t)) * along * left / np.sqrt(max(background_pixels, 1.0))
    along /= np.sqrt(sites.n_effective)[:, None]
    own = rng.normal(size=(draws, n, t)) * along
    if blocks is not None:
        own = _from_blocks(blocks, sites, safe, own, rng)
    start = rng.normal(size=(draws, n, 1)) * along / np.sqrt(np.maximum(n_base, 1.0))[:, None]
    moved = own - left * start - shared
    return Bands(deviations=moved - _of_references(safe, np.nan_to_num(share), references, centre, draws, rng))


def _of_references(
    slope: Floats, weight: Floats, references: Floats, centre: Floats, draws: int, rng: np.random.Generator
) -> Floats:
    """Draw how shares move when other reference sites had been chosen: p falls by p times the way's lengthening."""
    m = len(references)
    found = np.zeros((draws, *slope.shape[:2]))
    if m < 2:
        return found  # one reference can't tell how references differ: the band says so by the docs only
    picks = rng.integers(0, m, size=(draws, m))
    # the site's own end lies about the references' mean as they do: one of them stands for it in each draw
    ends = rng.integers(0, m, size=(draws, slope.shape[0]))
    seen = np.isfinite(references[..., 0])
    filled = np.where(seen[..., None], references, 0.0)
    # a resample of m is too narrow by (m - 1) / m
    widen = np.sqrt(m / (m - 1))
    at = np.arange(slope.shape[0])
    difference = np.where(seen[..., None], references - centre, 0.0)
    scatter = np.einsum("ntb,mtb->mnt", slope, difference, optimize=True) * widen
    for d, pick in enumerate(picks):
        with np.errstate(invalid="ignore"):
            moved = (normalize(filled[pick].sum(axis=0)) - centre) * widen
        found[d] = weight * (np.einsum("ntb,tb->nt", slope, np.nan_to_num(moved)) + OWN_END * scatter[ends[d], at])
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
