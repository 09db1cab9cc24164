"""The code of the reference document, unchanged; and pictures of ee.Images."""

import json
import urllib.request
from pathlib import Path

import ee
import numpy as np
import pytest
import shapely
from PIL import Image

from gee_polygons.datasets.alpha_embeddings import EMBEDDING_BANDS, EMBEDDING_VIS_DEFAULT, get_embedding_image
from gee_polygons.errors import EarthEngineError, UsageError
from gee_polygons.site import Site, SiteCollection
from gee_polygons.sources.earthengine import EarthEngineSource, fetch_pixels, shapely_geometry, transport
from gee_polygons.visualize import render_image

from .places import blob, fields, lonlat, site_at
from .synthetic import position_codes, write_aef_tile
from .test_large import Coverage

JOURNEY = Path(__file__).with_name("reference_journey.py.txt")
DOCUMENT = Path(__file__).parents[3] / "shared" / "reference" / "datasets_alpha_embeddings.txt"
WEST, NORTH, SIZE = 700_000, 7_502_000, 200


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the reference document isn't on this machine")
def test_the_journey_is_the_code_of_the_document():
    told = {line.rstrip() for line in DOCUMENT.read_text(encoding="utf-8").splitlines()}
    own = [line.rstrip() for line in JOURNEY.read_text(encoding="utf-8").splitlines()]
    # the document is the module's own page: its names are there
    assert [line for line in own if line not in told] == ["from gee_polygons.datasets.alpha_embeddings import *"]
    assert len(own) > 100


def journey(folder, monkeypatch):
    """Run the document's code in a folder laid out as its author's; return its names."""
    monkeypatch.setattr(ee, "Authenticate", lambda: True)
    monkeypatch.setattr(ee, "Initialize", lambda project: None)  # it is connected already
    for name in ("data", "outputs", "nbs"):
        (folder / name).mkdir()
    polygon = shapely.geometry.mapping(lonlat(blob(701_000, 7_501_000, 200)))
    feature = {"type": "Feature", "properties": {"rid": 3107, "start_year": 2016}, "geometry": polygon}
    collection = {"type": "FeatureCollection", "features": [feature]}
    (folder / "data" / "restoration_sites_subset.geojson").write_text(json.dumps(collection))
    monkeypatch.chdir(folder / "nbs")
    names = {}
    exec(compile(JOURNEY.read_text(encoding="utf-8"), JOURNEY.name, "exec"), names)
    return names


