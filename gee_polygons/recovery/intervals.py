"""Draws confidence intervals of shares of recovery by a parametric bootstrap.

A share p is ``(u - a) . e / ((r - a) . e)``. To first order its error is the sum of

* the site's own noise in the year, less 1 - p times the noise of its starting state (both of one AR(1) series, so that
  what persists from the start cancels); or, with a table of blocks, the scatter of spatial blocks of pixels,
  resampled together for all years;
* p times the error of the references' mean as the mean of all such sites (`scatter`: Student's t), and p times the
  deviation of the site's own end from it: the offsets of the sites show how much their ends differ (`curvature`);
* p (1 - p) times the curvature along the trajectory (`curvature`);
* for stand-ins, 1 - p times the difference between degraded sites;
* the noise of the drift's step and of the references' mean, the same for all sites of a year.

All are drawn together in each replicate, so that rates have the same errors as shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.numerics import Floats, ar1_correlation
from gee_polygons.change.series import Series
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.errors import UsageError
from gee_polygons.recovery.geometry import Position
from gee_polygons.recovery.scatter import Scatter
from gee_polygons.recovery.trajectories import StartingStates
from gee_polygons.recovery.uncertainty import Uncertainty

_SITES_AT_A_TIME: Final = 250  # x 2,000 draws x 9 years: 36 MB an array
_NOTHING: Final = 1e-9  # squared length of a trajectory to references that lie where the site starts

Value = TypeVar("Value", float, Floats)


def interval(value: Value, deviations: Floats, confidence: float) -> tuple[Value, Value]:
    """Return the ends of the confidence interval of a value, from bootstrap deviations of shape (draws, ...)."""
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(deviations, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return value + low, value + high


def bootstrap_deviations(
    position: Position,
    sites: Series,
    starts: StartingStates,
    errors: Uncertainty,
    blocks: pd.DataFrame | None,
    draws: int,
    seed: int,
) -> Iterator[tuple[slice, Floats]]:
    """Draw deviations of all shares, some sites at a time: their slice, and an array (draws, sites, years)."""
    block_sums = {} if blocks is None else _sums_by_block(blocks, sites)
    for first in range(0, len(sites.site_ids), _SITES_AT_A_TIME):
        part = slice(first, first + _SITES_AT_A_TIME)
        # the same draws for all sites: no interval depends on which other sites there are, nor on their order
        rng = np.random.default_rng(seed)
        yield part, _drawn(position.take(part), sites, starts, errors, block_sums, part, draws, rng)


def _drawn(
    position: Position,
    sites: Series,
    starts: StartingStates,
    errors: Uncertainty,
    block_sums: dict[int, Floats],
    part: slice,
    draws: int,
    rng: np.random.Generator,
) -> Floats:
    n, t = position.share.shape
    gradient = np.nan_to_num(position.gradient)
    p = np.clip(np.nan_to_num(position.share), 0, 1)
    along = errors.noise.along(gradient) / np.nan_to_num(position.mixture_length, nan=1.0)
    root = np.linalg.cholesky(ar1_correlation(t, errors.noise.ar1))
    before = starts.before[part]
    mean_before = before / np.maximum(before.sum(axis=1), 1)[:, None]

    def series() -> Floats:
        return rng.normal(size=(draws, 1, t)) @ root.T

    own = series() * (along * np.sqrt(errors.noise.variance[part])[:, None])
    block_seed = int(rng.integers(2**31))
    for i in set(block_sums) & set(range(part.start, part.start + n)):
        at = i - part.start
        block_rng = np.random.default_rng(block_seed)
        own[:, at] = _resampled(block_sums[i], sites.units[i], gradient[at], draws, block_rng)
    found: Floats = own - (1 - p) * np.einsum("dnt,nt->dn", own, mean_before)[..., None]
    found += _shared_errors(errors, series, p, along, mean_before)
    undetermined = np.einsum("ntb,tbc,ntc->nt", gradient, errors.step_covariance, gradient, optimize=True)
    found += series() * np.sqrt(np.maximum(undetermined, 0))
    stretches = errors.references.stretches(draws, rng)
    found -= p * errors.references.draw_mean(gradient, stretches, rng)
    found += p * _dilution(position, errors.references)
    found -= p * np.sqrt(errors.end_variance) * errors.references.draw_site(gradient, stretches, rng)
    found += errors.curvature.draw(position, draws, rng)
    stood_in = starts.stood_in[part]
    if errors.degraded is not None and stood_in.any():
        stretches = errors.degraded.stretches(draws, rng)
        difference = errors.degraded.draw_mean(gradient[stood_in], stretches, rng)
        difference += errors.degraded.draw_site(gradient[stood_in], stretches, rng)
        found[:, stood_in] -= (1 - p[stood_in]) * difference
    return found


def _dilution(position: Position, references: Scatter) -> Floats:
    """Return by how much the choice of references makes shares too small, relative to the shares.

    A mean of m sites lies off the true mean in all directions, so the trajectory to it is longer than the true one, by
    the sites' variance over m (regression dilution; Fuller, *Measurement Error Models*, 1987, 1.1).
    """
    if references.n_sites < 2:
        return np.zeros(position.share.shape)
    longer = references.length**2 / references.n_sites
    return longer / np.maximum(np.nan_to_num(position.length_squared) - longer, max(longer, _NOTHING))


def _shared_errors(
    errors: Uncertainty, series: Callable[[], Floats], p: Floats, along: Floats, mean_before: Floats
) -> Floats:
    """Draw the errors that the noise of the background and of the references gives all sites of a year."""
    step = series() * np.sqrt(errors.step_variance)
    at_start = (step[:, 0] @ mean_before.T)[..., None]
    if errors.own_background:  # drift and references have the same error
        moved = step - (1 - p) * at_start
    else:
        end = series() * np.sqrt(errors.reference_variance)
        moved = (1 - p) * (step - at_start) + p * end
    found: Floats = -moved * along
    return found


def _resampled(sums: Floats, units: Floats, gradient: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """Draw a site's noise by resampling blocks, the same ones in all years: shape (draws, years)."""
    k, t, _ = sums.shape
    counts = rng.multinomial(k, np.full(k, 1 / k), size=draws).astype(np.float64)
    total = (counts @ sums.reshape(k, -1)).reshape(draws, t, N_BANDS)
    shift = np.nan_to_num(np.einsum("dtb,tb->dt", normalize(total) - units, gradient))
    shift -= shift.mean(axis=0)
    # what all years have in common belongs to the place, not to the year: it moves start and end alike
    found: Floats = (shift - shift.mean(axis=1, keepdims=True)) * np.sqrt(k / (k - 1))
    return found


def _sums_by_block(blocks: pd.DataFrame, sites: Series) -> dict[int, Floats]:
    """Return sums of vectors, shape (blocks, years, 64), of each site with two or more blocks, by its position."""
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
        found[place[str(site_id)]] = sums
    return found
