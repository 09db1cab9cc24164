"""Pictures: visualisation, painting, styles, clipping.

Numbers never come from here: a clip whose edge crosses pixels, and anything painted, is answered with HTTP 501 unless
the request is for a picture (thumbnails, map tiles, PNG), because the service's way with edge pixels is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from PIL import Image as Pillow
from PIL import ImageColor, ImageDraw

from ..coercion import to_geometry
from ..errors import ServiceError, UnimplementedError
from ..feature import Collection, geometry_of
from ..geometry import Geometry
from ..image import Band, Context, Image, Pixels, both
from ..projection import Grid
from ..region import region_of
from ..registry import ee_function
from ..values import is_number

MAX_SIDE = 32_768


# --- clipping ---------------------------------------------------------------------------------------------------------


def _clipped(image: Image, geometry: Geometry) -> Image:
    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        pixels = image.read(grid, ctx, which)
        shape = geometry.project(grid.crs)
        if not ctx.rendering and not shapely.box(*grid.bounds).within(shape):
            region = region_of(geometry, grid.projection)
            if ((region.coverage > 0) & (region.coverage < 1)).any():
                raise UnimplementedError("numbers of an image clipped across its pixels")
        x, y = np.meshgrid(grid.columns_x(), grid.rows_y())
        return Pixels(pixels.values, both(pixels.mask, shapely.contains_xy(shape, x, y)[None]))

    def inside(grid: Grid) -> np.ndarray:
        x, y = np.meshgrid(grid.columns_x(), grid.rows_y())
        found = shapely.contains_xy(geometry.project(grid.crs), x, y)
        return found if image.inside is None else found & image.inside(grid)

    return replace(image, compute=compute, footprint=geometry, inside=inside)


@ee_function("Image.clip")
def clip(input: Image, geometry: Any) -> Image:
    return _clipped(input, to_geometry(geometry))


@ee_function("Image.clipToCollection")
def clip_to_collection(input: Image, collection: Any) -> Image:
    return _clipped(input, to_geometry(collection))


@ee_function("Image.clipToBoundsAndScale")
def clip_to_bounds_and_scale(
    input: Image,
    geometry: Geometry | None,
    width: int | None,
    height: int | None,
    max_dimension: int | None,
    scale: float | None,
) -> Image:
    """Give an image the box and the pixel size that it is drawn with."""
    if not input.bands:
        raise ServiceError("Image.clipToBoundsAndScale: The image has no bands.")
    region = geometry if geometry is not None else input.footprint
    if region is None or region.unbounded:
        raise ServiceError("Image.clipToBoundsAndScale: The geometry for image clipping must not be unbounded.")
    projection = input.bands[0].projection
    view = view_of(region, projection.crs, width, height, max_dimension, scale and scale / projection.unit_m)
    bands = tuple(replace(b, projection=view.projection) for b in input.bands)
    return replace(input, bands=bands, view=view, footprint=region)


def view_of(
    region: Geometry,
    crs: str,
    width: int | None,
    height: int | None,
    max_dimension: int | None,
    step: float | None,
) -> Grid:
    """Return the pixels of a picture of a region: its box in a CRS, cut to the size asked for."""
    west, south, east, north = region.project(crs).bounds
    across, down = max(east - west, 1e-12), max(north - south, 1e-12)
    if width and height:
        return Grid(crs, west, north, across / width, down / height, int(width), int(height))
    if step is None:
        step = across / width if width else down / height if height else max(across, down) / (max_dimension or 512)
    columns, rows = max(round(across / step), 1), max(round(down / step), 1)
    if max(columns, rows) > MAX_SIDE:
        raise ServiceError(f"Pixel grid dimensions ({columns}x{rows}) must be less than or equal to {MAX_SIDE}.")
    return Grid(crs, west, north, step, step, columns, rows)


# --- visualisation ----------------------------------------------------------------------------------------------------


def color(text: str) -> tuple[int, int, int, int]:
    """Read a CSS name or RRGGBB[AA], with or without #."""
    digits = text.lstrip("#")
    hexadecimal = len(digits) in (3, 6, 8) and all(c in "0123456789abcdefABCDEF" for c in digits)
    try:
        found = ImageColor.getrgb(f"#{digits}" if hexadecimal else text)
    except ValueError:
        raise ServiceError(f"Image.visualize: Invalid color: '{text}'.") from None
    return (*found, 255)[:4] if len(found) == 3 else found


def _numbers(value: Any, count: int, default: float, name: str) -> np.ndarray:
    """Return one number per band of a number, a list or comma-separated text."""
    if value is None:
        value = default
    if isinstance(value, str):
        value = [float(v) for v in value.split(",")]
    values = [value] * count if is_number(value) else list(value)
    if len(values) == 1:
        values = values * count
    if len(values) != count:
        raise ServiceError(f"Image.visualize: expected 1 or {count} values of '{name}', found {len(values)}.")
    return np.asarray(values, np.float64)[:, None, None]


