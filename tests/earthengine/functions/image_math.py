"""Arithmetic on images, band by band and pixel by pixel.

Computed in double precision whatever the bands' type; the type is what computePixels and exports encode. A result that
is not a finite number at a valid pixel (the root of a negative number, say) is answered with HTTP 501.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import ServiceError, UnimplementedError
from ..image import INTEGER_RANGES, Band, Context, Image, Pixels, both
from ..projection import Grid
from ..registry import ee_function
from ..values import is_number
from .basics import _INTEGER_NAMES
from .image_bands import joined

Binary = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _finite(values: np.ndarray, mask: np.ndarray, function: str) -> np.ndarray:
    if values.dtype.kind == "f" and not np.isfinite(np.where(mask > 0, values, 0)).all():
        raise UnimplementedError(f"{function} where the result is not a finite number")
    return values


def _pairs(first: Image, second: Image, function: str) -> list[tuple[int, int]]:
    """Match bands: one band against all, by name where the names agree, else in order."""
    n, m = len(first.bands), len(second.bands)
    if n == 0 or m == 0:
        raise ServiceError(
            f"{function}: If one image has no bands, the other must also have no bands. Got {n} and {m}."
        )
    if m == 1:
        return [(i, 0) for i in range(n)]
    if n == 1:
        return [(0, j) for j in range(m)]
    if n != m:
        raise UnimplementedError(f"{function} of images with {n} and {m} bands")
    if set(first.names) == set(second.names):
        return [(i, second.names.index(name)) for i, name in enumerate(first.names)]
    return [(i, i) for i in range(n)]


def binary(first: Image, second: Image, operation: Binary, kind: Callable[[str, str], str], function: str) -> Image:
    """Combine two images. The footprint is the first one's; properties are lost, but for the index."""
    pairs = _pairs(first, second, function)
    named = second if len(second.bands) > len(first.bands) else first
    bands = tuple(
        Band(named.bands[k].name, kind(first.bands[i].kind, second.bands[j].kind), first.bands[i].projection)
        for k, (i, j) in enumerate(pairs)
    )

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        one = first.read(grid, ctx, [0] if len(first.bands) == 1 else [pairs[w][0] for w in which])
        two = second.read(grid, ctx, [0] if len(second.bands) == 1 else [pairs[w][1] for w in which])
        shape = (len(which), *grid.shape)
        mask = both(np.broadcast_to(one.mask, shape), np.broadcast_to(two.mask, shape))
        with np.errstate(all="ignore"):
            values = operation(_wide(one.values), _wide(two.values))
        return Pixels(_finite(np.broadcast_to(values, shape), mask, function), mask)

    return replace(
        first.computed(),
        bands=bands,
        compute=compute,
        overlaps=lambda g: first.overlaps(g) and second.overlaps(g),
    )


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64, copy=False)


def _arithmetic(first: str, second: str) -> str:
    found = joined(first, second)
    return found if found in ("float", "double", "int64") else "int32"


def _real(first: str, second: str) -> str:
    found = joined(first, second)
    return found if found in ("float", "double") else "double"


