"""Computes the pixels of the synthetic land surface in numba: parcels, rivers, patches, textures, quantised vectors.

No fastmath and no transcendental functions: their results depend on how a loop was vectorised. Everything random is a
hash of integers, so a pixel has the same bits in any window, tile, block or thread.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from gee_polygons.zonal.compiled import compiled

UNLABELLED = 255  # label of a masked pixel
N_COVER = 6  # pasture, young forest, mature forest, crop, water, built
N_LATENT = 20
NODE_PX = 32  # spacing of the nodes between which positions are interpolated; error < 1 mm

# How strongly each land cover varies in space, and from year to year (crops rotate, old forest rests).
_COVER_TEXTURE = np.array([1.05, 1.0, 0.85, 0.85, 0.5, 1.2], np.float32)
_COVER_YEARLY = np.array([0.85, 0.75, 0.45, 2.7, 0.6, 0.5], np.float32)

_PARCEL_M, _PARCEL_JITTER, _PARCEL_BLEND_M = 250.0, 0.85, 20.0
_WARP_M, _WARP_WAVE_M = 70.0, 260.0
_REGION_M = 1300.0
_RIVER_M = 1700.0
_TEXTURE_WAVES_M = (70.0, 240.0)
_YEARLY_WAVE_M = 180.0
_PATCH_BLEND_M = 25.0  # a patch fades out over this distance outside its outline, so it is whole up to the edge

_PARCEL_SIZE = 0.46
_PARCEL_YEARLY_SIZE = 0.145
_TEXTURE_SIZES = (0.48, 0.52)
_YEARLY_SIZE = 0.12
_NOISE_SIZE = 0.003  # standard deviation of one band's white noise

# Purposes of hashed numbers here: one key each, so that no two are correlated.
N_PURPOSES = 10
_CELL, _COVER, _WARP_X, _WARP_Y, _REGION_A, _REGION_B, _RIVER_A, _RIVER_B, _PACE, _PARCEL = range(N_PURPOSES)


@numba.njit(inline="always")
def _hash(a: Any, b: Any, key: Any) -> Any:
    """Mix two integers and a key to 32 random bits (the multipliers of the "lowbias32" hash)."""
    h = np.uint32(np.uint32(a) * np.uint32(0x8DA6B343)) ^ np.uint32(np.uint32(b) * np.uint32(0xD8163841)) ^ key
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x7FEB352D))
    h = np.uint32(h ^ (h >> np.uint32(15)))
    h = np.uint32(h * np.uint32(0x846CA68B))
    return np.uint32(h ^ (h >> np.uint32(16)))


@numba.njit(inline="always")
def _byte(h: Any, i: Any) -> Any:
    """Byte i of a hash as a float in -1..1."""
    return np.float32(np.int32((h >> np.uint32(8 * i)) & np.uint32(255))) * np.float32(2.0 / 255.0) - np.float32(1.0)


@numba.njit(inline="always")
def _fade(t: Any) -> Any:
    return t * t * (np.float32(3.0) - np.float32(2.0) * t)


@numba.njit
def _value(x: float, y: float, wave: float, key: Any) -> Any:
    """Value noise in -1..1 at one point."""
    gx, gy = x / wave, y / wave
    fx, fy = np.floor(gx), np.floor(gy)
    ix, iy = np.int32(fx), np.int32(fy)
    tx, ty = _fade(np.float32(gx - fx)), _fade(np.float32(gy - fy))
    south = _byte(_hash(ix, iy, key), 0) * (np.float32(1) - tx) + _byte(_hash(ix + 1, iy, key), 0) * tx
    north = _byte(_hash(ix, iy + 1, key), 0) * (np.float32(1) - tx) + _byte(_hash(ix + 1, iy + 1, key), 0) * tx
    return south * (np.float32(1) - ty) + north * ty


@numba.njit
def _texture(
    out: Any, first: int, x: Any, y: Any, wave: float, key: Any, sizes: Any, size: Any, amplitude: Any
) -> None:
    """Add four fields of value noise (one lattice, one byte of its hashes each) to out[first : first + 4]."""
    # each lattice is turned and shifted by its key, so that the axes of the fields don't show in pictures;
    # (1 - t^2, 2 t) / (1 + t^2) is a rotation without trigonometry
    t = float(key & np.uint32(1023)) / 1023.0
    c, s = (1.0 - t * t) / (1.0 + t * t) / wave, 2.0 * t / (1.0 + t * t) / wave
    shift = float(key >> np.uint32(20))
    one = np.float32(1)
    scale = size * sizes[first : first + 4]
    for i in range(len(x)):
        gx, gy = c * x[i] - s * y[i] + shift, s * x[i] + c * y[i] - shift
        fx, fy = np.floor(gx), np.floor(gy)
        ix, iy = np.int32(fx), np.int32(fy)
        h00, h10 = _hash(ix, iy, key), _hash(ix + np.int32(1), iy, key)
        h01, h11 = _hash(ix, iy + np.int32(1), key), _hash(ix + np.int32(1), iy + np.int32(1), key)
        tx, ty = _fade(np.float32(gx - fx)), _fade(np.float32(gy - fy))
        south, north = (one - ty) * amplitude[i], ty * amplitude[i]
        for b in range(4):
            value = south * ((one - tx) * _byte(h00, b) + tx * _byte(h10, b))
            value += north * ((one - tx) * _byte(h01, b) + tx * _byte(h11, b))
            out[first + b, i] += scale[b] * value


@numba.njit
def _distance(x: float, y: float, edges: Any, first: int, stop: int) -> float:
    """Distance to a polygon's outline in metres, negative inside (even-odd rule, so holes are outside)."""
    best, inside = 1e30, False
    for e in range(first, stop):
        x0, y0, x1, y1 = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
        if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
            inside = not inside
        dx, dy = x1 - x0, y1 - y0
        length = dx * dx + dy * dy
        t = ((x - x0) * dx + (y - y0) * dy) / length if length > 0 else 0.0
        t = min(max(t, 0.0), 1.0)
        ex, ey = x0 + t * dx - x, y0 + t * dy - y
        best = min(best, ex * ex + ey * ey)
    distance: float = best**0.5
    return -distance if inside else distance


