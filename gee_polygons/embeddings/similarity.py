"""Computes the similarity of embeddings: between years, between sites, and between pixels and a vector.

Cosines are taken of unit vectors. The mean of a polygon isn't one (its length is `Rbar`), so it is divided by its
length first. The "cosine" of the reference document is the product of the means themselves, here ``kind="dot"``: its
diagonal is Rbar^2 (0.92 there), and it depends on how homogeneous the polygon is, as well as on how similar the years
are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Literal, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import ATTRIBUTION
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.inputs import (
    PixelImage,
    band_columns,
    band_matrix,
    blocks_of_rows,
    image_planes,
    reference_vector,
)
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import UsageError, warn_data

ImageT = TypeVar("ImageT", bound=PixelImage)

MAX_MATRIX_ROWS: Final = 20_000  # a matrix of 20,000 x 20,000 float64 takes 3.2 GB
_LARGE_BYTES: Final = 2_000_000_000
_MATRIX_ROWS_AT_A_TIME: Final = 256
_ROWS_AT_A_TIME: Final = 2_048  # x 64 float64 = 1 MB: stays in a core's cache


def similarity_matrix(
    table: pd.DataFrame,
    *,
    kind: Literal["cosine", "dot"] = "cosine",
    by: Literal["year", "site"] = "year",
    site_id: str | int | None = None,
    year: int | None = None,
    dropna: bool = False,
) -> pd.DataFrame:
    """Compare the rows of a table with each other: one site's years, or one year's sites.

    Parameters
    ----------
    table : DataFrame
        Columns ``site_id``, ``year``, ``A00``..``A63`` (or ``A00_mean``..): means of vectors, not renormalised.
    kind : {"cosine", "dot"}
        ``"cosine"``: of unit means, ``m_i . m_j / (|m_i| |m_j|)``; the diagonal is exactly 1.
        ``"dot"``: ``m_i . m_j``, as in the reference document; the diagonal is Rbar^2, so it falls for a mixed polygon.
    by : {"year", "site"}
        ``"year"``: years of one site. ``"site"``: sites in one year.
    site_id : str or int, optional
        The site to compare the years of; needed with ``by="year"`` if the table has several.
    year : int, optional
        The year to compare the sites in; needed with ``by="site"`` if the table has several.
    dropna : bool
        Whether rows without data are left out. By default they stay as NaN.

    Returns
    -------
    DataFrame, square and symmetric, values in -1..1. Index and columns: years ascending, or site ids in table order.

    Raises
    ------
    UsageError
        If bands are missing, the site or year isn't in the table, or has to be chosen and wasn't; for more than 20,000
        rows. A matrix of more than 2 GB is announced by a `DataWarning`.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(0.0, index=range(2), columns=list(BANDS))
    >>> table["A00"], table["A01"] = [0.9, 0.72], [0.0, 0.54]
    >>> table.insert(0, "year", [2023, 2024])
    >>> similarity_matrix(table).round(3).values.tolist()
    [[1.0, 0.8], [0.8, 1.0]]
    >>> similarity_matrix(table, kind="dot").round(3).values.tolist()
    [[0.81, 0.648], [0.648, 0.81]]
    """
    if kind not in ("cosine", "dot"):
        raise UsageError(f"kind is 'cosine' or 'dot', found {kind!r}")
    chosen, labels = _rows_to_compare(table, by, site_id, year)
    means = band_matrix(chosen)
    if dropna:
        kept = np.isfinite(means[:, 0])
        means, labels = means[kept], labels[kept]
    what = f"a matrix of {len(means):,} x {len(means):,}"
    if len(means) > MAX_MATRIX_ROWS:
        raise UsageError(
            f"{what} is too large (at most {MAX_MATRIX_ROWS:,}); find the most similar ones with nearest_sites"
        )
    if (size := 8 * len(means) ** 2) > _LARGE_BYTES:
        warn_data(f"{what} takes {size / 1e9:.1f} GB of memory; nearest_sites finds the most similar ones with little")
    vectors = normalize(means) if kind == "cosine" else means
    present = np.isfinite(vectors[:, 0])
    filled = np.where(present[:, None], vectors, 0.0)
    product = filled @ filled.T
    for start in range(0, len(product), _MATRIX_ROWS_AT_A_TIME):  # in place: it may take gigabytes
        rows, rest = slice(start, start + _MATRIX_ROWS_AT_A_TIME), slice(start, None)
        # a matrix product need not be symmetric to the last bit
        part = np.clip((product[rows, rest] + product[rest, rows].T) / 2, -1.0, 1.0)
        product[rows, rest] = part
        product[rest, rows] = part.T
    if kind == "cosine":
        np.fill_diagonal(product, 1.0)
    product[~present] = np.nan
    product[:, ~present] = np.nan
    matrix = pd.DataFrame(product, index=labels, columns=labels, copy=False)
    matrix.attrs["provenance"] = table.attrs.get("provenance") or {"attribution": ATTRIBUTION}
    return matrix


def angular_distance_deg(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the angle between vectors, in degrees: 0 = same direction, 90 = unrelated, 180 = opposite.

    ``2 atan2(|u - v|, |u + v|)`` of the unit vectors (W. Kahan, *How Futile are Mindless Assessments of Roundoff in
    Floating-Point Computation?*, 2006): unlike the arc cosine of a product it is accurate for small angles, such as
    those between the years of a stable site.

    Parameters
    ----------
    a, b : float array, shape (..., bands)
        Vectors of any length > 0; shapes are broadcast.

    Returns
    -------
    float64 array, shape (...), 0..180; NaN where a vector is missing or 0.

    Examples
    --------
    >>> angular_distance_deg(np.array([[2.0, 0.0], [1.0, 1.0], [-1.0, 0.0]]), np.array([1.0, 0.0])).round(6).tolist()
    [0.0, 45.0, 180.0]
    """
    u, v = normalize(a), normalize(b)
    if u.shape[-1] != v.shape[-1]:
        raise UsageError(f"vectors of {u.shape[-1]} and of {v.shape[-1]} bands can't be compared")
    difference = np.sqrt(np.sum((u - v) ** 2, axis=-1))
    total = np.sqrt(np.sum((u + v) ** 2, axis=-1))
    return np.degrees(2 * np.arctan2(difference, total))


