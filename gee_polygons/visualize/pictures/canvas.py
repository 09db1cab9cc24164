"""Draws text, lines and pixels in a matplotlib figure whose coordinates are pixels from its top left corner.

The font is DejaVu Sans, which every matplotlib brings along, whatever its settings say: so pictures look the same on
every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from gee_polygons.visualize.pictures.styles import Legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHITE: Final = (255, 255, 255)
DARK: Final = (22, 24, 28)
PLATE: Final = (*(c / 255 for c in DARK), 0.7)  # behind white text
FAINT: Final = (96, 100, 108)  # contrast to white 6.2 : 1
NODATA_COLOURS: Final = ((236, 236, 236), (214, 214, 214))
RGB = tuple[int, int, int]
Part = str | tuple[NDArray[np.uint8], float]  # of a line: a text; or pixels, and their width in sizes of the text
_PART_GAP: Final = 0.45  # in sizes of the text


class Canvas:
    """A figure to draw on.

    Parameters
    ----------
    width, height : float
        In pixels.
    scale : float
        Pixels per point: sizes of text and widths of lines are in points.
    background : (red, green, blue), optional
        Transparent by default.
    """

    def __init__(self, width: float, height: float, *, scale: float = 1.0, background: RGB | None = None) -> None:
        self.width, self.scale, self.is_opaque = width, scale, background is not None
        self.figure = new_figure((width / scale / 72, height / scale / 72), dpi=72 * scale)
        self.figure.set_facecolor("none" if background is None else _share(background))
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.set_height(height)

    def set_height(self, height: float) -> None:
        """Change the height, in pixels; what is drawn stays where it is, measured from the top."""
        self.figure.set_size_inches(self.width / self.scale / 72, height / self.scale / 72)
        self.axes.set_xlim(0, self.width)
        self.axes.set_ylim(height, 0)

    def pixels(self, rgb: NDArray[np.uint8], x: float, y: float, width: float, height: float, order: int = 5) -> None:
        """Draw pixels over a rectangle, without smoothing; those of a higher order are drawn over others."""
        limits = self.axes.axis()
        self.axes.imshow(rgb, extent=(x, x + width, y + height, y), interpolation="none", aspect="auto", zorder=order)
        self.axes.axis(limits)

    def text(
        self, x: float, y: float, text: str, size: float, ink: RGB = DARK, *, bold: bool = False, **how: Any
    ) -> None:
        """Write a line with its baseline at y."""
        weight = "bold" if bold else "normal"
        self.axes.text(
            x, y, text, fontsize=size, color=_share(ink), family="DejaVu Sans", weight=weight, parse_math=False,
            usetex=False, zorder=6, **how,
        )  # fmt: skip

    def line(
        self, x: float, y: float, parts: Sequence[Part], size: float, ink: RGB = DARK, *, bold: bool = False
    ) -> None:
        """Write texts and small pictures behind each other, on a common baseline at y."""
        em = size * self.scale
        for part in parts:
            width = line_width([part], size, bold) * self.scale
            if isinstance(part, str):
                self.text(x, y, part, size, ink, bold=bold)
            else:
                box = round(x), round(y - 0.8 * em), round(width), round(0.9 * em)
                self.pixels(part[0], *box)
                if part[0].shape[2] == 3:
                    self.rectangle(*box, facecolor="none", edgecolor=_share(FAINT), linewidth=0.3)
            x += width + _PART_GAP * em

    def outline(
        self, geometry: shapely.Geometry, ink: RGB, width: float, within: tuple[float, float, float, float]
    ) -> None:
        """Draw lines or the outline of a polygon, with a thin halo of the opposite lightness, inside a rectangle.

        Parameters
        ----------
        geometry : shapely geometry
            In pixels.
        ink : (red, green, blue)
            Colour of the line.
        width : float
            Width of the line in points; the halo adds 0.4 of it on both sides, at least 0.75 pixels.
        within : (left, top, right, bottom)
            In pixels.
        """
        from matplotlib.patches import PathPatch, Rectangle
        from matplotlib.path import Path as Outline
        from matplotlib.patheffects import withStroke

        left, top, right, bottom = within
        margin = 8 * width * self.scale  # far outside nothing is drawn, and a twentieth of a pixel is never seen
        seen = shapely.box(left - margin, top - margin, right + margin, bottom + margin)
        lines = [line for line in shapely.get_parts(geometry.simplify(0.05).intersection(seen)) if line.length]
        if not lines:
            return
        path = Outline.make_compound_path(*[Outline(np.asarray(line.coords)[:, :2]) for line in lines])
        halo = DARK if luminance(ink) > 0.4 else WHITE
        edge = max(0.75 / self.scale, width * 0.4)
        patch = PathPatch(
            path, facecolor="none", edgecolor=_share(ink), linewidth=width, zorder=3, snap=False,
            joinstyle="round", capstyle="round",
            path_effects=[withStroke(linewidth=width + 2 * edge, foreground=_share(halo), alpha=0.8)],
        )  # fmt: skip
        self.axes.add_patch(patch)
        patch.set_clip_path(Rectangle((left, top), right - left, bottom - top, transform=self.axes.transData))

    def rectangle(self, x: float, y: float, width: float, height: float, **how: Any) -> None:
        """Draw a rectangle."""
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle((x, y), width, height, **{"linewidth": 0, "zorder": 4, **how}))

    def raster(self) -> Image.Image:
        """Return what is drawn as a picture, RGBA where the background is transparent."""
        canvas: Any = self.figure.canvas
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba()))
        return picture.convert("RGB") if self.is_opaque else picture


def new_figure(size: tuple[float, float], dpi: float = 150, **how: Any) -> Figure:
    """Return a figure of a size in inches outside pyplot, which would show and keep it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=dpi, **how)
    FigureCanvasAgg(figure)
    return figure


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return the width of a line in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def line_width(parts: Sequence[Part], size: float, bold: bool = False) -> float:
    """Return the width of texts and small pictures behind each other, in points."""
    widths = [text_width(part, size, bold) if isinstance(part, str) else part[1] * size for part in parts]
    return sum(widths) + _PART_GAP * size * (len(parts) - 1)


