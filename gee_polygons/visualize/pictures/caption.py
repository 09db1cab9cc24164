"""What stands under a strip, a sheet or a film: scale, what the colours mean, and where the data come from.

Under the frames and not in them: a frame of 200 pixels has no room for a legend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from gee_polygons.embeddings.colors import PcaColors
from gee_polygons.visualize.pictures.draw import DARK, font, nodata_pattern, number_text, round_length, text_size, write
from gee_polygons.visualize.pictures.paint import Legend, Style, VisParams, legend_of

PAPER: Final = (255, 255, 255)
FAINT: Final = (96, 100, 108)  # 6.2 : 1 on white
_LEAST_TEXT_PX: Final = 11  # below, the dots of the i get lost
_MOST_TEXT_PX: Final = 22
_TEXT_SHARE: Final = 0.01  # of the whole picture's width
_TEXT_GROWTH: Final = 0.7  # text size over the root of a frame's longer side: 10 px at 200, 14 at 400, 16 at 512
_BAR_SHARE: Final = 0.35  # longest scale bar, of a frame's width


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What is to be said under frames.

    Parameters
    ----------
    style : Style
        How the frames are coloured.
    frame : (width, height)
        Size of a frame in pixels: sizes of text and scale bar follow it.
    metres_per_pixel : float, optional
        For a scale bar; None where frames differ in scale.
    nodata : bool
        Whether some of what is shown has no data.
    credit : str
        Where the data come from.
    """

    style: Style
    frame: tuple[int, int]
    metres_per_pixel: float | None = None
    nodata: bool = False
    credit: str = ""


