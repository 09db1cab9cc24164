"""How this package's cost grows: with polygons, years, polygon size, threads and statistics; and coverage alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import rasterio
import shapely

from benchmarks.measure import cpu_seconds, in_own_process, machine
from benchmarks.report import publish, table
from benchmarks.workload import Work, make_fields

AREA_HA = 15.0
HEAD = ("fields", "CPU s", "wall s", "field-years per core-second", "CPU us per field-year", "peak MB", "above MB")


@dataclass(frozen=True)
class Setting:
    """The tile, and how much of everything."""

    work: Work
    n_fields: int
    repeats: int
    quick: bool

    def extraction(self, label: object, *options: str, n: int | None = None, area_ha: float = AREA_HA) -> list[Any]:
        """Return a row: medians of processes that extract after a warm-up of five fields."""
        n = self.n_fields if n is None else n
        polygons = make_fields(self.work.tile, n, area_ha)
        runs = [
            in_own_process(
                "benchmarks.contestants", "again", "--tile", str(self.work.tile), "--polygons", str(polygons), *options
            )
            for _ in range(self.repeats)
        ]
        figures = ("cpu_s", "wall_s", "peak_mb", "above_mb")
        cpu, wall, peak, above = (median(run[key] for run in runs) for key in figures)
        values = n * (int(options[options.index("--n-years") + 1]) if "--n-years" in options else 1)
        row = [label, n, cpu, wall, values / cpu, 1e6 * cpu / values, peak, above]
        print(row, flush=True)
        return row


def polygons(setting: Setting) -> str:
    """Cost of more polygons on one tile."""
    counts = (100, 1_000, 10_000) if setting.quick else (100, 1_000, 10_000, 100_000)
    rows = [setting.extraction(f"{n:,}", n=n) for n in counts]
    return _section("Polygons", "fields of 15 ha; 100,000 overlap ninefold", ("", *HEAD), rows)


def years(setting: Setting) -> str:
    """Cost of more years."""
    rows = [setting.extraction(n, "--n-years", str(n)) for n in ((1, 3) if setting.quick else (1, 2, 3, 5, 7, 9))]
    return _section("Years", "the same tile listed under several years, read each time", ("years", *HEAD), rows)


def sizes(setting: Setting) -> str:
    """Cost of larger polygons."""
    tile_ha = setting.work.profile["width"] * setting.work.profile["height"] / 100
    rows = []
    for area_ha in (0.01, 0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0):
        n = int(min(setting.n_fields, max(4, 2 * tile_ha / area_ha)))
        rows.append(setting.extraction(f"{area_ha:g}", n=n, area_ha=area_ha))
    return _section("Polygon size", "as many as cover the tile twice, at most as above", ("ha", *HEAD), rows)


def threads(setting: Setting) -> str:
    """What a second thread is worth."""
    rows = [setting.extraction(n, "--max-workers", str(n)) for n in (1, 2)]
    return _section("Threads", "`max_workers=`; one more fetches", ("threads", *HEAD), rows)


def statistics(setting: Setting) -> str:
    """What the statistics cost."""
    asked = ("mean", "mean,std", "min,max", "median", "p10,p50,p90", "mean,std,min,max,p10,p50,p90", "medoid")
    rows = [setting.extraction(names.replace(",", ", "), "--statistics", names) for names in asked]
    return _section("Statistics", "of all 64 bands", ("", *HEAD), rows)


def coverage(setting: Setting) -> str:
    """Coverage of a polygon alone: no pixel is read."""
    work = Work(setting.work.tile, make_fields(setting.work.tile, setting.n_fields))
    rows = [[label, 1e6 * cpu_seconds(call, setting.repeats) / n] for label, n, call in _coverage_calls(work)]
    vertices = shapely.get_num_coordinates(work.local.geometry.to_numpy()).mean()
    return _section("Coverage", f"fields of 15 ha, {vertices:.0f} vertices", ("", "CPU us per polygon"), rows)


def _coverage_calls(work: Work) -> Iterator[tuple[str, int, Callable[[], object]]]:
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource
    from rasterio.features import rasterize

    from gee_polygons.sources.cog.header import open_tiles
    from gee_polygons.zonal.coverage import compute_coverage
    from gee_polygons.zonal.projection import project_to_lattice

    geometries, local = work.fields.geometry.to_numpy(), work.local
    lattice = open_tiles([(str(work.tile), work.years[0])])[0].grid.lattice
    rings = project_to_lattice(geometries, lattice)
    yield "this package, projected rings to runs and edges", len(rings), lambda: compute_coverage(rings)
    yield "this package, EPSG:4326 to projected rings", len(rings), lambda: project_to_lattice(geometries, lattice)

    some = local.iloc[:1000]
    empty = np.zeros((work.profile["height"], work.profile["width"]), np.int8)
    raster = NumPyRasterSource(empty, *work.profile["bounds"], srs_wkt=work.profile["crs"].wkt)
    ways: dict[str, Callable[[], object]] = {
        "exactextract, its coverage fractions": lambda: exact_extract(raster, some, ["coverage"], output="pandas"),
        "exactextract, their sum": lambda: exact_extract(raster, some, ["count"], output="pandas"),
    }
    for label, call in ways.items():
        yield label, len(some), call

    west, north = work.profile["bounds"][0], work.profile["bounds"][3]
    step = abs(work.profile["transform"].a)

    corner = rasterio.Affine(step, 0, west, 0, -step, north)
    everything = list(some.geometry)
    yield (
        "rasterio.features.rasterize, all at once (pixel centres)", len(some),
        lambda: rasterize(everything, out_shape=empty.shape, transform=corner, dtype="uint8"),
    )  # fmt: skip

    def centres() -> None:
        for geometry in some.geometry:
            left, bottom, right, top = geometry.bounds
            col, row = int((left - west) // step), int((north - top) // step)
            shape = (int((north - bottom) // step) - row + 1, int((right - west) // step) - col + 1)
            corner = rasterio.Affine(step, 0, west + col * step, 0, -step, north - row * step)
            rasterize([geometry], out_shape=shape, transform=corner, dtype="uint8")

    yield "rasterio.features.rasterize, one by one (pixel centres)", len(some), centres


def _section(title: str, what: str, head: tuple[str, ...], rows: list[list[Any]]) -> str:
    return f"### {title}\n\n{what[0].upper()}{what[1:]}.\n\n{table(head, rows)}"


EXPERIMENTS: dict[str, Callable[[Setting], str]] = {
    experiment.__name__: experiment for experiment in (polygons, years, sizes, threads, statistics, coverage)
}


def run(work: Work, chosen: list[str], *, quick: bool, write: bool) -> None:
    """Run some experiments on the tile, with fields made over it."""
    setting = Setting(work, n_fields=625 if quick else 10_000, repeats=1 if quick else 3, quick=quick)
    for name in chosen:
        publish(name, EXPERIMENTS[name](setting), write=write)
    publish("scaling machine", "\n".join(f"* {line}" for line in machine()), write=write)
