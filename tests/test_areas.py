"""Areas of lon/lat pixels against pyproj's geodesics; weights by area against Python's own integers, bit for bit."""

from fractions import Fraction

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import any_polygons, lattice_coverage, unit_codes

from gee_polygons.zonal.areas import AREA_ONE, row_areas, weigh
from gee_polygons.zonal.clipping import clip_to_block
from gee_polygons.zonal.coverage import FULL
from gee_polygons.zonal.grid import Lattice, Window
from gee_polygons.zonal.kernels import PADDING
from gee_polygons.zonal.partials import CODE_SCALE, FLOAT_SCALE
from gee_polygons.zonal.reduce import BlockReducer
from gee_polygons.zonal.statistics import Needs, quantiles

STEP = 8.983111749910169e-05
FINE = Lattice("EPSG:4326", STEP, STEP, 0.1, -0.3)
TENTH = Lattice("EPSG:4326", 0.1, 0.1)


def geodesic_area(south, north, width):
    """Area in m2 of a strip between two parallels, each of many short geodesics."""
    lon = np.linspace(0, width, 200)
    area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(
        np.concatenate([lon, lon[::-1]]), np.concatenate([np.full(200, south), np.full(200, north)])
    )
    return abs(area)


@pytest.mark.parametrize("row", [-830, -600, -300, -1, 0, 1, 450, 899])
def test_areas_are_those_of_the_ellipsoid(row):
    found = row_areas(TENTH, row, 1)[0] / AREA_ONE
    assert found == pytest.approx(
        geodesic_area(-0.1 * (row + 1), -0.1 * row, 0.1) / geodesic_area(-0.05, 0.05, 0.1), rel=2e-6, abs=1.5e-8
    )


def test_areas_of_small_pixels_are_the_derivative():
    # the product of the two radii of curvature and the cosine
    latitude = np.radians(-(np.array([-900_000, -600_000, 1000, 800_000]) + 0.5 - 0.3) * STEP)
    e2 = pyproj.CRS(4326).get_geod().es
    wanted = np.cos(latitude) / (1 - e2 * np.sin(latitude) ** 2) ** 2
    found = [row_areas(FINE, row, 1)[0] / AREA_ONE for row in (-900_000, -600_000, 1000, 800_000)]
    assert found == pytest.approx(wanted.tolist(), abs=1.5 / AREA_ONE)


def test_an_area_doesn_t_depend_on_the_block():
    whole = row_areas(FINE, -500_000, 300)
    assert np.array_equal(whole[120:150], row_areas(FINE, -499_880, 30))
    assert (np.diff(whole) > 0).all()  # southwards, in the north
    assert np.array_equal(row_areas(TENTH, -500, 500), row_areas(TENTH, 0, 500)[::-1])  # the hemispheres are alike
    assert row_areas(TENTH, -1000, 50).max() == 0  # beyond the pole there is nothing
    sphere = Lattice("+proj=longlat +R=6371000 +type=crs", 0.1, 0.1)
    assert row_areas(sphere, -600, 1)[0] / AREA_ONE == pytest.approx(np.cos(np.radians(59.95)), abs=1e-7)


# --- sums


def as_planes(codes):
    return np.concatenate([codes.reshape(len(codes), -1), np.full((len(codes), PADDING), 77, codes.dtype)], axis=1)


class Planes:
    """A block whose planes are there already."""

    n_parts = 1

    def __init__(self, codes):
        self.planes = as_planes(codes)

    def part_bands(self, part):
        return range(len(self.planes))

    def decode(self, part, scratch=None):
        return self.planes.copy()


