"""One block, all its polygons, all its bands: decode a plane, reduce it while it is in cache, go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import N_BANDS, NODATA, SCALE, signed_squares
from gee_polygons.errors import UsageError
from gee_polygons.zonal.coverage import BlockCoverage
from gee_polygons.zonal.kernels import (
    CHUNK,
    add_counts,
    add_extremes,
    add_float_extremes,
    add_float_sums,
    add_float_weights,
    add_histograms,
    add_norms,
    add_squares,
    add_sums,
    add_weights,
    off_norm,
    touched_chunks,
)
from gee_polygons.zonal.partials import CODE_UNIT, FLOAT_UNIT, Partials
from gee_polygons.zonal.statistics import Needs, quantiles

__all__ = ["MAX_NORM_ERROR", "BlockReducer", "DamagedPixels", "PlaneSource", "Reduced", "Scratch", "planes"]

MAX_NORM_ERROR: Final = 0.012  # valid pixels have length 1 within 0.009 (AEF.md); more is damage
# what add_norms gives for vectors on the brink; 64 truncations lose between 0 and 64. Suspects are measured exactly.
_NORM_LIMITS: Final = (
    int((1 - MAX_NORM_ERROR) ** 2 * 127.5**4 / 2**14),
    int((1 + MAX_NORM_ERROR) ** 2 * 127.5**4 / 2**14) - 64,
)


class PlaneSource(Protocol):
    """What a block offers here: its parts, decoded on demand."""

    @property
    def n_parts(self) -> int:
        """Number of compressed parts."""
        ...

    def part_bands(self, part: int) -> Sequence[int]:
        """Bands held by a part."""
        ...

    def decode(self, part: int, scratch: NDArray[Any] | None = None) -> NDArray[Any]:
        """Decode a part."""
        ...


@dataclass
class Scratch:
    """The buffer that parts are decoded into, again and again."""

    array: NDArray[Any] | None = None


def planes(block: PlaneSource, scratch: Scratch | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (position among the bands asked for, plane) of a block, decoding each part once."""
    scratch = scratch or Scratch()
    for part in range(block.n_parts):
        scratch.array = block.decode(part, scratch.array)
        yield from zip(block.part_bands(part), scratch.array, strict=True)


class DamagedPixels(Exception):  # noqa: N818 - internal; becomes a ReadError that names the tile
    """Valid pixels whose vectors aren't of length 1."""

    def __init__(self, positions: NDArray[np.int64], norm: float, band: int) -> None:
        super().__init__(f"{len(positions)} pixels, the first of length {norm:.3f}")
        self.positions = positions
        self.norm = norm
        self.band = band


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """What one block contributes to its polygons.

    Parameters
    ----------
    partials : Partials
        Of all n polygons.
    unit : float
        What its sums are in.
    quantiles : float64 array, shape (n, bands, levels)
        Finished, for the polygons that lie in this block alone; NaN for the others.
    histograms : int64 array, shape (polygons that reach into other blocks, bands, 256)
        Theirs, to be added up.
    """

    partials: Partials
    unit: float
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
            unit=CODE_UNIT,
            quantiles=np.full((n, self.n_bands, len(self.needs.quantiles)), np.nan),
            histograms=np.zeros((int((~alone).sum()) if self.needs.quantiles else 0, self.n_bands, 256), np.int64),
        )
        norms = _Norms(coverage) if check_norms and self.n_bands == N_BANDS else None
        for band, plane in planes(block, self._scratch):
            if hidden is not None:
                plane[hidden] = NODATA if plane.dtype == np.int8 else np.nan
            if plane.dtype == np.int8:
                self._reduce_codes(band, plane, coverage, alone, found)
                if norms is not None:
                    norms.add(plane)
            else:
                found = replace(found, unit=FLOAT_UNIT)
                self._reduce_floats(band, plane, coverage, found.partials)
        if norms is not None and len(suspects := norms.suspects()):
            self._measure(block, suspects)
        return found

    def _reduce_codes(
        self, band: int, plane: NDArray[np.int8], coverage: BlockCoverage, alone: NDArray[np.bool_], found: Reduced
    ) -> None:
        place = (coverage.run_offsets, coverage.runs, coverage.edge_offsets, coverage.edges)
        parts = found.partials
        if band == 0:
            add_weights(plane, *place, parts["area_full"], parts["area_edge"])
            add_counts(plane, *place, parts["count"])
        column = np.zeros((2, len(coverage)), np.int64)
        add_sums(plane, *place, column[0], column[1])
        parts["sum_full"][:, band], parts["sum_edge"][:, band] = column
        if self.needs.squares:
            column[:] = 0
            add_squares(plane, *place, column[0], column[1])
            parts["square_full"][:, band], parts["square_edge"][:, band] = column
        if self.needs.extremes:
            add_extremes(plane, *place, parts["low"][:, band], parts["high"][:, band])
        if self.needs.quantiles:
            # one band at a time, so that memory stays flat
            histograms = np.zeros((len(coverage), 256), np.int64)
            add_histograms(plane, *place, histograms)
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
            add_float_weights(plane, *place, parts["area_full"], parts["area_edge"])
            add_counts(plane, *place, parts["count"])
        add_float_sums(plane, *place, parts["sum_full"][:, band], parts["sum_edge"][:, band])
        if self.needs.extremes:
            add_float_extremes(plane, *place, parts["low"][:, band], parts["high"][:, band])

    def _measure(self, block: PlaneSource, positions: NDArray[np.int64]) -> None:
        """Measure suspects exactly, and if any is damaged name the band that explains it best."""
        values = np.empty((self.n_bands, len(positions)), np.int8)
        for band, plane in planes(block, self._scratch):
            values[band] = plane[positions]
        missing = values == NODATA
        squares = (signed_squares(values) / SCALE) ** 2
        norm = np.sqrt(squares.sum(axis=0))
        partly = missing.any(axis=0) & ~missing.all(axis=0)
        damaged = partly | (~missing.any(axis=0) & (np.abs(norm - 1) > MAX_NORM_ERROR))
        if damaged.any():
            where = np.flatnonzero(damaged)
            band = _suspect_band(squares[:, where], missing[:, where])
            raise DamagedPixels(positions[where], float(norm[where[0]]), band)


