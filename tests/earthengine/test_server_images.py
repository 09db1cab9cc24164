"""Images: AEF values, mosaics, masks, arithmetic, projections, and pixels over the wire."""

import io

import ee
import numpy as np
import pytest
import rasterio

from .synthetic import Catalogue, position_codes, write_aef_tile

AEF = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
CRS = "EPSG:32722"
BANDS = [f"A{i:02d}" for i in range(64)]
W, N = 700_000, 7_500_030


def grid(west, north, width, height, step=10, crs=CRS):
    return {
        "dimensions": {"width": width, "height": height},
        "affineTransform": {
            "scaleX": step,
            "shearX": 0,
            "translateX": west,
            "shearY": 0,
            "scaleY": -step,
            "translateY": north,
        },
        "crsCode": crs,
    }


def pixels(image, where, bands=None, fmt="NUMPY_NDARRAY"):
    request = {"expression": image, "fileFormat": fmt, "grid": where}
    return ee.data.computePixels({**request, "bandIds": bands} if bands else request)


def year_image(year):
    return ee.ImageCollection(AEF).filterDate(f"{year}-01-01", f"{year + 1}-01-01")


def dequantised(codes):
    k = codes.astype(np.float64)
    return (np.sign(k) * (k / 127.5) ** 2).astype(np.float32)


def test_aef_values_are_dequantised_float32(ee_server):
    """Both row orders give the pixels at their places: the western tile is south-up, the eastern north-up."""
    found = pixels(year_image(2020).mosaic(), grid(700_900, 7_500_500, 12, 5))  # 6 columns of each tile
    assert found.dtype.names == tuple(BANDS)
    assert found["A00"].dtype == np.float32
    codes = position_codes(700_900, 7_500_500, 5, 12, 2020)
    np.testing.assert_array_equal(np.stack([found[b] for b in BANDS]), dequantised(codes))


def test_codes_come_back_bit_for_bit(earth, tmp_path):
    """All 256 codes: signum * sqrt(|v|) * 127.5, rounded, unmasked to -128, as int8."""
    codes = np.zeros((64, 16, 16), np.int8)
    codes[:] = np.arange(-128, 128, dtype=np.int16).astype(np.int8).reshape(16, 16)
    write_aef_tile(tmp_path, 2020, 32722, W, N, codes)
    earth(tmp_path)
    image = year_image(2020).mosaic()
    quantised = image.signum().multiply(image.abs().sqrt()).multiply(127.5).round().unmask(-128).toInt8()
    found = pixels(quantised, grid(W, N, 16, 16))
    assert found["A63"].dtype == np.int8
    np.testing.assert_array_equal(found["A00"], codes[0])
    np.testing.assert_array_equal(found["A63"], codes[63])


def test_mosaic_takes_the_last_image_that_is_not_masked(earth, tmp_path):
    catalogue = Catalogue(tmp_path)
    place = {"west": W, "north": N, "epsg": 32722, "nodata": 0}
    catalogue.add("test/c", {"v": np.array([[1, 1, 1]], np.uint8)}, index="a", start="2020-01-01", **place)
    catalogue.add("test/c", {"v": np.array([[2, 2, 0]], np.uint8)}, index="b", start="2020-01-02", **place)
    catalogue.add("test/c", {"v": np.array([[3, 0, 0]], np.uint8)}, index="c", start="2020-01-03", **place)
    earth(None, catalogue.save())
    collection = ee.ImageCollection("test/c")
    where = grid(W, N, 3, 1)
    assert pixels(collection.mosaic(), where)["v"].tolist() == [[3, 2, 1]]
    assert pixels(collection.sort("system:time_start", False).mosaic(), where)["v"].tolist() == [[1, 1, 1]]
    # reductions pixel by pixel leave masked values out; a median of two is their mean
    assert pixels(collection.mean(), where)["v"].tolist() == [[2, 1.5, 1]]
    assert pixels(collection.median(), where)["v"].tolist() == [[2, 1.5, 1]]
    assert pixels(collection.max(), where)["v"].tolist() == [[3, 2, 1]]
    assert pixels(collection.count(), where)["v"].tolist() == [[3, 2, 1]]
    reduced = collection.reduce(ee.Reducer.minMax())
    assert reduced.bandNames().getInfo() == ["v_min", "v_max"]
    assert pixels(reduced, where)["v_min"].tolist() == [[1, 1, 1]]
    assert pixels(collection.toBands(), where).dtype.names == ("a_v", "b_v", "c_v")