def stretch(values: np.ndarray, low: np.ndarray, high: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Return 0..1."""
    return np.clip((values - low) / (high - low), 0, 1) ** (1 / gamma)


@ee_function("Image.visualize")
def visualize(
    image: Image,
    bands: Any,
    gain: Any,
    bias: Any,
    min_: Any,
    max_: Any,
    gamma: Any,
    opacity: float | None,
    palette: Any,
    force_rgb_output: bool,
) -> Image:
    """Return bytes: vis-gray, or vis-red, vis-green and vis-blue."""
    chosen = _chosen(image, bands)
    count = len(chosen.bands)
    if count not in (1, 3):
        raise ServiceError(f"Image.visualize: Must specify 1 or 3 bands, found {count}.")
    colors = (
        None if palette is None else [color(c) for c in (palette.split(",") if isinstance(palette, str) else palette)]
    )
    if colors is not None and count != 1:
        raise ServiceError("Image.visualize: Cannot provide a palette when visualizing more than one band.")
    if (gain is not None or bias is not None) and (min_ is not None or max_ is not None):
        raise ServiceError("Image.visualize: Cannot specify gain or bias together with min or max.")
    if gain is not None or bias is not None:
        factor, offset = _numbers(gain, count, 1.0, "gain"), _numbers(bias, count, 0.0, "bias")
        low, high = -offset / factor, (255 - offset) / factor
    else:
        low, high = _numbers(min_, count, 0.0, "min"), _numbers(max_, count, _default_max(chosen), "max")
    power = _numbers(gamma, count, 1.0, "gamma")

    def change(pixels: Pixels, which: Sequence[int]) -> Pixels:
        unit = stretch(np.where(pixels.valid, pixels.values, 0).astype(np.float64), low, high, power)
        if colors is None:
            drawn, mask = np.rint(unit * 255), pixels.mask
            if count == 1 and force_rgb_output:
                drawn, mask = np.repeat(drawn, 3, axis=0), np.repeat(mask, 3, axis=0)
        else:
            drawn = np.rint(_interpolated(unit[0], colors))
            mask = np.repeat(pixels.mask, 3, axis=0)
        if opacity is not None:
            mask = mask * opacity
        return Pixels(drawn[list(which)].astype(np.uint8), mask[list(which)])

    names = (
        ["vis-gray"] if count == 1 and colors is None and not force_rgb_output else ["vis-red", "vis-green", "vis-blue"]
    )
    return replace(
        chosen,
        bands=tuple(Band(n, "uint8", chosen.bands[0].projection) for n in names),
        compute=lambda grid, which, ctx: change(chosen.read(grid, ctx), which),
    )


def _chosen(image: Image, bands: Any) -> Image:
    if bands is None or bands == []:
        return image.take(range(min(len(image.bands), 3) if len(image.bands) != 2 else 1))
    positions = [p for b in (bands.split(",") if isinstance(bands, str) else bands) for p in image._matches(b)]
    return image.take(positions, [f"{i}" for i in range(len(positions))])  # the same band may be drawn thrice


def _default_max(image: Image) -> float:
    return 255.0 if image.bands[0].is_integer else 1.0


def _interpolated(unit: np.ndarray, colors: list[tuple[int, int, int, int]]) -> np.ndarray:
    table = np.asarray(colors, np.float64)[:, :3]
    position = unit * (len(table) - 1)
    below = np.floor(position).astype(int)
    above = np.minimum(below + 1, len(table) - 1)
    share = (position - below)[..., None]
    return np.moveaxis(table[below] * (1 - share) + table[above] * share, -1, 0)


# --- drawing shapes ---------------------------------------------------------------------------------------------------


def _parts(shape: Any) -> list[Any]:
    return [
        p for part in getattr(shape, "geoms", [shape]) for p in ([part] if not hasattr(part, "geoms") else _parts(part))
    ]


def _pixel_rings(shape: Any, grid: Grid) -> tuple[list[tuple[list, list[list]]], list[list], list[tuple[float, float]]]:
    """Return polygons (shell, holes), lines and points in pixel coordinates."""

    def move(ring: Any) -> list[tuple[float, float]]:
        xy = np.asarray(ring.coords)
        columns, rows = (xy[:, 0] - grid.west) / grid.step_x - 0.5, (grid.north - xy[:, 1]) / grid.step_y - 0.5
        return list(zip(columns.tolist(), rows.tolist(), strict=True))

    polygons, lines, points = [], [], []
    for part in _parts(shape):
        if part.geom_type == "Polygon":
            polygons.append((move(part.exterior), [move(hole) for hole in part.interiors]))
        elif part.geom_type == "Point":
            points.append(move(part)[0])
        else:
            lines.append(move(part))
    return polygons, lines, points


def _fill(shape: Any, grid: Grid) -> np.ndarray:
    x, y = np.meshgrid(grid.columns_x(), grid.rows_y())
    return shapely.contains_xy(shape, x, y)


def _outline(shape: Any, grid: Grid, width: float) -> np.ndarray:
    canvas = Pillow.new("L", (grid.width, grid.height), 0)
    draw = ImageDraw.Draw(canvas)
    polygons, lines, points = _pixel_rings(shape, grid)
    stroke = max(round(width), 1)
    for line in [ring for shell, holes in polygons for ring in (shell, *holes)] + lines:
        draw.line(line, fill=255, width=stroke, joint="curve")
    for column, row in points:
        draw.ellipse([column - stroke, row - stroke, column + stroke, row + stroke], fill=255)
    return np.asarray(canvas) > 0


def _only_pictures(ctx: Context, what: str) -> None:
    if not ctx.rendering:
        raise UnimplementedError(f"numbers of {what}")


@ee_function("Image.paint")
def paint(image: Image, feature_collection: Collection, color: Any, width: Any) -> Image:
    shapes = [(geometry_of(e), _of(e, color, 0), _of(e, width, None)) for e in feature_collection.elements]

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        _only_pictures(ctx, "a painted image")
        pixels = image.read(grid, ctx, which)
        values = pixels.values.astype(np.float64)
        mask = pixels.mask.astype(np.float64)
        for geometry, value, line in shapes:
            if geometry is None:
                continue
            shape = geometry.project(grid.crs)
            drawn = _fill(shape, grid) if line is None else _outline(shape, grid, line)
            values[:, drawn], mask[:, drawn] = value, 1
        return Pixels(values, mask)

    return replace(image, compute=compute, overlaps=lambda grid: True, inside=None)


def _of(element: Any, given: Any, default: Any) -> Any:
    if isinstance(given, str):
        return element.properties.get(given, default)
    return default if given is None else given


@ee_function("Collection.style")
def style(
    collection: Collection,
    color: str,
    point_size: int,
    width: float,
    fill_color: str | None,
    style_property: str | None,
    ctx: Context,
) -> Image:
    if style_property is not None:
        raise UnimplementedError("Collection.style with a styleProperty")
    return _styled(collection, color, width, fill_color)


@ee_function("Collection.draw")
def draw(collection: Collection, color: str, point_radius: int, stroke_width: int) -> Image:
    return _styled(collection, color, stroke_width, None)


def _styled(collection: Collection, stroke: str, width: float, fill: str | None) -> Image:
    line = color(stroke)
    inner = color(fill) if fill is not None else (*line[:3], round(line[3] * 0.66))
    shapes = [g for g in (geometry_of(e) for e in collection.elements) if g is not None]

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        _only_pictures(ctx, "a drawn collection")
        canvas = np.zeros((4, *grid.shape))
        for geometry in shapes:
            shape = geometry.project(grid.crs)
            for drawn, paint_color in ((_fill(shape, grid), inner), (_outline(shape, grid, width), line)):
                canvas[:, drawn] = np.asarray(paint_color, np.float64)[:, None]
        return Pixels(canvas[list(which)].astype(np.uint8), np.repeat(canvas[3:] / 255, len(which), axis=0))

    return Image(tuple(Band(f"vis-{n}", "uint8") for n in ("red", "green", "blue")), compute)


@ee_function("Image.blend")
def blend(bottom: Image, top: Image) -> Image:
    """Lay one picture over another, by the mask of the upper."""
    images = [_rgb(bottom), _rgb(top)]

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        _only_pictures(ctx, "a blended image")
        low, high = (i.read(grid, ctx, which) for i in images)
        alpha = high.mask.astype(np.float64)
        under = low.mask.astype(np.float64) * (1 - alpha)
        mask = alpha + under
        values = (high.values * alpha + low.values * under) / np.where(mask > 0, mask, 1)
        return Pixels(np.rint(values), mask)

    return replace(images[0], compute=compute, overlaps=lambda grid: True, view=bottom.view or top.view)


def _rgb(image: Image) -> Image:
    if len(image.bands) == 3:
        return image
    if len(image.bands) == 1:
        return replace(
            image,
            bands=tuple(replace(image.bands[0], name=f"vis-{n}") for n in ("red", "green", "blue")),
            compute=lambda grid, which, ctx: image.read(grid, ctx, [0] * len(which)),
        )
    raise UnimplementedError(f"Image.blend of an image with {len(image.bands)} bands")
