"""Writes frames side by side (as a strip or a sheet) and one after the other (as GIF, WebP or MP4)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gee_polygons.errors import UsageError, optional_import
from gee_polygons.store.atomic import replacing
from gee_polygons.visualize.pictures.canvas import WHITE
from gee_polygons.visualize.pictures.gif import encode_gif
from gee_polygons.visualize.pictures.page import PageSize, Panel, draw_page, in_rows
from gee_polygons.visualize.pictures.styles import Colour, colour
from gee_polygons.visualize.saving import STILL_SUFFIXES, checked_suffix, exif_of, save_figure

Frame = Image.Image | NDArray[np.uint8]

MOVING_SUFFIXES: Final = (".gif", ".webp", ".mp4")
_SHORTEST_MS: Final = 20  # viewers slow anything faster down to 100 ms
_MP4_FRAMES_PER_S: Final = 50  # a frame in _SHORTEST_MS
_LONGEST_MS: Final = 655_350  # GIF counts hundredths of a second in 16 bits


def export_frames_as_strip(
    frames: Iterable[Frame],
    path: str | Path,
    *,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    dpi: float | None = None,
    width_mm: float | None = None,
    gap: int | None = None,
    background: Colour = "white",
) -> Path:
    """Write frames side by side as one picture.

    Parameters
    ----------
    frames : PIL images or uint8 arrays (height, width, 3)
        In order. Frames of unequal size are centred in cells of the largest size, never scaled.
    path : str or Path
        ``.png``, ``.jpg``, ``.webp``, ``.pdf`` or ``.svg``. Missing folders are created; an existing file is replaced.
    titles : sequence of str, optional
        One per frame, written above it.
    columns : int, optional
        Frames per row. By default up to 8 stand in one row; more wrap into rows of equal length.
    dpi, width_mm : float, optional
        Pixels per inch of paper, or the width on paper that gives them: by default 180 mm. Titles are 8 points there.
    gap : int, optional
        Space between frames in pixels; by default 3 points.
    background : str
        Colour name or hex.

    Returns
    -------
    Path of the picture. The same frames give the same bytes.

    Raises
    ------
    UsageError
        If there is no frame, titles don't match, or the suffix is unknown.

    Examples
    --------
    >>> import tempfile
    >>> frames = [Image.new("RGB", (40, 30), name) for name in ("teal", "orange")]
    >>> path = export_frames_as_strip(frames, Path(tempfile.mkdtemp(), "strip.png"), gap=4)
    >>> with Image.open(path) as strip:
    ...     strip.size
    (92, 38)
    """
    checked_suffix(path, STILL_SUFFIXES)
    pictures = _pictures(frames)
    if titles is not None and len(titles) != len(pictures):
        raise UsageError(f"{len(pictures)} frames need as many titles, found {len(titles)}")
    if gap is not None and gap < 0:
        raise UsageError(f"gap is a number of pixels, at least 0, found {gap}")
    panels = [
        Panel(pixels=np.asarray(picture), title=str(title))
        for picture, title in zip(pictures, titles or [""] * len(pictures), strict=True)
    ]
    rows = in_rows(panels, columns)
    width = max(picture.width for picture in pictures)
    scale = PageSize(dimensions=width, dpi=dpi, width_mm=width_mm).scale(len(rows[0]), width)
    page = draw_page(rows, scale=scale, gap=gap, background=colour(background))
    return save_figure(page.figure, path, info_of(pictures), dpi=72 * scale)


def export_frames_as_gif(
    frames: Iterable[Frame],
    path: str | Path,
    duration_ms: int | Sequence[int] = 700,
    loop: int | None = 0,
) -> Path:
    """Write frames as an animation that shows one after the other.

    A GIF has one palette of 256 colours for all frames; shades between them are mixed in a pattern that stays in its
    place, so that a colour that doesn't change doesn't flicker.

    Parameters
    ----------
    frames : PIL images or uint8 arrays (height, width, 3)
        In order. Frames of unequal size are centred on white.
    path : str or Path
        ``.gif``, ``.webp`` (all colours) or ``.mp4`` (needs ``imageio-ffmpeg``). An existing file is replaced.
    duration_ms : int or sequence of int
        How long each frame is shown, in milliseconds; GIF counts in steps of 10.
    loop : int or None
        Number of repeats: 0 = for ever, None = shown once. MP4 has no such setting.

    Returns
    -------
    Path of the file. The same frames give the same bytes (GIF and WebP).

    Raises
    ------
    UsageError
        If there is no frame, the suffix is unknown, or a duration or `loop` is out of range.
    DependencyError
        For MP4, if ``imageio-ffmpeg`` isn't installed.

    Examples
    --------
    >>> import tempfile
    >>> frames = [Image.new("RGB", (40, 30), name) for name in ("teal", "orange")]
    >>> path = export_frames_as_gif(frames, Path(tempfile.mkdtemp(), "years.gif"))
    >>> with Image.open(path) as film:
    ...     film.n_frames
    2
    """
    pictures = _pictures(frames)
    suffix = check_animation(path)
    durations = _durations(duration_ms, len(pictures))
    if loop is not None and (isinstance(loop, bool) or not isinstance(loop, int) or not 0 <= loop < 2**16):
        raise UsageError(f"loop is 0 (for ever), a number of repeats, or None (once), found {loop!r}")
    info = info_of(pictures)
    size = max(p.width for p in pictures), max(p.height for p in pictures)
    pictures = [_centred(p, size) for p in pictures]
    if suffix == ".mp4":
        return _save_mp4(pictures, path, durations, info.get("Attribution", ""))
    if suffix == ".gif":
        data = encode_gif(pictures, durations, loop, info.get("Attribution", ""))
    else:
        buffer = io.BytesIO()
        repeats = 1 if loop is None else loop
        more = {"append_images": pictures[1:], "duration": durations, "loop": repeats, "exif": exif_of(info)}
        pictures[0].save(buffer, "WEBP", save_all=True, lossless=True, **more)
        data = buffer.getvalue()
    with replacing(path) as part:
        part.write_bytes(data)
    return Path(path)


def check_animation(path: str | Path) -> str:
    """Return the suffix of an animation's name, or raise an error that names those possible or a missing package."""
    suffix = checked_suffix(path, MOVING_SUFFIXES)
    if suffix == ".mp4":
        needed = "MP4 needs ffmpeg: pip install imageio-ffmpeg; or choose a name ending in .gif or .webp"
        optional_import("imageio_ffmpeg", f"can't write {Path(path).name!r}: {needed}")
    return suffix


