"""Grids and the lattice: one canonical frame for both row orders. Projection: straight edges, and where they bend."""

import itertools

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gee_polygons.errors import CrsError, GeePolygonsError, SiteError, TileError
from gee_polygons.zonal.coverage import FULL, compute_coverage
from gee_polygons.zonal.grid import Grid, Lattice, Window
from gee_polygons.zonal.projection import MAX_DEVIATION_PX, project_to_lattice

UTM16 = "EPSG:32616"
LATTICE = Lattice(UTM16, 10.0, 10.0)


def grid(transform, shape=(4, 6), crs=UTM16):
    return Grid(crs=crs, transform=transform, shape=shape)


# --- row order


def test_both_row_orders_of_the_published_window_by_hand():
    north_up = grid((10, 0, 358410, 0, -10, 4906600), (97, 97))
    south_up = grid((10, 0, 358410, 0, 10, 4905630), (97, 97))
    assert north_up.lattice == south_up.lattice == LATTICE
    assert north_up.window == south_up.window == Window(-490660, 35841, 97, 97)
    assert (north_up.flip_y, south_up.flip_y) == (False, True)
    assert north_up.bounds == south_up.bounds == (358410, 4905630, 359380, 4906600)


steps = st.sampled_from([10.0, 30.0, 5.0, 0.5, 2.0**-12, 1000.0])


@settings(deadline=None)
@given(steps, st.integers(-(2**20), 2**20), st.integers(-(2**20), 2**20), st.integers(-16, 16), st.integers(-16, 16),
       st.integers(1, 9000), st.integers(1, 9000))  # fmt: skip
def test_the_four_orders_of_the_same_pixels_share_lattice_and_window(step, col, row, dx, dy, height, width):
    west, north = (col + dx / 32) * step, -(row + dy / 32) * step
    east, south = west + width * step, north - height * step
    orders = [(a, e) for a in (1, -1) for e in (1, -1)]
    grids = [
        grid((a * step, 0, west if a > 0 else east, 0, e * step, south if e > 0 else north), (height, width))
        for a, e in orders
    ]
    assert len({g.lattice for g in grids}) == 1
    assert len({g.window for g in grids}) == 1
    assert [(not g.flip_x, g.flip_y) for g in grids] == [(a > 0, e > 0) for a, e in orders]
    lattice, window = grids[0].lattice, grids[0].window
    assert window.height == height
    assert window.width == width
    assert lattice.grid(window).bounds == pytest.approx(grids[0].bounds, abs=step * 1e-9)
    assert -0.5 <= lattice.phase_x < 0.5
    assert -0.5 <= lattice.phase_y < 0.5


@given(st.integers(-(2**20), 2**20), st.integers(-(2**20), 2**20), st.integers(-16, 16), st.integers(1, 500))
@example(80_000, -750_000, 16, 1)
@example(80_000, -750_000, -16, 45)
def test_tiles_that_abut_or_overlap_share_a_lattice_at_any_phase(col, row, phase, shift):
    # half a pixel off the multiples of the step is common: centres, not edges, on round numbers
    west, north = (col + phase / 32) * 10.0, (row + phase / 32) * 10.0
    one, other = grid((10, 0, west, 0, -10, north)), grid((10, 0, west + shift * 10, 0, -10, north - shift * 10))
    assert one.lattice == other.lattice
    assert (other.window.row - one.window.row, other.window.col - one.window.col) == (shift, shift)


def test_another_phase_step_or_crs_is_another_lattice():
    base = grid((10, 0, 500000, 0, -10, 4000000)).lattice
    assert grid((10, 0, 500001, 0, -10, 4000000)).lattice != base
    assert grid((10, 0, 500000, 0, -10, 4000005)).lattice != base
    assert grid((20, 0, 500000, 0, -20, 4000000)).lattice != base
    assert grid((10, 0, 500000, 0, -10, 4000000), crs="EPSG:32617").lattice != base


# --- parts of a file


@given(st.sampled_from([10, -10]), st.sampled_from([10, -10]), st.integers(0, 3), st.integers(0, 5), st.integers(1, 3))
def test_a_part_lies_where_its_pixels_do(a, e, row, col, size):
    whole = grid((a, 0, 500000, 0, e, 4000000), (7, 9))
    part = whole.part(row, col, size, size)
    x = sorted(500000 + a * c for c in (col, col + size))
    y = sorted(4000000 + e * r for r in (row, row + size))
    assert whole.lattice.grid(part).bounds == (x[0], y[0], x[1], y[1])


