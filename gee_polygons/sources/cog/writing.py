"""Tiles in the published layout, written block by block with the same bytes every time.

The published AlphaEarth files are planar, tiled, ZSTD, int8 with 64 bands, georeferenced by the
ModelTransformationTag alone, usually south-up. GDAL does not write that combination by itself, and its bytes
depend on its version; so this is a small TIFF writer of its own (TIFF 6.0, BigTIFF, GeoTIFF 1.1).

Layout of a file: header, one IFD with its values, then the blocks. Planar files hold them band by band, then row by
row, 8 bytes apart, as the published ones do (each block is led by its length and followed by its last four bytes,
GDAL's COG convention). Nothing larger than a few blocks is held in memory: blocks of all 64 bands are made together,
go to a spool, and are put in order from there.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
import pyproj
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, NODATA
from gee_polygons.errors import UsageError
from gee_polygons.store.atomic import replacing
from gee_polygons.zonal.grid import Grid, Window

Codes = NDArray[np.int8] | Callable[[Window], NDArray[np.int8] | None]

_COMPRESSION: Final = {"none": 1, "deflate": 8, "zstd": 50000}
_SHORT, _LONG, _DOUBLE, _ASCII, _LONG8 = 3, 4, 12, 2, 16
_TYPE_CODES: Final = {_SHORT: "H", _LONG: "I", _DOUBLE: "d", _LONG8: "Q"}
_CLASSIC_LIMIT: Final = 4 * 2**30 - 2**24  # offsets of classic TIFF are 32 bits; a little less, for the header
_SPOOL_IN_MEMORY: Final = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How the pixels of one file are cut and packed."""

    grid: Grid
    bands: tuple[str, ...]
    block: int
    compression: Literal["zstd", "deflate", "none"]
    level: int
    predictor: int
    planar: bool

    @property
    def blocks_down(self) -> int:
        return -(-self.grid.shape[0] // self.block)

    @property
    def blocks_across(self) -> int:
        return -(-self.grid.shape[1] // self.block)

    @property
    def planes(self) -> int:
        """Separately compressed parts per block."""
        return len(self.bands) if self.planar else 1

    @property
    def n_parts(self) -> int:
        return self.planes * self.blocks_down * self.blocks_across


def write_tile(
    path: Path | str,
    grid: Grid,
    codes: Codes,
    *,
    bands: Sequence[str] = BANDS,
    block: int = 1024,
    compression: Literal["zstd", "deflate", "none"] = "zstd",
    level: int = 3,
    predictor: Literal[1, 2] = 1,
    interleave: Literal["band", "pixel"] = "band",
    bigtiff: bool | None = None,
    description: str = "",
    metadata: dict[str, str] | None = None,
    max_workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Write a tile of int8 codes in the published layout.

    Parameters
    ----------
    path : path
        Where to write. Written to a temporary name beside it, then renamed.
    grid : Grid
        CRS (an EPSG code), transform and shape of the file. ``e > 0`` is south-up, as published; the transform
        goes into the ModelTransformationTag (34264) as it is.
    codes : int8 array (bands, height, width), north-up, or callable
        The pixels. A callable is asked for one lattice `Window` at a time, from several threads, and answers with
        an int8 array (bands, height, width), north-up: the file's orientation is the writer's business. For a block
        that it answers None for, the file holds nothing: readers find nodata there.
    bands : sequence of str
        Names, one per band (GDAL band descriptions).
    block : int
        Width and height of a block in pixels, a multiple of 16. Published: 1024.
    compression : {"zstd", "deflate", "none"}
        Published: ZSTD (50000).
    level : int
        Of the compression.
    predictor : {1, 2}
        1 = none; 2 = differences along the row.
    interleave : {"band", "pixel"}
        "band" is PlanarConfiguration 2, as published.
    bigtiff : bool, optional
        64-bit offsets; without it, where the file could pass 4 GiB.
    description : str
        ImageDescription (270).
    metadata : dict of str, optional
        Further GDAL metadata items.
    max_workers : int, optional
        Threads that make and compress blocks; as many as cores without it. Doesn't change a byte.
    progress : callable, optional
        Called with the number of pixels just finished.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        For a block size that TIFF doesn't allow, or codes of another shape or type.

    Examples
    --------
    >>> import tempfile
    >>> grid = Grid(crs="EPSG:32722", transform=(10, 0, 800000, 0, 10, 7500000), shape=(32, 32))
    >>> folder = tempfile.mkdtemp()
    >>> write_tile(Path(folder) / "tile.tiff", grid, np.zeros((64, 32, 32), np.int8), block=16).name
    'tile.tiff'
    """
    path = Path(path)
    layout = _Layout(
        grid=grid,
        bands=tuple(bands),
        block=block,
        compression=compression,
        level=level,
        predictor=predictor,
        planar=interleave == "band",
    )
    if block < 16 or block % 16:
        raise UsageError(f"a TIFF block's side is a multiple of 16 pixels, found {block}")
    if compression not in _COMPRESSION or predictor not in (1, 2) or interleave not in ("band", "pixel"):
        raise UsageError(f"unknown layout: {compression=}, {predictor=}, {interleave=}")
    if compression == "none" and predictor != 1:
        raise UsageError("TIFF has no predictor without compression: use predictor=1")
    raw = len(layout.bands) * layout.blocks_down * layout.blocks_across * block**2
    big = raw > _CLASSIC_LIMIT if bigtiff is None else bigtiff
    with replacing(path) as part, tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY, dir=str(path.parent)) as spool:
        spans = _spool_blocks(spool, layout, _as_function(codes, layout), max_workers, progress)
        with part.open("wb") as out:
            _assemble(out, spool, spans, layout, big, description, metadata or {})
    return path


def _as_function(codes: Codes, layout: _Layout) -> Callable[[Window], NDArray[np.int8] | None]:
    if callable(codes):
        return codes
    array = np.asarray(codes)
    expected = (len(layout.bands), *layout.grid.shape)
    if array.shape != expected or array.dtype != np.int8:
        raise UsageError(f"codes must be int8 of shape {expected}, found {array.dtype} of shape {array.shape}")
    whole = layout.grid.window

    def part(window: Window) -> NDArray[np.int8]:
        row, col = window.row - whole.row, window.col - whole.col
        return array[:, row : row + window.height, col : col + window.width]

    return part


def _spool_blocks(
    spool: IO[bytes],
    layout: _Layout,
    codes: Callable[[Window], NDArray[np.int8] | None],
    max_workers: int | None,
    progress: Callable[[int], object] | None,
) -> NDArray[np.int64]:
    """Make all blocks and append them to the spool; returns (offset, length) by [plane, block]."""
    spans = np.zeros((layout.planes, layout.blocks_down * layout.blocks_across, 2), np.int64)
    cells = [(r, c) for r in range(layout.blocks_down) for c in range(layout.blocks_across)]
    workers = max_workers or os.cpu_count() or 1
    offset = 0
    for number, (parts, pixels) in enumerate(_in_order(workers, lambda cell: _make_block(layout, codes, cell), cells)):
        for plane, part in enumerate(parts):
            spool.write(part)
            spans[plane, number] = offset, len(part)
            offset += len(part)
        if progress is not None:
            progress(pixels)
    return spans


def _in_order(workers: int, make: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Map with threads, in order, never more than `workers` results ahead (Executor.map would hold them all)."""
    if workers == 1:
        yield from map(make, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[Any]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(make, item))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _make_block(
    layout: _Layout, codes: Callable[[Window], NDArray[np.int8] | None], cell: tuple[int, int]
) -> tuple[list[bytes], int]:
    """Return the compressed parts of one block (by file row and column), padded with nodata to the full block."""
    size, grid = layout.block, layout.grid
    row, col = cell[0] * size, cell[1] * size
    height, width = min(size, grid.shape[0] - row), min(size, grid.shape[1] - col)
    pixels = codes(grid.part(row, col, height, width))
    if pixels is None:
        return [b""] * layout.planes, height * width
    if pixels.shape != (len(layout.bands), height, width) or pixels.dtype != np.int8:
        raise UsageError(
            f"codes of a block must be int8 of shape {(len(layout.bands), height, width)}, "
            f"found {pixels.dtype} of shape {pixels.shape}"
        )
    pixels = pixels[:, :: -1 if grid.flip_y else 1, :: -1 if grid.flip_x else 1]
    if (height, width) != (size, size):
        padded = np.full((len(layout.bands), size, size), NODATA, np.int8)
        padded[:, :height, :width] = pixels
        pixels = padded
    # a plane is (rows, columns, samples): 1 sample each if planar, all bands in one otherwise
    planes = pixels[..., None] if layout.planar else np.moveaxis(pixels, 0, -1)[None]
    return [_compress(layout, plane) for plane in planes], height * width


def _compress(layout: _Layout, plane: NDArray[np.int8]) -> bytes:
    import imagecodecs

    if layout.predictor == 2:
        plane = plane.copy()
        plane[:, 1:] -= plane[:, :-1].copy()  # wraps around, as TIFF's predictor does
    data = np.ascontiguousarray(plane).tobytes()
    if layout.compression == "zstd":
        return bytes(imagecodecs.zstd_encode(data, level=layout.level))
    if layout.compression == "deflate":
        return bytes(imagecodecs.zlib_encode(data, level=layout.level))
    return data


def _assemble(
    out: IO[bytes],
    spool: IO[bytes],
    spans: NDArray[np.int64],
    layout: _Layout,
    big: bool,
    description: str,
    metadata: dict[str, str],
) -> None:
    """Write header, IFD and, in the order of the file, the blocks with leader and trailer."""
    counts = spans[..., 1].ravel()  # plane-major is the order of the file
    head = _head(layout, np.zeros(layout.n_parts, np.int64), counts, big, description, metadata)
    sizes = np.where(counts > 0, counts + 8, 0)
    offsets = np.where(counts > 0, len(head) + 4 + np.concatenate([[0], np.cumsum(sizes[:-1])]), 0)
    if not big and len(head) + int(sizes.sum()) >= 2**32:
        raise UsageError("the tile passes 4 GiB: write it with bigtiff=True")
    out.write(_head(layout, offsets, counts, big, description, metadata))
    for start, length in spans.reshape(-1, 2).tolist():
        if not length:
            continue
        spool.seek(start)
        data = spool.read(length)
        out.write(struct.pack("<I", length) + data + data[-4:])


def _head(
    layout: _Layout,
    offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    big: bool,
    description: str,
    metadata: dict[str, str],
) -> bytes:
    """Return everything before the first block: header, IFD, values that don't fit into the IFD."""
    n_bands, wide = len(layout.bands), _LONG8 if big else _LONG
    height, width = layout.grid.shape
    a, b, c, d, e, f = layout.grid.transform
    directory, ascii_keys = _geo_keys(layout.grid.crs)
    tags: list[tuple[int, int, Any]] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [8] * n_bands),
        (259, _SHORT, [_COMPRESSION[layout.compression]]),
        (262, _SHORT, [1]),  # MinIsBlack
        *([(270, _ASCII, description)] if description else []),
        (277, _SHORT, [n_bands]),
        (284, _SHORT, [2 if layout.planar else 1]),
        (305, _ASCII, "gee_polygons"),
        (317, _SHORT, [layout.predictor]),
        (322, _LONG, [layout.block]),
        (323, _LONG, [layout.block]),
        (324, wide, offsets.tolist()),
        (325, _LONG, counts.tolist()),
        *([(338, _SHORT, [0] * (n_bands - 1))] if n_bands > 1 else []),  # ExtraSamples: unspecified
        (339, _SHORT, [2] * n_bands),  # SampleFormat: signed integer
        (34264, _DOUBLE, [a, b, 0.0, c, d, e, 0.0, f, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
        (34735, _SHORT, directory),
        (34737, _ASCII, ascii_keys),
        (42112, _ASCII, _gdal_metadata(layout.bands, metadata)),
        (42113, _ASCII, str(NODATA)),
    ]
    return _encode_ifd(tags, big)


def _encode_ifd(tags: list[tuple[int, int, Any]], big: bool) -> bytes:
    """Return header + one IFD + the values that don't fit into it. Lengths don't depend on the values."""
    count_format, entry_format, inline = ("<Q", "<HHQ", 8) if big else ("<H", "<HHI", 4)
    header = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
    entry_size = struct.calcsize(entry_format) + inline
    position = len(header) + struct.calcsize(count_format) + entry_size * len(tags) + inline
    position += -position % 8
    entries, values = struct.pack(count_format, len(tags)), b""
    for tag, kind, value in tags:
        if kind == _ASCII:
            data = value.encode("utf-8") + b"\0"
            length = len(data)
        else:
            length = len(value)
            data = struct.pack(f"<{length}{_TYPE_CODES[kind]}", *value)
        entries += struct.pack(entry_format, tag, kind, length)
        if len(data) <= inline:
            entries += data.ljust(inline, b"\0")
        else:
            entries += struct.pack("<Q" if big else "<I", position + len(values))
            values += data + bytes(-len(data) % 8)
    first = header + entries + bytes(inline)  # no further IFD
    return first.ljust(position, b"\0") + values


def _geo_keys(crs: str) -> tuple[list[int], str]:
    """Return GeoKeyDirectory and GeoAsciiParams for an EPSG code of a projected CRS in metres."""
    parsed = pyproj.CRS.from_user_input(crs)
    code = parsed.to_epsg()
    if code is None or not parsed.is_projected:
        raise UsageError(f"a tile's CRS must be a projected one with an EPSG code, found {crs!r}")
    citation = f"{parsed.name}|"
    keys = [
        (1024, 0, 1, 1),  # GTModelType: projected
        (1025, 0, 1, 1),  # GTRasterType: pixel is area
        (1026, 34737, len(citation), 0),  # GTCitation
        (3072, 0, 1, code),  # ProjectedCRS
        (3076, 0, 1, 9001),  # linear units: metre
    ]
    return [1, 1, 0, len(keys), *(number for key in keys for number in key)], citation


def _gdal_metadata(bands: Sequence[str], metadata: dict[str, str]) -> str:
    from xml.sax.saxutils import escape, quoteattr

    items = [f"  <Item name={quoteattr(name)}>{escape(value)}</Item>" for name, value in metadata.items()]
    items += [
        f'  <Item name="DESCRIPTION" sample="{i}" role="description">{escape(band)}</Item>'
        for i, band in enumerate(bands)
    ]
    return "\n".join(["<GDALMetadata>", *items, "</GDALMetadata>"]) + "\n"
