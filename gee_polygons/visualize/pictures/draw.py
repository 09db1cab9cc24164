"""What is drawn over pixels: boundary, label, scale bar, north arrow, colour bar, and the sign for "no data".

Sizes follow the picture, so that a frame looks the same at 300 and at 1200 pixels. Words stand on dark, half
transparent plates, lines have a halo of the opposite lightness: both read on any background.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gee_polygons.errors import UsageError
from gee_polygons.visualize.pictures.paint import Legend
from gee_polygons.visualize.pictures.view import View

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

WHITE: Final = (255, 255, 255)
DARK: Final = (22, 24, 28)
PLATE: Final = (*DARK, 178)
NODATA_COLOURS: Final = ((236, 236, 236), (214, 214, 214))

_TEXT_GROWTH: Final = 0.85  # text size over the root of the picture's longer side: 12 px at 200, 19 at 512, 27 at 1024
_LEAST_TEXT_PX: Final = 10
_SMALLEST_FITTED_PX: Final = 7
_OVERSAMPLING: Final = 4
_MOST_MASK_PX: Final = 8_192  # on a side: bounds the memory of an oversampled mask to 64 MB
_BAR_SHARE: Final = 0.28  # longest scale bar, of the picture's width
_MOST_PLATE_SHARE: Final = 0.62  # a plate taking more of the width than this would hide the picture: it is left out


def nodata_pattern(height: int, width: int) -> NDArray[np.uint8]:
    """Return a light neutral hatch, uint8 (height, width, 3): diagonal stripes, which no embedding looks like."""
    stripe = max(3, round(max(height, width) / 90))
    y, x = np.mgrid[:height, :width]
    hatch: NDArray[np.uint8] = np.array(NODATA_COLOURS, np.uint8)[((x + y) // stripe) % 2]
    return hatch


def draw_boundary(
    picture: Image.Image, view: View, boundary: shapely.Geometry, rgb: tuple[int, int, int], width_px: float
) -> None:
    """Draw a polygon's outline, holes and all parts included, antialiased, with a thin halo."""
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
    halo = DARK if _luminance(rgb) > 0.4 else WHITE
    _fill(picture, lines.buffer(width_px / 2 + halo_px), halo, 0.8)
    _fill(picture, lines.buffer(width_px / 2), rgb, 1.0)


