"""One block, all its polygons, all its bands: decode a plane, reduce it while it is in cache, go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS, NODATA
from gee_polygons.errors import UsageError
from gee_polygons.zonal.coverage import BlockCoverage
from gee_polygons.zonal.damage import NormCheck
from gee_polygons.zonal.kernels import (
    add_counts,
    add_extremes,
    add_float_extremes,
    add_float_sums,
    add_float_weights,
    add_histograms,
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
        What its sums are over.
    quantiles : float64 array, shape (n, bands, levels)
        Finished, for the polygons that lie in this block alone; NaN for the others.
    histograms : int64 array, shape (polygons that reach into other blocks, bands, 256)
        Theirs, to be added up.
    """

    partials: Partials
    scale: float
    quantiles: NDArray[np.float64]
    histograms: NDArray[np.int64]


@dataclass
class BlockReducer:
    """Reduces blocks for one thread, keeping its scratch buffer.

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
        check_norms: bool = False,
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
            Positions of pixels that another tile has counted.
        check_norms : bool
            Check that each touched valid pixel is a unit vector. Needs all 64 bands.

        Returns
        -------
        Reduced

        Raises
        ------
        DamagedPixels
            If such a pixel isn't.
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
        norms = NormCheck(coverage) if check_norms and self.n_bands == N_BANDS else None
        for band, plane in planes(block, self._scratch):
            if hidden is not None:
                plane[hidden] = NODATA if plane.dtype == np.int8 else np.nan
            if plane.dtype == np.int8:
                self._reduce_codes(band, plane, coverage, alone, found)
                if norms is not None:
                    norms.add(plane)
            else:
                found = replace(found, scale=FLOAT_SCALE)
                self._reduce_floats(band, plane, coverage, found.partials)
        if norms is not None:
            norms.finish(block)
        return found

    def _reduce_codes(
        self, band: int, plane: NDArray[np.int8], coverage: BlockCoverage, alone: NDArray[np.bool_], found: Reduced
    ) -> None:
        place = (coverage.run_offsets, coverage.runs, coverage.edge_offsets, coverage.edges)
        parts = found.partials
        if band == 0:
            _add_pixels(add_weights, plane, coverage, parts)
        column = np.zeros((2, len(coverage)), np.int64)
        if coverage.area is None:
            add_sums(plane, *place[:3], *coverage.edge_columns, column[0], column[1])
        else:
            coverage.area.add(add_sums, plane, column[0], column[1], columns=True)
        parts["sum_full"][:, band], parts["sum_edge"][:, band] = column
        if self.needs.squares:
            column[:] = 0
            _add(add_squares, plane, coverage, column[0], column[1])
            parts["square_full"][:, band], parts["square_edge"][:, band] = column
        if self.needs.extremes:
            add_extremes(plane, *place, parts["low"][:, band], parts["high"][:, band])
        if self.needs.quantiles:
            # one band at a time, so that memory stays flat
            if coverage.area is None:
                histograms = np.zeros((len(coverage), 256), np.int64)
                add_histograms(plane, *place, histograms)
            else:
                histograms = coverage.area.histograms(plane)
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
        place = (coverage.run_offsets, coverage.runs, coverage.edge_offsets, coverage.edges)
        if band == 0:
            _add_pixels(add_float_weights, plane, coverage, parts)
        _add(add_float_sums, plane, coverage, parts["sum_full"][:, band], parts["sum_edge"][:, band])
        if self.needs.extremes:
            add_float_extremes(plane, *place, parts["low"][:, band], parts["high"][:, band])


def _add(
    kernel: Callable[..., None],
    plane: NDArray[Any],
    coverage: BlockCoverage,
    full: NDArray[np.int64],
    edge: NDArray[np.int64],
) -> None:
    """Add what a kernel sums, each pixel by its coverage, or by coverage and area."""
    if coverage.area is None:
        kernel(plane, coverage.run_offsets, coverage.runs, coverage.edge_offsets, coverage.edges, full, edge)
    else:
        coverage.area.add(kernel, plane, full, edge)


def _add_pixels(kernel: Callable[..., None], plane: NDArray[Any], coverage: BlockCoverage, parts: Partials) -> None:
    """Add up the valid pixels: by coverage, by weight, and whether they are touched at all."""
    place = (coverage.run_offsets, coverage.runs, coverage.edge_offsets, coverage.edges)
    kernel(plane, *place, parts["pixels_full"], parts["pixels_edge"])
    add_counts(plane, *place, parts["count"])
    if coverage.area is None:
        parts["area_full"][:], parts["area_edge"][:] = parts["pixels_full"], parts["pixels_edge"]
    else:
        coverage.area.add(kernel, plane, parts["area_full"], parts["area_edge"])
