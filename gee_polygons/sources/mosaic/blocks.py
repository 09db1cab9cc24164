"""Decodes a mosaic's fetched chunks into planes of pixels, one per band."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gee_polygons.alphaearth import NODATA
from gee_polygons.embeddings.quantization import FLOAT32_ROUNDING
from gee_polygons.errors import ReadError
from gee_polygons.network.local import LocalRange, MissingFileError
from gee_polygons.network.ranges import FailedRange, RemoteRange
from gee_polygons.reduction.plan import BlockRef
from gee_polygons.sources.mosaic.chunks import Chunks
from gee_polygons.sources.mosaic.mosaic import BandChunk, Mosaic
from gee_polygons.zonal.compiled import compiled
from gee_polygons.zonal.kernels import PADDING


class FetchedChunk:
    """A chunk's bytes, waited for when they are decoded; pixels are kept where blocks of several years share them."""

    def __init__(self, payload: Any, *, shared: bool) -> None:
        self.shared = shared
        self._payload = payload
        self._lock = threading.Lock()
        self._pixels: NDArray[Any] | None = None

    def read(self) -> Any:
        """Return the bytes; None if the chunk was never written."""
        if isinstance(self._payload, RemoteRange):
            try:
                self._payload = self._payload.read()  # kept: decoding again must not send another request
            except MissingFileError:
                self._payload = None
        return self._payload.read() if isinstance(self._payload, LocalRange) else self._payload

    def pixels(self, chunks: Chunks) -> NDArray[Any] | None:
        """Return the decoded pixels; None if the chunk was never written."""
        with self._lock:
            if self._pixels is None and (data := self.read()) is not None:
                pixels = chunks.decode(data)
                if not self.shared:
                    return pixels
                self._pixels, self._payload = pixels, None
            return self._pixels


def fetched_chunk(answer: list[Any] | FailedRange | None, *, shared: bool) -> FetchedChunk | ReadError | None:
    """Return a chunk, None if it was never written, or the error if it can't be read."""
    if isinstance(answer, FailedRange):
        return None if isinstance(answer.error, MissingFileError) else answer.error
    return None if answer is None else FetchedChunk(answer[0], shared=shared)


def chunk_error(ref: BlockRef, what: str, url: str | None) -> ReadError:
    """Return the error for a chunk that can't be read."""
    row, col = ref.index
    return ReadError(f"{ref.tile}: chunk (row {row}, column {col}), {ref.year}: {what}", url=url, year=ref.year)


class MosaicBlock:
    """The chunks of one block of pixels and one year: one for all bands, or several for some each."""

    checks_norms = False  # where tiles overlap their codes were averaged: not every pixel has length 1

    def __init__(self, mosaic: Mosaic, ref: BlockRef, parts: Sequence[BandChunk], chunks: Sequence[Any]) -> None:
        self.ref = ref
        self._mosaic = mosaic
        written = any(chunk is not None for chunk in chunks)
        self._parts = list(zip(parts, chunks, strict=True)) if written else []  # without chunks nothing is added up

    @property
    def n_parts(self) -> int:
        """Number of chunks."""
        return len(self._parts)

    def part_bands(self, part: int) -> Sequence[int]:
        """Return the positions, among the requested bands, of those in a chunk."""
        return self._parts[part][0].requested

    def decode(self, part: int, scratch: NDArray[Any] | None = None) -> NDArray[Any]:
        """Decode a chunk to planes, shape (bands of the chunk, pixels + PADDING)."""
        mosaic, inside = self._mosaic, self._parts[part][0].inside
        n_bands = mosaic.chunks.inner[mosaic.layout.axes.band]
        n_pixels = self.ref.window.height * self.ref.window.width
        planes, flat = _planes(n_bands, n_pixels, mosaic.plain_dtype, scratch)
        try:
            written = self._decode_into(part, flat[: flat.size - PADDING], n_bands)
        except ReadError as error:
            raise chunk_error(self.ref, str(error), error.url) from error
        if not written:
            flat[:] = NODATA if flat.dtype == np.int8 else np.nan
        return planes if inside == tuple(range(n_bands)) else planes[list(inside)]

    def _decode_into(self, part: int, flat: NDArray[Any], n_bands: int) -> bool:
        """Decode a chunk; return False if it was never written."""
        mosaic, (part_bands, chunk) = self._mosaic, self._parts[part]
        if chunk is None:
            return False
        url = mosaic.chunks.place_of(mosaic.chunk(self.ref, part_bands))
        try:
            if mosaic.is_direct and not chunk.shared:
                data = chunk.read()
                if data is None:
                    return False
                done = mosaic.chunks.decode_plain(data, flat.view(np.uint8))
                if done != flat.nbytes:
                    raise ReadError(f"{url}: damaged: decodes to {done} bytes, {flat.nbytes} expected", url=url)
            else:
                decoded = chunk.pixels(mosaic.chunks)
                if decoded is None:
                    return False
                pixels = mosaic.pixels(decoded, self.ref.year)
                flat.reshape(pixels.shape)[:] = pixels
        except ReadError:
            raise
        except Exception as error:  # codecs raise errors of any class
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ReadError(f"{url}: damaged: {reason}", url=url) from error
        if flat.dtype == np.int8:
            _mask_incomplete(flat, n_bands)
        else:
            _check_vectors(flat.reshape(n_bands, -1), mosaic.chunks.opened.array, url)
        return True


def _planes(
    n_bands: int, n_pixels: int, dtype: np.dtype[Any], scratch: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return consecutive planes, each padded by the next one's start, and a flat view for codecs to write to.

    `scratch` is reused if it has this layout.
    """
    shape, strides = (n_bands, n_pixels + PADDING), (n_pixels * dtype.itemsize, dtype.itemsize)
    if scratch is None or scratch.dtype != dtype or scratch.shape != shape or scratch.strides != strides:
        flat = np.zeros(n_bands * n_pixels + PADDING, dtype)
        scratch = as_strided(flat, shape, strides)
    return scratch, as_strided(scratch, (n_bands * n_pixels + PADDING,), (dtype.itemsize,))


@compiled
def _mask_incomplete(flat: Any, n_bands: int) -> None:
    """Mask pixels that lack a band in all bands: an incomplete vector can't be used."""
    n = len(flat) // n_bands
    missing = np.zeros(n, np.uint16)
    for band in range(n_bands):
        start = band * n
        for i in range(n):
            missing[i] += np.uint16(flat[start + i] == -128)
    for i in range(n):
        if 0 < missing[i] < n_bands:
            for band in range(n_bands):
                flat[band * n + i] = -128


def _check_vectors(planes: NDArray[Any], array: Any, url: str) -> None:
    """Set nodata to NaN, in all bands of a pixel; refuse values that can't be embeddings."""
    stated = array.attrs.get("_FillValue", array.attrs.get("nodata"))
    for fill in (array.fill_value, stated):
        if isinstance(fill, (int, float, np.floating)) and fill != 0:  # 0 is zarr's fill value where none was chosen
            planes[planes == planes.dtype.type(fill)] = np.nan
    planes[:, np.isnan(planes).any(axis=0)] = np.nan
    if float(np.nanmax(np.abs(planes), initial=0.0)) > 1.0 + FLOAT32_ROUNDING:
        raise ReadError(f"{url}: values beyond -1..1 aren't embedding vectors; is nodata undeclared?", url=url)