class Plates:
    """Puts plates into the corners of a picture; one that would cover another moves away from the edge.

    Parameters
    ----------
    picture : PIL image, RGB
        What is drawn on.
    """

    def __init__(self, picture: Image.Image) -> None:
        self.picture = picture
        longer = max(picture.size)
        self.text_px = max(_LEAST_TEXT_PX, round(_TEXT_GROWTH * longer**0.5))
        self.margin = max(3, round(self.text_px * 0.45))
        self._taken: list[tuple[int, int, int, int]] = []

    def label(self, text: str, corner: Corner) -> None:
        """Write a label; a long one is set smaller, then cut, so that it fits."""
        room = self.picture.width - 2 * self.margin - self._padding(self.text_px)[0] * 2
        text, size = fit(text, room, self.text_px)
        face = font(size, bold=True)
        width, height = text_size(text, face)
        plate, draw, (left, top) = self._plate(width, height, size)
        write(draw, (left, top), text, face)
        self._place(plate, corner)

    def scale_bar(self, metres_per_pixel: float, corner: Corner) -> None:
        """Draw a bar of a round length: 1, 2 or 5 times a power of ten."""
        metres = round_length(metres_per_pixel * self.picture.width * _BAR_SHARE)
        bar_px = metres / metres_per_pixel
        size = max(_LEAST_TEXT_PX, round(self.text_px * 0.8))
        face = font(size)
        text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
        text_width, text_height = text_size(text, face)
        line = max(2, round(size / 7))
        gap = max(2, round(size * 0.3))
        width = max(round(bar_px), text_width)
        plate, draw, (left, top) = self._plate(width, text_height + gap + 2 * line, size)
        write(draw, (left + (width - text_width) / 2, top), text, face)
        middle, bottom = left + width / 2, top + text_height + gap + 2 * line
        start, stop = round(middle - bar_px / 2), round(middle + bar_px / 2) - 1
        draw.rectangle((start, bottom - line, stop, bottom - 1), fill=WHITE)
        for tick in (start, stop - line + 1):
            draw.rectangle((tick, bottom - 3 * line, tick + line - 1, bottom - 1), fill=WHITE)
        self._place(plate, corner, may_leave_out=True)

    def north_arrow(self, north_deg: float, corner: Corner) -> None:
        """Draw an arrow towards true north."""
        size = max(_LEAST_TEXT_PX, round(self.text_px * 0.8))
        face = font(size, bold=True)
        text_width, text_height = text_size("N", face)
        length = round(size * 1.35)
        gap = max(2, round(size * 0.25))
        width = max(text_width, length)
        plate, draw, (left, top) = self._plate(width, text_height + gap + length, size)
        write(draw, (left + (width - text_width) / 2, top), "N", face)
        angle = np.radians(north_deg)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        tip = np.array([[0, -0.5], [0.3, 0.5], [0, 0.28], [-0.3, 0.5]]) * length
        arrow = tip @ turn.T + (left + width / 2, top + text_height + gap + length / 2)
        _fill(plate, shapely.Polygon(arrow), (*WHITE, 255), 1.0)
        self._place(plate, corner, may_leave_out=True)

    def colour_bar(self, legend: Legend, corner: Corner) -> None:
        """Draw the colours of a palette with the values at their ends and what they are."""
        size = max(_LEAST_TEXT_PX, round(self.text_px * 0.72))
        face = font(size)
        low, high = number_text(legend.low), number_text(legend.high)
        room = round(self.picture.width * 0.5)
        title, _ = fit(_in_two_lines(legend.label, room, font(size, bold=True)), room, size, smallest=size)
        title_width, title_height = text_size(title, face)
        low_width, number_height = text_size(low, face)
        high_width, _ = text_size(high, face)
        width = max(title_width, round(self.picture.width * 0.3), low_width + high_width + size)
        bar = max(5, round(size * 0.7))
        gap = max(2, round(size * 0.35))
        plate, draw, (left, top) = self._plate(width, title_height + gap + bar + gap + number_height, size)
        write(draw, (left, top), title, face)
        ramp = Image.fromarray(np.ascontiguousarray(legend.colours[None])).resize(
            (width, bar), Image.Resampling.BILINEAR
        )
        plate.paste(ramp.convert("RGBA"), (left, top + title_height + gap))
        bottom = top + title_height + gap + bar + gap
        write(draw, (left, bottom), low, face)
        write(draw, (left + width - high_width, bottom), high, face)
        self._place(plate, corner, may_leave_out=True)

    def _padding(self, size: int) -> tuple[int, int]:
        return max(3, round(size * 0.5)), max(2, round(size * 0.36))

    def _plate(self, width: int, height: int, size: int) -> tuple[Image.Image, ImageDraw.ImageDraw, tuple[int, int]]:
        """Return an empty plate with room for (width, height), something to draw on it with, and where to start."""
        pad_x, pad_y = self._padding(size)
        plate = Image.new("RGBA", (width + 2 * pad_x, height + 2 * pad_y), (*DARK, 0))
        radius = min(plate.size) * 0.22
        inner = shapely.box(radius, radius, plate.width - radius, plate.height - radius)
        mask = _mask(plate.size, inner.buffer(radius))
        plate.putalpha(mask.point([round(level * PLATE[3] / 255) for level in range(256)]))
        return plate, ImageDraw.Draw(plate), (pad_x, pad_y)

    def _place(self, plate: Image.Image, corner: Corner, *, may_leave_out: bool = False) -> None:
        wide = plate.width > self.picture.width * _MOST_PLATE_SHARE
        if may_leave_out and (wide or plate.height > self.picture.height * 0.5):
            return
        width, height = plate.size
        gap = max(2, self.margin // 2)
        x = self.margin if "left" in corner else self.picture.width - self.margin - width
        y = self.margin if "top" in corner else self.picture.height - self.margin - height
        for left, top, right, bottom in sorted(self._taken, key=lambda t: t[1], reverse="bottom" in corner):
            if x < right and left < x + width and y < bottom + gap and top - gap < y + height:
                y = bottom + gap if "top" in corner else top - gap - height
        self.picture.paste(plate, (x, y), plate)
        self._taken.append((x, y, x + width, y + height))


def check_corner(corner: str) -> Corner:
    """Return a corner's name, or say which there are."""
    if corner not in get_args(Corner):
        raise UsageError(f"unknown corner {corner!r}; choose {', '.join(get_args(Corner))}")
    return corner  # type: ignore[return-value]


def round_length(longest: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that isn't above `longest`.

    Examples
    --------
    >>> round_length(430), round_length(1999.9), round_length(0.7)
    (200.0, 1000.0, 0.5)
    """
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest))


@lru_cache(maxsize=64)
def font(size: int, bold: bool = False) -> Font:
    """Return DejaVu Sans at a size in pixels, from the font files that every matplotlib brings along.

    So a picture doesn't depend on the fonts of the machine.
    """
    import matplotlib as mpl

    path = Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
    # the basic layout is the same on every machine; raqm needn't be there
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def text_size(text: str, face: Font) -> tuple[int, int]:
    """Return width and height of a text in pixels; the height is that of the line, whatever the letters."""
    left, _, right, _ = _ruler().multiline_textbbox((0, 0), text, font=face)
    lines = text.count("\n") + 1
    return int(np.ceil(right - left)), round(_line_height(face) * (1 + 1.35 * (lines - 1)))


def _line_height(face: Font) -> int:
    _, top, _, bottom = _ruler().textbbox((0, 0), "H", font=face)
    return int(np.ceil(bottom - top))


def write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, face: Font, ink: tuple[int, int, int] = WHITE
) -> None:
    """Write with the top of the capitals at `at`."""
    _, top, _, _ = _ruler().textbbox((0, 0), "H", font=face)
    for number, line in enumerate(text.split("\n")):
        left, _, _, _ = _ruler().textbbox((0, 0), line, font=face)
        y = at[1] - top + number * 1.35 * _line_height(face)
        draw.text((round(at[0] - left), round(y)), line, font=face, fill=ink)


@lru_cache(maxsize=1)
def _ruler() -> ImageDraw.ImageDraw:
    return ImageDraw.Draw(Image.new("L", (1, 1)))


def fit(text: str, room: int, size: int, smallest: int = _SMALLEST_FITTED_PX) -> tuple[str, int]:
    """Return a text and a size at which it is no wider than `room`: smaller first, then cut."""
    while size > smallest and text_size(text, font(size, bold=True))[0] > room:
        size -= 1
    face = font(size, bold=True)
    lines = text.split("\n")
    for number, line in enumerate(lines):
        kept = line
        while len(kept) > 1 and text_size(lines[number], face)[0] > room:
            kept = kept[:-1]
            lines[number] = kept.rstrip() + "…"
    return "\n".join(lines), size


def _in_two_lines(text: str, room: int, face: Font) -> str:
    """Break a text that is too wide at the space nearest its middle."""
    spaces = [place for place, letter in enumerate(text) if letter == " "]
    if "\n" in text or not spaces or text_size(text, face)[0] <= room:
        return text
    at = min(spaces, key=lambda place: abs(place - len(text) / 2))
    return f"{text[:at]}\n{text[at + 1 :]}"


def number_text(value: float) -> str:
    """Write a number in at most three digits, with a minus sign as wide as a plus."""
    return f"{value:.3g}".replace("-", "−")  # noqa: RUF001


def _luminance(rgb: tuple[int, int, int]) -> float:
    """Relative luminance, 0..1 (WCAG 2.1)."""
    c = np.asarray(rgb) / 255
    linear = np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _fill(picture: Image.Image, shape: shapely.Geometry, rgb: tuple[int, ...], opacity: float) -> None:
    mask = _mask(picture.size, shape)
    picture.paste(rgb, (0, 0), mask.point([round(level * opacity) for level in range(256)]))


def _mask(size: tuple[int, int], shape: shapely.Geometry) -> Image.Image:
    """Return how far each pixel lies inside a shape (in pixels, from the top left corner), 0..255."""
    fine = max(1, min(_OVERSAMPLING, _MOST_MASK_PX // max(size)))
    mask = Image.new("L", (size[0] * fine, size[1] * fine), 0)
    draw = ImageDraw.Draw(mask)
    parts = [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon" and not p.is_empty]
    # a part may lie in another's hole: outer parts first
    for part in sorted(parts, key=lambda p: -shapely.Polygon(p.exterior).area):
        # Pillow's coordinates are of pixel centres
        draw.polygon([(x * fine - 0.5, y * fine - 0.5) for x, y in part.exterior.coords], fill=255)
        for hole in part.interiors:
            draw.polygon([(x * fine - 0.5, y * fine - 0.5) for x, y in hole.coords], fill=0)
    return mask.reduce(fine) if fine > 1 else mask