def with_caption(picture: Image.Image, caption: Caption) -> Image.Image:
    """Return a picture with a caption under it, on white."""
    # a wide strip is shown smaller than it is
    size = round(max(_TEXT_GROWTH * max(caption.frame) ** 0.5, _TEXT_SHARE * picture.width))
    size = int(np.clip(size, _LEAST_TEXT_PX, _MOST_TEXT_PX))
    room = picture.width - size
    items = [_colours(caption.style, size, room)]
    if caption.metres_per_pixel is not None:
        items.insert(0, _scale(caption.metres_per_pixel, caption.frame[0], size))
    if caption.nodata:
        items.append(_nodata(size))
    lines = _rows(items, room, size)
    if caption.credit:
        lines.append(_words(caption.credit, max(_LEAST_TEXT_PX, round(size * 0.8)), room, FAINT))
    gap = size // 2
    height = picture.height + sum(line.height + gap for line in lines) + gap // 2
    whole = Image.new("RGB", (picture.width, height), PAPER)
    whole.paste(picture, (0, 0))
    whole.info.update(picture.info)
    y = picture.height + gap // 2
    for line in lines:
        whole.paste(line, (size // 2, y))
        y += line.height + gap
    return whole


def _rows(items: Sequence[Image.Image], room: int, size: int) -> list[Image.Image]:
    """Put items side by side, in as many rows as they need; centred in the height of their row."""
    space = 2 * size
    rows: list[list[Image.Image]] = []
    for item in items:
        if rows and sum(i.width + space for i in rows[-1]) + item.width <= room:
            rows[-1].append(item)
        else:
            rows.append([item])
    lines = []
    for row in rows:
        line = Image.new("RGB", (sum(i.width for i in row) + space * (len(row) - 1), max(i.height for i in row)), PAPER)
        x = 0
        for item in row:
            line.paste(item, (x, (line.height - item.height) // 2))
            x += item.width + space
        lines.append(line)
    return lines


def _scale(metres_per_pixel: float, frame_width: int, size: int) -> Image.Image:
    metres = round_length(metres_per_pixel * frame_width * _BAR_SHARE)
    bar = max(2, round(metres / metres_per_pixel))
    text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    face, line = font(size), max(2, round(size / 7))
    text_width, text_height = text_size(text, face)
    item = Image.new("RGB", (bar + size // 2 + text_width, max(text_height, 3 * line)), PAPER)
    draw = ImageDraw.Draw(item)
    bottom = item.height
    draw.rectangle((0, bottom - line, bar - 1, bottom - 1), fill=DARK)
    for tick in (0, bar - line):
        draw.rectangle((tick, bottom - 3 * line, tick + line - 1, bottom - 1), fill=DARK)
    write(draw, (bar + size // 2, bottom - text_height), text, face, DARK)
    return item


def _colours(style: Style, size: int, room: int) -> Image.Image:
    legend = legend_of(style)
    return _words(_meaning(style), size, room, DARK) if legend is None else _bar(legend, size, room)


def _meaning(style: Style) -> str:
    """Say what red, green and blue are."""
    if isinstance(style, PcaColors):
        return style.describe()
    assert isinstance(style, VisParams), "similarity has a colour bar"
    low, high = np.broadcast_to(style.min, 3), np.broadcast_to(style.max, 3)
    names = zip(style.bands, ("red", "green", "blue"), strict=True)
    spans = [f"{number_text(a)} to {number_text(b)}" for a, b in zip(low, high, strict=True)]
    if len(set(spans)) == 1:
        return ", ".join(f"{band} {name}" for band, name in names) + f" ({spans[0]})"
    return ", ".join(f"{band} {name} ({span})" for (band, name), span in zip(names, spans, strict=True))


def _bar(legend: Legend, size: int, room: int) -> Image.Image:
    """Draw what the colours stand for, then low, the colours, and high, in one line."""
    face = font(size)
    name = _words(legend.label.replace("\n", " "), size, room, DARK)
    low, high = number_text(legend.low), number_text(legend.high)
    widths = [text_size(text, face)[0] for text in (low, high)]
    bar, space, height = round(size * 7), size // 2, round(size * 0.8)
    ramp = Image.fromarray(np.ascontiguousarray(legend.colours[None])).resize((bar, height), Image.Resampling.BILINEAR)
    scale = Image.new("RGB", (widths[0] + bar + widths[1] + 2 * space, height), PAPER)
    draw = ImageDraw.Draw(scale)
    top = (height - text_size(low, face)[1]) // 2
    write(draw, (0, top), low, face, DARK)
    scale.paste(ramp, (widths[0] + space, 0))
    write(draw, (scale.width - widths[1], top), high, face, DARK)
    beside = name.width + size + scale.width <= room
    return _rows([name, scale], room, size // 2)[0] if beside else _stacked([name, scale], size // 2)


def _stacked(items: Sequence[Image.Image], gap: int) -> Image.Image:
    whole = Image.new(
        "RGB", (max(i.width for i in items), sum(i.height for i in items) + gap * (len(items) - 1)), PAPER
    )
    y = 0
    for item in items:
        whole.paste(item, (0, y))
        y += item.height + gap
    return whole


def _nodata(size: int) -> Image.Image:
    text, face = "no data", font(size)
    side = round(size * 1.1)
    width, height = text_size(text, face)
    item = Image.new("RGB", (2 * side + size // 2 + width, side), PAPER)
    item.paste(Image.fromarray(nodata_pattern(side, 2 * side)), (0, 0))
    ImageDraw.Draw(item).rectangle((0, 0, 2 * side - 1, side - 1), outline=FAINT)
    write(ImageDraw.Draw(item), (2 * side + size // 2, (side - height) // 2), text, face, DARK)
    return item


def _words(text: str, size: int, room: int, ink: tuple[int, int, int]) -> Image.Image:
    """Write a text in as many lines as it needs."""
    face = font(size)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_size(longer, face)[0] <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    whole = "\n".join(lines)
    width, height = text_size(whole, face)
    item = Image.new("RGB", (max(1, min(width, room)), height + round(size * 0.3)), PAPER)
    write(ImageDraw.Draw(item), (0, 0), whole, face, ink)
    return item
