"""Makes a run's own copy of the sites: checked, in the order of a Hilbert curve, one record batch for each chunk.

The sites are read once, in batches. Of all of them at once only ids' hashes, Hilbert keys and bounding boxes are held,
about 60 bytes a site; the rest goes through files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from gee_polygons.bulk.layout import Boxes, GridPart, Layout, make_layout
from gee_polygons.bulk.sites import SiteInput
from gee_polygons.errors import SiteError, UsageError
from gee_polygons.reduction.plan import PixelSource, Source
from gee_polygons.reduction.threads import in_order
from gee_polygons.site.files import site_columns
from gee_polygons.site.table import SiteTable
from gee_polygons.site.values import near
from gee_polygons.zonal.grid import Lattice
from gee_polygons.zonal.projection import transformer
from gee_polygons.zonal.zones import zone_crs

WORLD: Final = (-180.0, -90.0, 180.0, 90.0)
_HILBERT_LEVEL: Final = 16
_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4")
_BUCKET: Final = 100_000  # sites that are sorted in memory at a time
_METRES: Final = 111_320.0  # of a degree of latitude, and of longitude at the equator
_SKEW: Final = 0.06  # the grid's north differs from true north by up to this many radians within a zone
RESERVED: Final = (
    "site_id", "geometry", "hilbert_key", "start_year", "chunk", "others", "lon", "lat", "site", "site_row", "year",
    "time",
)  # fmt: skip
SAMPLED: Final = 8  # sites of each zone that are planned for, to see the pixel grid and its blocks


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What `prepare` found.

    Parameters
    ----------
    n : int
        Number of sites.
    digest : str
        Of all ids, polygons and columns, in the order given.
    layout : Layout
        Rectangles and chunks.
    counts : list of int
        Sites whose middle lies in each chunk.
    bounds : list of float
        West, south, east, north of all sites.
    """

    n: int
    digest: str
    layout: Layout
    counts: list[int]
    bounds: list[float]


def prepare(
    sites: SiteInput,
    folder: Path,
    *,
    source: Source,
    years: Sequence[int],
    keep: Sequence[str] | None,
    most: int,
    advance: Callable[[int], object] = lambda n: None,
) -> Prepared:
    """Write ``sites.arrow`` into a folder: the sites of each chunk, and those of others that reach into it.

    Parameters
    ----------
    sites : SiteInput
        The sites.
    folder : Path
        Where to write, also temporary files as large as the sites.
    source : Source
        Where the pixels are: its blocks decide about the chunks.
    years : sequence of int
        Years of the run.
    keep : sequence of str, optional
        Columns of the sites to keep; None: all.
    most : int
        Sites of a chunk, see `make_layout`.
    advance : callable
        Called with the number of sites just read.

    Returns
    -------
    Prepared

    Raises
    ------
    SiteError
        For anything that `load_sites` refuses.
    """
    incoming = folder / "incoming.arrow"
    held: list[_Batch] = []
    with pa.OSFile(str(incoming), "wb") as file:
        writer = schema = digest = None
        for batch in in_order(2, lambda table: _Batch.of(table, keep), sites.batches()):
            schema = schema or _widened(batch.rows.schema)
            digest = digest or _Digest(schema)
            rows = _typed(batch.rows, schema)
            writer = writer or pa.ipc.new_file(file, schema, options=_OPTIONS)
            writer.write_batch(rows)
            digest.update(rows)
            held.append(replace(batch, rows=None))
            advance(len(rows))
        assert writer is not None  # no sites are an error of `batches`
        assert digest is not None
        writer.close()
    keys, bounds = np.concatenate([b.keys for b in held]), np.concatenate([b.bounds for b in held])
    _check_ids(np.concatenate([b.ids for b in held]), incoming)
    del held
    if isinstance(source, PixelSource):
        grids, boxes = _on_grids(bounds, source, years, incoming)
        layout, chunk, others = make_layout(grids, boxes, keys, most=most)
    else:  # no blocks: any division will do
        layout, others = Layout((), *(np.zeros(0, np.int64) for _ in range(3))), {}
        chunk = np.empty(len(keys), np.int64)
        chunk[np.argsort(keys, kind="stable")] = np.arange(len(keys)) // max(most // 10, 1)
    _write_sorted(incoming, folder / "sites.arrow", chunk, others)
    counts = np.bincount(chunk, minlength=1).tolist()
    box = [*bounds[:, :2].min(axis=0).tolist(), *bounds[:, 2:].max(axis=0).tolist()]
    return Prepared(n=len(keys), digest=digest.hexdigest(), layout=layout, counts=counts, bounds=box)


