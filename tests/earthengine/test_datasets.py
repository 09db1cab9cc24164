"""The dataset modules' images, evaluated by the local Earth Engine, with the answers by hand."""

import pickle
from dataclasses import replace

import ee
import numpy as np
import pytest
import shapely
from PIL import Image

from gee_polygons.datasets.dynamicworld import (
    DYNAMIC_WORLD,
    DYNAMIC_WORLD_PROBABILITIES,
    DYNAMIC_WORLD_VIS,
    get_dynamic_world_image,
)
from gee_polygons.datasets.mapbiomas import (
    MAPBIOMAS,
    MAPBIOMAS_LULC,
    MAPBIOMAS_SECONDARY,
    MAPBIOMAS_VIS,
    get_mapbiomas_image,
)
from gee_polygons.datasets.sentinel2 import (
    SENTINEL2_INDICES,
    SENTINEL2_REFLECTANCE,
    get_sentinel2_image,
    with_cloud_mask,
)
from gee_polygons.errors import UsageError
from gee_polygons.site import Site
from gee_polygons.visualize import export_layer_gif, export_layer_timestrip, render_site_layer

from .synthetic import Catalogue

CRS = "EPSG:32722"
W, N = 700_000, 7_500_040
DEGREE = 0.000269494585235856  # MapBiomas' pixel
WEST, NORTH = -48.5, -22.5
PROBABILITIES = DYNAMIC_WORLD_PROBABILITIES.bands


def square(x0, y0, x1, y1):
    return ee.Geometry.Rectangle([W + x0, N - y1, W + x1, N - y0], CRS, False)


WHOLE = (0, 0, 40, 40)


def reduced(image, reducer, region=WHOLE, crs=CRS, scale=10):
    where = square(*region) if isinstance(region, tuple) else region
    return image.reduceRegion(reducer, where, crs=crs, scale=scale).getInfo()


# --- Dynamic World ----------------------------------------------------------------------------------------------------


@pytest.fixture
def dynamic_world(earth, tmp_path):
    """Three scenes of 2020 (one of them on 31 December, late) and one of 2021; 4 x 4 pixels."""
    catalogue = Catalogue(tmp_path)
    labels = {
        "20200105": (1, 1, 4, 4),  # one class per column
        "20200620": (1, 2, 4, 0),
        "20201231": (6, 2, 4, 0),
        "20210102": (7, 7, 7, 7),
    }
    for index, columns in labels.items():
        label = np.tile(np.array(columns, np.uint8), (4, 1))
        bands = {name: (label == number).astype(np.float32) for number, name in enumerate(PROBABILITIES)}
        start = f"{index[:4]}-{index[4:6]}-{index[6:]}T13:20:01"
        catalogue.add(
            "GOOGLE/DYNAMICWORLD/V1",
            {**bands, "label": label},
            west=W,
            north=N,
            epsg=32722,
            index=f"{index}_T22KGA",
            start=start,
        )
    return earth(None, catalogue.save())


def test_dynamic_world_is_the_commonest_class_of_the_year(dynamic_world):
    image = get_dynamic_world_image(square(*WHOLE), 2020)
    found = reduced(image, ee.Reducer.frequencyHistogram())
    assert found == {"label": {"0": 4, "1": 4, "2": 4, "4": 4}}  # columns: 1, 2, 4, 0; 31 December counts
    assert reduced(get_dynamic_world_image(square(*WHOLE), 2021), ee.Reducer.mode()) == {"label": 7}
    assert reduced(get_dynamic_world_image(square(*WHOLE), 2020, 12), ee.Reducer.max()) == {"label": 6}


def test_dynamic_world_probabilities_are_means(dynamic_world):
    image = get_dynamic_world_image(square(*WHOLE), 2020, probabilities=True)
    assert image.bandNames().getInfo() == list(PROBABILITIES)
    found = reduced(image, ee.Reducer.mean(), (0, 0, 10, 40))  # the first column: 1, 1, 6
    assert found["trees"] == pytest.approx(2 / 3)
    assert found["built"] == pytest.approx(1 / 3)
    assert found["water"] == 0


