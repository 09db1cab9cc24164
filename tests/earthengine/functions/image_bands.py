"""Images as objects: constructing, selecting, naming, masking, projecting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyproj

from ..coercion import to_image
from ..errors import ServiceError, UnimplementedError
from ..feature import Collection
from ..image import Band, Context, Image, Pixels, both, constant, empty_image, stack, unique_names
from ..projection import Grid, Projection, crs_of, transformer
from ..registry import ee_function
from ..values import Date, is_number

# --- constructors -----------------------------------------------------------------------------------------------------


@ee_function("Image.constant")
def image_constant(value: Any) -> Image:
    values = value if isinstance(value, list) else [value]
    if not all(is_number(v) for v in values):
        raise UnimplementedError("an Image of something other than numbers")
    return constant(values)


@ee_function("Image.load")
def image_load(id: str, ctx: Context) -> Image:
    return ctx.archive.image(id)


@ee_function("ImageCollection.load")
def collection_load(id: str, ctx: Context) -> Collection:
    return Collection(tuple(ctx.archive.collection(id)), id)


@ee_function("ImageCollection.fromImages")
def from_images(images: list) -> Collection:
    return Collection.of([to_image(i) for i in images])


@ee_function("Image.pixelArea")
def pixel_area() -> Image:
    """Return square metres per pixel on the WGS84 ellipsoid, at the pixel's centre."""

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        lon, lat = grid.centres("EPSG:4326")
        crs = crs_of(grid.crs)
        if crs.is_geographic:
            phi, a, e2 = np.radians(lat), 6_378_137.0, 0.00669437999014
            w2 = 1 - e2 * np.sin(phi) ** 2
            metres2 = np.radians(1.0) ** 2 * a**2 * (1 - e2) * np.cos(phi) / w2**2  # of a square degree
            area = metres2 * grid.step_x * grid.step_y
        else:
            factors = pyproj.Proj(crs).get_factors(lon, lat)
            area = grid.step_x * grid.step_y / factors.areal_scale
        return Pixels(np.asarray(area)[None], np.broadcast_to(True, (1, *grid.shape)))

    return Image((Band("area", "double"),), compute)


@ee_function("Image.pixelLonLat")
def pixel_lon_lat() -> Image:
    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        both_axes = np.stack(grid.centres("EPSG:4326"))[list(which)]
        return Pixels(both_axes, np.broadcast_to(True, both_axes.shape))

    return Image((Band("longitude", "double"), Band("latitude", "double")), compute)


# --- bands ------------------------------------------------------------------------------------------------------------


@ee_function("Image.bandNames")
def band_names(image: Image) -> list:
    return image.names


@ee_function("Image.select")
def select(input: Image, band_selectors: list, new_names: list | None) -> Image:
    return input.select(band_selectors, new_names)


@ee_function("Image.rename")
def rename(input: Image, names: list) -> Image:
    if len(names) != len(input.bands):
        raise ServiceError(
            f"Image.rename: The number of names ({len(names)}) must match the number of bands ({len(input.bands)})."
        )
    return input.take(range(len(names)), names)


@ee_function("Image.slice")
def image_slice(image: Image, start: int, end: int | None) -> Image:
    return image.take(range(len(image.bands))[start:end])


@ee_function("Image.addBands")
def add_bands(dst_img: Image, src_img: Image, names: list | None, overwrite: bool) -> Image:
    source = src_img if names is None else src_img.select(names)
    if overwrite:
        kept = [i for i, n in enumerate(dst_img.names) if n not in source.names]
        if len(kept) != len(dst_img.bands):
            return _overwritten(dst_img, source)
    return stack([dst_img, source], unique_names([*dst_img.names, *source.names]))


def _overwritten(image: Image, source: Image) -> Image:
    """Put bands in the places of those of the same name, and the rest behind."""
    parts: list[Image] = []
    for position, name in enumerate(image.names):
        owner = source if name in source.names else image
        parts.append(owner.take([source.names.index(name) if owner is source else position]))
    parts.extend(source.take([i]) for i, name in enumerate(source.names) if name not in image.names)
    names = [n for part in parts for n in part.names]
    return replace(
        stack(parts, names),
        properties=image.properties,
        footprint=image.footprint,
        inside=image.inside,
        id=image.id,
    )


