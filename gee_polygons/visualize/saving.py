"""Writes figures and pictures as files, with source and attribution of the data inside."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from gee_polygons.errors import UsageError
from gee_polygons.store.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VECTORS: Final = (".pdf", ".svg")
STILL_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", *VECTORS)


def save_figure(figure: Figure, path: str | Path, info: Mapping[str, str], *, dpi: float, crop: bool = False) -> Path:
    """Write a figure as ``.png``, ``.jpg``, ``.webp``, ``.pdf`` or ``.svg``. The same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
        What to write.
    path : str or Path
        Missing folders are created; an existing file is replaced.
    info : mapping
        ``Attribution`` and ``Source`` of the data, written into the file's metadata.
    dpi : float
        Pixels per inch.
    crop : bool
        Whether white edges are cut off.

    Returns
    -------
    Path
    """
    import matplotlib as mpl

    suffix = checked_suffix(path, STILL_SUFFIXES)
    how: dict[str, Any] = {"dpi": dpi, "bbox_inches": "tight" if crop else None}
    credit, source = info.get("Attribution"), info.get("Source")
    settings: Any = {"svg.hashsalt": "gee_polygons", "pdf.fonttype": 42, "savefig.bbox": None}
    settings |= {"savefig.transparent": False, "savefig.facecolor": "auto"}
    with replacing(path) as part, mpl.rc_context(settings):
        if suffix == ".pdf":
            figure.savefig(part, metadata={"CreationDate": None, "Subject": credit, "Keywords": source}, **how)
        elif suffix == ".svg":
            figure.savefig(part, metadata={"Date": None, "Rights": credit, "Source": source}, **how)
        else:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 1}, **how)
            with Image.open(buffer) as drawn:
                picture = Image.new("RGBA", drawn.size, "white")
                picture.alpha_composite(drawn.convert("RGBA"))
            _save_pixels(picture.convert("RGB"), part, suffix, info, dpi)
    return Path(path)


def _save_pixels(picture: Image.Image, part: Path, suffix: str, info: Mapping[str, str], dpi: float) -> None:
    dots = (round(dpi), round(dpi))
    if suffix == ".png":
        notes = PngInfo()
        for key, text in info.items():
            notes.add_itxt(key, text)
        picture.save(part, "PNG", pnginfo=notes, dpi=dots)
    elif suffix == ".webp":
        picture.save(part, "WEBP", lossless=True, exif=exif_of(info))
    else:
        picture.save(part, "JPEG", quality=92, subsampling=0, exif=exif_of(info), dpi=dots)


def checked_suffix(path: str | Path, known: Sequence[str]) -> str:
    """Return the suffix of a file's name, or raise an error that names the possible ones."""
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise UsageError(f"{Path(path).name!r}: the name must end in {', '.join(known)}")
    return suffix


def exif_of(info: Mapping[str, str]) -> bytes:
    """Return source and attribution as EXIF's description and copyright."""
    exif = Image.Exif()
    for key, tag in (("Source", ExifTags.Base.ImageDescription), ("Attribution", ExifTags.Base.Copyright)):
        if key in info:
            exif[tag] = info[key]
    return exif.tobytes() if len(exif) else b""
