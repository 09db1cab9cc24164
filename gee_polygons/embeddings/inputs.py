"""Takes embedding vectors out of tables and images, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, N_BANDS
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import UsageError


@runtime_checkable
class PixelImage(Protocol):
    """The attributes of an `EmbeddingImage` that are used here, without importing it from the package above."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def values(self) -> NDArray[Any]:
        """Array, shape (bands, height, width): int8 codes or float vectors."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, one per plane."""
        ...

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Boolean mask, shape (height, width)."""
        ...


def band_columns(table: pd.DataFrame, statistic: str = "mean") -> list[str]:
    """Return the 64 columns of one statistic: ``A00..A63``, or ``A00_mean..A63_mean`` in a table of several statistics.

    Parameters
    ----------
    table : DataFrame
        As `extract_embeddings` returns it.
    statistic : str
        ``"mean"``, ``"std"``, ``"p10"``, ... Plain names (``A00``) stand for the mean.

    Returns
    -------
    list of 64 str.

    Raises
    ------
    UsageError
        If columns are missing, or don't contain floats.

    Examples
    --------
    >>> band_columns(pd.DataFrame(np.zeros((1, 64)), columns=[f"{b}_mean" for b in BANDS]))[:2]
    ['A00_mean', 'A01_mean']
    """
    if not isinstance(table, pd.DataFrame):
        raise UsageError(f"a pandas DataFrame with columns A00..A63 is needed, found {type(table).__name__}")
    named = [f"{band}_{statistic}" for band in BANDS]
    names = list(BANDS) if statistic == "mean" and not set(named) <= set(table.columns) else named
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise UsageError(
            f"the table has {N_BANDS - len(missing)} of the 64 columns {names[0]}..{names[-1]} "
            f"(missing {missing[0]!r}); an embedding needs all 64 bands: extract without bands="
        )
    for name in names:
        if pd.api.types.is_integer_dtype(table[name]):
            raise UsageError(f"column {name!r} holds integers; embeddings are floats: de-quantise codes first")
    return names


def band_matrix(table: pd.DataFrame, statistic: str = "mean") -> NDArray[np.float64]:
    """Return one statistic of a table as float64, shape (rows, 64); rows with a missing band are NaN in all bands."""
    columns = table[band_columns(table, statistic)]
    try:
        matrix = columns.to_numpy(np.float64, na_value=np.nan, copy=True)
    except (TypeError, ValueError) as error:
        raise UsageError(f"columns {columns.columns[0]}..{columns.columns[-1]} don't hold numbers: {error}") from error
    matrix[~np.isfinite(matrix).all(axis=1)] = np.nan
    return matrix


def image_planes(image: PixelImage) -> NDArray[Any]:
    """Return the planes of all 64 bands in order, shape (64, height, width), codes or floats as they are stored."""
    if tuple(image.bands) == BANDS:
        return image.values  # noqa: PD011, an image isn't a DataFrame
    missing = [band for band in BANDS if band not in image.bands]
    if missing:
        raise UsageError(
            f"the image has {N_BANDS - len(missing)} of the 64 bands (missing {missing[0]!r}); "
            "an embedding needs all 64: read the image without bands="
        )
    order = [image.bands.index(band) for band in BANDS]
    return image.values[order]  # noqa: PD011, as above


def blocks_of_rows(planes: NDArray[Any], pixels: int = 65_536) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield planes, shape (bands, height, width), some rows at a time: which rows, and that part of the planes."""
    step = max(1, pixels // max(planes.shape[2], 1))
    for first in range(0, planes.shape[1], step):
        rows = slice(first, first + step)
        yield rows, planes[:, rows]


def reference_vector(vector: Any) -> NDArray[np.float64]:
    """Return one vector of 64 floats, from an array, a sequence, or a row of a table.

    Raises
    ------
    UsageError
        If it isn't one vector of 64 finite floats, or has length 0.

    Examples
    --------
    >>> reference_vector([0.6, 0.8] + [0.0] * 62)[:2].tolist()
    [0.6, 0.8]
    """
    if isinstance(vector, pd.DataFrame) and len(vector) != 1:
        raise UsageError(f"one reference vector is needed, found a table of {len(vector)} rows; choose one row")
    if isinstance(vector, pd.Series):
        table = vector.to_frame().T
        if any(isinstance(name, str) and name.startswith("A0") for name in table.columns):
            vector = table
    v: NDArray[Any]
    if isinstance(vector, pd.DataFrame):
        # a row taken out of a table has dtype object, but its numbers are floats
        v = vector[band_columns(vector.infer_objects())].to_numpy(np.float64, na_value=np.nan)[0]
    elif isinstance(vector, Mapping | str):
        raise UsageError(f"a reference vector is 64 floats, found {type(vector).__name__}")
    else:
        v = np.asarray(vector)
        if v.dtype == np.int8:
            v = codes_to_vectors(v, np.float64)
    if v.shape != (N_BANDS,) or not np.issubdtype(v.dtype, np.floating):
        raise UsageError(f"a reference vector is 64 floats, found {v.dtype} of shape {v.shape}")
    v = v.astype(np.float64)
    if not np.isfinite(v).all() or not v.any():
        raise UsageError("the reference vector has missing values or length 0; choose a row or pixel with data")
    return v
