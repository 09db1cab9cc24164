"""Images made of collections and stacks: mosaics and reductions pixel by pixel.

All of them lose their inputs' projection: it is EPSG:4326 at 1 degree.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from .. import reducer as red
from ..errors import ServiceError, UnimplementedError
from ..feature import Collection
from ..geometry import Geometry, union
from ..image import Band, Context, Image, Pixels, empty_image
from ..projection import Grid
from ..reducer import KEEPS_TYPE, LEAVES, WHOLE, Reducer
from ..registry import ee_function
from .image_bands import joined


def _footprint(images: list[Image]) -> tuple[Geometry | None, Any]:
    """Return the union of footprints, and what says which centres lie in it."""
    shapes = [image.footprint for image in images]
    if any(s is None for s in shapes) or any(image.inside is None for image in images):
        return None, None

    def inside(grid: Grid) -> np.ndarray:
        found = np.zeros(grid.shape, bool)
        for image in images:
            if image.inside is not None and image.overlaps(grid):
                found |= image.inside(grid)
        return found

    return union(s for s in shapes if s is not None), inside


def _homogeneous(images: list[Image]) -> tuple[Band, ...]:
    """Return the bands that all images share, in EPSG:4326 at 1 degree."""
    first = images[0]
    for image in images:
        if image.names != first.names:
            raise ServiceError(
                "Expected a homogeneous image collection, but an image with incompatible bands was encountered:\n"
                f"First image type: {len(first.bands)} bands ({first.names[:8]}).\n"
                f"Current image type: {len(image.bands)} bands ({image.names[:8]}).\n"
                "Some bands might require explicit casts."
            )
    kinds = [reduce(joined, (image.bands[i].kind for image in images)) for i in range(len(first.bands))]
    return tuple(Band(name, kind) for name, kind in zip(first.names, kinds, strict=True))


@ee_function("ImageCollection.mosaic")
def mosaic(collection: Collection) -> Image:
    """Lay images over one another: at each pixel the last one that is not masked, band by band."""
    images = collection.images("ImageCollection.mosaic")
    if not images:
        return empty_image()
    bands = _homogeneous(images)
    dtype = np.result_type(*(b.dtype for b in bands))

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        shape = (len(which), *grid.shape)
        values, mask = np.zeros(shape, dtype), np.zeros(shape, bool)
        for image in reversed(images):
            if not image.overlaps(grid):
                continue
            pixels = image.read(grid, ctx, which)
            if pixels.mask.dtype != bool and not np.isin(pixels.mask, (0, 1)).all():
                raise UnimplementedError("ImageCollection.mosaic of images with fractional masks")
            new = pixels.valid & ~mask
            np.copyto(values, pixels.values, where=new, casting="unsafe")
            mask |= new
            if mask.all():
                break
        return Pixels(values, mask)

    footprint, inside = _footprint(images)
    return Image(
        bands, compute, {}, footprint, inside, overlaps=lambda grid: any(image.overlaps(grid) for image in images)
    )


def _kind(leaf: str, inputs: str) -> str:
    if leaf in WHOLE:
        return "int32"
    if leaf in KEEPS_TYPE:
        return inputs
    if leaf == "sum" and inputs not in ("float", "double"):
        return "int64"
    return "double"


def _leaf_of(output: red.Output, what: str) -> str:
    ((leaf, _),) = output.sources if len(output.sources) == 1 else ((red.Leaf("", False), 0),)
    if leaf.kind not in LEAVES or output.listed:
        raise UnimplementedError(f"{what} with a reducer whose output is not a number ({output.name})")
    return leaf.kind


def _stacked(leaf: str, values: np.ndarray, mask: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Apply a statistic along the first axis; where every input is masked the result is masked."""
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise UnimplementedError(f"{what} of images with fractional masks")
    count = len(values)
    rows = np.moveaxis(values, 0, -1).reshape(-1, count).astype(np.float64)
    weights = np.moveaxis(mask, 0, -1).reshape(-1, count).astype(np.float64)
    result, some = LEAVES[leaf](np.where(weights > 0, rows, 0), weights)
    if leaf in ("count", "sum", "countDistinct") and not weights.any(axis=1).all():
        raise UnimplementedError(f"{what}: a {leaf} where every image is masked (0 or masked is not documented)")
    return np.asarray(result).reshape(values.shape[1:]), np.asarray(some).reshape(values.shape[1:])