def weights_of(coverage, polygon, window, lattice):
    """Return integer weights by area of a window's pixels, worked out pixel by pixel."""
    areas = row_areas(lattice, window.row, window.height)
    whole = np.rint(coverage.rasterize(polygon, window) * FULL).astype(int)
    found = np.zeros(whole.shape, object)
    for row, col in np.argwhere(whole):
        w, area = int(whole[row, col]), int(areas[row])
        found[row, col] = area if w == FULL else max((w * area + FULL // 2) // FULL, 1)
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.lists(any_polygons, min_size=1, max_size=3), st.integers(0, 10), st.sampled_from([False, True]),
    st.sampled_from([False, True]), st.integers(-800, 800),
)  # fmt: skip
def test_sums_are_those_of_plain_integers(polygons, split, flip_y, floats, latitude):
    """Any polygons, in one block or two: every sum is the exact sum of integer weights."""
    lattice = TENTH
    polygons = [shapely.transform(p, lambda xy: xy + np.array([0, latitude])) for p in polygons]
    coverage = lattice_coverage(polygons)
    window = Window(latitude, 0, 10, 10)
    codes = unit_codes((10, 10), seed=3, masked=0.1)[:2]
    values = np.where(codes == -128, np.nan, codes / 128).astype(np.float32) if floats else codes
    needs = Needs() if floats else Needs(squares=True, quantiles=(0.5,))
    total = None
    for first, stop in ((0, split), (split, 10)):
        if first == stop:
            continue
        part = Window(window.row + first, 0, stop - first, 10)
        inside = weigh(clip_to_block(coverage, part, flip_y=flip_y), lattice, part, flip_y=flip_y)
        stored = np.ascontiguousarray(values[:, first:stop][:, :: -1 if flip_y else 1])
        alone = np.zeros(len(polygons), bool)
        reduced = BlockReducer(2, needs).reduce(Planes(stored), inside, alone=alone)
        if total is None:
            total, histograms = reduced.partials, reduced.histograms
        else:
            total.add(reduced.partials, np.arange(len(polygons)))
            histograms = histograms + reduced.histograms
    for i in range(len(polygons)):
        weights = weights_of(coverage, i, window, lattice)
        valid = codes[0] != -128
        area = sum(int(w) for w in weights[valid])
        assert total["area_full"][i] * FULL + total["area_edge"][i] == area
        pixels = (np.rint(coverage.rasterize(i, window) * FULL).astype(int) * valid).sum()
        assert total["pixels_full"][i] * FULL + total["pixels_edge"][i] == pixels
        for band in range(2):
            k = codes[band].astype(int)
            scaled = np.rint(values[band].astype(float) * 2**30) if floats else k * abs(k)
            wanted = sum(int(w) * int(v) for w, v in zip(weights[valid], scaled[valid], strict=True))
            assert total["sum_full"][i, band] * FULL + total["sum_edge"][i, band] == wanted
            if area:
                scale = Fraction(FLOAT_SCALE) if floats else Fraction(CODE_SCALE)
                mean = total.means(FLOAT_SCALE if floats else CODE_SCALE)[i, band]
                assert mean == pytest.approx(float(Fraction(wanted, area) / scale), rel=1e-12, abs=1e-15)
            if not floats:
                wanted = sum(int(w) * int(v) ** 4 for w, v in zip(weights[valid], k[valid], strict=True))
                assert total["square_full"][i, band] * FULL + total["square_edge"][i, band] == wanted
                bins = np.zeros(256, np.int64)
                np.add.at(bins, k[valid] + 128, weights[valid].astype(np.int64))
                assert np.array_equal(histograms[i, band], bins)


def test_large_sums_don_t_overflow():
    # a row of 4096 of the largest codes, in 4096 rows at the equator: k^4 w is 2^28 2^12 2^12 2^26
    size = 4096
    lattice = Lattice("EPSG:4326", 1e-4, 1e-4)
    window = Window(-size // 2, 0, size, size)
    coverage = lattice_coverage([shapely.box(-10, window.row - 10, size + 10, window.row_stop + 10)])
    inside = weigh(clip_to_block(coverage, window), lattice, window)
    areas = row_areas(lattice, window.row, size)
    plane = np.full((1, size, size), -127, np.int8)
    found = BlockReducer(1, Needs(squares=True, quantiles=(0.5,))).reduce(Planes(plane), inside).partials
    area = sum(int(a) for a in areas) * size
    assert int(found["area_full"][0]) * FULL + int(found["area_edge"][0]) == area
    assert int(found["sum_full"][0, 0]) * FULL + int(found["sum_edge"][0, 0]) == -area * 127**2
    assert int(found["square_full"][0, 0]) * FULL + int(found["square_edge"][0, 0]) == area * 127**4


def test_quantiles_of_very_large_weights_are_those_of_smaller_ones():
    weights = np.zeros((2, 256), np.int64)
    weights[0, [1, 100, 130, 255]] = np.array([3, 5, 7, 11])
    weights[1] = weights[0] * 2**58  # a million square kilometres
    few, many = quantiles(weights, [0.1, 0.25, 0.5, 0.9])
    assert many == pytest.approx(few, abs=1e-12)
