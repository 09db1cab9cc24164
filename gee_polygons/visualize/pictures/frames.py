"""Frames side by side (a strip, a sheet) and one after the other (GIF, WebP, MP4)."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, GifImagePlugin, Image, ImageChops, ImageDraw
from PIL.PngImagePlugin import PngInfo

from gee_polygons.errors import DependencyError, UsageError
from gee_polygons.store.atomic import replacing
from gee_polygons.visualize.pictures.draw import DARK, fit, font, text_size
from gee_polygons.visualize.pictures.paint import Colour, colour

Frame = Image.Image | NDArray[np.uint8]

STILL_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
MOVING_SUFFIXES: Final = (".gif", ".webp", ".mp4")
_FRAMES_PER_ROW: Final = 8  # a strip of more wraps into rows of equal length
_PALETTE_COLOURS: Final = 256
_PALETTE_SAMPLE_PX: Final = 300_000  # pixels that a palette is made from
_MIXED_WITH: Final = 16  # nearest colours of the palette that are tried as the second of a mixture
_PATTERN_COST: Final = 0.1
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
    """Put frames side by side into one picture.

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
    """Show frames one after the other.

    A GIF has one palette for all frames, made from all of them; shades between its 256 colours are mixed in a pattern
    that stays in its place, so that a colour that doesn't change doesn't flicker. (imageio and Pillow choose a palette
    per frame, so the GIF is put together here; MP4 goes through imageio.)

    Parameters
    ----------
    frames : PIL images or uint8 arrays (height, width, 3)
        In order. Frames of unequal size are centred on white.
    path : str or Path
        ``.gif``, ``.webp`` (all colours) or ``.mp4`` (needs ``imageio-ffmpeg``). An existing file is replaced.
    duration_ms : int or sequence of int
        How long each frame is shown, in milliseconds; GIF counts in steps of 10.
    loop : int or None
        How often it is repeated: 0 = for ever, None = shown once. MP4 has no such setting.

    Returns
    -------
    Path of the file. The same frames give the same bytes (GIF and WebP).

    Raises
    ------
    UsageError
        If there is no frame, or the suffix, a duration or `loop` can't be used.
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
    suffix = check_film(path)
    durations = _durations(duration_ms, len(pictures))
    if loop is not None and (isinstance(loop, bool) or not isinstance(loop, int) or not 0 <= loop < 2**16):
        raise UsageError(f"loop is 0 (for ever), a number of repeats, or None (once), found {loop!r}")
    info = info_of(pictures)
    size = max(p.width for p in pictures), max(p.height for p in pictures)
    pictures = [_centred(p, size, (255, 255, 255)) for p in pictures]
    if suffix == ".mp4":
        return _save_mp4(pictures, path, durations, info.get("Attribution", ""))
    if suffix == ".gif":
        data = _gif(pictures, durations, loop, info.get("Attribution", ""))
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
    starts = range(0, len(pictures), n_columns)
    cells = [pictures[start : start + n_columns] for start in starts]
    named = [titles[start : start + n_columns] for start in starts] if titles else None
    return grid(cells, titles=named, gap=gap, background=background)


def grid(
    cells: Sequence[Sequence[Image.Image | None]],
    *,
    titles: Sequence[Sequence[str]] | None = None,
    row_titles: Sequence[str] | None = None,
    gap: int | None = None,
    background: Colour = "white",
) -> Image.Image:
    """Lay frames out in rows and columns of equal cells; None leaves a cell empty.

    `titles` stand above the cells (one row of them, shorter than the cells', stands above the first row alone),
    `row_titles` to the left of the rows.
    """
    present = [frame for row in cells for frame in row if frame is not None]
    width, height = max(f.width for f in present), max(f.height for f in present)
    gap = max(2, round(max(width, height) * 0.02)) if gap is None else gap
    if gap < 0:
        raise UsageError(f"gap is a number of pixels, at least 0, found {gap}")
    paper = colour(background)
    ink = DARK if sum(paper) > 382 else (255, 255, 255)
    size = max(10, round(max(width, height) * 0.05))
    face = font(size, bold=True)
    above = [round(size * 1.5) if titles and number < len(titles) else 0 for number in range(len(cells))]
    aside = max((text_size(t, face)[0] for t in row_titles), default=0) + size if row_titles else 0
    n_columns = max(len(row) for row in cells)
    sheet = Image.new(
        "RGB", (aside + gap + n_columns * (width + gap), gap + sum(above) + len(cells) * (height + gap)), paper
    )
    draw = ImageDraw.Draw(sheet)
    y = gap
    for number, row in enumerate(cells):
        y += above[number]
        for place, frame in enumerate(row):
            x = aside + gap + place * (width + gap)
            if titles and number < len(titles):
                title, fitted = fit(str(titles[number][place]), width, size, smallest=10)
                place_of = (x + width / 2, y - size * 0.42)
                draw.text(place_of, title, font=font(fitted, bold=True), fill=ink, anchor="ms")
            if frame is not None:
                sheet.paste(frame, (x + (width - frame.width) // 2, y + (height - frame.height) // 2))
        if row_titles:
            draw.text((aside - size * 0.1, y + height / 2), row_titles[number], font=face, fill=ink, anchor="rm")
        y += height + gap
    return sheet


def save_still(picture: Image.Image, path: str | Path, info: dict[str, str]) -> Path:
    """Write a picture, whole or not at all, with what must be said of its data inside."""
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
    """Return the suffix of a picture's name, or say which there are."""
    return _suffix(path, STILL_SUFFIXES)


def check_film(path: str | Path) -> str:
    """Return the suffix of a film's name, or say which there are, or what is missing to write it."""
    suffix = _suffix(path, MOVING_SUFFIXES)
    if suffix == ".mp4":
        try:
            import imageio_ffmpeg  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
        except ImportError as error:
            raise DependencyError(
                f"can't write {Path(path).name!r}: MP4 needs ffmpeg: pip install imageio-ffmpeg; "
                "or choose a name ending in .gif or .webp"
            ) from error
    return suffix


def _exif(info: dict[str, str]) -> bytes:
    """Return what must be said of the data as EXIF: description and copyright."""
    exif = Image.Exif()
    for key, tag in (("Source", ExifTags.Base.ImageDescription), ("Attribution", ExifTags.Base.Copyright)):
        if key in info:
            exif[tag] = info[key]
    return exif.tobytes() if len(exif) else b""


def info_of(pictures: Iterable[Image.Image]) -> dict[str, str]:
    """Collect what frames say of their data, each line once."""
    found: dict[str, list[str]] = {}
    for picture in pictures:
        for key in ("Attribution", "Source"):
            text = picture.info.get(key)
            if text and text not in found.setdefault(key, []):
                found[key].append(str(text))
    return {key: "; ".join(texts) for key, texts in found.items()}


def _pictures(frames: Iterable[Frame]) -> list[Image.Image]:
    """Check frames once, at the door."""
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
        flat = Image.new("RGB", rgba.size, (255, 255, 255))
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


def _centred(picture: Image.Image, size: tuple[int, int], paper: tuple[int, int, int]) -> Image.Image:
    if picture.size == size:
        return picture
    whole = Image.new("RGB", size, paper)
    whole.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    return whole


def _gif(pictures: Sequence[Image.Image], durations: Sequence[int], loop: int | None, comment: str) -> bytes:
    """Encode a GIF with one palette for all frames, storing of each frame only the part that changes.

    It is put together from Pillow's parts, because `Image.save` merges equal frames into one.
    """
    indices, palette = _with_one_palette([np.asarray(p) for p in pictures])
    frames = [Image.fromarray(index) for index in indices]
    info: dict[str, Any] = {"duration": durations[0], "comment": comment}
    if loop is not None and len(frames) > 1:
        info["loop"] = loop
    first = frames[0].copy()
    first.putpalette(palette)
    header, _ = GifImagePlugin.getheader(first, info=info)
    whole = (0, 0, *first.size)
    boxes = [ImageChops.difference(*pair).getbbox() for pair in itertools.pairwise(frames)]
    data = list(header)
    for frame, box, duration in zip(frames, [whole, *boxes], durations, strict=True):
        left, top, right, bottom = box or (0, 0, 1, 1)  # an equal frame still takes its time
        # disposal 1: leave the frame standing, the next is drawn over it
        data += GifImagePlugin.getdata(
            frame.crop((left, top, right, bottom)), (left, top), duration=duration, disposal=1
        )
    return b"".join([*data, b";"])


def _with_one_palette(pixels: Sequence[NDArray[np.uint8]]) -> tuple[list[NDArray[np.uint8]], bytes]:
    """Return frames as indices into one palette of 256 colours, and the palette: 768 bytes.

    More colours than that are mixed of two from the palette, in a pattern that depends on the place alone: what
    stands still doesn't flicker, and gradients keep their shades.
    """
    packed = [p.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32) for p in pixels]
    distinct = np.unique(np.concatenate([np.unique(p) for p in packed]))
    colours = np.stack([distinct >> 16, (distinct >> 8) & 255, distinct & 255], axis=-1).astype(np.uint8)
    palette = colours if len(colours) <= _PALETTE_COLOURS else _quantised(packed)
    mixtures = [_mixtures(part, palette) for part in np.array_split(colours, len(colours) // 4096 + 1)]
    first, second, share = (np.concatenate(parts) for parts in zip(*mixtures, strict=True))
    indices = []
    for frame in packed:
        at = np.searchsorted(distinct, frame)
        tiles = [-(-side // len(_PATTERN)) for side in frame.shape]
        pattern = np.tile(_PATTERN, tiles)[: frame.shape[0], : frame.shape[1]]
        indices.append(np.where(pattern < share[at], second[at], first[at]))
    padded = np.zeros((_PALETTE_COLOURS, 3), np.uint8)
    padded[: len(palette)] = palette
    return indices, padded.tobytes()


def _bayer(steps: int) -> NDArray[np.float64]:
    """Thresholds in 0..1 whose every part is spread evenly (B. E. Bayer, 1973): 2^steps on a side."""
    pattern = np.zeros((1, 1))
    for _ in range(steps):
        pattern = np.block([[4 * pattern, 4 * pattern + 2], [4 * pattern + 3, 4 * pattern + 1]])
    return (pattern + 0.5) / pattern.size


_PATTERN: Final = _bayer(3)


def _quantised(packed: Sequence[NDArray[np.uint32]]) -> NDArray[np.uint8]:
    """Choose 256 colours for all frames together: Pillow's maximum coverage, then k-means."""
    every = max(1, sum(p.size for p in packed) // _PALETTE_SAMPLE_PX)
    sample = np.concatenate([p.ravel()[::every] for p in packed])
    rgb = np.stack([sample >> 16, (sample >> 8) & 255, sample & 255], axis=-1).astype(np.uint8)
    chosen = Image.fromarray(rgb[None]).quantize(_PALETTE_COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=1)
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
    first = near[np.arange(len(c)), np.take_along_axis(distance, near, axis=1).argmin(axis=1)]
    step = p[near] - p[first][:, None]
    away = (c - p[first])[:, None]
    length = (step * step).sum(axis=2)
    share = np.divide((away * step).sum(axis=2), length, out=np.zeros_like(length), where=length > 0)
    share = np.clip(share, 0.0, 0.5)
    left = away - share[..., None] * step
    # a pattern of two colours far apart is seen as a pattern
    cost = (left * left).sum(axis=2) + _PATTERN_COST * share * length
    best = cost.argmin(axis=1)
    rows = np.arange(len(c))
    return first.astype(np.uint8), near[rows, best].astype(np.uint8), share[rows, best]


def _save_mp4(pictures: Sequence[Image.Image], path: str | Path, durations: Sequence[int], credit: str) -> Path:
    from imageio.v2 import get_writer

    # players stumble over rates such as 1.43 per second: a frame is repeated, which costs next to nothing
    ends = np.rint(np.cumsum(durations) * _MP4_FRAMES_PER_S / 1000).astype(int)
    repeats = np.diff(ends, prepend=0)
    # most players need even sides
    size = tuple(side + side % 2 for side in pictures[0].size)
    how: dict[str, Any] = {
        "fps": _MP4_FRAMES_PER_S,
        "macro_block_size": 2,
        "quality": 8,
        "output_params": ["-metadata", f"comment={credit}"],
    }
    with replacing(path) as part, closing(get_writer(part, **how)) as film:
        writer: Any = film
        for picture, times in zip(pictures, repeats, strict=True):
            pixels = np.asarray(_centred(picture, (size[0], size[1]), (255, 255, 255)))
            for _ in range(times):
                writer.append_data(pixels)
    return Path(path)