class _Norms:
    """The lengths of a block's touched pixels, added up band by band."""

    def __init__(self, coverage: BlockCoverage) -> None:
        self._coverage = coverage
        self._n_pixels = coverage.shape[0] * coverage.shape[1]
        self._chunks = touched_chunks(self._n_pixels, coverage.runs, coverage.edges)
        self._norms = np.zeros(len(self._chunks) * CHUNK, np.uint16)
        self._missing = np.zeros(len(self._chunks) * CHUNK, np.uint8)

    def add(self, plane: NDArray[np.int8]) -> None:
        add_norms(plane, self._chunks, self._norms, self._missing)

    def suspects(self) -> NDArray[np.int64]:
        """Positions of touched pixels that may not be unit vectors."""
        wrong = off_norm(self._norms, self._missing, *_NORM_LIMITS, N_BANDS)
        if not wrong.any():
            return np.empty(0, np.int64)
        positions = (self._chunks[:, None].astype(np.int64) * CHUNK + np.arange(CHUNK)).ravel()[wrong]
        used: NDArray[np.int64] = positions[np.isin(positions, _touched_pixels(self._coverage))]
        return used  # chunks reach past the polygons


def _touched_pixels(coverage: BlockCoverage) -> NDArray[np.int64]:
    runs = coverage.runs.astype(np.int64)
    before = np.cumsum(runs[:, 1]) - runs[:, 1]
    inside = np.repeat(runs[:, 0] - before, runs[:, 1]) + np.arange(runs[:, 1].sum())
    return np.unique(np.concatenate([inside, coverage.edges[:, 0].astype(np.int64)]))


def _suspect_band(squares: NDArray[np.float64], missing: NDArray[np.bool_]) -> int:
    """Guess which band is damaged from pixels of wrong length.

    Stray nodata names its band outright. Otherwise, where one band was replaced by unrelated values, its squares and
    the pixels' excess length rise and fall together, and no other band's do.
    """
    stray = missing.sum(axis=1)
    if stray.any():
        # nodata in a few bands, or data in a few bands of pixels without
        return int(np.argmax(stray) if np.median(stray) == 0 else np.argmin(stray))
    excess = squares.sum(axis=0) - 1.0
    together = (squares - squares.mean(axis=1, keepdims=True)) @ (excess - excess.mean())
    return int(np.argmax(together if together.max() > 0 else squares.mean(axis=1)))
