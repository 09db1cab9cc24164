"""A mosaic made of the sample archive as the published one was made of the tiles: nearest pixels, overlaps averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
from mosaics import BANDS, STEP, Mosaic

from gee_polygons.reduction.plan import BlockRef
from gee_polygons.sources.cog import CogSource

WEST, NORTH, SHAPE = -48.055, -22.325, (512, 1024)  # a little more than the sample's tiles


def resampled_codes(index: Path, year: int):
    """Return (64, height, width) codes of the sample's ground on the mosaic's grid, and how many tiles held each."""
    lon = WEST + STEP * (np.arange(SHAPE[1]) + 0.5)
    lat = NORTH - STEP * (np.arange(SHAPE[0]) + 0.5)
    lon, lat = np.meshgrid(lon, lat)
    total, count = np.zeros((64, *SHAPE), np.int32), np.zeros(SHAPE, np.int32)
    source = CogSource(index)
    tiles, _ = source.open(source.index.near(np.array([[-180.0, -90.0, 180.0, 90.0]])))
    for tile in tiles:
        if tile.year != year:
            continue
        values = _values(source, tile)
        x, y = pyproj.Transformer.from_crs(4326, tile.grid.crs, always_xy=True).transform(lon, lat)
        west, _, _, north = tile.grid.bounds
        col, row = np.floor((x - west) / 10).astype(int), np.floor((north - y) / 10).astype(int)
        inside = (col >= 0) & (row >= 0) & (col < tile.grid.shape[1]) & (row < tile.grid.shape[0])
        codes = np.full((64, *SHAPE), -128, np.int32)
        codes[:, inside] = values[:, row[inside], col[inside]]
        valid = codes[0] != -128
        total[:, valid] += codes[:, valid]
        count += valid
    means = np.rint(total / np.maximum(count, 1)).astype(np.int8)
    means[:, count == 0] = -128
    return means, count


def _values(source, tile):
    """Return all of a tile's codes, north-up."""
    (height, width), (down, across) = tile.grid.shape, tile.block_shape
    values = np.full((64, height, width), -128, np.int8)
    refs = [BlockRef.at(tile, row, col) for row in range(-(-height // down)) for col in range(-(-width // across))]
    for block in source.read(refs, BANDS):
        row, col = block.ref.index
        for part in range(block.n_parts):
            for plane, band in zip(block.decode(part), block.part_bands(part), strict=True):
                here = values[band, row * down : (row + 1) * down, col * across : (col + 1) * across]
                here[:] = plane[: down * across].reshape(down, across)[: here.shape[0], : here.shape[1]]
    return values[:, ::-1] if tile.grid.flip_y else values


def write(folder: Path, index: Path, years=(2023, 2024), **how) -> Mosaic:
    """Write the mosaic in the published layout, with smaller chunks."""
    codes = np.stack([resampled_codes(index, year)[0] for year in years])
    how = {"chunk": (1, 64, 64, 64), "shard": (1, 64, 256, 256), **how}
    mosaic = Mosaic(codes=codes, years=tuple(years), west=WEST, north=NORTH, **how)
    mosaic.write(folder)
    return mosaic
