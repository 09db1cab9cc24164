"""Converts a GeoDataFrame to a `SiteTable`: unique ids, start years and polygons in EPSG:4326."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import geopandas
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.errors import SiteError, UsageError
from gee_polygons.site.polygons import RowNamer, normalised
from gee_polygons.site.values import listed, near, plain_id, plain_year

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
    """

    polygons: NDArray[Any]
    ids: tuple[int | str, ...]
    start_years: tuple[int | None, ...]
    properties: pd.DataFrame
    repairs: dict[int, str]


def site_table(
    gdf: Any,
    *,
    id_column: str | None,
    start_year_column: str | None,
    crs: Any,
    where: str,
    fids: Sequence[int] | None = None,
    without: str = "has no geometry",
) -> SiteTable:
    """Normalise a GeoDataFrame.

    Every message begins with `where`. `fids` are feature ids that the file stores outside its columns. `without`
    describes a geometry that is None.
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
    ids = _ids(columns, id_name, where, fids)
    by_row = id_name is None and fids is None

    def name(row: int) -> str:
        return f"row {row}" if by_row else f"site {ids[row]} (row {row})"

    if start_year_column is None:
        year_name = _find(columns, "start_year")
    else:
        year_name = _stated(columns, start_year_column, "start_year_column", where)
    start_years = _start_years(columns, year_name, where, name)
    polygons, repairs = normalised(gdf.geometry, crs, where, name, without)
    return SiteTable(
        polygons=polygons,
        ids=ids,
        start_years=start_years,
        properties=columns.drop(columns=[c for c in (id_name, year_name) if c is not None]),
        repairs=repairs,
    )


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
        return _find(columns, *ID_COLUMNS)
    if fids is not None and asked.lower() in ("id", "fid") and _find(columns, asked) is None:
        return None
    return _stated(columns, asked, "id_column", where)


def _ids(columns: pd.DataFrame, name: str | None, where: str, fids: Sequence[int] | None) -> tuple[int | str, ...]:
    if name is None:
        values, label = list(range(len(columns))) if fids is None else list(fids), "the feature id"
    else:
        values, label = columns[name].tolist(), f"id column {name!r}"
    ids = [plain_id(v) for v in values]
    remedy = "choose another column with id_column="
    if missing := [row for row, value in enumerate(ids) if value is None]:
        raise SiteError(f"{where}: {label} is empty in {_rows(missing)}; fill it in, or {remedy}")
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(ids):
        rows.setdefault(str(value), []).append(row)
    if len(rows) < len(ids):
        twice = [f"{value} ({_rows(at)})" for value, at in rows.items() if len(at) > 1]
        raise SiteError(f"{where}: {label} has duplicates: {listed(twice, 3)}; make them unique, or {remedy}")
    return tuple(v for v in ids if v is not None)


def _start_years(columns: pd.DataFrame, name: str | None, where: str, row_name: RowNamer) -> tuple[int | None, ...]:
    if name is not None:
        return tuple(_years(columns, name, where, row_name))
    dates = _find(columns, "start_date")
    if dates is None:
        return (None,) * len(columns)
    return tuple(_year_or_none(v) for v in columns[dates].tolist())


def _years(columns: pd.DataFrame, name: str, where: str, row_name: RowNamer) -> Iterable[int | None]:
    for row, value in enumerate(columns[name].tolist()):
        try:
            yield plain_year(value)
        except SiteError as error:
            raise SiteError(
                f"{where}: {row_name(row)}: column {name!r}: {error}; correct it or leave it empty"
            ) from None


def _year_or_none(value: Any) -> int | None:
    # nobody named start_date, and it may hold any text: values that aren't dates are ignored
    try:
        return plain_year(value)
    except SiteError:
        return None


def _rows(rows: Sequence[int]) -> str:
    return f"row{'s' if len(rows) > 1 else ''} {listed(rows)}"
