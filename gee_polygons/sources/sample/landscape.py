"""Computes synthetic embeddings and land cover as a deterministic function of ground position and year.

Not AlphaEarth data, and no value is taken from it: only its published statistics are imitated (spatial and yearly
correlation, spread of the codes, compressibility), so that readers, kernels and pictures meet realistic input.

A pixel's centre is projected to metres in one local frame, whatever the CRS. There the land is a
mosaic of parcels (warped Voronoi cells), each of one land cover with an offset of its own; rivers with woods along
them run through it; `Patch` polygons lie on top and change over the years. Land cover, parcel, smooth texture and
year add up in a small latent space, an orthonormal basis takes them to 64 dimensions, and the result, with a little
white noise, is scaled to unit length and quantised.

Everything random is a hash of integers, and the kernel adds in a fixed order without fused or reassociated
arithmetic, so a pixel has the same bits in any window, tile, block or thread.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS, NODATA
from gee_polygons.errors import UsageError
from gee_polygons.sources.sample.kernel import N_COVER, N_LATENT, N_PURPOSES, NODE_PX, UNLABELLED, fill
from gee_polygons.zonal.grid import Window

LAND_COVER: Final = ("pasture", "young forest", "mature forest", "crop", "water", "built")
PIXEL_M: Final = 10.0

# Land covers in the first five latent dimensions: wood, tillage, water, built, dryness.
_COVER_LATENT = np.array(
    [
        [-0.34, -0.08, 0.00, -0.02, 0.26],  # pasture
        [0.12, -0.20, 0.02, -0.06, -0.10],  # young forest
        [0.46, -0.14, 0.06, -0.04, -0.24],  # mature forest
        [-0.26, 0.42, 0.00, -0.02, -0.12],  # crop
        [0.00, -0.05, 0.90, 0.05, -0.10],  # water
        [-0.20, 0.05, 0.05, 0.75, 0.10],  # built
    ]
)
_MEAN_LENGTH = 0.80  # of the vector common to all land; sets the cosine of far-apart pixels
_DRIFT_SIZE = 0.155  # length of the step from the long-term mean that all land shares in a year

# Purposes of hashed numbers here; the kernel has its own.
_COVER = 1
_TEXTURE, _YEARLY, _PARCEL_YEAR, _NOISE, _BASIS, _DRIFT, _SIZE = range(100, 800, 100)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A polygon whose land cover changes over the years.

    Parameters
    ----------
    polygon : shapely Polygon or MultiPolygon
        In metres of the landscape's local frame.
    covers : tuple of 3 str
        Land cover before, during and after the change; three times the same for land that doesn't change.
    start_year : int
        First year that shows the change.
    pace : float
        Share of the change completed in each year, 0..1, from `start_year` - 0.5 on.
    """

    polygon: shapely.Geometry
    covers: tuple[str, str, str]
    start_year: int = 0
    pace: float = 0.0

    def progress(self, year: int) -> float:
        """Return the share of the change completed by a year, 0..1.

        Examples
        --------
        >>> covers = ("pasture", "young forest", "mature forest")
        >>> patch = Patch(polygon=shapely.box(0, 0, 1, 1), covers=covers, start_year=2020, pace=0.2)
        >>> [round(patch.progress(year), 2) for year in (2019, 2020, 2022, 2030)]
        [0.0, 0.1, 0.5, 1.0]
        """
        return min(max((year - self.start_year + 0.5) * self.pace, 0.0), 1.0)


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """Endless synthetic land around one point; embeddings and land cover for any window of any CRS and year.

    Parameters
    ----------
    lon, lat : float
        Origin of the local frame, degrees (EPSG:4326).
    seed : int
        Another seed is other land.
    patches : tuple of Patch
        Polygons with a history of their own; a later one lies over an earlier one.
    masked : tuple of shapely polygons
        Areas without data (reservoirs), in metres of the local frame.

    Examples
    --------
    >>> land = Landscape(lon=-48.0, lat=-22.35, seed=1)
    >>> codes = land.codes("EPSG:32722", Window(row=-752600, col=80900, height=2, width=3), 2020)
    >>> codes.shape, str(codes.dtype)
    ((64, 2, 3), 'int8')
    """

    lon: float
    lat: float
    seed: int = 0
    patches: tuple[Patch, ...] = ()
    masked: tuple[shapely.Geometry, ...] = ()

    @cached_property
    def frame(self) -> pyproj.CRS:
        """The local frame: transverse Mercator around the origin, metres."""
        return pyproj.CRS.from_proj4(f"+proj=tmerc +lat_0={self.lat} +lon_0={self.lon} +datum=WGS84 +units=m")

    def to_frame(self, crs: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Any, Any]:
        """Take coordinates of a CRS to metres of the local frame."""
        return _transformer(crs, self.frame.srs).transform(x, y)

    def from_frame(self, crs: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Any, Any]:
        """Take metres of the local frame to coordinates of a CRS."""
        return _transformer(self.frame.srs, crs).transform(x, y)

    def codes(self, crs: str, window: Window, year: int) -> NDArray[np.int8]:
        """Return the codes of a window, north-up.

        Parameters
        ----------
        crs : str
            A projected CRS in metres; the lattice is that of 10 m pixels with edges at multiples of 10 m.
        window : Window
            Rows (southwards) and columns of that lattice.
        year : int
            Any year.

        Returns
        -------
        int8 array, shape (64, height, width); -128 in all bands where masked.
        """
        codes, _ = self._evaluate(crs, window, year, want_codes=True)
        return codes

    def labels(self, crs: str, window: Window, year: int) -> NDArray[np.uint8]:
        """Return the prevailing land cover of a window, north-up.

        Returns
        -------
        uint8 array, shape (height, width): position in `LAND_COVER`, `UNLABELLED` (255) where masked.
        """
        _, labels = self._evaluate(crs, window, year, want_codes=False)
        return labels

    def _evaluate(
        self, crs: str, window: Window, year: int, *, want_codes: bool
    ) -> tuple[NDArray[np.int8], NDArray[np.uint8]]:
        height, width = window.height, window.width
        node_x, node_y = self._nodes(crs, window)
        codes = np.full((N_BANDS if want_codes else 0, height, width), NODATA, np.int8)
        labels = np.full((height, width), UNLABELLED, np.uint8)
        edges, starts, boxes = _edges(tuple(patch.polygon for patch in self.patches))
        mask_edges, mask_starts, mask_boxes = _edges(self.masked)
        paths = np.array([[LAND_COVER.index(c) for c in p.covers] for p in self.patches], np.int64).reshape(-1, 3)
        progress = np.array([p.progress(year) for p in self.patches], np.float64)
        keys = np.array([_key(self.seed, purpose) for purpose in range(N_PURPOSES)], np.uint32)
        layers = range(N_LATENT // 4)
        texture_keys = np.array(
            [[_key(self.seed, _TEXTURE + 10 * wave + i) for i in layers] for wave in range(2)], np.uint32
        )
        yearly_keys = np.array([_key(self.seed, _YEARLY + i, year) for i in layers], np.uint32)
        basis, cover_latent, sizes = _constants(self.seed)
        fill(
            codes, labels, node_x, node_y, window.row, window.col,
            edges, starts, boxes, paths, progress, mask_edges, mask_starts, mask_boxes,
            keys, np.uint32(_key(self.seed, _PARCEL_YEAR, year)), texture_keys, yearly_keys,
            np.uint32(_key(self.seed, _NOISE, year, crs)), basis, cover_latent, sizes, _base(self.seed, year),
        )  # fmt: skip
        return codes, labels

    def _nodes(self, crs: str, window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Frame positions on nodes of the lattice that don't depend on the window."""
        rows = np.arange(window.row // NODE_PX, (window.row_stop - 1) // NODE_PX + 2) * NODE_PX
        cols = np.arange(window.col // NODE_PX, (window.col_stop - 1) // NODE_PX + 2) * NODE_PX
        lattice_x, lattice_y = np.meshgrid(cols * PIXEL_M, rows * -PIXEL_M)
        x, y = self.to_frame(crs, lattice_x, lattice_y)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise UsageError(f"{window} of {crs} is too far from the synthetic landscape at {self.lon}, {self.lat}")
        return np.ascontiguousarray(x), np.ascontiguousarray(y)


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def _digest(count: int, *key: object) -> NDArray[np.float64]:
    """Return `count` numbers in 0..1 that depend on the key alone."""
    shake = hashlib.shake_128(repr(key).encode()).digest(4 * count)
    return np.frombuffer(shake, "<u4").astype(np.float64) / 2**32


def _normals(shape: tuple[int, ...], *key: object) -> NDArray[np.float64]:
    """Nearly normal numbers: sums of 12 uniform ones, since normal generators differ between library versions."""
    uniform = _digest(12 * int(np.prod(shape)), *key).reshape(*shape, 12)
    total = uniform[..., 0].copy()
    for i in range(1, 12):
        total += uniform[..., i]
    return total - 6.0


def _key(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "little")


@lru_cache(maxsize=8)
def _basis(seed: int) -> NDArray[np.float64]:
    """Orthonormal rows: the mean direction, then the latent ones. Rounded, so that it is the same on any machine."""
    rows = _normals((N_LATENT + 1, N_BANDS), seed, _BASIS)
    for i, row in enumerate(rows):
        for earlier in rows[:i]:
            row -= (row * earlier).sum() * earlier
        row /= np.sqrt((row * row).sum())
    return np.round(rows * 2**20) / 2**20


@lru_cache(maxsize=8)
def _constants(seed: int) -> tuple[NDArray[np.float32], ...]:
    """Return arrays of the kernel: basis, land covers in latent space, sizes per latent dimension."""
    falling = 1.0 / np.arange(1, N_LATENT + 1) ** 0.75
    sizes = np.sqrt(falling / falling.sum())
    cover = _normals((N_COVER, N_LATENT), seed, _COVER) * 0.06
    cover[:, : _COVER_LATENT.shape[1]] += _COVER_LATENT
    return tuple(np.ascontiguousarray(a, np.float32) for a in (_basis(seed)[1:].T, cover, sizes))


@lru_cache(maxsize=64)
def _base(seed: int, year: int) -> NDArray[np.float32]:
    """Mean direction plus the step that all land shares in a year."""
    basis = _basis(seed)
    drift = _normals((N_BANDS,), seed, _DRIFT, year)
    drift -= (drift * basis[0]).sum() * basis[0]
    drift *= _DRIFT_SIZE * (0.75 + 0.5 * _digest(1, seed, _SIZE, year)[0]) / np.sqrt((drift * drift).sum())
    base: NDArray[np.float64] = np.round((_MEAN_LENGTH * basis[0] + drift) * 2**20) / 2**20
    return base.astype(np.float32)


@lru_cache(maxsize=16)
def _edges(
    polygons: tuple[shapely.Geometry, ...],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Edges (x0, y0, x1, y1) of all rings, first edge of each polygon, and bounding boxes."""
    parts, starts = [np.empty((0, 4))], [0]
    for polygon in polygons:
        for part in shapely.get_parts(polygon):
            for ring in (part.exterior, *part.interiors):
                xy = shapely.get_coordinates(ring)
                parts.append(np.hstack([xy[:-1], xy[1:]]))
        starts.append(sum(len(p) for p in parts))
    boxes = np.array([polygon.bounds for polygon in polygons], np.float64).reshape(-1, 4)
    return np.ascontiguousarray(np.vstack(parts)), np.array(starts, np.int64), boxes
