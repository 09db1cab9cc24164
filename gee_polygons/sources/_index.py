"""The index of an archive: one row a tile, with the published columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.errors import ArchiveError, InputFileError
from gee_polygons.sources._store import first_line, is_url, join, locate

__all__ = ["TileIndex", "read_index"]

_BOUNDS: Final = ("west", "south", "east", "north")
_COLUMNS: Final = ("crs", "year", "path", *(f"utm_{s}" for s in _BOUNDS), *(f"wgs84_{s}" for s in _BOUNDS))


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
        (west, south, east, north) of the whole file in metres.
    wgs84 : float array, shape (tiles, 4)
        (west, south, east, north) of the valid pixels in degrees, clipped at the zone's edge.
    """

    folder: str
    place: NDArray[np.object_]
    year: NDArray[np.int64]
    crs: NDArray[np.object_]
    utm: NDArray[np.float64]
    wgs84: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.place)

    def take(self, rows: NDArray[Any]) -> TileIndex:
        """Return some of the rows."""
        return TileIndex(
            folder=self.folder, place=self.place[rows], year=self.year[rows], crs=self.crs[rows],
            utm=self.utm[rows], wgs84=self.wgs84[rows],
        )  # fmt: skip


def read_index(place: str) -> TileIndex:
    """Read an index in Parquet with the columns of the published ``aef_index.parquet``.

    Parameters
    ----------
    place : str
        Path or URL. Relative tile paths in it are resolved against its folder.

    Raises
    ------
    InputFileError
        If it is missing or isn't Parquet.
    ArchiveError
        If a column is missing or empty.
    """
    table = _read_parquet(place)
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise ArchiveError(
            f"{place}: not an archive index, column {missing[0]!r} is missing; found {table.column_names}"
        )

    if not len(table):
        raise ArchiveError(f"{place}: the index lists no tile")
    for name in _COLUMNS:
        if table[name].null_count:
            raise ArchiveError(f"{place}: column {name!r} has {table[name].null_count} empty values")

    def column(name: str, kind: Any) -> Any:
        try:
            values = np.asarray(table[name].to_numpy(zero_copy_only=False), kind)
        except (ValueError, TypeError) as error:
            raise ArchiveError(f"{place}: column {name!r} doesn't hold numbers: {error}") from error
        if not np.isfinite(values).all():
            raise ArchiveError(f"{place}: column {name!r} has values that aren't finite")
        return values

    def numbers(names: Sequence[str]) -> NDArray[np.float64]:
        return np.column_stack([column(name, np.float64) for name in names])

    if not all(isinstance(path, str) for path in table["path"].to_pylist()):
        raise ArchiveError(f"{place}: column 'path' doesn't hold texts but {table['path'].type}")
    years = column("year", np.float64).astype(np.int64)
    folder = place.rsplit("/", 1)[0] if is_url(place) else str(Path(place).parent)
    # the same tile listed twice is one tile
    paths = [join(folder, path) for path in table["path"].to_pylist()]
    rows = {(paths[i], int(years[i])): i for i in reversed(range(len(table)))}
    keep = np.array(sorted(rows.values()), np.int64)
    table = table.take(keep)
    return TileIndex(
        folder=folder,
        place=np.array(paths, object)[keep],
        year=years[keep],
        crs=np.array([_epsg(crs) for crs in table["crs"].to_pylist()], object),
        utm=numbers([f"utm_{s}" for s in _BOUNDS]),
        wgs84=numbers([f"wgs84_{s}" for s in _BOUNDS]),
    )


def _epsg(crs: Any) -> str:
    text = str(crs).strip().upper()
    return text if ":" in text else f"EPSG:{text}"


def _read_parquet(place: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if is_url(place):
            return pq.read_table(pa.BufferReader(_download(place)))
        if not Path(place).is_file():
            raise InputFileError(f"{place}: no such index; name an aef_index.parquet or the folder that holds one")
        return pq.read_table(pa.memory_map(place) if Path(place).stat().st_size else place)
    except pa.ArrowInvalid as error:
        raise InputFileError(f"{place}: not a Parquet file: {str(error).splitlines()[0]}") from error


def _download(place: str) -> bytes:
    import obstore

    store, path = locate(place)
    try:
        return bytes(obstore.get(store, path).bytes())
    except FileNotFoundError as error:
        raise InputFileError(f"{place}: no such index") from error
    except (OSError, obstore.exceptions.BaseError) as error:
        raise InputFileError(f"{place}: the index can't be read: {first_line(error)}") from error
