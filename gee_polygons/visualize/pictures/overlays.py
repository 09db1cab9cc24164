"""Draws overlays on single pictures: boundary, label, scale bar, north arrow and colour bar.

Sizes follow the picture, so that a frame looks the same at 300 and at 1200 pixels. Texts stand on dark, half
transparent plates, which can be read on any background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
import shapely
from PIL import Image

from gee_polygons.errors import UsageError
from gee_polygons.visualize.pictures import canvas
from gee_polygons.visualize.pictures.styles import Legend
from gee_polygons.visualize.pictures.view import View

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]

_TEXT_GROWTH: Final = 0.85  # text size over the root of the picture's longer side: 12 px at 200, 19 at 512, 27 at 1024
_LEAST_TEXT_PX: Final = 10
_BAR_SHARE: Final = 0.28  # longest scale bar, of the picture's width
_MOST_SHARE: Final = 0.62  # what takes more of the width than this would hide the picture: it is left out


class Overlay:
    """Puts a boundary on a picture and texts into its corners; what would cover another is moved away from the edge.

    Parameters
    ----------
    size : (width, height)
        Of the picture, in pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.width, self.height = size
        self.canvas = canvas.Canvas(*size)
        self.text_px: int = max(_LEAST_TEXT_PX, round(_TEXT_GROWTH * max(size) ** 0.5))
        self.margin = max(3, round(self.text_px * 0.45))
        self._taken: list[tuple[float, float, float, float]] = []

    def over(self, picture: Image.Image) -> Image.Image:
        """Return a picture with the overlay on it."""
        drawn = self.canvas.raster()
        whole = picture.copy()
        whole.paste(drawn, (0, 0), drawn)
        return whole

    def boundary(self, outline: shapely.Geometry, rgb: canvas.RGB, width_px: float) -> None:
        """Draw lines, in pixels."""
        self.canvas.outline(outline, rgb, width_px, (0, 0, self.width, self.height))

    def label(self, text: str, corner: Corner) -> None:
        """Write a label; a long one is written smaller, then cut, so that it fits."""
        text, size = canvas.fit(text, self.width - 2 * self.margin - self.text_px, self.text_px, smallest=7)
        self._plate([[text]], size, corner, always=True, bold=True)

    def scale_bar(self, metres_per_pixel: float, corner: Corner) -> None:
        """Draw a bar of a round length: 1, 2 or 5 times a power of ten."""
        size = self._smaller(0.8)
        self._plate([canvas.scale_bar(metres_per_pixel, self.width * _BAR_SHARE, size, canvas.WHITE)], size, corner)

    def north_arrow(self, north_deg: float, corner: Corner) -> None:
        """Draw an arrow towards true north."""
        from matplotlib.patches import Polygon

        size = self._smaller(0.8)
        if place := self._plate([["N"], [" "]], size, corner, bold=True):
            angle = np.radians(north_deg)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            tip = np.array([[0, -0.5], [0.3, 0.5], [0, 0.28], [-0.3, 0.5]]) * 1.2 * size
            middle = place[0] + canvas.text_width("N", size, bold=True) / 2, place[1] + 2.1 * size
            self.canvas.axes.add_patch(Polygon(tip @ turn.T + middle, facecolor="white", zorder=6))

    def colour_bar(self, legend: Legend, corner: Corner) -> None:
        """Draw the colours of a palette, the values at its ends, and what they stand for."""
        size = self._smaller(0.72)
        title, _ = canvas.fit(legend.label, self.width * 0.5, size, smallest=size)
        self._plate([[title], canvas.colour_bar(legend)], size, corner)

    def _plate(
        self,
        lines: Sequence[Sequence[canvas.Part]],
        size: float,
        corner: Corner,
        *,
        bold: bool = False,
        always: bool = False,
    ) -> tuple[float, float] | None:
        """Write lines on a plate, and return where they begin; None if they would hide the picture."""
        pad = max(2, 0.45 * size)
        width = max(canvas.line_width(line, size, bold) for line in lines) + 2 * pad
        height = size * (1.3 * len(lines) - 0.45) + 2 * pad
        place = self._place(width, height, corner, always=always)
        if place is None:
            return None
        x, y = round(place[0]), round(place[1])
        self.canvas.rectangle(x, y, round(width), round(height), facecolor=canvas.PLATE, antialiased=False)
        for number, line in enumerate(lines):
            self.canvas.line(x + pad, y + pad + size * (0.8 + 1.3 * number), line, size, canvas.WHITE, bold=bold)
        return x + pad, y + pad

    def _smaller(self, share: float) -> int:
        return max(_LEAST_TEXT_PX, round(self.text_px * share))

    def _place(
        self, width: float, height: float, corner: Corner, *, always: bool = False
    ) -> tuple[float, float] | None:
        """Return the left top corner of a box; None if it would hide the picture."""
        if not always and (width > self.width * _MOST_SHARE or height > self.height * 0.5):
            return None
        gap = max(2, self.margin // 2)
        x = self.margin if "left" in corner else self.width - self.margin - width
        y = self.margin if "top" in corner else self.height - self.margin - height
        for left, top, right, bottom in sorted(self._taken, key=lambda t: t[1], reverse="bottom" in corner):
            if x < right and left < x + width and y < bottom + gap and top - gap < y + height:
                y = bottom + gap if "top" in corner else top - gap - height
        self._taken.append((x, y, x + width, y + height))
        return x, y


def outline_of(boundary: shapely.Geometry, view: View) -> shapely.Geometry:
    """Return the lines of a polygon or line in EPSG:4326, with all its parts and holes, in pixels of a view."""
    lines = view.to_pixels(boundary)
    if lines.geom_type in ("Polygon", "MultiPolygon"):
        return lines.boundary
    if lines.geom_type not in ("LineString", "MultiLineString", "LinearRing"):
        raise UsageError(f"boundary is a polygon or a line in EPSG:4326, found a {lines.geom_type}")
    return lines


def check_corner(corner: str) -> None:
    """Raise an error that names the corners for any other word."""
    if corner not in get_args(Corner):
        raise UsageError(f"unknown corner {corner!r}; choose {', '.join(get_args(Corner))}")
