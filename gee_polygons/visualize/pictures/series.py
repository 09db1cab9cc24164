"""Draws the years of sites in the same colours: as a strip, an animation, or a sheet of sites and years."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import shapely
from PIL import Image

from gee_polygons.alphaearth import BANDS
from gee_polygons.embeddings.colors import PcaColors, fit_pca_colors
from gee_polygons.errors import UsageError
from gee_polygons.reduction.plan import EmbeddingImage, Source
from gee_polygons.sources.opening import open_source
from gee_polygons.visualize.pictures.canvas import Canvas, nodata_pattern
from gee_polygons.visualize.pictures.frames import check_animation, export_frames_as_gif, info_of
from gee_polygons.visualize.pictures.overlays import outline_of
from gee_polygons.visualize.pictures.page import (
    SCREEN_DPI,
    Caption,
    PageSize,
    Panel,
    check_columns,
    draw_page,
    sites_in_rows,
)
from gee_polygons.visualize.pictures.render import draw_pixels, is_pca
from gee_polygons.visualize.pictures.styles import ClassColors, Colour, Colouring, Style, as_style, bands_of, colour
from gee_polygons.visualize.pictures.view import Dimensions
from gee_polygons.visualize.saving import STILL_SUFFIXES, checked_suffix, save_figure

if TYPE_CHECKING:
    from gee_polygons.site import Site


def export_timestrip(
    site: Site,
    path: str | Path,
    *,
    years: Sequence[int] | None = None,
    source: Source | str | None = None,
    vis_params: Colouring = "pca",
    buffer_m: float = 300.0,
    columns: int | None = None,
    dimensions: Dimensions | None = None,
    dpi: float | None = None,
    width_mm: float | None = None,
    boundary_color: Colour = "white",
    title: str | None = None,
) -> Path:
    """Write one picture with a site's years side by side, a scale bar, what the colours mean, and the credit.

    Parameters
    ----------
    site : Site
        Its polygon is outlined.
    path : str or Path
        ``.png``, ``.jpg``, ``.webp``, ``.pdf`` or ``.svg``. Missing folders are created; an existing file is replaced.
    years : sequence of int, optional
        By default all that the source has. A year that it doesn't have is drawn as a hatched frame.
    source : Source or str, optional
        As `open_source` takes it.
    vis_params : "pca", PcaColors, path, VisParams, mapping or SimilarityColors
        The colours of all years. ``"pca"`` fits one basis to all frames and writes it next to the picture, as
        ``<name>.pca.json``; the path of such a file gives other pictures the same colours. A basis that belonged to a
        picture of that name, drawn before in other colours, is removed. None: three bands.
    buffer_m : float
        Metres of ground shown around the site.
    columns : int, optional
        Frames per row. By default up to 8 stand in one row; more wrap into rows of equal length.
    dimensions : int, (width, height) or "WIDTHxHEIGHT", optional
        Largest size of a frame in pixels; by default what `dpi` and `width_mm` give.
    dpi : float, optional
        Pixels per inch of paper; by default 300.
    width_mm : float, optional
        Width on paper, where years are written in 8 points and notes in 6 and 7; by default 180, less for one or two
        frames in a row.
    boundary_color : str
        Name or hex.
    title : str, optional
        Stands above the frames; by default the site's id.

    Returns
    -------
    Path of the picture.

    Raises
    ------
    UsageError
        If the source has none of the years, or an option isn't understood.

    Examples
    --------
    >>> import tempfile
    >>> from gee_polygons import sites_from_geodataframe
    >>> from gee_polygons.sources.sample import sample_sites
    >>> site = sites_from_geodataframe(sample_sites())["hole"]
    >>> path = Path(tempfile.mkdtemp(), "hole.png")
    >>> export_timestrip(site, path, source="sample", years=[2018, 2024], dpi=100).name
    'hole.png'
    >>> sorted(p.name for p in path.parent.iterdir())
    ['hole.pca.json', 'hole.png']
    """
    return _write_still(
        [site], path, columns, str(site.site_id) if title is None else title, boundary_color, years=years,
        source=source, vis_params=vis_params, buffer_m=buffer_m, dimensions=dimensions, dpi=dpi, width_mm=width_mm,
    )  # fmt: skip


def export_timelapse(
    site: Site,
    path: str | Path,
    *,
    years: Sequence[int] | None = None,
    source: Source | str | None = None,
    vis_params: Colouring = "pca",
    buffer_m: float = 300.0,
    dimensions: Dimensions | None = None,
    dpi: float | None = None,
    width_mm: float | None = None,
    boundary_color: Colour = "white",
    title: str | None = None,
    duration_ms: int | Sequence[int] = 700,
    loop: int | None = 0,
) -> Path:
    """Write an animation of a site's years: ``.gif``, ``.webp`` or ``.mp4``.

    The parameters are those of `export_timestrip` and `export_frames_as_gif`; by default `width_mm` is 85 and `dpi`
    150, which is 502 pixels.

    Examples
    --------
    >>> import tempfile
    >>> from gee_polygons import sites_from_geodataframe
    >>> from gee_polygons.sources.sample import sample_sites
    >>> site = sites_from_geodataframe(sample_sites())["hole"]
    >>> path = Path(tempfile.mkdtemp(), "hole.gif")
    >>> export_timelapse(site, path, source="sample", years=[2018, 2024], dimensions=100).name
    'hole.gif'
    """
    check_animation(path)
    series = _Series(
        [site], path, years=years, source=source, vis_params=vis_params, buffer_m=buffer_m, dimensions=dimensions,
        dpi=dpi, width_mm=width_mm, default_dpi=SCREEN_DPI,
    )  # fmt: skip
    heading = str(site.site_id) if title is None else title
    pages = [series.page([[panel]], heading, boundary_color).raster() for panel in series.draw(1).values()]
    for page in pages:
        page.info.update(series.info)
    return series.with_basis(export_frames_as_gif(pages, path, duration_ms=duration_ms, loop=loop))


def contact_sheet(
    sites: Sequence[Site],
    path: str | Path,
    *,
    years: Sequence[int] | None = None,
    source: Source | str | None = None,
    vis_params: Colouring = "pca",
    buffer_m: float = 300.0,
    columns: int | None = None,
    dimensions: Dimensions | None = None,
    dpi: float | None = None,
    width_mm: float | None = None,
    boundary_color: Colour = "white",
    title: str | None = None,
) -> Path:
    """Write one picture of several sites and years, each site in a square of ground with a scale bar of its own.

    The parameters are those of `export_timestrip`. A site's years stand in a row; where several sites fit a row of
    `columns` frames (by default 8), they stand side by side: 12 sites of one year make two rows of six. With ``"pca"``
    one basis is fitted to all frames, and their codes are held in memory: 64 bytes per pixel. The title is the year
    if there is only one.

    Returns
    -------
    Path of the picture.

    Examples
    --------
    >>> import tempfile
    >>> from gee_polygons import sites_from_geodataframe
    >>> from gee_polygons.sources.sample import sample_sites
    >>> sites = sites_from_geodataframe(sample_sites())[:3]
    >>> contact_sheet(sites, Path(tempfile.mkdtemp(), "a.pdf"), source="sample", years=[2024], dimensions=60).name
    'a.pdf'
    """
    if not sites:
        raise UsageError("a contact sheet needs at least one site")
    return _write_still(
        sites, path, columns, title, boundary_color, is_sheet=True, years=years, source=source, vis_params=vis_params,
        buffer_m=buffer_m, dimensions=dimensions, dpi=dpi, width_mm=width_mm,
    )  # fmt: skip


def _write_still(
    sites: Sequence[Site], path: str | Path, columns: int | None, title: str | None, boundary_color: Colour, **how: Any
) -> Path:
    """Write a strip, or with `is_sheet` a sheet, where a site's id stands above its first frame."""
    checked_suffix(path, STILL_SUFFIXES)
    check_columns(columns)
    series = _Series(sites, path, **how)
    places = sites_in_rows(len(sites), len(series.years), columns)
    panels = series.draw(max(map(len, places)))
    if series.is_sheet:
        is_single, is_table = len(series.years) == 1, len(places) == len(sites)  # the first row names the years of all
        title = (str(series.years[0]) if is_single else "") if title is None else title
        for (number, year), panel in panels.items():
            name = "" if is_single or (is_table and number) else panel.title
            heading = "" if year else str(sites[number].site_id)
            panels[number, year] = replace(panel, title=name, heading=heading)
    page = series.page([[panels[place] for place in row] for row in places], title or "", boundary_color)
    return series.with_basis(save_figure(page.figure, path, series.info, dpi=72 * page.scale))