class _Digest:
    """A digest of a table that comes in batches, which doesn't depend on where these end."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._hashes = {name: [hashlib.sha256() for _ in range(3)] for name in schema.names}

    def update(self, rows: pa.RecordBatch) -> None:
        """Add some rows."""
        for name, (valid, lengths, values) in self._hashes.items():
            column = rows[name]
            valid.update(column.is_valid().to_numpy(zero_copy_only=False).tobytes())
            if pa.types.is_primitive(column.type):
                values.update(np.ascontiguousarray(column.drop_null().to_numpy(zero_copy_only=False)).tobytes())
                continue
            if not any(of(column.type) for of in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)):
                column = pa.array([json.dumps(cell, default=str) for cell in column.to_pylist()])  # lists and others
            cells = column.drop_null().cast(pa.large_binary())
            offsets = np.frombuffer(cells.buffers()[1], np.int64)[cells.offset : cells.offset + len(cells) + 1]
            lengths.update(np.diff(offsets).tobytes())
            values.update(memoryview(cells.buffers()[2] or b"")[offsets[0] : offsets[-1]])

    def hexdigest(self) -> str:
        """Return the digest of all rows so far."""
        text = [str(self._schema), *(h.hexdigest() for hashes in self._hashes.values() for h in hashes)]
        return hashlib.sha256("".join(text).encode()).hexdigest()


@dataclass(frozen=True)
class _Batch:
    """Some sites as Arrow has them, and what is held of all."""

    rows: Any  # pyarrow.RecordBatch; None when it has been written
    keys: NDArray[np.int64]
    bounds: NDArray[np.float64]
    ids: NDArray[np.uint64]

    @classmethod
    def of(cls, table: SiteTable, keep: Sequence[str] | None) -> _Batch:
        ids = pa.array(table.ids)
        centre = shapely.centroid(table.polygons)
        keys = geopandas.GeoSeries(table.polygons, crs=4326).hilbert_distance(total_bounds=WORLD, level=_HILBERT_LEVEL)
        columns: dict[str, Any] = {
            "site_id": ids,
            "start_year": pa.array(table.start_years, pa.int64()),
            "geometry": pa.array(shapely.to_wkb(table.polygons), pa.binary()),
            "hilbert_key": pa.array(keys.to_numpy(np.int64)),
            "lon": (shapely.get_x(centre) + 180) % 360 - 180,
            "lat": shapely.get_y(centre),
        }
        for name in table.properties.columns if keep is None else keep:
            if name not in table.properties:
                if name in columns:
                    continue
                raise UsageError(
                    f"the sites have no column {name!r}, named in keep=; they have {near(name, table.properties)}"
                )
            try:
                cells = pa.array(table.properties[name], from_pandas=True)
            except pa.ArrowException as error:
                raise UsageError(
                    f"the column {name!r} of the sites can't be kept: {str(error).splitlines()[0]}; give its cells "
                    "one type, or leave it out of keep="
                ) from error
            cells = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
            # a file of record batches takes one dictionary only
            named = name if name not in RESERVED and site_columns([name]) else f"{name}_in_file"
            columns[named] = cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells
        rows = pa.record_batch(columns)
        hashes = pd.util.hash_array(np.array([str(i) for i in table.ids], object), categorize=False)
        return cls(rows, columns["hilbert_key"].to_numpy(), shapely.bounds(table.polygons), hashes)


def _typed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch with the types of the first one."""
    if batch.schema.names != schema.names:
        lost = set(schema.names) ^ set(batch.schema.names)
        raise UsageError(f"some rows of the sites lack the column {min(lost)!r}")
    for name, kind in zip(batch.schema.names, batch.schema.types, strict=True):
        first = schema.field(name).type
        if kind != first and not pa.types.is_null(kind) and not (_is_number(kind) and _is_number(first)):
            raise UsageError(f"the column {name!r} of the sites has {first} in the first rows and {kind} later")
    try:
        return batch.cast(schema)
    except pa.ArrowException as error:
        raise UsageError(f"a column of the sites has other numbers in the first rows than later: {error}") from error


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _widened(schema: pa.Schema) -> pa.Schema:
    """Return a schema in which columns without any value so far are texts."""
    fields = [pa.field(f.name, pa.string() if pa.types.is_null(f.type) else f.type) for f in schema]
    return pa.schema(fields)


