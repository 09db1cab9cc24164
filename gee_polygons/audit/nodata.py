"""Finds rows into which a little nodata was averaged, by comparing them with other rows of the table."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.embeddings.quantization import SCALE

Floats = NDArray[np.float64]

MEAN_OF_NODATA: Final = -128 * 128 / SCALE  # -1.0079: -128 de-quantised without a mask; -128 / 127 is the same to 1e-5
_MOST_COMPARED: Final = 600  # rows that each row is compared with
_CLOSEST: Final = 8
_LEAST_AGREEING: Final = 3
_BLOCK_ROWS: Final = 4_096


def shares_from_neighbours(m: Floats, plausible: NDArray[np.bool_]) -> Floats:
    """Return the share of nodata in each row that is another row of the table plus a little of a constant; else NaN.

    With the mean over the bands taken out, such a row has the direction of its neighbour; real change goes into one
    direction of 64 no more than into the others.
    """
    share = np.full(len(m), np.nan)
    rows = np.flatnonzero(plausible)
    if len(rows) < 2:
        return share
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST_COMPARED)).astype(np.intp))]
    # in a larger table more rows are alike by chance
    least = min(_LEAST_AGREEING + max(0, int(np.log10(len(rows) / 1000))), len(rows) - 1)
    sample_level, sample_length, sample_unit = _centred(m[sample])
    for start in range(0, len(rows), _BLOCK_ROWS):
        part = rows[start : start + _BLOCK_ROWS]
        level, length, unit = _centred(m[part])
        shift = ((level / length)[:, None] - (sample_level / sample_length)[None]) * N_BANDS**0.5
        apart = np.sqrt(np.maximum(2 - 2 * (unit @ sample_unit.T), 0))
        # pulled down by more than 1 % of nodata, and by more than everything else that differs
        hit = (shift < -0.08) & (apart < 1.5 * np.abs(shift)) & (apart < 0.35)
        # among many neighbours one or the other lies that way by chance: several of the closest must
        at = np.flatnonzero(hit.sum(axis=1) >= least)
        nearest = np.argsort(apart[at], axis=1)[:, : _CLOSEST + 1]  # and the row itself
        at = at[np.take_along_axis(hit[at], nearest, axis=1).sum(axis=1) >= least]
        closest = np.where(hit[at], apart[at], np.inf).argmin(axis=1)
        # row = (1 - f) neighbour + f constant: the centred length shrinks by 1 - f, the level is (1 - f) of the
        # neighbour's plus f times the constant
        usual = sample_level[closest] / sample_length[closest]
        share[part[at]] = np.clip((level[at] - usual * length[at]) / MEAN_OF_NODATA, 0, 1)
    return share


def _centred(m: Floats) -> tuple[Floats, Floats, Floats]:
    """Return each row's mean over the bands, and length and direction of what is left without it."""
    level = m.mean(axis=1)
    centred = m - level[:, None]
    length = np.linalg.norm(centred, axis=1)
    return level, length, centred / length[:, None]
