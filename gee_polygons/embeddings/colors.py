"""Colours from embeddings: the first three principal components as red, green and blue.

Fitted once over everything that will be shown (all sites, years or pixels), then kept: the same basis for every
frame, so that a colour means the same in every year and place. The fit needs one pass and adds up: `Moments` of
parts (tiles, workers) merge to the moments of the whole. For int8 codes the sums are exact integers, so the order
of merging doesn't matter to the last bit.

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
from gee_polygons.embeddings.inputs import PixelImage, band_matrix, image_planes
from gee_polygons.embeddings.quantization import SCALE, codes_to_vectors, signed_squares
from gee_polygons.errors import InputFileError, UsageError
from gee_polygons.store.atomic import replacing

N_COMPONENTS: Final = 3
SAMPLE_ROWS: Final = 20_000  # rows kept for the percentiles of the stretch: 5 MB, percentiles good to about 0.1 %
_FORMAT: Final = "gee_polygons pca colours 1"
_ROWS_AT_A_TIME: Final = 65_536


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """What a fit needs to know of any number of vectors: how many, their sum, their products, and a sample.

    Parameters
    ----------
    count : int
        Number of vectors.
    total : float64 array, shape (64,)
        Their sum, in units of 1 / 127.5^2: exact integers for int8 codes.
    products : float64 array, shape (64, 64)
        Sum of their outer products, in units of 1 / 127.5^4.
    sample : float32 array, shape (rows, 64)
        At most `SAMPLE_ROWS` of the vectors: those whose values hash lowest, so the choice doesn't depend on
        their order or on how they were split.
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
        return reduce(cls.__add__, (cls._of_rows(rows) for rows in _blocks_of_rows(data)), cls.nothing())

    @classmethod
    def nothing(cls) -> Moments:
        """Return the moments of no vectors, what adding starts from."""
        return cls(
            count=0,
            total=np.zeros(N_BANDS),
            products=np.zeros((N_BANDS, N_BANDS)),
            sample=np.zeros((0, N_BANDS), np.float32),
            keys=np.zeros(0, np.uint64),
        )

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
        mean: NDArray[np.float64] = self.total / self.count / SCALE
        return mean

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance matrix, shape (64, 64), with divisor count - 1."""
        centred = self.products - np.outer(self.total, self.total) / self.count
        covariance: NDArray[np.float64] = centred / (self.count - 1) / SCALE**2
        return covariance

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
    """A colour basis: where vectors lie along three axes, and which part of each axis makes a channel go 0..255.

    Parameters
    ----------
    mean : float64 array, shape (64,)
        What is subtracted first.
    components : float64 array, shape (3, 64)
        Orthonormal axes, most variance first: red, green, blue.
    low, high : float64 array, shape (3,)
        Scores drawn as 0 and as 255: percentiles over all vectors of the fit.
    explained_variance : float64 array, shape (3,)
        Share of the whole variance that each axis holds, 0..1.
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
        scores: NDArray[np.float64] = (v.astype(np.float64) - self.mean) @ self.components.T
        return scores

    def rgb(self, vectors: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Return the colours of vectors: (..., 64) -> uint8 (..., 3). Missing ones are mid-grey: mask them."""
        return self._stretch(self.project(vectors))

    def image_rgb(self, image: PixelImage) -> NDArray[np.uint8]:
        """Return the colours of an image's pixels, uint8, shape (height, width, 3)."""
        planes = image_planes(image)
        height, width = planes.shape[1:]
        rgb = np.empty((height, width, N_COMPONENTS), np.uint8)
        step = max(1, _ROWS_AT_A_TIME // max(width, 1))
        for row in range(0, height, step):
            part = planes[:, row : row + step]
            vectors = codes_to_vectors(part) if part.dtype == np.int8 else part
            rgb[row : row + step] = self.rgb(np.moveaxis(vectors, 0, -1))
        return rgb

    def describe(self) -> str:
        """Say in one line what the colours are, for a caption.

        Examples
        --------
        >>> fit_pca_colors(np.eye(64)[:4]).describe()
        'PC1 33 % red, PC2 33 % green, PC3 33 % blue'
        """
        shares = (round(100 * float(share)) for share in self.explained_variance)
        names = zip(shares, ("red", "green", "blue"), strict=True)
        return ", ".join(f"PC{i} {share} % {name}" for i, (share, name) in enumerate(names, start=1))

    def save(self, path: str | Path) -> Path:
        """Write the basis as JSON; floats survive the round trip to the last bit. Return the path."""
        content = {
            "format": _FORMAT,
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
            If the file can't be read or isn't one.
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

    def _stretch(self, scores: NDArray[np.float64]) -> NDArray[np.uint8]:
        span = self.high - self.low
        # an axis along which nothing varies, and a missing vector, are mid-grey
        share = np.divide(scores - self.low, span, out=np.full(scores.shape, 0.5), where=span > 0)
        share = np.where(np.isnan(share), 0.5, share)
        rgb: NDArray[np.uint8] = np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)
        return rgb


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
        one whole, one item in memory at a time.
    percentiles : tuple of two floats
        Scores at these percentiles become 0 and 255; beyond them the colour saturates. (2, 98) keeps a few odd
        pixels from taking the contrast away from the rest.

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
    """Return a copy of a table with two more columns: where each row lies along the axes, and its colour.

    Means are projected as they are, not renormalised: a polygon's colour is then the mean of its pixels' scores.

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
    scores = basis.project(band_matrix(table))
    colours = basis._stretch(scores)
    present = [not np.isnan(row).any() for row in scores]
    lists = [s if ok else None for s, ok in zip(scores.tolist(), present, strict=True)]
    names = [f"#{c.hex()}" if ok else None for c, ok in zip(map(bytes, colours), present, strict=True)]
    extra = {
        "pca_components": pd.Series(lists, index=table.index, dtype=object),
        "pca_rgb": pd.Series(names, index=table.index, dtype=object),
    }
    return table.assign(**extra)


def _blocks_of_rows(data: Any) -> Iterator[NDArray[Any]]:
    """Yield arrays of shape (rows, 64), int8 codes or floats, out of anything that holds vectors."""
    if isinstance(data, pd.DataFrame):
        yield from _split(band_matrix(data))
    elif isinstance(data, PixelImage):
        planes = image_planes(data)
        step = max(1, _ROWS_AT_A_TIME // max(planes.shape[2], 1))
        for row in range(0, planes.shape[1], step):
            yield planes[:, row : row + step].reshape(N_BANDS, -1).T
    elif isinstance(data, np.ndarray):
        if data.dtype != np.int8 and not np.issubdtype(data.dtype, np.floating):
            raise UsageError(f"vectors are floats and codes are int8, found {data.dtype}")
        if data.ndim == 0 or data.shape[-1] != N_BANDS:
            raise UsageError(f"arrays have 64 bands on their last axis, found shape {data.shape}")
        yield from _split(data.reshape(-1, N_BANDS))
    elif isinstance(data, Iterable) and not isinstance(data, str | bytes | dict):
        for item in data:
            yield from _blocks_of_rows(item)
    else:
        raise UsageError(f"colours are fitted to tables, images or arrays, found {type(data).__name__}")


def _split(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        yield rows[start : start + _ROWS_AT_A_TIME]


def _hashes(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Hash each row's values (a random linear form, then the finaliser of SplitMix64, Steele et al. 2014)."""
    bits = np.ascontiguousarray(vectors + np.float32(0.0)).view(np.uint32)  # adding 0 turns -0 into 0
    odd = np.random.default_rng(64).integers(0, 2**63, N_BANDS, np.uint64) * np.uint64(2) + np.uint64(1)
    key = np.zeros(len(bits), np.uint64)
    for band in range(N_BANDS):
        key += bits[:, band] * odd[band]
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: NDArray[np.uint64] = key ^ (key >> np.uint64(31))
    return hashed
