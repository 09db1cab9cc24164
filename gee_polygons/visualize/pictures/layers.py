"""Draws other Earth Engine layers than embeddings: land cover in its legend's colours, and composites of bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from gee_polygons.datasets.sentinel2 import (
    SENTINEL2_INDICES,
    SENTINEL2_REFLECTANCE,
    SENTINEL2_VIS_NDVI,
    SENTINEL2_VIS_TRUE,
)
from gee_polygons.errors import UsageError
from gee_polygons.layers import CategoricalLayer, ContinuousLayer
from gee_polygons.sources.earthengine.drawing import fetch_pixels
from gee_polygons.sources.earthengine.images import layer_image
from gee_polygons.visualize.pictures.frames import export_frames_as_gif, export_frames_as_strip
from gee_polygons.visualize.pictures.render import render_image
from gee_polygons.visualize.pictures.styles import Colour, VisParams, as_style
from gee_polygons.visualize.pictures.view import Dimensions, largest_size

if TYPE_CHECKING:
    from gee_polygons.site import Site

_USUAL: Final = {SENTINEL2_REFLECTANCE.name: SENTINEL2_VIS_TRUE, SENTINEL2_INDICES.name: SENTINEL2_VIS_NDVI}
Layer = CategoricalLayer | ContinuousLayer


def render_site_layer(
    site: Site,
    layer: Layer,
    year: int,
    vis_params: VisParams | Mapping[str, Any] | None = None,
    buffer_m: float = 500.0,
    dimensions: Dimensions = 512,
    boundary_color: Colour = "white",
    label: str | None = None,
) -> Image.Image:
    """Render a year of a layer around a site; the parameters are those of `export_layer_timestrip`."""
    return _frames(site, layer, [year], vis_params, buffer_m, dimensions, boundary_color, [label])[0]


def export_layer_timestrip(
    site: Site,
    layer: Layer,
    output_path: str | Path,
    years: Sequence[int],
    vis_params: VisParams | Mapping[str, Any] | None = None,
    buffer_m: float = 500.0,
    tile_size: Dimensions = 256,
    boundary_color: Colour = "white",
) -> Path:
    """Write one picture with a layer's years side by side: MapBiomas, Dynamic World, Sentinel-2. Needs Earth Engine.

    Parameters
    ----------
    site : Site
        Its polygon is outlined.
    layer : CategoricalLayer or ContinuousLayer
        Such as `gee_polygons.datasets.mapbiomas.MAPBIOMAS`.
    output_path : str or Path
        ``.png``, ``.jpg`` or ``.webp``.
    years : sequence of int
        The years to draw.
    vis_params : VisParams or mapping, optional
        How values become colours. Default: a layer's own legend, Sentinel-2 in true colour, its indices as NDVI.
    buffer_m : float
        Metres of ground shown around the site.
    tile_size : int, (width, height) or "WIDTHxHEIGHT"
        Largest size of a frame in pixels.
    boundary_color : str
        Name or hex.

    Returns
    -------
    Path of the picture.
    """
    labels = [str(year) for year in years]
    frames = _frames(site, layer, years, vis_params, buffer_m, tile_size, boundary_color, labels)
    return export_frames_as_strip(frames, output_path)


def export_layer_gif(
    site: Site,
    layer: Layer,
    output_path: str | Path,
    years: Sequence[int],
    vis_params: VisParams | Mapping[str, Any] | None = None,
    buffer_m: float = 500.0,
    dimensions: Dimensions = 512,
    boundary_color: Colour = "white",
    duration_ms: int | Sequence[int] = 500,
) -> Path:
    """Write an animation of a layer's years; the parameters are those of `export_layer_timestrip`."""
    labels = [str(year) for year in years]
    frames = _frames(site, layer, years, vis_params, buffer_m, dimensions, boundary_color, labels)
    return export_frames_as_gif(frames, output_path, duration_ms)


def _frames(
    site: Site,
    layer: Layer,
    years: Sequence[int],
    vis_params: Any,
    buffer_m: float,
    dimensions: Dimensions,
    boundary_color: Colour,
    labels: Sequence[str | None],
) -> list[Image.Image]:
    if not len(years):
        raise UsageError("give at least one year to draw")
    region = site.region(buffer_m=buffer_m)
    style = VisParams.of(_legend_colours(layer)) if vis_params is None else as_style(vis_params, ())
    assert isinstance(style, VisParams)
    longest, bands = max(largest_size(dimensions)), tuple(style.bands)
    images = [fetch_pixels(layer_image(layer, region, int(year)), region, bands, longest) for year in years]
    frames = [
        render_image(image, region, style, dimensions, site.polygon, label, boundary_color=boundary_color)
        for image, label in zip(images, labels, strict=True)
    ]
    for frame in frames:
        frame.info["Attribution"] = layer.attribution
    return frames


def _legend_colours(layer: Layer) -> dict[str, Any]:
    if isinstance(layer, CategoricalLayer):
        # one of the 256 steps of a palette for each class number, so that no colour is between two classes
        colours = [layer.palette.get(number, "#ffffff") for number in range(256)]
        return {"bands": [layer.band_name], "min": 0, "max": 255, "palette": colours}
    return _USUAL.get(layer.name) or {"bands": layer.bands[: 3 if len(layer.bands) >= 3 else 1]}
