"""From sites to a table: real pixels against exactextract, the sample archive against its truth, bad requests.

Tolerances: 1e-6 against the oracles (weights are multiples of 2^-24, fractions below 1e-6 are 0, exactextract's
fractions are in single precision); none between two readings of the same pixels.
"""

import collections
import warnings

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from oracles import (
    SHARED,
    archive,
    exactextract_coverage,
    on_grid,
    one_line,
    polygonal,
    same,
    sites,
    small_grid,
    star,
    unit_codes,
    weighted_means,
)

from gee_polygons import extract_embeddings, open_source
from gee_polygons.alphaearth import ALPHA_EMBEDDINGS, BANDS
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import GeePolygonsError, SiteError, UsageError
from gee_polygons.extract import extract_continuous
from gee_polygons.reduction.plan import EmbeddingImage
from gee_polygons.site import sites_from_geodataframe
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.cog import tile as _tile
from gee_polygons.sources.cog.writing import write_tile
from gee_polygons.sources.raster import RasterSource
from gee_polygons.sources.sample import truth_codes
from gee_polygons.zonal.grid import Grid, Window
from gee_polygons.zonal.projection import transformer

real = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED}: the real files aren't here")
COLUMNS = ["site_id", "year", *BANDS, "Rbar", "n_pixels", "valid_fraction", "status"]


# --- real pixels: a published tile's, south-up in 32 px blocks, and its north-up twin

WISCONSIN = Grid(crs="EPSG:32616", transform=(10, 0, 358410, 0, -10, 4906600), shape=(97, 97))
AWKWARD = {
    "field": star(1, (40, 40), 18),
    "jagged": star(2, (50, 50), 45, 80),
    "hole": star(3, (50, 45), 40, 30, hole=True),
    "hole in one pixel": shapely.box(10, 10, 13, 13).difference(shapely.box(11.2, 11.3, 11.7, 11.9)),
    "multi": shapely.MultiPolygon([star(4, (20, 70), 9), star(5, (70, 20), 12), shapely.box(90.1, 90.1, 90.3, 96.9)]),
    "parts in one pixel": shapely.MultiPolygon([shapely.box(5.1, 5.1, 5.3, 5.4), shapely.box(5.6, 5.5, 5.9, 5.8)]),
    "sliver": shapely.Polygon([(3, 3), (90, 77), (90, 77.02), (3, 3.02)]),
    "sliver along a row": shapely.box(3.5, 20.98, 93.5, 21.0),
    "upright sliver on a block edge": shapely.box(31.99, 3, 32.01, 90),
    "sub-pixel": shapely.box(10.4, 10.2, 10.7, 10.6),
    "sub-pixel on a corner": shapely.box(63.8, 63.9, 64.1, 64.3),
    "one pixel": shapely.box(50, 50, 51, 51),
    "on pixel sides": shapely.box(32, 32, 64, 64),
    "tile edge": star(6, (95, 50), 9),
    "tile corner": shapely.box(-4, -4, 2.5, 1.75),
    "a hair inside": shapely.box(-5, 40, 0.01, 50),
    "all and more": shapely.box(-10, -10, 110, 110),
    "around": shapely.box(-10, -10, 110, 110).difference(shapely.box(3.5, 3.5, 93.5, 93.5)),
    "beside": shapely.box(97, 10, 110, 20),
    "outside": shapely.box(120, 120, 130, 130),
}


@pytest.fixture(scope="module")
def real_sites():
    return sites(on_grid(AWKWARD.values(), WISCONSIN), crs=WISCONSIN.crs, ids=list(AWKWARD))


@pytest.fixture(scope="module")
def north_up():
    return RasterSource(SHARED / "wisconsin_2024_64band_native10m_int8.tif")


@pytest.fixture(scope="module")
def south_up(tmp_path_factory):
    path = SHARED / "wisconsin_2024_64band_southup_int8.tif"
    return archive(tmp_path_factory.mktemp("wisconsin"), [(path, WISCONSIN, 2024)])


@pytest.fixture(scope="module")
def real_table(real_sites, north_up):
    return extract_embeddings(real_sites, source=north_up)


