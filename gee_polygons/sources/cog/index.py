"""The index of an archive: one row a tile, with the published columns; whole, or near what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.errors import ArchiveError
from gee_polygons.network.places import folder_of, has_suffix, hide_query, is_url, join, rewrite
from gee_polygons.network.request import NETWORK, Network
from gee_polygons.sources.cog.records import SIDES, Area, canonical, file_metadata, package_metadata, read_records

_COLUMNS: Final = ("crs", "year", "path", *(f"utm_{s}" for s in SIDES), *(f"wgs84_{s}" for s in SIDES))
# further columns that the same facts may stand in, and the headers of a collection
_OTHERS: Final = ("bbox", "datetime", "proj:epsg", "proj:code", "proj:bbox", "proj:transform", "proj:shape", "assets",
                  "href", "url", "location", "header", "period")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TileIndex:
    """Columns of an index, row by row.

    Parameters
    ----------
    folder : str
        Folder or URL prefix that relative paths are resolved against.
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
    """

    folder: str
    place: NDArray[np.object_]
    year: NDArray[np.int64]
    crs: NDArray[np.object_]
    utm: NDArray[np.float64]
    wgs84: NDArray[np.float64]
    headers: NDArray[np.object_] | None = None
    """What a collection keeps of each tile's header, as a mapping."""

    def __len__(self) -> int:
        return len(self.place)

    def take(self, rows: NDArray[Any]) -> TileIndex:
        """Return some of the rows."""
        return TileIndex(
            folder=self.folder, place=self.place[rows], year=self.year[rows], crs=self.crs[rows],
            utm=self.utm[rows], wgs84=self.wgs84[rows],
            headers=None if self.headers is None else self.headers[rows],
        )  # fmt: skip

    def of_years(self, years: Sequence[int]) -> TileIndex:
        """Return the rows of some years."""
        return self.take(np.flatnonzero(np.isin(self.year, list(years))))

    @classmethod
    def of(cls, table: Any, place: str, network: Network = NETWORK) -> TileIndex:
        """Check a table with canonical columns, and resolve its paths.

        Raises
        ------
        ArchiveError
            If a column is missing or empty, or doesn't hold what it should.
        """
        utm = [f"utm_{side}" for side in SIDES]
        has_utm = all(name in table.column_names for name in utm)
        for name in _COLUMNS:
            if name not in table.column_names and name not in utm:
                raise ArchiveError(
                    f"{place}: not an archive index, column {name!r} is missing; found {table.column_names}"
                )
            if name in table.column_names and table[name].null_count:
                raise ArchiveError(f"{place}: column {name!r} has {table[name].null_count} empty values")
        if not all(isinstance(path, str) for path in table["path"].to_pylist()):
            raise ArchiveError(f"{place}: column 'path' doesn't hold texts but {table['path'].type}")
        # what isn't annual is told apart by its day
        years = _numbers(table, "period" if "period" in table.column_names else "year", place).astype(np.int64)
        folder = folder_of(place)
        # the same tile listed twice is one tile
        paths = [hide_query(rewrite(join(folder, path), network.url_rewrite)) for path in table["path"].to_pylist()]
        rows = {(paths[i], int(years[i])): i for i in reversed(range(len(table)))}
        keep = np.array(sorted(rows.values()), np.int64)
        table = table.take(keep)
        return cls(
            folder=folder,
            place=np.array(paths, object)[keep],
            year=years[keep],
            crs=np.array([_epsg(crs) for crs in table["crs"].to_pylist()], object),
            utm=_box(table, "utm", place) if has_utm else np.full((len(keep), 4), np.nan),
            wgs84=_box(table, "wgs84", place),
            headers=np.array([*table["header"].to_pylist(), None], object)[:-1] if "header" in table.column_names
            else None,
        )  # fmt: skip


class ArchiveIndex:
    """An archive's index, read whole where it is at hand, and as far as needed where it is far away.

    Parameters
    ----------
    place : str
        Path or URL.
    network : Network
        How hard to try.

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
        self.metadata: dict[str, Any] = {}
        self.synthetic = False
        self._whole: TileIndex | None = None
        self._parts: dict[bytes, TileIndex] = {}
        self._years: list[int] | None = None
        names: list[str] = []
        if not has_suffix(place, ".csv", ".gpkg"):
            found, names = file_metadata(place, network)
            self.metadata = package_metadata(found, place)
            self.synthetic = b"synthetic" in found
        # without these columns every row has to be looked at anyway
        if not (is_url(place) and set(_COLUMNS) <= set(names)):
            self._whole = self._read(None)

    @classmethod
    def of(cls, table: Any, place: str, network: Network = NETWORK) -> ArchiveIndex:
        """Wrap a table with canonical columns; nothing is read."""
        index = cls.__new__(cls)
        index.place, index._network, index.metadata = place, network, {}
        index.synthetic = b"synthetic" in (table.schema.metadata or {})
        index._parts, index._years = {}, None
        index._whole = TileIndex.of(table, place, network)
        return index

    def __repr__(self) -> str:
        return f"{len(self._whole)} tiles" if self._whole is not None else "read as needed"

    @property
    def has_headers(self) -> bool:
        """Whether it keeps the tiles' headers, so that none is asked for."""
        return self._whole is not None and self._whole.headers is not None

    def whole(self) -> TileIndex:
        """Return all of it."""
        if self._whole is None:
            self._whole = self._read(None)
        return self._whole

    def near(self, boxes: NDArray[np.float64]) -> TileIndex:
        """Return all tiles, of all years, that can matter to what lies in boxes of degrees; and maybe others."""
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

    def _read(self, area: Area | None) -> TileIndex:
        columns = [*_COLUMNS, *_OTHERS, *(() if area is not None else ("geometry", "geom"))]
        table = read_records(self.place, area=area, columns=columns, network=self._network)
        if not len(table) and area is not None:
            none, text = np.zeros((0, 4)), np.zeros(0, object)
            return TileIndex(
                folder=folder_of(self.place), place=text, year=np.zeros(0, np.int64), crs=text, utm=none, wgs84=none
            )
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
    return np.column_stack([_numbers(table, f"{frame}_{side}", place) for side in SIDES])


def _epsg(crs: Any) -> str:
    text = str(crs).strip().upper()
    return text if ":" in text else f"EPSG:{text}"