class _Series:
    """The images of sites and years, one style for all their frames, and the file that they are written to.

    Parameters
    ----------
    sites, path, years, source, vis_params, buffer_m
        As in `export_timestrip`.
    is_sheet : bool
        Whether a square of ground is shown of each site, at a scale of its own.
    **size
        Of the page, as `PageSize` takes it.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        path: str | Path,
        *,
        years: Sequence[int] | None,
        source: Source | str | None,
        vis_params: Colouring,
        buffer_m: float,
        is_sheet: bool = False,
        **size: Any,
    ) -> None:
        self.size = PageSize(**size)
        opened = open_source(source)
        self.sites, self.is_sheet = sites, is_sheet
        self.years = _years(opened, years)
        self.regions = [_region(site, buffer_m, square=is_sheet) for site in sites]
        self.info: dict[str, str] = {}
        self.replaces = Path(path).exists()
        self.images: Iterable[Sequence[EmbeddingImage | None]]
        self.is_fitted = is_pca(vis_params)
        if self.is_fitted:
            self.images = rows = [_images(region, opened, self.years, None) for region in self.regions]
            self.style: Style = fit_pca_colors(image for row in rows for image in row if image is not None)
        else:
            self.style = as_style(cast(Any, vis_params), BANDS)
            bands = bands_of(self.style)
            # one site in memory at a time
            self.images = (_images(region, opened, self.years, bands) for region in self.regions)

    def draw(self, columns: int) -> dict[tuple[int, int], Panel]:
        """Draw all frames, so many in a row; return them by the numbers of site and year."""
        dimensions = self.size.frame(columns)
        panels: dict[tuple[int, int], Panel] = {}
        drawn: list[Image.Image] = []
        classes: list[EmbeddingImage] = []  # which a caption names
        has_gaps, metres = False, None
        for number, (site, region, images) in enumerate(zip(self.sites, self.regions, self.images, strict=True)):
            has_scale, shape = False, (1, 1)
            for year, image in sorted(enumerate(images), key=lambda entry: entry[1] is None):
                panel = Panel(pixels=nodata_pattern(*shape), title=str(self.years[year]), note="no data")
                if image is not None:
                    picture, view = draw_pixels(image, region, self.style, dimensions)
                    drawn.append(picture)
                    classes += [image] if isinstance(self.style, ClassColors) else []
                    has_data, shape, metres = bool(image.valid.any()), picture.size[::-1], view.metres_per_pixel
                    panel = replace(
                        panel, pixels=np.asarray(picture), outline=outline_of(site.polygon, view),
                        note="" if has_data else panel.note,
                        metres_per_pixel=metres if self.is_sheet and has_data and not has_scale else None,
                    )  # fmt: skip
                    has_scale |= has_data
                has_gaps |= image is None or not image.valid.all()
                panels[number, year] = panel
        self.info = info_of(drawn)
        self.caption = Caption(
            style=self.style.occurring_in(classes) if isinstance(self.style, ClassColors) else self.style,
            metres_per_pixel=None if self.is_sheet else metres,
            nodata=has_gaps,
            credit=self.info.get("Attribution", ""),
        )
        return dict(sorted(panels.items()))

    def page(self, rows: Sequence[Sequence[Panel]], title: str, boundary_color: Colour) -> Canvas:
        """Lay frames out on a page."""
        columns = max(map(len, rows))
        scale = self.size.scale(columns, max(panel.pixels.shape[1] for row in rows for panel in row))
        return draw_page(
            rows, scale=scale, width=self.size.width(columns, scale), title=title, caption=self.caption,
            line_color=colour(boundary_color),
        )  # fmt: skip

    def with_basis(self, path: Path) -> Path:
        """Write a fitted basis next to the picture, or remove the one of the picture that was replaced."""
        basis = path.with_suffix(".pca.json")
        if self.is_fitted or (self.replaces and basis.exists() and isinstance(self.style, PcaColors)):
            cast(PcaColors, self.style).save(basis, attribution=self.info.get("Attribution", ""))
        elif self.replaces:
            basis.unlink(missing_ok=True)
        return path


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
