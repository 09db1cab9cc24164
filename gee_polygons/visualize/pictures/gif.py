"""Encodes frames as a GIF with one palette for all of them, so that a colour that doesn't change doesn't flicker.

imageio and Pillow choose a palette for each frame. Pillow can be given one, but its `Image.save` merges equal frames,
and its dithering of one part of a frame depends on the other parts, so that unchanged pixels flicker. Therefore
palette and dithering are made here, and the file is written with Pillow's functions for headers and frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image, ImageChops

_PALETTE_COLOURS: Final = 256
_PALETTE_SAMPLE_PX: Final = 50_000  # pixels that a palette is made from; more take longer and change nothing
_MIXED_WITH: Final = 16  # nearest colours of the palette that are tried as the second of a mixture
_PATTERN_COST: Final = 0.1
_CHANNELS: Final = np.array([1 << 16, 1 << 8, 1], np.uint32)  # red, green and blue in one number


def encode_gif(pictures: Sequence[Image.Image], durations: Sequence[int], loop: int | None, comment: str) -> bytes:
    """Encode RGB pictures of equal size; of each frame only the part that changes is stored.

    Parameters
    ----------
    pictures : sequence of PIL images
        In order.
    durations : sequence of int
        Milliseconds that each is shown.
    loop : int or None
        Number of repeats, 0 = for ever, None = shown once.
    comment : str
        Text stored in the file.
    """
    indices, palette = _with_one_palette([np.asarray(p) for p in pictures])
    frames = [Image.fromarray(index) for index in indices]
    info: dict[str, Any] = {"duration": durations[0], "comment": comment}
    if loop is not None and len(frames) > 1:
        info["loop"] = loop
    first = frames[0].copy()
    first.putpalette(palette)
    header, _ = GifImagePlugin.getheader(first, info=info)
    changes = [ImageChops.difference(*pair).getbbox() for pair in itertools.pairwise(frames)]
    data = list(header)
    for frame, change, duration in zip(frames, [(0, 0, *first.size), *changes], durations, strict=True):
        box = change or (0, 0, 1, 1)  # a frame equal to the one before has no change, but its duration
        # disposal 1: leave the frame standing, the next is drawn over it
        data += GifImagePlugin.getdata(frame.crop(box), box[:2], duration=duration, disposal=1)
    return b"".join([*data, b";"])


def _with_one_palette(pixels: Sequence[NDArray[np.uint8]]) -> tuple[list[NDArray[np.uint8]], bytes]:
    """Return frames as indices into one palette of 256 colours, and the palette, 768 bytes.

    Other colours are mixed from two of the palette by ordered dithering. Its pattern depends on the position alone, so
    that colours which don't change don't flicker, and gradients keep their shades.
    """
    packed = [p.astype(np.uint32) @ _CHANNELS for p in pixels]
    distinct = np.unique(np.concatenate([np.unique(p) for p in packed]))
    colours = _unpacked(distinct)
    palette = colours if len(colours) <= _PALETTE_COLOURS else _quantised(packed)
    mixtures = [_mixtures(part, palette) for part in np.array_split(colours, len(colours) // 4096 + 1)]
    first, second, share = (np.concatenate(parts) for parts in zip(*mixtures, strict=True))
    height, width = packed[0].shape
    rows, columns = np.arange(height) % len(_PATTERN), np.arange(width) % len(_PATTERN)
    pattern = _PATTERN[np.ix_(rows, columns)]
    indices = []
    for frame in packed:
        at = np.searchsorted(distinct, frame)
        indices.append(np.where(pattern < share[at], second[at], first[at]))
    return indices, palette.tobytes().ljust(3 * _PALETTE_COLOURS, b"\0")


def _unpacked(colours: NDArray[np.uint32]) -> NDArray[np.uint8]:
    return np.stack([colours >> 16, (colours >> 8) & 255, colours & 255], axis=-1).astype(np.uint8)


def _bayer(steps: int) -> NDArray[np.float64]:
    """Return the thresholds of ordered dithering, 0..1, 2^steps on a side (B. E. Bayer, 1973)."""
    pattern = np.zeros((1, 1))
    for _ in range(steps):
        pattern = np.block([[4 * pattern, 4 * pattern + 2], [4 * pattern + 3, 4 * pattern + 1]])
    return (pattern + 0.5) / pattern.size


_PATTERN: Final = _bayer(3)


def _quantised(packed: Sequence[NDArray[np.uint32]]) -> NDArray[np.uint8]:
    """Choose 256 colours for all frames together: Pillow's maximum coverage, then k-means."""
    every = max(1, sum(p.size for p in packed) // _PALETTE_SAMPLE_PX)
    sample = _unpacked(np.concatenate([p.ravel()[::every] for p in packed]))
    chosen = Image.fromarray(sample[None]).quantize(_PALETTE_COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=1)
    palette = np.array(chosen.getpalette(), np.uint8).reshape(-1, 3)
    return np.unique(palette, axis=0)


def _mixtures(
    colours: NDArray[np.uint8], palette: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]]:
    """Return for each colour the nearest of the palette, a second one, and the second one's share, 0..0.5."""
    c, p = colours.astype(np.float64), palette.astype(np.float64)
    distance = (p * p).sum(axis=1) - 2 * c @ p.T
    some = min(_MIXED_WITH, len(p))
    near = np.argpartition(distance, some - 1, axis=1)[:, :some]
    rows = np.arange(len(c))
    first = near[rows, np.take_along_axis(distance, near, axis=1).argmin(axis=1)]
    step = p[near] - p[first][:, None]
    wanted = (c - p[first])[:, None]
    length = (step * step).sum(axis=2)
    share = np.divide((wanted * step).sum(axis=2), length, out=np.zeros_like(length), where=length > 0)
    share = np.clip(share, 0.0, 0.5)
    error = wanted - share[..., None] * step
    # a mixture of two colours far apart is seen as a pattern
    cost = (error * error).sum(axis=2) + _PATTERN_COST * share * length
    best = cost.argmin(axis=1)
    return first.astype(np.uint8), near[rows, best].astype(np.uint8), share[rows, best]
