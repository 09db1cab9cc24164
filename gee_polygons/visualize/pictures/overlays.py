"""Draws overlays on single pictures: boundary, label, scale bar, north arrow and colour bar.

Sizes follow the picture, so that a frame looks the same at 300 and at 1200 pixels. A label stands on a dark, half
transparent plate, the rest is white with a dark halo: both can be read on any background.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import numpy as np
import shapely
from PIL import Image

from gee_polygons.errors import UsageError
from gee_polygons.visualize.pictures.canvas import (
    DARK,
    RGB,
    WHITE,
    Canvas,
    fit,
    length_text,
    number_text,
    round_length,
    text_width,
)
from gee_polygons.visualize.pictures.styles import Legend
from gee_polygons.visualize.pictures.view import View

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]

_PLATE_OPACITY: Final = 178 / 255
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
        self.canvas = Canvas(*size)
        self.text_px: int = max(_LEAST_TEXT_PX, round(_TEXT_GROWTH * max(size) ** 0.5))
        self.margin = max(3, round(self.text_px * 0.45))
        self._taken: list[tuple[float, float, float, float]] = []

    def over(self, picture: Image.Image) -> Image.Image:
        """Return a picture with the overlay on it."""
        drawn = self.canvas.raster()
        whole = picture.copy()
        whole.paste(drawn, (0, 0), drawn)
        return whole

    def boundary(self, outline: shapely.Geometry, rgb: RGB, width_px: float) -> None:
        """Draw lines, in pixels."""
        self.canvas.outline(outline, rgb, width_px, (0, 0, self.width, self.height))

    def label(self, text: str, corner: Corner) -> None:
        """Write a label; a long one is written smaller, then cut, so that it fits."""
        pad = max(3, round(self.text_px * 0.5))
        text, size = fit(text, self.width - 2 * (self.margin + pad), self.text_px, smallest=7)
        width, height = text_width(text, size, bold=True) + 2 * pad, size * 0.73 + 1.5 * pad
        place = self._place(width, height, corner, always=True)
        if place is not None:
            x, y = place
            dark = {"facecolor": (*(c / 255 for c in DARK), _PLATE_OPACITY)}
            self.canvas.rectangle(x, y, width, height, **dark)
            self.canvas.text(x + pad, y + height - 0.75 * pad, text, size, WHITE, bold=True)

    def scale_bar(self, metres_per_pixel: float, corner: Corner) -> None:
        """Draw a bar of a round length: 1, 2 or 5 times a power of ten."""
        metres = round_length(metres_per_pixel * self.width * _BAR_SHARE)
        size, bar, text = self._smaller(0.8), metres / metres_per_pixel, length_text(metres)
        width, height = max(bar, text_width(text, size)), size * 1.6
        if place := self._place(width, height, corner):
            x, y = place
            self.canvas.text(x, y + size * 0.8, text, size, WHITE, halo=DARK)
            self.canvas.scale_bar(round(x), round(y + height) - 1, bar, WHITE, halo=DARK)

    def north_arrow(self, north_deg: float, corner: Corner) -> None:
        """Draw an arrow towards true north."""
        from matplotlib.patches import Polygon

        size = self._smaller(0.8)
        length = round(size * 1.35)
        if place := self._place(length, size * 1.1 + length, corner):
            x, y = place[0] + length / 2, place[1] + size * 1.1 + length / 2
            self.canvas.text(x, place[1] + size * 0.8, "N", size, WHITE, halo=DARK, bold=True, ha="center")
            angle = np.radians(north_deg)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            tip = np.array([[0, -0.5], [0.3, 0.5], [0, 0.28], [-0.3, 0.5]]) * length
            style: Any = {
                "facecolor": "white",
                "edgecolor": [c / 255 for c in DARK],
                "linewidth": size / 14,
                "zorder": 5,
            }
            self.canvas.axes.add_patch(Polygon(tip @ turn.T + (x, y), **style))

    def colour_bar(self, legend: Legend, corner: Corner) -> None:
        """Draw the colours of a palette, the values at its ends, and what they stand for."""
        size = self._smaller(0.72)
        low, high = number_text(legend.low), number_text(legend.high)
        title, _ = fit(legend.label, self.width * 0.5, size, smallest=size)
        width = max(text_width(title, size, bold=True), self.width * 0.3, text_width(f"{low}   {high}", size))
        if place := self._place(width, size * 3.2, corner):
            x, y = place
            self.canvas.text(x, y + size * 0.8, title, size, WHITE, halo=DARK, bold=True)
            self.canvas.ramp(legend, round(x), round(y + size * 1.2), round(width), round(size * 0.7))
            self.canvas.text(x, y + size * 2.9, low, size, WHITE, halo=DARK)
            self.canvas.text(x + width, y + size * 2.9, high, size, WHITE, halo=DARK, ha="right")

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
