"""Turns pixel values into colours: three bands, one band with a palette, principal components, or similarity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from gee_polygons.alphaearth import NODATA
from gee_polygons.embeddings.colors import PcaColors
from gee_polygons.embeddings.inputs import reference_vector
from gee_polygons.embeddings.quantization import codes_to_vectors, vectors_to_codes
from gee_polygons.embeddings.similarity import similarity_image
from gee_polygons.errors import UsageError
from gee_polygons.layers import CategoricalLayer
from gee_polygons.reduction.plan import EmbeddingImage

Colour: TypeAlias = str | tuple[int, int, int]

# the three bands and the stretch that Google's own examples show
DEFAULT_BANDS: Final = ("A01", "A16", "A09")
DEFAULT_MIN: Final = -0.3
DEFAULT_MAX: Final = 0.3
_PALETTE_STEPS: Final = 256
_GREYS: Final = ("black", "white")


@dataclass(frozen=True, kw_only=True)
class VisParams:
    """Which bands are drawn, and how values become colours, as in Earth Engine's ``visParams``.

    Parameters
    ----------
    bands : tuple of 1 or 3 str
        One band (grey, or in the colours of `palette`), or three (red, green, blue). ``"A01,A16,A09"`` means the same.
    min, max : float, or one per band
        Values drawn as 0 and as 255, in units of the band; values beyond them are drawn as 0 or 255.
    palette : str or tuple of str, optional
        For one band: the name of a matplotlib colour map (``"viridis"``), or colours at equal steps from min to max.
    gamma : float, or one per band
        A value t, stretched to 0..1, is drawn as ``t ** (1 / gamma)``: a gamma above 1 brightens.

    Raises
    ------
    UsageError
        If there aren't 1 or 3 bands, min isn't below max, or a palette comes with three bands.

    Examples
    --------
    >>> VisParams(bands=["A05", "A25", "A45"], max=0.2)
    VisParams(bands=('A05', 'A25', 'A45'), min=-0.3, max=0.2, palette=None, gamma=1.0)
    """

    bands: Sequence[str] = DEFAULT_BANDS
    min: float | Sequence[float] = DEFAULT_MIN
    max: float | Sequence[float] = DEFAULT_MAX
    palette: str | Sequence[str] | None = None
    gamma: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        bands = self.bands.split(",") if isinstance(self.bands, str) else self.bands
        bands = tuple(str(band).strip() for band in bands)
        if len(bands) not in (1, 3):
            raise UsageError(f"a picture needs 1 or 3 bands, found {len(bands)}: {', '.join(bands[:5])}")
        object.__setattr__(self, "bands", bands)
        for name in ("min", "max", "gamma"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), len(bands)))
        low, high, gamma = (np.asarray(v) for v in (self.min, self.max, self.gamma))
        if not np.all(low < high):
            raise UsageError(f"vis_params: min must be below max, found min={self.min}, max={self.max}")
        if not np.all(gamma > 0):
            raise UsageError(f"vis_params: gamma must be above 0, found {self.gamma}")
        if self.palette is not None:
            if len(bands) != 1:
                raise UsageError("vis_params: a palette needs one band; leave it out for three")
            if not isinstance(self.palette, str):
                object.__setattr__(self, "palette", tuple(self.palette))
            palette_table(self.palette)

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> VisParams:
        """Build the parameters from a mapping, such as ``{"bands": [...], "min": -0.3, "max": 0.3}``.

        Examples
        --------
        >>> VisParams.of({"bands": ["A01"], "min": 0, "max": 1}).min
        0.0
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in params if name not in known]
        if unknown:
            raise UsageError(f"vis_params: unknown entry {unknown[0]!r}; it takes {', '.join(known)}")
        return cls(**params)


@dataclass(frozen=True, kw_only=True)
class ClassColors(VisParams):
    """Draws each class of a layer in its legend's colour.

    Parameters
    ----------
    classes : tuple of (int, str, str)
        Number, name and colour of the classes that a caption explains.
    """

    classes: tuple[tuple[int, str, str], ...] = ()

    @classmethod
    def of_layer(cls, layer: CategoricalLayer) -> ClassColors:
        """Return the legend of a layer."""
        classes = tuple(
            (n, name.replace("_", " "), layer.palette.get(n, "white")) for n, name in layer.class_names.items()
        )
        colours = {number: name for number, _, name in classes}
        # one of the 256 steps of a palette for each number, so that no colour lies between two classes
        palette = [colours.get(number, "white") for number in range(_PALETTE_STEPS)]
        return cls(bands=(layer.band_name,), min=0, max=_PALETTE_STEPS - 1, palette=palette, classes=classes)

    def occurring_in(self, images: Iterable[EmbeddingImage]) -> ClassColors:
        """Return the style with those classes alone that occur in some images."""
        found = {int(n) for i in images for n in np.unique(i.select(tuple(self.bands)).values[:, i.valid])}
        return replace(self, classes=tuple(entry for entry in self.classes if entry[0] in found))


