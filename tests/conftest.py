"""Fixtures that every test module may use."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest

# the same examples in every run, and no clock: a slow machine isn't a fault of the code
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

os.environ.setdefault("MPLBACKEND", "Agg")  # no window system
# for xdist's processes, which share the cores: BLAS threads of each wait for one another (four times the CPU time)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# a setting of the person who runs the tests must not choose the source
os.environ.pop("GEE_POLYGONS_SOURCE", None)

# files of more than ten seconds, the longest first: one that started last would be waited for
LONGEST = (
    "test_notebooks", "test_mosaic", "test_null", "test_cli", "test_seams", "test_collection", "test_mosaic_wide",
    "test_huge", "test_dialects", "test_robustness", "test_sample", "test_download", "test_large", "test_visualize",
    "test_change", "test_report", "test_cog", "test_statistics", "test_warmup", "test_intervals", "test_damage",
    "test_overlaps", "test_recovery", "test_cli_examples", "test_messages",
)  # fmt: skip
SOURCES = Path(__file__).parents[1] / "gee_polygons" / "sources"


def pytest_configure(config) -> None:
    """Keep the sample archive, `open_source("sample")`'s too, with the tests: until the code that makes it changes."""
    cache = getattr(config, "cache", None)  # None under -p no:cacheprovider
    folder = cache.mkdir("sample-archives") if cache is not None else Path(tempfile.mkdtemp())
    code = [*sorted((SOURCES / "sample").glob("*.py")), SOURCES / "cog" / "writing.py"]
    key = hashlib.sha256(b"\0".join(path.read_bytes() for path in code)).hexdigest()[:12]
    for old in folder.iterdir():
        if old.name != key:
            shutil.rmtree(old, ignore_errors=True)
    os.environ["GEE_POLYGONS_CACHE"] = str(folder / key)


def pytest_collection_modifyitems(items) -> None:
    """Put the files that take longest first."""
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_sessionstart(session) -> None:
    """With several processes, build the sample archive before they start: each would build it otherwise."""
    if getattr(session.config.option, "numprocesses", None) and not hasattr(session.config, "workerinput"):
        from gee_polygons.sources.sample import sample_archive_path

        sample_archive_path()


@pytest.fixture(scope="session")
def sample_archive() -> Path:
    """Index of the sample archive, 2018-2024."""
    from gee_polygons.sources.sample import build_sample_archive, sample_archive_path

    return build_sample_archive(sample_archive_path())  # built already: this says where the index is


@pytest.fixture(scope="session")
def sample_sites():
    """The sites of the sample archive, a SiteCollection."""
    from gee_polygons.site import sites_from_geodataframe
    from gee_polygons.sources.sample import sample_sites

    return sites_from_geodataframe(sample_sites())
