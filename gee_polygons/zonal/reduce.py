"""Reduces one block over all its polygons: decodes one band at a time, and reduces it while it is in cache."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS, NODATA
from gee_polygons.errors import UsageError
from gee_polygons.zonal.areas import AreaCoverage
from gee_polygons.zonal.clipping import BlockCoverage
from gee_polygons.zonal.damage import NO_SUSPECTS, LengthCheck, Suspects
from gee_polygons.zonal.kernels import (
    add_extremes,
    add_float_extremes,
    add_float_sums,
    add_squares,
    add_sums,
    add_weights,
)
from gee_polygons.zonal.partials import CODE_SCALE, FLOAT_SCALE, Partials
from gee_polygons.zonal.planes import PlaneSource, Scratch, planes
from gee_polygons.zonal.statistics import Needs, quantiles


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """What one block contributes to its polygons.

    Parameters
    ----------
    partials : Partials
        Of all n polygons.
    scale : float
        What its sums are divided by, see `Partials`.
    quantiles : float64 array, shape (n, bands, levels)
        Of the polygons that lie in this block alone; NaN for the others.
    histograms : int64 array, shape (polygons that reach into other blocks, bands, 256)
        Weights by code of those polygons, to be added up.
    check : LengthCheck, optional
        Lengths of the pixels, if they were to be checked.
    """

    partials: Partials
    scale: float
    quantiles: NDArray[np.float64]
    histograms: NDArray[np.int64]
    check: LengthCheck | None = None

    def same_as(self, other: Reduced) -> bool:
        """Whether two checked readings of one block agree: in every sum, and in the length of every touched pixel."""
        assert self.check is not None
        assert other.check is not None
        sums = self.partials.arrays
        return self.check.same_as(other.check) and all(
            np.array_equal(sums[name], other.partials[name]) for name in sums
        )


@dataclass
class BlockReducer:
    """Reduces blocks one after the other, for one thread: it decodes all of them into the same array.

    Parameters
    ----------
    n_bands : int
        Number of bands asked for.
    needs : Needs
        What to gather.
    """

    n_bands: int
    needs: Needs = field(default_factory=Needs)
    _scratch: Scratch = field(default_factory=Scratch)

    def reduce(
        self,
        block: PlaneSource,
        coverage: BlockCoverage,
        *,
        alone: NDArray[np.bool_] | None = None,
        hidden: NDArray[np.int64] | None = None,
        check_lengths: bool = False,
        suspects: Suspects = NO_SUSPECTS,
    ) -> Reduced:
        """Reduce a block's bands over polygons.

        Parameters
        ----------
        block : PlaneSource
            The block.
        coverage : BlockCoverage
            Of the polygons that touch it.
        alone : bool array, shape (n,), optional
            Which polygons lie in this block alone, so that their quantiles can be finished here. Default: all.
        hidden : int64 array, optional
            Positions of pixels to leave out.
        check_lengths : bool
            Sum up the lengths of the touched pixels for `Reduced.check`. Without all 64 bands nothing is checked.
        suspects : Suspects
            Pixels that a former reading of the block found to be suspect.

        Returns
        -------
        Reduced

        Raises
        ------
        UsageError
            If the block holds floats and a statistic needs codes.
        """
        n = len(coverage)
        alone = np.ones(n, np.bool_) if alone is None else alone
        found = Reduced(
            partials=Partials.zeros(n, self.n_bands, self.needs),
            scale=CODE_SCALE,
            quantiles=np.full((n, self.n_bands, len(self.needs.quantiles)), np.nan),
            histograms=np.zeros((int((~alone).sum()) if self.needs.quantiles else 0, self.n_bands, 256), np.int64),
        )
        check = LengthCheck(coverage, suspects) if check_lengths and self.n_bands == N_BANDS else None
        for band, plane in planes(block, self._scratch):
            if hidden is not None:
                plane[hidden] = NODATA if plane.dtype == np.int8 else np.nan
            if plane.dtype == np.int8:
                self._reduce_codes(band, plane, coverage, alone, found)
                if check is not None:
                    check.add(band, plane)
            else:
                found = replace(found, scale=FLOAT_SCALE)
                self._reduce_floats(band, plane, coverage, found.partials)
        return replace(found, check=check)

    def _reduce_codes(
        self, band: int, plane: NDArray[np.int8], coverage: BlockCoverage, alone: NDArray[np.bool_], found: Reduced
    ) -> None:
        parts = found.partials
        if band == 0:
            _add_pixels(plane, coverage, parts)
        column = np.zeros((2, len(coverage)), np.int64)
        coverage.add(add_sums, plane, column[0], column[1])
        parts["sum_full"][:, band], parts["sum_edge"][:, band] = column
        if self.needs.squares:
            column[:] = 0
            coverage.add(add_squares, plane, column[0], column[1])
            parts["square_full"][:, band], parts["square_edge"][:, band] = column
        if self.needs.extremes:
            add_extremes(plane, *coverage.spans, parts["low"][:, band], parts["high"][:, band])
        if self.needs.quantiles:
            # one band at a time, so that memory stays flat
            histograms = coverage.histograms(plane)
            found.quantiles[alone, band] = quantiles(histograms[alone], self.needs.quantiles)
            found.histograms[:, band] = histograms[~alone]

    def _reduce_floats(
        self, band: int, plane: NDArray[np.floating[Any]], coverage: BlockCoverage, parts: Partials
    ) -> None:
        if self.needs.codes_only:
            raise UsageError(
                "std, quantiles and medoid are exact on the 255 levels only, and this raster's vectors aren't on them; "
                "ask for mean, min, max or count, or quantise it with vectors_to_codes"
            )
        if band == 0:
            _add_pixels(plane, coverage, parts)
        coverage.add(add_float_sums, plane, parts["sum_full"][:, band], parts["sum_edge"][:, band])
        if self.needs.extremes:
            add_float_extremes(plane, *coverage.spans, parts["low"][:, band], parts["high"][:, band])


def _add_pixels(plane: NDArray[Any], coverage: BlockCoverage, parts: Partials) -> None:
    """Add up the valid pixels: by coverage, by weight, and how many are touched at all."""
    add_weights(plane, *coverage.spans, coverage.weights, parts["pixels_full"], parts["pixels_edge"])
    # with weight 1 for edge pixels too, all touched pixels are counted
    add_weights(plane, *coverage.spans, np.ones_like(coverage.weights), parts["count"], parts["count"])
    if isinstance(coverage, AreaCoverage):
        coverage.add(add_weights, plane, parts["area_full"], parts["area_edge"])
    else:
        parts["area_full"][:], parts["area_edge"][:] = parts["pixels_full"], parts["pixels_edge"]