def nearest_sites(table: pd.DataFrame, query: Any, k: int = 10, *, year: int | None = None) -> pd.DataFrame:
    """Find the rows of a table that are most similar to a vector or a site, by comparing every row.

    Parameters
    ----------
    table : DataFrame
        Columns ``site_id``, ``A00``..``A63`` (or ``A00_mean``..), and ``year`` where there are several.
    query : array of 64 floats, row of a table, or site id
        Vector to compare with. For a site id it is that site's, and the site's own rows are left out of the result.
    k : int
        Largest number of rows to return.
    year : int, optional
        Year to search (by default, all rows); for a site id also the year of its vector.

    Returns
    -------
    DataFrame with ``site_id``, ``year``, ``cosine`` (of unit vectors) and ``angle_deg``, the most similar first;
    equal ones in table order. Its index is that of `table`. Rows without data are never returned.

    Raises
    ------
    UsageError
        If the site isn't in the table, or it has several years and none is chosen.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(0.0, index=range(3), columns=list(BANDS))
    >>> table["A00"], table["A01"] = [1.0, 0.6, 0.0], [0.0, 0.8, 1.0]
    >>> table.insert(0, "site_id", ["a", "b", "c"])
    >>> nearest_sites(table, "c", 2)["site_id"].tolist()
    ['b', 'a']
    """
    names = band_columns(table)
    if "site_id" not in table.columns:
        raise UsageError("nearest_sites needs a column 'site_id'")
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise UsageError(f"k is a number of rows, at least 1, found {k!r}")
    candidates = np.ones(len(table), np.bool_)
    if year is not None:
        candidates &= _is_year(table, year)
    if isinstance(query, str | int | np.integer):
        query = query if isinstance(query, str) else int(query)
        own = _is_site(table, query)
        vector = _vector_of_site(table, own & candidates, query, year)
        candidates &= ~own
    else:
        vector = reference_vector(query)
    cosine = _cosines(table, names, vector)
    cosine[~candidates] = np.nan
    best = _largest(cosine, k)
    found = pd.DataFrame({"site_id": table["site_id"].to_numpy()[best]}, index=table.index[best])
    if "year" in table.columns:
        found["year"] = table["year"].to_numpy()[best]
    found["cosine"] = cosine[best]
    found["angle_deg"] = angular_distance_deg(band_matrix(table.iloc[best]), vector)
    return found