def test_mode_takes_the_smallest_of_equals(earth, tmp_path):
    catalogue = Catalogue(tmp_path)
    for index, row in enumerate(([4, 7, 2], [4, 1, 2], [9, 1, 8], [9, 7, 2])):
        catalogue.add("test/c", {"v": np.array([row], np.uint8)}, index=str(index), west=W, north=N, epsg=32722)
    earth(None, catalogue.save())
    assert pixels(ee.ImageCollection("test/c").mode(), grid(W, N, 3, 1))["v"].tolist() == [[4, 1, 2]]


def test_a_masked_blank_under_the_mosaic(ee_server):
    """It makes an uncovered year a masked image with all its bands; over data it changes nothing."""
    blank = ee.Image.constant([0] * 64).rename(BANDS).toFloat().updateMask(0)
    where = grid(700_100, 7_500_100, 2, 2)

    def image(year):
        return ee.ImageCollection([blank]).merge(year_image(year)).mosaic()

    assert image(2030).bandNames().size().getInfo() == 64
    assert pixels(image(2030).unmask(-9), where)["A07"].tolist() == [[-9, -9], [-9, -9]]
    np.testing.assert_array_equal(pixels(image(2020), where), pixels(year_image(2020).mosaic(), where))
    region = ee.Geometry.Rectangle([700_100, 7_500_000, 700_200, 7_500_100], CRS, False)
    reduced = image(2030).reduceRegion(ee.Reducer.mean(), region, crs=CRS, scale=10).getInfo()
    assert reduced == dict.fromkeys(BANDS)


def test_a_composite_of_unlike_images_is_refused(ee_server):
    mixed = ee.ImageCollection([ee.Image(1).rename("a"), ee.Image([1, 2]).rename(["a", "b"])]).mosaic()
    with pytest.raises(ee.EEException, match="Expected a homogeneous image collection"):
        mixed.bandNames().getInfo()


def test_masked_pixels_are_zeros_on_the_wire(earth, tmp_path):
    catalogue = Catalogue(tmp_path)
    catalogue.add("test/i", {"v": np.array([[5, 9]], np.int16)}, nodata=9, west=W, north=N, epsg=32722)
    earth(None, catalogue.save())
    image = ee.Image("test/i")
    where = grid(W - 10, N, 4, 1)  # a pixel outside on either side
    assert pixels(image, where)["v"].tolist() == [[0, 5, 0, 0]]
    # unmask keeps the footprint unless it is told not to
    assert pixels(image.unmask(-1), where)["v"].tolist() == [[0, 5, -1, 0]]
    assert pixels(image.unmask(-1, False), where)["v"].tolist() == [[-1, 5, -1, -1]]
    assert pixels(image.mask(), where)["v"].tolist() == [[0, 1, 0, 0]]
    assert pixels(image.updateMask(image.gt(5)).unmask(7), where)["v"].tolist() == [[0, 7, 7, 0]]
    assert pixels(image.unmask(9).selfMask().eq(9).selfMask(), where)["v"].tolist() == [[0, 0, 1, 0]]


