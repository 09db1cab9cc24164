"""Writes frames side by side (as a strip or a sheet) and one after the other (as GIF, WebP or MP4)."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from gee_polygons.errors import UsageError, optional_import
from gee_polygons.store.atomic import replacing
from gee_polygons.visualize.pictures.gif import encode_gif
from gee_polygons.visualize.pictures.styles import Colour, colour
from gee_polygons.visualize.pictures.text import DARK, WHITE, fit, font, text_size

Frame = Image.Image | NDArray[np.uint8]

STILL_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
MOVING_SUFFIXES: Final = (".gif", ".webp", ".mp4")
_FRAMES_PER_ROW: Final = 8  # more wrap into rows of equal length
_SHORTEST_MS: Final = 20  # viewers slow anything faster down to 100 ms
_MP4_FRAMES_PER_S: Final = 50  # a frame in _SHORTEST_MS
_LONGEST_MS: Final = 655_350  # GIF counts hundredths of a second in 16 bits


def export_frames_as_strip(
    frames: Iterable[Frame],
    path: str | Path,
    *,
    titles: Sequence[str] | None = None,
    wrap: int | None = None,
    gap: int | None = None,
    background: Colour = "white",
) -> Path:
    """Write frames side by side as one picture.

    Parameters
    ----------
    frames : PIL images or uint8 arrays (height, width, 3)
        In order. Frames of unequal size are centred in cells of the largest size, never scaled.
    path : str or Path
        ``.png``, ``.jpg`` or ``.webp``. Missing folders are created; an existing file is replaced.
    titles : sequence of str, optional
        One per frame, written above it.
    wrap : int, optional
        Frames per row. By default up to 8 stand in one row; more wrap into rows of equal length.
    gap : int, optional
        Space between frames in pixels; by default 2 % of a frame.
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
    pictures = _pictures(frames)
    sheet = strip(pictures, titles=titles, wrap=wrap, gap=gap, background=background)
    return save_still(sheet, path, info_of(pictures))


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
        more = {"append_images": pictures[1:], "duration": durations, "loop": repeats, "exif": _exif(info)}
        pictures[0].save(buffer, "WEBP", save_all=True, lossless=True, **more)
        data = buffer.getvalue()
    with replacing(path) as part:
        part.write_bytes(data)
    return Path(path)


def strip(
    pictures: Sequence[Image.Image],
    *,
    titles: Sequence[str] | None = None,
    wrap: int | None = None,
    gap: int | None = None,
    background: Colour = "white",
) -> Image.Image:
    """Lay pictures out side by side, in rows of equal length: see `export_frames_as_strip`."""
    if wrap is not None and (isinstance(wrap, bool) or not isinstance(wrap, int) or wrap < 1):
        raise UsageError(f"wrap is a number of frames per row, at least 1, found {wrap!r}")
    if titles is not None and len(titles) != len(pictures):
        raise UsageError(f"{len(pictures)} frames need as many titles, found {len(titles)}")
    n_rows = math.ceil(len(pictures) / (wrap or _FRAMES_PER_ROW))
    n_columns = wrap or math.ceil(len(pictures) / n_rows)
    return grid(pictures, n_columns, titles=titles, gap=gap, background=background)


def grid(
    frames: Sequence[Image.Image],
    n_columns: int,
    *,
    titles: Sequence[str] | None = None,
    row_titles: Sequence[str] | None = None,
    gap: int | None = None,
    background: Colour = "white",
) -> Image.Image:
    """Lay frames out row by row, in cells of equal size.

    `titles` stand above the frames: one for each, or one for each of the first row. `row_titles` stand to the left.
    """
    width, height = max(f.width for f in frames), max(f.height for f in frames)
    gap = max(2, round(max(width, height) * 0.02)) if gap is None else gap
    if gap < 0:
        raise UsageError(f"gap is a number of pixels, at least 0, found {gap}")
    paper = colour(background)
    ink = DARK if sum(paper) > 382 else WHITE
    size = max(10, round(max(width, height) * 0.05))
    face = font(size, bold=True)
    titles = titles or ()
    title_height = round(size * 1.5)
    n_rows, n_titled = math.ceil(len(frames) / n_columns), math.ceil(len(titles) / n_columns)
    left = max((text_size(t, face)[0] for t in row_titles), default=0) + size if row_titles else 0
    sheet_width = left + gap + n_columns * (width + gap)
    sheet = Image.new("RGB", (sheet_width, gap + n_titled * title_height + n_rows * (height + gap)), paper)
    draw = ImageDraw.Draw(sheet)
    for number, frame in enumerate(frames):
        row, column = divmod(number, n_columns)
        x = left + gap + column * (width + gap)
        y = gap + row * (height + gap) + min(row + 1, n_titled) * title_height
        if number < len(titles):
            title, fitted = fit(str(titles[number]), width, size, smallest=10)
            middle = (x + width / 2, y - size * 0.42)
            draw.text(middle, title, font=font(fitted, bold=True), fill=ink, anchor="ms")
        sheet.paste(frame, (x + (width - frame.width) // 2, y + (height - frame.height) // 2))
        if row_titles and column == 0:
            draw.text((left - size * 0.1, y + height / 2), row_titles[row], font=face, fill=ink, anchor="rm")
    return sheet


def save_still(picture: Image.Image, path: str | Path, info: dict[str, str]) -> Path:
    """Write a picture with source and attribution of its data inside."""
    suffix = check_still(path)
    buffer = io.BytesIO()
    if suffix == ".png":
        notes = PngInfo()
        for key, text in info.items():
            notes.add_itxt(key, text)
        picture.save(buffer, "PNG", pnginfo=notes, optimize=True)
    elif suffix == ".webp":
        picture.save(buffer, "WEBP", lossless=True, exif=_exif(info))
    else:
        picture.save(buffer, "JPEG", quality=92, subsampling=0, exif=_exif(info))
    with replacing(path) as part:
        part.write_bytes(buffer.getvalue())
    return Path(path)


def check_still(path: str | Path) -> str:
    """Return the suffix of a picture's name, or raise an error that names the possible ones."""
    return _suffix(path, STILL_SUFFIXES)


def check_animation(path: str | Path) -> str:
    """Return the suffix of an animation's name, or raise an error that names those possible or a missing package."""
    suffix = _suffix(path, MOVING_SUFFIXES)
    if suffix == ".mp4":
        needed = "MP4 needs ffmpeg: pip install imageio-ffmpeg; or choose a name ending in .gif or .webp"
        optional_import("imageio_ffmpeg", f"can't write {Path(path).name!r}: {needed}")
    return suffix


def _exif(info: dict[str, str]) -> bytes:
    """Return source and attribution as EXIF's description and copyright."""
    exif = Image.Exif()
    for key, tag in (("Source", ExifTags.Base.ImageDescription), ("Attribution", ExifTags.Base.Copyright)):
        if key in info:
            exif[tag] = info[key]
    return exif.tobytes() if len(exif) else b""


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


def _suffix(path: str | Path, known: Sequence[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise UsageError(f"{Path(path).name!r}: the name must end in {', '.join(known)}")
    return suffix


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
