"""Many pictures in the same colours: the years of a site side by side or as a film, and sheets of sites and years."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import shapely
from PIL import Image

from gee_polygons.embeddings.colors import PcaColors, fit_pca_colors
from gee_polygons.embeddings.quantization import BANDS
from gee_polygons.errors import UsageError
from gee_polygons.pictures.draw import Plates, nodata_pattern
from gee_polygons.pictures.frames import export_frames_as_gif, export_frames_as_strip, grid, info_of, save_still
from gee_polygons.pictures.paint import Colour, Style, as_style, bands_of
from gee_polygons.pictures.render import is_pca, render_image
from gee_polygons.pictures.view import Dimensions
from gee_polygons.sources.base import EmbeddingImage, Source

if TYPE_CHECKING:
    from gee_polygons.site import Site

__all__ = ["contact_sheet", "export_timelapse", "export_timestrip"]


def export_timestrip(
    site: Site,
    path: str | Path,
    *,
    years: Sequence[int] | None = None,
    source: Source | str | None = None,
    vis_params: Style | Mapping[str, Any] | str | None = None,
    buffer_m: float = 500.0,
    dimensions: Dimensions = 400,
    boundary_color: Colour = "white",
    wrap: int | None = None,
) -> Path:
    """Write one picture with a site's years side by side.

    Parameters
    ----------
    site : Site
        Its polygon is outlined.
    path : str or Path
        ``.png``, ``.jpg`` or ``.webp``.
    years : sequence of int, optional
        By default all that the source has. A year that it lacks is a hatched frame.
    source : Source or str, optional
        As `open_source` takes it.
    vis_params : VisParams, mapping, PcaColors, SimilarityColors or "pca", optional
        The same for all years. ``"pca"`` fits one basis to all frames, and saves it beside the picture as
        ``<name>.pca.json``.
    buffer_m : float
        Metres of ground shown around the site.
    dimensions : int, (width, height) or "WIDTHxHEIGHT"
        Largest size of a frame in pixels.
    boundary_color : str
        Name or hex.
    wrap : int, optional
        Frames per row: see `export_frames_as_strip`.

    Returns
    -------
    Path of the picture.
    """
    [frames] = _rows_of_frames([site], path, years, source, vis_params, buffer_m, dimensions, boundary_color, True)
    return export_frames_as_strip(frames, path, wrap=wrap)


def export_timelapse(
    site: Site,
    path: str | Path,
    *,
    years: Sequence[int] | None = None,
    source: Source | str | None = None,
    vis_params: Style | Mapping[str, Any] | str | None = None,
    buffer_m: float = 500.0,
    dimensions: Dimensions = 512,
    boundary_color: Colour = "white",
    duration_ms: int | Sequence[int] = 700,
    loop: int | None = 0,
) -> Path:
    """Write a film of a site's years: ``.gif``, ``.webp`` or ``.mp4``.

    The parameters are those of `export_timestrip` and `export_frames_as_gif`.
    """
    [frames] = _rows_of_frames([site], path, years, source, vis_params, buffer_m, dimensions, boundary_color, True)
    return export_frames_as_gif(frames, path, duration_ms=duration_ms, loop=loop)


def contact_sheet(
    sites: Sequence[Site],
    path: str | Path,
    *,
    years: Sequence[int] | None = None,
    source: Source | str | None = None,
    vis_params: Style | Mapping[str, Any] | str | None = None,
    buffer_m: float = 300.0,
    dimensions: Dimensions = 200,
    boundary_color: Colour = "white",
) -> Path:
    """Write one picture with sites as rows and years as columns.

    The parameters are those of `export_timestrip`. With ``"pca"`` one basis is fitted to all frames, and their codes
    are held in memory: 64 bytes per pixel.

    Returns
    -------
    Path of the picture.
    """
    if not sites:
        raise UsageError("a contact sheet needs at least one site")
    found = _open(source)
    chosen = _years(found, years)
    rows = _rows_of_frames(sites, path, chosen, found, vis_params, buffer_m, dimensions, boundary_color, False)
    sheet = grid(
        rows, titles=[[str(year) for year in chosen]], row_titles=[str(site.site_id) for site in sites], gap=None
    )
    return save_still(sheet, path, info_of(frame for row in rows for frame in row))


def _rows_of_frames(
    sites: Sequence[Site],
    path: str | Path,
    years: Sequence[int] | None,
    source: Source | str | None,
    vis_params: Style | Mapping[str, Any] | str | None,
    buffer_m: float,
    dimensions: Dimensions,
    boundary_color: Colour,
    labelled: bool,
) -> list[list[Image.Image]]:
    """Render the years of sites, all in the same colours."""
    found = _open(source)
    chosen = _years(found, years)
    # cells of a sheet are equal
    regions = [_region(site, buffer_m, square=not labelled) for site in sites]
    if is_pca(vis_params):
        rows = [list(_images(region, found, chosen, None)) for region in regions]
        style: Style = fit_pca_colors(image for row in rows for image in row if image is not None)
        cast(PcaColors, style).save(Path(path).with_suffix(".pca.json"))
        images: Iterator[Sequence[EmbeddingImage | None]] = iter(rows)
    else:
        style = as_style(cast(Any, vis_params), BANDS)
        images = (list(_images(region, found, chosen, bands_of(style))) for region in regions)
    frames = []
    for site, region, row in zip(sites, regions, images, strict=True):
        first = True
        pictures: list[Image.Image | None] = []
        for year, image in zip(chosen, row, strict=True):
            picture = None
            if image is not None:
                empty = not image.valid.any()
                text = f"{year}: no data" if labelled and empty else "no data" if empty else str(year)
                picture = render_image(
                    image,
                    region,
                    style,
                    dimensions,
                    site.polygon,
                    text if labelled or empty else None,
                    boundary_color=boundary_color,
                    scale_bar=first and not empty,
                    legend=first and not empty,
                )
                first = first and empty
            pictures.append(picture)
        frames.append(_with_placeholders(pictures, chosen, labelled))
    return frames


def _with_placeholders(
    pictures: Sequence[Image.Image | None], years: Sequence[int], labelled: bool
) -> list[Image.Image]:
    size = next((p.size for p in pictures if p is not None), (200, 200))
    filled = []
    for year, picture in zip(years, pictures, strict=True):
        if picture is None:
            picture = Image.fromarray(nodata_pattern(size[1], size[0]))
            Plates(picture).label(f"{year}: no data" if labelled else "no data", "top-left")
        filled.append(picture)
    return filled


def _region(site: Site, buffer_m: float, *, square: bool) -> shapely.Geometry:
    """Return what is shown of a site, in EPSG:4326; a square of ground where asked for."""
    region = site.region(buffer_m=buffer_m)
    if not square:
        return region
    west, south, east, north = region.bounds
    shrink = math.cos(math.radians((south + north) / 2))
    half = max((east - west) * shrink, north - south) / 2
    x, y = (west + east) / 2, (south + north) / 2
    return shapely.box(x - half / shrink, y - half, x + half / shrink, y + half)


def _images(
    region: shapely.Geometry, source: Source, years: Sequence[int], bands: Sequence[str] | None
) -> Iterator[EmbeddingImage | None]:
    has = set(source.years())
    for year in years:
        yield source.image(region, year, bands) if year in has else None


def _open(source: Source | str | None) -> Source:
    if source is not None and not isinstance(source, str | Path):
        return source
    import gee_polygons

    opened: Source = gee_polygons.open_source(source)
    return opened


def _years(source: Source, years: Sequence[int] | None) -> list[int]:
    has = source.years()
    chosen = [int(year) for year in (has if years is None else years)]
    if not set(chosen) & set(has):
        span = f"{has[0]}..{has[-1]}" if has else "none"
        raise UsageError(f"the source {source.name!r} has none of the years {chosen}; it has {span}")
    return chosen