def test_arithmetic(earth, tmp_path):
    catalogue = Catalogue(tmp_path)
    values = {"a": np.array([[4, 0, -9]], np.int16), "b": np.array([[2, 5, 0]], np.int16)}
    catalogue.add("test/i", values, west=W, north=N, epsg=32722)
    earth(None, catalogue.save())
    image = ee.Image("test/i")
    a, b = image.select("a"), image.select("b")
    where = grid(W, N, 3, 1)

    def row(result):
        found = pixels(result, where)
        return found[found.dtype.names[0]].tolist()[0]

    assert row(a.add(b)) == [6, 5, -9]
    assert row(a.divide(b)) == [2, 0, 0]  # documented: division by 0 gives 0
    assert row(b.divide(4)) == [0.5, 1.25, 0]  # the quotient of integers is not cut off
    assert row(a.abs().sqrt()) == [2, 0, 3]
    assert row(a.signum()) == [1, 0, -1]
    assert row(a.pow(2)) == [16, 0, 81]
    assert row(a.gte(0).And(b.neq(0))) == [1, 1, 0]
    assert row(a.remap([4, 0], [40, 50])) == [40, 50, 0]  # what isn't listed is masked
    assert row(a.remap([4, 0], [40, 50], -1)) == [40, 50, -1]
    assert row(a.where(b.eq(0), 7)) == [4, 0, 7]
    assert row(a.clamp(-5, 3)) == [3, 0, -5]
    assert row(a.multiply(100).toInt8()) == [127, 0, -128]  # documented: clamped
    assert row(image.expression("(a - b) * 2 + b('b')", {"a": a, "b": b})) == [6, -5, -18]
    # one band goes against all of the other; names come from the longer
    assert image.add(1).bandNames().getInfo() == ["a", "b"]
    assert ee.Image(1).add(image).bandNames().getInfo() == ["a", "b"]
    # documented: a negative value masks the normalized difference
    assert row(image.normalizedDifference(["b", "a"])) == pytest.approx([-1 / 3, 1, 0])
    assert row(image.normalizedDifference(["b", "a"]).mask()) == [1, 1, 0]
    assert image.normalizedDifference(["a", "b"]).bandNames().getInfo() == ["nd"]


def test_types_on_the_wire(ee_server):
    where = grid(W, N, 1, 1)

    def dtype(image):
        found = pixels(image, where)
        return found.dtype[0].name

    assert dtype(ee.Image(3)) == "int32"
    assert dtype(ee.Image(3).toByte()) == "uint8"
    assert dtype(ee.Image(3).toFloat()) == "float32"
    assert dtype(ee.Image(3).gt(2)) == "uint8"
    assert dtype(ee.Image(3).toFloat().add(ee.Image(1).toByte())) == "float32"
    assert dtype(ee.Image(3.5)) == "float64"


def test_undecided_numbers_are_refused(ee_server):
    """Where the documents don't say what comes out, nothing does."""
    where = grid(W, N, 1, 1)
    for image, message in (
        (ee.Image(2.5).toInt8(), "casting fractions"),
        (ee.Image(0.5).round(), "exact half"),
        (ee.Image(-1).sqrt(), "not a finite number"),
        (ee.ImageCollection([ee.Image(1).updateMask(0)]).sum(), "every image is masked"),
    ):
        with pytest.raises(ee.EEException, match=message):
            pixels(image, where)
    ee_server.unimplemented.clear()


def test_bands(ee_server):
    image = ee.Image([1, 2, 3]).rename(["a", "b", "c"])
    assert image.select(["c", "a"]).bandNames().getInfo() == ["c", "a"]
    assert image.select("[ab]").bandNames().getInfo() == ["a", "b"]
    assert image.select([0, "c"], ["x", "y"]).bandNames().getInfo() == ["x", "y"]
    assert ee.Image.cat([image, image.select("a")]).bandNames().getInfo() == ["a", "b", "c", "a_1"]
    assert image.addBands(ee.Image(9).rename("b"), None, True).bandNames().getInfo() == ["a", "b", "c"]
    swapped = pixels(image.addBands(ee.Image(9).rename("b"), None, True), grid(W, N, 1, 1))
    assert swapped[0, 0].tolist() == (1, 9, 3)
    with pytest.raises(
        ee.EEException, match=r"Band pattern 'z' did not match any bands\. Available bands: \[a, b, c\]"
    ):
        image.select("z").getInfo()
    with pytest.raises(ee.EEException, match="was applied to an Image with no bands"):
        ee.ImageCollection([]).mosaic().select("A00").getInfo()


