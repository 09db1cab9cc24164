"""The catalogue: folders of AEF-style tiles, and collections of small rasters described by `catalogue.json`.

AEF tiles are int8 GeoTIFFs of 64 bands in UTM, anywhere below a folder named after their year. They are presented as
Earth Engine presents them: float32 bands A00..A63, de-quantised, -128 masked, properties as in the real collection.

`catalogue.json` lists other assets:

    {"COLLECTION/ID": {"images": [{"index": "a", "start": "2019-03-01", "properties": {}, "nodata": 255,
                                   "files": [{"file": "a.tif", "bands": ["label"]}]}]},
     "IMAGE/ID": {"image": {"files": [...]}}}
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely

from .errors import ServiceError
from .geometry import Geometry
from .image import Band, Context, Image, Pixels, check_scale
from .projection import Grid, Projection, canonical, transformer
from .values import Date

AEF_ID = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
AEF_BANDS = tuple(f"A{i:02d}" for i in range(64))
AEF_NODATA = -128
_CODES = np.arange(-128, 128, dtype=np.float64)
# v = sign(k) (k / 127.5)^2, as float32: what Earth Engine serves
AEF_VALUES = (np.sign(_CODES) * (_CODES / 127.5) ** 2).astype(np.float32)

_WHOLE_FILE_BYTES = 128_000_000
_CACHE_BYTES = 768_000_000


class _Decoded:
    """Decoded files, the least recently used given up first. Files too big for it are read window by window."""

    def __init__(self) -> None:
        self._arrays: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def window(self, raster: Raster, bands: Sequence[int], rows: slice, columns: slice) -> np.ndarray:
        whole = self._whole(raster)
        if whole is not None:
            return whole[list(bands), rows, columns]
        if raster.south_up:
            rows = slice(raster.height - rows.stop, raster.height - rows.start)
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        with rasterio.open(raster.path) as source:
            found = source.read([b + 1 for b in bands], window=window)
        return found[:, ::-1] if raster.south_up else found

    def _whole(self, raster: Raster) -> np.ndarray | None:
        if raster.nbytes > _WHOLE_FILE_BYTES:
            return None
        with self._lock:
            if raster.path in self._arrays:
                self._arrays.move_to_end(raster.path)
                return self._arrays[raster.path]
            with rasterio.open(raster.path) as source:
                array = source.read()
            self._arrays[raster.path] = array[:, ::-1] if raster.south_up else array
            while sum(a.nbytes for a in self._arrays.values()) > _CACHE_BYTES and len(self._arrays) > 1:
                self._arrays.popitem(last=False)
            return self._arrays[raster.path]


_DECODED = _Decoded()


@dataclass(frozen=True)
class Raster:
    """A GeoTIFF, seen north-up whatever its row order."""

    path: Path
    crs: str
    west: float
    north: float
    step_x: float
    step_y: float
    width: int
    height: int
    south_up: bool
    dtype: str
    nbytes: int
    nodata: float | None

    @staticmethod
    def open(path: Path, nodata: float | None = None) -> Raster:
        with rasterio.open(path) as source:
            t = source.transform
            if t.b or t.d or t.a <= 0:
                raise ServiceError(f"the local archive can't use {path.name}: a rotated or mirrored grid")
            south_up = t.e > 0
            north = t.f + t.e * source.height if south_up else t.f
            code = source.crs.to_epsg()
            return Raster(
                path,
                canonical(f"EPSG:{code}" if code else source.crs.to_wkt()),
                t.c,
                north,
                t.a,
                abs(t.e),
                source.width,
                source.height,
                south_up,
                source.dtypes[0],
                source.count * source.width * source.height * np.dtype(source.dtypes[0]).itemsize,
                source.nodata if nodata is None else nodata,
            )

    @cached_property
    def projection(self) -> Projection:
        return Projection(self.crs, (self.step_x, 0.0, self.west, 0.0, -self.step_y, self.north))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        return (
            self.west,
            self.north - self.height * self.step_y,
            self.west + self.width * self.step_x,
            self.north,
        )

    @cached_property
    def footprint(self) -> Geometry:
        edge = shapely.segmentize(shapely.box(*self.bounds), max(self.width * self.step_x, 1e-9) / 16)
        return Geometry(Geometry(edge, self.crs, False).lonlat, "EPSG:4326", False)

    def overlaps(self, grid: Grid) -> bool:
        bounds = grid.bounds
        if grid.crs != self.crs:
            bounds = transformer(grid.crs, self.crs).transform_bounds(*bounds)
        west, south, east, north = self.bounds
        return bounds[0] < east and bounds[2] > west and bounds[1] < north and bounds[3] > south

    def sample(self, grid: Grid, bands: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest pixel's raw values at the grid's centres, and whether there is one."""
        if grid.crs == self.crs:
            columns = np.floor((grid.columns_x() - self.west) / self.step_x).astype(np.int64)
            rows = np.floor((self.north - grid.rows_y()) / self.step_y).astype(np.int64)
            rows, columns = rows[:, None], columns[None, :]
        else:
            x, y = grid.centres(self.crs)
            columns = np.floor((x - self.west) / self.step_x)
            rows = np.floor((self.north - y) / self.step_y)
            lost = ~(np.isfinite(columns) & np.isfinite(rows))  # beyond the projection's horizon
            columns, rows = (np.where(lost, -1, v).astype(np.int64) for v in (columns, rows))
        here = (columns >= 0) & (columns < self.width) & (rows >= 0) & (rows < self.height)
        if not here.any():
            return np.zeros((len(bands), 1, 1), self.dtype), here
        found_rows, found_columns = np.broadcast_arrays(rows, columns)
        top, bottom = found_rows[here].min(), found_rows[here].max() + 1
        left, right = found_columns[here].min(), found_columns[here].max() + 1
        block = _DECODED.window(self, bands, slice(top, bottom), slice(left, right))
        r, c = np.clip(rows, top, bottom - 1) - top, np.clip(columns, left, right - 1) - left
        return block[:, r, c], here

    def inside(self, grid: Grid) -> np.ndarray:
        x, y = grid.centres(self.crs)
        west, south, east, north = self.bounds
        return (x >= west) & (x < east) & (y > south) & (y <= north)


