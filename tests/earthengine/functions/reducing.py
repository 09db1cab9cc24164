"""Reducer constructors, and reductions of regions, lists and columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import reducer as red
from ..errors import ServiceError, UnimplementedError
from ..feature import Collection, Feature
from ..geometry import Geometry
from ..image import Context, Image
from ..projection import Projection
from ..reducer import Inputs, Leaf, Output, Reducer
from ..region import pixel_estimate, region_of
from ..registry import ee_function
from ..values import is_number

# --- constructors -----------------------------------------------------------------------------------------------------

# function -> output name, statistic, weighted
_SIMPLE = {
    "mean": ("mean", "mean", True),
    "sum": ("sum", "sum", True),
    "variance": ("variance", "variance", True),
    "stdDev": ("stdDev", "stdDev", True),
    "sampleVariance": ("variance", "sampleVariance", True),
    "sampleStdDev": ("stdDev", "sampleStdDev", True),
    "frequencyHistogram": ("histogram", "frequencyHistogram", True),
    "median": ("median", "median", True),
    "mode": ("mode", "mode", True),
    "count": ("count", "count", False),
    "first": ("first", "first", False),
    "firstNonNull": ("first", "first", False),
    "last": ("last", "last", False),
    "lastNonNull": ("last", "last", False),
    "countDistinctNonNull": ("count", "countDistinct", False),
    "allNonZero": ("all", "all", False),
    "anyNonZero": ("any", "any", False),
}


def _constructor(name: str, kind: str, weighted: bool) -> Any:
    return lambda: red.single(name, kind, weighted=weighted)


for _name, (_output, _kind, _weighted) in _SIMPLE.items():
    ee_function(f"Reducer.{_name}")(_constructor(_output, _kind, _weighted))


def _one_input(name: str, num_inputs: int) -> Reducer:
    if num_inputs != 1:
        raise UnimplementedError(f"Reducer.{name} of {num_inputs} inputs")
    return red.single(name, name, weighted=False)


@ee_function("Reducer.min")
def reducer_min(num_inputs: int) -> Reducer:
    return _one_input("min", num_inputs)


@ee_function("Reducer.max")
def reducer_max(num_inputs: int) -> Reducer:
    return _one_input("max", num_inputs)


@ee_function("Reducer.minMax")
def reducer_min_max() -> Reducer:
    return Reducer(1, tuple(Output(n, ((Leaf(n, False), 0),)) for n in ("min", "max")))


@ee_function("Reducer.percentile")
def reducer_percentile(percentiles: list, output_names: list | None) -> Reducer:
    if percentiles != [50]:
        raise UnimplementedError("Reducer.percentile other than [50] (how the service interpolates is not documented)")
    return red.single((output_names or ["p50"])[0], "median", weighted=True)


@ee_function("Reducer.combine")
def reducer_combine(reducer1: Reducer, reducer2: Reducer, output_prefix: str, shared_inputs: bool) -> Reducer:
    return red.combined(reducer1, reducer2, output_prefix, shared=shared_inputs)


@ee_function("Reducer.repeat")
def reducer_repeat(reducer: Reducer, count: int) -> Reducer:
    return red.repeated(reducer, count)


@ee_function("Reducer.forEach")
def reducer_for_each(reducer: Reducer, output_names: list) -> Reducer:
    return red.for_each(reducer, output_names)


@ee_function("Reducer.forEachBand")
def reducer_for_each_band(reducer: Reducer, image: Image) -> Reducer:
    return red.for_each(reducer, image.names)


@ee_function("Reducer.setOutputs")
def reducer_set_outputs(reducer: Reducer, outputs: list) -> Reducer:
    return red.renamed(reducer, outputs)


@ee_function("Reducer.getOutputs")
def reducer_outputs(reducer: Reducer) -> list:
    return reducer.names


@ee_function("Reducer.unweighted")
def reducer_unweighted(reducer: Reducer) -> Reducer:
    return red.unweighted(reducer)


@ee_function("Reducer.group")
def reducer_group(reducer: Reducer, group_field: int, group_name: str) -> Reducer:
    if reducer.group_field is not None:
        raise UnimplementedError("a grouped reducer inside another reducer")
    if not 0 <= group_field <= reducer.n_inputs:
        raise ServiceError(f"Reducer.group: Field {group_field} does not exist.")
    return replace(reducer, n_inputs=reducer.n_inputs + 1, group_field=group_field, group_name=group_name)


# --- regions ----------------------------------------------------------------------------------------------------------


def working_projection(
    image: Image, crs: Projection | None, scale: float | None, crs_transform: list | None, function: str
) -> Projection:
    """Return the pixels to work in: those of the first band unless something else is asked for."""
    found = crs if crs is not None else image.bands[0].projection
    if crs_transform is not None:
        if scale is not None:
            raise ServiceError(f"{function}: Parameters 'scale' and 'crsTransform' are mutually exclusive.")
        return Projection.parse(found.crs, crs_transform)
    return found if scale is None else found.at_scale(scale)


def _inputs(image: Image, geometry: Geometry, projection: Projection, ctx: Context, tile_scale: float) -> Inputs:
    region = region_of(geometry, projection)
    bands = len(image.bands)
    ctx.charge(region.pixels, bands, tile_scale)
    touched = region.coverage > 0
    covered = region.weights(exact=ctx.exact_weights)[touched]
    chosen = region.centres[touched]
    if not (covered > 0).any() and not chosen.any():  # nothing to read
        covered, chosen = covered[:0], chosen[:0]
        values, mask = np.zeros((bands, 0)), np.zeros((bands, 0), bool)
    else:
        pixels = image.read(region.grid, ctx)
        values, mask = pixels.values[:, touched], pixels.mask[:, touched]
    return Inputs(
        np.where(mask > 0, values, 0).astype(np.float64),
        covered[None, :] * mask,
        chosen[None, :] & (mask > 0),
        tuple(b.is_integer for b in image.bands),
    )


def _check_scale(tile_scale: float, function: str) -> None:
    if not 0.1 <= tile_scale <= 16:
        raise ServiceError(f"{function}: The tileScale must be between 0.1 and 16, found {tile_scale}.")


@ee_function("Image.reduceRegion")
def reduce_region(
    image: Image,
    reducer: Reducer,
    geometry: Geometry | None,
    scale: float | None,
    crs: Projection | None,
    crs_transform: list | None,
    best_effort: bool,
    max_pixels: int,
    tile_scale: float,
    ctx: Context,
) -> dict:
    """Reduce one region. An image without bands gives an empty dictionary; a region without data gives nulls."""
    _check_scale(tile_scale, "Image.reduceRegion")
    if not image.bands:
        return {}
    geometry = image.footprint if geometry is None else geometry
    if geometry is None or geometry.unbounded:
        raise ServiceError("Image.reduceRegion: Provide 'geometry' parameter when aggregating over an unbounded image.")
    projection = working_projection(image, crs, scale, crs_transform, "Image.reduceRegion")
    estimate = pixel_estimate(geometry, projection)
    if estimate > max_pixels:
        if best_effort:
            raise UnimplementedError("Image.reduceRegion with bestEffort where it changes the scale")
        raise ServiceError(
            f"Image.reduceRegion: Too many pixels in the region. Found {estimate:.0f}, but maxPixels allows only "
            f"{max_pixels}.\nEnsure that you are not aggregating at a higher resolution than you intended; that is the "
            "most frequent cause of this error. If not, then you may set the 'maxPixels' argument to a limit suitable "
            "for your computation; set 'bestEffort' to true to aggregate at whatever scale results in 'maxPixels' "
            "total pixels; or both."
        )
    inputs = _inputs(image, geometry, projection, ctx, tile_scale)
    if reducer.n_inputs == 1:
        found = {}
        for band, values in zip(image.names, red.evaluate_each(reducer, inputs), strict=True):
            if len(reducer.outputs) == 1:
                found[band] = next(iter(values.values()))
            else:
                found.update({f"{band}_{name}": value for name, value in values.items()})
        return found
    _check_inputs(reducer, image, "Image.reduceRegion")
    return red.evaluate(reducer, inputs)


def _check_inputs(reducer: Reducer, image: Image, function: str) -> None:
    if reducer.n_inputs != len(image.bands):
        raise ServiceError(
            f"{function}: The number of reducer inputs ({reducer.n_inputs}) must be 1 or the number of bands "
            f"({len(image.bands)})."
        )


@ee_function("Image.reduceRegions")
def reduce_regions(
    image: Image,
    collection: Collection,
    reducer: Reducer,
    scale: float | None,
    crs: Projection | None,
    crs_transform: list | None,
    tile_scale: float,
    max_pixels_per_region: int | None,
    ctx: Context,
) -> Collection:
    """Reduce each feature's region, and return the features with the outputs as properties."""
    _check_scale(tile_scale, "Image.reduceRegions")
    if not image.bands:
        raise ServiceError("Image.reduceRegions: Image has no bands.")
    projection = working_projection(image, crs, scale, crs_transform, "Image.reduceRegions")
    if reducer.n_inputs != 1:
        _check_inputs(reducer, image, "Image.reduceRegions")
    found = []
    for feature in collection.elements:
        if not isinstance(feature, Feature) or feature.geometry is None:
            raise ServiceError("Image.reduceRegions: every element of the collection must have a geometry.")
        if feature.geometry.unbounded:
            raise ServiceError("Image.reduceRegions: a feature is unbounded.")
        if max_pixels_per_region is not None and pixel_estimate(feature.geometry, projection) > max_pixels_per_region:
            raise ServiceError(
                f"Image.reduceRegions: Too many pixels in the region of feature '{feature.index}'; "
                f"maxPixelsPerRegion allows only {max_pixels_per_region}."
            )
        inputs = _inputs(image, feature.geometry, projection, ctx, tile_scale)
        outputs = _feature_outputs(reducer, image, inputs)
        if ctx.null_properties == "absent":
            outputs = {k: v for k, v in outputs.items() if v is not None}
        found.append(feature.with_properties({**feature.properties, **outputs}))
    return collection.with_elements(found)