@numba.njit
def _masked(x: float, y: float, edges: Any, starts: Any, boxes: Any) -> bool:
    for p in range(len(boxes)):
        if (
            boxes[p, 0] <= x <= boxes[p, 2]
            and boxes[p, 1] <= y <= boxes[p, 3]
            and _distance(x, y, edges, starts[p], starts[p + 1]) <= 0
        ):
            return True
    return False


@numba.njit
def _parcel_cover(cx: float, cy: float, h: Any, keys: Any) -> int:
    """Return the land cover of a parcel: the one that its region favours, or another at random."""
    wood = _value(cx, cy, _REGION_M, keys[_REGION_A]) + np.float32(0.45) * _byte(h, 0)
    tilled = _value(cx, cy, _REGION_M, keys[_REGION_B]) + np.float32(0.45) * _byte(h, 1)
    if _byte(h, 2) > np.float32(0.95):
        return 5
    if wood > np.float32(0.33):
        return 2 if _byte(h, 3) > np.float32(-0.5) else 1
    if tilled > np.float32(0.28):
        return 3
    return 1 if _byte(h, 3) > np.float32(0.85) else 0


@numba.njit
def _parcels(x: float, y: float, keys: Any, cover: Any, cell: Any, weight: Any) -> int:
    """Find the parcels at a point: hashes into `cell`, weights into `weight`, land covers added to `cover`."""
    wx = x + _WARP_M * _value(x, y, _WARP_WAVE_M, keys[_WARP_X])
    wy = y + _WARP_M * _value(x, y, _WARP_WAVE_M, keys[_WARP_Y])
    ix, iy = int(np.floor(wx / _PARCEL_M)), int(np.floor(wy / _PARCEL_M))
    near_d = np.empty(9)
    near_x, near_y = np.empty(9), np.empty(9)
    near_h = np.empty(9, np.uint32)
    best = 1e30
    for j in range(9):
        gx, gy = ix + j % 3 - 1, iy + j // 3 - 1
        h = _hash(gx, gy, keys[_CELL])
        px = (gx + 0.5 + 0.5 * _PARCEL_JITTER * _byte(h, 0)) * _PARCEL_M
        py = (gy + 0.5 + 0.5 * _PARCEL_JITTER * _byte(h, 1)) * _PARCEL_M
        near_d[j] = ((px - wx) ** 2 + (py - wy) ** 2) ** 0.5
        near_x[j], near_y[j], near_h[j] = px, py, _hash(gx, gy, keys[_COVER])
        best = min(best, near_d[j])
    n, total = 0, np.float32(0)
    for j in range(9):
        share = 1.0 - (near_d[j] - best) / _PARCEL_BLEND_M
        if share > 0.0:
            cell[n], weight[n] = near_h[j], np.float32(share * share)
            total += weight[n]
            near_x[n], near_y[n] = near_x[j], near_y[j]
            n += 1
    for j in range(n):
        weight[j] /= total
        cover[_parcel_cover(near_x[j], near_y[j], cell[j], keys)] += weight[j]
    return n


