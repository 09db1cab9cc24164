"""UTM zones: homes of polygons, cells, and the antimeridian."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from gee_polygons.zonal.zones import cells_touched, home_zones, unwrap, zone_cell, zone_crs


@pytest.mark.parametrize(
    ("lon", "lat", "crs"),
    [
        (-180, 10, "EPSG:32601"),
        (180, 10, "EPSG:32601"),
        (179.999, -10, "EPSG:32760"),
        (-174, 0, "EPSG:32602"),  # the western meridian belongs to its zone, the equator to the north
        (-174.000001, -1e-9, "EPSG:32701"),
        (0, 51, "EPSG:32631"),
        (-88.8, 44.3, "EPSG:32616"),
        (-48.0, -22.35, "EPSG:32723"),
        (-48.000001, -22.35, "EPSG:32722"),
        (181, 5, "EPSG:32601"),
        (-181, 5, "EPSG:32660"),
    ],
)
def test_the_zone_of_a_place(lon, lat, crs):
    assert zone_crs(lon, lat) == crs


@given(st.floats(-180, 179.999999), st.floats(-80, 84))
def test_a_place_lies_in_the_cell_of_its_zone(lon, lat):
    west, south, east, north = zone_cell(zone_crs(lon, lat), lon)
    assert west - 1e-9 <= lon <= east + 1e-9
    assert south <= lat <= north
    assert (east - west, abs(north - south)) == (6.0, 90.0)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32600", "EPSG:32661", "EPSG:3857", "EPSG:5880", "OGC:CRS84", ""])
def test_another_crs_has_no_cell(crs):
    assert zone_cell(crs) is None


def test_cells_meet_at_the_antimeridian():
    west, east = zone_cell("EPSG:32660", 179.9), zone_cell("EPSG:32601", 179.9)
    assert west[2] == east[0] == 180.0
    assert zone_cell("EPSG:32601", -179.9)[0] == -180.0


@settings(deadline=None)
@given(st.floats(-180, 180), st.floats(-79, 79), st.floats(1e-3, 20), st.floats(1e-3, 10))
def test_touched_cells_tile_any_box(lon, lat, width, height):
    box = (lon, lat, lon + width, min(lat + height, 84))
    cells = cells_touched(box)
    assert len({crs for crs, _ in cells}) == len(cells)
    parts = [shapely.intersection(shapely.box(*box), shapely.box(*cell)) for _, cell in cells]
    assert sum(part.area for part in parts) == pytest.approx(shapely.box(*box).area, rel=1e-9)
    for (crs, _), part in zip(cells, parts, strict=True):
        if part.area > 1e-9:
            assert zone_crs(part.centroid.x, part.centroid.y) == crs


def test_a_box_that_ends_at_a_meridian_stays_in_one_cell():
    assert [crs for crs, _ in cells_touched((-54.0, -23.0, -48.0, -22.0))] == ["EPSG:32722"]


def test_a_home_is_the_zone_of_the_centroid():
    polygons = np.array(
        [
            shapely.box(-48.3, -23, -47.9, -22.9),  # more of it in zone 22
            shapely.box(-48.1, -23, -47.7, -22.9),
            shapely.box(-51, -0.2, -50.9, 0.1),
            shapely.box(-51, -0.1, -50.9, 0.2),
        ],
        object,
    )
    assert home_zones(polygons).tolist() == ["EPSG:32722", "EPSG:32723", "EPSG:32722", "EPSG:32622"]


# --- the antimeridian


def test_a_polygon_cut_at_the_antimeridian_is_put_together():
    fiji = shapely.MultiPolygon([shapely.box(179.8, -17, 180, -16), shapely.box(-180, -17, -179.9, -16)])
    whole = unwrap(np.array([fiji], object))[0]
    assert whole.geom_type == "Polygon"
    assert whole.bounds == pytest.approx((179.8, -17, 180.1, -16))
    assert whole.area == pytest.approx(fiji.area)
    assert home_zones(np.array([whole], object)).tolist() == ["EPSG:32760"]


def test_others_are_left_as_they_are():
    polygons = np.array([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1), shapely.box(0, 0, 1, 1)], object)
    assert unwrap(polygons) is polygons


def test_unwrapping_leaves_the_input_alone():
    fiji = shapely.MultiPolygon([shapely.box(179.8, -17, 180, -16), shapely.box(-180, -17, -179.9, -16)])
    polygons = np.array([fiji, shapely.box(0, 0, 1, 1)], object)
    unwrapped = unwrap(polygons)
    assert polygons[0] is fiji
    assert unwrapped[1] is polygons[1]
