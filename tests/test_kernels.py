"""Kernels, block reducer and partials against Python's own integers: bit for bit.

Sums are integers, so there is no tolerance on them; a mean is a quotient of them in double precision: 4e-16.
"""

import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import any_polygons, can_be_unit, exact_means, lattice_coverage, unit_codes

from gee_polygons.embeddings.quantization import codes_to_vectors, vectors_to_codes
from gee_polygons.zonal import kernels
from gee_polygons.zonal.clipping import clip_to_block
from gee_polygons.zonal.coverage import FULL
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.kernels import PADDING
from gee_polygons.zonal.reduce import BlockReducer

quick = settings(max_examples=50, deadline=None)
GARBAGE = {"zeros": 0, "ones": 1, "nodata": -128, "most": 127}


def padded(codes, fill=77):
    """Flat planes followed by padding that may hold anything."""
    flat = codes.reshape(*codes.shape[:-2], -1)
    padding = np.full((*flat.shape[:-1], PADDING), fill, codes.dtype)
    return np.concatenate([flat, padding], axis=-1)


def place(runs, edges, n=1):
    """Offsets and pixels of n polygons as kernels take them; `runs` and `edges` are lists of (polygon, a, b)."""
    out = []
    for spans in (runs, edges):
        spans = sorted(spans, key=lambda span: span[0])
        counts = np.bincount([span[0] for span in spans], minlength=n) if spans else np.zeros(n, np.int64)
        out.append(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        out.append(np.array([span[1:] for span in spans], np.int32).reshape(-1, 2))
    return (*out[:3], *out[3].T.copy())


def brute(plane, runs, edges, n):
    """(valid whole pixels, valid 2^-24 pixels, sum over runs, weighted sum over edges) of each polygon."""
    area, edge_area, total, weighted = ([0] * n for _ in range(4))
    for p, first, length in runs:
        for k in map(int, plane[first : first + length]):
            area[p] += k != -128
            total[p] += k * abs(k) if k != -128 else 0
    for p, position, weight in edges:
        k = int(plane[position])
        edge_area[p] += weight if k != -128 else 0
        weighted[p] += weight * k * abs(k) if k != -128 else 0
    return area, edge_area, total, weighted


def run_kernels(plane, runs, edges, n, prefix=""):
    found = []
    for kernel in (kernels.add_weights, getattr(kernels, f"add_{prefix}sums")):
        full, edge = np.zeros(n, np.int64), np.zeros(n, np.int64)
        kernel(plane, *place(runs, edges, n), full, edge)
        found += [full, edge]
    return found


codes_in = st.one_of(st.integers(-128, 127), st.sampled_from([-128, -127, 127]))
spans_in = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 149), st.integers(1, 150)), max_size=12)


@quick
@given(st.lists(codes_in, min_size=150, max_size=150), spans_in, spans_in, st.sampled_from(sorted(GARBAGE)))
def test_sums_and_weights_are_those_of_plain_integers(codes, runs, edges, garbage):
    plane = padded(np.array(codes, np.int8).reshape(1, 150), GARBAGE[garbage])
    runs = [(p, first, min(length, 150 - first)) for p, first, length in runs]
    edges = [(p, position, weight * 111_111) for p, position, weight in edges]
    found = run_kernels(plane, runs, edges, 4)
    for one, other in zip(found, brute(plane, runs, edges, 4), strict=True):
        assert one.tolist() == other


@pytest.mark.parametrize("code", [-128, -127, -1, 0, 1, 126, 127])
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 63, 64, 65, 96, 100])
def test_runs_of_any_length_at_any_place_also_at_the_very_end(code, length):
    plane = padded(np.full((1, 100), code, np.int8), fill=99)
    for first in (0, 1, 100 - length):
        if first + length <= 100:
            found = run_kernels(plane, [(0, first, length)], [], 1)
            assert [int(v[0]) for v in found] == [v[0] for v in brute(plane, [(0, first, length)], [], 1)]


def test_every_code_has_its_own_sum_in_runs_and_edges():
    plane = padded(np.arange(-128, 128).astype(np.int8).reshape(1, 256))
    runs = [(i, i, 1) for i in range(256)]
    edges = [(i, i, FULL - 1) for i in range(256)]
    area, edge_area, total, weighted = run_kernels(plane, runs, edges, 256)
    values = [0] + [k * abs(k) for k in range(-127, 128)]
    assert total.tolist() == values
    assert weighted.tolist() == [v * (FULL - 1) for v in values]
    assert area.tolist() == [0] + [1] * 255
    assert edge_area.tolist() == [0] + [FULL - 1] * 255


