"""Damage that decodes: valid pixels whose vectors aren't of length 1.

Published blocks carry no checksum. A hole in a compressed block mostly makes the codec fail. Where it doesn't, it
leaves other codes, and with them pixels that can't be embeddings: those are looked for in every block reduced.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS, NODATA
from gee_polygons.embeddings.quantization import SCALE, signed_squares
from gee_polygons.zonal.coverage import BlockCoverage
from gee_polygons.zonal.kernels import CHUNK, add_norms, off_norm, touched_chunks
from gee_polygons.zonal.planes import PlaneSource, planes

MAX_NORM_ERROR: Final = 0.012  # valid pixels have length 1 within 0.009 (AEF.md); more is damage
# what add_norms gives for vectors on the brink: 64 truncations lose between 0 and 64. Suspects are measured exactly.
_NORM_LIMITS: Final = (
    int((1 - MAX_NORM_ERROR) ** 2 * 127.5**4 / 2**14) + 1,
    int((1 + MAX_NORM_ERROR) ** 2 * 127.5**4 / 2**14) - 64,
)
_TALL: Final = 2**32  # more rows than a block has
_MOST_WITNESSES: Final = 1000  # damaged pixels that are asked which band it was


class DamagedPixels(Exception):  # noqa: N818 - internal; becomes a ReadError that names the tile
    """Valid pixels whose vectors aren't of length 1.

    Parameters
    ----------
    positions : int64 array
        Where they are in the block's stored order.
    norm : float
        Length of the first.
    band : int
        The band that was most likely damaged.
    """

    def __init__(self, positions: NDArray[np.int64], norm: float, band: int) -> None:
        super().__init__(f"{len(positions)} pixels, the first of length {norm:.3f}")
        self.positions = positions
        self.norm = norm
        self.band = band


class NormCheck:
    """The lengths of a block's touched pixels, added up band by band.

    Parameters
    ----------
    coverage : BlockCoverage
        Which pixels are touched.
    """

    def __init__(self, coverage: BlockCoverage) -> None:
        self._coverage = coverage
        self._chunks = touched_chunks(coverage.shape[0] * coverage.shape[1], coverage.runs, coverage.edges)
        self._norms = np.zeros(len(self._chunks) * CHUNK, np.uint16)
        self._missing = np.zeros(len(self._chunks) * CHUNK, np.uint8)

    def add(self, plane: NDArray[np.int8]) -> None:
        """Add one band's plane."""
        add_norms(plane, self._chunks, self._norms, self._missing)

    def finish(self, block: PlaneSource) -> None:
        """Raise `DamagedPixels` if a touched pixel has neither no data nor length 1; decodes the block again then."""
        wrong = off_norm(self._norms, self._missing, *_NORM_LIMITS, N_BANDS)
        if not wrong.any():
            return
        positions = (self._chunks[:, None].astype(np.int64) * CHUNK + np.arange(CHUNK)).ravel()
        touched = np.isin(positions, _touched_pixels(self._coverage))  # chunks reach past the polygons
        if (wrong & touched).any():
            sound = positions[touched & ~wrong & (self._missing == 0)]
            _measure(block, positions[wrong & touched], sound, self._coverage.shape[1])


def _touched_pixels(coverage: BlockCoverage) -> NDArray[np.int64]:
    runs = coverage.runs.astype(np.int64)
    before = np.cumsum(runs[:, 1]) - runs[:, 1]
    inside = np.repeat(runs[:, 0] - before, runs[:, 1]) + np.arange(runs[:, 1].sum())
    return np.unique(np.concatenate([inside, coverage.edges[:, 0].astype(np.int64)]))


def _measure(block: PlaneSource, suspects: NDArray[np.int64], sound: NDArray[np.int64], width: int) -> None:
    """Measure suspects exactly; if any is damaged, name the band that explains it best."""
    near = _nearest(suspects, sound, width)
    values = np.empty((N_BANDS, 2, len(suspects)), np.int8)
    for band, plane in planes(block):
        values[band] = plane[suspects], plane[near]
    missing = values[:, 0] == NODATA
    squares, near_squares = ((signed_squares(values[:, i]) / SCALE) ** 2 for i in (0, 1))
    norm = np.sqrt(squares.sum(axis=0))
    partly = missing.any(axis=0) & ~missing.all(axis=0)
    damaged = np.flatnonzero(partly | (~missing.any(axis=0) & (np.abs(norm - 1) > MAX_NORM_ERROR)))
    if len(damaged):
        some = damaged[:: -(-len(damaged) // _MOST_WITNESSES)]
        known = near_squares[:, some] if len(sound) else None
        band = _suspect_band(squares[:, some], missing[:, some], known)
        raise DamagedPixels(suspects[damaged], float(norm[damaged[0]]), band)


def _nearest(suspects: NDArray[np.int64], sound: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return, for each suspect, a sound pixel close by: the nearest of those before and after it in row or column."""
    if not len(sound):
        return suspects
    # the same pixels numbered down the columns
    column, row = np.divmod(_neighbours(np.sort(_transposed(sound, width)), _transposed(suspects, width)), _TALL)
    candidates = [_neighbours(sound, suspects), row * width + column]
    found = np.concatenate(candidates)
    away = np.hypot(found // width - suspects // width, found % width - suspects % width)
    nearest: NDArray[np.int64] = found[away.argmin(axis=0), np.arange(len(suspects))]
    return nearest


def _transposed(positions: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    row, column = np.divmod(positions, width)
    return column * _TALL + row


def _neighbours(ordered: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the values before and after each key, shape (2, keys)."""
    place = np.searchsorted(ordered, keys)
    found: NDArray[np.int64] = ordered[np.stack([np.maximum(place - 1, 0), np.minimum(place, len(ordered) - 1)])]
    return found


def _suspect_band(squares: NDArray[np.float64], missing: NDArray[np.bool_], near: NDArray[np.float64] | None) -> int:
    """Guess which band is damaged.

    Parameters
    ----------
    squares : float64 array, shape (bands, pixels)
        Squared components of pixels of wrong length.
    missing : bool array, shape (bands, pixels)
        Where they are nodata. Stray nodata names its band outright.
    near : float64 array, shape (bands, pixels), optional
        Squared components of sound pixels close by. The damaged band is the one whose neighbour's value would mend
        the pixel best; neighbours are alike, so any other band changes little.
    """
    stray = missing.sum(axis=1)
    if stray.any():
        # nodata in a few bands, or data in a few bands of pixels without
        return int(np.argmax(stray) if np.median(stray) == 0 else np.argmin(stray))
    excess = squares.sum(axis=0) - 1.0
    left = np.abs(excess - (squares - near if near is not None else squares)).mean(axis=1)
    return int(np.argmin(left))
