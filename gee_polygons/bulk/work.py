"""Does one chunk of a run: reads its blocks once, writes the sites that it completes, keeps the sums of others."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from gee_polygons.bulk.layout import Layout
from gee_polygons.bulk.parts import Format, write_parts
from gee_polygons.bulk.preparing import read_chunk
from gee_polygons.extract import embedding_table
from gee_polygons.reduction.merging import Results
from gee_polygons.reduction.pipeline import reduce_chunk
from gee_polygons.reduction.plan import PixelSource, Plan, ReducingSource, Source
from gee_polygons.reduction.sharing import SharedSums
from gee_polygons.sources.cog.zoning import crosses_cells
from gee_polygons.sources.opening import open_source
from gee_polygons.store.atomic import replacing
from gee_polygons.zonal.partials import Partials

RUN_FOLDER: Final = "_run"  # in the dataset's folder; readers leave out names that begin with _
_DIGEST_BYTES: Final = 32  # SHA-256 of a receipt, before its content
MAX_FAILURES: Final = 20  # messages of a chunk that are kept


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run as its workers need it: plain values, read from ``_run/run.json``.

    Parameters
    ----------
    folder : Path
        The dataset's folder.
    plan_hash : str
        Of all that decides about the dataset.
    years, bands, statistics : tuple
        What to compute.
    source : str, optional
        As `open_source` takes it; None if it is an object, which is handed over beside the job.
    kept : tuple of str
        Columns of the sites to write.
    format : Format
        What the files look like.
    counts : tuple of int
        Sites of each chunk.
    bounds : tuple of float
        West, south, east, north of all sites.
    layout : Layout
        Rectangles and chunks.
    """

    folder: Path
    plan_hash: str
    years: tuple[int, ...]
    bands: tuple[str, ...]
    statistics: tuple[str, ...]
    source: str | None
    kept: tuple[str, ...]
    format: Format
    counts: tuple[int, ...]
    bounds: tuple[float, ...]
    layout: Layout

    @property
    def sites_path(self) -> Path:
        """The run's copy of the sites."""
        return self.folder / RUN_FOLDER / "sites.arrow"

    def receipt_path(self, number: int) -> Path:
        """Return the name of the file that records that a chunk is done."""
        return self.folder / RUN_FOLDER / "done" / f"{number:06d}.arrow"

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read a prepared run."""
        said = json.loads((folder / RUN_FOLDER / "run.json").read_text(encoding="utf-8"))
        asked = said["asked"]
        form = Format(
            partition_by=tuple(asked["partition_by"]), embedding=asked["embedding"], values=tuple(said["values"]),
            provenance=said["provenance"], plan_hash=said["hash"],
        )  # fmt: skip
        return cls(
            folder=folder, plan_hash=said["hash"], years=tuple(asked["years"]), bands=tuple(asked["bands"]),
            statistics=tuple(asked["statistics"]), source=said["source"], kept=tuple(said["kept"]), format=form,
            counts=tuple(said["counts"]), bounds=tuple(said["bounds"]), layout=Layout.from_dict(said["layout"]),
        )  # fmt: skip


def do_chunk(folder: str, number: int, source: Source | None = None, max_workers: int | None = None) -> dict[str, Any]:
    """Do a chunk and commit it: its files first, its receipt last. Returns the receipt's numbers.

    A chunk may be done twice, by two workers: the files are the same to the byte.
    """
    job = _job(folder)
    started = time.perf_counter()
    sites = read_chunk(job.sites_path, number)
    polygons = np.asarray(shapely.from_wkb(sites["geometry"].to_numpy()), object)
    opened = source if source is not None else _opened(job.source)
    own = sites["chunk"].to_numpy() == number
    shared: SharedSums | None = None
    if isinstance(opened, PixelSource):
        chooser = _Chooser(job, number, sites, polygons)
        found = reduce_chunk(
            opened, polygons, job.years, bands=job.bands, statistics=job.statistics, choose=chooser,
            max_workers=max_workers,
        )  # fmt: skip
        results, plan = found.results, found.plan
        complete = chooser.counted & ~found.elsewhere & (found.here | own)
        left, shared, blocks = own & ~chooser.counted, found.shared, plan.blocks
    else:
        assert isinstance(opened, ReducingSource)
        results = opened.reduce(
            polygons, job.years, job.bands, job.statistics, on_error="collect", max_workers=max_workers
        )
        complete, left, blocks = own, np.zeros(len(own), np.bool_), 0
    rows = np.flatnonzero(complete)
    ids, keys = sites["site_id"].to_numpy(), sites["hilbert_key"].to_numpy()
    rows = rows[np.lexsort((ids[rows], keys[rows]))]
    table = rows_table(job, sites, rows, results)
    files = write_parts(table, sites["geometry"], job.folder, f"part-{number:06d}", job.format) if len(rows) else {}
    wrong = results.status[complete] == "error"
    receipt = {
        "chunk": number, "plan": job.plan_hash, "files": files, "rows": len(table), "blocks": blocks,
        "with_data": with_data(results.status[complete]),
        "error_rows": int(wrong.sum()), "errors": int(wrong.sum()) + (int(shared.failed.sum()) if shared else 0),
        "failures": [f"{failure.message} ({failure.year})" for failure in results.failures[:MAX_FAILURES]],
        "damaged": sum(block.wrong + block.incomplete for block in results.damage),
        "left": sites["site"].to_numpy()[left].tolist(), "seconds": round(time.perf_counter() - started, 3),
    }  # fmt: skip
    _write_receipt(job.receipt_path(number), receipt, shared, sites)
    return {
        key: receipt[key] for key in ("chunk", "files", "rows", "blocks", "errors", "error_rows", "failures", "damaged")
    }


@lru_cache(maxsize=4)
def _job(folder: str) -> Job:
    return Job.load(Path(folder))


@lru_cache(maxsize=4)
def _opened(source: str | None) -> Source:
    return open_source(source)


class _Chooser:
    """Decides which blocks belong to a chunk, and which sites can be completed by chunks.

    Those that can't are read at the end: sites across UTM zones, on several pixel grids, or outside the box that
    the run assumed for them.
    """

    def __init__(self, job: Job, number: int, sites: pa.Table, polygons: NDArray[Any]) -> None:
        self._layout, self._number, self._sites = job.layout, number, sites
        self.counted = ~crosses_cells(shapely.bounds(polygons))
        if "medoid" in job.statistics:  # can't be merged
            self.counted &= np.array([not others for others in sites["others"].to_pylist()], np.bool_)

    def __call__(self, plan: Plan) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        layout = self._layout
        numbers = {grid.lattice: i for i, grid in enumerate(layout.grids)}
        grid = np.array([numbers.get(job.lattice, -1) for job in plan.jobs], np.int64)
        known = grid >= 0
        row = np.array([job.window.row for job in plan.jobs], np.int64)
        col = np.array([job.window.col for job in plan.jobs], np.int64)
        chunk = np.full(len(grid), -1, np.int64)
        chunk[known] = layout.chunk(layout.key(grid[known], row[known], col[known]))
        owner = np.array([piece.polygon for piece in plan.pieces], np.int64)
        n_pieces = np.bincount(owner, minlength=len(self.counted))
        self.counted &= n_pieces[: len(self.counted)] <= 1
        told = self._sites["chunk"].to_numpy()
        others = self._sites["others"].to_pylist()
        for i in np.flatnonzero(chunk != self._number).tolist():
            for polygon in owner[list(plan.jobs[i].pieces)].tolist():
                if chunk[i] != told[polygon] and chunk[i] not in others[polygon]:
                    self.counted[polygon] = False
        return chunk == self._number, self.counted


def rows_table(job: Job, sites: pa.Table, rows: NDArray[np.int64], results: Results) -> pa.Table:
    """Return the rows of some sites as they are written, with ``site_row``: the row of `sites`."""
    taken = results.take(rows)
    frame = embedding_table(
        sites["site_id"].take(pa.array(rows)).to_pylist(), job.years, job.bands, job.statistics, taken
    )
    n_years = len(job.years)
    repeated = pa.array(np.repeat(rows, n_years))
    columns: dict[str, Any] = {"site_id": sites["site_id"].take(repeated), "year": pa.array(frame["year"])}
    columns |= {name: sites[name].take(repeated) for name in job.kept}
    for name in frame.columns[2:]:
        columns[name] = pa.array(frame[name].to_numpy(), from_pandas=True)
    columns |= {"hilbert_key": sites["hilbert_key"].take(repeated), "site_row": repeated}
    return pa.table(columns)


def with_data(status: NDArray[Any]) -> list[int]:
    """Return how many sites have data, or may have, in each year."""
    found: list[int] = (~np.isin(status, ("no_data", "masked"))).sum(axis=0).tolist()
    return found


# --- receipts ---------------------------------------------------------------------------------------------------------


def _write_receipt(path: Path, receipt: dict[str, Any], shared: SharedSums | None, sites: pa.Table) -> None:
    table = pa.table({}) if shared is None else _as_table(shared, sites)
    metadata = {b"receipt": json.dumps(receipt).encode()}
    if shared is not None:
        metadata[b"scale"] = str(shared.scale).encode()
    table = table.replace_schema_metadata(metadata)
    content = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(content, table.schema, options=options) as writer:
        writer.write_table(table)
    found = content.getvalue()
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(hashlib.sha256(found).digest())
        file.write(found)


def read_receipt(path: Path) -> tuple[dict[str, Any], pa.Table]:
    """Return a receipt and the table of shared sums; raise a ValueError if the file isn't as it was written."""
    content = pa.py_buffer(path.read_bytes())
    if hashlib.sha256(content[_DIGEST_BYTES:]).digest() != content[:_DIGEST_BYTES].to_pybytes():
        raise ValueError(f"{path} is damaged")
    table = pa.ipc.open_file(content[_DIGEST_BYTES:]).read_all()
    return json.loads(table.schema.metadata[b"receipt"]), table