def test_reprojection_takes_the_nearest_pixel(ee_server):
    """Pixels of 23S asked for in the CRS of 22S lie where their coordinates say."""
    from pyproj import Transformer

    move = Transformer.from_crs("EPSG:32723", CRS, always_xy=True)
    x, y = move.transform(300_405, 7_500_405)  # the centre of a pixel
    where = grid(x - 5, y + 5, 1, 1)
    found = pixels(year_image(2020).filter(ee.Filter.eq("UTM_ZONE", "23S")).mosaic(), where)
    codes = position_codes(300_400, 7_500_410, 1, 1, 2020)
    assert list(found[0, 0]) == dequantised(codes)[:, 0, 0].tolist()


def test_reproject_fixes_the_grid(earth, tmp_path):
    catalogue = Catalogue(tmp_path)
    catalogue.add("test/i", {"v": np.arange(16, dtype=np.uint8).reshape(4, 4)}, west=W, north=N, epsg=32722)
    earth(None, catalogue.save())
    fixed = ee.Image("test/i").reproject(CRS, [5, 0, W + 2, 0, -5, N - 2])
    # the pixel centred 4.5 m into the corner pixel of `fixed`, which is the pixel 0 of the image
    assert pixels(fixed, grid(W + 4, N - 4, 1, 1, step=5))["v"].tolist() == [[0]]
    assert fixed.projection().nominalScale().getInfo() == 5


def test_pixel_area(ee_server):
    """On the central meridian UTM's scale is 0.9996, so 100 m2 of the grid are 100 / 0.9996^2 on the ground."""
    found = pixels(ee.Image.pixelArea(), grid(499_995, 7_500_000, 1, 1))
    assert found["area"][0, 0] == pytest.approx(100 / 0.9996**2, rel=1e-9)
    # a square degree on the equator, of the WGS84 ellipsoid: 111,319.49 m x 110,574.39 m
    degree = pixels(ee.Image.pixelArea(), grid(10, 0.5, 1, 1, step=1, crs="EPSG:4326"))
    assert degree["area"][0, 0] == pytest.approx(111_319.4908 * 110_574.2758, rel=1e-6)


def test_geotiff_has_bands_and_place(ee_server):
    content = pixels(year_image(2020).mosaic(), grid(700_100, 7_500_100, 3, 2), ["A05", "A01"], "GEO_TIFF")
    with rasterio.open(io.BytesIO(content)) as source:
        assert source.descriptions == ("A05", "A01")
        assert source.crs.to_epsg() == 32722
        assert source.transform[:6] == (10, 0, 700_100, 0, -10, 7_500_100)
        expected = dequantised(position_codes(700_100, 7_500_100, 2, 3, 2020))
        np.testing.assert_array_equal(source.read(), expected[[5, 1]])


def test_limits_of_compute_pixels(ee_server):
    image = year_image(2020).mosaic()
    with pytest.raises(
        ee.EEException, match=r"Total request size \(50397184 bytes\) must be less than or equal to 503"
    ):
        pixels(image.multiply(100).round().toInt8(), grid(700_000, 7_500_000, 1024, 769))
    with pytest.raises(ee.EEException, match=r"Pixel grid dimensions \(40000x1\) must be less than or equal to 32768"):
        pixels(image, grid(700_000, 7_500_000, 40_000, 1), ["A00"])


def test_linked_bands(earth, tmp_path):
    catalogue = Catalogue(tmp_path)
    place = {"west": W, "north": N, "epsg": 32722}
    for index, value in (("x", 1), ("y", 2)):
        catalogue.add("test/s2", {"v": np.full((1, 1), value, np.uint8)}, index=index, **place)
    catalogue.add("test/score", {"cs": np.full((1, 1), 0.5, np.float32)}, index="y", **place)
    earth(None, catalogue.save())
    linked = ee.ImageCollection("test/s2").map(
        lambda image: ee.Image(image).linkCollection(ee.ImageCollection("test/score"), ["cs"])
    )
    found = pixels(linked.toBands().unmask(-1), grid(W, N, 1, 1))
    assert found[0, 0].tolist() == (1, -1, 2, 0.5)
