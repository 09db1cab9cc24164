"""Draws overlays on pictures: boundary, label, scale bar, north arrow, colour bar, and the pattern for "no data".

Sizes follow the picture, so that a frame looks the same at 300 and at 1200 pixels. Text stands on dark, half
transparent plates and lines have a halo of the opposite lightness: both can be read on any background.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from gee_polygons.errors import UsageError
from gee_polygons.visualize.pictures.styles import Legend
from gee_polygons.visualize.pictures.text import (
    DARK,
    WHITE,
    fit,
    font,
    in_two_lines,
    length_text,
    number_text,
    round_length,
    text_size,
    write,
)
from gee_polygons.visualize.pictures.view import View

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]

NODATA_COLOURS: Final = ((236, 236, 236), (214, 214, 214))

_PLATE_OPACITY: Final = 178 / 255
_TEXT_GROWTH: Final = 0.85  # text size over the root of the picture's longer side: 12 px at 200, 19 at 512, 27 at 1024
_LEAST_TEXT_PX: Final = 10
_OVERSAMPLING: Final = 4
_MOST_MASK_PX: Final = 8_192  # on a side: bounds the memory of an oversampled mask to 64 MB
_BAR_SHARE: Final = 0.28  # longest scale bar, of the picture's width
_MOST_PLATE_SHARE: Final = 0.62  # a plate taking more of the width than this would hide the picture: it is left out


def nodata_pattern(height: int, width: int) -> NDArray[np.uint8]:
    """Return light diagonal stripes, uint8 (height, width, 3), which can't be taken for an embedding."""
    stripe = max(3, round(max(height, width) / 90))
    y, x = np.mgrid[:height, :width]
    return np.array(NODATA_COLOURS, np.uint8)[((x + y) // stripe) % 2]


def draw_boundary(
    picture: Image.Image, view: View, boundary: shapely.Geometry, rgb: tuple[int, int, int], width_px: float
) -> None:
    """Draw the outline of a polygon, with all its parts and holes, antialiased and with a thin halo."""
    lines = view.to_pixels(boundary)
    if lines.geom_type in ("Polygon", "MultiPolygon"):
        lines = lines.boundary
    elif lines.geom_type not in ("LineString", "MultiLineString", "LinearRing"):
        raise UsageError(f"boundary is a polygon or a line in EPSG:4326, found a {lines.geom_type}")
    halo_px = max(0.75, width_px * 0.4)
    # far outside the picture nothing is drawn, and simplifying by a twentieth of a pixel is never seen
    margin = width_px + halo_px + 1
    lines = lines.simplify(0.05).intersection(
        shapely.box(-margin, -margin, picture.width + margin, picture.height + margin)
    )
    halo = DARK if luminance(rgb) > 0.4 else WHITE
    _fill(picture, lines.buffer(width_px / 2 + halo_px), halo, 0.8)
    _fill(picture, lines.buffer(width_px / 2), rgb, 1.0)


class Plates:
    """Puts plates into the corners of a picture; one that would cover another is moved away from the edge.

    Parameters
    ----------
    picture : PIL image, RGB
        What is drawn on.
    """

    def __init__(self, picture: Image.Image) -> None:
        self.picture = picture
        self.text_px: int = max(_LEAST_TEXT_PX, round(_TEXT_GROWTH * max(picture.size) ** 0.5))
        self.margin = max(3, round(self.text_px * 0.45))
        self._taken: list[tuple[int, int, int, int]] = []

    def label(self, text: str, corner: Corner) -> None:
        """Write a label; a long one is written smaller, then cut, so that it fits."""
        room = self.picture.width - 2 * self.margin - 2 * _padding(self.text_px)[0]
        text, size = fit(text, room, self.text_px)
        face = font(size, bold=True)
        plate, draw, origin = _plate(*text_size(text, face), size)
        write(draw, origin, text, face)
        self._place(plate, corner)

    def scale_bar(self, metres_per_pixel: float, corner: Corner) -> None:
        """Draw a bar of a round length: 1, 2 or 5 times a power of ten."""
        metres = round_length(metres_per_pixel * self.picture.width * _BAR_SHARE)
        bar_px = metres / metres_per_pixel
        size = self._smaller_text_px(0.8)
        face, text = font(size), length_text(metres)
        text_width, text_height = text_size(text, face)
        line, gap = max(2, round(size / 7)), max(2, round(size * 0.3))
        width, height = max(round(bar_px), text_width), text_height + gap + 2 * line
        plate, draw, (left, top) = _plate(width, height, size)
        write(draw, (left + (width - text_width) / 2, top), text, face)
        middle = left + width / 2
        draw_bar(draw, round(middle - bar_px / 2), round(middle + bar_px / 2), top + height, line, WHITE)
        self._place(plate, corner, may_leave_out=True)

    def north_arrow(self, north_deg: float, corner: Corner) -> None:
        """Draw an arrow towards true north."""
        size = self._smaller_text_px(0.8)
        face = font(size, bold=True)
        text_width, text_height = text_size("N", face)
        length, gap = round(size * 1.35), max(2, round(size * 0.25))
        width = max(text_width, length)
        plate, draw, (left, top) = _plate(width, text_height + gap + length, size)
        write(draw, (left + (width - text_width) / 2, top), "N", face)
        angle = np.radians(north_deg)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        tip = np.array([[0, -0.5], [0.3, 0.5], [0, 0.28], [-0.3, 0.5]]) * length
        arrow = tip @ turn.T + (left + width / 2, top + text_height + gap + length / 2)
        _fill(plate, shapely.Polygon(arrow), (*WHITE, 255), 1.0)
        self._place(plate, corner, may_leave_out=True)

    def colour_bar(self, legend: Legend, corner: Corner) -> None:
        """Draw the colours of a palette, the values at its ends, and what they stand for."""
        size = self._smaller_text_px(0.72)
        face = font(size)
        low, high = number_text(legend.low), number_text(legend.high)
        room = round(self.picture.width * 0.5)
        title, _ = fit(in_two_lines(legend.label, room, font(size, bold=True)), room, size, smallest=size)
        title_width, title_height = text_size(title, face)
        low_width, number_height = text_size(low, face)
        high_width, _ = text_size(high, face)
        width = max(title_width, round(self.picture.width * 0.3), low_width + high_width + size)
        bar, gap = max(5, round(size * 0.7)), max(2, round(size * 0.35))
        plate, draw, (left, top) = _plate(width, title_height + gap + bar + gap + number_height, size)
        write(draw, (left, top), title, face)
        plate.paste(colour_ramp(legend, width, bar), (left, top + title_height + gap))
        bottom = top + title_height + gap + bar + gap
        write(draw, (left, bottom), low, face)
        write(draw, (left + width - high_width, bottom), high, face)
        self._place(plate, corner, may_leave_out=True)

    def _smaller_text_px(self, share: float) -> int:
        return max(_LEAST_TEXT_PX, round(self.text_px * share))

    def _place(self, plate: Image.Image, corner: Corner, *, may_leave_out: bool = False) -> None:
        width, height = plate.size
        too_large = width > self.picture.width * _MOST_PLATE_SHARE or height > self.picture.height * 0.5
        if may_leave_out and too_large:
            return
        gap = max(2, self.margin // 2)
        x = self.margin if "left" in corner else self.picture.width - self.margin - width
        y = self.margin if "top" in corner else self.picture.height - self.margin - height
        for left, top, right, bottom in sorted(self._taken, key=lambda t: t[1], reverse="bottom" in corner):
            if x < right and left < x + width and y < bottom + gap and top - gap < y + height:
                y = bottom + gap if "top" in corner else top - gap - height
        self.picture.paste(plate, (x, y), plate)
        self._taken.append((x, y, x + width, y + height))


def check_corner(corner: str) -> None:
    """Raise an error that names the corners for any other word."""
    if corner not in get_args(Corner):
        raise UsageError(f"unknown corner {corner!r}; choose {', '.join(get_args(Corner))}")


def draw_bar(
    draw: ImageDraw.ImageDraw, left: int, right: int, bottom: int, line: int, ink: tuple[int, int, int]
) -> None:
    """Draw a scale bar over the pixels [left, right), with a tick at each end; `line` is its thickness."""
    draw.rectangle((left, bottom - line, right - 1, bottom - 1), fill=ink)
    for tick in (left, right - line):
        draw.rectangle((tick, bottom - 3 * line, tick + line - 1, bottom - 1), fill=ink)


def colour_ramp(legend: Legend, width: int, height: int) -> Image.Image:
    """Return the colours of a legend from left to right."""
    return Image.fromarray(legend.colours[None]).resize((width, height), Image.Resampling.BILINEAR)


def luminance(rgb: ArrayLike) -> float:
    """Return the relative luminance of a colour of 0..255, 0..1 (WCAG 2.1)."""
    c = np.asarray(rgb) / 255
    linear = np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _padding(size: int) -> tuple[int, int]:
    """Return the space between text of a size and the edge of its plate: across, up."""
    return max(3, round(size * 0.5)), max(2, round(size * 0.36))


def _plate(width: int, height: int, size: int) -> tuple[Image.Image, ImageDraw.ImageDraw, tuple[int, int]]:
    """Return an empty plate with room for (width, height), something to draw on it with, and where to start."""
    pad_x, pad_y = _padding(size)
    plate = Image.new("RGBA", (width + 2 * pad_x, height + 2 * pad_y), (*DARK, 0))
    radius = min(plate.size) * 0.22
    inner = shapely.box(radius, radius, plate.width - radius, plate.height - radius)
    plate.putalpha(_mask(plate.size, inner.buffer(radius), _PLATE_OPACITY))
    return plate, ImageDraw.Draw(plate), (pad_x, pad_y)


def _fill(picture: Image.Image, shape: shapely.Geometry, rgb: tuple[int, ...], opacity: float) -> None:
    picture.paste(rgb, (0, 0), _mask(picture.size, shape, opacity))


def _mask(size: tuple[int, int], shape: shapely.Geometry, opacity: float) -> Image.Image:
    """Return the share of each pixel inside a shape (in pixels, from the top left corner), 0..255 times `opacity`."""
    fine = max(1, min(_OVERSAMPLING, _MOST_MASK_PX // max(size)))
    mask = Image.new("L", (size[0] * fine, size[1] * fine), 0)
    draw = ImageDraw.Draw(mask)
    parts = [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon" and not p.is_empty]
    # a part may lie in another's hole: outer parts first
    for part in sorted(parts, key=lambda p: -shapely.Polygon(p.exterior).area):
        for ring, ink in [(part.exterior, 255), *((hole, 0) for hole in part.interiors)]:
            # Pillow's coordinates are those of pixel centres
            draw.polygon([(x * fine - 0.5, y * fine - 0.5) for x, y in ring.coords], fill=ink)
    return mask.reduce(fine).point([round(level * opacity) for level in range(256)])