def test_a_long_run_does_not_overflow():
    n = 3_000_000
    plane = padded(np.full((1, n), -127, np.int8))
    found = run_kernels(plane, [(0, 0, n)], [(0, 5, FULL - 1)] * 1000, 1)
    assert [int(v[0]) for v in found] == [n, 1000 * (FULL - 1), -n * 16129, -1000 * (FULL - 1) * 16129]


def test_sums_are_added_to_what_is_there():
    plane = padded(np.full((1, 40), 3, np.int8))
    full, edge = np.array([5], np.int64), np.array([7], np.int64)
    kernels.add_sums(plane, *place([(0, 0, 10)], [(0, 0, 2)]), full, edge)
    assert (full[0], edge[0]) == (5 + 90, 7 + 18)


# --- float planes


@quick
@given(st.lists(st.one_of(st.just(np.nan), st.floats(-1, 1)), min_size=60, max_size=60), spans_in, spans_in,
       st.sampled_from([np.float32, np.float64]))  # fmt: skip
def test_float_sums_are_fixed_point_integers(values, runs, edges, dtype):
    plane = padded(np.array(values, dtype).reshape(1, 60), fill=np.nan)
    runs = [(p, first % 60, min(length, 60 - first % 60)) for p, first, length in runs]
    edges = [(p, position % 60, weight * 111_111) for p, position, weight in edges]
    area, edge_area, full, edge = run_kernels(plane, runs, edges, 4, "float_")
    for p in range(4):
        inside = [i for q, first, n in runs if q == p for i in range(first, first + n)]
        rim = [(i, w) for q, i, w in edges if q == p]
        assert area[p] == sum(not np.isnan(plane[i]) for i in inside)
        assert edge_area[p] == sum(w for i, w in rim if not np.isnan(plane[i]))
        units = {i: round(float(plane[i]) * 2**30) for i in range(60) if not np.isnan(plane[i])}
        total = sum(units.get(i, 0) for i in inside) * FULL + sum(w * units.get(i, 0) for i, w in rim)
        assert int(full[p]) * FULL + int(edge[p]) == total


def test_float_edges_do_not_overflow():
    plane = padded(np.full((1, 4), -1.0, np.float32), fill=np.nan)
    _, _, full, edge = run_kernels(plane, [], [(0, 1, FULL - 1)] * 5000, 1, "float_")
    assert int(full[0]) * FULL + int(edge[0]) == -5000 * (FULL - 1) * 2**30


# --- the block reducer


class Planes:
    """A block in memory: planar, or all bands in one part."""

    def __init__(self, codes, planar=True, fill=77):
        self.planes, self.planar = padded(codes, fill), planar
        self.decoded = 0

    @property
    def n_parts(self):
        return len(self.planes) if self.planar else 1

    def part_bands(self, part):
        return (part,) if self.planar else range(len(self.planes))

    def decode(self, part, scratch=None):
        self.decoded += 1
        planes = self.planes[part : part + 1] if self.planar else self.planes
        if scratch is None or scratch.shape != planes.shape or scratch.dtype != planes.dtype:
            return planes.copy()
        scratch[:] = planes
        return scratch


def reduced(block, coverage, n_bands, **options):
    """Means, shape (polygons, bands), and n_pixels."""
    found = BlockReducer(n_bands).reduce(block, coverage, **options)
    return found.partials.means(found.scale), found.partials.n_pixels()


def assert_means(found, codes, weights):
    """Equal to the exact quotient, but for three roundings in double precision."""
    for value, true in zip(found, exact_means(codes, weights), strict=True):
        if true is None:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(float(true), rel=4e-16, abs=1e-300)


def dense(coverage, polygon, window):
    return np.rint(coverage.rasterize(polygon, window) * FULL).astype(np.int64)