@ee_function("Image.cat")
def cat(images: list) -> Image:
    found = [to_image(i) for i in images]
    return stack(found, unique_names([n for i in found for n in i.names])) if found else empty_image()


@ee_function("ImageCollection.toBands")
def to_bands(collection: Collection) -> Image:
    images = collection.images("ImageCollection.toBands")
    names = [
        f"{image.index if image.index is not None else position}_{name}"
        for position, image in enumerate(images)
        for name in image.names
    ]
    return replace(stack(images, names), properties={}, id=None) if images else empty_image()


@ee_function("Image.linkCollection")
def link_collection(
    input: Image, image_collection: Collection, linked_bands: Any, linked_properties: Any, match_property_name: str
) -> Image:
    """Add bands of the image whose property matches; where there is none, fully masked bands."""
    if linked_properties is not None:
        raise UnimplementedError("Image.linkCollection with linkedProperties")
    key = input.properties.get(match_property_name)
    matches = [i for i in image_collection.elements if key is not None and i.properties.get(match_property_name) == key]
    names = [linked_bands] if isinstance(linked_bands, str) else linked_bands
    if matches:
        linked = matches[0].select(names)
    elif image_collection.elements:
        linked = image_collection.elements[0].select(names).changed(lambda p: Pixels(p.values, np.zeros_like(p.mask)))
    else:
        raise UnimplementedError("Image.linkCollection with an empty collection")
    return add_bands(input, linked, None, True)


# --- masks ------------------------------------------------------------------------------------------------------------


def _mask_values(pixels: Pixels) -> np.ndarray:
    """Return a mask image's values, clamped to 0..1, 0 where it is itself masked."""
    values = np.where(pixels.valid, pixels.values, 0)
    return both(pixels.mask, values != 0) if np.isin(values, (0, 1)).all() else np.clip(values, 0, 1) * pixels.mask


@ee_function("Image.updateMask")
def update_mask(image: Image, mask: Image) -> Image:
    if len(mask.bands) not in (1, len(image.bands)):
        raise ServiceError(
            f"Image.updateMask: The mask must have 1 band or as many as the image ({len(image.bands)}), "
            f"found {len(mask.bands)}."
        )

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        pixels = image.read(grid, ctx, which)
        new = mask.read(grid, ctx, [0] if len(mask.bands) == 1 else which)
        return Pixels(pixels.values, both(pixels.mask, np.broadcast_to(_mask_values(new), pixels.mask.shape)))

    return replace(image, compute=compute)


@ee_function("Image.selfMask")
def self_mask(image: Image) -> Image:
    return update_mask(image, image)


@ee_function("Image.mask")
def mask(image: Image, mask: Image | None) -> Image:
    if mask is not None:
        return _masked_by(image, mask)
    return image.changed(
        lambda p: Pixels(p.mask.astype(np.float64), np.broadcast_to(True, p.mask.shape)), lambda band: "float"
    )


def _masked_by(image: Image, mask: Image) -> Image:
    """Set the mask, also where the image was masked: the values there are documented to be zeros."""

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        pixels = image.read(grid, ctx, which)
        new = _mask_values(mask.read(grid, ctx, [0] if len(mask.bands) == 1 else which))
        return Pixels(np.where(pixels.valid, pixels.values, 0), np.broadcast_to(new, pixels.mask.shape))

    return replace(image, compute=compute)


