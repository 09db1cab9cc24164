"""Converts between stored int8 codes and float vectors.

AlphaEarth stores each component v of a vector as an int8 code k with

    v = sign(k) * (k / 127.5)^2,        k in -127..127,        -128 = nodata (in all 64 bands at once).

Source: Google's description of the Cloud Storage files, confirmed on real pixels, whose vectors then have
length 1.000 +- 0.002. (A linear ``k / 127``, taught by one public guide, gives lengths near 2.5.)

Because v is an integer square over 127.5^2, sums of vectors are exact integer sums: see `gee_polygons.zonal`.
Codes are int8 and vectors are floats, and each function here refuses the other kind, so they can't be confused.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, N_BANDS, NODATA
from gee_polygons.errors import UsageError

__all__ = [
    "BANDS",
    "FLOAT32_ROUNDING",
    "MAX_CODE",
    "NODATA",
    "N_BANDS",
    "SCALE",
    "codes_to_vectors",
    "is_on_codes",
    "signed_squares",
    "vectors_to_codes",
]

MAX_CODE: Final = 127
SCALE: Final = 127.5**2  # 16256.25: a vector's component is an integer over this
FLOAT32_ROUNDING: Final = 1e-6  # largest difference between a code's value and its float32 copy


def signed_squares(codes: NDArray[np.int8]) -> NDArray[np.int32]:
    """Return sign(k) k^2, the exact integer numerators of the vectors; nodata becomes 0.

    Parameters
    ----------
    codes : int8 array, any shape
        Codes as stored.

    Returns
    -------
    int32 array of the same shape, in units of 1 / 127.5^2.

    Examples
    --------
    >>> signed_squares(np.array([-127, -1, 0, 2, -128], np.int8)).tolist()
    [-16129, -1, 0, 4, 0]
    """
    k = _codes(codes).astype(np.int32)
    return np.where(k == NODATA, 0, k * np.abs(k)).astype(np.int32)


def codes_to_vectors(codes: NDArray[np.int8], dtype: Any = np.float32) -> NDArray[Any]:
    """De-quantise: v = sign(k) (k / 127.5)^2, nodata to NaN.

    Parameters
    ----------
    codes : int8 array, any shape
        Codes as stored, -128 = nodata.
    dtype : float32 or float64
        Type of the result.

    Returns
    -------
    float array of the same shape, components in -1..1.

    Raises
    ------
    UsageError
        If `codes` isn't int8, so that vectors aren't de-quantised a second time.

    Examples
    --------
    >>> codes_to_vectors(np.array([127, -51, -128], np.int8), np.float64).round(6).tolist()
    [0.992172, -0.16, nan]
    """
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise UsageError(f"dtype is float32 or float64, found {np.dtype(dtype)}")
    table = signed_squares(np.arange(-128, 128).astype(np.int8)) / SCALE
    table[0] = np.nan
    return table.astype(dtype)[_codes(codes).astype(np.int16) + 128]


def vectors_to_codes(vectors: NDArray[np.floating[Any]]) -> NDArray[np.int8]:
    """Quantise: k = rint(sign(v) sqrt(|v|) 127.5), clipped to -127..127, NaN to -128.

    Parameters
    ----------
    vectors : float array, any shape
        Components in -1..1.

    Returns
    -------
    int8 array of the same shape. All 255 codes survive a round trip.

    Raises
    ------
    UsageError
        If `vectors` isn't a float array (so that codes aren't quantised a second time) or has values outside -1..1.

    Examples
    --------
    >>> vectors_to_codes(np.array([0.992172, -0.16, np.nan])).tolist()
    [127, -51, -128]
    """
    v = np.asarray(vectors)
    if not np.issubdtype(v.dtype, np.floating):
        raise UsageError(f"vectors must be floats, found {v.dtype}; int8 codes are quantised already")
    v = v.astype(np.float64)
    missing = np.isnan(v)
    largest = float(np.max(np.abs(v), initial=0.0, where=~missing))
    if largest > 1.0 + FLOAT32_ROUNDING:
        raise UsageError(f"vector components lie in -1..1, found {largest:g}; are these codes stored as floats?")
    k = np.clip(np.rint(np.sign(v) * np.sqrt(np.abs(v)) * 127.5), -MAX_CODE, MAX_CODE)
    return np.where(missing, NODATA, k).astype(np.int8)


def is_on_codes(vectors: NDArray[np.floating[Any]]) -> bool:
    """Whether float vectors lie exactly (to float32 rounding) on the 255 codes, as Earth Engine's do.

    Examples
    --------
    >>> bool(is_on_codes(codes_to_vectors(np.arange(-128, 128).astype(np.int8))))
    True
    >>> bool(is_on_codes(np.array([0.123])))
    False
    """
    v = np.asarray(vectors, np.float64)
    back = codes_to_vectors(vectors_to_codes(v), np.float64)
    return bool(np.all(np.isnan(v) | (np.abs(back - v) <= FLOAT32_ROUNDING)))


def _codes(codes: NDArray[np.int8]) -> NDArray[np.int8]:
    array = np.asarray(codes)
    if array.dtype != np.int8:
        raise UsageError(f"codes must be int8, found {array.dtype}; floats are vectors already")
    return array