@quick
@given(st.lists(any_polygons, min_size=1, max_size=4), st.integers(0, 99), st.booleans(), st.booleans(), st.booleans())
def test_means_of_a_block_are_exact_in_any_orientation_and_layout(polygons, seed, flip_y, flip_x, planar):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-128, 128, (5, 11, 13)).astype(np.int8)
    codes[:, rng.random((11, 13)) < 0.2] = -128
    codes[codes == -128] = 0
    codes[:, rng.random((11, 13)) < 0.2] = -128
    window = Window(-1, -1, 11, 13)
    coverage = lattice_coverage(polygons)
    stored = codes[:, :: -1 if flip_y else 1, :: -1 if flip_x else 1]
    clipped = clip_to_block(coverage, window, flip_y=flip_y, flip_x=flip_x)
    means, n_pixels = reduced(Planes(stored, planar), clipped, 5)
    plain, plain_n = reduced(Planes(codes), clip_to_block(coverage, window), 5)
    assert np.array_equal(means, plain, equal_nan=True)
    assert np.array_equal(n_pixels, plain_n)
    for p in range(len(polygons)):
        weights = dense(coverage, p, window)
        assert_means(means[p], codes, weights)
        assert n_pixels[p] == weights[codes[0] != -128].sum() / FULL


def test_float_vectors_of_codes_give_the_codes_means():
    codes = unit_codes((20, 20), masked=0.1)
    clipped = clip_to_block(
        lattice_coverage([shapely.Polygon([(1.3, 2.2), (18.1, 4.4), (9.9, 17.6)])]), Window(0, 0, 20, 20)
    )
    means, n_pixels = reduced(Planes(codes), clipped, 64)
    for dtype, tolerance in ((np.float32, 4e-8), (np.float64, 1e-9)):  # float32 rounding; 2^-30 fixed point
        found, found_n = reduced(Planes(codes_to_vectors(codes, dtype), fill=np.nan), clipped, 64)
        assert np.abs(found - means).max() < tolerance
        assert np.array_equal(found_n, n_pixels)


def test_a_reducer_used_again_keeps_nothing():
    reducer = BlockReducer(64)
    first, second = unit_codes((9, 9), 1), unit_codes((9, 9), 2)
    coverage = clip_to_block(lattice_coverage([shapely.box(0.5, 0.5, 7, 7)]), Window(0, 0, 9, 9))
    alone = [reduced(Planes(codes), coverage, 64)[0] for codes in (first, second)]
    again = [reducer.reduce(Planes(codes), coverage) for codes in (first, second, first)]
    for found, true in zip(again, [*alone, alone[0]], strict=True):
        assert np.array_equal(found.partials.means(found.scale), true)


def test_hidden_pixels_are_not_counted():
    codes = unit_codes((6, 6))
    coverage = lattice_coverage([shapely.box(0.5, 0, 6, 6)])
    clipped = clip_to_block(coverage, Window(0, 0, 6, 6))
    hidden = np.array([0, 7, 8, 35])
    means, n_pixels = reduced(Planes(codes), clipped, 64, hidden=hidden, check_lengths=True)
    weights = dense(coverage, 0, Window(0, 0, 6, 6))
    weights.flat[hidden] = 0
    assert_means(means[0], codes, weights)
    assert n_pixels[0] == weights.sum() / FULL


# --- partials: any order, any grouping


def test_merging_in_any_order_and_grouping_gives_the_same_bits():
    codes = unit_codes((24, 24), masked=0.1)
    coverage = lattice_coverage([shapely.Polygon([(1.3, 2.2), (23.1, 4.4), (9.9, 22.6)]), shapely.box(2, 2, 9, 9)])
    whole, whole_n = reduced(Planes(codes), clip_to_block(coverage, Window(0, 0, 24, 24)), 64)
    parts, unit = [], None
    for row, col in itertools.product(range(0, 24, 8), repeat=2):
        block = Planes(codes[:, row : row + 8, col : col + 8].copy())
        found = BlockReducer(64).reduce(block, clip_to_block(coverage, Window(row, col, 8, 8)))
        parts.append(found.partials)
        unit = found.scale
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(parts))
        total = parts[order[0]].take(np.array([0, 1]))
        for i in order[1:]:
            total.add(parts[i], np.array([0, 1]))
        assert np.array_equal(total.means(unit), whole)
        assert np.array_equal(total.n_pixels(), whole_n)


# --- damage shows in the length of vectors


