"""Sums of polygons whose blocks are merged in several places, and the statistics that they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gee_polygons.zonal.coverage import FULL
from gee_polygons.zonal.partials import Partials
from gee_polygons.zonal.statistics import Needs, quantiles

if TYPE_CHECKING:
    from gee_polygons.reduction.merging import Results


@dataclass(frozen=True, kw_only=True)
class SharedSums:
    """Sums of n (polygon, year) pairs over some of their blocks; others hold the rest.

    Parameters
    ----------
    polygon, year : int array, shape (n,)
        Numbers of the polygon and of the year; each pair once.
    blocks, merged : int array, shape (n,)
        Blocks of the polygon in that year, and how many of them these sums hold.
    failed : bool array, shape (n,)
        Whether a block couldn't be read.
    area : int array, shape (n,)
        Area of the whole polygon in units of 2^-24 pixels.
    partials : Partials
        The sums.
    histograms : dict of int to int64 array, shape (bands, 256)
        By position among the pairs, if quantiles are needed.
    scale : float
        Scale of the sums, see `gee_polygons.zonal.partials`.
    """

    polygon: NDArray[np.int64]
    year: NDArray[np.int64]
    blocks: NDArray[np.int64]
    merged: NDArray[np.int64]
    failed: NDArray[np.bool_]
    area: NDArray[np.int64]
    partials: Partials
    histograms: dict[int, NDArray[np.int64]]
    scale: float


def write_shared(results: Results, parts: Sequence[SharedSums], needs: Needs) -> None:
    """Add up the sums of all places and write their statistics into results, by polygon and year.

    Raises
    ------
    ValueError
        If blocks are missing, or were merged twice.
    """
    n, n_years, n_bands = results.statistics["mean"].shape
    total = Partials.zeros(n * n_years, n_bands, needs)
    blocks, merged, area = (np.zeros(n * n_years, np.int64) for _ in range(3))
    failed = np.zeros(n * n_years, np.bool_)
    histograms: dict[int, NDArray[np.int64]] = {}
    for part in parts:
        pair = part.polygon * n_years + part.year
        total.add(part.partials, pair)
        merged[pair] += part.merged
        blocks[pair], area[pair] = part.blocks, part.area
        failed[pair] |= part.failed
        for i, histogram in part.histograms.items():
            histograms[int(pair[i])] = histograms.get(int(pair[i]), 0) + histogram
    if not np.array_equal(blocks, merged):
        raise ValueError(f"{merged.sum()} of {blocks.sum()} blocks of shared polygons were merged")
    pairs = np.flatnonzero(blocks)
    rows, years = np.divmod(pairs, n_years)
    if len(parts):
        results.write(rows, years, total.take(pairs), parts[0].scale)
    for pair, histogram in histograms.items():
        results.write_quantiles(pair // n_years, pair % n_years, quantiles(histogram, needs.quantiles))
    results.valid_fraction[rows, years] = results.n_pixels[rows, years] / (area[pairs] / FULL)
    bad = np.flatnonzero(failed)
    results.status[bad // n_years, bad % n_years] = "error"
    for numbers in results.numbers():
        numbers[bad // n_years, bad % n_years] = np.nan
