"""Pixels over the wire: computePixels, thumbnails, downloads and map tiles."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import rasterio
from PIL import Image as Pillow
from rasterio.transform import Affine

from .errors import ServiceError, UnimplementedError
from .faults import BAND_LIMIT, GRID_LIMIT, PIXELS_LIMIT
from .functions.drawing import visualize
from .image import Context, Image
from .projection import Grid, canonical

PICTURES = {"PNG": "image/png", "JPEG": "image/jpeg", "AUTO_JPEG_PNG": "image/png"}
TYPES = {**PICTURES, "NPY": "application/octet-stream", "GEO_TIFF": "image/tiff"}
MERCATOR_HALF = math.pi * 6_378_137.0


def requested_grid(request: dict[str, Any], image: Image) -> Grid:
    """Read the PixelGrid of a request; what it leaves out comes from the image."""
    grid = request.get("grid") or {}
    first = image.bands[0].projection
    crs = (
        canonical(grid["crsCode"]) if grid.get("crsCode") else canonical(grid["crsWkt"]) if grid.get("crsWkt") else None
    )
    if "affineTransform" not in grid or "dimensions" not in grid:
        if grid:
            raise UnimplementedError("computePixels with a grid of less than dimensions and affineTransform")
        return view_of_image(image)
    t = grid["affineTransform"]
    if t.get("shearX") or t.get("shearY"):
        raise UnimplementedError("computePixels on a sheared grid")
    step_x, step_y = float(t.get("scaleX", 1)), float(t.get("scaleY", 1))
    width, height = int(grid["dimensions"]["width"]), int(grid["dimensions"]["height"])
    if step_x <= 0 or step_y >= 0:
        raise UnimplementedError("computePixels on a grid that is not north-up")
    if max(width, height) > GRID_LIMIT:
        raise ServiceError(f"Pixel grid dimensions ({width}x{height}) must be less than or equal to {GRID_LIMIT}.")
    west, north = float(t.get("translateX", 0)), float(t.get("translateY", 0))
    return Grid(crs or first.crs, west, north, step_x, -step_y, width, height)


def view_of_image(image: Image) -> Grid:
    """Return the pixels that an image is drawn with when nothing is asked for."""
    if image.view is not None:
        return image.view
    if image.footprint is None or image.footprint.unbounded:
        raise ServiceError("Image.getPixels: Unable to compute pixels of an unbounded image; give a region.")
    projection = image.bands[0].projection
    return Grid.around(projection, image.footprint.project(projection.crs).bounds)


def encode_image(image: Image, grid: Grid, kind: str, ctx: Context, band_ids: Sequence[str] = ()) -> tuple[bytes, str]:
    """Compute an image on a grid and write it in a format; return the bytes and their content type."""
    if band_ids:
        image = image.select(list(band_ids))
    if not image.bands:
        raise ServiceError("Image.getPixels: Image has no bands.")
    if kind not in TYPES:
        raise UnimplementedError(f"the file format {kind}")
    check_size(image, grid)
    ctx.rendering = kind in PICTURES
    ctx.charge(grid.width * grid.height, len(image.bands))
    if kind in PICTURES:
        return picture(image, grid, kind, ctx)
    planes = masked_planes(image, grid, ctx)
    if kind == "NPY":
        return _npy(image, planes), TYPES[kind]
    return geotiff(image, grid, planes), TYPES[kind]


def check_size(image: Image, grid: Grid) -> None:
    """Hold the documented limits: 48 MiB uncompressed, 32K pixels along a side, 1,024 bands."""
    size = grid.width * grid.height * sum(b.dtype.itemsize for b in image.bands)
    if size > PIXELS_LIMIT:
        raise ServiceError(f"Total request size ({size} bytes) must be less than or equal to {PIXELS_LIMIT} bytes.")
    if len(image.bands) > BAND_LIMIT:
        raise ServiceError(f"Number of bands ({len(image.bands)}) must be less than or equal to {BAND_LIMIT}.")


def masked_planes(image: Image, grid: Grid, ctx: Context) -> list[np.ndarray]:
    """Return one plane per band, in the band's type. Documented: masked or missing data are zeros."""
    pixels = image.read(grid, ctx)
    values = np.where(pixels.valid, pixels.values, 0)
    return [plane.astype(band.dtype) for plane, band in zip(values, image.bands, strict=True)]


def _npy(image: Image, planes: Sequence[np.ndarray]) -> bytes:
    found = np.zeros(planes[0].shape, [(b.name, b.dtype) for b in image.bands])
    for band, plane in zip(image.bands, planes, strict=True):
        found[band.name] = plane
    file = io.BytesIO()
    np.save(file, found)
    return file.getvalue()


def geotiff(image: Image, grid: Grid, planes: Sequence[np.ndarray]) -> bytes:
    """Write a GeoTIFF whose bands are named."""
    dtype = np.result_type(*(b.dtype for b in image.bands))
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=grid.width,
            height=grid.height,
            count=len(planes),
            dtype=dtype.name,
            crs=grid.crs,
            transform=Affine(*grid.transform),
            compress="deflate",
        ) as target:
            target.write(np.stack(planes).astype(dtype))
            for number, band in enumerate(image.bands, 1):
                target.set_band_description(number, band.name)
        return bytes(memory.read())


def with_visualization(image: Image, options: dict[str, Any] | None, band_ids: Sequence[str]) -> Image:
    """Apply the VisualizationOptions of a request."""
    if not options:
        return image.select(list(band_ids)) if band_ids else image
    ranges = options.get("ranges") or []
    low = [r.get("min", 0) for r in ranges] or None
    high = [r.get("max", 1) for r in ranges] or None
    gamma = (options.get("gamma") or {}).get("value")
    opacity = (options.get("opacity") or {}).get("value")
    palette = options.get("paletteColors") or None
    return visualize(image, list(band_ids) or None, None, None, low, high, gamma, opacity, palette, False)


def picture(image: Image, grid: Grid, kind: str, ctx: Context) -> tuple[bytes, str]:
    """Draw one or three byte bands; masked pixels are transparent in PNG and black in JPEG."""
    ctx.rendering = True
    if len(image.bands) not in (1, 3) or any(b.kind != "uint8" for b in image.bands):
        image = visualize(image, None, None, None, None, None, None, None, None, False)
    pixels = image.read(grid, ctx)
    alpha = np.clip(np.rint(pixels.mask.astype(np.float64).min(axis=0) * 255), 0, 255).astype(np.uint8)
    rgb = np.where(alpha[None] > 0, pixels.values, 0).astype(np.uint8)
    rgb = np.repeat(rgb, 3, axis=0) if len(rgb) == 1 else rgb
    opaque = bool((alpha == 255).all())
    if kind == "AUTO_JPEG_PNG":
        kind = "JPEG" if opaque else "PNG"
    planes = [*rgb, alpha] if kind == "PNG" and not opaque else list(rgb)
    file = io.BytesIO()
    Pillow.fromarray(np.stack(planes, axis=-1)).save(file, format=kind)
    return file.getvalue(), PICTURES[kind]


def tile_grid(zoom: int, column: int, row: int) -> Grid:
    """Return the 256 x 256 pixels of a web map tile."""
    side = 2 * MERCATOR_HALF / 2**zoom
    return Grid(
        "EPSG:3857", -MERCATOR_HALF + column * side, MERCATOR_HALF - row * side, side / 256, side / 256, 256, 256
    )
