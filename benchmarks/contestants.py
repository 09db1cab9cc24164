"""One function per contestant: it gets ready (imports, opens, loads) and returns the call that is measured.

A call returns the fields' means, shape (fields, 64), or None where it has none to compare. `python -m
benchmarks.contestants NAME --tile T --polygons P` runs one and prints its figures as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import measured
from benchmarks.workload import N_BANDS, YEAR, Work, dequantise

Call = Callable[[], np.ndarray | None]
BANDS = range(1, N_BANDS + 1)


@dataclass(frozen=True)
class Contestant:
    """Who takes part, and with how many of the fields: slow ones get the first few blocks' only."""

    label: str
    start: Callable[[Work], Call]
    share: float = 1.0
    repeats: int = 1


def decode_only(work: Work) -> Call:
    """Read the compressed blocks as the package does, and decode them: what no reader of this file can beat."""
    import imagecodecs

    from gee_polygons.network.ranges import RangeRequest, stream
    from gee_polygons.sources.cog.header import open_tiles

    place, blocks = str(work.tile), work.blocks

    def call() -> None:
        [tile] = open_tiles([(place, YEAR)])
        out = np.empty(tile.block_shape[0] * tile.block_shape[1] * (1 if tile.planar else N_BANDS), np.uint8)
        decode = {"zstd": imagecodecs.zstd_decode, "zlib": imagecodecs.zlib_decode}[tile.compression]
        for row, col in blocks:
            starts, lengths = tile.offsets[:, row, col].tolist(), tile.lengths[:, row, col].tolist()
            for payload in next(stream([RangeRequest(place, starts, lengths)])):
                decode(payload.read() if hasattr(payload, "read") else payload, out=out)

    return call


def this_package(work: Work) -> Call:
    """The first call of a process: everything that is loaded late counts."""
    from gee_polygons.extract import extract_embeddings
    from gee_polygons.site import sites_from_geodataframe
    from gee_polygons.sources.cog import CogSource

    sites, index = sites_from_geodataframe(work.fields), work.index()

    def call() -> np.ndarray:
        table = extract_embeddings(
            sites, years=work.years, source=CogSource(index), statistics=work.statistics, max_workers=work.max_workers
        )
        return table.filter(regex=r"^A\d\d(_mean)?$").to_numpy()

    return call


def this_package_again(work: Work) -> Call:
    """A later call, after one of five fields."""
    five = np.unique(np.linspace(0, len(work.fields) - 1, 5).astype(int))
    this_package(replace(work, only=tuple(five.tolist())))()
    return this_package(work)


def exactextract_memory(work: Work) -> Call:
    """Its fastest way: all pixels in memory, de-quantised before."""
    import rasterio
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    fields = work.local
    with rasterio.open(work.tile) as file:
        wkt = file.crs.wkt
        sources = [
            NumPyRasterSource(dequantise(file.read(band)), *file.bounds, name=f"b{band}", srs_wkt=wkt) for band in BANDS
        ]
    return lambda: exact_extract(sources, fields, ["mean"], output="pandas").to_numpy()


def exactextract_file(work: Work) -> Call:
    """From the file, each window de-quantised when it has been read."""
    import rasterio
    from exactextract import exact_extract
    from exactextract.raster import RasterioRasterSource
    from rasterio.windows import Window

    class Vectors(RasterioRasterSource):
        def nodata_value(self) -> None:
            return None

        def read_window(self, x0: int, y0: int, nx: int, ny: int) -> np.ndarray:
            return dequantise(self.ds.read(self.band_idx, window=Window(x0, y0, nx, ny)))

    fields, file = work.local, rasterio.open(work.tile)
    sources = [Vectors(file, band, name=f"b{band}") for band in BANDS]
    return lambda: exact_extract(sources, fields, ["mean"], output="pandas").to_numpy()


def exactextract_codes(work: Work) -> Call:
    """From the file, as it comes: means of codes, which aren't the codes of means."""
    from exactextract import exact_extract

    fields, place = work.local, str(work.tile)

    def call() -> None:
        exact_extract(place, fields, ["mean"], output="pandas")

    return call