def _reduce_images(images: list[Image], reducer: Reducer, *, suffix: bool, what: str) -> Image:
    """Reduce a collection band by band. `suffix` says whether the output's name is put behind the band's."""
    if not images:
        return empty_image()
    if reducer.n_inputs != 1 or reducer.group_field is not None:
        raise UnimplementedError(f"{what} with a reducer of several inputs")
    shared = _homogeneous(images)
    leaves = [_leaf_of(o, what) for o in reducer.outputs]
    plan = [(i, leaf) for i in range(len(shared)) for leaf in leaves]
    bands = tuple(
        Band(f"{band.name}_{output.name}" if suffix else band.name, _kind(leaf, band.kind))
        for band in shared
        for output, leaf in zip(reducer.outputs, leaves, strict=True)
    )

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        wanted = sorted({plan[w][0] for w in which})
        stack = [image.read(grid, ctx, wanted) for image in images if image.overlaps(grid)]
        if not stack:
            return Pixels.nothing(len(which), grid)
        values = np.stack([p.values for p in stack])
        mask = np.stack([p.mask.astype(np.float64) for p in stack])
        found = [
            _stacked(leaf, values[:, wanted.index(i)], mask[:, wanted.index(i)], what)
            for i, leaf in (plan[w] for w in which)
        ]
        return Pixels(np.stack([v for v, _ in found]), np.stack([m for _, m in found]))

    footprint, inside = _footprint(images)
    return Image(
        bands, compute, {}, footprint, inside, overlaps=lambda grid: any(image.overlaps(grid) for image in images)
    )


@ee_function("ImageCollection.reduce")
def reduce_collection(collection: Collection, reducer: Reducer, parallel_scale: float) -> Image:
    return _reduce_images(
        collection.images("ImageCollection.reduce"), reducer, suffix=True, what="ImageCollection.reduce"
    )


def _register(name: str, leaf: str) -> None:
    def function(collection: Collection) -> Image:
        simple = red.single(name, leaf, weighted=True)
        what = f"ImageCollection.{name}"
        return _reduce_images(collection.images(what), simple, suffix=False, what=what)

    ee_function(f"reduce.{name}")(function)


for _name, _leaf in {
    "mean": "mean",
    "median": "median",
    "mode": "mode",
    "min": "min",
    "max": "max",
    "sum": "sum",
    "count": "count",
    "and": "all",
    "or": "any",
}.items():
    _register(_name, _leaf)


@ee_function("Image.reduce")
def reduce_image(image: Image, reducer: Reducer) -> Image:
    """Reduce the bands of one image to one band per output; the projection is the first band's."""
    what = "Image.reduce"
    if not image.bands:
        raise ServiceError("Image.reduce: the image has no bands.")
    if reducer.n_inputs != 1 or reducer.group_field is not None:
        raise UnimplementedError("Image.reduce with a reducer of several inputs")
    leaves = [_leaf_of(o, what) for o in reducer.outputs]
    inputs = reduce(joined, (b.kind for b in image.bands))
    bands = tuple(
        Band(output.name or "", _kind(leaf, inputs), image.bands[0].projection)
        for output, leaf in zip(reducer.outputs, leaves, strict=True)
    )

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        pixels = image.read(grid, ctx)
        found = [_stacked(leaves[w], pixels.values, pixels.mask, what) for w in which]
        return Pixels(np.stack([v for v, _ in found]), np.stack([m for _, m in found]))

    return Image(bands, compute, image.properties, image.footprint, image.inside, image.overlaps, image.view)
