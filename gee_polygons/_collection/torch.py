"""Chips of a collection for training: a torch Dataset whose samples look as TorchGeo's do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import DependencyError, UsageError
from gee_polygons.sources._pixels import Region, read_regions
from gee_polygons.zonal.grid import Window

if TYPE_CHECKING:
    from gee_polygons.collection import Collection

__all__ = ["chips_of"]


def chips_of(collection: Collection, bands: Sequence[str], years: Sequence[int], chip_size: int) -> Any:
    """See `Collection.to_torchgeo_dataset`."""
    try:
        import torch
        from torch.utils.data import Dataset
    except ImportError as error:
        raise DependencyError("torch is missing: pip install 'gee_polygons[torch]'") from error
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

    class Chips(Dataset):  # type: ignore[misc, type-arg, unused-ignore]
        """Whole chips of each tile, in the order of years and files."""

        def __len__(self) -> int:
            return len(chips)

        def __getitem__(self, number: int) -> dict[str, Any]:
            tile, window = chips[number]
            patch = read_regions(source, [Region(tile.grid.lattice, window, (tile,))], [tile.year], bands)[0]
            values = patch.values[0]
            image = np.nan_to_num(codes_to_vectors(values)) if collection.dataset.embeddings else values
            return {
                "image": torch.from_numpy(image.astype(np.float32)),
                "valid": torch.from_numpy(patch.valid[0].all(axis=0)),
                "crs": patch.grid.crs,
                "bounds": patch.grid.bounds,
                "year": tile.year,
            }

    return Chips()
