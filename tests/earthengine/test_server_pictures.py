"""Thumbnails, map tiles and downloads."""

import io
from urllib.request import urlopen

import ee
import numpy as np
import pytest
from PIL import Image as Pillow

from .synthetic import Catalogue

AEF = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
CRS = "EPSG:32722"
W, N = 700_000, 7_500_960
VIS = {"bands": ["A01", "A16", "A09"], "min": -0.3, "max": 0.3}


def opened(url):
    with urlopen(url, timeout=30) as answer:
        return Pillow.open(io.BytesIO(answer.read()))


def region(x0, y0, x1, y1):
    return ee.Geometry.Rectangle([W + x0, N - y1, W + x1, N - y0], CRS, False)


@pytest.fixture
def steps(earth, tmp_path):
    """One row of 0, 50, 100, 150, 200 and a masked pixel, 10 m each; three bands."""
    row = np.array([[0, 50, 100, 150, 200, 255]], np.uint8)
    catalogue = Catalogue(tmp_path)
    catalogue.add("test/steps", {"r": row, "g": row // 2, "b": row * 0}, nodata=255, west=W, north=N, epsg=32722)
    return earth(None, catalogue.save())


def test_thumbnail_as_in_the_reference(ee_server):
    """The reference notebook's call: a year's mosaic, three bands, a stretch, a region and a size."""
    image = ee.ImageCollection(AEF).filterDate("2020-01-01", "2021-01-01").mosaic()
    site = ee.Geometry.Polygon([[[-49.0, -22.6], [-48.99, -22.6], [-48.99, -22.59]]], None, False)
    bounds = ee.Geometry.Rectangle([W + 300, N - 700, W + 700, N - 300], CRS, False).transform("EPSG:4326", 1)
    url = image.getThumbURL({**VIS, "region": bounds.buffer(50).bounds(), "dimensions": 128})
    picture = opened(url)
    assert max(picture.size) == 128
    assert picture.format == "JPEG"  # nothing is masked
    assert site.type().getInfo() == "Polygon"
    png = opened(image.getThumbURL({**VIS, "region": bounds, "dimensions": 128, "format": "png"}))
    assert (png.format, png.mode) == ("PNG", "RGB")
    log = ee_server.log.entries("thumbnails")
    assert [e.endpoint for e in log] == ["thumbnails", "thumbnails:getPixels"] * 2
    assert "Image.visualize" in log[0].functions


def test_stretch_by_hand(steps):
    """0..200 over 0..255: 50 becomes 63.75, that is 64."""
    image = ee.Image("test/steps")
    where = {"region": region(0, 0, 60, 10), "dimensions": "6x1", "format": "png"}
    gray = np.asarray(opened(image.getThumbURL({"bands": ["r"], "min": 0, "max": 200, **where})))
    assert gray[0, :5, 0].tolist() == [0, 64, 128, 191, 255]
    assert gray[0, :, 3].tolist() == [255] * 5 + [0]  # the masked pixel is transparent
    rgb = np.asarray(opened(image.getThumbURL({"bands": ["r", "g", "b"], "min": 0, "max": 200, **where})))
    assert rgb[0, 2].tolist() == [128, 64, 0, 255]
    dark = np.asarray(opened(image.getThumbURL({"bands": ["r"], "min": 0, "max": 200, "gamma": 0.5, **where})))
    assert dark[0, :5, 0].tolist() == [0, 16, 64, 143, 255]  # (v / 200)^2


def test_palette_by_hand(steps):
    image = ee.Image("test/steps").select("r")
    where = {"region": region(0, 0, 60, 10), "dimensions": "6x1", "format": "png"}
    found = np.asarray(
        opened(image.getThumbURL({"min": 0, "max": 200, "palette": ["000000", "FF0000", "white"], **where}))
    )
    assert found[0, :5, :3].tolist() == [[0, 0, 0], [128, 0, 0], [255, 0, 0], [255, 128, 128], [255, 255, 255]]


def test_painted_boundary(steps):
    """A boundary drawn on the server: painted width 2, blended over the picture."""
    image = ee.Image("test/steps").select("r").unmask(0).visualize(min=0, max=200)
    site = ee.FeatureCollection([ee.Feature(region(10, 0, 50, 10))])
    line = ee.Image().byte().paint(site, 1, 2).selfMask().visualize(palette=["FF0000"])
    where = {"region": region(-20, -20, 80, 30), "dimensions": 100, "format": "png"}
    found = np.asarray(opened(image.blend(line).getThumbURL(where)).convert("RGB"))
    red = (found == [255, 0, 0]).all(axis=-1)
    assert red.sum() > 100  # 2 x (40 + 10) m of line, 1 m per pixel, two pixels wide
    assert not red[:, :25].any()
    styled = opened(image.blend(site.style(color="FFFF00", fillColor="00000000", width=1)).getThumbURL(where))
    assert (np.asarray(styled.convert("RGB")) == [255, 255, 0]).all(axis=-1).sum() > 50


def test_painted_numbers_are_refused(steps):
    site = ee.FeatureCollection([ee.Feature(region(10, 0, 50, 10))])
    painted = ee.Image(0).paint(site, 1, 2)
    with pytest.raises(ee.EEException, match="numbers of a painted image"):
        painted.reduceRegion(ee.Reducer.sum(), region(0, 0, 60, 10), crs=CRS, scale=10).getInfo()
    steps.unimplemented.clear()


def test_clip_by_whole_pixels_is_a_mask_and_across_them_refused(steps):
    image = ee.Image("test/steps").select("r")

    def total(clip):
        return image.clip(clip).reduceRegion(ee.Reducer.sum(), region(0, 0, 60, 10), crs=CRS, scale=10).getInfo()

    assert total(region(10, 0, 30, 10)) == {"r": 150}
    assert total(region(-100, -100, 100, 100)) == {"r": 500}
    with pytest.raises(ee.EEException, match="clipped across its pixels"):
        total(region(10, 0, 35, 10))
    steps.unimplemented.clear()


def test_map_tiles(ee_server):
    image = ee.ImageCollection(AEF).filterDate("2020-01-01", "2021-01-01").mosaic()
    tiles = image.getMapId(VIS)["tile_fetcher"]
    # the tile of zoom 14 that holds a pixel of the western tile
    from pyproj import Transformer

    lon, lat = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(W + 480, N - 480)
    x = int((lon + 180) / 360 * 2**14)
    y = int((1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * 2**14)
    picture = Pillow.open(io.BytesIO(tiles.fetch_tile(x, y, 14)))
    assert (picture.size, picture.format) == ((256, 256), "PNG")
    assert 0 < (np.asarray(picture)[..., 3] > 0).sum() < 256 * 256
    assert opened(tiles.format_tile_url(x, y, 14)).size == (256, 256)


def test_downloads(ee_server):
    image = ee.ImageCollection(AEF).filterDate("2020-01-01", "2021-01-01").mosaic().select(["A00", "A01"])
    url = image.getDownloadURL({"region": region(100, 100, 140, 130), "crs": CRS, "scale": 10, "format": "NPY"})
    with urlopen(url, timeout=30) as answer:
        found = np.load(io.BytesIO(answer.read()))
    assert (found.shape, found.dtype.names) == ((3, 4), ("A00", "A01"))
    table = ee.FeatureCollection([ee.Feature(None, {"a": 1, "b": "x"})])
    with urlopen(table.getDownloadURL("CSV", ["a", "b"]), timeout=30) as answer:
        assert answer.read() == b"a,b\n1,x\n"


def test_an_unbounded_picture_is_refused(ee_server):
    url = ee.Image(1).getThumbURL({"min": 0, "max": 1})
    from urllib.error import HTTPError

    with pytest.raises(HTTPError, match="400") as caught:
        urlopen(url, timeout=30)
    caught.value.close()