def test_a_year_without_scenes_is_masked_and_has_its_band(dynamic_world):
    image = get_dynamic_world_image(square(*WHOLE), 2018)
    assert image.bandNames().getInfo() == ["label"]
    assert reduced(image, ee.Reducer.mean()) == {"label": None}
    assert reduced(image, ee.Reducer.frequencyHistogram()) == {"label": {}}


def test_geometries_of_shapely_are_taken(dynamic_world):
    from pyproj import Transformer

    move = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    here = shapely.Point(*move.transform(W + 20, N - 20)).buffer(1e-5)
    elsewhere = shapely.Point(-60, -10).buffer(1e-5)
    assert reduced(get_dynamic_world_image(here, 2020), ee.Reducer.count()) == {"label": 16}
    assert reduced(get_dynamic_world_image(elsewhere, 2020), ee.Reducer.count()) == {"label": 0}
    with pytest.raises(UsageError, match=r"geometry must be a shapely geometry \(site\.polygon\) or an ee\.Geometry"):
        get_dynamic_world_image("somewhere", 2020)


def test_dynamic_world_in_its_colours(dynamic_world):
    import io
    from urllib.request import urlopen

    from PIL import Image as Pillow

    image = get_dynamic_world_image(square(*WHOLE), 2020)
    where = {"region": square(*WHOLE), "dimensions": "4x4", "format": "png"}
    drawn = image.setDefaultProjection(CRS, None, 10).getThumbURL({**DYNAMIC_WORLD_VIS, **where})
    with urlopen(drawn, timeout=30) as answer:
        row = np.asarray(Pillow.open(io.BytesIO(answer.read())).convert("RGB"))[1]
    assert ["#" + bytes(p).hex() for p in row] == [DYNAMIC_WORLD.palette[c] for c in (1, 2, 4, 0)]


# --- MapBiomas --------------------------------------------------------------------------------------------------------


@pytest.fixture
def mapbiomas(earth, tmp_path):
    """3 x 3 pixels of forest, pasture and water in 2019; all pasture in 2020; cleared and recovering in 2020."""
    catalogue = Catalogue(tmp_path)
    place = {"west": WEST, "north": NORTH, "epsg": 4326, "step": DEGREE}
    rows = np.array([[3, 3, 3], [15, 15, 15], [33, 33, 0]], np.uint8)
    catalogue.add(
        MAPBIOMAS.collection_id,
        {"classification_2019": rows, "classification_2020": np.full((3, 3), 15, np.uint8)},
        **place,
    )
    events = np.array([[4, 4, 4], [2, 2, 2], [5, 5, 6]], np.uint8)
    catalogue.add(MAPBIOMAS_SECONDARY.collection_id, {"classification_2020": events}, **place)
    return earth(None, catalogue.save())


def degrees(columns, rows):
    return ee.Geometry.Rectangle([WEST, NORTH - rows * DEGREE, WEST + columns * DEGREE, NORTH], None, False)


def test_mapbiomas_histograms_weigh_by_coverage(mapbiomas):
    def histogram(image, region):
        return image.reduceRegion(ee.Reducer.frequencyHistogram(), region).getInfo()["classification"]

    image = get_mapbiomas_image(2019)
    assert histogram(image, degrees(3, 3)) == {"3": 3, "15": 3, "33": 2, "0": 1}
    # 1 row and 0.6 of the next: 3 pixels of 153/255
    assert histogram(image, degrees(3, 1.6)) == {"3": 3, "15": pytest.approx(1.8)}
    assert histogram(get_mapbiomas_image(2020), degrees(3, 3)) == {"15": 9}
    cleared = get_mapbiomas_image(2020, layer=MAPBIOMAS_SECONDARY)
    assert histogram(cleared, degrees(3, 3)) == {"4": 3, "2": 3, "5": 2, "6": 1}
    assert image.projection().nominalScale().getInfo() == pytest.approx(30, abs=0.01)


