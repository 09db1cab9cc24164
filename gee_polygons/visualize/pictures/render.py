"""Renders an image as a picture.

An `EmbeddingImage` is drawn as it is; the pixels of an `ee.Image` are first fetched into an `EmbeddingImage`. So
colours, boundaries and labels are the same with and without an Earth Engine account.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, cast

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from gee_polygons.alphaearth import BANDS, credit
from gee_polygons.embeddings.colors import fit_pca_colors
from gee_polygons.errors import UsageError
from gee_polygons.reduction.plan import EmbeddingImage
from gee_polygons.visualize.pictures.canvas import nodata_pattern
from gee_polygons.visualize.pictures.overlays import Corner, Overlay, check_corner, outline_of
from gee_polygons.visualize.pictures.styles import (
    Colour,
    Colouring,
    Style,
    as_style,
    bands_of,
    colour,
    legend_of,
    paint,
)
from gee_polygons.visualize.pictures.view import Dimensions, View, largest_size, view_of

PCA: Final = "pca"
_LEAST_DATA_SHARE: Final = 0.5  # a picture pixel with less than this share of data is drawn as "no data"
_LINE_GROWTH: Final = 0.11  # boundary width over the root of the longer side: 1.6 px at 200, 2.5 at 512, 3.5 at 1000


def render_image(
    image: EmbeddingImage | Any,
    region: shapely.Geometry | Any | None = None,
    vis_params: Colouring = None,
    dimensions: Dimensions = 512,
    boundary: shapely.Geometry | Any | None = None,
    label: str | None = None,
    *,
    boundary_color: Colour = "white",
    boundary_width: float | None = None,
    label_position: Corner = "top-left",
    scale_bar: bool = False,
    north_arrow: bool = False,
    legend: bool = False,
) -> Image.Image:
    """Render an image as a picture.

    Pixels are magnified without smoothing, and averaged by area where the picture has fewer pixels than the image.
    The scale is the same in both directions, also for images on a grid in degrees. Ground without data, and ground
    outside the image, is hatched in light grey.

    Parameters
    ----------
    image : EmbeddingImage or ee.Image
        The image.
    region : shapely geometry in EPSG:4326 or ee.Geometry, optional
        The picture shows the bounds of its projection to the image's grid, to a fraction of a pixel. By default the
        whole image (an `ee.Image` needs a region).
    vis_params : VisParams, mapping, PcaColors, path of a .pca.json, SimilarityColors or "pca", optional
        How values become colours. A mapping has the entries of `VisParams`, as in Earth Engine. ``"pca"`` fits the
        colours to this image alone: to compare several, fit once with `fit_pca_colors` and give the result to each.
        By default bands A01, A16, A09 from -0.3 to 0.3.
    dimensions : int, (width, height) or "WIDTHxHEIGHT"
        Largest size in pixels; the picture has the proportions of the ground.
    boundary : shapely polygon in EPSG:4326 or ee.Geometry, optional
        Outline to draw, with all its parts and holes.
    label : str, optional
        Text in a corner.
    boundary_color : str
        Name or hex. A thin halo, dark or white, keeps it readable on any ground.
    boundary_width : float, optional
        In pixels; by default it grows with the square root of the longer side: 2.5 at 512.
    label_position : {"top-left", "top-right", "bottom-left", "bottom-right"}
        Corner of the label.
    scale_bar : bool
        Whether to draw a scale bar, bottom left.
    north_arrow : bool
        Whether to draw an arrow to true north, top right.
    legend : bool
        Whether to draw a colour bar, bottom right, for styles with one: one band, or similarity.

    Returns
    -------
    PIL image, RGB. Its ``info`` holds source and attribution of the data, which the exports write into the file.

    Raises
    ------
    UsageError
        For an unknown band, colour, corner or option, or a region outside the image.
    EarthEngineError
        For an `ee.Image`, if the request to Earth Engine fails.

    Examples
    --------
    >>> from gee_polygons.zonal.grid import Grid
    >>> grid = Grid(crs="EPSG:32616", transform=(10, 0, 358410, 0, -10, 4906600), shape=(2, 4))
    >>> values = np.linspace(-0.3, 0.3, 24).reshape(3, 2, 4)
    >>> image = EmbeddingImage(values=values, grid=grid, bands=("A01", "A16", "A09"), year=2024)
    >>> render_image(image, dimensions=200).size
    (200, 100)
    """
    check_corner(label_position)
    line_rgb = colour(boundary_color)
    region, boundary = _shapely(region), _shapely(boundary)
    if _is_ee(image):
        image = _fetch_ee_pixels(image, region, vis_params, dimensions)
    if not isinstance(image, EmbeddingImage):
        raise UsageError(f"image is an EmbeddingImage or an ee.Image, found {type(image).__name__}")
    style = fit_pca_colors(image) if is_pca(vis_params) else as_style(cast(Any, vis_params), image.bands)
    picture, view = draw_pixels(image, region, style, dimensions)
    overlay = Overlay(picture.size)
    if boundary is not None:
        width = _line_width(picture.size, boundary_width)
        overlay.boundary(outline_of(boundary, view), line_rgb, width)
    if label:
        overlay.label(str(label), label_position)
    if scale_bar:
        overlay.scale_bar(view.metres_per_pixel, "bottom-left")
    if north_arrow:
        overlay.north_arrow(view.north_deg, "top-right")
    if legend and (shown := legend_of(style)) is not None:
        overlay.colour_bar(shown, "bottom-right")
    return overlay.over(picture) if boundary is not None or label or scale_bar or north_arrow or legend else picture


def draw_pixels(
    image: EmbeddingImage, region: shapely.Geometry | None, style: Style, dimensions: Dimensions
) -> tuple[Image.Image, View]:
    """Return a picture of an image's pixels, with nothing over them, and where it lies on the ground."""
    view = view_of(image.grid, region, dimensions)
    picture = Image.fromarray(_pixels(image, view, style))
    picture.info.update(_source_and_attribution(image))
    return picture, view