@pytest.mark.parametrize("e", [10, -10])
def test_blocks_of_a_file_tile_it_and_padding_sticks_out_on_the_far_side(e):
    whole = grid((10, 0, 500000, 0, e, 4000000), (7, 9))
    parts = [whole.part(r, c, 4, 4) for r in (0, 4) for c in (0, 4, 8)]
    insides = [part.intersection(whole.window) for part in parts]
    assert sum(w.height * w.width for w in insides) == 63
    assert sum(a.intersection(b) is not None for a in insides for b in insides) == 6
    # the file's last rows are north of the others in a south-up file
    assert parts[3].row == (whole.window.row - 1 if e > 0 else whole.window.row + 4)


def test_intersections_of_windows():
    window = Window(-3, 2, 5, 4)
    assert (window.row_stop, window.col_stop) == (2, 6)
    assert window.intersection(Window(0, 4, 9, 9)) == Window(0, 4, 2, 2)
    assert window.intersection(Window(2, 2, 5, 5)) is None
    assert window.intersection(Window(-3, 6, 5, 5)) is None
    assert window.intersection(window) == window


# --- what is refused


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ((10, 0.1, 0, 0, -10, 0), "rotated"),
        ((10, 0, 0, 3, -10, 0), "rotated"),
        ((0, 0, 0, 0, -10, 0), "affine"),
        ((10, 0, 0, 0, 0, 0), "affine"),
        ((10, 0, np.nan, 0, -10, 0), "affine"),
        ((10, 0, np.inf, 0, -10, 0), "affine"),
        ((np.inf, 0, 0, 0, -10, 0), "affine"),
    ],
)
def test_transforms_that_are_no_grid_are_refused(transform, words):
    with pytest.raises(TileError, match=words):
        grid(transform)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_grid_is_refused(shape):
    with pytest.raises(TileError, match="at least one row"):
        grid((10, 0, 0, 0, -10, 0), shape)


# --- projection


def to_pixels(lonlat, lattice):
    x, y = pyproj.Transformer.from_crs("EPSG:4326", lattice.crs, always_xy=True).transform(*np.asarray(lonlat).T)
    return np.column_stack([x / lattice.step_x, -y / lattice.step_y])


def project(polygon, lattice=LATTICE):
    return project_to_lattice(np.array([polygon], object), lattice)


def worst_deviation(polygon, lattice):
    """How far the projected outline is from the polygon's own straight lines in EPSG:4326, in pixels."""
    rings = project(polygon, lattice)
    worst = 0.0
    for n, ring in enumerate([polygon.exterior, *polygon.interiors]):
        found = shapely.LineString(rings.coords[rings.ring_offsets[n] : rings.ring_offsets[n + 1]])
        corners = np.asarray(ring.coords)
        share = np.linspace(0, 1, 301)[:, None]
        for a, b in itertools.pairwise(corners):
            points = shapely.points(to_pixels(a * (1 - share) + b * share, lattice))
            worst = max(worst, shapely.distance(found, points).max())
    return worst


LONG = {
    "a degree": shapely.box(-88.0, 44.0, -87.0, 45.0),
    "a diagonal": shapely.Polygon([(-89.5, 43.1), (-84.9, 46.7), (-86.0, 42.2)]),
    "far north": shapely.Polygon([(-89.9, 70.0), (-84.2, 70.0), (-86.0, 72.0)]),
    "across the equator, bending both ways": shapely.Polygon([(-87.5, -0.5), (-86.5, 0.5), (-86.5, -0.5)]),
    "across the equator, long": shapely.Polygon([(-89.0, -2.0), (-85.0, 2.0), (-85.0, -2.0)]),
    "just long enough": shapely.Polygon([(-89.99, 60.0), (-89.95, 60.02), (-89.96, 59.98)]),
    "with a hole": shapely.box(-88, 30, -86, 32).difference(shapely.box(-87.5, 30.5, -86.5, 31.5)),
    "beyond the zone": shapely.box(-93.5, 50.0, -89.0, 51.0),
}


@pytest.mark.parametrize("name", LONG)
def test_long_edges_follow_their_line_in_degrees_to_a_hundredth_of_a_pixel(name):
    assert worst_deviation(LONG[name], LATTICE) <= MAX_DEVIATION_PX * 1.01
    assert len(project(LONG[name]).coords) < 3_000  # and not by brute force


@pytest.mark.parametrize("step", [1.0, 30.0, 100.0, 1000.0])
def test_the_limit_holds_for_other_pixel_sizes(step):
    lattice = Lattice(UTM16, step, step)
    # edges of 89 pixels: of the length that passes unmeasured at 10 m
    side = 89 * step / 111_000
    polygon = shapely.Polygon([(-89.9, 60), (-89.9 + 2 * side, 60), (-89.9 + 2 * side, 60 + side)])
    assert worst_deviation(polygon, lattice) <= MAX_DEVIATION_PX * 1.01


