import pytest

from .fixtures import earth, ee_server, standard_archive

__all__ = ["earth", "ee_server", "standard_archive"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Each test begins with an empty cache: servers come and go on the same ports."""
    monkeypatch.setenv("GEE_POLYGONS_CACHE", str(tmp_path / "cache"))
