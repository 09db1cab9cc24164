"""Draws other Earth Engine layers than embeddings: land cover in its legend's colours, and composites of bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import shapely
from PIL import Image

from gee_polygons.layers import CategoricalLayer, ContinuousLayer
from gee_polygons.reduction.plan import EmbeddingImage
from gee_polygons.visualize.pictures.render import render_image
from gee_polygons.visualize.pictures.series import export_timelapse, export_timestrip
from gee_polygons.visualize.pictures.styles import ClassColors, VisParams
from gee_polygons.visualize.pictures.view import Dimensions

if TYPE_CHECKING:
    from gee_polygons.site import Site

_LARGEST_PX: Final = 1000  # of regions that are too large to be read pixel by pixel
Layer = CategoricalLayer | ContinuousLayer


def export_layer_timestrip(
    site: Site,
    layer: Layer,
    output_path: str | Path,
    years: Sequence[int],
    vis_params: VisParams | Mapping[str, Any] | None = None,
    buffer_m: float = 500.0,
    tile_size: Dimensions | None = None,
    **layout: Any,
) -> Path:
    """Write one picture with a layer's years side by side: MapBiomas, Dynamic World, Sentinel-2. Needs Earth Engine.

    Parameters
    ----------
    site : Site
        Its polygon is outlined.
    layer : CategoricalLayer or ContinuousLayer
        Such as `gee_polygons.datasets.mapbiomas.MAPBIOMAS`.
    output_path : str or Path
        ``.png``, ``.jpg``, ``.webp``, ``.pdf`` or ``.svg``.
    years : sequence of int
        The years to draw.
    vis_params : VisParams or mapping, optional
        How values become colours. Default: the layer's own legend, of which the classes that occur stand under the
        frames; Sentinel-2 in true colour, its indices as NDVI.
    buffer_m : float
        Metres of ground shown around the site.
    tile_size : int, (width, height) or "WIDTHxHEIGHT", optional
        Largest size of a frame in pixels: `dimensions` of `export_timestrip`.
    **layout
        `columns`, `dpi`, `width_mm`, `boundary_color` and `title`: see `export_timestrip`.

    Returns
    -------
    Path of the picture.
    """
    return export_timestrip(
        site, output_path, years=years, source=_LayerSource(layer), vis_params=_style(layer, vis_params),
        buffer_m=buffer_m, dimensions=tile_size, **{"title": _title(site, layer), **layout},
    )  # fmt: skip


def export_layer_gif(
    site: Site,
    layer: Layer,
    output_path: str | Path,
    years: Sequence[int],
    vis_params: VisParams | Mapping[str, Any] | None = None,
    buffer_m: float = 500.0,
    dimensions: Dimensions | None = None,
    **layout: Any,
) -> Path:
    """Write an animation of a layer's years: see `export_layer_timestrip` and `export_timelapse`."""
    return export_timelapse(
        site, output_path, years=years, source=_LayerSource(layer), vis_params=_style(layer, vis_params),
        buffer_m=buffer_m, dimensions=dimensions, **{"title": _title(site, layer), **layout},
    )  # fmt: skip


def render_site_layer(
    site: Site,
    layer: Layer,
    year: int,
    vis_params: VisParams | Mapping[str, Any] | None = None,
    buffer_m: float = 500.0,
    dimensions: Dimensions = 512,
    **options: Any,
) -> Image.Image:
    """Render a year of a layer around a site; the options are those of `render_image`."""
    region = site.region(buffer_m=buffer_m)
    image = _LayerSource(layer).image(region, year)
    return render_image(image, region, _style(layer, vis_params), dimensions, site.polygon, **options)


class _LayerSource:
    """A layer of Earth Engine as a source of pictures."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.name, self.archive = layer, "earthengine", layer.collection_id

    def years(self) -> list[int]:
        return list(range(self.layer.first_year, (self.layer.last_year or date.today().year) + 1))

    def image(self, region: shapely.Geometry, year: int, bands: Sequence[str] | None = None) -> EmbeddingImage:
        from gee_polygons.sources.earthengine.drawing import fetch_pixels
        from gee_polygons.sources.earthengine.images import layer_image

        names = bands or ([self.layer.band_name] if isinstance(self.layer, CategoricalLayer) else self.layer.bands)
        image = fetch_pixels(layer_image(self.layer, region, int(year)), region, names, _LARGEST_PX)
        return replace(image, year=int(year), attribution=self.layer.attribution)


def _style(layer: Layer, vis_params: VisParams | Mapping[str, Any] | None) -> VisParams | Mapping[str, Any]:
    if vis_params is not None:
        return vis_params
    if isinstance(layer, CategoricalLayer):
        return ClassColors.of_layer(layer)
    from gee_polygons.datasets import sentinel2

    usual = {
        sentinel2.SENTINEL2_REFLECTANCE.name: sentinel2.SENTINEL2_VIS_TRUE,
        sentinel2.SENTINEL2_INDICES.name: sentinel2.SENTINEL2_VIS_NDVI,
    }
    return usual.get(layer.name) or VisParams(bands=layer.bands[: 3 if layer.n_bands >= 3 else 1])


def _title(site: Site, layer: Layer) -> str:
    return f"{site.site_id}: {layer.name.replace('_', ' ')}"
