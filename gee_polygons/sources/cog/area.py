"""Marks cells of one degree, to filter long lists of tiles by place."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

# a tile's footprint reaches this far past the box of its valid pixels, which is clipped at the zone's edge
MARGIN_DEG: Final = 2.0


class Area:
    """The cells of one degree that some boxes lie in: a quick test of what may touch the boxes.

    Parameters
    ----------
    boxes : float array, shape (n, 4)
        (west, south, east, north) in degrees; longitudes may run past 180.
    margin_deg : float
        Added on each side, in degrees of latitude.

    Examples
    --------
    >>> area = Area(np.array([[11.3, 0.2, 11.5, 0.4]]), margin_deg=0)
    >>> area.hits(np.array([[11.9, 0.9, 12.5, 3.0], [12.1, 0.0, 13.0, 1.0]])).tolist()
    [True, False]
    """

    def __init__(self, boxes: NDArray[np.float64], margin_deg: float = MARGIN_DEG) -> None:
        cells = np.zeros((180, 360), np.bool_)
        corners = np.unique(self._cells(boxes, margin_deg), axis=0)
        for west, south, east, north in corners.tolist():
            cells[south : north + 1, np.arange(west, min(east, west + 359) + 1) % 360] = True
        # sums over everything below and to the left: how many cells a box holds is four look-ups
        self._sums = np.zeros((181, 721), np.int64)
        self._sums[1:, 1:] = np.hstack([cells, cells]).cumsum(axis=0).cumsum(axis=1)

    @staticmethod
    def _cells(boxes: NDArray[np.float64], margin: float) -> NDArray[np.int64]:
        west, south, east, north = np.asarray(boxes, np.float64).reshape(-1, 4).T
        widest = np.abs(np.stack([south - margin, north + margin])).max(axis=0).clip(max=89.9)
        side = margin / np.cos(np.radians(widest))
        cells = np.column_stack([west - side + 180, south - margin + 90, east + side + 180, north + margin + 90])
        cells[:, 1::2] = cells[:, 1::2].clip(0, 179.5)
        return np.floor(cells).astype(np.int64)

    def hits(self, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which boxes touch one of the cells, and so may touch the boxes that the cells were made of."""
        west, south, east, north = self._cells(boxes, 0.0).T
        first = west % 360
        last = np.minimum(first + (east - west), first + 359).clip(max=719)
        top, bottom = north + 1, south
        s = self._sums
        found = s[top, last + 1] - s[bottom, last + 1] - s[top, first] + s[bottom, first]
        hit: NDArray[np.bool_] = found > 0
        return hit