def _truth(first: str, second: str) -> str:
    return "uint8"


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Documented: division by 0 gives 0. The quotient of integers is not cut off."""
    return np.where(b == 0, 0.0, a / np.where(b == 0, 1, b))


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.power(a.astype(np.float64), b.astype(np.float64))


def _logical(test: Callable[[Any, Any], Any]) -> Binary:
    return lambda a, b: test(a, b).astype(np.uint8)


_BINARY: dict[str, tuple[Binary, Callable[[str, str], str]]] = {
    "add": (np.add, _arithmetic),
    "subtract": (np.subtract, _arithmetic),
    "multiply": (np.multiply, _arithmetic),
    "divide": (_quotient, _real),
    "max": (np.maximum, joined),
    "min": (np.minimum, joined),
    "mod": (np.fmod, _arithmetic),
    "pow": (_power, _real),
    "hypot": (np.hypot, _real),
    "atan2": (np.arctan2, _real),
    "lt": (_logical(np.less), _truth),
    "lte": (_logical(np.less_equal), _truth),
    "gt": (_logical(np.greater), _truth),
    "gte": (_logical(np.greater_equal), _truth),
    "eq": (_logical(np.equal), _truth),
    "neq": (_logical(np.not_equal), _truth),
    "and": (_logical(np.logical_and), _truth),
    "or": (_logical(np.logical_or), _truth),
    "bitwiseAnd": (np.bitwise_and, _arithmetic),
    "bitwiseOr": (np.bitwise_or, _arithmetic),
    "leftShift": (np.left_shift, _arithmetic),
    "rightShift": (np.right_shift, _arithmetic),
}


def _register_binary(name: str, operation: Binary, kind: Callable[[str, str], str]) -> None:
    def function(image1: Image, image2: Image) -> Image:
        if name in ("bitwiseAnd", "bitwiseOr", "leftShift", "rightShift") and not all(
            b.is_integer for b in (*image1.bands, *image2.bands)
        ):
            raise ServiceError(f"Image.{name}: Bitwise operands must be integer only.")
        return binary(image1, image2, operation, kind, f"Image.{name}")

    ee_function(f"Image.{name}")(function)


for _name, (_operation, _kind) in _BINARY.items():
    _register_binary(_name, _operation, _kind)


def _same(band: Band) -> str:
    return band.kind


def _float(band: Band) -> str:
    return "float" if band.kind == "float" else "double"


def _byte(band: Band) -> str:
    return "uint8"


def _rounded(values: np.ndarray) -> np.ndarray:
    """Round to the nearest integer. A half is not: the service's way with ties is not documented."""
    if values.dtype.kind == "f" and (np.abs(values - np.trunc(values)) == 0.5).any():
        raise UnimplementedError("Image.round of an exact half")
    return np.rint(values)


_UNARY: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[Band], str]]] = {
    "abs": (np.abs, _same),
    "signum": (np.sign, _same),
    "floor": (np.floor, _same),
    "ceil": (np.ceil, _same),
    "round": (_rounded, _same),
    "sqrt": (np.sqrt, _float),
    "exp": (np.exp, _float),
    "log": (np.log, _float),
    "log10": (np.log10, _float),
    "sin": (np.sin, _float),
    "cos": (np.cos, _float),
    "not": (lambda v: (v == 0).astype(np.uint8), _byte),
}


def _unary(
    image: Image, operation: Callable[[np.ndarray], np.ndarray], kind: Callable[[Band], str], name: str
) -> Image:
    def change(pixels: Pixels) -> Pixels:
        with np.errstate(all="ignore"):
            values = operation(np.where(pixels.valid, _wide(pixels.values), 0))
        return Pixels(_finite(values, pixels.mask, f"Image.{name}"), pixels.mask)

    return image.changed(change, kind)


def _register_unary(name: str, operation: Callable[[np.ndarray], np.ndarray], kind: Callable[[Band], str]) -> None:
    ee_function(f"Image.{name}")(lambda value: _unary(value, operation, kind, name))


for _name, (_single, _band_kind) in _UNARY.items():
    _register_unary(_name, _single, _band_kind)


def _cast_integer(kind: str) -> Callable[[Pixels], Pixels]:
    low, high = INTEGER_RANGES[kind]

    def change(pixels: Pixels) -> Pixels:
        values = np.where(pixels.valid, pixels.values, 0)
        if values.dtype.kind == "f" and not (values == np.rint(values)).all():
            raise UnimplementedError(f"casting fractions to {kind} (round or floor first)")
        return Pixels(np.clip(values, low, high).astype(kind), pixels.mask)

    return change