@ee_function("Image.unmask")
def unmask(input: Image, value: Image | None, same_footprint: bool) -> Image:
    """Fill masked pixels; outside the footprint they stay masked, unless `sameFootprint` is False."""
    filling = constant([0]) if value is None else value
    if len(filling.bands) not in (1, len(input.bands)):
        raise ServiceError("Image.unmask: the value must have 1 band or as many as the input.")

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        pixels = input.read(grid, ctx, which)
        new = filling.read(grid, ctx, [0] if len(filling.bands) == 1 else which)
        shape = pixels.mask.shape
        fill = ~pixels.valid
        if same_footprint and input.inside is not None:
            fill = fill & input.inside(grid)
        dtype = np.result_type(pixels.values.dtype, new.values.dtype)
        values = np.where(fill, np.broadcast_to(new.values, shape), pixels.values).astype(dtype, copy=False)
        return Pixels(values, np.where(fill, np.broadcast_to(new.mask, shape), pixels.mask))

    kinds = [joined(b.kind, filling.bands[0 if len(filling.bands) == 1 else i].kind) for i, b in enumerate(input.bands)]
    bands = tuple(replace(b, kind=k) for b, k in zip(input.bands, kinds, strict=True))
    wider = replace(input, bands=bands, compute=compute)
    return wider if same_footprint else replace(wider, inside=None, footprint=None, overlaps=lambda grid: True)


_ORDER = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float", "double"]


def joined(first: str, second: str) -> str:
    """Return the type that holds two; an integer constant beside a float is a float."""
    if first == second:
        return first
    if "double" in (first, second):
        return "double"
    if "float" in (first, second):
        return "float"
    result = np.result_type(np.dtype(first), np.dtype(second))
    return result.name if result.name in _ORDER else "int64"


# --- projections ------------------------------------------------------------------------------------------------------


@ee_function("Image.projection")
def projection(image: Image) -> Projection:
    if not image.bands:
        raise ServiceError("Image.projection: The image has no bands.")
    if len({b.projection for b in image.bands}) > 1:
        raise ServiceError(
            "Image.projection: The bands of the specified image contains different projections. "
            "Use Image.select to pick a single band."
        )
    return image.bands[0].projection


def _target(image: Image, crs: Projection, crs_transform: list | None, scale: float | None) -> Projection:
    if crs_transform is not None and scale is not None:
        raise ServiceError("Image.reproject: Parameters 'scale' and 'crsTransform' are mutually exclusive.")
    if crs_transform is not None:
        return Projection.parse(crs.crs, crs_transform)
    return crs if scale is None else crs.at_scale(scale)


@ee_function("Image.setDefaultProjection")
def set_default_projection(image: Image, crs: Projection, crs_transform: list | None, scale: float | None) -> Image:
    target = _target(image, crs, crs_transform, scale)
    return replace(image, bands=tuple(replace(b, projection=target) for b in image.bands))


@ee_function("Image.reproject")
def reproject(image: Image, crs: Projection, crs_transform: list | None, scale: float | None) -> Image:
    """Compute an image in a projection, whatever grid asks for it; that grid then takes the nearest pixels."""
    target = _target(image, crs, crs_transform, scale)

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        bounds = grid.bounds
        if grid.crs != target.crs:
            bounds = transformer(grid.crs, target.crs).transform_bounds(*bounds, densify_pts=21)
        inner = Grid.around(target, bounds)
        if inner == grid:
            return image.read(grid, ctx, which)
        pixels = image.read(inner, ctx, which)
        x, y = grid.centres(target.crs)
        column = np.clip(np.floor((x - inner.west) / inner.step_x).astype(np.int64), 0, inner.width - 1)
        row = np.clip(np.floor((inner.north - y) / inner.step_y).astype(np.int64), 0, inner.height - 1)
        return Pixels(pixels.values[:, row, column], pixels.mask[:, row, column])

    bands = tuple(replace(b, projection=target) for b in image.bands)
    return replace(image, bands=bands, compute=compute)


@ee_function("Image.date")
def image_date(image: Image) -> Date | None:
    start = image.properties.get("system:time_start")
    return None if start is None else Date.parse(start)


@ee_function("Image.metadata")
def metadata(image: Image, property: str, name: str | None) -> Image:
    value = image.properties.get(property)
    if not is_number(value):
        raise ServiceError(f"Image.metadata: the property '{property}' is not a number.")
    return constant([value], [name or property])
