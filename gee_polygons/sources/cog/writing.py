"""Writes tiles in the published layout, block by block, with the same bytes every time.

The published files are planar, tiled, ZSTD-compressed int8 with 64 bands, georeferenced by the ModelTransformationTag
alone, usually south-up, and hold their blocks band by band, then row by row, 8 bytes apart: each block follows its
length and is followed by its own last four bytes, which is GDAL's COG convention. GDAL writes that order and spacing
only by copying a whole file, from version 3.11 on, and drops a block of nodata where it is told to leave out blocks
that are never written. So this is a small TIFF writer (TIFF 6.0, BigTIFF, GeoTIFF 1.1) with exactly this layout.

A file is a header, one IFD with its values, then the blocks. Blocks of all bands are made together, go to a temporary
file, and are put in order from there, so that no more than a few of them are held in memory.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pyproj
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, NODATA
from gee_polygons.errors import UsageError
from gee_polygons.reduction.threads import in_order
from gee_polygons.store.atomic import replacing
from gee_polygons.zonal.grid import Grid, Window

CodesOf = Callable[[Window], NDArray[np.int8] | None]

_ZSTD, _ZSTD_LEVEL = 50000, 3
_SHORT, _LONG, _DOUBLE, _ASCII, _LONG8 = 3, 4, 12, 2, 16
_TYPE_CODES: Final = {_SHORT: "H", _LONG: "I", _DOUBLE: "d", _LONG8: "Q"}
_CLASSIC_BYTES: Final = 2**32  # offsets of classic TIFF are 32 bits
_SPOOL_IN_MEMORY: Final = 64 * 2**20


def write_tile(
    path: Path | str,
    grid: Grid,
    codes: NDArray[np.int8] | CodesOf,
    *,
    bands: Sequence[str] = BANDS,
    block: int = 1024,
    description: str = "",
    metadata: dict[str, str] | None = None,
    copyright: str = "",
    max_workers: int | None = None,
) -> Path:
    """Write a tile of int8 codes in the published layout; as a BigTIFF where it passes 4 GiB.

    Parameters
    ----------
    path : path
        Where to write. Written under a temporary name beside it, then renamed.
    grid : Grid
        CRS (an EPSG code), transform and shape of the file. ``e > 0`` is south-up, as published; the transform
        goes into the ModelTransformationTag (34264) as it is.
    codes : int8 array (bands, height, width), north-up, or callable
        The pixels. A callable is given one lattice `Window` at a time, in several threads, and returns an int8 array
        (bands, height, width), north-up, whatever the file's orientation. Where it returns None the file holds no
        block, and readers find nodata.
    bands : sequence of str
        Names, one per band (GDAL band descriptions).
    block : int
        Width and height of a block in pixels, a multiple of 16. Published: 1024.
    description : str
        ImageDescription (270).
    metadata : dict of str, optional
        Further GDAL metadata items.
    copyright : str
        Copyright (33432): who must be credited.
    max_workers : int, optional
        Threads that make and compress blocks; default: as many as cores. Doesn't change a byte.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        For a block size that TIFF doesn't allow, codes of another shape or type, or a CRS without an EPSG code.

    Examples
    --------
    >>> import tempfile
    >>> grid = Grid(crs="EPSG:32722", transform=(10, 0, 800000, 0, 10, 7500000), shape=(32, 32))
    >>> folder = tempfile.mkdtemp()
    >>> write_tile(Path(folder) / "tile.tiff", grid, np.zeros((64, 32, 32), np.int8), block=16).name
    'tile.tiff'
    """
    path, (height, width) = Path(path), grid.shape
    if block < 16 or block % 16:
        raise UsageError(f"a TIFF block's side is a multiple of 16 pixels, found {block}")
    codes_of = codes if callable(codes) else _parts_of(codes, grid, len(bands))
    tags = _tags(grid, bands, block, description, metadata or {})
    if copyright:
        tags[33432] = (_ASCII, copyright)
    cells = [(row, col) for row in range(0, height, block) for col in range(0, width, block)]
    spans = np.zeros((len(bands), len(cells), 2), np.int64)  # where a band's block lies in the spool: start, length

    def make(cell: tuple[int, int]) -> list[bytes]:
        row, col = cell
        window = grid.part(row, col, min(block, height - row), min(block, width - col))
        return _compressed(codes_of(window), window, grid, len(bands), block)

    with replacing(path) as part, tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY, dir=str(path.parent)) as spool:
        for number, blocks in enumerate(in_order(max_workers or os.cpu_count() or 1, make, cells)):
            for band, data in enumerate(blocks):
                spans[band, number] = spool.tell(), len(data)
                spool.write(data)
        with part.open("wb") as out:
            out.write(_head(tags, spans[..., 1].ravel()))
            for start, length in spans.reshape(-1, 2).tolist():  # band by band, as in the published files
                if length:
                    spool.seek(start)
                    data = spool.read(length)
                    out.write(struct.pack("<I", length) + data + data[-4:])
    return path


def _parts_of(codes: NDArray[np.int8], grid: Grid, n_bands: int) -> CodesOf:
    """Return the function that cuts an array to a window."""
    if codes.shape != (n_bands, *grid.shape) or codes.dtype != np.int8:
        raise _wrong_codes((n_bands, *grid.shape), codes)
    return lambda window: codes[(slice(None), *window.slices_in(grid.window))]


def _wrong_codes(shape: tuple[int, ...], found: NDArray[Any]) -> UsageError:
    return UsageError(f"codes must be int8 of shape {shape}, found {found.dtype} of shape {found.shape}")


def _compressed(codes: NDArray[np.int8] | None, window: Window, grid: Grid, n_bands: int, block: int) -> list[bytes]:
    """Return the bands of one block, each padded with nodata to the full block and compressed."""
    import imagecodecs

    if codes is None:
        return [b""] * n_bands
    if codes.shape != (n_bands, window.height, window.width) or codes.dtype != np.int8:
        raise _wrong_codes((n_bands, window.height, window.width), codes)
    padded = np.full((n_bands, block, block), NODATA, np.int8)
    stored = codes[:, :: -1 if grid.flip_y else 1, :: -1 if grid.flip_x else 1]
    padded[:, : window.height, : window.width] = stored
    return [bytes(imagecodecs.zstd_encode(plane.tobytes(), level=_ZSTD_LEVEL)) for plane in padded]


Tags = dict[int, tuple[int, Any]]


def _tags(grid: Grid, bands: Sequence[str], block: int, description: str, metadata: dict[str, str]) -> Tags:
    """Return the TIFF tags but the blocks' offsets and lengths: number -> (type, values)."""
    n, (height, width) = len(bands), grid.shape
    a, b, c, d, e, f = grid.transform
    crs = pyproj.CRS.from_user_input(grid.crs)
    code = crs.to_epsg()
    if code is None or not crs.is_projected:
        raise UsageError(f"a tile's CRS must be a projected one with an EPSG code, found {grid.crs!r}")
    citation = f"{crs.name}|"
    # GTModelType: projected; GTRasterType: pixel is area; GTCitation; ProjectedCRS; linear units: metre
    geo_keys = [1024, 0, 1, 1, 1025, 0, 1, 1, 1026, 34737, len(citation), 0, 3072, 0, 1, code, 3076, 0, 1, 9001]
    items = [f"<Item name={quoteattr(name)}>{escape(value)}</Item>" for name, value in metadata.items()]
    for i, band in enumerate(bands):
        items.append(f'<Item name="DESCRIPTION" sample="{i}" role="description">{escape(band)}</Item>')
    return {
        256: (_LONG, [width]),
        257: (_LONG, [height]),
        258: (_SHORT, [8] * n),
        259: (_SHORT, [_ZSTD]),
        262: (_SHORT, [1]),  # MinIsBlack
        **({270: (_ASCII, description)} if description else {}),
        277: (_SHORT, [n]),
        284: (_SHORT, [2]),  # PlanarConfiguration: each band by itself
        305: (_ASCII, "gee_polygons"),
        317: (_SHORT, [1]),  # no predictor
        322: (_LONG, [block]),
        323: (_LONG, [block]),
        **({338: (_SHORT, [0] * (n - 1))} if n > 1 else {}),  # ExtraSamples: unspecified
        339: (_SHORT, [2] * n),  # SampleFormat: signed integer
        34264: (_DOUBLE, [a, b, 0.0, c, d, e, 0.0, f, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
        34735: (_SHORT, [1, 1, 0, len(geo_keys) // 4, *geo_keys]),
        34737: (_ASCII, citation),
        42112: (_ASCII, "\n  ".join(["<GDALMetadata>", *items]) + "\n</GDALMetadata>\n"),
        42113: (_ASCII, str(NODATA)),
    }


def _head(tags: Tags, lengths: NDArray[np.int64]) -> bytes:
    """Return everything before the first block, from the lengths of the blocks in the order of the file."""
    sizes = np.where(lengths > 0, lengths + 8, 0)
    for big in (False, True):
        tags[325] = (_LONG, lengths.tolist())
        tags[324] = (_LONG8 if big else _LONG, [0] * len(lengths))
        first = len(_encoded(tags, big)) + 4
        if big or first + int(sizes.sum()) < _CLASSIC_BYTES:
            break
    offsets = np.where(lengths > 0, first + np.cumsum(sizes) - sizes, 0)
    tags[324] = (tags[324][0], offsets.tolist())
    return _encoded(tags, big)


def _encoded(tags: Tags, big: bool) -> bytes:
    """Return header + one IFD + the values that don't fit into it. Its length doesn't depend on the values."""
    count_format, entry_format, value_size = ("<Q", "<HHQ", 8) if big else ("<H", "<HHI", 4)
    header = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
    position = len(header) + struct.calcsize(count_format) + value_size
    position += (struct.calcsize(entry_format) + value_size) * len(tags)
    position += -position % 8
    entries, values = struct.pack(count_format, len(tags)), b""
    for tag, (kind, value) in sorted(tags.items()):
        if kind == _ASCII:
            data = value.encode("utf-8") + b"\0"
            length = len(data)
        else:
            length = len(value)
            data = struct.pack(f"<{length}{_TYPE_CODES[kind]}", *value)
        entries += struct.pack(entry_format, tag, kind, length)
        if len(data) <= value_size:
            entries += data.ljust(value_size, b"\0")
        else:
            entries += struct.pack("<Q" if big else "<I", position + len(values))
            values += data + bytes(-len(data) % 8)
    first = header + entries + bytes(value_size)  # no further IFD
    return first.ljust(position, b"\0") + values
