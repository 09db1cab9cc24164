"""Coverage of polygons: hand-computed tables, shapely and exactextract as oracles, and what must hold for any polygon.

Tolerances: a weight is an integer multiple of 2^-24, so half of that from the true fraction (plus 1e-12 for shapely's
own rounding); a fraction below 1e-6 is 0. Exactextract keeps fractions in single precision: 1e-6.
"""

import resource
import subprocess
import sys
import time

import hypothesis
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import (
    LEAST,
    PIXELS,
    UTM,
    any_polygons,
    dyadic_polygons,
    exactextract_coverage,
    lattice_coverage,
    polygonal,
    quarter_polygons,
    shapely_coverage,
    star,
    window_of,
)

from gee_polygons.zonal.clipping import clip_to_block
from gee_polygons.zonal.coverage import FULL, compute_coverage
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.projection import project_to_lattice

UNIT = 2.0**-24
HALF = UNIT / 2 + 1e-12

quick = settings(max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))


def weights_of(coverage, polygon, window):
    """Weights in 2^-24 pixels, dense."""
    return np.rint(coverage.rasterize(polygon, window) * FULL).astype(np.int64)


def assert_is_coverage(found, true):
    """`found` is `true` rounded to 2^-24, or 0 where `true` is below 1e-6."""
    near_least = np.abs(true - LEAST) < 1e-12
    kept = true >= LEAST
    assert np.all(near_least | (found[...] == 0) | kept)
    assert np.all(near_least | ~kept | (np.abs(found - true) <= HALF))


# --- by hand


