"""Puts a caption under a strip, a sheet or an animation: scale, meaning of the colours, and source of the data.

It stands under the frames because a frame of 200 pixels has no room for a legend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from gee_polygons.embeddings.colors import PcaColors
from gee_polygons.visualize.pictures.overlays import colour_ramp, draw_bar, nodata_pattern
from gee_polygons.visualize.pictures.styles import Legend, Style, VisParams, legend_of
from gee_polygons.visualize.pictures.text import (
    DARK,
    font,
    length_text,
    number_text,
    round_length,
    text_size,
    wrap,
    write,
)

PAPER: Final = (255, 255, 255)
FAINT: Final = (96, 100, 108)  # contrast to white 6.2 : 1
_LEAST_TEXT_PX: Final = 11  # below, the dots of the i get lost
_MOST_TEXT_PX: Final = 22
_TEXT_SHARE: Final = 0.01  # text size over the whole picture's width, at least
_TEXT_GROWTH: Final = 0.7  # text size over the root of a frame's longer side: 10 px at 200, 14 at 400, 16 at 512
_BAR_SHARE: Final = 0.35  # longest scale bar, of a frame's width


@dataclass(frozen=True, kw_only=True)
class Caption:
    """Content of a caption.

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
    # a wide strip is usually shown reduced, so that its text must be larger
    size = round(max(_TEXT_GROWTH * max(caption.frame) ** 0.5, _TEXT_SHARE * picture.width))
    size = int(np.clip(size, _LEAST_TEXT_PX, _MOST_TEXT_PX))
    room = picture.width - size
    items = [_colours(caption.style, size, room)]
    if caption.metres_per_pixel is not None:
        items.insert(0, _scale(caption.metres_per_pixel, caption.frame[0], size))
    if caption.nodata:
        items.append(_nodata(size))
    lines = _in_lines(items, room, 2 * size)
    if caption.credit:
        lines.append(_text(caption.credit, max(_LEAST_TEXT_PX, round(size * 0.8)), room, FAINT))
    gap = size // 2
    block = _stacked(lines, gap)
    whole = Image.new("RGB", (picture.width, picture.height + block.height + gap + gap // 2), PAPER)
    whole.paste(picture, (0, 0))
    whole.paste(block, (size // 2, picture.height + gap // 2))
    whole.info.update(picture.info)
    return whole


def _in_lines(items: Sequence[Image.Image], room: int, gap: int) -> list[Image.Image]:
    """Put items side by side, in as many lines as they need."""
    lines: list[list[Image.Image]] = []
    for item in items:
        if lines and sum(i.width + gap for i in lines[-1]) + item.width <= room:
            lines[-1].append(item)
        else:
            lines.append([item])
    return [_side_by_side(line, gap) for line in lines]


def _side_by_side(items: Sequence[Image.Image], gap: int) -> Image.Image:
    """Put items into one line, centred in its height."""
    height = max(item.height for item in items)
    line = Image.new("RGB", (sum(item.width + gap for item in items) - gap, height), PAPER)
    x = 0
    for item in items:
        line.paste(item, (x, (height - item.height) // 2))
        x += item.width + gap
    return line


def _stacked(items: Sequence[Image.Image], gap: int) -> Image.Image:
    """Put items under each other, aligned left."""
    width = max(item.width for item in items)
    block = Image.new("RGB", (width, sum(item.height + gap for item in items) - gap), PAPER)
    y = 0
    for item in items:
        block.paste(item, (0, y))
        y += item.height + gap
    return block


def _scale(metres_per_pixel: float, frame_width: int, size: int) -> Image.Image:
    """Draw a scale bar with its length in metres."""
    metres = round_length(metres_per_pixel * frame_width * _BAR_SHARE)
    bar = max(2, round(metres / metres_per_pixel))
    face, line, text = font(size), max(2, round(size / 7)), length_text(metres)
    text_width, text_height = text_size(text, face)
    item = Image.new("RGB", (bar + size // 2 + text_width, max(text_height, 3 * line)), PAPER)
    draw = ImageDraw.Draw(item)
    draw_bar(draw, 0, bar, item.height, line, DARK)
    write(draw, (bar + size // 2, item.height - text_height), text, face, DARK)
    return item


def _colours(style: Style, size: int, room: int) -> Image.Image:
    legend = legend_of(style)
    return _text(_meaning(style), size, room, DARK) if legend is None else _colour_bar(legend, size, room)


def _meaning(style: Style) -> str:
    """Say what red, green and blue are."""
    if isinstance(style, PcaColors):
        return style.describe()
    assert isinstance(style, VisParams), "similarity has a colour bar"
    low, high = np.broadcast_to(style.min, 3), np.broadcast_to(style.max, 3)
    names = [f"{band} {name}" for band, name in zip(style.bands, ("red", "green", "blue"), strict=True)]
    spans = [f"({number_text(a)} to {number_text(b)})" for a, b in zip(low, high, strict=True)]
    if len(set(spans)) == 1:
        return f"{', '.join(names)} {spans[0]}"
    return ", ".join(f"{name} {span}" for name, span in zip(names, spans, strict=True))


def _colour_bar(legend: Legend, size: int, room: int) -> Image.Image:
    """Draw a legend: its label, then the colours between their lowest and highest value."""
    face = font(size)
    label = _text(legend.label.replace("\n", " "), size, room, DARK)
    low, high = number_text(legend.low), number_text(legend.high)
    low_width, text_height = text_size(low, face)
    high_width, _ = text_size(high, face)
    bar, gap, height = round(size * 7), size // 2, round(size * 0.8)
    scale = Image.new("RGB", (low_width + bar + high_width + 2 * gap, height), PAPER)
    draw = ImageDraw.Draw(scale)
    top = (height - text_height) // 2
    write(draw, (0, top), low, face, DARK)
    scale.paste(colour_ramp(legend, bar, height), (low_width + gap, 0))
    write(draw, (scale.width - high_width, top), high, face, DARK)
    fits = label.width + size + scale.width <= room
    return _side_by_side([label, scale], 2 * gap) if fits else _stacked([label, scale], gap)


def _nodata(size: int) -> Image.Image:
    """Draw a patch of the pattern for ground without data, and say so."""
    text, face = "no data", font(size)
    side = round(size * 1.1)
    width, height = text_size(text, face)
    item = Image.new("RGB", (2 * side + size // 2 + width, side), PAPER)
    item.paste(Image.fromarray(nodata_pattern(side, 2 * side)), (0, 0))
    draw = ImageDraw.Draw(item)
    draw.rectangle((0, 0, 2 * side - 1, side - 1), outline=FAINT)
    write(draw, (2 * side + size // 2, (side - height) // 2), text, face, DARK)
    return item


def _text(text: str, size: int, room: int, ink: tuple[int, int, int]) -> Image.Image:
    """Write a text in as many lines as it needs."""
    face = font(size)
    wrapped = wrap(text, room, face)
    width, height = text_size(wrapped, face)
    item = Image.new("RGB", (max(1, min(width, room)), height + round(size * 0.3)), PAPER)
    write(ImageDraw.Draw(item), (0, 0), wrapped, face, ink)
    return item