@dataclass(frozen=True, kw_only=True, eq=False)
class SimilarityColors:
    """Draws each pixel in the colour of its cosine to a reference vector.

    Parameters
    ----------
    reference : array of 64 floats, or row of a table
        For example a class prototype, the site's own first year, or a pixel; of any length > 0.
    min, max : float
        Cosines drawn in the first and the last colour: the same for every frame, so that frames can be compared.
    palette : str or tuple of str
        Name of a matplotlib colour map, or colours.
    label : str
        Text of the legend.

    Examples
    --------
    >>> SimilarityColors(reference=np.eye(64)[0], min=0.5).max
    1.0
    """

    reference: Any
    min: float = 0.0
    max: float = 1.0
    palette: str | Sequence[str] = "viridis"
    label: str = "cosine to the reference"

    def __post_init__(self) -> None:
        object.__setattr__(self, "reference", reference_vector(self.reference))
        self.params  # noqa: B018, checks min, max and palette

    @classmethod
    def to_point(cls, image: EmbeddingImage, lon: float, lat: float, **options: Any) -> SimilarityColors:
        """Compare with the pixel at a point, given in degrees; `options` are those of the class.

        Raises
        ------
        UsageError
            If the image has no data at the point.
        """
        from gee_polygons.zonal.projection import transformer

        x, y = transformer("EPSG:4326", image.grid.crs).transform(lon, lat)
        a, _, c, _, e, f = image.grid.transform
        x, y = (v if math.isfinite(v) else -1e12 for v in (x, y))  # outside the area where the CRS is defined
        column, row = math.floor((x - c) / a), math.floor((y - f) / e)
        height, width = image.grid.shape
        if not (0 <= row < height and 0 <= column < width) or not image.valid[row, column]:
            raise UsageError(f"the image has no data at longitude {lon:g}, latitude {lat:g}")
        label = f"cosine to {lat:.4f}, {lon:.4f}"
        return cls(reference=image.vectors[:, row, column], **{"label": label, **options})

    @property
    def params(self) -> VisParams:
        """The same as parameters for an image of cosines."""
        return VisParams(bands=("cosine",), min=self.min, max=self.max, palette=self.palette)


Style: TypeAlias = VisParams | PcaColors | SimilarityColors
Colouring: TypeAlias = Style | Mapping[str, Any] | str | Path | None  # "pca", or the path of a colour basis


@dataclass(frozen=True, kw_only=True)
class Legend:
    """A colour bar: colours at equal steps, the values at its ends, and what the values are."""

    colours: NDArray[np.uint8]
    low: float
    high: float
    label: str


def as_style(vis_params: Colouring, image_bands: Sequence[str]) -> Style:
    """Return the style that the user gave.

    None means ``A01, A16, A09`` where the image has them, else its first three bands, else its first one in grey.
    """
    if vis_params is None:
        if set(DEFAULT_BANDS) <= set(image_bands):
            return VisParams()
        return VisParams(bands=tuple(image_bands[:3]) if len(image_bands) >= 3 else (image_bands[0],))
    if isinstance(vis_params, VisParams | PcaColors | SimilarityColors):
        return vis_params
    if isinstance(vis_params, Mapping):
        return VisParams.of(vis_params)
    if isinstance(vis_params, str | Path):
        return PcaColors.load(vis_params)
    raise UsageError(
        f"vis_params is a VisParams, a mapping with bands, min, max, a PcaColors or a SimilarityColors, "
        f"found {type(vis_params).__name__}"
    )


def bands_of(style: Style) -> tuple[str, ...] | None:
    """Name the bands that a style draws; None for all 64."""
    return tuple(style.bands) if isinstance(style, VisParams) else None