@real
@pytest.mark.parametrize("workers", [1, 2, 3, 8, None])
def test_a_south_up_tile_and_its_north_up_twin_agree_to_the_last_bit(workers, real_sites, south_up, real_table):
    same(extract_embeddings(real_sites, source=south_up, max_workers=workers), real_table)


@real
def test_many_random_polygons_agree_to_the_last_bit(south_up, north_up):
    rng = np.random.default_rng(0)
    shapes = [star(i, rng.uniform(-3, 100, 2), rng.uniform(0.2, 30), int(rng.integers(3, 40)), bool(i % 3 == 0))
              for i in range(250)]  # fmt: skip
    frame = sites(on_grid(shapes, WISCONSIN), crs=WISCONSIN.crs)
    same(extract_embeddings(frame, source=south_up), extract_embeddings(frame, source=north_up, max_workers=1))


@real
def test_real_pixels_against_exactextract(real_sites, north_up, real_table):
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    image = north_up.image(sites([shapely.box(*WISCONSIN.bounds)], crs=WISCONSIN.crs).geometry[0], 2024)
    assert image.grid.shape[0] >= 97
    whole = north_up._raster.read(range(64), slice(0, 97), slice(0, 97))
    vectors = codes_to_vectors(whole, np.float64)
    west, south, east, north = WISCONSIN.bounds
    rasters = [NumPyRasterSource(v, xmin=west, ymin=south, xmax=east, ymax=north, name=b, nodata=np.nan)
               for b, v in zip(BANDS, vectors, strict=True)]  # fmt: skip
    frame = real_sites.to_crs(WISCONSIN.crs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Spatial reference system of input features does not")
        true = exact_extract(rasters, frame, ["mean", "count"], output="pandas", include_cols=["site_id"])
    inside = (real_table["status"] == "ok").to_numpy()
    assert real_table.loc[~inside, "site_id"].tolist() == ["beside", "outside"]
    found = real_table.loc[inside, list(BANDS)].to_numpy()
    oracle = true.loc[inside, [f"{band}_mean" for band in BANDS]].to_numpy(float)
    assert np.abs(found - oracle).max() <= 1e-6
    counts = true.loc[inside, "A00_count"].to_numpy(float)
    assert np.abs(real_table.loc[inside, "n_pixels"] / counts - 1).max() <= 1e-6
    assert np.abs(real_table.loc[inside, "Rbar"] - np.linalg.norm(oracle, axis=1)).max() <= 1e-6


@real
def test_real_valid_fractions_are_the_share_inside_the_tile(real_table):
    table = real_table.set_index("site_id")
    tile = shapely.box(0, 0, 97, 97)
    for name, polygon in AWKWARD.items():
        share = polygon.intersection(tile).area / polygon.area
        assert table.loc[name, "valid_fraction"] == pytest.approx(share, abs=1e-5), name


@real
def test_homogeneity_falls_with_size_as_it_does_on_real_land(south_up):
    sides = [3, 10, 20, 90]
    frame = sites(on_grid([shapely.box(3, 3, 3 + s, 3 + s) for s in sides], WISCONSIN), crs=WISCONSIN.crs)
    rbar = extract_embeddings(frame, source=south_up)["Rbar"].tolist()
    assert rbar[0] > 0.9
    assert rbar == sorted(rbar, reverse=True)


# --- the sample archive against the truth behind its pixels

YEARS = range(2017, 2025)  # 2017 isn't there
_TILES = {  # west column, and years missing
    "EPSG:32722": [(80360, {2020}), (80680, set())],
    "EPSG:32723": [(19000, set())],
}
_TOP, _SIZE = -752695, 320


def truth_of(crs, window, year):
    """What a zone's tiles of a year hold at a window; -128 where there is none."""
    codes = np.full((64, window.height, window.width), -128, np.int8)
    held = False
    for west, missing in _TILES[crs]:
        common = Window(_TOP, west, _SIZE, _SIZE).intersection(window)
        if common is not None and year not in missing and year in range(2018, 2025):
            row, col = common.row - window.row, common.col - window.col
            codes[:, row : row + common.height, col : col + common.width] = truth_codes(crs, common, year)
            held = True
    return codes, held


def in_zone(polygon, crs):
    project = transformer("EPSG:4326", crs).transform
    return shapely.transform(polygon, lambda xy: np.column_stack(project(xy[:, 0], xy[:, 1])))


def measured(polygon, crs, year):
    """(sums over bands, valid weight, whole weight, held) of a polygon in one zone, by exactextract's coverage."""
    ground = in_zone(polygon, crs)
    west, south, east, north = (v / 10 for v in ground.bounds)
    window = Window(int(np.floor(-north)), int(np.floor(west)), int(np.ceil(-south) - np.floor(-north)),
                    int(np.ceil(east) - np.floor(west)))  # fmt: skip
    transform = (10.0, 0.0, window.col * 10.0, 0.0, -10.0, -window.row * 10.0)
    weights = exactextract_coverage(ground, Grid(crs=crs, transform=transform, shape=(window.height, window.width)))
    codes, held = truth_of(crs, window, year)
    means, valid = weighted_means(codes_to_vectors(codes, np.float64), weights)
    return np.nan_to_num(means) * valid, valid, weights.sum(), held


def expected_of(polygon, year):
    """What the table must say of a site: status, means, n_pixels, valid_fraction."""
    home = "EPSG:32723" if polygon.centroid.x >= -48 else "EPSG:32722"
    other = {"EPSG:32722": "EPSG:32723", "EPSG:32723": "EPSG:32722"}[home]
    crosses = polygon.bounds[0] < -48 < polygon.bounds[2]
    west, _, east, _ = in_zone(polygon, home).bounds
    covered = any(col * 10 <= west and east <= (col + _SIZE) * 10 for col, _ in _TILES[home])
    if crosses and not covered:
        cells = {"EPSG:32722": shapely.box(-54, -90, -48, 0), "EPSG:32723": shapely.box(-48, -90, -42, 0)}
        parts = [measured(polygonal(polygon.intersection(cells[crs])), crs, year) for crs in (home, other)]
    else:
        parts = [measured(polygon, home, year)]
    total, valid, whole = (sum(part[i] for part in parts) for i in range(3))
    status = "ok" if valid > 0 else "masked" if any(part[3] for part in parts) else "no_data"
    return status, total / valid if valid > 0 else np.full(64, np.nan), valid, valid / whole


@pytest.fixture(scope="module")
def sample_table(sample_archive, sample_sites):
    return extract_embeddings(sample_sites, years=YEARS, source=CogSource(sample_archive))


def test_every_site_and_year_has_a_row_in_order(sample_table, sample_sites):
    assert list(sample_table.columns) == COLUMNS
    assert sample_table["site_id"].tolist() == [i for i in sample_sites.site_ids for _ in YEARS]
    assert sample_table["year"].tolist() == list(YEARS) * len(sample_sites)
    assert set(sample_table["status"]) == {"ok", "masked", "no_data"} - (
        set() if "masked" in set(sample_table["status"]) else {"masked"}
    )


def test_every_site_and_year_is_the_truth(sample_table, sample_sites):
    polygons = dict(zip(sample_sites.site_ids, sample_sites.polygons, strict=True))
    rows = sample_table.set_index(["site_id", "year"])
    seen = collections.Counter()
    for (site_id, year), row in rows.iterrows():
        status, means, n_pixels, fraction = expected_of(polygons[site_id], year)
        case = f"{site_id} {year}"
        assert row["status"] == status, case
        assert row["n_pixels"] == pytest.approx(n_pixels, rel=1e-6, abs=1e-6), case
        assert row["valid_fraction"] == pytest.approx(fraction, abs=1e-6), case
        found = row[list(BANDS)].to_numpy(float)
        assert np.array_equal(np.isnan(found), np.isnan(means)), case
        if status == "ok":
            assert np.abs(found - means).max() <= 1e-6, case
            assert row["Rbar"] == pytest.approx(np.linalg.norm(means), abs=1e-6), case
        seen[status] += 1
    assert seen["ok"] > 100
    assert seen["no_data"] >= 20 + 7  # the year 2017, and the site outside


def test_the_special_sites_say_what_they_are(sample_table):
    rows = sample_table.set_index(["site_id", "year"])
    assert set(rows.loc["outside", "status"]) == {"no_data"}
    assert set(rows.xs(2017, level="year")["status"]) == {"no_data"}
    assert rows.loc[("pasture-fast", 2020), "status"] == "no_data"  # tile A is missing
    assert 0 < rows.loc[("tile-edge", 2020), "valid_fraction"] < rows.loc[("tile-edge", 2021), "valid_fraction"]
    assert rows.loc[("tile-edge", 2021), "valid_fraction"] == pytest.approx(1, abs=1e-6)
    assert 0.3 < rows.loc[("half-water", 2019), "valid_fraction"] < 0.7
    assert 0.1 < rows.loc[("sub-pixel", 2019), "n_pixels"] < 1
    for year in (2018, 2019, 2023, 2024):
        assert rows.loc[("zone-seam", year), "valid_fraction"] == pytest.approx(1, abs=1e-6)
        assert rows.loc[("zone-seam-long", year), "valid_fraction"] == pytest.approx(1, abs=1e-6)


def test_the_sample_s_rows_do_not_depend_on_threads_company_or_order(sample_table, sample_sites, sample_archive):
    source = CogSource(sample_archive)
    same(extract_embeddings(sample_sites, years=YEARS, source=source, max_workers=1), sample_table)
    same(extract_embeddings(sample_sites, years=reversed(YEARS), source=source, max_workers=3), sample_table)
    by_site = {site_id: rows.reset_index(drop=True) for site_id, rows in sample_table.groupby("site_id")}
    for site in sample_sites:
        alone = extract_embeddings(site, years=YEARS, source=source)
        same(alone, by_site[site.site_id])
    one_year = extract_embeddings(sample_sites, years=2021, source=source)
    same(one_year, sample_table[sample_table["year"] == 2021].reset_index(drop=True))


def test_each_block_of_the_sample_is_read_once(sample_archive, sample_sites, monkeypatch):
    counts = collections.Counter()
    original = _tile.Tile.block

    def counting(self, ref, bands, *fetched):
        counts[ref.tile, ref.index] += 1
        return original(self, ref, bands, *fetched)

    monkeypatch.setattr(_tile.Tile, "block", counting)
    source = CogSource(sample_archive)
    extract_embeddings(sample_sites, source=source)
    plan = source.plan(sample_sites.polygons, source.years())
    assert set(counts.values()) == {1}
    assert sum(counts.values()) == plan.blocks


def test_all_years_is_the_default(sample_archive, sample_sites):
    table = extract_embeddings(sample_sites[:1], source=sample_archive, bands=["A00"])
    assert table["year"].tolist() == list(range(2018, 2025))


def test_sites_on_the_sample_by_name_and_by_path_are_the_same(sample_archive, sample_sites):
    by_name = extract_embeddings(sample_sites[:2], years=2024, source="sample")
    by_path = extract_embeddings(sample_sites[:2], years=2024, source=sample_archive)
    same(by_name, by_path)
    assert by_name.attrs["provenance"]["source"] == "sample"


def test_images_of_the_sample_are_its_truth(sample_archive, sample_sites):
    source = open_source(sample_archive)
    for site_id in ("tile-edge", "zone-seam", "half-water"):
        image = source.image(sample_sites[site_id].region(buffer_m=200), 2019)
        assert isinstance(image, EmbeddingImage)
        codes, _ = truth_of(image.grid.crs, image.grid.window, 2019)
        assert np.array_equal(image.codes, codes)


# --- two zones: vector a in the tiles of zone 22, vector b in those of zone 23

_SEAM = {"EPSG:32722": 80_900, "EPSG:32723": 19_080}  # a column near 48 W at 22.35 S
_VECTORS = {crs: unit_codes((1, 1), seed=i)[:, 0, 0] for i, crs in enumerate(_SEAM)}
LAKE = shapely.box(-48.0011, -22.3501, -48.0009, -22.3499)


def zone_tile(folder, crs, *, without=None, year=2024):
    """Write a tile of one constant vector across 48 W, masked where `without` (EPSG:4326) holds a pixel's centre."""
    x, y = (v[0] for v in transformer("EPSG:4326", crs).transform([-48.0], [-22.35]))
    grid = small_grid((120, 120), crs=crs, origin=(round(x / 10) * 10 - 600.0, round(y / 10) * 10 + 600.0))
    codes = np.broadcast_to(_VECTORS[crs][:, None, None], (64, 120, 120)).copy()
    west, _, _, north = grid.bounds
    cols, rows = np.meshgrid(west + 10 * np.arange(120) + 5, north - 10 * np.arange(120) - 5)
    lon, lat = transformer("EPSG:4326", crs).transform(cols, rows, direction="INVERSE")
    if without is not None:
        codes[:, shapely.contains_xy(without, lon, lat)] = -128
    return write_tile(folder / f"{crs[5:]}-{year}.tif", grid, codes, block=64), grid, year


BEYOND_22, BEYOND_23 = shapely.box(-48, -23, -47, -22), shapely.box(-49, -23, -48, -22)
ACROSS = shapely.Polygon(
    [(-48.002, -22.351), (-47.9991, -22.3512), (-47.999, -22.3485), (-48.0018, -22.349)]
)  # home: 22
SHARE = ACROSS.intersection(BEYOND_23).area / ACROSS.area  # of it west of 48 W


def zone_mix(west_share):
    a, b = (codes_to_vectors(_VECTORS[crs], np.float64) for crs in _SEAM)
    return a * west_share + b * (1 - west_share)


def across_row(folder, tiles, polygon=ACROSS, **options):
    return extract_embeddings(sites([polygon], crs=4326), source=archive(folder, tiles), **options).iloc[0]


def assert_row(row, means, fraction, status="ok"):
    assert row["status"] == status
    # where a mask cuts the polygon it does so along whole pixels; and pixels of two zones differ a little in size
    assert row["valid_fraction"] == pytest.approx(fraction, abs=2e-3 if fraction == 1 else 1e-2)
    assert np.abs(row[list(BANDS)].to_numpy(float) - means).max() < 1e-3


def test_a_polygon_across_the_seam_is_measured_whole_in_its_home_zone(tmp_path):
    tiles = [zone_tile(tmp_path, crs) for crs in _SEAM]
    assert_row(across_row(tmp_path, tiles), zone_mix(1), 1)
    mirrored = shapely.transform(ACROSS, lambda xy: (-96, 0) + xy * (-1, 1))
    assert_row(across_row(tmp_path, tiles, mirrored), zone_mix(0), 1)


def test_the_next_zone_s_nodata_hides_nothing_and_its_files_are_not_needed(tmp_path):
    home = zone_tile(tmp_path, "EPSG:32722")
    other = zone_tile(tmp_path, "EPSG:32723", without=shapely.box(-49, -23, -47, -22))
    assert_row(across_row(tmp_path, [home, other]), zone_mix(1), 1)
    other[0].unlink()
    assert_row(across_row(tmp_path, [home, other]), zone_mix(1), 1)
    assert_row(across_row(tmp_path, [home]), zone_mix(1), 1)


def test_where_the_home_zone_ends_at_the_seam_the_next_one_goes_on(tmp_path):
    tiles = [zone_tile(tmp_path, "EPSG:32722", without=BEYOND_22), zone_tile(tmp_path, "EPSG:32723")]
    assert 0.6 < SHARE < 0.7
    row = across_row(tmp_path, tiles)
    assert_row(row, zone_mix(SHARE), 1)
    for workers in (1, 4):
        again = across_row(tmp_path, tiles, max_workers=workers)
        assert row.equals(again)


def test_where_no_zone_has_pixels_the_rest_is_all_there_is(tmp_path):
    home = zone_tile(tmp_path, "EPSG:32722", without=BEYOND_22)
    assert_row(across_row(tmp_path, [home]), zone_mix(1), SHARE)
    empty = zone_tile(tmp_path, "EPSG:32723", without=BEYOND_22)
    assert_row(across_row(tmp_path, [home, empty]), zone_mix(1), SHARE)
    only_other = zone_tile(tmp_path, "EPSG:32723")
    assert_row(across_row(tmp_path, [only_other]), zone_mix(0), 1 - SHARE)


def test_a_lake_on_both_sides_is_no_reason_to_change_zones(tmp_path):
    lake = ACROSS.intersection(LAKE).area / ACROSS.area
    assert lake > 0.005
    tiles = [zone_tile(tmp_path, crs, without=LAKE) for crs in _SEAM]
    assert_row(across_row(tmp_path, tiles), zone_mix(1), 1 - lake)


def test_each_year_chooses_its_zones_by_itself(tmp_path):
    tiles = [
        zone_tile(tmp_path, "EPSG:32722", without=BEYOND_22, year=2022), zone_tile(tmp_path, "EPSG:32723", year=2022),
        zone_tile(tmp_path, "EPSG:32722", year=2023), zone_tile(tmp_path, "EPSG:32723", year=2024),
    ]  # fmt: skip
    table = extract_embeddings(sites([ACROSS], crs=4326), source=archive(tmp_path, tiles))
    assert_row(table.iloc[0], zone_mix(SHARE), 1)
    assert_row(table.iloc[1], zone_mix(1), 1)
    assert_row(table.iloc[2], zone_mix(0), 1 - SHARE)
    for i, year in enumerate((2022, 2023, 2024)):
        alone = extract_embeddings(sites([ACROSS], crs=4326), source=archive(tmp_path, tiles), years=year)
        same(alone, table.iloc[[i]].reset_index(drop=True))


def test_a_missing_file_of_the_home_zone_is_an_error_for_those_it_would_serve(tmp_path):
    home, other = (zone_tile(tmp_path, crs) for crs in _SEAM)
    home[0].unlink()
    east = shapely.box(-47.999, -22.351, -47.998, -22.35)
    frame = sites([ACROSS, east], crs=4326, ids=["across", "east"])
    table = extract_embeddings(frame, source=archive(tmp_path, [home, other]), on_error="collect")
    assert table["status"].tolist() == ["error", "ok"]


# --- polygons as they come


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    grid = small_grid((80, 80))
    codes = unit_codes((80, 80), seed=21)
    paths = [(write_tile(folder / f"{year}.tif", grid, codes, block=32), grid, year) for year in (2019, 2021)]
    return archive(folder, paths)


FIELD = on_grid([star(9, (40, 40), 20)], small_grid((80, 80)))[0]


def test_ring_direction_closing_and_z_do_not_matter(small):
    lonlat = sites([FIELD]).geometry[0]
    coords = np.asarray(lonlat.exterior.coords)[:-1]
    variants = [
        lonlat,
        shapely.Polygon(coords[::-1]),
        shapely.Polygon(np.roll(coords, 5, axis=0)),
        shapely.force_3d(lonlat, 7.0),
        shapely.MultiPolygon([lonlat]),
    ]
    table = extract_embeddings(geopandas.GeoDataFrame({"site_id": range(5)}, geometry=variants, crs=4326), source=small)
    first = table[table["site_id"] == 0].drop(columns="site_id").reset_index(drop=True)
    for i in range(1, 5):
        found = table[table["site_id"] == i].drop(columns="site_id").reset_index(drop=True)
        pd.testing.assert_frame_equal(found, first, check_exact=False, rtol=0, atol=1e-7)


def test_two_halves_are_the_whole(small):
    whole = FIELD
    west, _, east, north = whole.bounds
    cut = shapely.box(west - 1, whole.centroid.y, east + 1, north + 1)
    frame = sites([whole, whole.intersection(cut), whole.difference(cut)], ids=["whole", "north", "south"])
    table = extract_embeddings(frame, source=small, years=2019).set_index("site_id")
    n = table["n_pixels"]
    assert n["north"] + n["south"] == pytest.approx(n["whole"], abs=1e-5)
    bands = table[list(BANDS)].to_numpy()
    assert np.abs((bands[1] * n.iloc[1] + bands[2] * n.iloc[2]) / n.iloc[0] - bands[0]).max() < 1e-6


def test_a_hundred_copies_of_a_site_have_the_same_bits(small):
    table = extract_embeddings(sites([FIELD] * 100), source=small, max_workers=4)
    for year in (2019, 2021):
        rows = table.loc[table["year"] == year].drop(columns="site_id").drop_duplicates()
        assert len(rows) == 1


def test_progress_counts_blocks_up_to_all(small):
    seen = []
    extract_embeddings(sites([FIELD]), source=small, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total in seen} == {len(seen)}


def test_a_site_thinner_than_a_millionth_of_a_pixel_still_has_a_value(small):
    hairs = [shapely.box(20.5, 10.5, 20.5 + 1e-7, 15.5), shapely.box(10.25, 30.5, 10.25 + 1e-6, 30.5 + 1e-6)]
    table = extract_embeddings(sites(on_grid(hairs, small_grid((80, 80)))), source=small, years=2019)
    assert table["status"].tolist() == ["ok", "ok"]
    assert table["valid_fraction"].tolist() == [1.0, 1.0]
    assert table["n_pixels"].between(0, 1e-5, inclusive="neither").all()
    assert table["Rbar"].between(0.9, 1.01).tolist()[1]


def test_no_site_at_all_is_an_empty_table(small):
    from gee_polygons import SiteCollection

    table = extract_embeddings(SiteCollection([]), source=small)
    assert table.shape == (0, 70)
    assert list(table.columns) == COLUMNS


# --- requests that make no sense


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bands": ["A64"]}, "unknown band 'A64'"),
        ({"bands": ["a00"]}, "unknown band 'a00'"),
        ({"bands": []}, "bands are some of"),
        ({"bands": ["A00", "A01", "A00"]}, "each once"),
        ({"statistics": ["average"]}, "unknown statistic 'average'"),
        ({"statistics": []}, "statistic"),
        ({"statistics": ["mean", "mean"]}, "each once"),
        ({"statistics": ["p101"]}, "statistic"),
        ({"years": range(2021, 2019)}, "range is empty"),
        ({"years": []}, "range is empty"),
        ({"years": [2019, 2019]}, "twice"),
        ({"years": [2019.5]}, "whole numbers"),
        ({"years": ["2019"]}, "whole numbers"),
        ({"years": "2019"}, "whole numbers"),
        ({"years": [None]}, "whole numbers"),
        ({"years": [True]}, "whole numbers"),
        ({"years": [19]}, "whole numbers"),
        ({"years": pd.date_range("2019", periods=2)}, "whole numbers"),
        ({"on_error": "ignore"}, "'raise' or 'collect'"),
        ({"source": "sentinel"}, "unknown source 'sentinel'"),
        ({"source": "Sample"}, "unknown source 'Sample'"),
        ({"source": ""}, "unknown source|give"),
        ({"source": 7}, "found int"),
    ],
)
def test_a_request_that_makes_no_sense_is_one_clear_line(options, words, small):
    with pytest.raises(UsageError, match=words) as error:
        extract_embeddings(sites([FIELD]), **{"source": small, **options})
    assert one_line(error.value)
    assert error.value.exit_status == 2