def damage_in(codes, polygon=None):
    """The damaged pixels of a block, read twice as the pipeline does it; None without any."""
    height, width = codes.shape[1:]
    clipped = clip_to_block(
        lattice_coverage([polygon or shapely.box(0, 0, width, height)]), Window(0, 0, height, width)
    )
    first = BlockReducer(64).reduce(Planes(codes), clipped, check_lengths=True)
    suspects = first.check.suspects()
    if not len(suspects):
        return None
    second = BlockReducer(64).reduce(Planes(codes), clipped, check_lengths=True, suspects=suspects)
    assert second.same_as(first)
    return second.check.damage()


def lengths(codes):
    return np.linalg.norm(codes_to_vectors(codes, np.float64), axis=0)


@pytest.mark.parametrize("position", [0, 1, 31, 32, 33, 62, 63, 64, 98])
def test_one_damaged_value_is_found_wherever_it_lies(position):
    codes = unit_codes((9, 11))
    codes[17].flat[position] = 115
    found = damage_in(codes)
    assert found.positions.tolist() == [position]
    assert found.lengths[0] == pytest.approx(lengths(codes).flat[position], abs=1e-12)
    assert found.n_checked == 99
    assert len(found.incomplete) == 0


@pytest.mark.parametrize("scale", [0.9, 0.97, 0.975, 0.98, 0.985, 0.992, 1.0, 1.008, 1.015, 1.02, 1.025, 1.03, 1.5])
def test_a_pixel_is_damaged_if_no_unit_vector_has_its_codes(scale):
    codes = unit_codes((1, 400))
    # stretch one pixel's vector as near to the length as codes allow
    vector = codes_to_vectors(codes[:, 0, 200], np.float64)
    codes[:, 0, 200] = np.rint(np.sign(vector) * np.sqrt(np.abs(vector) * scale) * 127.5)
    found = damage_in(codes)
    if can_be_unit(codes[:, 0, 200]):
        assert found is None
    else:
        assert found.positions.tolist() == [200]
    assert can_be_unit(codes[:, 0, 200]) == (0.985 <= scale <= 1.015)


def on_half_steps(seed, up, n_bands=64, spread=0.3):
    """Magnitudes x of a unit vector, next to where their rounding turns, so that all are rounded up, or all down.

    127.5^4 is given out band by band; the last band takes what is left, and isn't on a half step.
    """
    rng = np.random.default_rng(seed)
    shares = rng.lognormal(0, spread, n_bands)
    wanted = 127.5 * (shares / shares.sum()) ** 0.25
    x = np.round(wanted - 0.5) + 0.5 + (1e-9 if up else -1e-9)
    for band in range(n_bands - 1):  # keep the running sum near what is wanted
        others = x[:band].tolist() + wanted[band + 1 :].tolist()
        ideal = max(127.5**4 - sum(v**4 for v in others), 0.0) ** 0.25
        x[band] = np.clip(np.round(ideal - 0.5), 0, 126) + 0.5 + (1e-9 if up else -1e-9)
    x[-1] = max(127.5**4 - (x[:-1] ** 4).sum(), 0.0) ** 0.25
    return x


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("n_bands", [2, 4, 8, 16, 64])
def test_the_worst_that_rounding_can_do_is_not_called_damage(up, n_bands):
    worst = 0.0
    for seed in range(60):
        x = np.zeros(64)
        x[:n_bands] = on_half_steps(seed, up, n_bands, spread=0.0 if seed < 5 else 0.3)
        vector = (x / 127.5) ** 2 * np.random.default_rng(seed).choice([-1, 1], 64)
        if abs(np.linalg.norm(vector) - 1) > 1e-9:
            continue  # the bands before the last took too much
        for dtype in (np.float64, np.float32):
            codes = np.repeat(vectors_to_codes(vector.astype(dtype))[:, None, None], 40, axis=2)
            worst = max(worst, abs(lengths(codes)[0, 0] - 1))
            assert damage_in(codes) is None
    # 2 * 1/2 * n^(1/4) / 127.5 to the first order
    assert worst > 0.8 * n_bands**0.25 / 127.5
    assert worst < 0.0224


