"""reduceRegion and reduceRegions on rasters of 3 x 3 pixels, with the answers by hand."""

import math

import ee
import numpy as np
import pytest

from .synthetic import Catalogue

W, N = 700_000, 7_500_030
CRS = "EPSG:32722"
NINE = np.arange(1, 10, dtype=np.uint8).reshape(3, 3)


@pytest.fixture
def nine(earth, tmp_path):
    """Three images of 3 x 3 pixels: `nine` (v = 1..9), `holes` (9 is nodata), `pair` (a = 1..9, b = 10a)."""
    catalogue = Catalogue(tmp_path)
    grid = {"west": W, "north": N, "epsg": 32722}
    catalogue.add("test/nine", {"v": NINE}, **grid)
    catalogue.add("test/holes", {"v": NINE}, nodata=9, **grid)
    catalogue.add("test/pair", {"a": NINE, "b": NINE * 10}, **grid)
    catalogue.add("test/float", {"v": NINE.astype(np.float32) / 8}, **grid)
    return earth(None, catalogue.save())


def box(x0, y0, x1, y1):
    """A rectangle in metres from the raster's south-western corner."""
    x0, x1, y0, y1 = W + x0, W + x1, N - 30 + y0, N - 30 + y1
    return ee.Geometry.Polygon([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]], CRS, False)


def reduce(image, reducer, region, **more):
    return ee.Image(image).reduceRegion(reducer, region, crs=CRS, scale=10, **more).getInfo()


WHOLE = (0, 0, 30, 30)
# the top row: the first pixel whole, 4 m or 6 m of the second. 0.4 = 102/255 and 0.6 = 153/255: exact in 8 bits
FOUR, SIX = (0, 20, 14, 30), (0, 20, 16, 30)


@pytest.mark.parametrize(
    ("reducer", "whole", "four", "six"),
    [
        ("mean", 5, (1 + 0.4 * 2) / 1.4, (1 + 0.6 * 2) / 1.6),
        ("sum", 45, 1 + 0.4 * 2, 1 + 0.6 * 2),
        ("stdDev", math.sqrt(60 / 9), math.sqrt(0.4 / 1.4**2), math.sqrt(0.6 / 1.6**2)),
        ("variance", 60 / 9, 0.4 / 1.4**2, 0.6 / 1.6**2),
        ("median", 5, 1, 1),
        # by centres: the second pixel's is at 15 m
        ("count", 9, 1, 2),
        ("min", 1, 1, 1),
        ("max", 9, 1, 2),
        ("first", 1, 1, 1),
    ],
)
def test_reducers_by_hand(nine, reducer, whole, four, six):
    make = getattr(ee.Reducer, reducer)
    for region, expected in ((WHOLE, whole), (FOUR, four), (SIX, six)):
        assert reduce("test/nine", make(), box(*region)) == {"v": pytest.approx(expected, rel=1e-12)}


def test_unweighted_takes_whole_pixels_by_their_centres(nine):
    mean = ee.Reducer.mean().unweighted()
    assert reduce("test/nine", mean, box(*FOUR)) == {"v": 1}
    assert reduce("test/nine", mean, box(*SIX)) == {"v": 1.5}


def test_weights_are_eight_bits_rounded_down(nine):
    def weight(metres):
        return reduce("test/nine", ee.Reducer.sum(), box(0, 20, metres, 30))["v"]

    assert weight(0.03) == 0  # 0.003 of a pixel is below 1/256: lost
    assert weight(0.04) == 1 / 255  # 0.004 is above
    assert weight(5) == 128 / 255  # a half is 128 of 255
    assert weight(9.999) == 1
    nine.exact_weights = True
    assert weight(5) == pytest.approx(0.5, abs=1e-12)


def test_a_region_inside_a_pixel_without_its_centre(nine):
    inside = box(11, 11, 14, 14)
    assert reduce("test/nine", ee.Reducer.mean(), inside) == {"v": 5}
    assert reduce("test/nine", ee.Reducer.count(), inside) == {"v": 0}
    assert reduce("test/nine", ee.Reducer.min(), inside) == {"v": None}


def test_a_hole_counts_and_an_open_ring_is_closed(nine):
    def ring(a, b):
        return [[W + a, N - 30 + a], [W + b, N - 30 + a], [W + b, N - 30 + b], [W + a, N - 30 + b]]

    frame = ee.Geometry.Polygon([ring(0, 30), ring(10, 20)], CRS, False)
    assert reduce("test/nine", ee.Reducer.sum(), frame) == {"v": 40}
    closed = ee.Geometry.Polygon([[*ring(0, 30), ring(0, 30)[0]], ring(10, 20)], CRS, False)
    assert reduce("test/nine", ee.Reducer.sum(), closed) == {"v": 40}


def test_masked_pixels_are_left_out(nine):
    assert reduce("test/holes", ee.Reducer.mean(), box(*WHOLE)) == {"v": 36 / 8}
    assert reduce("test/holes", ee.Reducer.count(), box(*WHOLE)) == {"v": 8}
    assert reduce("test/holes", ee.Reducer.max(), box(*WHOLE)) == {"v": 8}