@numba.njit
def _rivers(x: float, y: float, keys: Any, cover: Any) -> None:
    """Lay rivers, and the woods along them, over the land cover."""
    n = abs(_value(x, y, _RIVER_M, keys[_RIVER_A]) + np.float32(0.3) * _value(x, y, 0.3 * _RIVER_M, keys[_RIVER_B]))
    for c, inner, outer in ((1, np.float32(0.05), np.float32(0.075)), (4, np.float32(0.012), np.float32(0.024))):
        if n < outer:
            share = _fade(min((outer - n) / (outer - inner), np.float32(1)))
            for i in range(N_COVER):
                cover[i] *= np.float32(1) - share
            cover[c] += share


@numba.njit
def _patches(
    x: float, y: float, edges: Any, starts: Any, boxes: Any, paths: Any, progress: Any, keys: Any,
    cover: Any, cell: Any, weight: Any, n: int,
) -> int:  # fmt: skip
    """Lay patches over the land cover and the parcels; returns the new number of parcels."""
    for p in range(len(boxes)):
        if (
            x < boxes[p, 0] - _PATCH_BLEND_M
            or x > boxes[p, 2] + _PATCH_BLEND_M
            or y < boxes[p, 1] - _PATCH_BLEND_M
            or y > boxes[p, 3] + _PATCH_BLEND_M
        ):
            continue
        outside = _distance(x, y, edges, starts[p], starts[p + 1]) / _PATCH_BLEND_M
        if outside >= 1.0:
            continue
        share = _fade(np.float32(1.0 - max(outside, 0.0)))
        # the pace differs within a patch by up to a third
        way = progress[p] * (1.0 + 0.35 * _value(x, y, 120.0, keys[_PACE]))
        way = np.float32(min(max(way, 0.0), 1.0))
        rest = np.float32(1) - way
        for i in range(N_COVER):
            cover[i] *= np.float32(1) - share
        cover[paths[p, 0]] += share * rest * rest
        cover[paths[p, 1]] += share * np.float32(2) * way * rest
        cover[paths[p, 2]] += share * way * way
        for j in range(n):
            weight[j] *= np.float32(1) - share
        if n < len(cell):
            cell[n], weight[n] = _hash(p, 77, keys[_PARCEL]), share * np.float32(0.7)
            n += 1
    return n


@numba.njit(inline="always")
def _between(nodes: Any, r: int, c: int, ty: float, tx: float) -> float:
    """Interpolate between four nodes."""
    upper = nodes[r, c] * (1 - tx) + nodes[r, c + 1] * tx
    lower = nodes[r + 1, c] * (1 - tx) + nodes[r + 1, c + 1] * tx
    position: float = upper * (1 - ty) + lower * ty
    return position


@numba.njit
def _positions(x: Any, y: Any, row: int, col0: int, node_x: Any, node_y: Any, node_row0: int) -> None:
    """Pixel centres of a row in the frame, interpolated between the nodes around them."""
    node_col0, r = col0 // NODE_PX, row // NODE_PX - node_row0
    ty = (row % NODE_PX + 0.5) / NODE_PX
    for i in range(len(x)):
        c = (col0 + i) // NODE_PX - node_col0
        tx = ((col0 + i) % NODE_PX + 0.5) / NODE_PX
        x[i], y[i] = _between(node_x, r, c, ty, tx), _between(node_y, r, c, ty, tx)


