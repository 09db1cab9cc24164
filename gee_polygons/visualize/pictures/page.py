"""Lays frames out on a page: titles above them; scale, meaning of the colours and source of the data below.

Sizes of text are points on paper, so that a page can be read in print at its width in millimetres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.embeddings.colors import PcaColors
from gee_polygons.errors import UsageError
from gee_polygons.visualize.pictures.canvas import (
    DARK,
    FAINT,
    PLATE,
    RGB,
    WHITE,
    Canvas,
    Part,
    colour_bar,
    fit,
    line_width,
    nodata_pattern,
    number_text,
    scale_bar,
    wrap,
)
from gee_polygons.visualize.pictures.styles import ClassColors, Style, VisParams, colour, legend_of
from gee_polygons.visualize.pictures.view import Dimensions

T = TypeVar("T")

PRINT_DPI: Final = 300.0
SCREEN_DPI: Final = 150.0
_WIDTHS_MM: Final = (85.0, 180.0)  # of a page by default: one column of a journal, and two
_FRAME_MM: Final = 60.0  # a few frames aren't larger than this
_MOST_PX: Final = 30_000  # width of a page
_TALLEST: Final = 1.5  # height of a frame over its width
_FRAMES_PER_ROW: Final = 8  # by default; more wrap into rows of equal length
_GAP: Final = 3.0  # this and what follows in points
_TITLE: Final = 9.0
_YEAR: Final = 8.0
_NOTE: Final = 7.0
_CREDIT: Final = 6.0
_LINE: Final = 0.9  # of a boundary
_BAR_SHARE: Final = 0.35  # longest scale bar, of a frame's width


@dataclass(frozen=True, kw_only=True)
class PageSize:
    """How wide a page is, in pixels and in print; two of the three are enough.

    Parameters
    ----------
    dimensions : int, (width, height) or "WIDTHxHEIGHT", optional
        Largest size of a frame in pixels; by default what `dpi` and `width_mm` give.
    dpi : float, optional
        Pixels per inch of paper; with `dimensions` what `width_mm` gives.
    width_mm : float, optional
        Width on paper; by default 180, less with one or two frames in a row.
    """

    dimensions: Dimensions | None = None
    dpi: float | None = None
    width_mm: float | None = None
    default_dpi: float = PRINT_DPI

    def __post_init__(self) -> None:
        if self.dimensions is not None and self.dpi is not None and self.width_mm is not None:
            raise UsageError("dimensions, dpi and width_mm: two of them give the third; leave one out")
        for name, value, low, high in (("dpi", self.dpi, 20, 2400), ("width_mm", self.width_mm, 20, 2000)):
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} is a number {low}..{high}, found {value!r}")

    def frame(self, columns: int) -> Dimensions:
        """Return the largest size of a frame, in pixels."""
        if self.dimensions is not None:
            return self.dimensions
        scale = (self.dpi or self.default_dpi) / 72
        width = int((self._points(columns) - (columns + 1) * _GAP) * scale / columns)
        if width < 8 or self._points(columns) * scale > _MOST_PX:
            raise UsageError(f"frames would be {width} pixels wide; choose other columns, dpi or width_mm")
        return width, round(_TALLEST * width)

    def scale(self, columns: int, frame_width: int) -> float:
        """Return the pixels per point of a page whose frames are `frame_width` pixels wide."""
        if self.dimensions is None or self.dpi is not None:
            return (self.dpi or self.default_dpi) / 72
        scale = columns * frame_width / (self._points(columns) - (columns + 1) * _GAP)
        return scale if self.width_mm else max(100 / 72, scale)  # small frames on a small page: text of 11 pixels

    def width(self, columns: int, scale: float) -> int:
        """Return the width of the page in pixels, 0 where it follows from the frames."""
        return 0 if self.dimensions is not None else round(self._points(columns) * scale)

    def _points(self, columns: int) -> float:
        low, high = _WIDTHS_MM
        return (self.width_mm or min(high, max(low, columns * _FRAME_MM))) / 25.4 * 72


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A frame of a page.

    Parameters
    ----------
    pixels : uint8 array, shape (height, width, 3)
        The picture.
    title : str
        Stands above the middle.
    heading : str
        Stands above the title, at the left, and reaches over the frames behind without one.
    note : str
        Stands in the picture, at the top.
    outline : shapely geometry, optional
        Lines to draw, in pixels.
    metres_per_pixel : float, optional
        For a scale bar in the picture.
    """

    pixels: NDArray[np.uint8]
    title: str = ""
    heading: str = ""
    note: str = ""
    outline: shapely.Geometry | None = None
    metres_per_pixel: float | None = None


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What stands under the frames.

    Parameters
    ----------
    style : Style
        How the frames are coloured.
    metres_per_pixel : float, optional
        For a scale bar; None where frames differ in scale.
    nodata : bool
        Whether some of what is shown has no data.
    credit : str
        Where the data come from.
    """

    style: Style
    metres_per_pixel: float | None = None
    nodata: bool = False
    credit: str = ""


def in_rows(frames: Sequence[T], columns: int | None) -> list[Sequence[T]]:
    """Cut a sequence into rows; by default of at most 8, and of equal length."""
    check_columns(columns)
    width = columns or math.ceil(len(frames) / math.ceil(len(frames) / _FRAMES_PER_ROW))
    return [frames[i : i + width] for i in range(0, len(frames), width)]


def check_columns(columns: int | None) -> None:
    """Raise an error unless it is a number of frames or None."""
    if columns is not None and (isinstance(columns, bool) or not isinstance(columns, int) or columns < 1):
        raise UsageError(f"columns is a number of frames per row, at least 1, found {columns!r}")


def sites_in_rows(n_sites: int, n_years: int, columns: int | None) -> list[list[tuple[int, int]]]:
    """Return the rows of a sheet as (site, year) numbers: whole sites side by side where several fit a row.

    Examples
    --------
    >>> [len(row) for row in sites_in_rows(12, 1, None)], [len(row) for row in sites_in_rows(2, 7, None)]
    ([6, 6], [7, 7])
    """
    check_columns(columns)
    beside = (columns or _FRAMES_PER_ROW) // n_years
    if beside < 2:
        return [[(site, year) for year in row] for site in range(n_sites) for row in in_rows(range(n_years), columns)]
    groups = in_rows(range(n_sites), columns if n_years == 1 else beside)
    return [[(site, year) for site in group for year in range(n_years)] for group in groups]


def draw_page(
    rows: Sequence[Sequence[Panel]],
    *,
    scale: float,
    width: int = 0,
    title: str = "",
    caption: Caption | None = None,
    line_color: RGB = WHITE,
    gap: int | None = None,
    background: RGB = WHITE,
) -> Canvas:
    """Draw frames row by row, in cells as wide as the widest frame.

    Parameters
    ----------
    rows : sequence of sequences of Panel
        In order.
    scale : float
        Pixels per point.
    width : int
        Least width of the page in pixels.
    title : str
        Stands above all frames.
    caption : Caption, optional
        Stands below them.
    line_color : (red, green, blue)
        Of outlines.
    gap : int, optional
        Pixels between frames.
    background : (red, green, blue)
        Of the page.

    Returns
    -------
    Canvas
    """
    gap = round(_GAP * scale) if gap is None else gap
    ink = DARK if sum(background) > 382 else WHITE
    frame_width = max(panel.pixels.shape[1] for row in rows for panel in row)
    content = max(map(len, rows)) * (frame_width + gap) + gap
    canvas = Canvas(max(width, content), 1, scale=scale, background=background)
    left = (canvas.width - content) // 2 + gap
    y = float(gap)
    room = canvas.width - left - gap
    if title:
        text, size = fit(title, room / scale, _TITLE)
        canvas.text(left, y + _TITLE * scale, text, size, ink, bold=True)
        y += round(1.5 * _TITLE * scale)
    for row in rows:
        y = _draw_row(canvas, row, left, y, frame_width, gap, ink, line_color)
    if caption is not None:
        y = _draw_caption(canvas, caption, left, y, room, frame_width) + gap
    canvas.set_height(round(y))
    return canvas


def _draw_row(
    canvas: Canvas, row: Sequence[Panel], left: float, y: float, width: int, gap: int, ink: RGB, line_color: RGB
) -> float:
    """Draw a row of frames whose top is at y; return where the next one begins."""
    scale = canvas.scale
    headed = [number for number, panel in enumerate(row) if panel.heading]
    for number, end in zip(headed, [*headed[1:], len(row)], strict=False):
        room = ((end - number) * (width + gap) - gap) / scale
        text, size = fit(row[number].heading, room, _YEAR)
        canvas.text(left + number * (width + gap), y + _YEAR * scale, text, size, ink, bold=True)
    y += round(1.4 * _YEAR * scale) if headed else 0
    titled = any(panel.title for panel in row)
    height = max(panel.pixels.shape[0] for panel in row)
    top = y + (round(1.4 * _YEAR * scale) if titled else 0)
    for number, panel in enumerate(row):
        x = left + number * (width + gap)
        if panel.title:
            text, size = fit(panel.title, width / scale, _YEAR)
            canvas.text(x + width / 2, y + _YEAR * scale, text, size, ink, bold=True, ha="center")
        own_height, own_width = panel.pixels.shape[:2]
        at_x, at_y = x + (width - own_width) // 2, top + (height - own_height) // 2
        canvas.pixels(panel.pixels, at_x, at_y, own_width, own_height, order=1)
        if panel.outline is not None:
            moved = shapely.transform(panel.outline, lambda xy, corner=(at_x, at_y): xy + np.array(corner))
            canvas.outline(moved, line_color, _LINE, (at_x, at_y, at_x + own_width, at_y + own_height))
        if panel.note:
            canvas.text(x + width / 2, at_y + 1.3 * _NOTE * scale, panel.note, _NOTE, ha="center")
        if panel.metres_per_pixel is not None:
            em = _CREDIT * scale
            bar = scale_bar(panel.metres_per_pixel, own_width * _BAR_SHARE, em, WHITE)
            box = at_x, at_y + own_height - 1.5 * em, line_width(bar, _CREDIT) * scale + em, 1.5 * em
            canvas.rectangle(*map(round, box), facecolor=PLATE, antialiased=False)
            canvas.line(at_x + 0.5 * em, at_y + own_height - 0.45 * em, bar, _CREDIT, WHITE)
    return top + height + gap


def _draw_caption(canvas: Canvas, caption: Caption, left: float, y: float, room: float, frame_width: int) -> float:
    """Draw a caption whose top is at y, at most `room` pixels wide; return its lower edge."""
    em, style = _NOTE * canvas.scale, caption.style
    items: list[list[Part]] = []
    if caption.metres_per_pixel is not None:
        items.append(scale_bar(caption.metres_per_pixel, frame_width * _BAR_SHARE, em))
    if caption.nodata:
        items.append([(nodata_pattern(round(em), round(2 * em)), 2), "no data"])
    legend = legend_of(style)
    if isinstance(style, ClassColors):
        items += [[(np.array([[colour(patch)]], np.uint8), 1.4), name] for _, name, patch in style.classes]
    else:
        said = f"Colours: {_meaning(style)}" if legend is None else legend.label
        items += [[line] for line in wrap(said, room / canvas.scale, _NOTE)]
        items += [] if legend is None else [colour_bar(legend)]
    x, base = left, y + 1.1 * em
    for item in items:
        width = line_width(item, _NOTE) * canvas.scale
        if x > left and x + width > left + room:
            x, base = left, base + 1.5 * em
        canvas.line(x, base, item, _NOTE)
        x += width + 1.5 * em
    for line in wrap(caption.credit, room / canvas.scale, _CREDIT):
        base += 1.4 * _CREDIT * canvas.scale
        canvas.text(left, base, line, _CREDIT, FAINT)
    return base + 0.3 * em


def _meaning(style: Style) -> str:
    """Say what red, green and blue are."""
    if isinstance(style, PcaColors):
        return style.describe().replace(" %", "\u00a0%")
    assert isinstance(style, VisParams), "similarity has a colour bar"
    low, high = np.broadcast_to(style.min, 3), np.broadcast_to(style.max, 3)
    names = [f"{band} {name}" for band, name in zip(style.bands, ("red", "green", "blue"), strict=True)]
    spans = [f"({number_text(a)} to {number_text(b)})" for a, b in zip(low, high, strict=True)]
    if len(set(spans)) == 1:
        return f"{', '.join(names)} {spans[0]}"
    return ", ".join(f"{name} {span}" for name, span in zip(names, spans, strict=True))
