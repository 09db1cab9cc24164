"""The mosaic at length: wide polygons in little memory, the same ground as the archive's, and stores by xarray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import resampled
import shapely
import zarr
from mosaics import ATTRIBUTES, BANDS, STEP, BytesCodec, Mosaic, ZstdCodec, make
from oracles import star, unit_codes
from rangeserver import serve

from gee_polygons import extract_embeddings
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.reduction.coverages import MANY_JOBS
from gee_polygons.sources.mosaic import MosaicSource

CHUNK, ACROSS = 256, 16
WEST, NORTH = 25.0, 61.0

SCRIPT = """
import json, re, sys, time
from pathlib import Path
import geopandas
from gee_polygons import extract_embeddings

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

folder, statistics = Path(sys.argv[1]), sys.argv[2].split(",")
shapes = geopandas.read_file(folder / "sites.geojson")
small = extract_embeddings(shapes[:1], source=folder / "m.zarr", statistics=statistics)
before = peak()
table = extract_embeddings(shapes[1:], source=folder / "m.zarr", statistics=statistics)
table.to_parquet(folder / "table.parquet")
print(json.dumps({"before": before, "after": peak()}))
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """256 chunks of 256 px in the published shape, all of the same pixels: one file under many names."""
    folder = tmp_path_factory.mktemp("wide")
    patch = unit_codes((CHUNK, CHUNK), seed=8, masked=0.03)
    mosaic = Mosaic(
        codes=patch[None], years=(2024,), west=WEST, north=NORTH, shard=None, chunk=(1, 64, CHUNK, CHUNK),
        codecs=(BytesCodec(), ZstdCodec(level=1)),
    )  # fmt: skip
    store = mosaic.write(folder / "m.zarr")
    document = store / "embeddings" / "zarr.json"
    stated = json.loads(document.read_text())
    stated["shape"] = [1, 64, CHUNK * ACROSS, CHUNK * ACROSS]
    document.write_text(json.dumps(stated))
    first = store / "embeddings" / "c" / "0" / "0" / "0" / "0"
    for row in range(ACROSS):
        (first.parents[1] / str(row)).mkdir(exist_ok=True)
        for col in range(ACROSS):
            if row or col:
                os.link(first, first.parents[1] / str(row) / str(col))
    return folder, mosaic, patch


def degrees(polygon):
    return shapely.transform(polygon, lambda xy: xy * (STEP, -STEP) + (WEST, NORTH))


def test_a_polygon_of_16_million_pixels_takes_little_memory(wide):
    folder, _, patch = wide
    size = CHUNK * ACROSS
    whole = shapely.segmentize(shapely.box(0, 0, size, size), 7.3)
    frame = geopandas.GeoDataFrame(
        {"site_id": [1, 2]}, geometry=[degrees(shapely.box(5, 5, 9, 9)), degrees(whole)], crs=4326
    )
    frame.to_file(folder / "sites.geojson", COORDINATE_PRECISION=15)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), "mean,std,median"], capture_output=True, text=True, check=True
    )
    memory = json.loads(done.stdout)
    row = pd.read_parquet(folder / "table.parquet").iloc[0]
    valid = patch[0] != -128
    vectors = codes_to_vectors(patch, np.float64)
    areas = np.cos(np.radians(NORTH - STEP * (np.arange(size) + 0.5)))
    e2 = 0.0066943799901413165
    areas /= (1 - e2 * np.sin(np.radians(NORTH - STEP * (np.arange(size) + 0.5))) ** 2) ** 2
    by_row = areas.reshape(ACROSS, CHUNK).sum(axis=0)[:, None] * valid  # every chunk has the same pixels
    mean = np.nansum(vectors * by_row, axis=(1, 2)) / by_row.sum()
    assert np.abs(row[[f"{b}_mean" for b in BANDS]].to_numpy(float) - mean).max() < 1e-6
    assert row["n_pixels"] == pytest.approx(valid.sum() * ACROSS**2, rel=1e-7)
    assert row["valid_fraction"] == pytest.approx(valid.mean(), rel=1e-6)
    # 1.1 GB of codes; a few chunks of 4 MB are in hand at a time
    assert memory["after"] - memory["before"] < 100
    assert memory["after"] < 600


def test_a_wide_polygon_among_small_ones_is_the_same_alone(wide):
    folder, _, _ = wide
    big = degrees(star(3, (2000, 2000), 1400, n=60))
    small = [degrees(star(i, (900 + 97 * i, 1800 + 41 * i), 20)) for i in range(30)]
    together = geopandas.GeoDataFrame({"site_id": range(31)}, geometry=[*small[:12], big, *small[12:]], crs=4326)
    source = MosaicSource(folder / "m.zarr")
    jobs = [set(job.pieces) for job in source.plan(together.geometry.to_numpy(), [2024]).jobs]
    assert sum(12 in pieces for pieces in jobs) > MANY_JOBS
    assert any(12 in pieces and len(pieces) > 2 for pieces in jobs)
    bands = ["A00", "A40"]
    table = extract_embeddings(together, source=source, bands=bands, statistics=("mean", "std", "count"))
    for rows in (slice(0, 12), slice(12, 13), slice(13, 31)):
        alone = extract_embeddings(together[rows], source=source, bands=bands, statistics=("mean", "std", "count"))
        pd.testing.assert_frame_equal(table[rows].reset_index(drop=True), alone, check_exact=True)


