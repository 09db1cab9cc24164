"""Sums of codes over polygons, as exact integers: the compiled loops that do the work.

A code's value is sign(k) k^2 / 127.5^2. Over fully covered pixels the sum is the integer sum of sign(k) k^2; over edge
pixels it is the integer sum of weight * sign(k) k^2 with weights in units of 2^-24. Integers add exactly, so the
order of work can't change a bit of the result.

Each kernel works on one flat plane: one band of one block, in the block's memory order, followed by `PADDING` elements
that may hold anything. Pixels are given as `BlockCoverage.spans`; the result for polygon i is added to row i of the
output. No kernel holds Python's global lock, so blocks are reduced in parallel by threads.

Two things make the loops fast and look odd. Indices are unsigned (`_u`): numba lets a signed index count from the
end, and the check for it turns vector loads into gathers. And runs, 20 pixels on average, are worked in vectors of 32
with the tail masked by a table, because a scalar remainder would cost more than the vectors.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.zonal.compiled import compiled

CHUNK: Final = 32  # pixels in a vector
PADDING: Final = CHUNK  # so that a vector that starts on the last pixel stays inside the array

_u = np.uintp

# row r keeps the first r of the 32 pixels
_TAIL: NDArray[np.int8] = np.where(np.arange(CHUNK) < np.arange(CHUNK + 1)[:, None], -1, 0).astype(np.int8)


@compiled
def add_weights(
    plane: Any, run_offsets: Any, runs: Any, edge_offsets: Any, positions: Any, weights: Any, full: Any, edge: Any
) -> None:
    """Add the covered area of valid pixels: whole pixels to `full`, units of 2^-24 pixels to `edge` (int64).

    Nodata is -128 in a plane of codes and NaN in one of float vectors, whose values lie in -1..1.
    """
    for p in range(len(run_offsets) - 1):
        count = np.int64(0)
        for i in range(_u(run_offsets[p]), _u(run_offsets[p + 1])):
            missing = np.int32(0)
            for j in range(_u(runs[i, 0]), _u(runs[i, 0] + runs[i, 1])):
                missing += np.int32(plane[j] == -128 or plane[j] != plane[j])
            count += np.int64(runs[i, 1]) - np.int64(missing)
        full[p] += count
        weight = np.int64(0)
        for i in range(_u(edge_offsets[p]), _u(edge_offsets[p + 1])):
            value = plane[_u(positions[i])]
            if value != -128 and value == value:
                weight += np.int64(weights[i])
        edge[p] += weight


@compiled
def add_sums(
    plane: Any, run_offsets: Any, runs: Any, edge_offsets: Any, positions: Any, weights: Any, full: Any, edge: Any
) -> None:
    """Add the sums of sign(k) k^2 over valid pixels: of runs to `full`, of edges times their weight to `edge` (int64).

    An edge term is below 2^38, so 64 bits hold more than 2^24 edge pixels. The edges' codes are gathered first, so that
    all the arithmetic is on vectors.
    """
    codes = np.empty(len(positions), np.int8)
    for i in range(_u(len(positions))):
        codes[i] = plane[_u(positions[i])]
    for p in range(len(run_offsets) - 1):
        total = np.int64(0)
        for i in range(_u(run_offsets[p]), _u(run_offsets[p + 1])):
            base = _u(runs[i, 0])
            left = np.int64(runs[i, 1])
            while left > 0:
                lanes = _u(left if left < CHUNK else CHUNK)
                part = np.int32(0)
                for lane in range(_u(CHUNK)):
                    k = np.int8(plane[base + lane] & _TAIL[lanes, lane])
                    k = np.int8(k if k != np.int8(-128) else np.int8(0))
                    wide = np.int16(k)
                    # products of 16 bits summed in 32: the processor has one instruction for that
                    part = np.int32(part + np.int32(wide) * np.int32(np.int16(abs(wide))))
                total += np.int64(part)
                base += _u(CHUNK)
                left -= CHUNK
        full[p] += total
        weighted = np.int64(0)
        for i in range(_u(edge_offsets[p]), _u(edge_offsets[p + 1])):
            code = np.int32(codes[i] if codes[i] != -128 else 0)
            weighted += np.int64(weights[i]) * np.int64(np.int32(code * abs(code)))
        edge[p] += weighted


@compiled
def add_float_sums(
    plane: Any, run_offsets: Any, runs: Any, edge_offsets: Any, positions: Any, weights: Any, full: Any, edge: Any
) -> None:
    """Add sums of float vectors in -1..1, as fixed-point integers of 2^-30, as `add_sums` does of codes.

    Integers again, so that the order of work can't matter. An edge term can reach 2^54: multiples of 2^24 are carried
    over to `full` at once.
    """
    for p in range(len(run_offsets) - 1):
        for i in range(_u(run_offsets[p]), _u(run_offsets[p + 1])):
            for j in range(_u(runs[i, 0]), _u(runs[i, 0] + runs[i, 1])):
                if not np.isnan(plane[j]):
                    full[p] += np.int64(np.rint(np.float64(plane[j]) * 1073741824.0))
        for i in range(_u(edge_offsets[p]), _u(edge_offsets[p + 1])):
            value = plane[_u(positions[i])]
            if not np.isnan(value):
                term = edge[p] + np.int64(weights[i]) * np.int64(np.rint(np.float64(value) * 1073741824.0))
                full[p] += term >> 24
                edge[p] = term & 0xFFFFFF


@compiled
def add_squares(
    plane: Any, run_offsets: Any, runs: Any, edge_offsets: Any, positions: Any, weights: Any, full: Any, edge: Any
) -> None:
    """Add the sums of k^4, the squares of sign(k) k^2, as `add_sums` does.

    The sum of k^4 passes 32 bits at 9 pixels, so it has 64; an edge term can reach 2^52, so multiples of 2^24 are
    carried over to `full`.
    """
    for p in range(len(run_offsets) - 1):
        total = np.int64(0)
        for i in range(_u(run_offsets[p]), _u(run_offsets[p + 1])):
            base = _u(runs[i, 0])
            left = np.int64(runs[i, 1])
            while left > 0:
                lanes = _u(left if left < CHUNK else CHUNK)
                part = np.int64(0)
                for lane in range(_u(CHUNK)):
                    k = np.int8(plane[base + lane] & _TAIL[lanes, lane])
                    square = np.int32(k) * np.int32(k)
                    part += np.int64(np.int32(square * square)) if k != -128 else np.int64(0)
                total += part
                base += _u(CHUNK)
                left -= CHUNK
        weighted = edge[p]
        for i in range(_u(edge_offsets[p]), _u(edge_offsets[p + 1])):
            code = np.int64(plane[_u(positions[i])])
            if code != -128:
                weighted += np.int64(weights[i]) * (code * code * code * code)
                total += weighted >> 24
                weighted &= 0xFFFFFF
        full[p] += total
        edge[p] = weighted


@compiled
def add_extremes(
    plane: Any, run_offsets: Any, runs: Any, edge_offsets: Any, positions: Any, low: Any, high: Any
) -> None:
    """Lower `low` and raise `high` (int32) to the codes of all touched valid pixels."""
    for p in range(len(run_offsets) - 1):
        least, most = np.int32(low[p]), np.int32(high[p])
        for i in range(_u(run_offsets[p]), _u(run_offsets[p + 1])):
            base = _u(runs[i, 0])
            left = np.int64(runs[i, 1])
            while left > 0:
                lanes = _u(left if left < CHUNK else CHUNK)
                lower, upper = np.int8(127), np.int8(-128)
                for lane in range(_u(CHUNK)):
                    k = plane[base + lane]  # always loaded: a conditional load can't be vectorised
                    k = np.int8(k if _TAIL[lanes, lane] != np.int8(0) else np.int8(-128))
                    upper = max(upper, k)
                    lower = min(lower, np.int8(k if k != np.int8(-128) else np.int8(127)))
                if upper != -128:  # else no lane is valid
                    least, most = min(least, np.int32(lower)), max(most, np.int32(upper))
                base += _u(CHUNK)
                left -= CHUNK
        for i in range(_u(edge_offsets[p]), _u(edge_offsets[p + 1])):
            code = np.int32(plane[_u(positions[i])])
            if code != -128:
                least, most = min(least, code), max(most, code)
        low[p], high[p] = least, most


@compiled
def add_float_extremes(
    plane: Any, run_offsets: Any, runs: Any, edge_offsets: Any, positions: Any, low: Any, high: Any
) -> None:
    """Lower `low` and raise `high` to all touched valid float vectors, as fixed-point integers of 2^-30."""
    for p in range(len(run_offsets) - 1):
        for i in range(_u(run_offsets[p]), _u(run_offsets[p + 1])):
            for j in range(_u(runs[i, 0]), _u(runs[i, 0] + runs[i, 1])):
                if not np.isnan(plane[j]):
                    fixed = np.int32(np.rint(np.float64(plane[j]) * 1073741824.0))
                    low[p], high[p] = min(low[p], fixed), max(high[p], fixed)
        for i in range(_u(edge_offsets[p]), _u(edge_offsets[p + 1])):
            value = plane[_u(positions[i])]
            if not np.isnan(value):
                fixed = np.int32(np.rint(np.float64(value) * 1073741824.0))
                low[p], high[p] = min(low[p], fixed), max(high[p], fixed)


@compiled
def add_histograms(
    plane: Any, run_offsets: Any, runs: Any, edge_offsets: Any, positions: Any, weights: Any, histograms: Any
) -> None:
    """Add each valid pixel's weight, in units of 2^-24, to bin code + 128 of `histograms`, int64 (polygons, 256)."""
    counts = np.empty(256, np.int64)
    for p in range(len(run_offsets) - 1):
        counts[:] = 0
        for i in range(_u(run_offsets[p]), _u(run_offsets[p + 1])):
            for j in range(_u(runs[i, 0]), _u(runs[i, 0] + runs[i, 1])):
                counts[_u(np.int16(plane[j]) + np.int16(128))] += 1
        for b in range(_u(1), _u(256)):
            histograms[p, b] += counts[b] << 24
        for i in range(_u(edge_offsets[p]), _u(edge_offsets[p + 1])):
            k = np.int16(plane[_u(positions[i])])
            if k != -128:
                histograms[p, _u(k + np.int16(128))] += np.int64(weights[i])