def scale_bar(metres_per_pixel: float, longest: float, em: float, ink: RGB = DARK) -> list[Part]:
    """Return a bar of a round length, at most `longest` pixels, and its length; `em` is the text's size in pixels."""
    metres = round_length(metres_per_pixel * longest)
    line, length = max(2, round(em / 7)), max(2, round(metres / metres_per_pixel))
    bar = np.zeros((max(4, round(0.9 * em)), length, 4), np.uint8)
    for part in (bar[-line:], bar[-3 * line :, :line], bar[-3 * line :, -line:]):
        part[...] = (*ink, 255)
    return [(bar, length / em), length_text(metres)]


def colour_bar(legend: Legend) -> list[Part]:
    """Return the colours of a legend between the values at their ends."""
    return [number_text(legend.low), (legend.colours[None], 8), number_text(legend.high)]


def fit(text: str, room: float, size: float, smallest: float = 6.0) -> tuple[str, float]:
    """Return a bold text and a size at which it is no wider than `room` points: made smaller first, then cut."""
    shown = text = " ".join(text.split())
    size = max(min(size, smallest), min(size, size * room / max(text_width(text, size, bold=True), 1e-9)))
    while len(text) > 1 and text_width(shown, size, bold=True) > room:
        text = text[:-1]
        shown = text.rstrip() + "…"
    return shown, size


def wrap(text: str, room: float, size: float) -> list[str]:
    """Break a text into lines of at most `room` points, between words."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def nodata_pattern(height: int, width: int) -> NDArray[np.uint8]:
    """Return light diagonal stripes, uint8 (height, width, 3), which can't be taken for an embedding."""
    stripe = max(3, round(max(height, width) / 90))
    y, x = np.mgrid[:height, :width]
    return np.array(NODATA_COLOURS, np.uint8)[((x + y) // stripe) % 2]


def luminance(rgb: ArrayLike) -> float:
    """Return the relative luminance of a colour of 0..255, 0..1 (WCAG 2.1)."""
    c = np.asarray(rgb) / 255
    linear = np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def number_text(value: float) -> str:
    """Write a number in at most three digits, with a minus sign as wide as a plus."""
    return f"{value:.3g}".replace("-", "−")  # noqa: RUF001


def length_text(metres: float) -> str:
    """Write a length with its unit.

    Examples
    --------
    >>> length_text(500.0), length_text(2000.0)
    ('500 m', '2 km')
    """
    return f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"


def round_length(longest: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that isn't above `longest`.

    Examples
    --------
    >>> round_length(430), round_length(1999.9), round_length(0.7)
    (200.0, 1000.0, 0.5)
    """
    power = 10.0 ** math.floor(math.log10(longest))
    return max(step * power for step in (1, 2, 5) if step * power <= longest)


def _share(rgb: RGB) -> tuple[float, float, float]:
    return cast("tuple[float, float, float]", tuple(c / 255 for c in rgb))