@quick
@given(st.integers(0, 10**6), st.integers(1, 64), st.floats(0.1, 3.0))
def test_quantised_unit_vectors_are_never_called_damaged(seed, n_bands, power):
    rng = np.random.default_rng(seed)
    vectors = np.zeros((64, 1, 300))
    vectors[:n_bands] = rng.normal(size=(n_bands, 1, 300))
    vectors = np.sign(vectors) * np.abs(vectors) ** power
    vectors /= np.linalg.norm(vectors, axis=0)
    assert damage_in(vectors_to_codes(vectors.astype(np.float32))) is None


def test_codes_past_what_rounding_reaches_are_damage():
    # 64 alike: 127.5^4 / 64 is 45.08^4, which lies in 44.5..45.5 and in no other interval
    assert damage_in(np.full((64, 1, 40), 45, np.int8)) is None
    for k in (44, 46):
        assert damage_in(np.full((64, 1, 40), k, np.int8)).lengths[0] == pytest.approx((k / 45.078) ** 2, abs=1e-4)
    # two components: rounding moves such a vector's length by less than 0.01
    two = np.zeros((64, 1, 40), np.int8)
    two[:2] = 108
    assert damage_in(two).lengths[0] == pytest.approx(1.0147, abs=1e-4)


def test_sound_pixels_are_never_called_damaged():
    codes = unit_codes((120, 120), seed=5, masked=0.05)
    assert np.nanmax(np.abs(lengths(codes) - 1)) > 0.004  # quantisation's own spread
    assert damage_in(codes) is None


@pytest.mark.parametrize("n_bands", [1, 2, 3, 4, 8, 16, 63])
def test_nodata_in_some_bands_only_is_damage(n_bands):
    codes = unit_codes((6, 6), seed=n_bands)
    bands = np.argsort(-np.abs(codes[:, 2, 3].astype(int)))[:n_bands]  # those that weigh most
    codes[bands, 2, 3] = -128
    found = damage_in(codes)
    assert found.positions.tolist() == found.incomplete.tolist() == [15]
    assert np.isnan(found.lengths).all()


def test_data_in_one_band_of_a_masked_pixel_is_damage_and_the_band_is_named():
    codes = unit_codes((6, 6))
    codes[:, 1:3] = -128
    codes[33, 2, 2:5] = 4
    found = damage_in(codes)
    assert found.positions.tolist() == [14, 15, 16]
    assert found.band == 33
    assert found.n_checked == 36 - 12 + 3


def test_damage_outside_every_polygon_is_nobodys():
    codes = unit_codes((6, 40))
    codes[17, 3, 20] = 127
    assert damage_in(codes, shapely.box(0, 0, 20, 6)) is None
    assert damage_in(codes, shapely.box(0, 0, 20.01, 6)).positions.tolist() == [140]


@pytest.mark.parametrize("length", [0.0, 0.3, 0.97, 1.03, 2.0, 2.2494, 2.25, 2.2506, 3.0, 3.02, 4.0])
def test_vectors_of_any_wrong_length_are_found(length):
    # sixteen bits hold lengths up to 2.0 without wrapping: 2.25 could pass for 1, and 3.02 too
    low = int(127.5 * np.sqrt(length / 8))
    share = (length**2 * 127.5**4 / 64 - low**4) / ((low + 1) ** 4 - low**4)
    codes = np.full((64, 1, 40), low, np.int8)
    codes[: round(64 * share)] = low + 1
    assert lengths(codes)[0, 0] == pytest.approx(length, abs=0.002)
    assert len(damage_in(codes).positions) == 40


def test_a_reading_that_differs_is_not_the_same():
    codes = unit_codes((6, 6))
    codes[17, 3, 3] = 127
    other = codes.copy()
    other[40, 1, 1] += 1
    clipped = clip_to_block(lattice_coverage([shapely.box(0, 0, 6, 6)]), Window(0, 0, 6, 6))
    one, two = (BlockReducer(64).reduce(Planes(some), clipped, check_lengths=True) for some in (codes, other))
    assert one.same_as(one)
    assert not one.same_as(two)
    outside = codes.copy()
    outside[:, 5, 5] = 3  # no polygon touches it
    inner = clip_to_block(lattice_coverage([shapely.box(0, 0, 5, 5)]), Window(0, 0, 6, 6))
    one, two = (BlockReducer(64).reduce(Planes(some), inner, check_lengths=True) for some in (codes, outside))
    assert one.same_as(two)
