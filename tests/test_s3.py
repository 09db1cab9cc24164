"""The archive in a bucket, read anonymously from an S3-compatible server (moto's, on 127.0.0.1)."""

import http.client
import logging
from urllib.parse import urlsplit

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from mosaics import STEP, make
from oracles import star

from gee_polygons.alphaearth import BANDS
from gee_polygons.collection import build
from gee_polygons.errors import ReadError
from gee_polygons.extract import extract_embeddings
from gee_polygons.network.request import Network
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.mosaic import MosaicSource
from gee_polygons.sources.opening import open_source
from gee_polygons.sources.sample import truth_codes

QUICK = Network(attempts=8, first_wait_s=0.001, longest_wait_s=0.01, timeout_s=30, max_concurrent=8)
BUCKET = "us-west-2.opendata.example"  # dots in its name, as the open archive's
STORE = make(n_years=1)
STORE.codes[:, :, 32:] = -128  # the southern shards are never written


@pytest.fixture(scope="module")
def bucket(sample_archive, tmp_path_factory):
    """URL of the archive's year 2023, and of a mosaic, in a public-read bucket."""
    pytest.importorskip("moto")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    connection = http.client.HTTPConnection(host, port)

    # signed in form only: moto looks for the region in it, and checks no signature
    credential = "Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"

    def put(path, body=b""):
        headers = {"x-amz-acl": "public-read", "Authorization": f"AWS4-HMAC-SHA256 {credential}"}
        connection.request("PUT", path, body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, (path, answer.status)

    put(f"/{BUCKET}")
    root = sample_archive.parent
    for path in [sample_archive, *sorted((root / "2023").rglob("*.tiff"))]:
        put(f"/{BUCKET}/annual/{path.relative_to(root).as_posix()}", path.read_bytes())
    folder = tmp_path_factory.mktemp("s3")
    STORE.write(folder / "mosaic")
    for path in [path for path in sorted((folder / "mosaic").rglob("*")) if path.is_file()]:
        put(f"/{BUCKET}/annual/{path.relative_to(folder).as_posix()}", path.read_bytes())
    connection.close()
    yield f"s3://{BUCKET}/annual"
    patch.undo()
    server.stop()


def test_numbers_and_pixels_from_a_bucket(bucket, sample_archive, sample_sites, tmp_path):
    source = CogSource(bucket, network=QUICK)
    sites = sample_sites[:4]
    pd.testing.assert_frame_equal(
        extract_embeddings(sites, source=source, years=[2023]),
        extract_embeddings(sites, source=str(sample_archive), years=[2023]),
    )
    image = source.image(shapely.box(-48.02, -22.36, -48.015, -22.357), 2023)
    assert np.array_equal(image.codes, truth_codes(image.grid.crs, image.grid.window, 2023))


def test_a_mosaic_in_a_bucket(bucket):
    polygon = shapely.transform(star(1, (48, 20), 17), lambda xy: xy * (STEP, -STEP) + (STORE.west, STORE.north))
    below = shapely.transform(shapely.box(10, 40, 20, 50), lambda xy: xy * (STEP, -STEP) + (STORE.west, STORE.north))
    sites = geopandas.GeoDataFrame({"site_id": [1, 2]}, geometry=[polygon, below], crs=4326)
    source = MosaicSource(f"{bucket}/mosaic", network=QUICK)
    assert isinstance(open_source(f"{bucket}/mosaic"), MosaicSource)
    assert source.plan(sites.geometry.to_numpy(), [2024]).requests == 4
    table = extract_embeddings(sites, source=source, years=[2024])
    assert table["status"].tolist() == ["ok", "masked"]  # a shard that was never written
    assert np.abs(table.loc[0, list(BANDS)].to_numpy(float) - STORE.truth(polygon, 2024)["mean"]).max() < 1e-6


def test_a_collection_of_a_bucket_and_what_is_missing_there(bucket, tmp_path):
    index = f"{bucket}/aef_index.parquet"
    collection = build("gee-polygons/sample", source=index, date_range=(2023, 2023), path=tmp_path / "c.parquet",
                       network=QUICK)  # fmt: skip
    assert len(collection) == 3
    assert all(path.startswith("s3://") for path in collection.to_table()["path"].to_pylist())
    with pytest.raises(ReadError, match=r"s3://.*/2022/.*tiff: the tile is missing"):
        build("gee-polygons/sample", source=index, date_range=(2022, 2022), path=tmp_path / "d.parquet", network=QUICK)


def test_a_bucket_is_read_through_a_mirror(bucket, sample_archive, sample_sites):
    # what an index names as s3:// is read from disk: a mirror may be of any kind
    mirror = Network(url_rewrite={f"{bucket}/": f"{sample_archive.parent}/"})
    source = CogSource(f"{bucket}/aef_index.parquet", network=mirror)
    assert urlsplit(source.archive).scheme == "s3"
    table = extract_embeddings(sample_sites[:2], source=source, years=[2022])  # 2022 isn't in the bucket
    assert set(table["status"]) == {"ok"}