def _feature_outputs(reducer: Reducer, image: Image, inputs: Inputs) -> dict[str, Any]:
    if reducer.n_inputs != 1:
        return red.evaluate(reducer, inputs)
    each = red.evaluate_each(reducer, inputs)
    if len(each) == 1:  # one band: the outputs' own names
        return each[0]
    if len(reducer.outputs) == 1:
        return {band: next(iter(v.values())) for band, v in zip(image.names, each, strict=True)}
    return {f"{band}_{name}": v for band, values in zip(image.names, each, strict=True) for name, v in values.items()}


# --- lists and columns ------------------------------------------------------------------------------------------------


def _of_columns(reducer: Reducer, columns: Sequence[Sequence[Any]]) -> dict[str, Any]:
    if len(columns) != reducer.n_inputs:
        raise ServiceError(f"The reducer has {reducer.n_inputs} inputs, found {len(columns)}.")
    flat = [v for column in columns for v in column if v is not None]
    if not all(is_number(v) for v in flat):
        raise UnimplementedError("reducing values that are not numbers")
    values = np.array([[0 if v is None else v for v in column] for column in columns], np.float64)
    present = np.array([[v is not None for v in column] for column in columns], bool)
    values, present = values.reshape(len(columns), -1), present.reshape(len(columns), -1)
    integer = tuple(all(isinstance(v, int) for v in column if v is not None) for column in columns)
    return red.evaluate(reducer, Inputs(values, present.astype(np.float64), present, integer))


@ee_function("List.reduce")
def list_reduce(list_: list, reducer: Reducer) -> Any:
    columns = [list_] if reducer.n_inputs == 1 else list(zip(*list_, strict=True))
    found = _of_columns(reducer, columns)
    return next(iter(found.values())) if len(found) == 1 else found


@ee_function("Collection.reduceColumns")
def reduce_columns(collection: Collection, reducer: Reducer, selectors: list) -> dict:
    if reducer.n_inputs != len(selectors) and reducer.n_inputs != 1:
        raise ServiceError(f"Collection.reduceColumns: Need {reducer.n_inputs} selectors, found {len(selectors)}.")
    columns = [[e.properties.get(s) for e in collection.elements] for s in selectors]
    return _of_columns(reducer, columns)