def test_mapbiomas_years_and_legend(mapbiomas):
    with pytest.raises(UsageError, match="mapbiomas begins with 1985 and ends with 2024, asked for 1984"):
        get_mapbiomas_image(1984)
    assert MAPBIOMAS.band_of(2020) == "classification_2020"
    assert len(MAPBIOMAS_VIS["palette"]) == 76
    assert MAPBIOMAS_VIS["palette"][15] == MAPBIOMAS.palette[15].lstrip("#") == "edde8e"
    assert MAPBIOMAS.class_names[75] == "Photovoltaic Power Plant"
    for layer in (MAPBIOMAS, MAPBIOMAS_SECONDARY, DYNAMIC_WORLD):
        assert layer.class_names.keys() == layer.palette.keys()


def test_pictures_of_years_are_in_the_legends_colours(mapbiomas, tmp_path):
    site = Site(polygon=shapely.box(WEST, NORTH - 3 * DEGREE, WEST + 3 * DEGREE, NORTH), site_id="a")
    frame = np.asarray(render_site_layer(site, MAPBIOMAS, 2019, buffer_m=0, dimensions=90, boundary_color="black"))
    middles = {"#" + bytes(frame[frame.shape[0] * i // 6, 45]).hex() for i in (1, 3, 5)}
    assert middles == {MAPBIOMAS.palette[c] for c in (3, 15, 33)}
    path = export_layer_timestrip(site, MAPBIOMAS_LULC, tmp_path / "a.png", years=[2019, 2020], tile_size=90)
    with Image.open(path) as strip:
        assert strip.width > 180
        assert strip.info["Attribution"] == MAPBIOMAS.attribution
    film = export_layer_gif(site, MAPBIOMAS, tmp_path / "a.gif", [2019, 2020], dimensions=90)
    with Image.open(film) as frames:
        assert frames.n_frames == 2


# --- Sentinel-2 -------------------------------------------------------------------------------------------------------


def scene(red, nir, scl, blue=500, green=800, swir=1500):
    """4 x 4 pixels at 10 m; SCL and the short-wave bands 2 x 2 at 20 m. SCL may be a list of its 4 pixels."""
    full = {"B2": blue, "B3": green, "B4": red, "B8": nir}
    bands = {name: np.full((4, 4), value, np.uint16) for name, value in full.items()}
    bands["B11"] = np.full((2, 2), swir, np.uint16)
    bands["B12"] = np.full((2, 2), swir, np.uint16)
    bands["SCL"] = np.broadcast_to(np.reshape(np.asarray(scl, np.uint8), (-1, 2 if np.size(scl) > 1 else 1)), (2, 2))
    return bands


@pytest.fixture
def sentinel2(earth, tmp_path):
    catalogue = Catalogue(tmp_path)
    place = {"west": W, "north": N, "epsg": 32722}
    scenes = {
        "20200110": scene(1000, 3000, 4),  # NDVI 0.5
        "20200120": scene(1000, 4000, 4),  # NDVI 0.6
        "20200125": scene(500, 4500, [4, 9, 9, 9]),  # NDVI 0.8 in the upper left quarter; clouds over the rest
        "20200201": scene(2000, 2000, 4),  # NDVI 0, in February
        "20201231": scene(1000, 4000, 8),  # all cloud
    }
    for index, bands in scenes.items():
        start = f"{index[:4]}-{index[4:6]}-{index[6:]}T13:20:01"
        catalogue.add("COPERNICUS/S2_SR_HARMONIZED", bands, index=index, start=start, **place)
        score = np.full((4, 4), 0.9 if index == "20200201" else 0.1, np.float32)
        catalogue.add("GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED", {"cs_cdf": score}, index=index, start=start, **place)
    return earth(None, catalogue.save())


def test_sentinel2_monthly_median_of_cloud_free_scenes(sentinel2):
    january = get_sentinel2_image(square(*WHOLE), 2020, 1)
    assert january.bandNames().getInfo() == ["NDVI", "EVI", "NBR", "NDWI"]
    lower = reduced(january, ee.Reducer.mean(), (20, 20, 40, 40))  # two clear scenes: the mean of both
    assert lower["NDVI"] == pytest.approx(0.55, abs=1e-6)
    upper = reduced(january, ee.Reducer.mean(), (0, 0, 20, 20))  # three: the middle one
    assert upper["NDVI"] == pytest.approx(0.6, abs=1e-6)
    assert upper["NBR"] == pytest.approx((4000 - 1500) / 5500, abs=1e-6)
    assert upper["NDWI"] == pytest.approx((800 - 4000) / 4800, abs=1e-6)
    # EVI of 0.10 and 0.40 with blue 0.05: 2.5 x 0.3 / (0.4 + 0.6 - 0.375 + 1)
    assert upper["EVI"] == pytest.approx(0.75 / 1.625, abs=1e-6)


def test_sentinel2_years_and_empty_months(sentinel2):
    year = get_sentinel2_image(square(*WHOLE), 2020, bands="NDVI")
    assert reduced(year, ee.Reducer.mean(), (20, 20, 40, 40)) == {"NDVI": pytest.approx(0.5, abs=1e-6)}  # 0, 0.5, 0.6
    for month in (3, 12):  # no scene; a cloudy one
        empty = get_sentinel2_image(square(*WHOLE), 2020, month, bands=["NDVI", "B8"])
        assert reduced(empty, ee.Reducer.mean()) == {"NDVI": None, "B8": None}
    both = get_sentinel2_image(square(*WHOLE), 2020, 2, bands=["B8", "NDVI", "B4"])
    assert reduced(both, ee.Reducer.mean()) == {"B8": pytest.approx(0.2), "NDVI": 0, "B4": pytest.approx(0.2)}


def test_cloud_score_plus_is_another_mask(sentinel2):
    year = get_sentinel2_image(square(*WHOLE), 2020, bands="NDVI", cloud_mask="cloud_score_plus")
    assert reduced(year, ee.Reducer.mean()) == {"NDVI": 0}  # only the scene of February is clear
    with pytest.raises(UsageError, match="cloud_mask must be one of scl, cloud_score_plus, found 'fmask'"):
        get_sentinel2_image(square(*WHOLE), 2020, cloud_mask="fmask")


def test_a_picture_in_true_colour(sentinel2):
    from pyproj import Transformer

    move = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    site = Site(polygon=shapely.Point(*move.transform(W + 20, N - 20)).buffer(1e-4), site_id="a")
    picture = render_site_layer(site, SENTINEL2_REFLECTANCE, 2020, dimensions=40, buffer_m=10)
    red, green, blue = picture.getpixel((20, 24))  # 0.1, 0.08 and 0.05 of 0.25
    assert (red, green, blue) == (102, 82, 51)


def test_wrong_calls_are_named(sentinel2):
    for arguments, message in (
        ((2016,), "sentinel2_indices begins with 2017, asked for 2016"),
        ((2020, 13), r"month must be 1\.\.12, found 13"),
        (("2020",), "year must be an int such as 2023, found '2020'"),
    ):
        with pytest.raises(UsageError, match=message):
            get_sentinel2_image(square(*WHOLE), *arguments)
    with pytest.raises(UsageError, match="there is no band 'SAVI'"):
        get_sentinel2_image(square(*WHOLE), 2020, bands=["SAVI"])


def test_no_request_is_made_until_a_value_is_asked_for(sentinel2):
    get_sentinel2_image(square(*WHOLE), 2020)
    get_dynamic_world_image(square(*WHOLE), 2020)
    get_mapbiomas_image(2020)
    assert len(sentinel2.log) == 0


@pytest.mark.parametrize("layer", [MAPBIOMAS, DYNAMIC_WORLD, SENTINEL2_INDICES, DYNAMIC_WORLD_PROBABILITIES])
def test_layers_are_data(layer):
    again = pickle.loads(pickle.dumps(layer))
    assert again == layer
    assert hash(again) == hash(layer)


def test_a_layer_with_another_mask_is_another_layer():
    other = with_cloud_mask(SENTINEL2_INDICES, "cloud_score_plus")
    assert other != SENTINEL2_INDICES
    assert pickle.loads(pickle.dumps(other)) == other
    assert with_cloud_mask(other, "scl") == SENTINEL2_INDICES
    renamed = replace(SENTINEL2_INDICES, name="mine", bands=("NDVI",))
    assert with_cloud_mask(renamed, "cloud_score_plus").prepare == other.prepare
    with pytest.raises(UsageError, match="isn't made by this module"):
        with_cloud_mask(DYNAMIC_WORLD_PROBABILITIES, "scl")
