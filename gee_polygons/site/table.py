"""Converts a GeoDataFrame to a `SiteTable`: unique ids, start years and polygons in EPSG:4326."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import geopandas
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.errors import SiteError, UsageError
from gee_polygons.site.polygons import RefusedRowsError, RowNamer, normalised
from gee_polygons.site.values import listed, near, plain_id, plain_year

log = logging.getLogger(__name__)

ID_COLUMNS: Final = ("site_id", "rid", "id", "fid")


@dataclass(frozen=True, kw_only=True)
class SiteTable:
    """Normalised sites, column by column.

    Parameters
    ----------
    polygons : object array of shapely polygons and multipolygons
        EPSG:4326, valid, two-dimensional.
    ids : tuple of int or str
        Unique, also as text.
    start_years : tuple of int or None
        One per site.
    properties : DataFrame
        The other columns, as the file has them.
    repairs : dict of int to str
        Position of each polygon that was invalid -> what was wrong with it.
    refused : dict of int to (id, str)
        Row that can't be a site and was left out -> its id (None if unknown) and the reason.
    """

    polygons: NDArray[Any]
    ids: tuple[int | str, ...]
    start_years: tuple[int | None, ...]
    properties: pd.DataFrame
    repairs: dict[int, str]
    refused: dict[int, tuple[int | str | None, str]] = field(default_factory=dict)


def site_table(
    gdf: Any,
    *,
    id_column: str | None,
    start_year_column: str | None,
    crs: Any,
    where: str,
    fids: Sequence[int] | None = None,
    without: str = "has no geometry",
    skip_invalid: bool = False,
) -> SiteTable:
    """Normalise a GeoDataFrame.

    Every message begins with `where`. `fids` are feature ids that the file stores outside its columns. `without`
    describes a geometry that is None. With `skip_invalid`, rows that can't be sites are left out instead of raising.
    """
    if not isinstance(gdf, geopandas.GeoDataFrame):
        raise UsageError(f"a GeoDataFrame is needed, found {type(gdf).__name__}")
    if gdf._geometry_column_name not in gdf.columns:
        raise UsageError(f"{where} has no geometry column; name it with GeoDataFrame.set_geometry")
    if len(gdf) == 0:
        raise SiteError(f"{where} holds no features; at least one polygon is needed")
    if any(n is not None and n not in gdf.columns for n in gdf.index.names):
        gdf = gdf.reset_index()  # a named index counts as a column
    columns = pd.DataFrame(gdf.drop(columns=gdf.geometry.name)).reset_index(drop=True)
    columns.columns = pd.Index([str(c) for c in columns.columns], dtype=object)
    if not columns.columns.is_unique:
        twice = columns.columns[columns.columns.duplicated()][0]
        raise UsageError(f"{where}: two columns are called {twice!r}; rename one")

    id_name = _id_column(columns, id_column, where, fids)
    if start_year_column is None:
        year_name = _find(columns, "start_year")
    else:
        year_name = _stated(columns, start_year_column, "start_year_column", where)
    by_row = id_name is None and fids is None
    raw_ids = np.arange(len(columns)) if fids is None else np.asarray(fids)
    raw_ids = raw_ids if id_name is None else columns[id_name].to_numpy(dtype=object)
    geometry, rows = gdf.geometry, np.arange(len(columns))
    refused: dict[int, tuple[int | str | None, str]] = {}

    def name(position: int) -> str:
        row = int(rows[position])
        return f"row {row}" if by_row else f"site {plain_id(raw_ids[row])} (row {row})"

    while True:  # once, and once more for each check that refuses rows
        try:
            ids = _ids(raw_ids[rows], rows, "the feature id" if id_name is None else f"id column {id_name!r}", where)
            start_years = _start_years(columns, year_name, where, name)
            polygons, repairs = normalised(geometry, crs, where, name, without)
            break
        except RefusedRowsError as error:
            if not skip_invalid or len(error.reasons) == len(rows):
                raise
            for at, reason in error.reasons.items():
                refused[int(rows[at])] = None if by_row else plain_id(raw_ids[rows[at]]), reason
            kept = np.setdiff1d(np.arange(len(rows)), list(error.reasons))
            columns, geometry, rows = columns.iloc[kept].reset_index(drop=True), geometry.iloc[kept], rows[kept]
    if by_row:
        _say_numbered(columns, ids, where)
    return SiteTable(
        polygons=polygons,
        ids=ids,
        start_years=start_years,
        properties=columns.drop(columns=[c for c in (id_name, year_name) if c is not None]),
        repairs=repairs,
        refused=dict(sorted(refused.items())),
    )


def _say_numbered(columns: pd.DataFrame, ids: Sequence[int | str], where: str) -> None:
    """Log that ids are made up, and which columns could be the ids."""
    unique = [
        name for name, cells in columns.items()
        if not pd.api.types.is_float_dtype(cells) and cells.notna().all() and cells.astype(str).is_unique
    ]  # fmt: skip
    offered = f" ({listed(map(repr, unique))})" if unique else ""
    log.warning("%s: no id column: sites are numbered 0..%s; name one with id_column=%s", where, ids[-1], offered)


def _find(columns: pd.DataFrame, *names: str) -> str | None:
    """Return the first column with one of the names; an exact match is preferred to one in another case."""
    for name in names:
        if name in columns.columns:
            return name
        for column in columns.columns:
            if column.lower() == name.lower():
                return str(column)
    return None


def _stated(columns: pd.DataFrame, name: str, option: str, where: str) -> str:
    found = _find(columns, name)
    if found is None:
        raise UsageError(
            f"{where} has no column {name!r}, asked for with {option}=; it has {near(name, columns.columns)}"
        )
    return found


def _id_column(columns: pd.DataFrame, asked: str | None, where: str, fids: Sequence[int] | None) -> str | None:
    if asked is None:
        return id_column_of(columns)
    if fids is not None and asked.lower() in ("id", "fid") and _find(columns, asked) is None:
        return None
    return _stated(columns, asked, "id_column", where)


def id_column_of(columns: pd.DataFrame) -> str | None:
    """Return the first of the usual id columns with an id in any row."""
    return next((c for name in ID_COLUMNS if (c := _find(columns, name)) and not _is_empty(columns[c])), None)


def _is_empty(cells: pd.Series[Any]) -> bool:
    """Whether no cell holds anything: Google Earth writes KML files whose `id` is empty throughout."""
    return bool((cells.isna() | (cells.astype(str).str.strip() == "")).all())


def _ids(values: Any, rows: Any, label: str, where: str) -> tuple[int | str, ...]:
    """Return ids as int or str; `rows` are the file's row numbers, for messages."""
    ids = [plain_id(v) for v in values.tolist()]
    remedy = "choose another column with id_column="
    if missing := [i for i, value in enumerate(ids) if value is None]:
        said = f"{where}: {label} is empty in {_rows(rows[missing])}; fill it in, or {remedy}"
        raise RefusedRowsError(said, dict.fromkeys(missing, "has no id"))
    places: dict[str, list[int]] = {}
    for i, value in enumerate(ids):
        places.setdefault(str(value), []).append(i)
    if len(places) < len(ids):
        double = {value: at for value, at in places.items() if len(at) > 1}
        twice = [f"{value} ({_rows(rows[at])})" for value, at in double.items()]
        said = f"{where}: {label} has duplicates: {listed(twice, 3)}; make them unique, or {remedy}"
        raise RefusedRowsError(said, {i: "has the id of another row" for at in double.values() for i in at})
    return tuple(v for v in ids if v is not None)


def _start_years(columns: pd.DataFrame, name: str | None, where: str, row_name: RowNamer) -> tuple[int | None, ...]:
    if name is None:
        dates = _find(columns, "start_date")
        return (None,) * len(columns) if dates is None else tuple(map(_year_or_none, columns[dates].tolist()))
    years: list[int | None] = []
    faults = {}
    for row, value in enumerate(columns[name].tolist()):
        try:
            years.append(plain_year(value))
        except SiteError as error:
            faults[row] = f"column {name!r}: {error}"
    if faults:
        said = listed((f"{row_name(row)}: {fault}" for row, fault in faults.items()), separator="; ")
        raise RefusedRowsError(f"{where}: {said}; correct it or leave it empty", faults)
    return tuple(years)


def _year_or_none(value: Any) -> int | None:
    # nobody named start_date, and it may hold any text: values that aren't dates are ignored
    try:
        return plain_year(value)
    except SiteError:
        return None


def _rows(rows: Sequence[int]) -> str:
    return f"row{'s' if len(rows) > 1 else ''} {listed(rows)}"