def test_a_fractional_mask_is_a_weight(nine):
    image = ee.Image("test/nine")
    half = image.updateMask(image.gt(1).multiply(0.5).add(0.5))  # 1 weighs 0.5, the others 1
    assert reduce(half, ee.Reducer.mean(), box(*WHOLE))["v"] == pytest.approx((0.5 + 44) / 8.5, rel=1e-12)
    assert reduce(half, ee.Reducer.count(), box(*WHOLE)) == {"v": 9}


def test_no_data_at_all(nine):
    nowhere = box(100, 100, 120, 120)
    expected = {"mean": None, "median": None, "stdDev": None, "min": None, "max": None, "first": None, "mode": None}
    for name, value in {**expected, "count": 0, "sum": 0, "frequencyHistogram": {}}.items():
        assert reduce("test/nine", getattr(ee.Reducer, name)(), nowhere) == {"v": value}, name


def test_no_bands_is_an_empty_dictionary_and_a_missing_key_an_error(nine):
    empty = ee.ImageCollection([]).mosaic().reduceRegion(ee.Reducer.mean(), box(*WHOLE), 10)
    assert empty.getInfo() == {}
    with pytest.raises(ee.EEException, match=r"Dictionary\.get: Dictionary does not contain key: 'A00'"):
        empty.get("A00").getInfo()
    # a band without data has its key, and null under it
    nothing = ee.Image("test/nine").reduceRegion(ee.Reducer.mean(), box(100, 100, 120, 120), crs=CRS, scale=10)
    assert nothing.get("v").getInfo() is None


def test_histogram_weighs_by_coverage(nine):
    parity = ee.Image("test/nine").mod(2).rename("odd")
    assert reduce(parity, ee.Reducer.frequencyHistogram(), box(*WHOLE)) == {"odd": {"0": 4, "1": 5}}
    assert reduce(parity, ee.Reducer.frequencyHistogram(), box(*FOUR)) == {"odd": {"1": 1, "0": 0.4}}
    unweighted = ee.Reducer.frequencyHistogram().unweighted()
    assert reduce(parity, unweighted, box(*FOUR)) == {"odd": {"1": 1}}


def test_output_names(nine):
    region = box(*WHOLE)
    both = ee.Reducer.mean().combine(ee.Reducer.count(), sharedInputs=True)
    assert reduce("test/nine", both, region) == {"v_mean": 5, "v_count": 9}
    assert reduce("test/pair", ee.Reducer.mean(), region) == {"a": 5, "b": 50}
    assert reduce("test/pair", both, region) == {"a_mean": 5, "a_count": 9, "b_mean": 50, "b_count": 9}
    assert reduce("test/pair", ee.Reducer.minMax(), region) == {"a_min": 1, "a_max": 9, "b_min": 10, "b_max": 90}
    prefixed = ee.Reducer.mean().combine(ee.Reducer.mean().unweighted(), "u_", True)
    assert reduce("test/nine", prefixed, region) == {"v_mean": 5, "v_u_mean": 5}
    assert reduce("test/pair", ee.Reducer.mean().repeat(2), region) == {"mean": [5, 50]}
    assert reduce("test/pair", ee.Reducer.mean().repeat(2).setOutputs(["m"]), region) == {"m": [5, 50]}
    assert reduce("test/pair", ee.Reducer.mean().forEach(["x", "y"]), region) == {"x": 5, "y": 50}
    apart = ee.Reducer.mean().setOutputs(["one"]).combine(ee.Reducer.max().setOutputs(["two"]))
    assert reduce("test/pair", apart, region) == {"one": 5, "two": 90}
    with pytest.raises(ee.EEException, match="Duplicate output name: 'mean'"):
        reduce("test/pair", ee.Reducer.mean().combine(ee.Reducer.mean(), "", True), region)


def test_grouped_sums_are_areas_by_class(nine):
    image = ee.Image("test/pair").select("b").addBands(ee.Image("test/pair").select("a").gt(6))
    found = reduce(image, ee.Reducer.sum().group(1, "class"), box(*WHOLE))
    assert found == {"groups": [{"class": 0, "sum": 210}, {"class": 1, "sum": 240}]}


