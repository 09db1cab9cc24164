"""Jobs of real size, from end to end: 190 sites and 7 years, outlines of thousands of vertices, real polygons."""

from pathlib import Path

import exactextract
import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import Affine

from gee_polygons import extract_embeddings, load_sites
from gee_polygons.datasets.alpha_embeddings import EMBEDDING_BANDS
from gee_polygons.site import Site, SiteCollection
from gee_polygons.sources.earthengine import EarthEngineSource, batches
from gee_polygons.zonal.zones import home_zones

from .faults import PAYLOAD_LIMIT
from .places import blob, lonlat
from .synthetic import position_codes, write_aef_tile

SIZE = 200
ZONES = {32722: (700_000.0, 7_502_000.0), 32723: (300_000.0, 7_502_000.0)}
YEARS = range(2018, 2025)
REAL = Path(__file__).parents[3] / "shared" / "data" / "restoration_sites_epsg5880.geojson"


def values_of(codes):
    k = codes.astype(np.float64)
    return np.where(codes == -128, np.nan, np.sign(k) * (k / 127.5) ** 2)


class Coverage:
    """exactextract's covered shares of pixels: sites on one grid. Means follow for any year."""

    def __init__(self, folder, sites, epsg, west, north, height, width):
        path = folder / f"grid_{epsg}_{round(west)}_{round(north)}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=width, height=height, count=1, dtype="uint8", crs=f"EPSG:{epsg}",
            transform=Affine(10, 0, west, 0, -10, north),
        ) as target:  # fmt: skip
            target.write(np.ones((1, height, width), np.uint8))
        frame = geopandas.GeoDataFrame({"i": range(len(sites))}, geometry=list(sites), crs=4326).to_crs(epsg)
        self._found = exactextract.exact_extract(
            str(path), frame, ["cell_id", "coverage"], include_cols=["i"], output="pandas"
        )

    def means(self, codes):
        flat = values_of(codes).reshape(64, -1)
        return np.array(
            [
                flat[:, cells.astype(np.int64)] @ shares / shares.sum()
                for cells, shares in zip(self._found["cell_id"], self._found["coverage"], strict=True)
            ]
        )


@pytest.fixture
def restoration(earth, tmp_path):
    """190 sites of 12 to 46 ha in two zones, outlines of 60 to 900 vertices; one zone has no tile in 2018 and 2024."""
    for epsg, corner in ZONES.items():
        for year in YEARS:
            if epsg == 32722 or year not in (2018, 2024):
                write_aef_tile(tmp_path / "t", year, epsg, *corner, (SIZE, SIZE), block=64)
    rng = np.random.default_rng(5)
    sites = []
    for i in range(190):
        epsg = 32722 if i % 3 else 32723
        west, north = ZONES[epsg]
        radius = float(np.sqrt(np.exp(rng.uniform(np.log(12), np.log(46))) * 1e4 / np.pi))
        x, y = rng.uniform((west + 500, north - 1_500), (west + 1_500, north - 500))
        sites.append(
            Site(polygon=lonlat(blob(x, y, radius, int(rng.integers(60, 900)), seed=i), epsg), site_id=f"r{i}")
        )
    return earth(tmp_path / "t"), SiteCollection(sites)