def test_a_box_over_half_pixels():
    found = lattice_coverage([shapely.box(0.5, 0.5, 2.5, 2.5)]).rasterize(0, Window(0, 0, 3, 3))
    assert found.tolist() == [[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]


def test_a_triangle_through_pixel_corners():
    found = lattice_coverage([shapely.Polygon([(0, 0), (3, 0), (0, 3)])]).rasterize(0, Window(0, 0, 3, 3))
    assert found.tolist() == [[1.0, 1.0, 0.5], [1.0, 0.5, 0.0], [0.5, 0.0, 0.0]]


def test_a_diamond():
    found = lattice_coverage([shapely.Polygon([(1.5, 0), (3, 1.5), (1.5, 3), (0, 1.5)])])
    assert found.rasterize(0, Window(0, 0, 3, 3)).tolist() == [
        [0.125, 0.75, 0.125],
        [0.75, 1.0, 0.75],
        [0.125, 0.75, 0.125],
    ]


def test_a_steep_and_a_flat_triangle():
    # area under y = x / 4 in columns 0..3, rows 0: trapezoids
    flat = lattice_coverage([shapely.Polygon([(0, 1), (4, 1), (4, 0)])]).rasterize(0, Window(0, 0, 1, 4))
    assert flat.tolist() == [[0.125, 0.375, 0.625, 0.875]]
    steep = lattice_coverage([shapely.Polygon([(1, 0), (1, 4), (0, 4)])]).rasterize(0, Window(0, 0, 4, 1))
    assert steep.ravel().tolist() == [0.125, 0.375, 0.625, 0.875]


def test_a_hole_and_a_hole_inside_one_pixel():
    ring = shapely.box(0, 0, 3, 3).difference(shapely.box(1, 1, 2, 2))
    assert lattice_coverage([ring]).rasterize(0, Window(0, 0, 3, 3)).tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    pierced = shapely.box(0, 0, 3, 3).difference(shapely.box(1.25, 1.25, 1.75, 1.75))
    assert lattice_coverage([pierced]).rasterize(0, Window(1, 1, 1, 1)).tolist() == [[0.75]]


def test_parts_of_a_multipolygon_add_up_in_one_pixel():
    parts = shapely.MultiPolygon([shapely.box(0, 0, 0.25, 1), shapely.box(0.5, 0, 1, 0.5)])
    assert lattice_coverage([parts]).rasterize(0, Window(0, 0, 1, 1)).tolist() == [[0.5]]


def test_an_island_in_a_hole():
    lake = shapely.box(0, 0, 5, 5).difference(shapely.box(1, 1, 4, 4)).union(shapely.box(2, 2, 3, 3))
    assert lattice_coverage([lake]).rasterize(0, Window(2, 0, 1, 5)).tolist() == [[1, 0, 1, 0, 1]]


def test_a_polygon_inside_one_pixel():
    coverage = lattice_coverage([shapely.box(7.25, -2.75, 7.75, -2.25)])
    assert len(coverage.runs) == 0
    assert coverage.edges.tolist() == [[-3, 7, FULL // 4]]


def test_whole_pixels_are_one_run_a_row_and_no_edge():
    coverage = lattice_coverage([shapely.box(2, 3, 60, 5)])
    assert coverage.runs.tolist() == [[3, 2, 58], [4, 2, 58]]
    assert len(coverage.edges) == 0


def test_a_shared_pixel_side_covers_nothing_beyond_it():
    coverage = lattice_coverage([shapely.Polygon([(1, 1), (4, 1), (4, 2), (2, 2), (2, 4), (1, 4)])])
    assert coverage.runs.tolist() == [[1, 1, 3], [2, 1, 1], [3, 1, 1]]
    assert len(coverage.edges) == 0


def test_fractions_below_1e_6_are_nothing_and_those_above_stay():
    coverage = lattice_coverage([shapely.box(0, 0, 1 + 0.9e-6, 1), shapely.box(0, 0, 1 + 1.1e-6, 1)])
    assert np.diff(coverage.edge_offsets).tolist() == [0, 1]
    assert coverage.edges.tolist() == [[0, 1, round(1.1e-6 * FULL)]]


def test_many_polygons_keep_their_own():
    boxes = [shapely.box(i, i, i + 2, i + 1.5) for i in range(20)]
    together = lattice_coverage(boxes)
    assert len(together) == 20
    for i, box in enumerate(boxes):
        window = Window(0, 0, 25, 25)
        assert np.array_equal(together.rasterize(i, window), lattice_coverage([box]).rasterize(0, window))


# --- against shapely and exactextract


@quick
@given(any_polygons)
def test_random_polygons_against_shapely(polygon):
    window = window_of(polygon)
    assert_is_coverage(lattice_coverage([polygon]).rasterize(0, window), shapely_coverage(polygon, window))


@quick
@given(quarter_polygons)
def test_vertices_on_pixel_sides_and_corners_against_shapely(polygon):
    window = window_of(polygon)
    assert_is_coverage(lattice_coverage([polygon]).rasterize(0, window), shapely_coverage(polygon, window))


@quick
@given(st.integers(0, 2**32), st.floats(0.05, 60), st.integers(3, 80), st.booleans(), st.floats(0, 1), st.floats(0, 1))
def test_jagged_polygons_against_exactextract(seed, radius, n, hole, dx, dy):
    polygon = star(seed, (70 + dx, -70 - dy), radius, n, hole)
    grid = PIXELS.grid(Window(0, 0, 140, 140))
    found = compute_coverage(project_to_lattice(np.array([polygon], object), PIXELS, crs=UTM))
    true = exactextract_coverage(polygon, grid)
    assert np.abs(found.rasterize(0, Window(0, 0, 140, 140)) - true).max() <= 1e-6


@quick
@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 2 * np.pi), st.floats(1, 30), st.floats(-9, -1))
def test_slivers_against_shapely(x, y, angle, length, exponent):
    along = np.array([np.cos(angle), np.sin(angle)]) * length
    across = np.array([-np.sin(angle), np.cos(angle)]) * 10.0**exponent
    corners = np.array([x, y]) + np.array([0 * along, along, along + across, across])
    sliver = shapely.Polygon(corners)
    hypothesis.assume(sliver.is_valid and sliver.area > 0)
    window = window_of(sliver)
    coverage = lattice_coverage([sliver])
    found, true = coverage.rasterize(0, window), shapely_coverage(sliver, window)
    if true.max() > 1.001 * LEAST:
        assert_is_coverage(found, true)
    else:
        # thinner than 1e-6 of every pixel: what it touches stays, with the least weight, and nothing else
        assert coverage.weights[0] > 0
        rows, cols = np.nonzero(found)
        pixels = shapely.box(
            *np.array([window.col + cols, window.row + rows, window.col + cols + 1, window.row + rows + 1])
        )
        assert np.all(shapely.distance(pixels, sliver) < 1e-9)
        assert found.max() <= 20 * UNIT


@pytest.mark.parametrize("thickness", [1e-7, 1e-9, 1e-11])
def test_a_sliver_thinner_than_1e_6_keeps_the_pixels_it_touches(thickness):
    sliver = shapely.Polygon([(0.5, 0.5), (9.5, 0.5), (9.5, 0.5 + thickness), (0.5, 0.5 + thickness)])
    coverage = lattice_coverage([sliver])
    assert coverage.edges[:, 1].tolist() == list(range(10))
    assert set(coverage.edges[:, 0].tolist()) == {0}
    assert coverage.edges[:, 2].min() >= 1


def test_far_from_the_origin_a_sliver_touches_no_other_pixel():
    x, y = 80_360.3, -752_600.4
    sliver = shapely.Polygon([(x, y), (x + 40, y + 30), (x + 40, y + 30 + 1e-8), (x, y + 1e-8)])
    coverage = lattice_coverage([sliver])
    pixels = shapely.box(coverage.edges[:, 1], coverage.edges[:, 0], coverage.edges[:, 1] + 1, coverage.edges[:, 0] + 1)
    assert len(pixels) >= 70
    assert np.all(shapely.distance(pixels, sliver) < 1e-9)
    assert len(coverage.runs) == 0


@pytest.mark.parametrize(
    "points",
    [
        [(1, 1), (5, 1), (3, 1)],  # a line along a pixel side
        [(1.5, 0.2), (1.5, 9.7), (1.5, 4)],  # a line up
        [(0.1, 0.1), (3.1, 3.1), (2.1, 2.1)],
        [(2, 2), (2, 2), (2, 2)],  # a point
    ],
)
def test_a_polygon_without_area_covers_nothing(points):
    coverage = lattice_coverage([shapely.Polygon(points)])
    assert coverage.weights.tolist() == [0]


def test_no_polygons_at_all():
    coverage = compute_coverage(project_to_lattice(np.array([], object), PIXELS, crs=UTM))
    assert len(coverage) == 0
    assert len(coverage.weights) == 0


# --- what must hold for any polygon


@quick
@given(any_polygons)
def test_the_sum_of_weights_is_the_area(polygon):
    coverage = lattice_coverage([polygon])
    area = coverage.weights[0] / FULL
    hidden = LEAST * (len(shapely.get_coordinates(polygon)) * 22)  # pixels along the outline, at most, below 1e-6
    assert abs(area - polygon.area) <= len(coverage.edges) * HALF + hidden
    assert area == pytest.approx(coverage.rasterize(0, window_of(polygon)).sum(), abs=1e-12)


@quick
@given(any_polygons)
def test_runs_and_edges_are_ordered_and_no_pixel_comes_twice(polygon):
    coverage = lattice_coverage([polygon])
    seen = [(int(r), int(c)) for r, col, n in coverage.runs for c in range(col, col + n)]
    seen += [(int(r), int(c)) for r, c, _ in coverage.edges]
    assert len(seen) == len(set(seen))
    assert np.all(np.diff(coverage.runs[:, 0] * 1000 + coverage.runs[:, 1]) > 0)
    assert np.all(np.diff(coverage.edges[:, 0] * 1000 + coverage.edges[:, 1]) > 0)
    assert np.all(coverage.runs[:, 2] > 0)
    assert np.all((coverage.edges[:, 2] > 0) & (coverage.edges[:, 2] < FULL))
    # a run is as long as it can be
    ends = {(int(r), int(c + n)) for r, c, n in coverage.runs}
    assert not ends & {(int(r), int(c)) for r, c, _ in coverage.runs}


@quick
@given(dyadic_polygons, st.integers(-900_000, 900_000), st.integers(-900_000, 900_000))
def test_a_shift_by_whole_pixels_shifts_the_coverage_exactly(polygon, rows, cols):
    here = lattice_coverage([polygon])
    there = lattice_coverage([shapely.transform(polygon, lambda xy: xy + np.array([cols, rows]))])
    shift = np.array([rows, cols, 0])
    assert np.array_equal(here.runs + shift, there.runs)
    assert np.array_equal(here.edges + shift, there.edges)


@quick
@given(any_polygons, st.integers(0, 20), st.booleans())
def test_ring_direction_and_first_vertex_do_not_matter(polygon, start, reverse):
    def turned(coords):
        ring = np.roll(np.asarray(coords)[:-1], start, axis=0)
        return ring[::-1] if reverse else ring

    parts = [
        shapely.Polygon(turned(part.exterior.coords), [turned(hole.coords) for hole in part.interiors])
        for part in shapely.get_parts(polygon)
    ]
    window = window_of(polygon)
    one = weights_of(lattice_coverage([polygon]), 0, window)
    other = weights_of(lattice_coverage([shapely.MultiPolygon(parts)]), 0, window)
    # the sums' last bit may differ: one unit, or on this and that side of 1e-6
    assert np.all((np.abs(one - other) <= 1) | (np.maximum(one, other) <= 1.01 * LEAST * FULL))


@quick
@given(st.integers(0, 2**32), st.integers(3, 25))
def test_a_partition_sums_to_the_whole(seed, n):
    rng = np.random.default_rng(seed)
    square = shapely.box(0.3, 0.6, 11.1, 9.4)
    points = shapely.MultiPoint(rng.uniform(0, 12, (n, 2)))
    cells = [
        polygonal(square.intersection(cell))
        for cell in shapely.get_parts(shapely.voronoi_polygons(points, extend_to=square))
    ]
    cells = [cell for cell in cells if cell is not None]
    window = window_of(square)
    coverage = lattice_coverage([*cells, square])
    parts = sum(weights_of(coverage, i, window) for i in range(len(cells)))
    whole = weights_of(coverage, len(cells), window)
    # per pixel: each cell's rounding, and what it lost below 1e-6
    assert np.all(np.abs(parts - whole) <= len(cells) * (0.5 + LEAST * FULL))
    # in all: far less than that
    assert abs(int(parts.sum()) - int(whole.sum())) <= 1e-6 * FULL * len(cells) * 4


@quick
@given(st.lists(st.tuples(st.floats(0.1, 9.9), st.floats(3, 7)), min_size=1, max_size=6))
def test_neighbours_share_each_pixel_of_their_border(bends):
    border = [(0.0, 5.0), *sorted(bends), (10.0, 5.0)]
    north = shapely.Polygon([(0, 0), (10, 0), *border[::-1]])
    south = shapely.Polygon([*border, (10, 10), (0, 10)])
    hypothesis.assume(north.is_valid and south.is_valid)
    coverage = lattice_coverage([north, south])
    window = Window(0, 0, 10, 10)
    together = weights_of(coverage, 0, window) + weights_of(coverage, 1, window)
    # both halves are rounded, or one is below 1e-6
    assert np.all(np.abs(together - FULL) <= 1 + np.where(together < FULL, LEAST * FULL, 0))


# --- blocks


blocks = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(-5, 3), st.integers(-5, 3))