@compiled
def add_similarities(
    plane: Any, run_offsets: Any, runs: Any, edge_offsets: Any, positions: Any, means: Any, dots: Any, norms: Any
) -> None:
    """Add one band's term of each pixel's dot product with its polygon's mean, and of its squared length, k^4.

    Pixels are in the order of `BlockCoverage.pixels`. `means` are the polygons' means of this band. `dots` (float64)
    and the square roots of `norms` (uint64) are in units of 1 / 127.5^2. A unit vector's norm is 127.5^4 < 2^28;
    rasters and mosaics may hold longer vectors, up to 2^34.
    """
    e = _u(0)
    for p in range(len(run_offsets) - 1):
        for i in range(_u(run_offsets[p]), _u(run_offsets[p + 1])):
            base, length = _u(runs[i, 0]), _u(runs[i, 1])
            for j in range(length):
                k = np.int32(plane[base + j])
                square = np.int32(k * abs(k) if k != -128 else 0)
                dots[e + j] += means[p] * np.float64(square)
                norms[e + j] += np.uint64(square * square)
            e += length
    for p in range(len(edge_offsets) - 1):
        for i in range(_u(edge_offsets[p]), _u(edge_offsets[p + 1])):
            k = np.int32(plane[_u(positions[i])])
            square = np.int32(k * abs(k) if k != -128 else 0)
            dots[e] += means[p] * np.float64(square)
            norms[e] += np.uint64(square * square)
            e += _u(1)