def _register_casts() -> None:
    def integers(kind: str) -> Callable[[Image], Image]:
        return lambda value: value.changed(_cast_integer(kind), lambda band: kind)

    def reals(kind: str, dtype: type) -> Callable[[Image], Image]:
        return lambda value: value.changed(lambda p: Pixels(p.values.astype(dtype), p.mask), lambda band: kind)

    for kind, names in _INTEGER_NAMES.items():
        ee_function(*(f"Image.{n}" for n in names))(integers(kind))
    ee_function("Image.float", "Image.toFloat")(reals("float", np.float32))
    ee_function("Image.double", "Image.toDouble")(reals("double", np.float64))


_register_casts()


# --- choices ----------------------------------------------------------------------------------------------------------


@ee_function("Image.normalizedDifference")
def normalized_difference(input: Image, band_names: list | None) -> Image:
    """(first - second) / (first + second); masked where either is negative; no properties are kept."""
    chosen = input.take([0, 1]) if band_names is None else input.select(band_names)
    if len(chosen.bands) != 2:
        raise ServiceError(f"Image.normalizedDifference: needs 2 bands, found {len(chosen.bands)}.")

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        pixels = chosen.read(grid, ctx)
        a, b = pixels.values.astype(np.float64)
        mask = both(pixels.mask[0], pixels.mask[1])
        mask = both(mask, (a >= 0) & (b >= 0))
        if ((a + b == 0) & (mask > 0)).any():
            raise UnimplementedError("Image.normalizedDifference where both bands are 0")
        with np.errstate(all="ignore"):
            return Pixels(np.where(mask > 0, (a - b) / (a + b), 0)[None], mask[None])

    bands = (Band("nd", "float", chosen.bands[0].projection),)
    return replace(chosen.computed(), bands=bands, compute=compute)


@ee_function("Image.where")
def where(input: Image, test: Image, value: Image) -> Image:
    """Replace where the test is not 0; where the test or the value is masked the input stays."""
    kinds = [joined(b.kind, value.bands[0 if len(value.bands) == 1 else i].kind) for i, b in enumerate(input.bands)]

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        old = input.read(grid, ctx, which)
        tests = test.read(grid, ctx, [0] if len(test.bands) == 1 else which)
        new = value.read(grid, ctx, [0] if len(value.bands) == 1 else which)
        shape = old.mask.shape
        taken = np.broadcast_to(tests.valid & (tests.values != 0), shape) & np.broadcast_to(new.valid, shape)
        return Pixels(np.where(taken & old.valid, np.broadcast_to(new.values, shape), old.values), old.mask)

    bands = tuple(replace(b, kind=k) for b, k in zip(input.bands, kinds, strict=True))
    return replace(input, bands=bands, compute=compute)


@ee_function("Image.remap")
def remap(image: Image, from_: list, to: list, default_value: Any, band_name: str | None) -> Image:
    """Replace listed values; the others become the default, or masked. The band is called "remapped"."""
    if len(from_) != len(to):
        raise ServiceError("Image.remap: Parameters 'from' and 'to' must have the same number of elements.")
    if not all(is_number(v) for v in (*from_, *to)):
        raise UnimplementedError("Image.remap of something other than numbers")
    band = image.take([0]) if band_name is None else image.select([band_name])
    numbers = [*to, *([] if default_value is None else [default_value])]
    kind = "int32" if all(isinstance(v, int) for v in numbers) else "double"

    def change(pixels: Pixels) -> Pixels:
        values = np.full(pixels.values.shape, 0 if default_value is None else default_value, np.float64)
        found = np.zeros(values.shape, bool)
        for old, new in zip(from_, to, strict=True):
            here = pixels.values == old
            values[here], found[here] = new, True
        return Pixels(values, both(pixels.mask, found) if default_value is None else pixels.mask)

    renamed = band.take([0], ["remapped"])
    return renamed.changed(change, lambda b: kind)


@ee_function("Image.clamp")
def clamp(input: Image, low: float, high: float) -> Image:
    return input.changed(lambda p: Pixels(np.clip(p.values, low, high), p.mask))


@ee_function("Image.unitScale")
def unit_scale(input: Image, low: float, high: float) -> Image:
    return input.changed(lambda p: Pixels((p.values - low) / (high - low), p.mask), _float)
