"""Ragged arrays: the items of many rows in one flat array, row i at ``offsets[i]:offsets[i + 1]``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def offsets_of(lengths: Any) -> NDArray[np.int64]:
    """Return the offsets of rows of these lengths.

    Examples
    --------
    >>> offsets_of([2, 0, 3]).tolist()
    [0, 2, 2, 5]
    """
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def owners(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row of each item.

    Examples
    --------
    >>> owners(np.array([0, 2, 2, 5])).tolist()
    [0, 0, 2, 2, 2]
    """
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def ranges(starts: NDArray[Any], lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Concatenate ranges of integers.

    Examples
    --------
    >>> ranges(np.array([10, 4]), np.array([3, 2])).tolist()
    [10, 11, 12, 4, 5]
    """
    offsets = offsets_of(lengths)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])


def sum_rows(items: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum each row's integers, exactly as long as each sum itself fits 64 bits: differences of wrapped sums are right.

    Examples
    --------
    >>> sum_rows(np.array([1, 2, 3, 4, 5]), np.array([0, 2, 2, 5])).tolist()
    [3, 0, 12]
    """
    total = offsets_of(items)
    return total[offsets[1:]] - total[offsets[:-1]]
