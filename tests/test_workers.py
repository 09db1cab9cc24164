"""Worker processes, however they are started, give the parent's numbers or say at once how to start them."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from rangeserver import serve

from gee_polygons import open_source
from gee_polygons.collection import load
from gee_polygons.reduction.plan import BlockRef
from gee_polygons.sources.raster import RasterSource

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def places(sample_archive, sample_sites, tmp_path_factory):
    """A source of each kind that is a file."""
    from mosaics import make

    folder = tmp_path_factory.mktemp("places")
    region = shapely.union_all([site.polygon for site in sample_sites[:3]])
    source = open_source("sample")
    tile = source.plan(np.array([sample_sites[0].polygon]), [2023]).jobs[0].reads[0].tile
    image = source.image(region, 2023)
    np.savez(folder / "a_2023.npz", codes=image.values, transform=image.grid.transform, crs=image.grid.crs)
    west, _, _, north = region.bounds
    return {
        "sample": "sample",
        "tile": str(tile),
        "npz": str(folder / "a_2023.npz"),
        "mosaic": str(make(west=west - 0.002, north=north + 0.002).write(folder / "m.zarr")),
    }


METHODS = [method for method in ("fork", "spawn") if method in multiprocessing.get_all_start_methods()]


@pytest.mark.parametrize(
    "methods",
    [pytest.param(",".join(METHODS), id="multiprocessing"),
     pytest.param("forkserver,loky,dask", id="others", marks=pytest.mark.slow)],
)  # fmt: skip
def test_workers_give_the_numbers_of_their_parent(methods, places, sample_archive):
    with serve(sample_archive.parent) as server:
        places = {**places, "http": f"{server.url}/aef_index.parquet"}
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests/workers.py"), methods, *(f"{k}={v}" for k, v in places.items())],
            capture_output=True, text=True, timeout=200, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    found = json.loads(done.stdout)
    parent = found.pop("parent")
    assert {*parent} == {*places, "array"}
    assert all(np.any(np.array(rows) > 0) for rows in parent.values())
    for method, tables in found.items():
        for name, table in tables.items():
            assert table == parent[name], (method, name)


def test_what_a_worker_needs_can_be_pickled(places, sample_sites):
    """A raster source couldn't: it held a lock and an open file."""
    polygons = np.array([site.polygon for site in sample_sites[:3]])
    for place in places.values():
        source = open_source(place, year=2023 if place.endswith(".tiff") else None)
        plan = source.plan(polygons, [2023])
        copy, again = pickle.loads(pickle.dumps(plan)), pickle.loads(pickle.dumps(source))
        assert copy == plan
        assert again.archive == source.archive
        bands = source.bands[:2] if hasattr(source, "bands") else ["A00", "A01"]
        refs = [ref for job in copy.jobs for ref in job.reads]
        assert refs
        for one, other in zip(source.read(refs, bands), again.read(refs, bands), strict=True):
            assert np.array_equal(one.decode(0), other.decode(0))
    collection = load("gee-polygons/sample")
    box = (-48.02, -22.36, -48.018, -22.359)
    again = pickle.loads(pickle.dumps(collection))
    assert np.array_equal(again.get_numpy(box, years=[2023]), collection.get_numpy(box, years=[2023]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_raster_has_a_file_of_its_own(places):
    """Parent and child shared one open file and so one position in it: either could read the other's bytes."""
    source = RasterSource(places["tile"], year=2023)
    before = source._raster._dataset
    child = os.fork()
    if not child:
        list(source.read([BlockRef.at(source, 0, 0)], ["A00"]))
        os._exit(0 if source._raster._dataset is not before else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert source._raster._dataset is before
