"""Holds an archive's index: one row a tile, with the published columns; read whole or in parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.errors import ArchiveError
from gee_polygons.network.places import folder_of, has_suffix, hide_query, is_url, join, rewrite
from gee_polygons.network.request import NETWORK, Network
from gee_polygons.sources.cog.area import Area
from gee_polygons.sources.cog.columns import SIDES, canonical
from gee_polygons.sources.cog.records import errors_named, file_metadata, package_metadata, read_records

_COLUMNS: Final = ("crs", "year", "path", *(f"utm_{s}" for s in SIDES), *(f"wgs84_{s}" for s in SIDES))
# STAC's columns for the same facts, and those of a collection
_OTHERS: Final = ("bbox", "datetime", "start_datetime", "proj:epsg", "proj:code", "assets", "href", "header", "period")


@dataclass(frozen=True, kw_only=True)
class TileIndex:
    """Columns of an index, row by row.

    Parameters
    ----------
    place : str array
        Resolved path or URL of each tile.
    year : int array
        Year of each tile.
    crs : str array
        ``"EPSG:326zz"``.
    utm : float array, shape (tiles, 4)
        (west, south, east, north) of the whole file in metres; NaN where only its header says.
    wgs84 : float array, shape (tiles, 4)
        (west, south, east, north) of the valid pixels in degrees, clipped at the zone's edge.
    headers : array of mappings
        What a collection keeps of each tile's header; None where it isn't kept.
    """

    place: NDArray[np.object_]
    year: NDArray[np.int64]
    crs: NDArray[np.object_]
    utm: NDArray[np.float64]
    wgs84: NDArray[np.float64]
    headers: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.place)

    def take(self, rows: NDArray[Any]) -> TileIndex:
        """Return some of the rows."""
        return TileIndex(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    def of_years(self, years: Sequence[int]) -> TileIndex:
        """Return the rows of some years."""
        return self.take(np.flatnonzero(np.isin(self.year, list(years))))

    @classmethod
    def of(cls, table: Any, place: str, network: Network = NETWORK) -> TileIndex:
        """Check the values of a table with canonical columns, and resolve its paths.

        Raises
        ------
        ArchiveError
            If a column has empty values, or doesn't hold what it should.
        """
        for name in _COLUMNS:
            if name in table.column_names and table[name].null_count:
                raise ArchiveError(f"{place}: column {name!r} has {table[name].null_count} empty values")
        paths = table["path"].to_pylist()
        if not all(isinstance(path, str) and "\0" not in path for path in paths):
            raise ArchiveError(f"{place}: column 'path' ({table['path'].type}) doesn't hold paths or URLs")
        # images that aren't annual are distinguished by their day
        years = _numbers(table, "period" if "period" in table.column_names else "year", place).astype(np.int64)
        paths = [hide_query(path) for path in resolved_paths(table, folder_of(place), network, trusted=place == "-")]
        first = first_rows(zip(paths, years.tolist(), strict=True))
        headers = table["header"].to_pylist() if "header" in table.column_names else [None] * len(paths)
        index = cls(
            place=np.array(paths, object),
            year=years,
            crs=np.array([_epsg(crs) for crs in table["crs"].to_pylist()], object),
            utm=_box(table, "utm", place),
            wgs84=_box(table, "wgs84", place),
            headers=np.array([*headers, None], object)[:-1],
        )
        return index.take(np.array(sorted(first.values()), np.int64))


def resolved_paths(table: Any, folder: str, network: Network, *, trusted: bool) -> list[str]:
    """Return the paths of a table's tiles: absolute, or below its folder, and with the network's mirrors.

    `trusted` says that they may point anywhere: a table in memory is its maker's.
    """
    # a local collection was checked when it was built
    trusted = trusted or ("header" in table.column_names and not is_url(folder))
    also = None if trusted else [*network.url_rewrite, *network.url_rewrite.values()]
    return [rewrite(join(folder, str(path), also), network.url_rewrite) for path in table["path"].to_pylist()]


def first_rows(keys: Iterable[Any]) -> dict[Any, int]:
    """Return the first row of each key: a tile that is listed twice is one tile."""
    return {key: i for i, key in reversed(list(enumerate(keys)))}


class ArchiveIndex:
    """An archive's index: a local one is read whole, a remote one as far as it is needed.

    Parameters
    ----------
    place : str
        Path or URL.
    network : Network
        Retry and concurrency settings.

    Raises
    ------
    InputFileError
        If it is missing or isn't what its name says.
    ArchiveError
        If a column is missing or empty.
    """

    def __init__(self, place: str, network: Network = NETWORK) -> None:
        place = hide_query(place)
        self.place, self._network = place, network
        self.synthetic = False
        self._whole: TileIndex | None = None
        self._parts: dict[bytes, TileIndex] = {}
        self._years: list[int] | None = None
        names: list[str] = []
        if not has_suffix(place, ".csv", ".gpkg"):
            found, names = file_metadata(place, network)
            package_metadata(found, place)  # refuses a damaged file
            self.synthetic = b"synthetic" in found
        # without these columns every row has to be looked at anyway
        if not (is_url(place) and set(_COLUMNS) <= set(names)):
            self._whole = self._read(None)

    @classmethod
    def of(cls, table: Any, place: str, network: Network = NETWORK) -> ArchiveIndex:
        """Wrap a table with canonical columns; nothing is read."""
        index = cls.__new__(cls)
        index.place, index._network = place, network
        index.synthetic = b"synthetic" in (table.schema.metadata or {})
        index._parts, index._years = {}, None
        index._whole = TileIndex.of(table, place, network)
        return index

    def __repr__(self) -> str:
        return f"{len(self._whole)} tiles" if self._whole is not None else "read as needed"

    @property
    def has_headers(self) -> bool:
        """Whether it keeps the headers of all tiles, so that none needs a request."""
        return self._whole is not None and all(header is not None for header in self._whole.headers)

    def whole(self) -> TileIndex:
        """Return all of it."""
        if self._whole is None:
            self._whole = self._read(None)
        return self._whole

    def near(self, boxes: NDArray[np.float64]) -> TileIndex:
        """Return all tiles, of all years, that may hold pixels of boxes (degrees); and maybe others."""
        if self._whole is not None:
            return self._whole
        key = np.unique(np.floor(boxes), axis=0).tobytes()
        if key not in self._parts:
            self._parts[key] = self._read(Area(boxes))
        return self._parts[key]

    def years(self) -> list[int]:
        """Years that the archive has, ascending."""
        if self._years is None:
            if self._whole is not None:
                years = self._whole.year
            else:
                table = read_records(self.place, columns=["year"], network=self._network)
                years = _numbers(table, "year", self.place).astype(np.int64)
            self._years = sorted({int(year) for year in years})
        return self._years

    def extent(self) -> tuple[float, ...]:
        """(west, south, east, north) of all tiles in degrees."""
        table = None
        if self._whole is None:
            names = [f"wgs84_{side}" for side in SIDES]
            table = read_records(self.place, columns=names, network=self._network)
        boxes = self._whole.wgs84 if self._whole is not None else _box(table, "wgs84", self.place)
        if not len(boxes):
            return (np.nan,) * 4
        return (*map(float, boxes[:, :2].min(axis=0)), *map(float, boxes[:, 2:].max(axis=0)))

    def _read(self, area: Area | None) -> TileIndex:
        columns = [*_COLUMNS, *_OTHERS, *(() if area is not None else ("geometry", "geom"))]
        table = read_records(self.place, area=area, columns=columns, network=self._network)
        if not len(table) and area is not None:
            none, boxes = np.zeros(0, object), np.zeros((0, 4))
            return TileIndex(place=none, year=np.zeros(0, np.int64), crs=none, utm=boxes, wgs84=boxes, headers=none)
        with errors_named(self.place):  # texts where numbers should be, lists of another length, no geometries
            return TileIndex.of(canonical(table, place=self.place), self.place, self._network)


def _numbers(table: Any, name: str, place: str) -> NDArray[np.float64]:
    try:
        values = np.asarray(table[name].to_numpy(zero_copy_only=False), np.float64)
    except (ValueError, TypeError) as error:
        raise ArchiveError(f"{place}: column {name!r} doesn't hold numbers: {error}") from error
    if not np.isfinite(values).all():
        raise ArchiveError(f"{place}: column {name!r} has values that aren't finite")
    return values


def _box(table: Any, frame: str, place: str) -> NDArray[np.float64]:
    if f"{frame}_west" not in table.column_names:
        return np.full((len(table), 4), np.nan)
    return np.column_stack([_numbers(table, f"{frame}_{side}", place) for side in SIDES])


def _epsg(crs: Any) -> str:
    text = str(crs).strip().upper()
    return text if ":" in text else f"EPSG:{text}"
