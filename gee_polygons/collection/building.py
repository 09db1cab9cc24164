"""Builds collections from lists of tiles, and opens them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gee_polygons.alphaearth import BANDS
from gee_polygons.collection.catalogue import AEF_ID, Dataset, dataset, datasets
from gee_polygons.collection.table import (
    HEADER,
    as_arrow,
    checked_bbox,
    checked_dates,
    enrich,
    read_tiles,
    resolved,
    with_periods,
    write,
)
from gee_polygons.collection.tiles import Collection
from gee_polygons.errors import ArchiveError, InputFileError, UsageError, warn_data
from gee_polygons.network.places import folder_of, has_suffix, hide_query, is_url
from gee_polygons.network.request import NETWORK, Network
from gee_polygons.sources.cog.columns import canonical
from gee_polygons.sources.cog.header import Content
from gee_polygons.sources.cog.records import file_metadata, package_metadata, read_records
from gee_polygons.store.cache import cache_folder


def build(
    dataset_id: str = AEF_ID,
    name: str | None = None,
    bbox: Sequence[float] | None = None,
    date_range: tuple[Any, Any] | None = None,
    *,
    source: str | Path | None = None,
    path: str | Path | None = None,
    force: bool = False,
    network: Network | None = None,
    url_rewrite: Mapping[str, str] | None = None,
) -> Collection:
    """Build a collection of a dataset: read its list, parse the headers once, keep all in one local file.

    Parameters
    ----------
    dataset_id : str
        Id of a dataset in the catalogue, see `datasets`.
    name : str, optional
        Name of the collection; `load(name)` opens it again. Default: made of the other arguments.
    bbox : (west, south, east, north), optional
        EPSG:4326. Default: everywhere, which is many tiles.
    date_range : pair of dates or years, optional
        Both ends count; of annual data, every year that it touches.
    source : str or Path, optional
        Path or URL of the list of tiles: Parquet, STAC GeoParquet, CSV, GeoPackage. Default: the dataset's.
    path : str or Path, optional
        Where to keep it. Default: in the cache folder, by its name.
    force : bool
        Build it again if the file exists.
    network : Network, optional
        Retry and concurrency settings.
    url_rewrite : mapping of str to str, optional
        URL prefixes of the list -> those of a mirror.

    Returns
    -------
    Collection

    Raises
    ------
    UsageError
        If a collection of that name was built with other arguments.
    ArchiveError
        If no tile fits.
    ReadError
        If the list or a header can't be read.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "demo.parquet"
    >>> build("gee-polygons/sample", bbox=(-48.05, -22.4, -48.01, -22.3), date_range=(2023, 2023), path=file)
    Collection('gee-polygons/sample', 2 tiles)
    """
    entry = dataset(dataset_id)
    how = _network(network, {**entry.url_rewrite, **(url_rewrite or {})})
    place = hide_query(str(source) if source is not None else entry.index)
    parameters: dict[str, Any] = {
        "bbox": None if bbox is None else list(checked_bbox(bbox)),
        "date_range": None if date_range is None else [f"{day:%Y-%m-%d}" for day in checked_dates(date_range)],
        "source": hide_query(place),
    }
    target = _target(name or f"{dataset_id}-{_digest(parameters)}", path)
    if target.is_file() and not force:
        kept = _kept(target, lambda: _reopened(target, {**parameters, "dataset": entry.id}, how), cached=path is None)
        if kept is not None:
            return kept
    table = read_tiles(entry, place, how, bbox=bbox, date_range=date_range)
    return _finish(table, place, entry, target, parameters, how)


def build_from_table(
    table: Any,
    name: str | None = None,
    *,
    href_column: str | None = None,
    column_map: Mapping[str, str] | None = None,
    band_index_map: Mapping[str, int] | None = None,
    url_rewrite_patterns: Mapping[str, str] | None = None,
    base: str | Path = "",
    annual: bool | None = None,
    nodata: float | None = None,
    path: str | Path | None = None,
    force: bool = False,
    network: Network | None = None,
) -> Collection:
    """Build a collection of a table of files, however it was filtered.

    Parameters
    ----------
    table : table or path
        pyarrow, DuckDB, Polars, pandas or GeoPandas; or a path or URL of a list.
    name : str, optional
        Name of the collection; `load(name)` opens it again. Default: made of its files' names.
    href_column : str, optional
        Column with paths or URLs. Default: `path`, `href`, or the assets of STAC items.
    column_map : mapping of str to str, optional
        Names in the table -> names of this package, such as ``{"geom": "geometry", "year": "datetime"}``.
    band_index_map : mapping of str to int, optional
        Band name -> sample number in a file, from 0. Default: AlphaEarth's where files hold 64 bands of int8, else the
        assets' names, else band_1, band_2...
    url_rewrite_patterns : mapping of str to str, optional
        URL prefixes -> those to read from.
    base : str or Path
        Folder or URL that relative paths are resolved against.
    annual : bool, optional
        Whether the images are annual; others are identified by their day. Default: if there is a column `year`.
    nodata : float, optional
        Value of pixels without data, where files don't say.
    path, force, network
        See `build`.

    Returns
    -------
    Collection

    Examples
    --------
    >>> import tempfile
    >>> some = load("gee-polygons/sample").to_table().slice(0, 2)
    >>> base = Path(load("gee-polygons/sample").place).parent
    >>> build_from_table(some, base=base, path=Path(tempfile.mkdtemp()) / "two.parquet").bands[63]
    'A63'
    """
    how = _network(network, dict(url_rewrite_patterns or {}))
    if isinstance(table, str | Path):
        place = hide_query(str(table))
        arrow, base = read_records(place, network=how), base or folder_of(place)
    else:
        place, arrow = "the table", as_arrow(table)
    # `year` may be renamed to the contract's `datetime`: it still is a year
    yearly = "year" in arrow.column_names if annual is None else annual
    arrow = canonical(arrow, place=place, column_map=column_map, href_column=href_column)
    names: tuple[str, ...] = ()
    if band_index_map:
        numbers = {int(number): band for band, number in band_index_map.items()}
        if min(numbers) < 0 or len(numbers) != len(band_index_map):
            raise UsageError(f"band_index_map gives each band its own sample number from 0, found {band_index_map}")
        names = tuple(numbers.get(i, f"band_{i + 1}") for i in range(max(numbers) + 1))
    is_aef = names == BANDS
    entry = Dataset(
        id=name or "", title="built from a table", index=place, bands=names, dtype="int8" if is_aef else "",
        nodata=-128.0 if is_aef else nodata, annual=yearly,
    )  # fmt: skip
    arrow = with_periods(arrow, entry)
    label = name or f"table-{_digest([str(p) for p in arrow['path'].to_pylist()])}"
    target = _target(label, path)
    if target.is_file() and not force:
        if path is not None or name is not None:
            raise UsageError(f"{target} exists already; use force=True, or load({str(name or path)!r})")
        kept = _kept(target, lambda: load(target, network=how), cached=True)
        if kept is not None:
            return kept
    made_here = not isinstance(table, str | Path)
    return _finish(arrow, f"{base}/-" if base else "-", entry, target, {"source": place}, how, anywhere=made_here)


def load(place: str | Path, *, network: Network | None = None) -> Collection:
    """Open a collection, or a published list of tiles as one.

    Parameters
    ----------
    place : str or Path
        A dataset of the catalogue (``"aef/v1-annual"`` opens the published index, of which only the rows needed are
        read); the name of a collection that was built; or a path or URL.
    network : Network, optional
        Retry and concurrency settings.

    Returns
    -------
    Collection

    Raises
    ------
    InputFileError
        If there is none.

    Examples
    --------
    >>> load("gee-polygons/sample").bands[0]
    'A00'
    """
    text = hide_query(str(place))
    how = network or NETWORK
    if text in datasets():
        entry = dataset(text)
        how = _network(network, entry.url_rewrite)
        if is_url(entry.index) and has_suffix(entry.index, ".parquet"):
            return Collection(entry.index, dataset=entry, place=entry.index, network=how)
        return _opened(entry.index, how, entry)
    if not is_url(text) and not Path(text).is_file():
        if (kept := _target(text, None)).is_file():
            return _opened(str(kept), how, None)
        raise InputFileError(
            f"{text}: no such collection; build() one, name a file, or a dataset: {', '.join(datasets())}"
        )
    return _opened(text, how, None)


def as_collection(data: Any, *, dataset: Dataset | None = None, place: str = "-") -> Collection:
    """Make a collection of a table with headers, such as a filtered `Collection.to_table()`, without reading anything.

    Parameters
    ----------
    data : Collection, path or table
        With the column `header`.
    dataset : Dataset, optional
        Bands, type and nodata value. Default: AlphaEarth codes if the tiles are so described, else as in their headers.
    place : str
        Named in messages; relative paths are resolved against its folder.

    Returns
    -------
    Collection

    Raises
    ------
    ArchiveError
        If the table lacks a column.
    """
    if isinstance(data, Collection):
        return data
    if isinstance(data, str | Path):
        return load(data)
    table = canonical(as_arrow(data), place="the table")
    if "header" not in table.column_names:
        raise ArchiveError("the table has no column 'header': use build_from_table, which parses the headers")
    return Collection(table, dataset=dataset or _guessed(table, ""), place=place)


def _opened(place: str, how: Network, entry: Dataset | None) -> Collection:
    table = canonical(read_records(place, network=how), place=place)
    if not has_suffix(place, ".csv", ".gpkg"):
        metadata = package_metadata(file_metadata(place, how)[0], place)
        if "dataset" in metadata:
            entry = _dataset_of(metadata, place)
    return Collection(table, dataset=entry or _guessed(table, place), place=place, network=how)


def _dataset_of(metadata: Mapping[str, Any], place: str) -> Dataset:
    """Return the dataset that a collection's metadata describes."""
    try:
        return Dataset.from_dict(metadata["dataset"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArchiveError(
            f"{place}: its metadata describes no dataset that this version knows ({error}); build the collection anew"
        ) from error


def _guessed(table: Any, place: str) -> Dataset:
    """Return AlphaEarth's dataset, or one without bands if the first header shows something else."""
    entry = replace(dataset(AEF_ID), id="", index=place, title="")
    if "header" in table.column_names and len(table):
        header = table["header"][0].as_py()
        if not isinstance(header, dict) or not header.keys() >= {field.name for field in HEADER}:
            raise ArchiveError(f"{place or 'the table'}: column 'header' isn't what build() writes; build it anew")
        if tuple(header["bands"]) != entry.bands or header["dtype"] not in ("int8", "|i1"):
            return Dataset(id="", index=place, annual="period" not in table.column_names)
    return entry


def _finish(
    table: Any, place: str, entry: Dataset, target: Path, parameters: dict[str, Any], how: Network,
    anywhere: bool = False,
) -> Collection:  # fmt: skip
    table = resolved(table, folder_of(place), how, anywhere=anywhere)
    contents: Content | list[Content] = entry.content
    if not entry.bands and "asset" in table.column_names:
        contents = [Content((str(name),), None, entry.nodata) for name in table["asset"].to_pylist()]
    table = enrich(table, contents, how)
    guessed = _guessed(table, str(target))
    if not entry.bands and guessed.bands:
        entry = replace(guessed, id=entry.id)
    elif not entry.bands and "asset" not in table.column_names:
        entry = replace(entry, bands=tuple(table["header"][0].as_py()["bands"]))
    write(table, target, entry, parameters)
    return Collection(table, dataset=entry, place=str(target), network=how)


def _kept(target: Path, read: Callable[[], Collection], *, cached: bool) -> Collection | None:
    """Read a collection that was built before; None for a damaged file in the cache folder, which is built again."""
    try:
        return read()
    except (ArchiveError, InputFileError) as error:
        if not cached:
            raise
        warn_data(f"a damaged file of the cache is built again: {error}")
        return None


def _reopened(target: Path, parameters: dict[str, Any], how: Network) -> Collection:
    metadata = package_metadata(file_metadata(str(target))[0], str(target))
    known = {**metadata, "dataset": _dataset_of(metadata, str(target)).id}
    for key, value in parameters.items():
        if known.get(key) != value:
            raise UsageError(
                f"{target} was built with {key}={known.get(key)}, not {value}; choose another name, or use force=True"
            )
    return _opened(str(target), how, None)


def _network(network: Network | None, prefixes: Mapping[str, str]) -> Network:
    chosen = network or NETWORK
    return replace(chosen, url_rewrite={**prefixes, **chosen.url_rewrite}) if prefixes else chosen


def _target(label: str, path: str | Path | None) -> Path:
    if path is not None:
        return Path(path)
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in label)
    return cache_folder() / "collections" / f"{safe}.parquet"


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=5).hexdigest()