def _line_width(size: tuple[int, int], boundary_width: float | None) -> float:
    longer = max(size)
    width = max(1.5, _LINE_GROWTH * longer**0.5) if boundary_width is None else boundary_width
    if not 0 < width <= longer:
        raise UsageError(f"boundary_width is a number of pixels above 0, found {boundary_width!r}")
    return width


def _pixels(image: EmbeddingImage, view: View, style: Style) -> NDArray[np.uint8]:
    """Return the colours of the view's pixels, uint8 (height, width, 3)."""
    rows, columns = view.rows(image.grid), view.columns(image.grid)
    part, first_row, first_column = _cut(image, rows, columns)
    rows, columns = rows - first_row, columns - first_column
    rgb, valid = paint(part, style)
    # source pixels per picture pixel; a hair above 1 is rounding
    if max(np.diff(rows).max(), np.diff(columns).max()) <= 1 + 1e-6:
        drawn, share = _magnified(rgb, valid, rows, columns)
    else:
        drawn, share = _averaged(rgb, valid, rows, columns)
    return np.where((share >= _LEAST_DATA_SHARE)[..., None], drawn, nodata_pattern(view.height, view.width))


def _cut(
    image: EmbeddingImage, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> tuple[EmbeddingImage, int, int]:
    """Cut an image to the whole pixels that a view touches; return the part, its first row and its first column."""
    height, width = image.grid.shape
    top, bottom = (int(np.clip(v, 0, height)) for v in (np.floor(rows[0]), np.ceil(rows[-1])))
    left, right = (int(np.clip(v, 0, width)) for v in (np.floor(columns[0]), np.ceil(columns[-1])))
    # a view that rounding moved off the image by less than a pixel still shows its edge
    top, left = min(top, height - 1), min(left, width - 1)
    bottom, right = max(bottom, top + 1), max(right, left + 1)
    grid = image.grid.lattice.grid(image.grid.part(top, left, bottom - top, right - left))
    part = replace(image, values=image.values[:, top:bottom, left:right], grid=grid)
    return part, top, left


def _magnified(
    rgb: NDArray[np.uint8], valid: NDArray[np.bool_], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Take the source pixel under the centre of each picture pixel."""
    y = np.floor((rows[:-1] + rows[1:]) / 2).astype(np.intp)
    x = np.floor((columns[:-1] + columns[1:]) / 2).astype(np.intp)
    inside = ((y >= 0) & (y < len(rgb)))[:, None] & ((x >= 0) & (x < rgb.shape[1]))
    at = np.ix_(np.clip(y, 0, len(rgb) - 1), np.clip(x, 0, rgb.shape[1] - 1))
    return rgb[at], (inside & valid[at]).astype(np.float64)


def _averaged(
    rgb: NDArray[np.uint8], valid: NDArray[np.bool_], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Average the colours of the valid source pixels that each picture pixel covers, weighted by area."""
    down, across = _overlaps(rows, rgb.shape[0]), _overlaps(columns, rgb.shape[1])
    share = down @ valid.astype(np.float64) @ across.T
    sums = np.stack([down @ (channel * valid) @ across.T for channel in np.moveaxis(rgb, -1, 0)], axis=-1)
    mean = np.divide(sums, share[..., None], out=np.zeros_like(sums), where=share[..., None] > 0)
    return np.rint(mean).astype(np.uint8), share


def _overlaps(edges: NDArray[np.float64], n_pixels: int) -> NDArray[np.float64]:
    """Return the share of each picture pixel (row) that each source pixel (column) fills, along one axis."""
    pixel = np.arange(n_pixels)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.clip(overlap, 0, None) / np.diff(edges)[:, None]


def is_pca(vis_params: Any) -> bool:
    """Whether the colours are principal components fitted to what is drawn; any other word raises an error."""
    if not isinstance(vis_params, str) or vis_params.lower().endswith(".json"):
        return False
    if vis_params != PCA:
        raise UsageError(f"vis_params: the only word is 'pca'; or give the path of a .pca.json; found {vis_params!r}")
    return True


def _source_and_attribution(image: EmbeddingImage) -> dict[str, str]:
    """Return what every output must say about the data."""
    info = {"Source": image.source} if image.source else {}
    if image.resampled:
        info["Source"] = f"{image.source} (beyond the zone's edge the nearest pixels of {', '.join(image.resampled)})"
    synthetic = image.source == "sample" or "synthetic" in image.source.lower()
    if image.attribution or synthetic or not {*BANDS, "cosine"}.isdisjoint(image.bands):
        info["Attribution"] = image.attribution or credit(synthetic=synthetic)
    return info


def _is_ee(thing: Any) -> bool:
    """Whether an object is one of Earth Engine's, without importing `ee`."""
    return type(thing).__module__.partition(".")[0] == "ee"


def _shapely(geometry: Any) -> shapely.Geometry | None:
    if not _is_ee(geometry):
        return cast("shapely.Geometry | None", geometry)
    from gee_polygons.sources.earthengine.drawing import shapely_geometry

    return shapely_geometry(geometry)


def _fetch_ee_pixels(image: Any, region: shapely.Geometry | None, vis_params: Any, dimensions: Dimensions) -> Any:
    """Fetch the pixels of an `ee.Image` that a picture needs, as an `EmbeddingImage`."""
    if region is None:
        raise UsageError("an ee.Image is unbounded: give a region, such as site.region(buffer_m=500)")
    from gee_polygons.sources.earthengine.drawing import fetch_pixels

    bands = None if vis_params is None or is_pca(vis_params) else bands_of(as_style(vis_params, BANDS))
    return fetch_pixels(image, region, bands, max(largest_size(dimensions)))