@numba.njit
def _parcel_latent(
    latent: Any, i: int, cover: Any, cover_latent: Any, cell: Any, weight: Any, n: int, yearly: Any, sizes: Any,
    key: Any, year_key: Any,
) -> None:  # fmt: skip
    """Start pixel i's latent vector: its land covers, and the offsets of its parcels, lasting and of the year."""
    for k in range(N_LATENT):
        latent[k, i] = 0
        for c in range(N_COVER):
            latent[k, i] += cover[c] * cover_latent[c, k]
    for j in range(n):
        lasting = weight[j] * np.float32(_PARCEL_SIZE)
        passing = weight[j] * np.float32(_PARCEL_YEARLY_SIZE) * yearly
        for layer in range(N_LATENT // 4):
            h, g = _hash(cell[j], layer, key), _hash(cell[j], layer, year_key)
            for b in range(4):
                k = 4 * layer + b
                latent[k, i] += sizes[k] * (lasting * _byte(h, b) + passing * _byte(g, b))


@compiled
def fill(
    codes: Any, labels: Any, node_x: Any, node_y: Any, row0: int, col0: int,
    edges: Any, starts: Any, boxes: Any, paths: Any, progress: Any,
    mask_edges: Any, mask_starts: Any, mask_boxes: Any,
    keys: Any, parcel_year_key: Any, texture_keys: Any, yearly_keys: Any, noise_key: Any,
    basis: Any, cover_latent: Any, sizes: Any, base: Any,
) -> None:  # fmt: skip
    """Fill `codes` (64 bands, or none if only labels are wanted) and `labels`, row by row."""
    height, width = labels.shape
    n_bands = codes.shape[0]
    x, y = np.empty(width), np.empty(width)
    latent = np.empty((N_LATENT, width), np.float32)
    texture, yearly = np.empty(width, np.float32), np.empty(width, np.float32)
    vectors, square = np.empty((n_bands, width), np.float32), np.empty(width, np.float32)
    noise = np.empty(width, np.uint32)
    cover = np.empty(N_COVER, np.float32)
    cell, weight = np.empty(16, np.uint32), np.empty(16, np.float32)
    for r in range(height):
        _positions(x, y, row0 + r, col0, node_x, node_y, row0 // NODE_PX)
        for i in range(width):
            cover[:] = 0
            n = _parcels(x[i], y[i], keys, cover, cell, weight)
            _rivers(x[i], y[i], keys, cover)
            n = _patches(x[i], y[i], edges, starts, boxes, paths, progress, keys, cover, cell, weight, n)
            if not _masked(x[i], y[i], mask_edges, mask_starts, mask_boxes):
                labels[r, i] = np.argmax(cover)
            if n_bands:
                texture[i] = yearly[i] = 0
                for c in range(N_COVER):
                    texture[i] += cover[c] * _COVER_TEXTURE[c]
                    yearly[i] += cover[c] * _COVER_YEARLY[c]
                _parcel_latent(latent, i, cover, cover_latent, cell, weight, n, yearly[i], sizes,
                               keys[_PARCEL], parcel_year_key)  # fmt: skip
                noise[i] = _hash(row0 + r, col0 + i, noise_key)
        if n_bands:
            for layer in range(N_LATENT // 4):
                for wave in range(2):
                    _texture(latent, 4 * layer, x, y, _TEXTURE_WAVES_M[wave], texture_keys[wave, layer], sizes,
                             np.float32(_TEXTURE_SIZES[wave]), texture)  # fmt: skip
                _texture(latent, 4 * layer, x, y, _YEARLY_WAVE_M, yearly_keys[layer], sizes,
                         np.float32(_YEARLY_SIZE), yearly)  # fmt: skip
            _quantise(codes, labels, r, latent, basis, base, noise, vectors, square)


@numba.njit
def _quantise(
    codes: Any, labels: Any, r: int, latent: Any, basis: Any, base: Any, noise: Any, vectors: Any, square: Any
) -> None:
    """Latent row -> unit vectors with white noise -> codes."""
    n_bands, width = vectors.shape
    # four bytes of a hash add up to a nearly normal number; their sum's standard deviation is 2 / sqrt(3)
    noise_size = np.float32(_NOISE_SIZE * 3**0.5 / 2)
    square[:] = 0
    for band in range(n_bands):
        v = vectors[band]
        for i in range(width):
            h = _hash(noise[i], band, np.uint32(0))
            v[i] = base[band] + noise_size * (_byte(h, 0) + _byte(h, 1) + _byte(h, 2) + _byte(h, 3))
        for k in range(latent.shape[0]):
            b, z = basis[band, k], latent[k]
            for i in range(width):
                v[i] += b * z[i]
        for i in range(width):
            square[i] += v[i] * v[i]
    for i in range(width):
        square[i] = np.float32(1) / np.sqrt(square[i])
    for band in range(n_bands):
        v = vectors[band]
        for i in range(width):
            u = v[i] * square[i]
            k = np.rint(np.sqrt(abs(u)) * np.float32(127.5))
            k = min(k, np.float32(127))
            if labels[r, i] != UNLABELLED:
                codes[band, r, i] = np.int8(k if u >= 0 else -k)
