"""Small rasters for tests: AEF-style tiles whose codes say where they are, and catalogues of other collections."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine

STEP = 10.0


def write_raster(
    path: Path,
    values: np.ndarray,
    west: float,
    north: float,
    epsg: int,
    *,
    step: float = STEP,
    nodata: float | None = None,
    south_up: bool = False,
    block: int | None = None,
) -> Path:
    """Write an array of (bands, rows, columns) given north-up; `south_up` turns the rows around in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(values)
    bands, height, width = values.shape
    transform = Affine(step, 0, west, 0, -step, north)
    if south_up:
        values = values[:, ::-1]
        transform = Affine(step, 0, west, 0, step, north - step * height)
    tiling = {"tiled": True, "blockxsize": block, "blockysize": block} if block else {}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=bands,
        dtype=values.dtype.name,
        crs=f"EPSG:{epsg}",
        transform=transform,
        nodata=nodata,
        compress="zstd",
        interleave="band",
        **tiling,
    ) as target:
        target.write(values)
    return path


def position_codes(west: float, north: float, height: int, width: int, year: int, bands: int = 64) -> np.ndarray:
    """Return int8 codes that encode pixel, band and year: a flip, a shift or a wrong year shows as a number."""
    column = np.arange(round(west / STEP), round(west / STEP) + width)
    row = np.arange(round(-north / STEP), round(-north / STEP) + height)
    band = np.arange(bands)
    mixed = 3 * column[None, None, :] + 5 * row[None, :, None] + 7 * band[:, None, None] + 11 * year
    return (mixed % 251 - 125).astype(np.int8)


def write_aef_tile(
    folder: Path,
    year: int,
    epsg: int,
    west: float,
    north: float,
    codes: np.ndarray | tuple[int, int],
    *,
    name: str = "tile",
    south_up: bool = True,
    block: int | None = None,
) -> Path:
    """Write a tile where the archive looks for it: `<folder>/<year>/<zone>/<name>.tiff`.

    `codes` is an array of (64, rows, columns), or a (height, width) to be filled with `position_codes`.
    """
    if isinstance(codes, tuple):
        codes = position_codes(west, north, *codes, year)
    zone = f"{epsg % 100}{'N' if epsg // 100 == 326 else 'S'}"
    path = folder / str(year) / zone / f"{name}.tiff"
    return write_raster(path, codes, west, north, epsg, nodata=-128, south_up=south_up, block=block)


def standard_tiles(folder: Path, years: Sequence[int] = (2019, 2020, 2021), size: int = 96) -> Path:
    """Write an archive: two abutting tiles in 22S (one south-up), one in 23S near the zones' border; codes of position.

    The tiles of 22S lie at x 700000..701920, y 7500000..7500960; in 2021 the eastern one is missing.
    """
    for year in years:
        write_aef_tile(folder, year, 32722, 700_000, 7_500_960, (size, size), name="west", south_up=True, block=32)
        if year != 2021:
            write_aef_tile(folder, year, 32722, 700_960, 7_500_960, (size, size), name="east", south_up=False)
        write_aef_tile(folder, year, 32723, 300_000, 7_500_960, (size, size), name="other", south_up=True)
    return folder


class Catalogue:
    """A folder of rasters and the `catalogue.json` that describes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, Any] = {}
        self._count = 0

    def add(
        self,
        asset: str,
        bands: Mapping[str, np.ndarray],
        *,
        west: float,
        north: float,
        epsg: int,
        step: float = STEP,
        index: str | None = None,
        start: str | None = None,
        nodata: float | None = None,
        **properties: Any,
    ) -> None:
        """Add an image. With an index it belongs to the collection `asset`, without one it is the asset itself.

        Bands of another shape than the first lie on coarser pixels over the same ground.
        """
        first = next(iter(bands.values()))
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name, values in bands.items():
            groups.setdefault((values.shape, values.dtype.name), []).append(name)
        files = []
        for (shape, _), names in groups.items():
            self._count += 1
            file = f"{self._count:05d}.tif"
            coarser = first.shape[1] / shape[1]
            write_raster(
                self.folder / file, np.stack([bands[n] for n in names]), west, north, epsg, step=step * coarser
            )
            files.append({"file": file, "bands": names})
        image: dict[str, Any] = {"files": files, "properties": properties}
        if nodata is not None:
            image["nodata"] = nodata
        if start is not None:
            image["start"] = start
        if index is None:
            self.entries[asset] = {"image": image}
        else:
            image["index"] = index
            self.entries.setdefault(asset, {"images": []})["images"].append(image)

    def save(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "catalogue.json").write_text(json.dumps(self.entries, indent=1))
        return self.folder