def _as_table(shared: SharedSums, sites: pa.Table) -> pa.Table:
    """Return sums as a table: one row for each site and year, with the site's number, and histograms without zeros."""
    n = len(shared.polygon)
    columns: dict[str, Any] = {
        "site": sites["site"].take(pa.array(shared.polygon)),
        "chunk": sites["chunk"].take(pa.array(shared.polygon)),
    }
    for name in ("year", "blocks", "merged", "failed", "area"):
        columns[name] = pa.array(getattr(shared, name))
    for name, values in shared.partials.arrays.items():
        flat = pa.array(np.ascontiguousarray(values).ravel())
        columns[f"sum {name}"] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    if shared.histograms:
        filled = [np.flatnonzero(shared.histograms[i]) if i in shared.histograms else None for i in range(n)]
        columns["bins"] = pa.array(filled, pa.list_(pa.int32()))
        counts = [None if at is None else shared.histograms[i].ravel()[at] for i, at in enumerate(filled)]
        columns["counts"] = pa.array(counts, pa.list_(pa.int64()))
    return pa.table(columns)


def shared_sums(table: pa.Table, place: dict[int, int], n_bands: int) -> SharedSums:
    """Read back what `_as_table` made; `place` gives the new number of each site."""
    partials = {}
    for name in table.column_names:
        if name.startswith("sum "):
            column = table[name].combine_chunks()
            if pa.types.is_fixed_size_list(column.type):
                partials[name[4:]] = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
            else:
                partials[name[4:]] = column.to_numpy()
    histograms = {}
    if "bins" in table.column_names:
        for i, (bins, counts) in enumerate(zip(table["bins"], table["counts"], strict=True)):
            if bins.is_valid:
                histogram = np.zeros(n_bands * 256, np.int64)
                histogram[bins.values.to_numpy()] = counts.values.to_numpy()
                histograms[i] = histogram.reshape(n_bands, 256)
    numbers = {name: table[name].to_numpy() for name in ("year", "blocks", "merged", "failed", "area")}
    return SharedSums(
        polygon=np.array([place[site] for site in table["site"].to_pylist()], np.int64),
        partials=Partials(partials), histograms=histograms, scale=float(table.schema.metadata[b"scale"]), **numbers,
    )  # fmt: skip