def test_reduce_regions_names_properties_and_nulls(nine):
    features = ee.FeatureCollection(
        [ee.Feature(box(*WHOLE), {"site": "s1"}), ee.Feature(box(100, 100, 110, 110), {"site": "s2"})]
    )

    def properties(image, reducer):
        found = ee.Image(image).reduceRegions(features, reducer, crs=CRS, scale=10).getInfo()["features"]
        assert [f["id"] for f in found] == ["0", "1"]
        return [f["properties"] for f in found]

    # one band: the output's own name; several: the bands'
    assert properties("test/nine", ee.Reducer.mean()) == [{"site": "s1", "mean": 5}, {"site": "s2"}]
    assert properties("test/pair", ee.Reducer.mean()) == [{"site": "s1", "a": 5, "b": 50}, {"site": "s2"}]
    renamed = ee.Reducer.mean().setOutputs(["m"])
    assert properties("test/nine", renamed) == [{"site": "s1", "m": 5}, {"site": "s2"}]
    both = ee.Reducer.mean().combine(ee.Reducer.count(), sharedInputs=True)
    assert properties("test/nine", both)[0] == {"site": "s1", "mean": 5, "count": 9}
    assert properties("test/pair", both)[1] == {"site": "s2", "a_count": 0, "b_count": 0}
    nine.null_properties = "null"
    assert properties("test/nine", ee.Reducer.mean())[1] == {"site": "s2", "mean": None}


def test_points_are_their_pixel(nine):
    point = ee.Geometry.Point([W + 12, N - 3], CRS)
    assert reduce("test/nine", ee.Reducer.mean(), point) == {"v": 2}
    assert reduce("test/nine", ee.Reducer.count(), point) == {"v": 1}


def test_geographic_polygons_are_projected(nine):
    """The same rectangle in EPSG:4326, planar: its edges deviate by less than a millimetre over 30 m."""
    from pyproj import Transformer

    move = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    corners = [list(move.transform(W + x, N - 30 + y)) for x, y in ((0, 0), (14, 0), (14, 30), (0, 30))]
    region = ee.Geometry.Polygon([corners], None, False)
    found = reduce("test/nine", ee.Reducer.mean(), region)["v"]
    assert found == pytest.approx((12 + 0.4 * 15) / 4.2, abs=0.01)
    assert reduce("test/nine", ee.Reducer.count(), region) == {"v": 3}
    geodesic = ee.Geometry.Polygon([corners])
    assert reduce("test/nine", ee.Reducer.mean(), geodesic)["v"] == pytest.approx(found, abs=0.01)


def test_projection_of_the_first_band_is_the_default(nine):
    image = ee.Image("test/nine")
    assert image.reduceRegion(ee.Reducer.mean(), box(*FOUR)).getInfo() == {"v": pytest.approx(1.8 / 1.4)}
    # at 5 m the same ground is four times as many pixels
    assert image.reduceRegion(ee.Reducer.count(), box(*WHOLE), 5).getInfo() == {"v": 36}
    assert image.reduceRegion(ee.Reducer.count(), box(*WHOLE), crs=CRS, crsTransform=[5, 0, W, 0, -5, N]).getInfo() == {
        "v": 36
    }


def test_a_composite_has_one_degree_pixels(nine):
    """Without crs and scale a 30 m region is 7e-8 of a pixel of 1 degree: no weight, and no centre."""
    mosaic = ee.ImageCollection([ee.Image("test/nine")]).mosaic()
    projection = mosaic.projection()
    assert projection.crs().getInfo() == "EPSG:4326"
    assert projection.nominalScale().getInfo() == pytest.approx(111_319.49079327357)
    assert mosaic.reduceRegion(ee.Reducer.mean(), box(*WHOLE)).getInfo() == {"v": None}
    assert mosaic.reduceRegion(ee.Reducer.count(), box(*WHOLE)).getInfo() == {"v": 0}


def test_coarser_scales_would_need_pyramids(nine):
    coarse = ee.Image("test/nine").reduceRegion(ee.Reducer.mean(), box(*WHOLE), 20)
    with pytest.raises(ee.EEException, match="pyramids"):
        coarse.getInfo()
    assert nine.unimplemented.pop().startswith("numbers at a scale of 20 m")


def test_too_many_pixels(nine):
    message = r"Image\.reduceRegion: Too many pixels in the region\. Found 9, but maxPixels allows only 8\."
    with pytest.raises(ee.EEException, match=message):
        reduce("test/nine", ee.Reducer.mean(), box(*WHOLE), maxPixels=8)


def test_an_unbounded_region_is_refused(nine):
    with pytest.raises(ee.EEException, match="Provide 'geometry' parameter when aggregating over an unbounded image"):
        ee.Image(1).reduceRegion(ee.Reducer.mean(), scale=10).getInfo()


def test_bow_tie_is_even_odd(nine):
    """Two triangles of 15 m x 30 m that meet in the middle: together half of the square."""
    tie = ee.Geometry.Polygon([[[W, N - 30], [W + 30, N], [W + 30, N - 30], [W, N]]], CRS, False)
    nine.exact_weights = True
    assert reduce(ee.Image(1), ee.Reducer.sum(), tie)["constant"] == pytest.approx(4.5)


def test_tile_scale_is_checked(nine):
    assert reduce("test/nine", ee.Reducer.mean(), box(*WHOLE), tileScale=16) == {"v": 5}
    with pytest.raises(ee.EEException, match="tileScale must be between"):
        reduce("test/nine", ee.Reducer.mean(), box(*WHOLE), tileScale=32)