def paint(image: EmbeddingImage, style: Style) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the colours of an image, uint8 (height, width, 3), and where it has data, bool (height, width)."""
    if isinstance(style, PcaColors):
        return style.image_rgb(image), image.valid
    if isinstance(style, SimilarityColors):
        image, style = similarity_image(image, style.reference), style.params
    selected = image.select(tuple(style.bands))
    levels = _levels(_stretch(_exact_values(selected.values), style))
    if len(style.bands) == 1:
        return palette_table(style.palette or _GREYS)[levels[0]], selected.valid
    return np.moveaxis(levels, 0, -1), selected.valid


def legend_of(style: Style) -> Legend | None:
    """Return the colour bar of a style; None for styles whose colours don't lie along one axis."""
    if isinstance(style, PcaColors | ClassColors) or (isinstance(style, VisParams) and len(style.bands) != 1):
        return None
    params = style.params if isinstance(style, SimilarityColors) else style
    label = style.label if isinstance(style, SimilarityColors) else params.bands[0]
    ramp = np.linspace(0, 1, _PALETTE_STEPS) ** (1 / np.asarray(params.gamma, np.float64))
    index = np.rint(ramp * (_PALETTE_STEPS - 1)).astype(np.intp)
    low, high = np.ravel(params.min)[0], np.ravel(params.max)[0]
    return Legend(colours=palette_table(params.palette or _GREYS)[index], low=float(low), high=float(high), label=label)


def colour(value: Colour) -> tuple[int, int, int]:
    """Return a colour as (red, green, blue), 0..255, from a CSS name, ``#rgb``, ``#rrggbb`` or ``rrggbb``.

    Examples
    --------
    >>> colour("white"), colour("#f80"), colour("ff8800")
    ((255, 255, 255), (255, 136, 0), (255, 136, 0))
    """
    if isinstance(value, str):
        for text in (value, f"#{value}"):
            try:
                return ImageColor.getrgb(text.strip())[:3]
            except ValueError:
                continue
    elif len(value) >= 3 and all(isinstance(v, int | np.integer) and 0 <= v <= 255 for v in value):
        return int(value[0]), int(value[1]), int(value[2])
    raise UsageError(f"unknown colour {value!r}; give a name such as 'white', or '#rrggbb'")


@lru_cache(maxsize=32)
def palette_table(palette: str | Sequence[str]) -> NDArray[np.uint8]:
    """Return 256 colours, uint8, shape (256, 3), of a named colour map or of a tuple of colours at equal steps."""
    at = np.linspace(0, 1, _PALETTE_STEPS)
    if isinstance(palette, str) and "," not in palette:
        import matplotlib as mpl

        if palette not in mpl.colormaps:
            raise UsageError(f"unknown palette {palette!r}; give a matplotlib colour map such as 'viridis', or colours")
        table = mpl.colormaps[palette](at)[:, :3] * 255
    else:
        stops = np.array([colour(name) for name in (palette.split(",") if isinstance(palette, str) else palette)])
        if not len(stops):
            raise UsageError("a palette needs at least one colour")
        table = np.stack([np.interp(at, np.linspace(0, 1, len(stops)), channel) for channel in stops.T], axis=-1)
    return np.rint(table).astype(np.uint8)


def _stretch(values: NDArray[np.float64], params: VisParams) -> NDArray[np.float64]:
    """Stretch values (bands, y, x) to 0..1; missing ones become 0."""
    low, high, gamma = (np.reshape(np.asarray(v, float), (-1, 1, 1)) for v in (params.min, params.max, params.gamma))
    share = np.nan_to_num(np.clip((values - low) / (high - low), 0.0, 1.0))
    return share if np.all(gamma == 1) else share ** (1 / gamma)


def _exact_values(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return values as float64: codes and float32 copies of codes as the exact values of the codes.

    Some codes lie exactly between two of the 256 levels. With this formula, codes and their float32 copies get the
    same colours, those that the formula gives in plain NumPy.
    """
    if values.dtype == np.int8:
        k = values.astype(np.float64)
        return np.where(values == NODATA, np.nan, np.sign(k) * (k / 127.5) ** 2)
    exact = values.astype(np.float64)
    if values.dtype != np.float32:
        return exact
    within = np.abs(values) < 1  # False for nodata
    codes = vectors_to_codes(np.where(within, values, np.nan))
    return np.where(within & (codes_to_vectors(codes) == values), _exact_values(codes), exact)


def _levels(share: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Turn shares 0..1 into levels 0..255, rounding halves up."""
    return np.floor(share * 255 + 0.5).astype(np.uint8)


def _numbers(name: str, value: Any, n_bands: int) -> float | tuple[float, ...]:
    try:
        numbers = tuple(float(v) for v in np.atleast_1d(np.asarray(value, np.float64)))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) not in (1, n_bands) or not np.isfinite(numbers).all():
        raise UsageError(f"vis_params: {name} is a number, or one per band ({n_bands}), found {value!r}")
    return numbers[0] if np.ndim(value) == 0 else numbers
