"""Finishes a run: sites that lie in several chunks, those that no chunk could complete, and colours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from gee_polygons.bulk.parts import ROW_GROUP_ROWS, vectors_of, write_file, write_parts
from gee_polygons.bulk.preparing import read_chunk
from gee_polygons.bulk.work import Job, read_receipt, rows_table, shared_sums, with_data
from gee_polygons.embeddings.colors import Moments, PcaColors
from gee_polygons.reduction.merging import Results
from gee_polygons.reduction.pipeline import reduce_polygons
from gee_polygons.reduction.plan import PixelSource, Source
from gee_polygons.reduction.sharing import write_shared
from gee_polygons.store.atomic import replacing
from gee_polygons.zonal.statistics import parse_statistics

BASIS_NAME: Final = "_pca.json"  # in the dataset's folder: the colour basis, for `--colors`
_TOGETHER: Final = 5_000  # sites that are read at a time


def finish(job: Job, source: Source, receipts: list[Path], max_workers: int | None = None) -> dict[str, Any]:
    """Write the rows of sites that no chunk could complete; all chunks are done.

    Returns
    -------
    dict: ``files`` (name to size), ``rows``, ``errors``, ``failures``.
    """
    found: dict[str, Any] = {"files": {}, "rows": 0, "errors": 0, "failures": [], "with_data": [0] * len(job.years)}
    held: list[tuple[pa.Table, pa.Array]] = []

    def flush() -> None:
        if held:
            name = f"seams-{len(found['files']):06d}"
            found["files"] |= _write_together(job, held, name)
            held.clear()

    for table, geometry, failures in _remaining(job, source, receipts, max_workers):
        found["rows"] += len(table)
        found["errors"] += sum(status == "error" for status in table["status"].to_pylist())
        found["failures"] += failures
        status = table["status"].to_numpy(zero_copy_only=False).reshape(-1, len(job.years))
        found["with_data"] = [a + b for a, b in zip(found["with_data"], with_data(status), strict=True)]
        held.append((table, geometry))
        if sum(len(rows) for rows, _ in held) >= ROW_GROUP_ROWS:
            flush()
    flush()
    return found


def _write_together(job: Job, held: list[tuple[pa.Table, pa.Array]], name: str) -> dict[str, int]:
    first, tables = 0, []
    for table, geometry in held:
        at = table.schema.get_field_index("site_row")
        tables.append(table.set_column(at, "site_row", pa.array(table["site_row"].to_numpy() + first)))
        first += len(geometry)
    rows = pa.concat_tables(tables)
    rows = rows.sort_by([("hilbert_key", "ascending"), ("site_id", "ascending"), ("year", "ascending")])
    return write_parts(rows, pa.chunked_array([g for _, g in held]), job.folder, name, job.format)


def _remaining(
    job: Job, source: Source, receipts: list[Path], max_workers: int | None
) -> Iterator[tuple[pa.Table, pa.Array, list[str]]]:
    """Yield rows, the polygons that they refer to, and messages of failures."""
    where: dict[int, list[Path]] = defaultdict(list)  # chunk of a shared site -> receipts that hold sums of it
    left: dict[int, list[int]] = {}
    for path in receipts:
        receipt, table = read_receipt(path)
        if receipt["left"]:
            left[receipt["chunk"]] = receipt["left"]
        if "chunk" in table.column_names:
            for chunk in np.unique(table["chunk"].to_numpy()).tolist():
                where[chunk].append(path)
    _, needs = parse_statistics(job.statistics)
    waiting: list[tuple[pa.Table, np.ndarray[Any, Any]]] = []
    for chunk in sorted({*where, *left}):
        sites = read_chunk(job.sites_path, chunk)
        number, own = sites["site"].to_numpy(), sites["chunk"].to_numpy() == chunk
        skipped = np.isin(number, left.get(chunk, [])) & own
        parts, rows = [], np.flatnonzero(own)
        for path in where.get(chunk, ()):
            _, table = read_receipt(path)
            of_mine = (table["chunk"].to_numpy() == chunk) & ~np.isin(table["site"].to_numpy(), number[skipped])
            parts.append(table.filter(pa.array(of_mine)))
        shared = np.unique(np.concatenate([part["site"].to_numpy() for part in parts])) if parts else np.zeros(0)
        rows = rows[np.isin(number[rows], shared)]
        if len(rows):
            place = {site: i for i, site in enumerate(number[rows].tolist())}
            results = Results.empty(len(rows), len(job.years), len(job.bands), job.statistics)
            write_shared(results, [shared_sums(part, place, len(job.bands)) for part in parts if len(part)], needs)
            yield _renumbered(job, sites, rows, results, [])
        if skipped.any():
            waiting.append((sites, np.flatnonzero(skipped)))
        if sum(len(some) for _, some in waiting) >= _TOGETHER:
            yield _read_whole(job, source, waiting, max_workers)
            waiting = []
    if waiting:
        yield _read_whole(job, source, waiting, max_workers)


def _renumbered(
    job: Job, sites: pa.Table, rows: Any, results: Results, failures: list[str]
) -> tuple[pa.Table, pa.Array, list[str]]:
    taken = sites.take(pa.array(rows))
    return rows_table(job, taken, np.arange(len(rows)), results), taken["geometry"].combine_chunks(), failures


def _read_whole(
    job: Job, source: Source, waiting: list[tuple[pa.Table, Any]], max_workers: int | None
) -> tuple[pa.Table, pa.Array, list[str]]:
    """Extract sites that chunks left out, each with all of its blocks."""
    assert isinstance(source, PixelSource)
    sites = pa.concat_tables([table.take(pa.array(rows)) for table, rows in waiting])
    polygons = np.asarray(shapely.from_wkb(sites["geometry"].to_numpy()), object)
    results = reduce_polygons(
        source, polygons, job.years, bands=job.bands, statistics=job.statistics, on_error="collect",
        max_workers=max_workers, names=sites["site_id"].to_pylist(),
    )  # fmt: skip
    failures = [f"{failure.message} ({failure.year})" for failure in results.failures]
    return _renumbered(job, sites, np.arange(len(sites)), results, failures)


# --- colours ----------------------------------------------------------------------------------------------------------


def add_colors(job: Job, files: Iterable[str]) -> dict[str, int]:
    """Add the column ``pca_components`` to all files of a dataset, of one basis for all; return the files' sizes."""
    basis_path = job.folder / BASIS_NAME
    if not basis_path.exists():
        total = Moments.of([])
        for name in files:
            with pq.ParquetFile(job.folder / name) as file:
                for batch in file.iter_batches(columns=job.format.vector_columns):
                    total += Moments.of(vectors_of(batch, job.format))
        total.fit().save(basis_path)
    basis = PcaColors.load(basis_path)
    return {name: _add_column(job.folder / name, basis, job) for name in files}


def _add_column(path: Path, basis: PcaColors, job: Job) -> int:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        if "pca_components" in schema.names:
            return path.stat().st_size
        table = file.read()
    scores = basis.project(vectors_of(table, job.format)).astype(np.float32)
    missing = pa.array(~np.isfinite(scores).all(axis=1))
    column = pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), scores.shape[1], mask=missing)
    table = table.add_column(schema.get_field_index("hilbert_key"), "pca_components", column)
    with replacing(path) as part:
        write_file(table.replace_schema_metadata(schema.metadata), part)
        return part.stat().st_size
