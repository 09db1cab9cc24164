from __future__ import annotations

import http.server
import io
import struct
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import shapely
from archives import FakeTile, make_archive, random_codes
from oracles import SHARED
from PIL import ExifTags, Image

from gee_polygons import visualize as vis
from gee_polygons.alphaearth import BANDS, NODATA
from gee_polygons.errors import DataWarning, DependencyError, InputFileError, OutputError, UsageError
from gee_polygons.reduction.plan import EmbeddingImage
from gee_polygons.site import Site
from gee_polygons.visualize.basemap import tiles_of
from gee_polygons.visualize.pictures.canvas import NODATA_COLOURS, nodata_pattern, round_length
from gee_polygons.visualize.pictures.page import sites_in_rows
from gee_polygons.visualize.pictures.view import view_of
from gee_polygons.zonal.grid import Grid

WEST, NORTH = 400_000.0, 4_900_000.0
UTM = "EPSG:32616"
POSITION = {"bands": ["A01", "A16", "A09"], "min": 0, "max": 255}


def position_image(height=20, width=30, crs=UTM, transform=(10, 0, WEST, 0, -10, NORTH)):
    """Red is the column, green the row, blue 7 everywhere: a shift or a flip shows as a number."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    values = np.stack([columns, rows, np.full_like(rows, 7)])
    grid = Grid(crs=crs, transform=transform, shape=(height, width))
    return EmbeddingImage(values=values, grid=grid, bands=("A01", "A16", "A09"), year=2024, source="test")


def codes_image(height=12, width=16, seed=0, year=2024, holes=False):
    codes = np.random.default_rng(seed).integers(-70, 71, (64, height, width)).astype(np.int8)
    if holes:
        codes[:, 3:6, 4:9] = NODATA
    grid = Grid(crs=UTM, transform=(10, 0, WEST, 0, -10, NORTH), shape=(height, width))
    return EmbeddingImage(values=codes, grid=grid, year=year, source="test")


def on_ground(geometry):
    """From pixels of the images above (x right, y down) to EPSG:4326."""
    to_lonlat = pyproj.Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)

    def place(xy):
        return np.column_stack(to_lonlat.transform(WEST + 10 * xy[:, 0], NORTH - 10 * xy[:, 1]))

    return shapely.transform(geometry, place)


def box_on_ground(*bounds):
    # projecting the corners alone would bow the edges of a box by less than a millimetre: these are 300 m long
    return on_ground(shapely.box(*bounds))


def is_nodata(pixels):
    return np.isin(pixels, np.array(NODATA_COLOURS)).all(axis=-1) & (np.ptp(pixels, axis=-1) == 0)


# values to colours


def test_band_triple_by_plain_numpy():
    image = codes_image()
    picture = np.asarray(vis.render_image(image, dimensions=16))
    k = image.codes[[1, 16, 9]].astype(float)
    v = np.sign(k) * (k / 127.5) ** 2
    expected = np.floor(np.clip((v + 0.3) / 0.6, 0, 1) * 255 + 0.5)
    assert np.array_equal(picture, np.moveaxis(expected, 0, -1))


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED}: the real files aren't here")
@pytest.mark.parametrize("name", ["DEFAULT", "ALT1", "ALT2"])
def test_real_pixels_by_plain_numpy(name):
    from gee_polygons.datasets import alpha_embeddings

    with rasterio.open(SHARED / "wisconsin_2024_64band_native10m_int8.tif") as file:
        codes, transform = file.read(), file.transform
    grid = Grid(crs=UTM, transform=tuple(transform)[:6], shape=codes.shape[1:])
    image = EmbeddingImage(values=codes, grid=grid, year=2024)
    params = getattr(alpha_embeddings, f"EMBEDDING_VIS_{name}")
    k = codes[[BANDS.index(band) for band in params["bands"]]].astype(float)
    share = np.clip((np.sign(k) * (k / 127.5) ** 2 - params["min"]) / (params["max"] - params["min"]), 0, 1)
    plain = np.moveaxis(np.floor(share * 255 + 0.5), 0, -1)
    assert np.array_equal(vis.render_image(image, vis_params=params, dimensions=97), plain)
    assert np.array_equal(vis.render_image(image, vis_params=params, dimensions=194), plain.repeat(2, 0).repeat(2, 1))

    vectors = np.sign(codes) * (codes / 127.5) ** 2
    rows = np.moveaxis(vectors, 0, -1).reshape(-1, 64)
    centred = rows - rows.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, :-4:-1].T
    axes *= np.sign(axes[range(3), np.abs(axes).argmax(axis=1)])[:, None]
    scores = centred @ axes.T
    low, high = np.percentile(scores, [2, 98], axis=0)
    plain = np.rint(np.clip((scores - low) / (high - low), 0, 1) * 255).reshape(97, 97, 3)
    assert np.array_equal(vis.render_image(image, vis_params="pca", dimensions=97), plain)


def test_codes_and_float32_copies_of_them_have_the_same_colours():
    every = np.arange(-127, 128).astype(np.int8)[None, None].repeat(3, axis=0)
    grid = Grid(crs=UTM, transform=(10, 0, WEST, 0, -10, NORTH), shape=(1, 255))
    codes = EmbeddingImage(values=every, grid=grid, bands=("A01", "A16", "A09"))
    floats = EmbeddingImage(values=codes.vectors, grid=grid, bands=codes.bands)
    for params in (None, {"bands": ["A01"], "min": -0.5, "max": 0.9, "palette": "viridis"}):
        pictures = [np.asarray(vis.render_image(image, None, params, 255)) for image in (codes, floats)]
        assert np.array_equal(*pictures)


def test_gamma_palette_and_grey_by_plain_numpy():
    image = codes_image()
    k = image.codes[5].astype(float)
    t = np.clip((np.sign(k) * (k / 127.5) ** 2 + 0.2) / 0.5, 0, 1)
    params = {"bands": ["A05"], "min": -0.2, "max": 0.3}
    grey = np.asarray(vis.render_image(image, vis_params=params, dimensions=16))
    assert np.array_equal(grey, np.repeat(np.floor(t * 255 + 0.5)[..., None], 3, axis=-1))
    bright = np.asarray(vis.render_image(image, vis_params={**params, "gamma": 2}, dimensions=16))
    assert np.array_equal(bright[..., 0], np.floor(np.sqrt(t) * 255 + 0.5))
    ramp = np.asarray(vis.render_image(image, vis_params={**params, "palette": ["black", "#ff0000"]}, dimensions=16))
    assert np.array_equal(ramp, np.floor(t * 255 + 0.5)[..., None] * [1, 0, 0])


def test_a_different_stretch_for_each_band():
    image = codes_image()
    params = vis.VisParams(bands=("A01", "A16", "A09"), min=(-0.3, -0.2, -0.1), max=(0.1, 0.2, 0.3))
    picture = np.asarray(vis.render_image(image, vis_params=params, dimensions=16))
    for channel, band in enumerate(params.bands):
        one = {"bands": [band], "min": params.min[channel], "max": params.max[channel]}
        grey = np.asarray(vis.render_image(image, vis_params=one, dimensions=16))
        assert np.array_equal(picture[..., channel], grey[..., 0])


def test_pca_colours_are_those_of_the_basis():
    image = codes_image(holes=True)
    basis = vis.fit_pca_colors(image)
    picture = np.asarray(vis.render_image(image, vis_params=basis, dimensions=16))
    expected = basis.rgb(np.moveaxis(image.vectors, 0, -1))
    assert np.array_equal(picture[image.valid], expected[image.valid])
    assert np.array_equal(picture, np.asarray(vis.render_image(image, vis_params="pca", dimensions=16)))


def test_similarity_colours():
    import matplotlib as mpl

    image = codes_image()
    reference = image.vectors[:, 4, 5]
    picture = np.asarray(vis.render_image(image, vis_params=vis.SimilarityColors(reference=reference), dimensions=16))
    assert picture[4, 5].tolist() == [round(255 * c) for c in mpl.colormaps["viridis"](1.0)[:3]]
    cosine = vis.similarity_image(image, reference)
    params = {"bands": ["cosine"], "min": 0, "max": 1, "palette": "viridis"}
    assert np.array_equal(picture, np.asarray(vis.render_image(cosine, vis_params=params, dimensions=16)))


def test_default_for_images_without_the_default_bands():
    image = codes_image()
    three = np.asarray(vis.render_image(image.select(("A50", "A51", "A52", "A53")), dimensions=16))
    assert np.array_equal(three, np.asarray(vis.render_image(image, None, {"bands": ["A50", "A51", "A52"]}, 16)))
    one = np.asarray(vis.render_image(image.select(("A50",)), dimensions=16))
    assert np.array_equal(one, np.asarray(vis.render_image(image, None, {"bands": ["A50"]}, 16)))


# ground to picture


def test_pixels_stay_pixels_when_magnified():
    image = position_image()
    native = np.asarray(vis.render_image(image, None, POSITION, 30))
    assert native[3, 8].tolist() == [8, 3, 7]
    large = np.asarray(vis.render_image(image, None, POSITION, 120))
    assert np.array_equal(large, native.repeat(4, axis=0).repeat(4, axis=1))


def test_fewer_pixels_are_averages_over_area():
    image = position_image()
    small = np.asarray(vis.render_image(image, None, POSITION, 10))
    assert small.shape == (7, 10, 3)
    # each picture pixel covers three columns; rows likewise, 20 of them in 7 about the middle
    assert small[3, :, 0].tolist() == list(range(1, 30, 3))
    half = np.asarray(vis.render_image(codes_image(), None, None, 8)).astype(float)
    full = np.asarray(vis.render_image(codes_image(), None, None, 16)).astype(float)
    blocks = full.reshape(6, 2, 8, 2, 3).mean(axis=(1, 3))
    assert np.array_equal(half, np.rint(blocks))


@pytest.mark.parametrize("bounds", [(3, 4, 23, 14), (0, 0, 30, 20), (29, 19, 30, 20)])
def test_a_region_cuts_whole_pixels(bounds):
    left, top, right, bottom = bounds
    picture = np.asarray(vis.render_image(position_image(), box_on_ground(*bounds), POSITION, (right - left)))
    rows, columns = np.mgrid[top:bottom, left:right]
    assert np.array_equal(picture, np.stack([columns, rows, np.full_like(rows, 7)], axis=-1))


def test_a_region_cuts_parts_of_pixels():
    # a quarter of a pixel at 8 picture pixels per pixel: 2 picture pixels of the first, then 8 of the next
    picture = np.asarray(vis.render_image(position_image(), box_on_ground(3.75, 4.5, 8.75, 8.5), POSITION, 40))
    assert picture.shape == (32, 40, 3)
    assert picture[0, :, 0].tolist() == [3] * 2 + [4] * 8 + [5] * 8 + [6] * 8 + [7] * 8 + [8] * 6
    assert picture[:, 0, 1].tolist() == [4] * 4 + [5] * 8 + [6] * 8 + [7] * 8 + [8] * 4


def test_ground_outside_the_image_is_hatched():
    picture = np.asarray(vis.render_image(position_image(), box_on_ground(-5, -2, 10, 8), POSITION, 15))
    outside = is_nodata(picture)
    assert outside[:2].all()
    assert outside[:, :5].all()
    assert not outside[2:, 5:].any()
    assert picture[2, 5].tolist() == [0, 0, 7]


def test_nodata_is_light_and_unlike_any_value():
    picture = np.asarray(vis.render_image(codes_image(holes=True), dimensions=160))
    hole = picture[30:60, 40:90]
    assert np.array_equal(hole, nodata_pattern(120, 160)[30:60, 40:90])
    assert hole.min() > 200
    assert len(np.unique(hole.reshape(-1, 3), axis=0)) == 2
    assert not is_nodata(picture)[:30].any()


def test_a_degree_grid_is_not_stretched():
    lat = 60.0
    image = position_image(50, 50, "EPSG:4326", (1e-4, 0, 10.0, 0, -1e-4, lat))
    picture = vis.render_image(image, None, POSITION, 400)
    _, _, across = pyproj.Geod(ellps="WGS84").inv(10.0, lat, 10.005, lat)
    _, _, upwards = pyproj.Geod(ellps="WGS84").inv(10.0, lat, 10.0, lat - 0.005)
    assert picture.height == 400
    assert picture.width == pytest.approx(400 * across / upwards, abs=1)
    view = view_of(image.grid, None, 400)
    assert view.metres_per_pixel == pytest.approx(upwards / 400, rel=1e-3)
    assert view.north_deg == pytest.approx(0, abs=1e-6)


def test_scale_and_north_of_a_utm_grid():
    view = view_of(position_image().grid, None, 300)
    # 100 km west of the central meridian, where the scale of UTM is 0.9996 (1 + d^2 / 2R^2), and the convergence
    # is (longitude difference) sin(latitude)
    assert view.metres_per_pixel == pytest.approx(1 / (0.9996 * (1 + (100e3 / 6.378e6) ** 2 / 2)), rel=1e-5)
    lon, lat = pyproj.Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform(WEST, NORTH)
    assert view.north_deg == pytest.approx(-(lon + 87) * np.sin(np.radians(lat)), abs=0.01)


@pytest.mark.parametrize(
    ("dimensions", "size"),
    [(60, (60, 40)), ((60, 60), (60, 40)), ((60, 20), (30, 20)), ("90x20", (30, 20)), ("60", (60, 40)), (1, (1, 1))],
)
def test_dimensions_bound_the_picture(dimensions, size):
    assert vis.render_image(position_image(), None, POSITION, dimensions).size == size


def test_the_scale_is_the_same_both_ways_also_where_sides_dont_come_out_whole():
    for size in (7, 10, 31, 53):
        view = view_of(position_image(17, 30).grid, None, size)
        assert (view.east - view.west) / view.width == pytest.approx((view.north - view.south) / view.height)


# what stands over pixels


def test_boundary_is_drawn_where_it_is_with_holes_and_parts():
    outer = shapely.box(4, 4, 16, 16)
    hole = shapely.box(8, 8, 12, 12)
    other = shapely.box(20, 5, 25, 10)
    plain = np.asarray(vis.render_image(position_image(), None, POSITION, 300)).astype(int)
    drawn = np.asarray(
        vis.render_image(
            position_image(),
            None,
            POSITION,
            300,
            on_ground(shapely.union_all([outer - hole, other])),
            boundary_color="#ff00ff",
            boundary_width=3,
        )
    ).astype(int)
    y, x = np.mgrid[:200, :300] + 0.5
    points = shapely.points(x / 10, y / 10)
    lines = shapely.union_all([outer.boundary, hole.boundary, other.boundary])
    distance = shapely.distance(points, lines) * 10
    magenta = (drawn == [255, 0, 255]).all(axis=-1)
    assert magenta[distance < 1].all()
    assert not magenta[distance > 2].any()
    # halo of 0.4 of the width, then nothing
    assert np.array_equal(drawn[distance > 4], plain[distance > 4])
    assert (drawn[(distance > 1.6) & (distance < 2.2)] != plain[(distance > 1.6) & (distance < 2.2)]).any(axis=-1).all()


def test_boundary_is_antialiased():
    line = on_ground(shapely.LineString([(0, 3), (30, 12)]))
    plain = vis.VisParams(bands=("A09",), min=0, max=7)  # white everywhere
    picture = np.asarray(
        vis.render_image(position_image(), None, plain, 300, line, boundary_color="black", boundary_width=4)
    )
    assert len(np.unique(picture)) > 8


@pytest.mark.parametrize(("name", "light"), [("white", False), ("black", True), ("yellow", False), ("#000080", True)])
def test_the_halo_contrasts_with_the_line(name, light):
    grey = vis.VisParams(bands=("A09",), min=0, max=14)
    picture = np.asarray(
        vis.render_image(
            position_image(),
            None,
            grey,
            300,
            on_ground(shapely.LineString([(0, 10), (30, 10)])),
            boundary_color=name,
            boundary_width=6,
        )
    )
    # the line is 6 wide about row 100, its halo 2.4 beyond that
    assert (picture[104, 150] > 200).all() == light
    assert (picture[104, 150] < 100).all() != light


def test_colours_are_understood_in_all_ways():
    boundary = box_on_ground(5, 5, 15, 15)
    pictures = [
        np.asarray(vis.render_image(position_image(), None, POSITION, 100, boundary, boundary_color=colour))
        for colour in ("orange", "#ffa500", "ffa500", "#FFA500", (255, 165, 0))
    ]
    assert all(np.array_equal(pictures[0], other) for other in pictures[1:])


@pytest.mark.parametrize("corner", ["top-left", "top-right", "bottom-left", "bottom-right"])
def test_a_label_stays_in_its_corner(corner):
    plain = np.asarray(vis.render_image(position_image(), None, POSITION, 300))
    picture = np.asarray(vis.render_image(position_image(), None, POSITION, 300, None, "2024", label_position=corner))
    rows, columns = np.nonzero((plain != picture).any(axis=-1))
    assert (rows.max() < 50) if "top" in corner else (rows.min() > 150)
    assert (columns.max() < 100) if "left" in corner else (columns.min() > 200)
    # white letters on a dark plate, whatever is behind
    plate = picture[rows.min() : rows.max(), columns.min() : columns.max()]
    assert plate.max() > 245
    assert np.median(plate) < 80


def test_accents_have_letters_of_their_own():
    shapes = [
        np.asarray(vis.render_image(position_image(), None, POSITION, 300, label=letter)).tobytes()
        for letter in ("a", "ã", "á", "ç", "c")
    ]
    assert len(set(shapes)) == len(shapes)


def test_plates_never_cover_each_other_and_long_labels_fit():
    image = codes_image()
    reference = vis.SimilarityColors(reference=image.vectors[:, 0, 0])
    for size in (40, 120, 300):
        everything = vis.render_image(
            image,
            None,
            reference,
            size,
            None,
            "A label far too long for a picture as small as this one is " * 3,
            label_position="bottom-right",
            scale_bar=True,
            north_arrow=True,
            legend=True,
        )
        assert max(everything.size) == size


def test_scale_bar_has_the_length_it_says():
    white = vis.VisParams(bands=("A09",), min=0, max=14)
    picture = np.asarray(vis.render_image(position_image(), None, white, 600, scale_bar=True))
    # 300 m across 600 pixels: at most 28 % is 84 m, so 50 m, 100 pixels
    lowest = max(np.flatnonzero((picture > 250).all(axis=-1).any(axis=1)))
    assert np.count_nonzero((picture[lowest] > 250).all(axis=-1)) == pytest.approx(100, abs=1)
    assert [round_length(v) for v in (1, 4.9, 5, 19.99, 84, 2500)] == [1, 2, 5, 10, 50, 2000]


def test_what_must_be_said_is_in_the_picture_and_in_the_file(tmp_path):
    frame = vis.render_image(codes_image(), dimensions=32)
    assert "Google DeepMind" in frame.info["Attribution"]
    with Image.open(vis.export_frames_as_strip([frame, frame], tmp_path / "a.png")) as strip:
        assert strip.text["Attribution"] == frame.info["Attribution"]
        assert strip.text["Source"] == "test"
    with Image.open(vis.export_frames_as_gif([frame, frame], tmp_path / "a.gif")) as film:
        assert "Google DeepMind" in film.info["comment"].decode()
    for name in ("a.jpg", "still.webp", "moving.webp"):
        export = vis.export_frames_as_gif if name == "moving.webp" else vis.export_frames_as_strip
        with Image.open(export([frame, frame], tmp_path / name)) as picture:
            exif = picture.getexif()
            assert exif[ExifTags.Base.Copyright] == frame.info["Attribution"]
            assert exif[ExifTags.Base.ImageDescription] == "test"
    synthetic = EmbeddingImage(values=codes_image().values, grid=codes_image().grid, source="sample")
    assert "not AlphaEarth data" in vis.render_image(synthetic, dimensions=32).info["Attribution"]


# bad calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vis_params": {"bands": ["A99"]}}, "unknown band 'A99'"),
        ({"vis_params": {"bands": ["A01", "A02"]}}, "1 or 3 bands, found 2"),
        ({"vis_params": {"minimum": 3}}, "unknown entry 'minimum'; it takes bands, min, max, palette, gamma"),
        ({"vis_params": {"min": 1, "max": 0}}, "min must be below max"),
        ({"vis_params": {"min": "low"}}, "min is a number"),
        ({"vis_params": {"max": [1, 2]}}, "max is a number, or one per band"),
        ({"vis_params": {"gamma": 0}}, "gamma must be above 0"),
        ({"vis_params": {"palette": ["red"]}}, "a palette needs one band"),
        ({"vis_params": {"bands": ["A01"], "palette": "jetset"}}, "unknown palette 'jetset'"),
        ({"vis_params": {"bands": ["A01"], "palette": ["nocolour", "red"]}}, "unknown colour 'nocolour'"),
        ({"vis_params": "viridis"}, "the only word is 'pca'"),
        ({"vis_params": 3}, "vis_params is a VisParams"),
        ({"dimensions": 0}, "dimensions is a number of pixels"),
        ({"dimensions": "bigxbig"}, "found 'bigxbig'"),
        ({"dimensions": (1, 2, 3)}, r"found \(1, 2, 3\)"),
        ({"dimensions": 20_000}, r"each 1\.\.10000"),
        ({"region": shapely.box(0, 0, 1, 1)}, "lies outside the image"),
        ({"region": shapely.Polygon()}, "the region is empty"),
        ({"region": shapely.Point(0, 0)}, "the region is a point"),
        ({"region": (0, 0, 1, 1)}, "a shapely geometry in EPSG:4326 is needed, found tuple"),
        ({"region": shapely.box(400000, 4800000, 500000, 4900000)}, "lies outside the image"),
        ({"boundary": shapely.Point(-88, 44)}, "boundary is a polygon or a line"),
        ({"boundary_color": "blurple", "boundary": shapely.box(0, 0, 1, 1)}, "unknown colour 'blurple'"),
        ({"boundary_width": 0, "boundary": shapely.box(0, 0, 1, 1)}, "boundary_width"),
        ({"label": "x", "label_position": "middle"}, "unknown corner 'middle'; choose top-left"),
        ({"image": np.zeros((3, 4, 4))}, "an EmbeddingImage or an ee.Image, found ndarray"),
    ],
)
def test_bad_calls_get_one_line(options, message):
    with pytest.raises(UsageError, match=message) as caught:
        vis.render_image(**{"image": codes_image(), **options})
    assert "\n" not in str(caught.value)


def test_pca_and_similarity_need_all_bands():
    image = position_image()
    with pytest.raises(UsageError, match="3 of the 64 bands"):
        vis.render_image(image, vis_params="pca")


# Earth Engine


# strips and films


def frame(colour, size=(40, 30)):
    return Image.new("RGB", size, colour)


def test_a_strip_stands_in_one_row(tmp_path):
    with Image.open(vis.export_frames_as_strip([frame("red"), frame("blue")], tmp_path / "s.png", gap=5)) as strip:
        assert strip.size == (5 + 45 * 2, 40)
        assert strip.getpixel((6, 6)) == (255, 0, 0)
        assert strip.getpixel((51, 6)) == (0, 0, 255)
        assert strip.getpixel((2, 2)) == (255, 255, 255)


def test_a_strip_wraps_and_centres_unequal_frames(tmp_path):
    frames = [frame("red"), frame("green", (20, 10)), frame("blue")]
    path = vis.export_frames_as_strip(frames, tmp_path / "s.png", columns=2, gap=4, background="#101010")
    with Image.open(path) as strip:
        assert strip.size == (4 + 44 * 2, 4 + 34 * 2)
        assert strip.getpixel((48 + 20, 4 + 15)) == (0, 128, 0)
        assert strip.getpixel((48 + 2, 4 + 2)) == (16, 16, 16)
        assert strip.getpixel((5, 39)) == (0, 0, 255)
        assert strip.getpixel((60, 50)) == (16, 16, 16)


def test_many_frames_wrap_into_equal_rows(tmp_path):
    with Image.open(vis.export_frames_as_strip([frame("red")] * 10, tmp_path / "s.png", gap=0)) as strip:
        assert strip.size == (5 * 40, 2 * 30)
    with Image.open(vis.export_frames_as_strip([frame("red")] * 8, tmp_path / "t.png", gap=0)) as strip:
        assert strip.size == (8 * 40, 30)


def test_a_long_title_is_set_smaller_and_cut(tmp_path):
    frames = [frame("teal", (120, 60)), frame("teal", (120, 60))]
    with Image.open(vis.export_frames_as_strip(frames, tmp_path / "a.png", titles=["i", "wide " * 30], gap=6)) as strip:
        above = np.asarray(strip.convert("L"))[:15]
    # nothing between the cells, nor at the edge
    assert (above[:, 60:132] == 255).all(axis=None) or (above[:, 124:132] == 255).all()
    assert (above[:, -4:] == 255).all()


def test_titles_stand_above_their_frames(tmp_path):
    frames = [frame("red", (200, 100)), frame("blue", (200, 100))]
    with Image.open(vis.export_frames_as_strip(frames, tmp_path / "s.png", titles=["2018", "2024"], gap=0)) as strip:
        pixels = np.asarray(strip)
    assert pixels.shape[0] > 100
    above = pixels[: pixels.shape[0] - 100]
    for half in (above[:, :200], above[:, 200:]):
        dark = np.flatnonzero((half < 100).all(axis=-1).any(axis=0))
        assert 60 < dark.mean() < 140


def test_outputs_are_whole_repeatable_and_where_asked(tmp_path):
    frames = [frame("red"), np.full((30, 40, 3), 7, np.uint8)]
    for name in ("new/folder/a.png", "new/folder/a.jpg", "new/folder/a.webp", "new/folder/a.gif"):
        export = vis.export_frames_as_gif if name.endswith("gif") else vis.export_frames_as_strip
        first = export(frames, tmp_path / name)
        assert first == tmp_path / name
        bytes_of = first.read_bytes()
        assert export(frames, tmp_path / name).read_bytes() == bytes_of
    assert sorted(p.name for p in (tmp_path / "new/folder").iterdir()) == ["a.gif", "a.jpg", "a.png", "a.webp"]
    (tmp_path / "b.png").mkdir()
    with pytest.raises(OutputError, match="folder"):
        vis.export_frames_as_strip(frames, tmp_path / "b.png")
    with pytest.raises(OutputError, match="can't write"):
        vis.export_frames_as_strip(frames, tmp_path / "new/folder/a.png/c.png")


def gif_colour_tables(data):
    """Walk a GIF: the global colour table, and how many frames bring one of their own."""
    assert data[:6] == b"GIF89a"
    flags = data[10]
    size = 3 * 2 ** ((flags & 7) + 1)
    table, at, own, frames = data[13 : 13 + size], 13 + size, 0, 0
    while data[at : at + 1] != b";":
        if data[at : at + 1] == b"!":
            at += 2
        else:
            assert data[at : at + 1] == b","
            frames += 1
            local = data[at + 9]
            own += local >> 7
            at += 10 + (3 * 2 ** ((local & 7) + 1) if local >> 7 else 0) + 1
        while data[at]:
            at += data[at] + 1
        at += 1
    return table, own, frames


def noisy_frames(n=4, shape=(40, 50)):
    """Each frame is other noise, but for a block that stays."""
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (10, 10, 3), np.uint8)
    frames = [rng.integers(0, 256, (*shape, 3), np.uint8) for _ in range(n)]
    for pixels in frames:
        pixels[:10, :10] = still
    return frames


def test_a_gif_has_one_palette_and_still_colours_stay_still(tmp_path):
    path = vis.export_frames_as_gif(noisy_frames(), tmp_path / "a.gif", duration_ms=[100, 200, 300, 400])
    table, own, n_frames = gif_colour_tables(path.read_bytes())
    assert (len(table), own, n_frames) == (768, 0, 4)
    with Image.open(path) as film:
        assert film.n_frames == 4
        seen, durations = [], []
        for number in range(4):
            film.seek(number)
            durations.append(film.info["duration"])
            seen.append(np.asarray(film.convert("RGB")))
    assert durations == [100, 200, 300, 400]
    for pixels in seen[1:]:
        assert np.array_equal(pixels[:10, :10], seen[0][:10, :10])
    palette = {tuple(c) for c in np.frombuffer(table, np.uint8).reshape(-1, 3)}
    assert {tuple(c) for pixels in seen for c in pixels.reshape(-1, 3)} <= palette


def test_few_colours_survive_exactly_and_equal_frames_stay(tmp_path):
    frames = [frame("red"), frame("red"), frame("#123456", (20, 10))]
    with Image.open(vis.export_frames_as_gif(frames, tmp_path / "a.gif")) as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (3, (40, 30), 0)
        film.seek(1)
        assert film.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
        film.seek(2)
        last = film.convert("RGB")
        assert last.getpixel((20, 15)) == (0x12, 0x34, 0x56)
        assert last.getpixel((1, 1)) == (255, 255, 255)
    with Image.open(vis.export_frames_as_gif(frames, tmp_path / "b.gif", loop=None)) as film:
        assert "loop" not in film.info
    with Image.open(vis.export_frames_as_gif(frames[:1], tmp_path / "c.gif", 500, 3)) as film:
        assert film.n_frames == 1


def test_imageio_reads_what_was_written(tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    path = vis.export_frames_as_gif([frame("red"), frame("blue"), frame("lime")], tmp_path / "a.gif")
    assert imageio.imread(path, index=None)[:, 3, 3, :3].tolist() == [[255, 0, 0], [0, 0, 255], [0, 255, 0]]


@pytest.mark.parametrize(("loop", "said"), [(0, 0), (3, 3), (None, 1)])
def test_webp_keeps_all_colours_durations_and_loops(tmp_path, loop, said):
    frames, durations = noisy_frames(3), [250, 40, 1001]
    with Image.open(vis.export_frames_as_gif(frames, tmp_path / "a.webp", durations, loop)) as film:
        assert (film.n_frames, film.info["loop"]) == (3, said)
        shown = 0
        for number, made in enumerate(frames):
            film.seek(number)
            assert np.array_equal(np.asarray(film.convert("RGB")), made)
            assert film.info["timestamp"] == shown
            shown += durations[number]


def test_mp4_shows_each_frame_for_as_long_as_it_should(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs ffmpeg: pip install imageio-ffmpeg").get_ffmpeg_exe()
    colours, durations = ("red", "blue", "lime"), [500, 700, 301]
    # odd sides get a white line: most players need even ones
    frames = [frame(colour, (61, 41)) for colour in colours]
    frames[0].info["Attribution"] = "by somebody"
    path = vis.export_frames_as_gif(frames, tmp_path / "a.mp4", durations)
    decode = [ffmpeg, "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(decode, capture_output=True, check=True)
    assert b"Duration: 00:00:01.50" in done.stderr
    assert b"yuv420p" in done.stderr  # what all players know
    assert b"by somebody" in done.stderr
    film = np.frombuffer(done.stdout, np.uint8).reshape(-1, 42, 62, 3).astype(int)
    made = np.array([np.asarray(picture)[0, 0] for picture in frames], int)
    shown = np.abs(film[:, None, 20, 30] - made).sum(axis=-1).argmin(axis=1)
    assert (np.bincount(shown) * 20).tolist() == [500, 700, 300]
    assert (np.diff(shown) >= 0).all()
    assert np.abs(film[:, 4:36, 4:56] - made[shown][:, None, None]).max() < 16
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("export", "frames", "name", "options", "message"),
    [
        ("strip", [], "a.png", {}, "there are no frames"),
        ("gif", [], "a.gif", {}, "there are no frames"),
        ("strip", frame("red"), "a.png", {}, "a list of pictures"),
        ("strip", ["a.png"], "a.png", {}, "frame 0 is not a picture but a str"),
        ("strip", [np.zeros((3, 3))], "a.png", {}, "uint8 of shape"),
        ("strip", [frame("red")], "a.tiff", {}, "must end in .png"),
        ("strip", [frame("red")], "a.gif", {}, "must end in .png"),
        ("gif", [frame("red")], "a.png", {}, "must end in .gif"),
        ("strip", [frame("red")], "a.png", {"titles": ["a", "b"]}, "1 frames need as many titles, found 2"),
        ("strip", [frame("red")], "a.png", {"columns": 0}, "columns is a number"),
        ("strip", [frame("red")], "a.png", {"gap": -1}, "gap is a number"),
        ("strip", [frame("red")], "a.png", {"background": "nope"}, "unknown colour"),
        ("gif", [frame("red")], "a.gif", {"duration_ms": 1}, "duration_ms is 20"),
        ("gif", [frame("red")], "a.gif", {"duration_ms": [100, 100]}, "need as many durations"),
        ("gif", [frame("red")], "a.gif", {"loop": -1}, "loop is 0"),
    ],
)
def test_bad_frames_get_one_line_and_leave_nothing(tmp_path, export, frames, name, options, message):
    function = vis.export_frames_as_strip if export == "strip" else vis.export_frames_as_gif
    with pytest.raises(UsageError, match=message):
        function(frames, tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


# a site's years


@pytest.fixture(scope="module")
def years_of_a_place(tmp_path_factory):
    """An archive of three years, 60 x 80 pixels, with its north-west corner where the images above have theirs."""
    tiles = [
        FakeTile(crs=UTM, col=40_000, row=-490_000, codes=random_codes((60, 80), seed=year), name=str(year), year=year)
        for year in (2018, 2019, 2021)
    ]
    return make_archive(tmp_path_factory.mktemp("years"), tiles)


def site(name="a"):
    return Site(polygon=box_on_ground(30, 25, 50, 40), site_id=name)


def test_a_timestrip_shows_all_years_in_the_same_colours(tmp_path, years_of_a_place):
    common = {"source": years_of_a_place, "dimensions": 140, "buffer_m": 150, "dpi": 144}
    path = vis.export_timestrip(site(), tmp_path / "years.png", vis_params=None, **common)
    region = site().region(150)
    made = np.asarray(vis.render_image(years_of_a_place.image(region, 2019), region, None, 140))
    with Image.open(path) as strip:
        pixels, dots = np.asarray(strip), strip.info["dpi"]
        credit = strip.text["Attribution"]
    assert (pixels.shape[1], round(dots[0])) == (6 + 3 * 146, 144)
    assert "Google DeepMind" in credit
    # the second frame, between its title and the caption; the outline is drawn over its middle
    left = 6 + 146
    tops = [y for y in range(80) if np.array_equal(pixels[y, left : left + 140], made[0])]
    assert tops
    assert np.array_equal(pixels[tops[0] : tops[0] + len(made), left : left + 10], made[:, :10])
    for text in (pixels[: tops[0]], pixels[tops[0] + len(made) :]):
        assert (text[:3] == 255).all()
        assert 40 < len(text) < 120
        assert (text < 100).any()
    vis.export_timestrip(site(), tmp_path / "pca.png", **common)
    basis = vis.PcaColors.load(tmp_path / "pca.pca.json")
    assert basis.count == 3 * years_of_a_place.image(region, 2019).valid.size
    # a file of colours gives the same picture; other colours leave no basis of the former ones
    again = vis.export_timestrip(site(), tmp_path / "again.png", vis_params=tmp_path / "pca.pca.json", **common)
    assert again.read_bytes() == (tmp_path / "pca.png").read_bytes()
    assert not (tmp_path / "again.pca.json").exists()
    vis.export_timestrip(site(), tmp_path / "pca.png", vis_params=vis.VisParams(), **common)
    assert not (tmp_path / "pca.pca.json").exists()


def test_a_year_that_the_source_lacks_is_hatched(tmp_path, years_of_a_place):
    common = {"source": years_of_a_place, "dimensions": 140, "buffer_m": 150, "dpi": 72}
    with Image.open(vis.export_timestrip(site(), tmp_path / "s.png", years=[2019, 2020], **common)) as strip:
        second = np.asarray(strip)[30:120, 3 + 143 : -3]
    assert is_nodata(second[20:]).all()
    assert (second[:20] < 120).any()  # it says so
    with pytest.raises(UsageError, match=r"has none of the years \[1999\]; it has 2018..2021"):
        vis.export_timestrip(site(), tmp_path / "s.png", years=[1999], **common)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".pdf", ".svg"])
def test_a_page_has_its_width_text_and_credit_in_every_format(tmp_path, years_of_a_place, suffix):
    """18 cm wide with years of 8 points: at 300 dpi, or as text that stays text."""
    path = tmp_path / f"page{suffix}"
    vis.export_timestrip(site("HILL"), path, source=years_of_a_place, columns=3, width_mm=180)
    data = path.read_bytes()
    assert vis.export_timestrip(site("HILL"), path, source=years_of_a_place, columns=3, width_mm=180) == path
    assert path.read_bytes() == data
    credit = b"produced by Google and Google DeepMind"
    if suffix == ".pdf":
        assert b"/MediaBox [ 0 0 510." in data
        assert credit in data
        assert b"DejaVuSans-Bold" in data  # text, not pixels
    elif suffix == ".svg":
        assert b'width="510.' in data
        assert credit in data
    else:
        with Image.open(path) as picture:
            assert picture.width == 2126
            pixels = np.asarray(picture.convert("L"))
            if suffix != ".webp":
                assert round(picture.info["dpi"][0]) == 300
        # capitals of 8 points are 5.8 points high: 24 pixels
        first = np.flatnonzero((pixels[:, :600] < 128).any(axis=1))
        lines = np.split(first, np.flatnonzero(np.diff(first) > 1) + 1)
        assert [abs(len(line) - height) <= 2 for line, height in zip(lines, (27, 24), strict=False)] == [True, True]


def test_settings_of_matplotlib_change_no_picture(tmp_path, years_of_a_place):
    import matplotlib as mpl

    common = {"source": years_of_a_place, "dimensions": 60, "buffer_m": 150}
    usual = vis.export_timestrip(site("a $x$ b"), tmp_path / "a.png", **common)
    theirs = {"savefig.transparent": True, "savefig.bbox": "tight", "text.usetex": True, "font.family": "serif"}
    with mpl.rc_context({**theirs, "figure.facecolor": "red", "axes.facecolor": "red", "image.cmap": "jet"}):
        other = vis.export_timestrip(site("a $x$ b"), tmp_path / "b.png", **common)
    assert usual.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("n_sites", "n_years", "columns", "shape"),
    [
        (12, 1, None, [6, 6]),
        (12, 1, 4, [4, 4, 4]),
        (5, 2, None, [8, 2]),
        (3, 7, None, [7, 7, 7]),
        (2, 7, 4, [4, 3, 4, 3]),
        (1, 12, None, [6, 6]),
        (2, 3, 6, [6]),
    ],
)
def test_a_sheet_fills_its_rows(n_sites, n_years, columns, shape):
    rows = sites_in_rows(n_sites, n_years, columns)
    assert [len(row) for row in rows] == shape
    assert [place for row in rows for place in row] == [(s, y) for s in range(n_sites) for y in range(n_years)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": 100, "dpi": 300, "width_mm": 180}, "leave one out"),
        ({"dpi": 5}, "dpi is a number 20..2400"),
        ({"width_mm": 5000}, "width_mm is a number 20..2000"),
        ({"width_mm": 20, "columns": 40, "dpi": 20}, "choose other columns, dpi or width_mm"),
        ({"columns": 0}, "columns is a number"),
        ({"vis_params": "no.pca.json"}, "can't read the colour basis"),
    ],
)
def test_a_page_that_cant_be_drawn_gets_one_line(tmp_path, years_of_a_place, options, message):
    with pytest.raises((UsageError, InputFileError), match=message):
        vis.export_timestrip(site(), tmp_path / "a.png", source=years_of_a_place, **options)
    assert not list(tmp_path.iterdir())


def test_shades_between_the_colours_of_a_palette_stay(tmp_path):
    ramp = np.linspace(0, 255, 200).astype(np.uint8)
    red, green = np.meshgrid(ramp, ramp)
    frames = [np.stack([red, green, np.full_like(red, blue)], axis=-1) for blue in (0, 40, 80, 120)]
    with Image.open(vis.export_frames_as_gif(frames, tmp_path / "a.gif")) as film:
        for number, made in enumerate(frames):
            film.seek(number)
            # the eye takes the mean of neighbours
            seen, true = (Image.fromarray(np.asarray(p)).reduce(8) for p in (film.convert("RGB"), made))
            off = np.abs(np.asarray(seen, float) - np.asarray(true, float))
            assert off.mean() < 4
            assert np.percentile(off, 99) < 16


def test_cosine_to_the_pixel_at_a_point():
    image = codes_image()
    spot = box_on_ground(3, 2, 4, 3).centroid
    style = vis.SimilarityColors.to_point(image, spot.x, spot.y, min=0.5)
    cosine = vis.similarity_image(image, style.reference)
    assert (np.nanmax(cosine.values), style.min) == (pytest.approx(1.0, abs=1e-6), 0.5)
    assert f"{spot.y:.4f}" in style.label
    with pytest.raises(UsageError, match="no data at"):
        vis.SimilarityColors.to_point(image, 0.0, 0.0)


def test_a_sample_archive_is_called_synthetic_under_any_path(sample_archive, sample_sites):
    from gee_polygons import open_source

    image = open_source(str(sample_archive)).image(sample_sites["hole"].polygon, 2020)
    assert "Synthetic" in vis.render_image(image, dimensions=50).info["Attribution"]


def test_a_sheet_has_equal_cells_and_names_what_has_no_data(tmp_path, sample_archive, sample_sites):
    # 2020 is masked for the first of these
    chosen = [sample_sites[name] for name in ("pasture-fast", "zone-seam-long")]
    path = vis.contact_sheet(chosen, tmp_path / "c.png", source=str(sample_archive), years=[2019, 2020], dimensions=150)
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("L"))
    blank = (pixels == 255).all(axis=1)
    heights = np.diff(np.flatnonzero(np.diff(np.r_[True, blank, True].astype(int))))[::2]
    assert np.ptp([h for h in heights if h > 100]) <= 1


def test_timelapse_and_contact_sheet(tmp_path, years_of_a_place):
    common = {"source": years_of_a_place, "dimensions": 140, "buffer_m": 150}
    with Image.open(vis.export_timelapse(site(), tmp_path / "t.gif", **common)) as film:
        assert film.n_frames == 3
        frames = []
        for number in range(3):
            film.seek(number)
            frames.append(np.asarray(film.convert("RGB")))
    changes = np.flatnonzero((frames[0] != frames[1]).any(axis=(1, 2)))
    assert changes.max() < len(frames[0]) - 30  # what stands under the frames stands still
    with Image.open(vis.contact_sheet([site("a"), site("b")], tmp_path / "c.png", **common)) as sheet:
        assert sheet.width > 3 * 140
        assert sheet.height > 2 * 100
    with pytest.raises(UsageError, match="at least one site"):
        vis.contact_sheet([], tmp_path / "c.png", **common)


# diagrams


def yearly_table(n_sites=3, statistics=False):
    rng = np.random.default_rng(5)
    rows = []
    for site in range(n_sites):
        start = rng.normal(size=64)
        for year in range(2018, 2025):
            start = start + rng.normal(size=64) * 0.1
            rows.append([f"s{site}", year, *(start / np.linalg.norm(start) * 0.95)])
    table = pd.DataFrame(rows, columns=["site_id", "year", *BANDS])
    if statistics:
        table = table.rename(columns={b: f"{b}_mean" for b in BANDS})
        spread = pd.DataFrame(0.05, index=table.index, columns=[f"{b}_std" for b in BANDS])
        table = pd.concat([table, spread], axis=1)
    return table


def test_heat_map_has_its_values_in_readable_colours():
    matrix = vis.similarity_matrix(yearly_table(), site_id="s1")
    ax = vis.plot_similarity_matrix(matrix, title="s1")
    texts = [t.get_text() for t in ax.texts]
    assert texts[0] == "1"
    assert texts[1] == f"{matrix.iloc[0, 1]:.{len(texts[1]) - 2}f}"
    assert len(texts) == 49
    assert {t.get_color() for t in ax.texts} == {"white", "#222222"}
    assert ax.get_title() == "s1"
    assert ax.child_axes[0].get_ylabel() == "cosine similarity"
    assert [t.get_text() for t in ax.get_xticklabels()] == [str(y) for y in range(2018, 2025)]
    dot = vis.plot_similarity_matrix(vis.similarity_matrix(yearly_table(), site_id="s1", kind="dot"))
    assert dot.child_axes[0].get_ylabel() == "dot product of means"


def test_a_map_says_what_grey_means(sample_sites):
    frame = sample_sites.to_geodataframe()
    few = vis.plot_sites(frame, color="start_year")  # a few years are read off a list
    assert [t.get_text() for t in few.get_legend().get_texts()] == ["2018", "2019", "2020", "2021", "2022", "no value"]
    many = vis.plot_sites(frame, color=frame["start_year"] + np.linspace(0, 0.5, len(frame)))
    assert many.get_title(loc="left") == "grey: no value"
    assert many.get_legend() is None
    assert vis.plot_sites(frame).get_legend() is None


@pytest.mark.parametrize("values", [["#ff0000", "#00ff00"], ["wood", "grass"], [0.5, 1.5], [2020, 2022]])
def test_points_without_a_value_are_grey_and_named(values):
    table = yearly_table()
    table["property"] = pd.Series([values[i % 2] for i in range(len(table))], dtype=object)
    table.loc[3, "property"] = None
    table["property"] = table["property"].infer_objects()
    ax = vis.plot_pca_scatter(table, color="property")
    drawn = np.concatenate([points.get_facecolor() for points in ax.collections])
    assert len(drawn) == len(table)
    assert len(np.unique(drawn, axis=0)) == 3
    grey = np.ptp(drawn[:, :3], axis=1) == 0
    assert grey.sum() == 1
    legend = [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []
    assert values[0] == "#ff0000" or "no value" in legend or ax.get_title(loc="left") == "grey: no value"


def test_names_on_a_map_stand_beside_their_sites_and_cover_no_other(sample_sites):
    frame = sample_sites.to_geodataframe()
    ax = vis.plot_sites(frame)
    ax.figure.canvas.draw()
    boxes = {text.get_text(): text.get_window_extent() for text in ax.texts}
    sites = {
        str(site): ax.transData.transform(np.reshape(polygon.bounds, (2, 2)))
        for site, polygon in zip(frame["site_id"], frame.geometry, strict=True)
    }
    named = [name for name in boxes if name in sites]
    assert len(named) >= 6
    for name in named:
        own, gaps = boxes[name], {}
        for other, ((left, bottom), (right, top)) in sites.items():
            apart = max(left - own.x1, own.x0 - right, bottom - own.y1, own.y0 - top)
            assert apart > -1, (name, other)
            gaps[other] = apart
        assert min(gaps, key=gaps.get) == name  # nobody takes it for another site's
        assert not any(own.overlaps(boxes[other]) for other in named if other != name)
    for text in ax.texts:
        if text.get_text().endswith("km"):
            break
    else:
        raise AssertionError("no scale bar")


@pytest.fixture
def tile_server():
    """Serve orange tiles of a base map at /z/x/y.png: a URL, and the paths that were asked for."""
    buffer = io.BytesIO()
    Image.new("RGB", (256, 256), "#ff8000").save(buffer, "PNG")
    asked = []

    class Tiles(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(buffer.getvalue())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tiles)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{{z}}/{{x}}/{{y}}.png", asked
    server.shutdown()
    server.server_close()


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # of contextily
def test_a_base_map_is_drawn_below_the_sites_where_there_is_a_network(tile_server, sample_sites, tmp_path, monkeypatch):
    pytest.importorskip("contextily")
    url, asked = tile_server
    ax = vis.plot_sites(sample_sites, basemap=url)
    assert 1 <= len(asked) < 30
    with Image.open(vis.save_plot(ax, tmp_path / "map.png", dpi=60)) as picture:
        orange = (np.abs(np.asarray(picture, int) - (255, 128, 0)) < 8).all(axis=-1)
    assert orange.mean() > 0.4
    alone = vis.plot_sites(sample_sites)
    assert np.allclose(ax.axis(), alone.axis())
    nowhere = "http://127.0.0.1:9/{z}/{x}/{y}.png"
    with pytest.warns(DataWarning, match="no base map below the sites: .* they are drawn without it") as caught:
        assert not vis.plot_sites(sample_sites, basemap=nowhere).images
    assert "\n" not in str(caught[0].message)
    with pytest.raises(UsageError, match="no base map is called 'Nowhere'"):
        vis.plot_sites(sample_sites, basemap="Nowhere")
    assert tiles_of("Esri.WorldImagery").build_url().endswith("/{z}/{y}/{x}")  # what site.show() takes
    monkeypatch.setitem(sys.modules, "contextily", None)
    with pytest.raises(DependencyError, match=r"pip install \"gee_polygons\[basemap\]\""):
        vis.plot_sites(sample_sites, basemap=True)


def test_points_are_no_sites():
    geopandas = pytest.importorskip("geopandas")
    with pytest.raises(UsageError, match="sites are polygons, found a Point"):
        vis.plot_sites(geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs="EPSG:4326"))


def test_heat_map_draws_into_the_axes_given_and_shows_gaps():
    from matplotlib.figure import Figure

    table = yearly_table(1)
    table.loc[2, list(BANDS)] = np.nan
    given = Figure().subplots()
    ax = vis.plot_similarity_matrix(vis.similarity_matrix(table), ax=given, colorbar=False)
    assert ax is given
    assert len(ax.texts) == 49 - 13
    assert ax.get_xlabel() == "grey: no data"
    with pytest.raises(UsageError, match="square"):
        vis.plot_similarity_matrix(pd.DataFrame(np.zeros((2, 3))))
    with pytest.raises(UsageError, match="unknown colour map 'jetset'"):
        vis.plot_similarity_matrix(pd.DataFrame(np.eye(2)), cmap="jetset")


def test_diagrams_are_labelled_and_saved_the_same_each_time(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    table = yearly_table(statistics=True)
    polygons = [box_on_ground(x, 0, x + 4, 5) for x in (0, 10, 20)]
    frame = geopandas.GeoDataFrame({"site_id": ["a", "b", "c"], "n": [1.5, 2, 4]}, geometry=polygons, crs="EPSG:4326")
    frame["class"] = ["x", "y", "x"]
    frame["pca_rgb"] = ["#ff0000", None, "#00ff00"]
    one = table[table["site_id"] == "s0"]
    axes = {
        "scatter": vis.plot_pca_scatter(table),
        "classes": vis.plot_pca_scatter(table, color="site_id", components=(1, 3)),
        "numbers": vis.plot_pca_scatter(table, color="year"),
        "hexbin": vis.plot_pca_hexbin(table, gridsize=8),
        "counts": vis.plot_pca_hexbin(table, gridsize=8, counts=True),
        "profile": vis.plot_band_profile(one),
        "trajectory": vis.plot_trajectory(table, background=table),
        "change": vis.plot_change(table, start_years={"s1": 2020}),
        "map": vis.plot_sites(frame, color="n", label="area (ha)"),
        "map of classes": vis.plot_sites(frame, color="class"),
        "map of colours": vis.plot_sites(frame, color="pca_rgb", names=False),
    }
    for name, ax in axes.items():
        assert ax.get_xlabel(), name
        assert ax.get_ylabel(), name
        path = vis.save_plot(ax, tmp_path / f"{name}.png", dpi=60)
        with Image.open(path) as picture:
            assert picture.width > 200, name
    # below a diagram of embeddings, and in its metadata, stands where they come from; not below a map of sites alone
    for name in axes:
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert ("Google DeepMind" in picture.text.get("Attribution", "")) == (not name.startswith("map"))
    noted = table.copy()
    noted.attrs["provenance"] = {"attribution": "ours", "note": "Synthetic values"}
    for suffix in ("svg", "pdf", "jpg"):
        data = vis.save_plot(vis.plot_pca_scatter(noted), tmp_path / f"noted.{suffix}").read_bytes()
        assert b"Synthetic values" in data
        assert b"Google" not in data
    first = (tmp_path / "scatter.png").read_bytes()
    assert vis.save_plot(vis.plot_pca_scatter(table), tmp_path / "again.png", dpi=60).read_bytes() == first
    assert "unitless" in axes["profile"].get_ylabel()
    assert "degrees" in axes["change"].get_ylabel()
    with pytest.raises(UsageError, match="must end in"):
        vis.save_plot(axes["map"], tmp_path / "map.bmp")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: vis.plot_band_profile(t), "1..8 rows, found 21"),
        (lambda t: vis.plot_band_profile(t[:2], spread="iqr"), "spread is 'std'"),
        (lambda t: vis.plot_pca_scatter(t, components=(1, 4)), "two different numbers out of 1, 2, 3"),
        (lambda t: vis.plot_pca_scatter(t, color="landuse"), "no column 'landuse'"),
        (lambda t: vis.plot_change(t, reference=1999), "no row for the reference year 1999"),
        (lambda t: vis.plot_trajectory(yearly_table(9)), "1..8 sites"),
        (lambda t: vis.plot_sites([1, 2]), "a SiteCollection or a GeoDataFrame"),
    ],
)
def test_bad_diagrams_get_one_line(call, message):
    with pytest.raises(UsageError, match=message):
        call(yearly_table())


def test_heavy_packages_are_imported_where_they_are_used():
    code = (
        "import sys, gee_polygons.visualize, gee_polygons.embeddings.similarity, gee_polygons.embeddings.colors;"
        "print([m for m in ('matplotlib', 'rasterio', 'ee', 'numba', 'zarr', 'geopandas') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_plots_leave_pyplot_alone(tmp_path):
    code = (
        "import sys, pandas, numpy; from gee_polygons.visualize import plot_similarity_matrix, save_plot;"
        f"save_plot(plot_similarity_matrix(pandas.DataFrame(numpy.eye(3))), {str(tmp_path / 'm.png')!r});"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_png_of_a_strip_is_a_png(tmp_path):
    data = vis.export_frames_as_strip([frame("red")], tmp_path / "a.png", gap=0).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (40, 30)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == "RGB"


def test_ids_are_no_formulas():
    """An id with two dollar signs was set as a formula, or ended the drawing of the figure in a ValueError."""
    from gee_polygons import extract_embeddings, visualize
    from gee_polygons.sources.sample import sample_sites

    table = extract_embeddings(sample_sites()[:3], years=[2022, 2023], source="sample")
    names = dict(zip(table["site_id"].unique(), ("$\\frac{1}$", "$x_$", "a $ b"), strict=True))
    table["site_id"] = table["site_id"].map(names)
    matrix = visualize.similarity_matrix(table, by="site", year=2023)
    for axes in (
        visualize.plot_change(table),
        visualize.plot_trajectory(table),
        visualize.plot_band_profile(table[table["year"] == 2023], by="site_id"),
        visualize.plot_pca_scatter(table, color="site_id"),
        visualize.plot_similarity_matrix(matrix),
    ):
        axes.figure.canvas.draw()
        drawn = [text.get_text() for text in axes.figure.findobj(lambda artist: hasattr(artist, "get_text"))]
        assert any("frac{1}" in text for text in drawn)