def _check_ids(hashes: NDArray[np.uint64], incoming: Path) -> None:
    """Raise an error if an id comes twice, also as a number and as text."""
    ordered = np.sort(hashes)
    double = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(double):
        return
    rows = np.flatnonzero(np.isin(hashes, double))
    with pa.OSFile(str(incoming)) as file:
        found = _rows_of(pa.ipc.open_file(file), rows, ["site_id"])["site_id"].to_pylist()
    twice = pd.Series([str(i) for i in found])
    if (same := twice[twice.duplicated()]).empty:
        return  # a collision of hashes
    where = [int(row) for row, site_id in zip(rows, twice, strict=True) if site_id == same.iloc[0]]
    raise SiteError(
        f"ids must be unique, {same.iloc[0]} is that of the rows {', '.join(map(str, where[:5]))}; "
        "choose another column with id_column="
    )


def _rows_of(reader: Any, rows: NDArray[np.int64], columns: list[str]) -> pa.Table:
    """Take rows, ascending, out of a file of record batches."""
    parts, first = [], 0
    for i in range(reader.num_record_batches):
        batch = reader.get_batch(i)
        here = rows[(rows >= first) & (rows < first + len(batch))] - first
        if len(here):
            parts.append(batch.select(columns).take(pa.array(here)))
        first += len(batch)
    return pa.Table.from_batches(parts)


# --- where sites lie on the pixel grid --------------------------------------------------------------------------------


