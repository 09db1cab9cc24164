"""Images: named bands with types and projections, and a way to compute them on a grid. Nothing is computed before.

`Image.read(grid, which, ctx)` gives `Pixels`: values and masks of shape (bands, height, width). A mask is boolean, or
float in 0..1 where an operation made it fractional. Masked values are meaningless and never looked at.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .errors import ServiceError, UnimplementedError
from .faults import Faults
from .geometry import Geometry
from .projection import WGS84, Grid, Projection

INTEGER_RANGES = {
    "uint8": (0, 255),
    "int8": (-128, 127),
    "uint16": (0, 65_535),
    "int16": (-32_768, 32_767),
    "uint32": (0, 2**32 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}
MAX_BANDS = 5_000


@dataclass
class Context:
    """What an evaluation needs and uses: limits, the number of pixels so far, and pixels already computed."""

    archive: Any = None
    faults: Faults = field(default_factory=Faults)
    rendering: bool = False  # pictures may be decimated and drawn; numbers may not
    null_properties: str = "absent"
    exact_weights: bool = False
    pixel_bands: float = 0.0
    scaled: float = 0.0
    batch: bool = False
    _cache: OrderedDict[tuple, tuple[Image, Pixels]] = field(default_factory=OrderedDict)
    _cached_bytes: int = 0

    def charge(self, pixels: float, bands: int, tile_scale: float = 1.0) -> None:
        self.pixel_bands += pixels * bands
        self.scaled += pixels * bands / tile_scale
        if not self.batch:
            self.faults.charge(self.pixel_bands, self.scaled)

    def cached(self, image: Image, grid: Grid, which: tuple[int, ...], compute: Callable[[], Pixels]) -> Pixels:
        """Remember the last few results, so that a band used twice is computed once."""
        key = (id(image), grid, which)
        found = self._cache.get(key)
        if found is not None:
            self._cache.move_to_end(key)
            return found[1]
        pixels = compute()
        self._cache[key] = (image, pixels)  # the image is kept too: its id must not be used again
        self._cached_bytes += pixels.values.nbytes
        while self._cached_bytes > 128_000_000 and len(self._cache) > 1:
            _, (_, old) = self._cache.popitem(last=False)
            self._cached_bytes -= old.values.nbytes
        return pixels


@dataclass(frozen=True)
class Pixels:
    """values and mask, both (bands, height, width)."""

    values: np.ndarray
    mask: np.ndarray

    @staticmethod
    def nothing(bands: int, grid: Grid) -> Pixels:
        shape = (bands, *grid.shape)
        return Pixels(np.broadcast_to(np.float32(0), shape), np.broadcast_to(False, shape))

    @property
    def valid(self) -> np.ndarray:
        return self.mask if self.mask.dtype == bool else self.mask > 0


def both(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Combine two masks: the product."""
    if first.dtype == bool and second.dtype == bool:
        return first & second
    return first.astype(np.float64) * second


@dataclass(frozen=True)
class Band:
    """`kind`: int8, uint8, ..., int64, float, double."""

    name: str
    kind: str
    projection: Projection = WGS84

    @property
    def is_integer(self) -> bool:
        return self.kind in INTEGER_RANGES

    @property
    def dtype(self) -> np.dtype:
        return np.dtype({"float": "float32", "double": "float64"}.get(self.kind, self.kind))


Read = Callable[[Grid, tuple[int, ...], Context], Pixels]