# --- the published size


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The published shape, shards and chunks, with a few chunks written: a field's place, and both sides of 180."""
    west, north = -180.0, 83.68570533713473
    path = tmp_path_factory.mktemp("published") / "m.zarr"
    about = {"proj:code": "EPSG:4326", "spatial:transform": [STEP, 0, west, 0, -STEP, north], **ATTRIBUTES}
    group = zarr.create_group(path, zarr_format=3, attributes=about)
    array = group.create_array(
        "embeddings", shape=(9, 64, 1_859_584, 4_009_984), shards=(1, 64, 4096, 4096), chunks=(1, 64, 256, 256),
        dtype="int8", fill_value=-128, dimension_names=["time", "band", "y", "x"], compressors=ZstdCodec(level=1),
    )  # fmt: skip
    group.create_array("time", data=np.arange(2017, 2026, dtype=np.int32), dimension_names=["time"])
    codes = unit_codes((512, 512), seed=2, masked=0.02)
    row, col = (int((north + 22.33) / STEP) // 256 * 256, int((-48.05 - west) / STEP) // 256 * 256)
    last = int(360 / STEP) // 256 * 256
    array[7, :, row : row + 512, col : col + 512] = codes
    array[7, :, row : row + 256, last : last + 256] = codes[:, :256, :256]  # on to 180.02 degrees
    array[7, :, row : row + 256, :256] = codes[:, 256:, 256:]
    here = {"north": north - row * STEP, "years": (2024,)}
    field = Mosaic(codes=codes[None], west=west + col * STEP, **here)
    ends = [Mosaic(codes=codes[None, :, :256, :256], west=west + last * STEP, **here)]
    ends += [Mosaic(codes=codes[None, :, 256:, 256:], west=west, **here)]
    return path, field, ends


def test_the_published_size_costs_no_more(published):
    path, mosaic, _ = published
    polygons = [star(i, (200 + 30 * i, 250), 60) for i in range(4)]
    polygons = [shapely.transform(p, lambda xy: xy * (STEP, -STEP) + (mosaic.west, mosaic.north)) for p in polygons]
    polygons.append(shapely.box(-10, -23, -9.99, -22.99))
    frame = geopandas.GeoDataFrame({"site_id": range(5)}, geometry=polygons, crs=4326)
    with serve(path.parent) as server:
        source = MosaicSource(f"{server.url}/m.zarr")
        plan = source.plan(frame.geometry.to_numpy(), range(2017, 2026))
        assert plan.requests == 4
        assert 4e6 < plan.bytes < 4 * 64 * 256 * 256
        opened = server.requests
        table = extract_embeddings(frame, source=source, years=[2023, 2024, 2026])
        assert server.requests - opened <= 4
        assert server.sent < plan.bytes + 100_000 + 18 * 4100  # two shards' indexes of nine years
    table = table.set_index(["site_id", "year"])
    for i, polygon in enumerate(polygons[:4]):
        found = table.loc[(i, 2024), list(BANDS)].to_numpy(float)
        assert np.abs(found - mosaic.truth(polygon, 2024)["mean"]).max() < 1e-6
    assert table.loc[(0, [2023, 2026]), "status"].tolist() == ["masked", "no_data"]
    assert (table.loc[[(4, 2023), (4, 2024)], "status"] == "masked").all()


def test_across_180_at_the_published_size(published):
    path, mosaic, (west_end, east_end) = published
    south, north = mosaic.north - 90.5 * STEP, mosaic.north - 20.2 * STEP
    west, east = shapely.box(180 - 90.3 * STEP, south, 180, north), shapely.box(-180, south, -180 + 41.7 * STEP, north)
    frame = geopandas.GeoDataFrame({"site_id": [1]}, geometry=[shapely.MultiPolygon([west, east])], crs=4326)
    row = extract_embeddings(frame, source=path, years=[2024]).iloc[0]
    total, weight, pixels = np.zeros(64), 0.0, 0.0
    for end, part in ((west_end, west), (east_end, east)):
        covered = end.coverage(part) * (end.codes[0, 0] != -128)
        weights = covered * end.areas()[:, None]
        total += np.nansum(codes_to_vectors(end.codes[0], np.float64) * weights, axis=(1, 2))
        weight, pixels = weight + weights.sum(), pixels + covered.sum()
    assert np.abs(row[list(BANDS)].to_numpy(float) - total / weight).max() < 1e-6
    assert row["n_pixels"] == pytest.approx(pixels, abs=1e-4)
    image = MosaicSource(path).image(shapely.box(180 - 10 * STEP, south, 180 + 10 * STEP, north), 2024)
    assert image.valid.mean() > 0.9


# --- the same ground as the archive's


@pytest.fixture(scope="module")
def of_the_sample(sample_archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resampled")
    return resampled.write(folder / "m.zarr", sample_archive, years=(2024,)), folder / "m.zarr"


def test_it_lies_near_the_archive_on_the_same_ground(of_the_sample, sample_archive, sample_sites):
    mosaic, path = of_the_sample
    tiles = extract_embeddings(sample_sites, source=str(sample_archive), years=[2023, 2024])
    found = extract_embeddings(sample_sites, source=path, years=[2023, 2024])
    assert list(found.columns) == list(tiles.columns)
    assert (found["status"][tiles["year"] == 2023] == "no_data").all()
    here = tiles["year"] == 2024
    assert found["status"][here].tolist() == tiles["status"][here].tolist()
    one, other = (table.loc[here & (tiles["status"] == "ok"), list(BANDS)].to_numpy() for table in (tiles, found))
    cosine = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    n_pixels = tiles.loc[here & (tiles["status"] == "ok"), "n_pixels"].to_numpy()
    assert len(cosine) >= 19
    assert cosine[n_pixels > 800].min() > 0.99999
    assert cosine.min() > 0.995  # the site of half a pixel
    for polygon, (_, row) in zip(sample_sites.polygons, found[here].iterrows(), strict=True):
        if row["status"] == "ok":
            assert np.abs(row[list(BANDS)].to_numpy(float) - mosaic.truth(polygon, 2024)["mean"]).max() < 1e-6


def test_it_is_a_source_for_the_command_line(of_the_sample, sample_sites, tmp_path):
    from click.testing import CliRunner

    from gee_polygons.cli.main import main

    sample_sites.to_geodataframe().to_file(tmp_path / "sites.geojson")
    _, path = of_the_sample
    with serve(path.parent) as server:
        given = ["--years", "2024", "--source", f"mosaic:{server.url}/m.zarr"]
        planned = CliRunner().invoke(main, ["plan", str(tmp_path / "sites.geojson"), *given])
        assert planned.exit_code == 0, planned.output
        facts = dict(line.split(maxsplit=1) for line in planned.stdout.splitlines())
        assert facts["source"] == "mosaic"
        assert int(facts["requests"]) >= int(facts["blocks"]) > 10
        out = tmp_path / "t.parquet"
        done = CliRunner().invoke(main, ["extract", str(tmp_path / "sites.geojson"), *given, "-o", str(out)])
        assert done.exit_code == 0, done.output
    table = pd.read_parquet(out)
    assert (table["status"] == "ok").sum() == 19
    picture = CliRunner().invoke(
        main, ["render", str(tmp_path / "sites.geojson"), "--years", "2024", "--source", str(path), "--site", "hole",
               "-o", str(tmp_path / "hole.png")],
    )  # fmt: skip
    assert picture.exit_code == 0, picture.output
    assert (tmp_path / "hole.png").stat().st_size > 1000


# --- written by others


@pytest.mark.parametrize(
    "flavour", ["consolidated, datetimes", "south-up, whole years", "unsharded, float32 coordinates"]
)
def test_stores_written_by_xarray(flavour, tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("rioxarray")
    mosaic = make()
    height, width = mosaic.codes.shape[2:]
    y, x = mosaic.north - STEP * (np.arange(height) + 0.5), mosaic.west + STEP * (np.arange(width) + 0.5)
    times = pd.to_datetime(["2023-01-01", "2024-01-01"]) if "datetimes" in flavour else [2023, 2024]
    # coordinates in single precision have steps of 4e-6 degrees at 48 degrees: a twentieth of a pixel
    if "float32" in flavour:
        y, x = y.astype(np.float32), x.astype(np.float32)
    data = xarray.Dataset(
        {"embeddings": (("time", "band", "y", "x"), mosaic.codes)},
        coords={"time": times, "band": list(BANDS), "y": y, "x": x},
    ).rio.write_crs(4326)
    if "south-up" in flavour:
        data = data.isel(y=slice(None, None, -1))
    how = {"chunks": (1, 64, 16, 16), "_FillValue": np.int8(-128)}
    if "unsharded" not in flavour:
        how["shards"] = (1, 64, 32, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.to_zarr(tmp_path / "x.zarr", zarr_format=3, encoding={"embeddings": how}, consolidated="consol" in flavour)
    polygon = shapely.transform(star(1, (48, 32), 20), lambda xy: xy * (STEP, -STEP) + (mosaic.west, mosaic.north))
    frame = geopandas.GeoDataFrame({"site_id": [1]}, geometry=[polygon], crs=4326)
    table = extract_embeddings(frame, source=tmp_path / "x.zarr")
    assert table["year"].tolist() == [2023, 2024]
    for _, row in table.iterrows():
        away = np.abs(row[list(BANDS)].to_numpy(float) - mosaic.truth(polygon, row["year"])["mean"]).max()
        assert away < (5e-3 if "float32" in flavour else 1e-6)


def test_a_store_that_was_moved_is_the_same(of_the_sample, tmp_path, sample_sites, monkeypatch):
    _, path = of_the_sample
    shutil.copytree(path, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    one, other = (extract_embeddings(sample_sites[:3], source=s, years=2024) for s in (path, "mosaic:elsewhere"))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert Path("elsewhere").exists()