@pytest.mark.parametrize("years", [[2019, 2021], (2021, 2019), {2019, 2021}, np.array([2019, 2021]),
                                   range(2019, 2022, 2), pd.Series([2019, 2021]), iter([2019, 2021]),
                                   [np.int16(2019), 2021]])  # fmt: skip
def test_years_come_in_many_forms(years, small):
    table = extract_embeddings(sites([FIELD]), source=small, years=years)
    assert table["year"].tolist() == [2019, 2021]
    assert table["year"].dtype == np.int64


@pytest.mark.parametrize("bad", [None, 5, "sites.geojson", [], [FIELD], FIELD, pd.DataFrame({"a": [1]})])
def test_what_is_no_collection_of_sites_is_said(bad, small):
    with pytest.raises(SiteError) as error:
        extract_embeddings(bad, source=small)
    assert one_line(error.value)


def test_integer_ids_stay_integers(small):
    table = extract_embeddings(sites([FIELD, FIELD], ids=[7, 3]), source=small, years=2019)
    assert table["site_id"].tolist() == [7, 3]
    assert table["site_id"].dtype == np.int64


def test_provenance_says_where_the_numbers_come_from(small):
    found = extract_embeddings(sites([FIELD]), source=small).attrs["provenance"]
    assert found["source"] == "cog"
    assert str(small.archive) in str(found)
    assert "127.5" in str(found)


