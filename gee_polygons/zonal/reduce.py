"""One block, all its polygons, all its bands: decode a plane, reduce it while it is in cache, go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import N_BANDS, NODATA, SCALE, signed_squares
from gee_polygons.zonal.coverage import BlockCoverage
from gee_polygons.zonal.kernels import (
    CHUNK,
    add_float_sums,
    add_float_weights,
    add_norms,
    add_sums,
    add_weights,
    touched_chunks,
)
from gee_polygons.zonal.partials import CODE_UNIT, FLOAT_UNIT, Partials

__all__ = ["MAX_NORM_ERROR", "BlockReducer", "DamagedPixels", "PlaneSource"]

MAX_NORM_ERROR: Final = 0.012  # valid pixels have length 1 within 0.009 (AEF.md); more is damage
# add_norms' sum for a vector of length 1, less the 32 that 64 truncations lose on average
_UNIT_NORM: Final = 127.5**4 / 2**14


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


class DamagedPixels(Exception):  # noqa: N818 - internal; becomes a ReadError that names the tile
    """Valid pixels whose vectors aren't of length 1."""

    def __init__(self, positions: NDArray[np.int64], norm: float, band: int) -> None:
        super().__init__(f"{len(positions)} pixels, the first of length {norm:.3f}")
        self.positions = positions
        self.norm = norm
        self.band = band


@dataclass
class BlockReducer:
    """Reduces blocks for one thread, keeping its scratch buffer.

    Parameters
    ----------
    n_bands : int
        Number of bands asked for.
    """

    n_bands: int
    _scratch: NDArray[Any] | None = None

    def reduce(
        self,
        block: PlaneSource,
        coverage: BlockCoverage,
        *,
        hidden: NDArray[np.int64] | None = None,
        check_norms: bool = False,
    ) -> tuple[Partials, float]:
        """Sum a block's bands over polygons.

        Parameters
        ----------
        block : PlaneSource
            The block.
        coverage : BlockCoverage
            Of the polygons that touch it.
        hidden : int64 array, optional
            Positions of pixels that another tile has counted.
        check_norms : bool
            Check that each touched valid pixel is a unit vector. Needs all 64 bands.

        Returns
        -------
        partials : Partials
        unit : float
            What its sums are in.

        Raises
        ------
        DamagedPixels
        """
        parts = Partials.zeros(len(coverage), self.n_bands)
        place = (coverage.run_offsets, coverage.runs, coverage.edge_offsets, coverage.edges)
        n_pixels = coverage.shape[0] * coverage.shape[1]
        check = check_norms and self.n_bands == N_BANDS
        chunks = touched_chunks(n_pixels, coverage.runs, coverage.edges) if check else np.empty(0, np.int32)
        norms = np.zeros(len(chunks) * CHUNK, np.uint16)
        first = np.empty(0, np.int8)  # the first band's codes of the touched chunks: which pixels are valid
        unit = CODE_UNIT
        column = np.zeros((2, len(coverage)), np.int64)
        for band, plane in self._planes(block):
            if hidden is not None:
                plane[hidden] = NODATA if plane.dtype == np.int8 else np.nan
            is_code = plane.dtype == np.int8
            if band == 0:
                unit = CODE_UNIT if is_code else FLOAT_UNIT
                (add_weights if is_code else add_float_weights)(plane, *place, parts.area_full, parts.area_edge)
            column[:] = 0
            (add_sums if is_code else add_float_sums)(plane, *place, column[0], column[1])
            parts.sum_full[:, band], parts.sum_edge[:, band] = column
            if check:
                add_norms(plane, chunks, norms)
                if band == 0:
                    first = plane[: -(-n_pixels // CHUNK) * CHUNK].reshape(-1, CHUNK)[chunks].ravel()
        if check:
            self._check(block, coverage, chunks, norms, first)
        return parts, unit

    def _planes(self, block: PlaneSource) -> Iterator[tuple[int, NDArray[Any]]]:
        for part in range(block.n_parts):
            self._scratch = block.decode(part, self._scratch)
            yield from zip(block.part_bands(part), self._scratch, strict=True)

    def _check(
        self,
        block: PlaneSource,
        coverage: BlockCoverage,
        chunks: NDArray[np.int32],
        norms: NDArray[np.uint16],
        first: NDArray[np.int8],
    ) -> None:
        length = np.sqrt((norms + 32.0) / _UNIT_NORM)
        # 0.002 is what truncation can add at most; suspects are measured exactly
        wrong = np.where(first == NODATA, norms != 0, np.abs(length - 1) > MAX_NORM_ERROR - 0.002)
        if wrong.any():
            positions = (chunks[:, None].astype(np.int64) * CHUNK + np.arange(CHUNK)).ravel()[wrong]
            suspects = positions[np.isin(positions, _touched_pixels(coverage))]  # chunks reach past the polygons
            if len(suspects):
                self._measure(block, suspects)

    def _measure(self, block: PlaneSource, positions: NDArray[np.int64]) -> None:
        """Measure suspects exactly, and if any is damaged name the band that explains it best."""
        values = np.empty((self.n_bands, len(positions)), np.int8)
        for band, plane in self._planes(block):
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