@settings(deadline=None, max_examples=30)
@given(st.floats(-90, -84), st.floats(-80, 83), st.floats(0.02, 3), st.floats(0, 2 * np.pi))
def test_any_long_edge_stays_within_the_limit(lon, lat, length, angle):
    corner = np.array([lon, lat])
    a = corner + length * np.array([np.cos(angle), np.sin(angle) / 2])
    b = corner + length * np.array([-np.sin(angle), np.cos(angle) / 2])
    assert worst_deviation(shapely.Polygon([corner, a, b]), LATTICE) <= MAX_DEVIATION_PX * 1.01


def test_short_edges_are_left_alone():
    field = shapely.Polygon([(-88.8, 44.3), (-88.795, 44.3), (-88.794, 44.306), (-88.801, 44.304)])
    rings = project(field)
    assert len(rings.coords) == 5
    assert np.array_equal(rings.coords, to_pixels(np.asarray(field.exterior.coords), LATTICE))


def test_in_its_own_crs_nothing_is_projected_or_cut():
    square = shapely.box(358410, 4905630, 458410, 5005630)
    rings = project_to_lattice(np.array([square], object), LATTICE, crs=UTM16)
    assert len(rings.coords) == 5
    assert sorted(set(rings.coords[:, 0].tolist())) == [35841.0, 45841.0]
    assert sorted(set(rings.coords[:, 1].tolist())) == [-500563.0, -490563.0]


def test_neighbours_long_border_is_cut_alike_whichever_way_it_is_walked():
    west, east = shapely.box(-88.0, 44.0, -87.0, 45.0), shapely.box(-87.0, 44.0, -86.0, 45.0)
    both = shapely.Polygon([(-88, 44), (-87, 44), (-86, 44), (-86, 45), (-87, 45), (-88, 45)])
    coverage = compute_coverage(project_to_lattice(np.array([west, east, both], object), LATTICE))
    weights = coverage.weights / FULL
    assert weights[0] + weights[1] == pytest.approx(weights[2], rel=1e-10)
    # and the area is that on the ellipsoid, but for the zone's scale of 0.9996 or so, squared
    true = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shapely.segmentize(both, 0.01))[0])
    assert weights[2] * 100 == pytest.approx(true, rel=1e-3)


def test_offsets_of_rings_and_polygons_survive_the_cutting():
    multi = shapely.MultiPolygon([shapely.box(-88, 44, -87.9, 44.1), LONG["with a hole"]])
    polygons = np.array([LONG["a degree"], multi, shapely.box(-88, 44, -87.999, 44.001)], object)
    rings = project_to_lattice(polygons, LATTICE)
    assert len(rings) == 3
    assert np.diff(rings.polygon_offsets).tolist() == [1, 3, 1]
    assert rings.is_hole.tolist() == [False, False, False, True, False]
    for first, stop in zip(rings.ring_offsets[:-1], rings.ring_offsets[1:], strict=True):
        assert np.array_equal(rings.coords[first], rings.coords[stop - 1])  # still closed
    taken = rings.take(np.array([2, 1]))
    assert np.diff(taken.polygon_offsets).tolist() == [1, 3]
    assert taken.bounds().tolist() == rings.bounds()[[2, 1]].tolist()


with np.errstate(invalid="ignore"):
    _NAN = shapely.Polygon([(-88, 44), (-87, np.nan), (-87, 45)])
IMPOSSIBLE = {
    "beyond the pole, short": shapely.Polygon([(-88, 91), (-87.999, 91), (-87.999, 91.001)]),
    "one vertex beyond the pole": shapely.Polygon([(-88, 44), (-87, 44), (-87, 100)]),
    "two vertices beyond the pole": shapely.Polygon([(-88, 95), (-87, 95), (-87, 44)]),
    "metres taken for degrees": shapely.box(358410, 4905630, 358510, 4905730),
    "huge": shapely.Polygon([(-88, 44), (-87, 44), (-87, 1e300)]),
    "not a number": _NAN,
    "the whole Earth": shapely.box(-179, -89, 179, 89),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_projected_is_one_clear_line(name):
    fine = shapely.box(-88, 44, -87.99, 44.01)
    with pytest.raises(SiteError, match=r"polygon 1: vertex .* can't be projected to EPSG:32616") as error:
        project_to_lattice(np.array([fine, IMPOSSIBLE[name]], object), LATTICE)
    assert "\n" not in str(error.value)


def test_a_crs_that_does_not_exist_is_one_clear_line():
    with pytest.raises(CrsError, match="EPSG:99999") as error:
        project(shapely.box(0, 0, 1, 1), Lattice("EPSG:99999", 10, 10))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("geometry", [shapely.Point(-88, 44), shapely.LineString([(-88, 44), (-87, 45)])])
def test_only_polygons_are_projected(geometry):
    with pytest.raises(GeePolygonsError, match="must be polygons, found"):
        project(geometry)