def _xvec(work: Work, method: str) -> Call:
    import rasterio
    import rioxarray  # noqa: F401 - xvec needs it
    import xarray
    import xvec  # noqa: F401 - registers the accessor
    from rasterio.windows import Window, from_bounds

    fields = work.local.geometry

    def call() -> np.ndarray:
        with rasterio.open(work.tile) as file:
            west, south, east, north = fields.total_bounds
            window = from_bounds(
                max(west, file.bounds.left), max(south, file.bounds.bottom),
                min(east, file.bounds.right), min(north, file.bounds.top), file.transform,
            )  # fmt: skip
            (top, bottom), (left, right) = window.toranges()
            rows, cols = (floor(top), ceil(bottom)), (floor(left), ceil(right))
            window = Window.from_slices(rows, cols)
            vectors = dequantise(file.read(window=window))
            a, _, x0, _, e, y0 = file.window_transform(window)[:6]
        x, y = x0 + a * (np.arange(vectors.shape[2]) + 0.5), y0 + e * (np.arange(vectors.shape[1]) + 0.5)
        pixels = xarray.DataArray(vectors, dims=("band", "y", "x"), coords={"band": list(BANDS), "y": y, "x": x})
        pixels = pixels.rio.write_crs(work.profile["crs"])
        found = pixels.xvec.zonal_stats(fields, x_coords="x", y_coords="y", stats="mean", method=method)
        return found.transpose("geometry", "band").to_numpy()

    return call


def xvec_exactextract(work: Work) -> Call:
    """The fields' surroundings read and de-quantised at once, then exactextract."""
    return _xvec(work, "exactextract")


def xvec_rasterize(work: Work) -> Call:
    """The same, then pixels whose centre is inside, of the last field where fields overlap."""
    return _xvec(work, "rasterize")


def mask_loop(work: Work) -> Call:
    """What many notebooks do: rasterio.mask field by field."""
    import rasterio
    from rasterio.mask import mask

    shapes = work.local.geometry.to_list()

    def call() -> np.ndarray:
        means = np.full((len(shapes), N_BANDS), np.nan)
        with rasterio.open(work.tile) as file:
            for i, shape in enumerate(shapes):
                try:
                    codes, _ = mask(file, [shape], crop=True)
                except ValueError:  # no pixel
                    continue
                inside = codes[:, codes[0] != file.nodata]
                if inside.size:
                    means[i] = dequantise(inside).mean(axis=1, dtype=np.float64)
        return means

    return call


def rasterstats(work: Work) -> Call:
    """rasterstats.zonal_stats, band by band."""
    from rasterstats import zonal_stats

    fields, place = work.local, str(work.tile)

    def vector_mean(pixels: np.ma.MaskedArray) -> float:
        codes = pixels.compressed().astype(np.int8)
        return float(dequantise(codes).mean(dtype=np.float64)) if codes.size else np.nan

    def call() -> np.ndarray:
        means = np.empty((len(fields), N_BANDS))
        for band in BANDS:
            found = zonal_stats(fields, place, band=band, stats=["count"], add_stats={"mean": vector_mean})
            means[:, band - 1] = [row["mean"] for row in found]
        return means

    return call


CONTESTANTS = {
    "decode": Contestant("decode only", decode_only, repeats=5),
    "first": Contestant("**this package**, first call of a process", this_package, repeats=5),
    "again": Contestant("**this package**, later calls", this_package_again, repeats=5),
    "exactextract_memory": Contestant("exactextract, vectors in memory", exactextract_memory),
    "exactextract_file": Contestant("exactextract, from file", exactextract_file, share=0.25),
    "exactextract_codes": Contestant("exactextract, from file, means of codes", exactextract_codes, share=0.25),
    "xvec_exactextract": Contestant("xvec, exactextract", xvec_exactextract, share=0.0625),
    "xvec_rasterize": Contestant("xvec, rasterize (pixel centres)", xvec_rasterize, share=0.0625),
    "mask_loop": Contestant("rasterio.mask loop (pixel centres)", mask_loop, share=0.0625),
    "rasterstats": Contestant("rasterstats (pixel centres)", rasterstats, share=0.005),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one contestant; prints JSON.")
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("--tile", type=Path, required=True)
    parser.add_argument("--polygons", type=Path, required=True)
    parser.add_argument("--n-fields", type=int)
    parser.add_argument("--save", type=Path, help="where to write the means, .npy")
    parser.add_argument("--n-years", type=int, default=1)
    parser.add_argument("--statistics", default="mean")
    parser.add_argument("--max-workers", type=int)
    asked = parser.parse_args()
    work = Work(
        asked.tile, asked.polygons, asked.n_fields,
        n_years=asked.n_years, statistics=tuple(asked.statistics.split(",")), max_workers=asked.max_workers,
    )  # fmt: skip
    call = CONTESTANTS[asked.name].start(work)
    means, figures = measured(call)
    if asked.save is not None and means is not None:
        np.save(asked.save, means)
    result: dict[str, Any] = {"name": asked.name, "fields": len(work.fields), **figures}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