@dataclass(frozen=True, eq=False)
class Image:
    """`inside` says which pixel centres lie in the footprint; None is everywhere. `view` bounds a picture."""

    bands: tuple[Band, ...]
    compute: Read
    properties: dict[str, Any] = field(default_factory=dict)
    footprint: Geometry | None = None
    inside: Callable[[Grid], np.ndarray] | None = None
    overlaps: Callable[[Grid], bool] = lambda grid: True
    view: Grid | None = None
    id: str | None = None

    @property
    def names(self) -> list[str]:
        return [band.name for band in self.bands]

    @property
    def index(self) -> str | None:
        return self.properties.get("system:index")

    def read(self, grid: Grid, ctx: Context, which: Sequence[int] | None = None) -> Pixels:
        chosen = tuple(range(len(self.bands))) if which is None else tuple(which)
        return ctx.cached(self, grid, chosen, lambda: self.compute(grid, chosen, ctx))

    def with_properties(self, properties: dict[str, Any]) -> Image:
        return replace(self, properties=properties)

    def take(self, positions: Sequence[int], names: Sequence[str] | None = None) -> Image:
        """Select bands by position."""
        chosen = tuple(positions)
        new = list(names) if names is not None else [self.bands[i].name for i in chosen]
        if len(new) != len(chosen):
            raise ServiceError(
                f"Image.select: Can't rename {len(chosen)} bands to {len(new)} names; the numbers must be equal."
            )
        bands = tuple(replace(self.bands[i], name=name) for i, name in zip(chosen, new, strict=True))
        repeated = [n for n in new if new.count(n) > 1]
        if repeated:
            raise ServiceError(f"Image.select: Duplicate band name: '{repeated[0]}'.")
        return replace(
            self, bands=bands, compute=lambda grid, which, ctx: self.read(grid, ctx, [chosen[i] for i in which])
        )

    def select(self, selectors: Sequence[Any], names: Sequence[str] | None = None) -> Image:
        """Select bands by name, number or regular expression (a whole match), in the order asked for."""
        positions: list[int] = []
        for selector in selectors:
            positions.extend(self._matches(selector))
        return self.take(positions, names)

    def _matches(self, selector: Any) -> list[int]:
        if isinstance(selector, int | float) and not isinstance(selector, bool):
            if not 0 <= selector < len(self.bands):
                raise ServiceError(
                    f"Image.select: Band number {int(selector)} is out of range for an image with "
                    f"{len(self.bands)} bands."
                )
            return [int(selector)]
        names = self.names
        if selector in names:
            return [names.index(selector)]
        try:
            found = [i for i, name in enumerate(names) if re.fullmatch(selector, name)]
        except re.error:
            found = []
        if not found:
            if not names:
                raise ServiceError(
                    f"Image.select: Band pattern '{selector}' was applied to an Image with no bands. "
                    "See https://developers.google.com/earth-engine/guides/debugging#no-bands"
                )
            raise ServiceError(
                f"Image.select: Band pattern '{selector}' did not match any bands. "
                f"Available bands: [{', '.join(names)}]"
            )
        return found

    def changed(
        self,
        function: Callable[[Pixels], Pixels],
        kind: Callable[[Band], str] | None = None,
    ) -> Image:
        """Return an image computed pixel by pixel; its footprint and projections stay, its properties don't."""
        bands = tuple(replace(b, kind=kind(b)) for b in self.bands) if kind else self.bands
        return replace(
            self.computed(), bands=bands, compute=lambda grid, which, ctx: function(self.read(grid, ctx, which))
        )

    def computed(self) -> Image:
        """Return what arithmetic leaves of an image's metadata: its index (hence the idiom `copyProperties`)."""
        return replace(self, properties={k: v for k, v in self.properties.items() if k == "system:index"}, id=None)


def constant(values: Sequence[float], names: Sequence[str] | None = None) -> Image:
    """Return the same number everywhere, in EPSG:4326 at 1 degree."""
    if names is None:
        names = ["constant"] if len(values) == 1 else [f"constant_{i}" for i in range(len(values))]
    kinds = ["int32" if isinstance(v, int) and abs(v) < 2**31 else "double" for v in values]
    numbers = np.asarray(values, np.float64 if "double" in kinds else np.int64)

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        shape = (len(which), *grid.shape)
        return Pixels(
            np.broadcast_to(numbers[list(which)][:, None, None], shape),
            np.broadcast_to(True, shape),
        )

    return Image(tuple(Band(n, k) for n, k in zip(names, kinds, strict=True)), compute)


def empty_image() -> Image:
    """Return an image with no bands: what composites of nothing are."""
    return Image((), lambda grid, which, ctx: Pixels.nothing(0, grid))


def stack(images: Sequence[Image], names: Sequence[str]) -> Image:
    """Put the bands of images behind one another. Metadata and footprint come from the first."""
    if len(names) > MAX_BANDS:
        raise ServiceError(f"Image.cat: Too many bands: {len(names)}; at most {MAX_BANDS} are allowed.")
    owners = [(image, i) for image in images for i in range(len(image.bands))]
    bands = tuple(replace(image.bands[i], name=name) for (image, i), name in zip(owners, names, strict=True))

    def compute(grid: Grid, which: tuple[int, ...], ctx: Context) -> Pixels:
        parts: list[Pixels] = []
        start = 0
        while start < len(which):
            image = owners[which[start]][0]
            stop = start
            while stop < len(which) and owners[which[stop]][0] is image:
                stop += 1
            parts.append(image.read(grid, ctx, [owners[w][1] for w in which[start:stop]]))
            start = stop
        if not parts:
            return Pixels.nothing(0, grid)
        if len(parts) == 1:
            return parts[0]
        masks = [p.mask for p in parts]
        if any(m.dtype != bool for m in masks):
            masks = [m.astype(np.float64) for m in masks]
        return Pixels(np.concatenate([p.values for p in parts]), np.concatenate(masks))

    first = images[0] if images else empty_image()
    return replace(
        first,
        bands=bands,
        compute=compute,
        overlaps=lambda grid: any(image.overlaps(grid) for image in images),
        view=next((i.view for i in images if i.view is not None), None),
    )


def unique_names(names: Sequence[str]) -> list[str]:
    """Give repeated names a running number: a, a_1, a_2."""
    found: list[str] = []
    for name in names:
        candidate, number = name, 0
        while candidate in found:
            number += 1
            candidate = f"{name}_{number}"
        found.append(candidate)
    return found


def check_scale(native: Projection, grid: Grid, ctx: Context) -> None:
    """Refuse numbers at coarser scales: Earth Engine would read its pyramids, which are not modelled here."""
    if not ctx.rendering and grid.nominal_scale > native.nominal_scale * 1.999:
        raise UnimplementedError(
            f"numbers at a scale of {grid.nominal_scale:.6g} m from pixels of {native.nominal_scale:.6g} m "
            "(Earth Engine reads its image pyramids there)"
        )