@pytest.mark.parametrize("n", [40, pytest.param(190, marks=pytest.mark.slow)])
def test_sites_of_real_size_and_7_years(restoration, tmp_path, n):
    server, sites = restoration
    sites = sites[:n]
    table = extract_embeddings(sites, years=YEARS, source="earthengine")
    posts = [e for e in server.log.entries() if e.method == "POST"]
    assert not server.log.errors
    assert len(posts) == -(-n // 25) * 2  # chunks of sites, four years and three
    assert max(e.bytes_in for e in posts) < PAYLOAD_LIMIT / 4
    assert server.log.max_at_once <= 20
    few = slice(0, n, 10)
    pixels = extract_embeddings(sites[few], years=YEARS, source=EarthEngineSource(method="pixels"))
    for epsg, (west, north) in ZONES.items():
        ids = [s.site_id for s in sites if (int(s.site_id[1:]) % 3 != 0) == (epsg == 32722)]
        coverage = Coverage(tmp_path, [sites[i].polygon for i in ids], epsg, west, north, SIZE, SIZE)
        for year in YEARS:
            there = epsg == 32722 or year not in (2018, 2024)
            for found, tolerance in ((table, 2e-4), (pixels, 1e-6)):
                rows = found[(found["year"] == year) & found["site_id"].isin(ids)].set_index("site_id")
                assert set(rows["status"]) == {"ok" if there else "no_data"}
                if there:
                    truth = coverage.means(position_codes(west, north, SIZE, SIZE, year))
                    truth = truth[[ids.index(i) for i in rows.index]]
                    assert np.abs(rows[EMBEDDING_BANDS].to_numpy() - truth).max() < tolerance
    server.log.clear()
    again = extract_embeddings(sites, years=YEARS, source="earthengine")
    assert again.equals(table)
    assert not len(server.log)


@pytest.mark.skipif(not REAL.exists(), reason="the real restoration sites aren't on this machine")
def test_real_polygons_in_their_places(earth, tmp_path):
    sites = load_sites(REAL)
    zones = home_zones(np.array(sites.polygons))
    years = [2020, 2021]
    truth = {}
    for i, (site, zone) in enumerate(zip(sites, zones, strict=True)):
        epsg = int(str(zone).removeprefix("EPSG:"))
        frame = geopandas.GeoSeries([site.polygon], crs=4326).to_crs(epsg)
        west, south, east, north = frame.total_bounds
        west, north = 10 * np.floor(west / 10) - 50, 10 * np.ceil(north / 10) + 50
        height, width = int((north - south) // 10) + 10, int((east - west) // 10) + 10
        coverage = Coverage(tmp_path, [site.polygon], epsg, west, north, height, width)
        for year in years:
            write_aef_tile(tmp_path / "t", year, epsg, west, north, (height, width), name=f"of_{i}")
            truth[site.site_id, year] = coverage.means(position_codes(west, north, height, width, year))[0]
    server = earth(tmp_path / "t")
    table = extract_embeddings(sites, years=years)
    assert not server.log.errors
    found = table.set_index(["site_id", "year"])
    assert set(found["status"]) == {"ok"}
    for key, mean in truth.items():
        assert np.abs(found.loc[key, EMBEDDING_BANDS].to_numpy(float) - mean).max() < 2e-4


def test_outlines_of_thousands_of_vertices_stay_below_the_payload_limit(earth, tmp_path):
    """50 sites of 5,000 vertices would be 19 MB as they are usually sent, for each year."""
    write_aef_tile(tmp_path, 2020, 32722, *ZONES[32722], (SIZE, SIZE))
    server = earth(tmp_path)
    west, north = ZONES[32722]
    rng = np.random.default_rng(1)
    places = rng.uniform((west + 400, north - 1_600), (west + 1_600, north - 400), (50, 2))
    sites = SiteCollection(
        Site(polygon=lonlat(blob(x, y, 150, 5_000, seed=i)), site_id=i) for i, (x, y) in enumerate(places)
    )
    table = extract_embeddings(sites, years=[2020, 2021])
    assert (table["status"] == "ok").sum() == 50
    assert not server.log.errors
    assert sum(e.bytes_in for e in server.log.entries()) > 6e6
    assert max(e.bytes_in for e in server.log.entries()) < PAYLOAD_LIMIT / 2


@pytest.mark.slow
def test_one_outline_that_is_nearly_too_long_alone(earth, tmp_path, caplog):
    west, north = ZONES[32722]
    write_aef_tile(tmp_path / "t", 2020, 32722, west, north, (SIZE, SIZE))
    server = earth(tmp_path / "t")
    for n, sent_as_it_is in ((330_000, True), (420_000, False)):
        server.log.clear()
        caplog.clear()
        shape = lonlat(blob(west + 1_000, north - 1_000, 800, n, seed=3))
        table = extract_embeddings(Site(polygon=shape, site_id=1), years=2020)
        (entry,) = server.log.entries()
        assert entry.status == 200
        assert entry.bytes_in < PAYLOAD_LIMIT
        assert ("simplified" in caplog.text) != sent_as_it_is
        truth = Coverage(tmp_path, [shape], 32722, west, north, SIZE, SIZE).means(
            position_codes(west, north, SIZE, SIZE, 2020)
        )
        assert np.abs(table[EMBEDDING_BANDS].to_numpy() - truth).max() < 2e-4


def test_an_outline_that_no_simplification_shortens_enough_is_one_error(ee_server, monkeypatch):
    monkeypatch.setattr(batches, "MAX_SITE_BYTES", 300)
    monkeypatch.setattr("gee_polygons.sources.earthengine.transport.MAX_PAYLOAD_BYTES", 60_000)
    many = Site(polygon=lonlat(blob(700_500, 7_500_500, 300, 2_000)), site_id="long")
    few = Site(polygon=lonlat(shapely.box(700_300, 7_500_300, 700_400, 7_500_400)), site_id="short")
    table = extract_embeddings(SiteCollection([many, few]), years=range(2019, 2022), on_error="collect")
    assert set(table["status"]) == {"ok"}  # simplified by 10 m it fits
    monkeypatch.setattr(batches, "SIMPLIFICATION_M", (0.0,))
    table = extract_embeddings(SiteCollection([many, few]), years=range(2019, 2022), on_error="collect")
    assert table.groupby("site_id")["status"].unique().map(list).to_dict() == {"long": ["error"], "short": ["ok"]}
    assert not ee_server.log.errors  # it was never sent
    assert "exceeds the limit" in table.attrs["errors"][0]["message"]


def test_the_service_s_own_limit_is_met_too(ee_server, monkeypatch):
    """Where the service accepts less than is known."""
    from . import faults

    monkeypatch.setattr(faults, "PAYLOAD_LIMIT", 40_000)
    sites = SiteCollection(
        Site(polygon=lonlat(blob(700_400 + i, 7_500_500, 200, 250, seed=i)), site_id=i) for i in range(20)
    )
    table = extract_embeddings(sites, years=2020)
    assert set(table["status"]) == {"ok"}
    assert {e.status for e in ee_server.log.errors} == {400}