# --- extract_continuous: the reference's table


def continuous(small, frame=None, **options):
    options = {"start_date": "2018-01-01", "end_date": "2022-12-31", **options}
    return extract_continuous(sites([FIELD]) if frame is None else frame, ALPHA_EMBEDDINGS, source=small, **options)


def test_exactly_the_reference_s_columns(small):
    table = continuous(small)
    assert list(table.columns) == ["site_id", "year", *BANDS]
    assert list(table.index) == [0, 1]


def test_site_years_without_data_have_no_row(small):
    outside = shapely.box(900_000, 7_000_000, 900_100, 7_000_100)
    table = continuous(small, sites([FIELD, outside], ids=["in", "out"]))
    assert list(zip(table["site_id"], table["year"], strict=True)) == [("in", 2019), ("in", 2021)]
    full = extract_embeddings(sites([FIELD], ids=["in"]), source=small, years=[2019, 2021])
    same(table, full[["site_id", "year", *BANDS]])


@pytest.mark.parametrize(
    ("start", "end", "years"),
    [
        ("2019-01-01", "2021-01-01", [2019, 2021]),  # the last day counts, also where it is the first of January
        ("2019-12-31", "2020-12-31", [2019]),
        ("2019-12-31", "2021-06-30", [2019, 2021]),
        ("2020-01-01", "2020-12-31", []),
        ("2021-12-31", "2021-12-31", [2021]),
        ("2019", "2019-12-31", [2019]),
        ("2022-01-01", "2024-12-31", []),
        (2019, 2021, [2019, 2021]),  # whole numbers are years, not nanoseconds after 1970
        (np.int64(2020), "2021-06-30", [2021]),
    ],
)
def test_every_year_that_the_dates_touch_counts(start, end, years, small):
    table = continuous(small, start_date=start, end_date=end)
    assert table["year"].tolist() == years
    assert list(table.columns) == ["site_id", "year", *BANDS]