def test_the_reference_document_runs_unchanged(earth, tmp_path, monkeypatch, capsys):
    pytest.importorskip("IPython", reason="the document shows its pictures with IPython")
    for year in range(2018, 2025):
        write_aef_tile(tmp_path / "t", year, 32722, WEST, NORTH, (SIZE, SIZE))
    server = earth(tmp_path / "t")
    names = journey(tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert "Site(id=3107, start_year=2016)" in said
    assert "Shape: (4, 66)" in said
    assert "2023 embedding shape: (64,)" in said
    posts = [e for e in server.log.entries() if e.method == "POST"]
    assert len(posts) <= 2 + 1 + 11  # two tables, one region, eleven pictures; years known already aren't asked again
    assert not server.log.errors
    check_the_tables(names, tmp_path)
    check_the_pictures(names, tmp_path)


def check_the_tables(names, folder):
    """Values against exactextract on the tiles' own pixels."""
    df, site = names["df"], names["site"]
    assert list(df) == ["site_id", "year", *EMBEDDING_BANDS]
    assert df["site_id"].tolist() == [3107] * 7
    assert df["year"].tolist() == list(range(2018, 2025))
    assert df["year"].dtype == np.int64
    assert set(df[EMBEDDING_BANDS].dtypes) == {np.dtype(np.float64)}
    coverage = Coverage(folder, [site.polygon], 32722, WEST, NORTH, SIZE, SIZE)
    truth = np.array([coverage.means(position_codes(WEST, NORTH, SIZE, SIZE, y))[0] for y in df["year"]])
    assert np.abs(df[EMBEDDING_BANDS].to_numpy() - truth).max() < 2e-4
    assert np.allclose(names["sim_df"], truth @ truth.T, atol=1e-2)
    assert list(names["sim_df"].index) == list(names["sim_df"].columns) == list(range(2018, 2025))
    assert np.abs(names["embedding_2023"] - truth[5]).max() < 2e-4


def check_the_pictures(names, folder):
    """Colours against the tiles' own codes: (value + 0.3) / 0.6 of bands A01, A16 and A09, pixel by pixel."""
    site = names["site"]
    with Image.open(folder / "outputs" / "embedding_2018_2024.gif") as film:
        assert film.n_frames == 7
        assert film.info["duration"] == 700
    with Image.open(folder / "outputs" / "embedding_band_combos.png") as strip:
        assert strip.size[0] > 3 * 450
    with Image.open(folder / "outputs" / "embedding_2018_2024.png") as strip:
        assert strip.size[0] > 7 * 450
    img = names["img"]
    assert max(img.size) == 400
    region = shapely.segmentize(site.region(500), 0.001)  # a box in longitude and latitude, as .buffer(500).bounds()
    west, _, east, north = shapely.transform(region, lambda xy: np.column_stack(_to_utm(xy))).bounds
    codes = position_codes(WEST, NORTH, SIZE, SIZE, 2023)[[1, 16, 9]].astype(float)
    values = np.sign(codes) * (codes / 127.5) ** 2
    expected = np.clip((values + 0.3) / 0.6 * 255, 0, 255)
    # where no outline and no label is: a corner at the bottom right; a pixel of 10 m is several of the picture
    metres = (east - west) / img.size[0]
    picture = np.asarray(img.convert("RGB"), float)
    hits = 0
    for row in range(img.size[1] - 60, img.size[1] - 5, 7):
        for column in range(img.size[0] - 60, img.size[0] - 5, 7):
            x, y = west + (column + 0.5) * metres, north - (row + 0.5) * metres
            near = [
                expected[:, int((NORTH - y - dy) // 10), int((x + dx - WEST) // 10)] for dx in (-4, 4) for dy in (-4, 4)
            ]
            hits += min(np.abs(picture[row, column] - colour).max() for colour in near) <= 2
    assert hits == 64
    white = np.abs(picture - 255).max(axis=-1) < 3
    assert white.sum() > 300  # the outline


def _to_utm(xy):
    import pyproj

    return pyproj.Transformer.from_crs(4326, 32722, always_xy=True).transform(xy[:, 0], xy[:, 1])


def test_a_picture_of_an_ee_image_is_that_of_the_same_pixels_here(ee_server):
    site = site_at(0, 700_500, 7_500_400)
    region = site.region(100)
    remote = render_image(get_embedding_image(site.geometry, 2020), region, EMBEDDING_VIS_DEFAULT, 200)
    local = render_image(EarthEngineSource().image(region, 2020), region, EMBEDDING_VIS_DEFAULT, 200)
    assert np.abs(np.asarray(remote, int) - np.asarray(local, int)).max() <= 1


def test_codes_are_those_of_the_file(ee_server):
    region = lonlat(shapely.box(700_100.1, 7_500_100.1, 700_399.9, 7_500_299.9))
    image = EarthEngineSource().image(region, 2020, ["A05", "A00", "A05"])
    codes = position_codes(700_000, 7_500_960, 96, 96, 2020)
    _, _, west, _, _, north = image.grid.transform
    height, width = image.grid.shape
    row, column = round((7_500_960 - north) / 10), round((west - 700_000) / 10)
    expected = codes[[5, 0, 5], row : row + height, column : column + width]
    assert np.array_equal(image.codes, expected)
    by_name = get_embedding_image(region, 2020, ["A05"], source="earthengine")
    assert np.array_equal(by_name.codes, expected[:1])
    assert not EarthEngineSource().image(region, 2017).valid.any()


def test_masked_ground_is_drawn_as_no_data(ee_server):
    region = shapely.box(*lonlat(shapely.box(699_600, 7_500_200, 700_400, 7_500_600)).bounds)
    found = fetch_pixels(
        get_embedding_image(ee.Geometry(shapely.geometry.mapping(region), None, False), 2020), region, ["A01"], 256
    )
    columns = found.valid.any(axis=0)
    assert not columns[:30].any()
    assert columns[45:].all()
    assert found.bands == ("A01",)


def test_large_pictures_are_fetched_in_parts(ee_server, monkeypatch):
    from gee_polygons.sources.earthengine import pixels

    region = site_at(0, 700_500, 7_500_400).region(50)
    image = get_embedding_image(ee.Geometry(shapely.geometry.mapping(region), None, False), 2020)
    whole = fetch_pixels(image, region, ["A01", "A02"], 256)
    monkeypatch.setattr(pixels, "MAX_PIXELS_BYTES", 2_000)
    parts = fetch_pixels(image, region, ["A01", "A02"], 256)
    assert np.array_equal(parts.values, whole.values)
    assert len(ee_server.log.entries("computePixels")) > 3


def test_pictures_outlast_a_shaky_service(ee_server, monkeypatch):
    monkeypatch.setattr(transport, "FIRST_WAIT_S", 0.01)
    ee_server.faults.fail_next("unavailable", 2, "computePixels")
    ee_server.faults.fail_next("drop", 1, "value:compute")
    site = fields(1)[0]
    image = get_embedding_image(site.geometry, 2020)
    assert render_image(image, site.geometry.buffer(100).bounds(), boundary=site.geometry, label="x").size
    ee_server.faults.fail_next("Unrepairable", 1, "computePixels")
    with pytest.raises(EarthEngineError, match="Unrepairable"):
        render_image(image, site.region())


def test_geometries_become_shapes(ee_server):
    site = fields(1)[0]
    assert shapely_geometry(site.geometry).equals_exact(site.polygon, 1e-7)
    holed = shapely.box(0, 0, 1, 1).difference(shapely.box(0.2, 0.2, 0.4, 0.4))
    both = shapely.MultiPolygon([holed, shapely.box(2, 2, 3, 3)])
    assert shapely_geometry(Site(polygon=both, site_id=1).geometry).equals(both)
    assert not len(ee_server.log)
    box = shapely_geometry(site.geometry.buffer(500).bounds())
    assert box.contains(site.polygon)
    shapely_geometry(site.geometry.buffer(500).bounds())
    assert len(ee_server.log) == 1
    with pytest.raises(UsageError, match="a geometry is an"):
        shapely_geometry(ee.Number(1))


def test_show_says_what_to_install(monkeypatch):
    import sys

    from gee_polygons.errors import DependencyError

    monkeypatch.setitem(sys.modules, "lonboard", None)
    with pytest.raises(DependencyError, match=r'pip install "gee_polygons\[map\]"'):
        fields(1)[0].show()


@pytest.mark.filterwarnings("ignore:The .* keyword in DataFrame.convert_dtypes")  # lonboard's, with pandas 3
def test_show_puts_the_sites_over_the_image(ee_server):
    """With the real lonboard, whose maps are tables in Arrow; without it there is nothing to show."""
    lonboard = pytest.importorskip("lonboard", reason='maps are optional: pip install "gee_polygons[map]"')
    shapes = [site.polygon for site in fields(2)]
    odd = {"seen": None, "of": [1, 2], "name": 7}
    sites = SiteCollection(
        [
            Site(polygon=shapes[0], site_id=7, start_year=2016, properties=odd),
            Site(polygon=shapely.MultiPolygon(shapes), site_id="a", properties={"name": "b"}),
        ]
    )
    (outlines,) = sites.show().layers
    assert isinstance(outlines, lonboard.PolygonLayer)
    assert outlines.table["site_id"].to_pylist() == ["7", "a"]
    assert not len(ee_server.log)  # sites are drawn without a request
    tiles, outline = sites[0].show(get_embedding_image(sites[0].geometry, 2020), EMBEDDING_VIS_DEFAULT).layers
    assert isinstance(tiles, lonboard.BitmapTileLayer)
    assert len(outline.table) == 1
    west, south, east, north = sites[0].polygon.bounds
    zoom = 14
    column = int((west + east + 360) / 720 * 2**zoom)
    row = int((1 - np.arcsinh(np.tan(np.radians((south + north) / 2))) / np.pi) / 2 * 2**zoom)
    address = tiles.data.format(x=column, y=row, z=zoom)
    with urllib.request.urlopen(address, timeout=10) as answer, Image.open(answer) as tile:
        assert tile.size == (256, 256)
        assert len(tile.convert("RGB").getcolors(256 * 256)) > 20
    assert "<html" in sites.show().to_html().lower()