_KINDS = {"float32": "float", "float64": "double"}


def raster_image(
    files: Sequence[tuple[Raster, Sequence[str]]], properties: dict[str, Any], asset: str | None, *, aef: bool = False
) -> Image:
    """Make an image of one or several rasters (bands of unlike resolution lie in unlike files)."""
    bands: list[Band] = []
    owners: list[tuple[Raster, int]] = []
    for raster, names in files:
        for position, name in enumerate(names):
            kind = "float" if aef else _KINDS.get(raster.dtype, raster.dtype)
            bands.append(Band(name, kind, raster.projection))
            owners.append((raster, position))
    first = files[0][0]

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        parts = []
        start = 0
        while start < len(which):
            raster = owners[which[start]][0]
            stop = start
            while stop < len(which) and owners[which[stop]][0] is raster:
                stop += 1
            parts.append(_read(raster, grid, [owners[w][1] for w in which[start:stop]], ctx, aef))
            start = stop
        if len(parts) == 1:
            return parts[0]
        return Pixels(np.concatenate([p.values for p in parts]), np.concatenate([p.mask for p in parts]))

    return Image(
        tuple(bands),
        compute,
        properties,
        first.footprint,
        first.inside,
        lambda grid: any(raster.overlaps(grid) for raster, _ in files),
        id=asset,
    )