def test_the_methods_of_sites_are_the_same(small):
    collection = sites_from_geodataframe(sites([FIELD, FIELD]))
    dates = {"start_date": "2019-01-01", "end_date": "2021-12-31"}
    same(collection.extract_continuous(ALPHA_EMBEDDINGS, source=small, **dates), continuous(small, collection, **dates))
    kept = collection.extract_continuous(ALPHA_EMBEDDINGS, source=small, keep=["lon"], **dates)
    assert list(kept.columns[:5]) == ["site_id", "year", "lon", "lat", "A00"]
    same(kept.drop(columns=["lon", "lat"]), continuous(small, collection, **dates))
    one = collection[0].extract_continuous(ALPHA_EMBEDDINGS, source=small, **dates)
    same(one, continuous(small, collection[:1], **dates))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start_date": "2022-01-01", "end_date": "2019-12-31"}, "is before start_date"),
        ({"start_date": "yesterday"}, "a date such as"),
        ({"start_date": np.float32(2019)}, "a date such as"),  # not nanoseconds after 1970
        ({"end_date": "2019-13-01"}, "a date such as"),
        ({"start_date": None}, "a date such as"),
        ({"start_date": 2019.0}, "a date such as"),
        ({"start_date": 20190101}, "a year such as 2024, found 20190101"),
        ({"start_date": True}, "a date such as"),
        ({"reducer": "mode"}, "reducer"),
        ({"frequency": "monthly"}, "frequency is 'yearly'"),
    ],
)
def test_continuous_requests_that_make_no_sense(options, words, small):
    with pytest.raises(UsageError, match=words) as error:
        continuous(small, **options)
    assert one_line(error.value)


@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_of_workers_that_makes_no_sense(workers, small):
    with pytest.raises(GeePolygonsError, match="max_workers") as error:
        extract_embeddings(sites([FIELD]), source=small, max_workers=workers)
    assert one_line(error.value)


def test_a_single_year_that_is_no_whole_number(small):
    with pytest.raises(UsageError, match="whole numbers") as error:
        extract_embeddings(sites([FIELD]), source=small, years=2019.5)
    assert one_line(error.value)
