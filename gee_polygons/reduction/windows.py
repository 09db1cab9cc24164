"""Reads the pixels of a small region: finds its blocks, and puts their pixels into one north-up array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray

from gee_polygons.alphaearth import NODATA
from gee_polygons.errors import UsageError
from gee_polygons.reduction.overlaps import fill_missing
from gee_polygons.reduction.plan import Block, BlockedRaster, BlockRef
from gee_polygons.reduction.planning import blocks_in
from gee_polygons.zonal.grid import Grid, Lattice, Window
from gee_polygons.zonal.kernels import PADDING
from gee_polygons.zonal.planes import planes
from gee_polygons.zonal.projection import project_to_lattice, transformer

_MOST_PIXELS: Final = 4096 * 4096  # 64 bands of it are 1 GB; pictures need far fewer
_MARGIN_DEG: Final = 0.1


class DecodedBlock:
    """A block whose pixels are in memory, all bands in one part.

    Parameters
    ----------
    ref : BlockRef
        The block.
    pixels : array, shape (bands, height, width)
        In stored order; a block that reaches past its raster may lack the last rows and columns.
    """

    checks_norms = False  # they weren't decoded here, or may be any vectors
    n_parts = 1

    def __init__(self, ref: BlockRef, pixels: NDArray[Any]) -> None:
        height, width = ref.window.height, ref.window.width
        self.ref = ref
        self._planes = np.zeros((len(pixels), height * width + PADDING), pixels.dtype)
        inner = self._planes[:, : height * width].reshape(len(pixels), height, width)
        inner[:, : pixels.shape[1], : pixels.shape[2]] = pixels

    def part_bands(self, part: int) -> Sequence[int]:
        """Return the positions of the bands."""
        return range(len(self._planes))

    def decode(self, part: int, scratch: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the planes, shape (bands, pixels + PADDING)."""
        return self._planes


def lattice_window(region: Any, lattice: Lattice) -> Window:
    """Return the window of whole pixels that a region (EPSG:4326) touches."""
    west, north, east, south = project_to_lattice(np.array([region], object), lattice).bounds()[0]
    # slightly smaller, so that a region along pixel edges doesn't take the next pixels too
    row, col = int(np.floor(north + 1e-6)), int(np.floor(west + 1e-6))
    height, width = max(1, int(np.ceil(south - 1e-6)) - row), max(1, int(np.ceil(east - 1e-6)) - col)
    if height * width > _MOST_PIXELS:
        raise UsageError(
            f"the region is {height} x {width} pixels, an image holds at most {_MOST_PIXELS}; choose a smaller region"
        )
    return Window(row, col, height, width)


def refs_in(tile: BlockedRaster, window: Window) -> Iterator[BlockRef]:
    """Yield the blocks of a tile that share pixels with a window, limited to the rows that it needs."""
    for ref in blocks_in(tile, window):
        if (shared := ref.inside.intersection(window)) is not None:
            yield ref.limited_to(shared.row, shared.row_stop)


def near_grid(polygons: NDArray[Any], grid: Grid) -> NDArray[np.bool_]:
    """Whether each polygon (EPSG:4326) may touch a grid; one far away may have no coordinates in its CRS at all."""
    west, south, east, north = transformer("EPSG:4326", grid.crs).transform_bounds(*grid.bounds, direction="INVERSE")
    if not np.isfinite([west, south, east, north]).all():
        return np.ones(len(polygons), np.bool_)
    east += 360.0 if east < west else 0.0  # across the antimeridian
    place = shapely.box(west - _MARGIN_DEG, south - _MARGIN_DEG, east + _MARGIN_DEG, north + _MARGIN_DEG)
    boxes = shapely.box(*shapely.bounds(polygons).T)
    near = np.zeros(len(polygons), np.bool_)
    for turn in (-360.0, 0.0, 360.0):
        near |= shapely.intersects(boxes, shapely.affinity.translate(place, turn))
    return near


def paste(values: NDArray[Any], window: Window, block: Block) -> None:
    """Copy a block's pixels into a north-up array of a window, where that has no data yet.

    Parameters
    ----------
    values : array, shape (bands, height, width)
        Nodata (-128 or NaN) where nothing was pasted.
    window : Window
        Where `values` lies on the lattice.
    block : Block
        Any block of the same lattice.
    """
    ref = block.ref
    common = ref.inside.intersection(window)
    if common is None:
        return
    target, origin = common.slices_in(window), common.slices_in(ref.window)
    nodata = NODATA if values.dtype == np.int8 else np.nan
    for band, plane in planes(block):
        fill_missing(values[band][target], north_up(plane, ref)[origin], nodata)


def north_up(plane: NDArray[Any], ref: BlockRef) -> NDArray[Any]:
    """Return a view of one decoded band of a block, shape (height, width), with north at the top."""
    height, width = ref.window.height, ref.window.width
    pixels = plane[: height * width].reshape(height, width)
    return pixels[:: -1 if ref.flip_y else 1, :: -1 if ref.flip_x else 1]