@quick
@given(any_polygons, blocks, st.booleans(), st.booleans())
def test_any_partition_into_blocks_reassembles_bit_for_bit(polygon, block, flip_y, flip_x):
    height, width, row0, col0 = block
    coverage = lattice_coverage([polygon, shapely.box(20, 20, 30, 30), polygon])
    whole = Window(row0, col0, 18, 18)
    rebuilt = np.zeros((3, 18 + height, 18 + width), np.int64)
    for row in range(row0, row0 + 18, height):
        for col in range(col0, col0 + 18, width):
            part = clip_to_block(coverage, Window(row, col, height, width), flip_y=flip_y, flip_x=flip_x)
            assert part.shape == (height, width)
            for i in range(3):
                plane = np.zeros(height * width, np.int64)
                for first, n in part.runs[part.run_offsets[i] : part.run_offsets[i + 1]]:
                    assert first // width == (first + n - 1) // width  # a run stays in its row
                    plane[first : first + n] += FULL
                rim = slice(part.edge_offsets[i], part.edge_offsets[i + 1])
                plane[part.positions[rim]] += part.weights[rim]
                stored = plane.reshape(height, width)[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
                rebuilt[i, row - row0 : row - row0 + height, col - col0 : col - col0 + width] = stored
    for i in range(3):
        assert np.array_equal(rebuilt[i, :18, :18], weights_of(coverage, i, whole))


@quick
@given(any_polygons, st.integers(0, 9), st.integers(0, 9), st.booleans(), st.booleans())
def test_padding_of_a_block_is_never_counted(polygon, height, width, flip_y, flip_x):
    stored = Window(0, 0, 12, 12)
    # a south-up file's padding lies north of its pixels
    inside = Window(12 - height - 1 if flip_y else 0, 12 - width - 1 if flip_x else 0, height + 1, width + 1)
    coverage = lattice_coverage([polygon])
    part = clip_to_block(coverage, stored, inside=inside, flip_y=flip_y, flip_x=flip_x)
    plane = np.zeros(144, np.int64)
    for first, n in part.runs:
        plane[first : first + n] += FULL
    plane[part.positions] += part.weights
    rows, cols = np.divmod(np.flatnonzero(plane), 12)
    assert np.all(rows <= height)
    assert np.all(cols <= width)
    assert plane.sum() == weights_of(coverage, 0, inside).sum()


def test_a_block_that_nothing_touches_is_empty():
    part = clip_to_block(lattice_coverage([shapely.box(0, 0, 3, 3)]), Window(3, 0, 5, 5))
    assert len(part) == 1
    assert len(part.runs) == len(part.positions) == len(part.weights) == 0


# --- big ones


def test_a_100_km_polygon_of_100_000_vertices_is_exact_and_quick():
    n, radius = 100_000, 5_000.0
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    wavy = radius * (1 + 0.002 * np.sin(40_000 * angles))
    polygon = shapely.Polygon(np.column_stack([80_000 + wavy * np.cos(angles), -750_000 + wavy * np.sin(angles)]))
    lattice_coverage([shapely.box(0, 0, 1.5, 1.5)])  # compiled by now
    start = time.perf_counter()
    coverage = lattice_coverage([polygon])
    assert time.perf_counter() - start < 5.0
    assert coverage.weights[0] / FULL == pytest.approx(polygon.area, rel=1e-9)
    assert len(coverage.runs) < 200_000
    assert len(coverage.edges) < 2_000_000


def test_a_square_of_10_000_pixels_is_exact():
    coverage = lattice_coverage([shapely.box(0.5, 0.25, 10_000.5, 10_000.25)])
    assert coverage.weights[0] == 10_000**2 * FULL
    assert len(coverage.runs) == 9_999
    assert len(coverage.edges) == 2 * 10_001 + 2 * 9_999


_MEMORY = """
import resource, sys
sys.path.insert(0, {tests!r})
import numpy as np, shapely
from oracles import lattice_coverage
from gee_polygons.zonal.coverage import FULL
lattice_coverage([shapely.box(0, 0, 1.5, 1.5)])
angles = np.linspace(0, 2 * np.pi, 100_000, endpoint=False)
polygon = shapely.Polygon(5_000 * np.column_stack([np.cos(angles), np.sin(angles)]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
coverage = lattice_coverage([polygon])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(abs(coverage.weights[0] / FULL / polygon.area - 1) < 1e-9, (after - before) * {unit})
"""


def test_a_100_km_polygon_takes_little_memory():
    unit = 1 if sys.platform == "darwin" else 1024
    code = _MEMORY.format(tests=__file__.rsplit("/", 1)[0], unit=unit)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    right, grown = done.stdout.split()
    assert right == "True"
    assert int(grown) < 60e6  # its pixels would be 100 million
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
