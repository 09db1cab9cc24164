"""Extracts in worker processes after the parent has: prints, for each way to start them and each source, what came.

python workers.py fork,spawn,loky NAME=SOURCE...
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from functools import partial
from pathlib import Path


def table_of(source):
    """The numbers of three sites, or the error."""
    from gee_polygons import extract_embeddings
    from gee_polygons.errors import GeePolygonsError
    from gee_polygons.sources.sample import sample_sites

    try:
        table = extract_embeddings(sample_sites()[:3], years=[2023], source=source, statistics=["mean", "p90"])
    except GeePolygonsError as error:
        return f"{type(error).__name__}: {error}"
    return table.select_dtypes("number").fillna(-9).to_numpy().tolist()


def in_workers(how, sources):
    if how == "loky":
        import joblib

        return joblib.Parallel(n_jobs=2)(joblib.delayed(table_of)(source) for source in sources)
    if how == "dask":
        import dask

        return list(dask.compute(*[dask.delayed(table_of)(source) for source in sources], scheduler="processes"))
    with multiprocessing.get_context(how).Pool(1) as pool:
        return pool.map_async(partial(table_of), sources).get(120)


def main() -> None:
    from gee_polygons import open_source
    from gee_polygons.sources.raster import RasterSource

    names = dict(argument.split("=", 1) for argument in sys.argv[2:])
    sources = {
        name: open_source(place, year=2023 if place.endswith(".tiff") else None) for name, place in names.items()
    }
    image = open_source("sample").image(sites_hull(), 2023)
    sources["array"] = RasterSource(image.values, grid=image.grid, year=2023)
    found = {"parent": dict(zip(sources, map(table_of, sources.values()), strict=True))}
    for how in sys.argv[1].split(","):
        found[how] = dict(zip(sources, in_workers(how, list(sources.values())), strict=True))
    sys.stdout.write(json.dumps(found))


def sites_hull():
    from gee_polygons.sources.sample import sample_sites

    return sample_sites().geometry[:3].union_all().envelope


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
