"""Draws the years of sites in the same colours: as a strip, an animation, or a sheet of sites and years."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import shapely
from PIL import Image

from gee_polygons.alphaearth import BANDS
from gee_polygons.embeddings.colors import PcaColors, fit_pca_colors
from gee_polygons.errors import UsageError
from gee_polygons.reduction.plan import EmbeddingImage, Source
from gee_polygons.sources.opening import open_source
from gee_polygons.visualize.pictures.caption import Caption, with_caption
from gee_polygons.visualize.pictures.frames import (
    check_animation,
    check_still,
    export_frames_as_gif,
    grid,
    info_of,
    save_still,
    strip,
)
from gee_polygons.visualize.pictures.overlays import Plates, nodata_pattern
from gee_polygons.visualize.pictures.render import is_pca, render_image
from gee_polygons.visualize.pictures.styles import Colour, Style, as_style, bands_of
from gee_polygons.visualize.pictures.view import Dimensions, view_of

if TYPE_CHECKING:
    from gee_polygons.site import Site


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
        By default all that the source has. A year that it doesn't have is drawn as a hatched frame.
    source : Source or str, optional
        As `open_source` takes it.
    vis_params : VisParams, mapping, PcaColors, SimilarityColors or "pca", optional
        The colours of all years. ``"pca"`` fits one basis to all frames, and saves it next to the picture as
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
    check_still(path)
    series = _Series([site], years=years, source=source, vis_params=vis_params, buffer_m=buffer_m)
    [frames], caption = series.draw(dimensions, boundary_color, labelled=True)
    return series.written(save_still(with_caption(strip(frames, wrap=wrap), caption), path, info_of(frames)))


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
    """Write an animation of a site's years: ``.gif``, ``.webp`` or ``.mp4``.

    The parameters are those of `export_timestrip` and `export_frames_as_gif`.
    """
    check_animation(path)
    series = _Series([site], years=years, source=source, vis_params=vis_params, buffer_m=buffer_m)
    [frames], caption = series.draw(dimensions, boundary_color, labelled=True)
    captioned = [with_caption(frame, caption) for frame in frames]
    return series.written(export_frames_as_gif(captioned, path, duration_ms=duration_ms, loop=loop))


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
    check_still(path)
    # cells of a sheet are equal
    series = _Series(sites, years=years, source=source, vis_params=vis_params, buffer_m=buffer_m, square=True)
    rows, caption = series.draw(dimensions, boundary_color, labelled=False)
    frames = [frame for row in rows for frame in row]
    titles, row_titles = [str(year) for year in series.years], [str(site.site_id) for site in sites]
    sheet = grid(frames, len(titles), titles=titles, row_titles=row_titles)
    return series.written(save_still(with_caption(sheet, caption), path, info_of(frames)))


class _Series:
    """The images of sites and years, and one style for all their frames.

    Parameters
    ----------
    sites, years, source, vis_params, buffer_m
        As in `export_timestrip`.
    square : bool
        Whether a square of ground is shown of each site.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        *,
        years: Sequence[int] | None,
        source: Source | str | None,
        vis_params: Style | Mapping[str, Any] | str | None,
        buffer_m: float,
        square: bool = False,
    ) -> None:
        opened = open_source(source)
        self.sites = sites
        self.years = _years(opened, years)
        self.regions = [_region(site, buffer_m, square=square) for site in sites]
        self.images: Iterable[Sequence[EmbeddingImage | None]]
        self.style: Style
        self.fitted: PcaColors | None = None
        if is_pca(vis_params):
            self.images = rows = [_images(region, opened, self.years, None) for region in self.regions]
            self.style = self.fitted = fit_pca_colors(image for row in rows for image in row if image is not None)
        else:
            self.style = as_style(cast(Any, vis_params), BANDS)
            bands = bands_of(self.style)
            # one site in memory at a time
            self.images = (_images(region, opened, self.years, bands) for region in self.regions)

    def written(self, path: Path) -> Path:
        """Save a fitted basis next to the picture that was written; return the picture's path."""
        if self.fitted is not None:
            self.fitted.save(path.with_suffix(".pca.json"))
        return path

    def draw(
        self, dimensions: Dimensions, boundary_color: Colour, *, labelled: bool
    ) -> tuple[list[list[Image.Image]], Caption]:
        """Render all frames, one row for each site, and return them with their caption.

        Frames of a sheet aren't labelled with their year, and each row has its own scale, drawn in its first frame
        with data.
        """
        rows, has_gaps = [], False
        for site, region, images in zip(self.sites, self.regions, self.images, strict=True):
            row: list[Image.Image | None] = []
            has_scale = labelled
            for year, image in zip(self.years, images, strict=True):
                if image is None:
                    row.append(None)
                    continue
                has_data = bool(image.valid.any())
                picture = render_image(
                    image,
                    region,
                    self.style,
                    dimensions,
                    site.polygon,
                    _label(year, labelled, empty=not has_data),
                    boundary_color=boundary_color,
                    scale_bar=has_data and not has_scale,
                )
                row.append(picture)
                has_scale |= has_data
                has_gaps |= not image.valid.all()
            has_gaps |= None in row
            rows.append(_with_placeholders(row, self.years, labelled))
        # the frames of a strip or an animation have the same grid; at least one of the years is the source's
        first = next(image for image in images if image is not None)
        caption = Caption(
            style=self.style,
            frame=rows[0][0].size,
            metres_per_pixel=view_of(first.grid, region, dimensions).metres_per_pixel if labelled else None,
            nodata=has_gaps,
            credit=info_of(frame for row in rows for frame in row).get("Attribution", ""),
        )
        return rows, caption


def _label(year: int, labelled: bool, *, empty: bool) -> str | None:
    if labelled:
        return f"{year}: no data" if empty else str(year)
    return "no data" if empty else None


def _with_placeholders(
    pictures: Sequence[Image.Image | None], years: Sequence[int], labelled: bool
) -> list[Image.Image]:
    """Replace each missing picture by a hatched frame that says so."""
    width, height = next(picture.size for picture in pictures if picture is not None)
    filled = []
    for year, picture in zip(years, pictures, strict=True):
        if picture is None:
            picture = Image.fromarray(nodata_pattern(height, width))
            Plates(picture).label(str(_label(year, labelled, empty=True)), "top-left")
        filled.append(picture)
    return filled


def _region(site: Site, buffer_m: float, *, square: bool) -> shapely.Geometry:
    """Return what is shown of a site, in EPSG:4326; with `square`, a square of ground."""
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
) -> list[EmbeddingImage | None]:
    available = set(source.years())
    return [source.image(region, year, bands) if year in available else None for year in years]


def _years(source: Source, years: Sequence[int] | None) -> list[int]:
    available = source.years()
    chosen = [int(year) for year in (available if years is None else years)]
    if not set(chosen) & set(available):
        span = f"{available[0]}..{available[-1]}" if available else "none"
        raise UsageError(f"the source {source.name!r} has none of the years {chosen}; it has {span}")
    return chosen
