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

Drawn together in each replicate, so that rates have the same errors as shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.noise import Noise
from gee_polygons.change.series import Floats, Series, ar1
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.errors import UsageError
from gee_polygons.recovery.curvature import Bend
from gee_polygons.recovery.scatter import Scatter
from gee_polygons.recovery.trajectories import Starts, Ways

_SITES_AT_A_TIME: Final = 250  # x 2,000 draws x 9 years: 36 MB an array
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
    """Bootstrap deviations of some sites' shares, shape (draws, sites, years)."""

    deviations: Floats

    def interval(self, share: Floats, confidence: float) -> tuple[Floats, Floats]:
        """Return the band of each share."""
        with np.errstate(invalid="ignore"):
            low, high = np.quantile(self.deviations, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        return share + low, share + high


def bootstrap_bands(
    ways: Ways, sites: Series, starts: Starts, doubt: Doubt, blocks: pd.DataFrame | None, draws: int, seed: int
) -> Iterator[tuple[slice, Bands]]:
    """Draw deviations of all shares, some sites at a time; first-order in each source of doubt."""
    own_blocks = {} if blocks is None else _blocks_of(blocks, sites)
    for first in range(0, len(sites.site_ids), _SITES_AT_A_TIME):
        part = slice(first, first + _SITES_AT_A_TIME)
        # the same draws for all sites: no site's band depends on which others there are, nor on their order
        rng = np.random.default_rng(seed)
        yield part, _drawn(_part_of(ways, part), sites, starts, doubt, own_blocks, part, draws, rng)


def _part_of(ways: Ways, part: slice) -> Ways:
    values = {field.name: getattr(ways.place, field.name)[part] for field in fields(ways.place)}
    return replace(
        ways,
        place=replace(ways.place, **values),
        similarity=ways.similarity[part],
        range_low=ways.range_low[part],
        length_deg=ways.length_deg[part],
    )


def _drawn(
    ways: Ways,
    sites: Series,
    starts: Starts,
    doubt: Doubt,
    blocks: dict[int, _Blocks],
    part: slice,
    draws: int,
    rng: np.random.Generator,
) -> Bands:
    n, t = ways.place.share.shape
    slope = np.nan_to_num(ways.place.slope)
    p = np.clip(np.nan_to_num(ways.place.share), 0, 1)
    along = doubt.noise.along(slope) / np.nan_to_num(ways.place.mixed, nan=1.0)
    root = np.linalg.cholesky(ar1(t, doubt.noise.memory))
    before = starts.before[part]
    mean_of_base = before / np.maximum(before.sum(axis=1), 1)[:, None]

    def series() -> Floats:
        drawn: Floats = rng.normal(size=(draws, 1, t)) @ root.T
        return drawn

    own = series() * (along * np.sqrt(doubt.noise.variance[part])[:, None])
    counting = int(rng.integers(2**31))
    for i in set(blocks) & set(range(part.start, part.start + n)):
        at = i - part.start
        own[:, at] = blocks[i].resampled(sites.units[i], slope[at], draws, np.random.default_rng(counting))
    found = own - (1 - p) * np.einsum("dnt,nt->dn", own, mean_of_base)[..., None]
    found += _shared(doubt, series, p, along, mean_of_base)
    unseen = np.einsum("ntb,tbc,ntc->nt", slope, doubt.unseen_steps, slope, optimize=True)
    found += series() * np.sqrt(np.maximum(unseen, 0))
    stretches = doubt.references.stretches(draws, rng)
    found -= p * doubt.references.of_mean(slope, stretches, rng)
    found += p * _shortening(ways, doubt.references)
    found -= p * np.sqrt(doubt.own_end) * doubt.references.of_one(slope, stretches, rng)
    found += doubt.bend.along(ways, draws, rng)
    if doubt.degraded is not None and starts.stood_in[part].any():
        those = starts.stood_in[part]
        stretches = doubt.degraded.stretches(draws, rng)
        differ = doubt.degraded.of_mean(slope[those], stretches, rng)
        differ += doubt.degraded.of_one(slope[those], stretches, rng)
        found[:, those] -= (1 - p[those]) * differ
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


def _shared(doubt: Doubt, series: Callable[[], Floats], p: Floats, along: Floats, base: Floats) -> Floats:
    """Draw what the noise of the background and of the references does to all sites of a year."""
    step = series() * np.sqrt(doubt.step_variance)
    of_base = (step[:, 0] @ base.T)[..., None]
    if doubt.own_background:  # where a site is carried to, and what it is compared with, err together
        together: Floats = -(step - (1 - p) * of_base) * along
        return together
    end = series() * np.sqrt(doubt.reference_variance)
    found: Floats = -((1 - p) * (step - of_base) + p * end) * along
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Blocks:
    """A site's blocks of pixels: sums of vectors, shape (blocks, years, 64)."""

    sums: Floats

    def resampled(self, units: Floats, slope: Floats, draws: int, rng: np.random.Generator) -> Floats:
        """Draw the site's noise by resampling blocks, the same ones in all years: shape (draws, years)."""
        k, t, _ = self.sums.shape
        counts = rng.multinomial(k, np.full(k, 1 / k), size=draws).astype(np.float64)
        total = (counts @ self.sums.reshape(k, -1)).reshape(draws, t, N_BANDS)
        shift = np.nan_to_num(np.einsum("dtb,tb->dt", normalize(total) - units, slope))
        shift -= shift.mean(axis=0)
        # what is the same in all years is the place, not the year: it moves start and end alike
        found: Floats = (shift - shift.mean(axis=1, keepdims=True)) * np.sqrt(k / (k - 1))
        return found


def _blocks_of(blocks: pd.DataFrame, sites: Series) -> dict[int, _Blocks]:
    """Return the blocks of each site that has two or more, by the site's place."""
    owner = "block_of" if "block_of" in blocks.columns else "site_id"
    for name in (owner, "block_id", "year", "n_pixels"):
        if name not in blocks.columns:
            raise UsageError(f"a table of blocks needs a column {name!r}; see block_sites")
    vectors = band_matrix(blocks)
    place = {str(site_id): i for i, site_id in enumerate(sites.site_ids)}
    names = blocks[owner].astype(str)
    unknown = names[~names.isin(place)]
    if len(unknown):
        raise UsageError(
            f"blocks: {owner} {unknown.iloc[0]!r} is none of the {len(place)} sites that are measured; blocks need "
            "their site's id, as in the property block_of of block_sites, in a column block_of"
        )
    found = {}
    for site_id, rows in names.groupby(names).indices.items():
        codes, ids = pd.factorize(blocks["block_id"].to_numpy()[rows], sort=True)
        if len(ids) < 2:
            continue
        years = blocks["year"].to_numpy(np.int64)[rows]
        column = np.searchsorted(sites.years, years)
        good = np.isin(years, sites.years) & np.isfinite(vectors[rows, 0])
        pixels = blocks["n_pixels"].to_numpy(np.float64)[rows]
        sums = np.zeros((len(ids), len(sites.years), N_BANDS))
        sums[codes[good], column[good]] = vectors[rows][good] * pixels[good, None]
        found[place[str(site_id)]] = _Blocks(sums=sums)
    return found
