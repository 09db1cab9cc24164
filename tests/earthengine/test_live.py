"""The real service, for who has an account: EE_PROJECT=... pytest -m ee tests/earthengine/test_live.py"""

import numpy as np
import pytest

from gee_polygons import extract_embeddings
from gee_polygons.datasets.alpha_embeddings import EMBEDDING_BANDS
from gee_polygons.sources.earthengine import EarthEngineSource, connect

from .places import site_at

pytestmark = pytest.mark.ee


def test_server_and_pixels_agree():
    connect()
    site = site_at(0, 700_500, 7_500_400)
    server = extract_embeddings(site, years=2023, source=EarthEngineSource(cache=False))
    pixels = extract_embeddings(site, years=2023, source=EarthEngineSource(method="pixels", cache=False))
    assert server["status"].tolist() == pixels["status"].tolist() == ["ok"]
    assert np.abs(server[EMBEDDING_BANDS].to_numpy() - pixels[EMBEDDING_BANDS].to_numpy()).max() < 2e-4
