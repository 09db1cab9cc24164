"""Colours embeddings by their first three principal components, as red, green and blue.

The components are fitted once to everything that will be shown (all sites, years or pixels) and used for every
frame, so that a colour means the same in every year and place. The fit needs one pass over the data: the `Moments` of
parts (tiles, workers) are added up to the moments of the whole. For int8 codes the sums are exact integers, so the
result is the same to the last bit in any order.

Principal components: eigenvectors of the covariance matrix (Jolliffe, *Principal Component Analysis*, 2002). Their
signs are arbitrary; here the loading of largest absolute value is made positive.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, N_BANDS, NODATA
from gee_polygons.embeddings.inputs import PixelImage, band_columns, band_matrix, blocks_of_rows, image_planes
from gee_polygons.embeddings.quantization import SCALE, codes_to_vectors, signed_squares
from gee_polygons.errors import InputFileError, UsageError
from gee_polygons.store.atomic import replacing

N_COMPONENTS: Final = 3
SAMPLE_ROWS: Final = (
    20_000  # rows kept for the percentiles of the stretch: 5 MB; the percentiles are good to about 0.1 %
)
_FORMAT: Final = "gee_polygons pca colours 1"
_ROWS_AT_A_TIME: Final = 65_536


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Number, sum, sum of products and a sample of vectors: all that a fit needs.

    Parameters
    ----------
    count : int
        Number of vectors.
    total : float64 array, shape (64,)
        Their sum, in units of 1 / 127.5^2: exact integers for int8 codes.
    products : float64 array, shape (64, 64)
        Sum of their outer products, in units of 1 / 127.5^4.
    sample : float32 array, shape (rows, 64)
        At most `SAMPLE_ROWS` of the vectors: those with the lowest hashes of their values, so that the choice depends
        neither on their order nor on how they were split.
    keys : uint64 array, shape (rows,)
        Their hashes, ascending.

    Examples
    --------
    >>> vectors = np.eye(64)
    >>> whole, halves = Moments.of(vectors), Moments.of(vectors[:10]) + Moments.of(vectors[10:])
    >>> whole.count, bool(np.array_equal(whole.products, halves.products))
    (64, True)
    """

    count: int
    total: NDArray[np.float64]
    products: NDArray[np.float64]
    sample: NDArray[np.float32]
    keys: NDArray[np.uint64]

    @classmethod
    def of(cls, data: Any) -> Moments:
        """Return the moments of a table, an image, an array (..., 64) of int8 codes or float vectors, or several.

        Vectors with a missing band are left out.
        """
        none = cls._of_rows(np.zeros((0, N_BANDS)))
        return reduce(cls.__add__, (cls._of_rows(rows) for rows in _vectors_in_blocks(data)), none)

    @classmethod
    def _of_rows(cls, rows: NDArray[Any]) -> Moments:
        if rows.dtype == np.int8:
            rows = rows[(rows != NODATA).all(axis=1)]
            numerators, vectors = signed_squares(rows).astype(np.float64), codes_to_vectors(rows)
        else:
            rows = rows[np.isfinite(rows).all(axis=1)]
            numerators, vectors = rows.astype(np.float64) * SCALE, rows.astype(np.float32)
        keys = _hashes(vectors)
        kept = np.argsort(keys, kind="stable")[:SAMPLE_ROWS]
        return cls(
            count=len(rows),
            total=numerators.sum(axis=0),
            products=numerators.T @ numerators,
            sample=vectors[kept],
            keys=keys[kept],
        )

    def __add__(self, other: Moments) -> Moments:
        keys = np.concatenate([self.keys, other.keys])
        kept = np.argsort(keys, kind="stable")[:SAMPLE_ROWS]
        return Moments(
            count=self.count + other.count,
            total=self.total + other.total,
            products=self.products + other.products,
            sample=np.concatenate([self.sample, other.sample])[kept],
            keys=keys[kept],
        )

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean vector, shape (64,)."""
        return self.total / self.count / SCALE

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance matrix, shape (64, 64), with divisor count - 1."""
        centred = self.products - np.outer(self.total, self.total) / self.count
        return centred / (self.count - 1) / SCALE**2

    def fit(self, *, percentiles: tuple[float, float] = (2.0, 98.0)) -> PcaColors:
        """Return the colour basis of these vectors: see `fit_pca_colors`."""
        low, high = percentiles
        if not 0 <= low < high <= 100:
            raise UsageError(f"percentiles are two numbers, 0 <= low < high <= 100, found {percentiles!r}")
        if self.count < 2:
            raise UsageError(f"principal components need at least 2 vectors with data, found {self.count}")
        values, vectors = np.linalg.eigh(self.covariance)
        values = np.clip(values[::-1], 0.0, None)
        components = vectors[:, ::-1].T[:N_COMPONENTS]
        largest = np.argmax(np.abs(components), axis=1)
        components = components * np.sign(components[np.arange(N_COMPONENTS), largest])[:, None]
        scores = (self.sample.astype(np.float64) - self.mean) @ components.T
        stretch = np.percentile(scores, percentiles, axis=0)
        total = values.sum()
        return PcaColors(
            mean=self.mean,
            components=components,
            low=stretch[0],
            high=stretch[1],
            explained_variance=values[:N_COMPONENTS] / total if total > 0 else np.zeros(N_COMPONENTS),
            count=self.count,
            percentiles=(float(low), float(high)),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PcaColors:
    """A colour basis: three axes, and the part of each that a colour channel shows as 0..255.

    Parameters
    ----------
    mean : float64 array, shape (64,)
        Mean vector, subtracted before the projection.
    components : float64 array, shape (3, 64)
        Orthonormal axes, most variance first: red, green, blue.
    low, high : float64 array, shape (3,)
        Scores drawn as 0 and as 255: percentiles over all vectors of the fit.
    explained_variance : float64 array, shape (3,)
        Share of the total variance along each axis, 0..1.
    count : int
        Number of vectors in the fit.
    percentiles : tuple of two floats
        Which percentiles `low` and `high` are.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> basis = fit_pca_colors(rng.normal(size=(500, 64)) * 0.1)
    >>> basis.rgb(rng.normal(size=(2, 3, 64)) * 0.1).shape
    (2, 3, 3)
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    explained_variance: NDArray[np.float64]
    count: int
    percentiles: tuple[float, float]

    def project(self, vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return the scores of vectors along the three axes: (..., 64) -> (..., 3), NaN where a band is missing."""
        v = np.asarray(vectors)
        if v.dtype == np.int8:
            raise UsageError("project takes float vectors, found int8 codes; de-quantise them with codes_to_vectors")
        if v.ndim == 0 or v.shape[-1] != N_BANDS:
            raise UsageError(f"vectors have 64 bands on their last axis, found shape {v.shape}")
        return (v.astype(np.float64) - self.mean) @ self.components.T

    def rgb(self, vectors: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Return the colours of vectors: (..., 64) -> uint8 (..., 3), mid-grey where a band is missing: mask those."""
        return self.rgb_of_scores(self.project(vectors))

    def scores(self, table: pd.DataFrame) -> NDArray[np.float64]:
        """Return the scores of a table's rows, shape (rows, 3), NaN without data; without a copy of all vectors."""
        return np.concatenate([np.zeros((0, N_COMPONENTS)), *map(self.project, _vectors_in_blocks(table))])

    def image_rgb(self, image: PixelImage) -> NDArray[np.uint8]:
        """Return the colours of an image's pixels, uint8, shape (height, width, 3)."""
        planes = image_planes(image)
        rgb = np.empty((*planes.shape[1:], N_COMPONENTS), np.uint8)
        for rows, part in blocks_of_rows(planes):
            vectors = codes_to_vectors(part) if part.dtype == np.int8 else part
            rgb[rows] = self.rgb(np.moveaxis(vectors, 0, -1))
        return rgb

    def describe(self) -> str:
        """Return one line that says what the colours are, for a caption.

        Examples
        --------
        >>> fit_pca_colors(np.eye(64)[:4]).describe()
        'PC1 33 % red, PC2 33 % green, PC3 33 % blue'
        """
        shares = (round(100 * float(share)) for share in self.explained_variance)
        names = zip(shares, ("red", "green", "blue"), strict=True)
        return ", ".join(f"PC{i} {share} % {name}" for i, (share, name) in enumerate(names, start=1))

    def save(self, path: str | Path, *, attribution: str = "") -> Path:
        """Write the basis as JSON, from which `load` reads exactly the same floats; return the path."""
        content = {
            "format": _FORMAT,
            **({"attribution": attribution} if attribution else {}),
            "bands": list(BANDS),
            "count": self.count,
            "percentiles": list(self.percentiles),
            **{name: getattr(self, name).tolist() for name in _ARRAYS},
        }
        with replacing(path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> PcaColors:
        """Read a basis that `save` wrote.

        Raises
        ------
        InputFileError
            If the file can't be read, or isn't a colour basis.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputFileError(f"can't read the colour basis {path}: {error}") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise InputFileError(f"{path} is not a colour basis; write one with PcaColors.save")
        try:
            arrays = {name: np.array(content[name], np.float64) for name in _ARRAYS}
            wrong = [name for name in _ARRAYS if arrays[name].shape != _ARRAYS[name]]
            if wrong or content["bands"] != list(BANDS):
                raise ValueError(f"{(wrong or ['bands'])[0]} is not as expected")
            low, high = content["percentiles"]
            return cls(count=int(content["count"]), percentiles=(float(low), float(high)), **arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise InputFileError(f"the colour basis {path} is damaged: {error}; fit and save it again") from error

    def rgb_of_scores(self, scores: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return the colours of scores: (..., 3) -> uint8 (..., 3), mid-grey where they are missing."""
        span = self.high - self.low
        # mid-grey along an axis without variance, and for missing vectors
        share = np.divide(scores - self.low, span, out=np.full(scores.shape, 0.5), where=span > 0)
        share = np.where(np.isnan(share), 0.5, share)
        return np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)


_ARRAYS: Final = {
    "mean": (N_BANDS,),
    "components": (N_COMPONENTS, N_BANDS),
    "low": (N_COMPONENTS,),
    "high": (N_COMPONENTS,),
    "explained_variance": (N_COMPONENTS,),
}


def fit_pca_colors(data: Any, *, percentiles: tuple[float, float] = (2.0, 98.0)) -> PcaColors:
    """Fit a colour basis once, over everything that will be shown.

    Parameters
    ----------
    data : DataFrame, EmbeddingImage, array, or an iterable of these
        A table with ``A00``..``A63`` (or ``A00_mean``..), an image with all 64 bands, or an array of shape (..., 64)
        of int8 codes or float vectors. An iterable (a list of yearly images, a generator of tiles) is fitted as
        a whole, with one item in memory at a time.
    percentiles : tuple of two floats
        Scores at these percentiles become 0 and 255, as do those beyond them. With (2, 98) a few outliers don't
        reduce the contrast of the rest.

    Returns
    -------
    PcaColors. The same data give the same colours, in any order.

    Raises
    ------
    UsageError
        If there are fewer than 2 vectors with data, or bands are missing.

    Examples
    --------
    >>> basis = fit_pca_colors([np.eye(64)[:2], np.eye(64)[2:4]])
    >>> basis.explained_variance.round(3).tolist(), basis.count
    ([0.333, 0.333, 0.333], 4)
    """
    return Moments.of(data).fit(percentiles=percentiles)


def add_pca_columns(table: pd.DataFrame, basis: PcaColors) -> pd.DataFrame:
    """Return a copy of a table with two more columns: each row's scores along the axes, and its colour.

    Means are projected as they are, not renormalised: so a polygon's scores are the means of its pixels' scores.

    Parameters
    ----------
    table : DataFrame
        Columns ``A00``..``A63`` (or ``A00_mean``..).
    basis : PcaColors
        Fitted on any vectors: this table's, all years', or pixels.

    Returns
    -------
    DataFrame with ``pca_components`` (list of 3 floats) and ``pca_rgb`` (``"#rrggbb"``); None where there is no data.

    Examples
    --------
    >>> table = pd.DataFrame(np.eye(64)[:4], columns=list(BANDS))
    >>> add_pca_columns(table, fit_pca_colors(table)).columns[-2:].tolist()
    ['pca_components', 'pca_rgb']
    """
    scores = basis.scores(table)
    rows = list(zip(scores.tolist(), np.isfinite(scores[:, 0]), map(bytes, basis.rgb_of_scores(scores)), strict=True))
    lists = pd.Series([score if ok else None for score, ok, _ in rows], index=table.index, dtype=object)
    names = pd.Series([f"#{rgb.hex()}" if ok else None for _, ok, rgb in rows], index=table.index, dtype=object)
    return table.assign(pca_components=lists, pca_rgb=names)


def _vectors_in_blocks(data: Any) -> Iterator[NDArray[Any]]:
    """Yield the vectors of tables, images and arrays as arrays of shape (rows, 64), int8 codes or floats."""
    if isinstance(data, pd.DataFrame):
        band_columns(data)  # also a table without rows has all bands
        for start in range(0, len(data), _ROWS_AT_A_TIME):
            yield band_matrix(data.iloc[start : start + _ROWS_AT_A_TIME])
    elif isinstance(data, PixelImage):
        for _, part in blocks_of_rows(image_planes(data)):
            yield part.reshape(N_BANDS, -1).T
    elif isinstance(data, np.ndarray):
        if data.dtype != np.int8 and not np.issubdtype(data.dtype, np.floating):
            raise UsageError(f"vectors are floats and codes are int8, found {data.dtype}")
        if data.ndim == 0 or data.shape[-1] != N_BANDS:
            raise UsageError(f"arrays have 64 bands on their last axis, found shape {data.shape}")
        rows = data.reshape(-1, N_BANDS)
        yield from (rows[start : start + _ROWS_AT_A_TIME] for start in range(0, len(rows), _ROWS_AT_A_TIME))
    elif isinstance(data, Iterable) and not isinstance(data, str | bytes | dict):
        for item in data:
            yield from _vectors_in_blocks(item)
    else:
        raise UsageError(f"colours are fitted to tables, images or arrays, found {type(data).__name__}")


def _hashes(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Hash each row: a random linear combination, then the finaliser of SplitMix64 (Steele et al. 2014)."""
    bits = np.ascontiguousarray(vectors + np.float32(0.0)).view(np.uint32)  # adding 0 turns -0 into 0
    odd = np.random.default_rng(64).integers(0, 2**63, N_BANDS, np.uint64) * np.uint64(2) + np.uint64(1)
    key = np.zeros(len(bits), np.uint64)
    for band in range(N_BANDS):
        key += bits[:, band] * odd[band]
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