def _read(raster: Raster, grid: Grid, bands: Sequence[int], ctx: Context, aef: bool) -> Pixels:
    if not raster.overlaps(grid):
        return Pixels.nothing(len(bands), grid)
    check_scale(raster.projection, grid, ctx)
    values, here = raster.sample(grid, bands)
    shape = (len(bands), *grid.shape)
    here = np.broadcast_to(here, shape)
    values = np.broadcast_to(values, shape)
    if aef:
        return Pixels(AEF_VALUES[values.astype(np.int16) + 128], here & (values != AEF_NODATA))
    mask = here
    if raster.nodata is not None:
        mask = mask & (~np.isnan(values) if np.isnan(raster.nodata) else values != raster.nodata)
    return Pixels(values, mask)


class Archive:
    """Everything that can be loaded by id."""

    def __init__(self, tiles: Path | str | None = None, catalogue: Path | str | None = None) -> None:
        self.collections: dict[str, list[Image]] = {}
        self.images: dict[str, Image] = {}
        if tiles is not None:
            self.collections[AEF_ID] = aef_images(Path(tiles))
        if catalogue is not None:
            self._read_catalogue(Path(catalogue))

    def _read_catalogue(self, path: Path) -> None:
        path = path / "catalogue.json" if path.is_dir() else path
        for asset, entry in json.loads(path.read_text()).items():
            if "image" in entry:
                self.images[asset] = _listed_image(path.parent, asset, entry["image"])
            else:
                self.collections[asset] = [
                    _listed_image(path.parent, f"{asset}/{image['index']}", image) for image in entry["images"]
                ]

    def collection(self, asset: str) -> list[Image]:
        if asset not in self.collections:
            raise _missing("ImageCollection", asset, asset in self.images)
        return self.collections[asset]

    def image(self, asset: str) -> Image:
        if asset in self.images:
            return self.images[asset]
        parent, _, index = asset.rpartition("/")
        for image in self.collections.get(parent, []):
            if image.index == index:
                return image
        raise _missing("Image", asset, asset in self.collections)


def _missing(kind: str, asset: str, other: bool) -> ServiceError:
    if other:
        return ServiceError(f"{kind}.load: Asset '{asset}' is not an {kind}.")
    return ServiceError(
        f"{kind}.load: {kind} asset '{asset}' not found (does not exist or caller does not have access)."
    )


def _listed_image(folder: Path, asset: str, entry: dict[str, Any]) -> Image:
    properties = dict(entry.get("properties", {}))
    if "index" in entry:
        properties["system:index"] = entry["index"]
    for key, name in (("start", "system:time_start"), ("end", "system:time_end")):
        if key in entry:
            properties[name] = int(Date.parse(entry[key]).ms)
    files = [(Raster.open(folder / f["file"], entry.get("nodata")), tuple(f["bands"])) for f in entry["files"]]
    return raster_image(files, properties, asset)


def aef_images(folder: Path) -> list[Image]:
    """Find the tiles below a folder: the year is a folder's name, the zone and grid are the file's own."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of AEF tiles at {folder}")
    found: list[Image] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".tif", ".tiff")):
        years = [part for part in path.relative_to(folder).parts[:-1] if re.fullmatch(r"20\d\d", part)]
        if not years:
            continue
        year, raster = int(years[-1]), Raster.open(path)
        code = int(raster.crs.split(":")[1])
        zone = f"{code % 100}{'N' if code // 100 == 326 else 'S'}"
        index = re.sub(r"[^A-Za-z0-9_-]", "_", f"{path.stem}_{year}_{zone}")
        properties = {
            "system:index": index,
            "system:time_start": int(Date.parse(f"{year}-01-01").ms),
            "system:time_end": int(Date.parse(f"{year + 1}-01-01").ms),
            "UTM_ZONE": zone,
            "MODEL_VERSION": "1.0",
            "DATASET_VERSION": "1.0",
            "PROCESSING_SOFTWARE_VERSION": "1.0.0",
        }
        found.append(raster_image([(raster, AEF_BANDS)], properties, f"{AEF_ID}/{index}", aef=True))
    return found
