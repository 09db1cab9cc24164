"""Cuts a collection into chips for training: a dataset for torch's DataLoader, with samples as TorchGeo's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import UsageError, optional_import
from gee_polygons.sources.cog.patches import Region, read_regions
from gee_polygons.sources.cog.source import CogSource
from gee_polygons.sources.cog.tile import Tile
from gee_polygons.zonal.grid import Window

if TYPE_CHECKING:
    from gee_polygons.collection import Collection


def chips_of(collection: Collection, bands: Sequence[str], years: Sequence[int], chip_size: int) -> Chips:
    """See `Collection.to_torchgeo_dataset`."""
    optional_import("torch", "torch is missing: pip install 'gee_polygons[torch]'")  # an error now, not in a worker
    if chip_size < 1:
        raise UsageError(f"chip_size is 1 or more pixels, found {chip_size}")
    source = collection.as_source()
    tiles, broken = source.open(source.index.whole())
    for failure in broken.values():
        raise failure
    chips = []
    for tile in sorted((t for t in tiles if t.year in years), key=lambda t: (t.year, t.place)):
        whole = tile.grid.window
        for row in range(whole.row, whole.row_stop - chip_size + 1, chip_size):
            for col in range(whole.col, whole.col_stop - chip_size + 1, chip_size):
                chips.append((tile, Window(row, col, chip_size, chip_size)))
    return Chips(source, tuple(bands), chips, vectors=collection.dataset.embeddings)


class Chips:
    """Whole chips of each tile, in the order of years and files: a map-style dataset, picklable for workers.

    Parameters
    ----------
    source : CogSource
        The archive to read.
    bands : tuple of str
        Bands of an image.
    chips : sequence of (Tile, Window)
        The tile and the lattice window of each chip.
    vectors : bool
        Whether images are float vectors (0 without data) rather than pixels as stored.
    """

    def __init__(
        self, source: CogSource, bands: tuple[str, ...], chips: Sequence[tuple[Tile, Window]], *, vectors: bool
    ) -> None:
        self._source, self._bands, self._chips, self._vectors = source, bands, chips, vectors

    def __len__(self) -> int:
        return len(self._chips)

    def __getitem__(self, number: int) -> dict[str, Any]:
        import torch

        tile, window = self._chips[number]  # IndexError past the end, as sequences have it
        patch = read_regions(self._source, [Region(tile.grid.lattice, window, (tile,))], [tile.year], self._bands)[0]
        values = patch.values[0]
        image = np.nan_to_num(codes_to_vectors(values)) if self._vectors else values
        return {
            "image": torch.from_numpy(image.astype(np.float32)),
            "valid": torch.from_numpy(patch.valid[0].all(axis=0)),
            "crs": patch.grid.crs,
            "bounds": torch.tensor(patch.grid.bounds, dtype=torch.float64),
            "year": tile.year,
        }
