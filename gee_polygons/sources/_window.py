"""Pixels of a small region: from blocks to one north-up array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import NODATA
from gee_polygons.errors import UsageError
from gee_polygons.sources._planning import Blocked
from gee_polygons.sources.base import Block, BlockRef
from gee_polygons.zonal.grid import Lattice, Window
from gee_polygons.zonal.projection import project_to_lattice

__all__ = ["lattice_window", "paste", "refs_in"]

_MOST_PIXELS: Final = 4096 * 4096  # 64 bands of it are 1 GB; pictures need far fewer


def lattice_window(region: Any, lattice: Lattice) -> Window:
    """Return the window of whole pixels that a region (EPSG:4326) touches."""
    west, north, east, south = project_to_lattice(np.array([region], object), lattice).bounds()[0]
    # a hair inside, so that a region along pixel edges doesn't take the next pixels too
    row, col = int(np.floor(north + 1e-6)), int(np.floor(west + 1e-6))
    height, width = max(1, int(np.ceil(south - 1e-6)) - row), max(1, int(np.ceil(east - 1e-6)) - col)
    if height * width > _MOST_PIXELS:
        raise UsageError(
            f"the region is {height} x {width} pixels; an image holds at most {_MOST_PIXELS}. Ask for a smaller region"
        )
    return Window(row, col, height, width)


def refs_in(tile: Blocked, window: Window) -> Iterator[BlockRef]:
    """Yield the blocks of a tile that share pixels with a window."""
    rows, cols = (-(-size // block) for size, block in zip(tile.grid.shape, tile.block_shape, strict=True))
    for row in range(rows):
        for col in range(cols):
            ref = tile.ref(row, col)
            if (common := ref.inside.intersection(window)) is not None:
                yield ref.holding(common.row, common.row_stop)


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
    target = (_slice(common.row, common.height, window.row), _slice(common.col, common.width, window.col))
    origin = (_slice(common.row, common.height, ref.window.row), _slice(common.col, common.width, ref.window.col))
    for part in range(block.n_parts):
        planes = block.decode(part)
        for plane, band in zip(planes, block.part_bands(part), strict=True):
            pixels = plane[: ref.window.height * ref.window.width].reshape(ref.window.height, ref.window.width)
            pixels = pixels[:: -1 if ref.flip_y else 1, :: -1 if ref.flip_x else 1][origin]
            held = values[band][target]
            missing = held == NODATA if values.dtype == np.int8 else np.isnan(held)
            values[band][target] = np.where(missing, pixels, held)


def _slice(first: int, length: int, origin: int) -> slice:
    return slice(first - origin, first - origin + length)