def info_of(pictures: Iterable[Image.Image]) -> dict[str, str]:
    """Collect the frames' attributions and sources, each text once."""
    infos = [picture.info for picture in pictures]
    found = {key: dict.fromkeys(str(info[key]) for info in infos if info.get(key)) for key in ("Attribution", "Source")}
    return {key: "; ".join(texts) for key, texts in found.items() if texts}


def _pictures(frames: Iterable[Frame]) -> list[Image.Image]:
    """Check frames and return them as RGB pictures."""
    if isinstance(frames, Image.Image | np.ndarray | str | Path):
        raise UsageError("frames is a list of pictures, found a single one; put it in a list")
    pictures = [_picture(number, frame) for number, frame in enumerate(frames)]
    if not pictures:
        raise UsageError("there are no frames; render at least one picture first")
    return pictures


def _picture(number: int, frame: Any) -> Image.Image:
    if isinstance(frame, np.ndarray):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] not in (3, 4):
            raise UsageError(
                f"frame {number}: an array is uint8 of shape (height, width, 3), found {frame.dtype} {frame.shape}"
            )
        frame = Image.fromarray(np.ascontiguousarray(frame))
    if not isinstance(frame, Image.Image):
        raise UsageError(f"frame {number} is not a picture but a {type(frame).__name__}; make it with render_image")
    if frame.mode in ("RGBA", "LA", "PA") or "transparency" in frame.info:
        rgba = frame.convert("RGBA")
        flat = Image.new("RGB", rgba.size, WHITE)
        flat.paste(rgba, (0, 0), rgba)
        flat.info = dict(frame.info)
        return flat
    return frame if frame.mode == "RGB" else frame.convert("RGB")


def _durations(duration_ms: int | Sequence[int], n_frames: int) -> list[int]:
    values = [duration_ms] * n_frames if isinstance(duration_ms, int | float) else list(duration_ms)
    if len(values) != n_frames:
        raise UsageError(f"{n_frames} frames need as many durations, or one for all, found {len(values)}")
    if not all(_SHORTEST_MS <= v <= _LONGEST_MS for v in values):
        raise UsageError(f"duration_ms is {_SHORTEST_MS}..{_LONGEST_MS} milliseconds per frame, found {duration_ms!r}")
    return [round(v) for v in values]


def _centred(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Put a picture into the middle of a white one."""
    if picture.size == size:
        return picture
    whole = Image.new("RGB", size, WHITE)
    whole.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    return whole


def _save_mp4(pictures: Sequence[Image.Image], path: str | Path, durations: Sequence[int], credit: str) -> Path:
    from imageio.v2 import get_writer

    # players stumble over rates such as 1.43 per second: a frame is repeated, which costs next to nothing
    ends = np.rint(np.cumsum(durations) * _MP4_FRAMES_PER_S / 1000).astype(int)
    repeats = np.diff(ends, prepend=0)
    width, height = pictures[0].size
    settings: dict[str, Any] = {
        "fps": _MP4_FRAMES_PER_S,
        "macro_block_size": 2,
        "quality": 8,
        "output_params": ["-metadata", f"comment={credit}"],
    }
    with replacing(path) as part, closing(get_writer(part, **settings)) as film:
        writer: Any = film
        for picture, times in zip(pictures, repeats, strict=True):
            # most players need even sides
            pixels = np.asarray(_centred(picture, (width + width % 2, height + height % 2)))
            for _ in range(times):
                writer.append_data(pixels)
    return Path(path)