@compiled
def find_nearest(
    plane: Any, polygons: Any, pixels: Any, dots: Any, norms: Any, lengths: Any, order: Any, best: Any, similarity: Any
) -> None:
    """Find the pixel of each polygon with the greatest cosine to the mean; of equal ones, the first in the grid.

    Parameters
    ----------
    plane
        Any band: it says which pixels are nodata.
    polygons, pixels
        From `BlockCoverage.pixels`: which polygon, and the position in the plane.
    dots, norms
        From `add_similarities`.
    lengths
        Of the polygons' means (float64).
    order : (int, int, int)
        Width of the block, and 1 or -1 for the directions of its rows and columns in the grid.
    best, similarity
        Results: positions (-1 where a polygon has no valid pixel), and cosines (-inf there).
    """
    width, down, across = order
    for e in range(len(pixels)):
        p, pixel = polygons[e], pixels[e]
        if plane[pixel] == -128 or norms[e] == 0 or lengths[p] == 0.0:
            continue
        cosine = dots[e] / (lengths[p] * np.sqrt(np.float64(norms[e])))
        if cosine < similarity[p]:
            continue
        if cosine == similarity[p]:
            rows = down * (pixel // width - best[p] // width)
            cols = across * (pixel % width - best[p] % width)
            if rows > 0 or (rows == 0 and cols >= 0):
                continue
        best[p], similarity[p] = pixel, cosine


@compiled
def touched_chunks(n_pixels: int, runs: Any, positions: Any) -> Any:
    """Return the numbers of the 32-pixel chunks of a block that any polygon touches, ascending, int32.

    The last chunk may reach past the block's end, into the padding.
    """
    touched = np.zeros((n_pixels + CHUNK - 1) // CHUNK, np.bool_)
    for i in range(len(runs)):
        touched[runs[i, 0] // CHUNK : (runs[i, 0] + runs[i, 1] - 1) // CHUNK + 1] = True
    for i in range(len(positions)):
        touched[positions[i] // CHUNK] = True
    return np.flatnonzero(touched).astype(np.int32)


@compiled
def add_norms(plane: Any, chunks: Any, norms: Any, missing: Any) -> None:
    """Add one band's term of the squared length of each pixel in the touched chunks, and count its nodata bands.

    `norms` (uint16, saturating) sums k^4 / 2^14: a unit vector comes to 127.5^4 / 2^14 = 16,129, less about 32 from
    rounding down. `missing` (uint8) counts nodata: in a sound pixel all bands or none. Numbers of 16 and 8 bits keep
    this check far cheaper than decoding.
    """
    first = 0
    while first < len(chunks):
        # neighbouring chunks in one loop, because a vectorised loop first checks that its arrays don't overlap
        stop = first + 1
        while stop < len(chunks) and chunks[stop] == chunks[stop - 1] + 1:
            stop += 1
        pixel, slot, n = _u(chunks[first]) * _u(CHUNK), _u(first) * _u(CHUNK), _u(stop - first) * _u(CHUNK)
        first = stop
        for lane in range(n):
            k = np.int16(plane[pixel + lane])
            doubled = np.uint16(np.uint16(k * k) * np.uint16(2))
            share = np.uint16((np.uint32(doubled) * np.uint32(doubled)) >> np.uint32(16))
            before = norms[slot + lane]
            after = np.uint16(before + share)
            norms[slot + lane] = after if after >= before else np.uint16(65535)
            missing[slot + lane] += np.uint8(k == -128)


@compiled
def off_norm(norms: Any, missing: Any, low: int, high: int, n_bands: int) -> Any:
    """Return which pixels of `add_norms` are suspect: not nodata in all bands, and with a norm outside low..high."""
    wrong = np.empty(len(norms), np.bool_)
    for i in range(len(norms)):
        sound = (missing[i] == 0) & (norms[i] >= low) & (norms[i] <= high)
        wrong[i] = not (sound | (missing[i] == n_bands))
    return wrong