def similarity_image(image: ImageT, vector: Any) -> ImageT:
    """Compare every pixel with a vector.

    Parameters
    ----------
    image : EmbeddingImage
        All 64 bands, codes or vectors.
    vector : array of 64 floats, or row of a table
        For example a class prototype, the site's first year, or a pixel; of any length > 0.

    Returns
    -------
    EmbeddingImage with one float32 band, ``"cosine"``, in -1..1, NaN = nodata, on the same grid.

    Examples
    --------
    >>> from gee_polygons.reduction.plan import EmbeddingImage
    >>> from gee_polygons.zonal.grid import Grid
    >>> values = np.zeros((64, 1, 2)); values[0] = [[1.0, 0.6]]; values[1] = [[0.0, 0.8]]
    >>> grid = Grid(crs="EPSG:32616", transform=(10, 0, 0, 0, -10, 20), shape=(1, 2))
    >>> similarity_image(EmbeddingImage(values=values, grid=grid), values[:, 0, 0]).values.round(2).tolist()
    [[[1.0, 0.6000000238418579]]]
    """
    unit = normalize(reference_vector(vector))
    planes = image_planes(image)
    cosine = np.full((1, *planes.shape[1:]), np.nan, np.float32)
    for rows, part in blocks_of_rows(planes):
        vectors = (codes_to_vectors(part) if part.dtype == np.int8 else part).astype(np.float64)
        length = np.sqrt(np.einsum("brc,brc->rc", vectors, vectors))
        product = np.tensordot(unit, vectors, axes=1)
        # a zero pixel has no direction
        ratio = np.divide(product, length, out=np.full(length.shape, np.nan), where=length > 0)
        cosine[0, rows] = np.clip(ratio, -1.0, 1.0)
    return replace(image, values=cosine, bands=("cosine",))


def _rows_to_compare(
    table: pd.DataFrame, by: str, site_id: str | int | None, year: int | None
) -> tuple[pd.DataFrame, pd.Index[Any]]:
    """Select the rows of one site or one year; return them with their years or site ids."""
    band_columns(table)
    if by not in ("year", "site"):
        raise UsageError(f"by is 'year' or 'site', found {by!r}")
    name = "year" if by == "year" else "site_id"
    if name not in table.columns:
        raise UsageError(f"similarity_matrix(by={by!r}) needs a column {name!r}")
    keep = np.ones(len(table), np.bool_)
    if site_id is not None:
        keep &= _is_site(table, site_id)
    if year is not None:
        keep &= _is_year(table, year)
    rows = table[keep]
    if rows.empty:
        raise UsageError(f"the table has no row for site_id={site_id!r}, year={year!r}")
    if by == "year":
        sites = rows["site_id"].unique() if "site_id" in rows.columns else ()
        if len(sites) > 1:
            raise UsageError(
                f"the table holds {len(sites)} sites ({_some(sites)}); "
                "choose one with site_id=, or compare sites in a year with by='site', year="
            )
        rows = rows.sort_values("year", kind="stable")
    elif "year" in rows.columns:
        years = sorted(int(y) for y in rows["year"].unique())
        if len(years) > 1:
            raise UsageError(f"the table holds the years {years[0]}..{years[-1]}; choose one with year=")
    if rows[name].duplicated().any():
        twice = _some(rows[name][rows[name].duplicated()].to_numpy()[:1])
        raise UsageError(f"{name} {twice} has several rows in the table; keep one per site and year")
    return rows, pd.Index(rows[name], name=name)