def _on_grids(
    bounds: NDArray[np.float64], source: PixelSource, years: Sequence[int], incoming: Path
) -> tuple[list[GridPart], Boxes]:
    """Find the pixel grid of each UTM zone's sites, by planning for a few of them, and all sites' boxes on it."""
    lon, lat = (bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2
    zone = (np.floor((lon + 180) / 6).astype(np.int64) % 60) * 2 + (lat >= 0)
    grids: list[GridPart] = []
    grid = np.zeros(len(zone), np.int64)
    for number in np.unique(zone):
        members = np.flatnonzero(zone == number)
        part = _grid_of(members, source, years, incoming, zone_crs(lon[members[0]], lat[members[0]]))
        known = [g.lattice for g in grids]  # of an archive with irregular zones, or of a mosaic: one for all
        if part.lattice not in known:
            grids.append(part)
        grid[members] = [g.lattice for g in grids].index(part.lattice)
    edges = np.empty((4, len(lon)), np.int64)
    for i, part in enumerate(grids):
        members = np.flatnonzero(grid == i)
        edges[:, members] = _pixel_boxes(part.lattice, bounds[members], lon[members], lat[members])
    return grids, Boxes(grid=grid, row=edges[0], row_last=edges[1], col=edges[2], col_last=edges[3])


def _grid_of(
    members: NDArray[np.int64], source: PixelSource, years: Sequence[int], incoming: Path, crs: str
) -> GridPart:
    chosen = np.unique(members[np.linspace(0, len(members) - 1, SAMPLED).astype(int)])
    with pa.OSFile(str(incoming)) as file:
        wkb = _rows_of(pa.ipc.open_file(file), chosen, ["geometry"])["geometry"]
    plan = source.plan(shapely.from_wkb(wkb.to_numpy(zero_copy_only=False)), years)
    if plan.jobs:
        return GridPart.around(plan.jobs[0].lattice, plan.jobs[0].window)
    return GridPart(lattice=plan.pieces[0].lattice if plan.pieces else Lattice(crs, 10.0, 10.0))


def _pixel_boxes(
    lattice: Lattice, bounds: NDArray[np.float64], lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return (first row, last row, first column, last column) of boxes that hold the sites: a little too large.

    Only the middle is projected. A site that lies outside its box all the same is read once more at the end.
    """
    x, y = transformer("EPSG:4326", lattice.crs).transform(lon, lat)
    half_x, half_y = (bounds[:, 2] - bounds[:, 0]) / 2, (bounds[:, 3] - bounds[:, 1]) / 2
    if lattice.step_x > 0.01:  # metres
        half_x, half_y = half_x * _METRES * np.cos(np.radians(lat)), half_y * _METRES
        half_x, half_y = 1.01 * half_x + _SKEW * half_y, 1.01 * half_y + _SKEW * half_x
    values = np.stack(
        [
            np.floor(-(y + half_y) / lattice.step_y - lattice.phase_y) - 1,
            np.ceil(-(y - half_y) / lattice.step_y - lattice.phase_y) + 1,
            np.floor((x - half_x) / lattice.step_x - lattice.phase_x) - 1,
            np.ceil((x + half_x) / lattice.step_x - lattice.phase_x) + 1,
        ]
    )
    return np.where(np.isfinite(values), values, 0.0).clip(-(2**30), 2**30).astype(np.int64)


# --- sorting ----------------------------------------------------------------------------------------------------------


def _write_sorted(incoming: Path, target: Path, chunk: NDArray[np.int64], others: dict[int, list[int]]) -> None:
    """Write one record batch for each chunk: its sites in Hilbert order, and after them those that reach into it.

    The rows go into files of about 100,000 sites first, each of some chunks, and each of these is sorted in memory.
    """
    visits = sorted((number, site) for site, reached in others.items() for number in reached)
    visited, visitor = (np.array([v[i] for v in visits], np.int64) for i in (0, 1))
    sizes = np.bincount(chunk) + np.bincount(visited, minlength=int(chunk.max()) + 1)
    bucket = (np.cumsum(sizes) - 1) // _BUCKET  # of each chunk
    parts = [incoming.with_name(f"bucket{i}.arrow") for i in range(int(bucket[-1]) + 1)]
    with ExitStack() as stack:
        reader = pa.ipc.open_file(stack.enter_context(pa.OSFile(str(incoming))))
        schema = reader.schema.append(pa.field("site", pa.int64()))
        writers = [
            stack.enter_context(pa.ipc.new_stream(stack.enter_context(pa.OSFile(str(part), "wb")), schema))
            for part in parts
        ]
        first = 0
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            batch = batch.append_column("site", pa.array(np.arange(first, first + len(batch))))
            here = (visitor >= first) & (visitor < first + len(batch))
            row = np.concatenate([np.arange(len(batch)), visitor[here] - first])
            into = np.concatenate([bucket[chunk[first : first + len(batch)]], bucket[visited[here]]])
            pairs = np.unique(np.stack([into, row]), axis=1)
            for number in np.unique(pairs[0]).tolist():
                writers[number].write_batch(batch.take(pa.array(pairs[1][pairs[0] == number])))
            first += len(batch)
    incoming.unlink()
    writer = None
    with pa.OSFile(str(target), "wb") as out:
        for number, path in enumerate(parts):
            with pa.OSFile(str(path)) as file:
                held = pa.ipc.open_stream(file).read_all().combine_chunks()
            path.unlink()
            site, keys = held["site"].to_numpy(), held["hilbert_key"].to_numpy()
            held = held.append_column("chunk", pa.array(chunk[site]))
            touched = [others.get(one, []) for one in site.tolist()]
            held = held.append_column("others", pa.array(touched, pa.list_(pa.int64())))
            writer = writer or pa.ipc.new_file(out, held.schema, options=_OPTIONS)
            order = np.lexsort((site, keys, chunk[site]))
            starts = np.searchsorted(chunk[site][order], np.arange(len(bucket) + 1))
            for i in np.flatnonzero(bucket == number).tolist():
                visiting = np.searchsorted(site, visitor[visited == i])  # `site` is ascending: rows come in order
                rows = pa.array(np.concatenate([order[starts[i] : starts[i + 1]], visiting]))
                batches = held.take(rows).combine_chunks().to_batches()
                writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], held.schema))
        assert writer is not None
        writer.close()


def read_chunk(path: Path, number: int) -> pa.Table:
    """Return a chunk's sites, those that only reach into it last."""
    with pa.OSFile(str(path)) as file:
        return pa.Table.from_batches([pa.ipc.open_file(file).get_batch(number)])
