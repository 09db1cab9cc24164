"""Writes text into pictures: the fonts, how large a text is, and how it is fitted into the room there is."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Final

from PIL import ImageDraw, ImageFont

WHITE: Final = (255, 255, 255)
DARK: Final = (22, 24, 28)
LINE_SPACING: Final = 1.35  # of the height of a capital
_SMALLEST_FITTED_PX: Final = 7

Font = ImageFont.FreeTypeFont


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
    """Return the width and height of a text in pixels; the height depends on the number of lines alone."""
    lines = text.split("\n")
    boxes = [face.getbbox(line) for line in lines]
    width = max(right for _, _, right, _ in boxes) - min(left for left, _, _, _ in boxes)
    return math.ceil(width), round(_capital_height(face) * (1 + LINE_SPACING * (len(lines) - 1)))


def _capital_height(face: Font) -> int:
    _, top, _, bottom = face.getbbox("H")
    return math.ceil(bottom - top)


def write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, face: Font, ink: tuple[int, int, int] = WHITE
) -> None:
    """Write a text with the top left corner of its capitals at `at`."""
    top = face.getbbox("H")[1]
    for number, line in enumerate(text.split("\n")):
        x = at[0] - face.getbbox(line)[0]
        y = at[1] - top + number * LINE_SPACING * _capital_height(face)
        draw.text((round(x), round(y)), line, font=face, fill=ink)


def fit(text: str, room: int, size: int, smallest: int = _SMALLEST_FITTED_PX) -> tuple[str, int]:
    """Return a bold text and a size at which it is no wider than `room`: made smaller first, then cut."""
    while size > smallest and text_size(text, font(size, bold=True))[0] > room:
        size -= 1
    return "\n".join(_cut(line, room, font(size, bold=True)) for line in text.split("\n")), size


def _cut(line: str, room: int, face: Font) -> str:
    kept, shown = line, line
    while len(kept) > 1 and text_size(shown, face)[0] > room:
        kept = kept[:-1]
        shown = kept.rstrip() + "…"
    return shown


def wrap(text: str, room: int, face: Font) -> str:
    """Break a text into as many lines as it needs."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_size(longer, face)[0] <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def in_two_lines(text: str, room: int, face: Font) -> str:
    """Break a text that is too wide at the space nearest its middle."""
    spaces = [place for place, letter in enumerate(text) if letter == " "]
    if "\n" in text or not spaces or text_size(text, face)[0] <= room:
        return text
    at = min(spaces, key=lambda place: abs(place - len(text) / 2))
    return f"{text[:at]}\n{text[at + 1 :]}"


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