def _is_site(table: pd.DataFrame, site_id: str | int) -> NDArray[np.bool_]:
    """Return a mask of the rows of a site; 3107 and "3107" are the same site."""
    if "site_id" not in table.columns:
        raise UsageError(f"the table has no column 'site_id' to find site {site_id!r} in")
    ids = table["site_id"]
    found: NDArray[np.bool_] = np.asarray(ids == site_id, np.bool_)
    if not found.any():
        found = np.asarray(ids.astype(str) == str(site_id), np.bool_)
    if not found.any():
        raise UsageError(f"site {site_id!r} is not in the table; it holds {_some(ids.unique())}")
    return found


def _some(ids: Any) -> str:
    names = [repr(i.item() if isinstance(i, np.generic) else i) for i in ids[:3]]
    return ", ".join([*names, "..."] if len(ids) > 3 else names)


def _is_year(table: pd.DataFrame, year: int) -> NDArray[np.bool_]:
    if "year" not in table.columns:
        raise UsageError(f"the table has no column 'year' to find year {year!r} in")
    found: NDArray[np.bool_] = np.asarray(table["year"] == year, np.bool_)
    if not found.any():
        years = sorted({int(y) for y in table["year"].dropna()})
        span = f"{years[0]}..{years[-1]}" if years else "none"
        raise UsageError(f"year {year!r} is not in the table; it holds {span}")
    return found


def _vector_of_site(
    table: pd.DataFrame, rows: NDArray[np.bool_], site_id: str | int, year: int | None
) -> NDArray[np.float64]:
    if rows.sum() > 1:
        raise UsageError(f"site {site_id!r} has {int(rows.sum())} rows in the table; choose one with year=")
    if not rows.any():
        raise UsageError(f"site {site_id!r} has no row for year {year!r}")
    vector: NDArray[np.float64] = band_matrix(table[rows])[0]
    if not np.isfinite(vector).all():
        raise UsageError(f"site {site_id!r} has no data in that year; choose another year")
    return vector


def _cosines(table: pd.DataFrame, names: list[str], vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosine of every row with a vector, NaN without data; in blocks small enough for a core's cache."""
    unit = normalize(vector)
    # columns are views, whatever the table's layout; only a block at a time is copied
    columns = [_floats(table[name]) for name in names]
    cosine = np.full(len(table), np.nan)
    for start in range(0, len(table), _ROWS_AT_A_TIME):
        stop = min(start + _ROWS_AT_A_TIME, len(table))
        block = np.empty((len(columns), stop - start))
        for plane, column in zip(block, columns, strict=True):
            plane[:] = column[start:stop]
        squares = np.einsum("br,br->r", block, block)
        np.divide(unit @ block, np.sqrt(squares), out=cosine[start:stop], where=squares > 0)
    np.clip(cosine, -1.0, 1.0, out=cosine)
    return cosine


def _floats(column: pd.Series[Any]) -> NDArray[Any]:
    if isinstance(column.dtype, np.dtype) and np.issubdtype(column.dtype, np.floating):
        return column.to_numpy()
    return column.to_numpy(np.float64, na_value=np.nan)


def _largest(values: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """Return the positions of the k largest values, largest first, equal ones in order, without NaN."""
    present = np.flatnonzero(np.isfinite(values))
    if len(present) > k:
        least = np.partition(values[present], len(present) - k)[len(present) - k]
        above = present[values[present] > least]
        present = np.concatenate([above, present[values[present] == least][: k - len(above)]])
    return present[np.lexsort((present, -values[present]))]
