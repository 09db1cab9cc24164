"""Defines `Collection`: a table of tiles that can be filtered, whose pixels can be read, and that is a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gee_polygons.alphaearth import band_positions
from gee_polygons.collection.catalogue import Dataset
from gee_polygons.collection.geometries import read_geometries
from gee_polygons.collection.reading import (
    PixelQuery,
    dataset_of,
    samples_of,
    stream_arrays,
    stream_tables,
    table_of_pixels,
)
from gee_polygons.collection.table import read_tiles, resolved, within, write
from gee_polygons.errors import UsageError, optional_import
from gee_polygons.network.places import folder_of, hide_query
from gee_polygons.network.request import NETWORK, Network
from gee_polygons.sources.cog.index import ArchiveIndex
from gee_polygons.sources.cog.source import CogSource

if TYPE_CHECKING:
    import geopandas


class Collection:
    """A table of tiles, and access to their pixels. Made by `build`, `load`, `build_from_table` or `as_collection`.

    Parameters
    ----------
    index : pyarrow.Table or str
        One row for each tile, with canonical columns; or the path or URL of an index, read as far as needed.
    dataset : Dataset
        Bands, type and nodata value of the tiles.
    place : str
        Path or URL, for messages and provenance.
    network : Network
        Retry and concurrency settings.

    Examples
    --------
    >>> from gee_polygons.collection import load
    >>> collection = load("gee-polygons/sample")
    >>> collection.years
    [2018, 2019, 2020, 2021, 2022, 2023, 2024]
    >>> collection.subset(date_range=(2023, 2024)).to_table().num_rows
    6
    """

    def __init__(self, index: Any, *, dataset: Dataset, place: str, network: Network = NETWORK) -> None:
        self.dataset, self.place, self.network = dataset, hide_query(place), network
        self._table = None if isinstance(index, str) else index
        self._source: CogSource | None = None

    def __repr__(self) -> str:
        size = "read as needed" if self._table is None else f"{self._table.num_rows} tiles"
        return f"Collection({self.dataset.id or self.place!r}, {size})"

    def __len__(self) -> int:
        return int(self.to_table().num_rows)

    @property
    def years(self) -> list[int]:
        """Years of the tiles, ascending; days as YYYYMMDD for a dataset that isn't annual."""
        return self.as_source().years()

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        if self.dataset.bands:
            return self.dataset.bands
        table = self.to_table()
        if "header" not in table.column_names:
            raise UsageError(f"{self.place}: its bands aren't known before headers are; build a collection of it")
        found = {band for header in table["header"].to_pylist() for band in header["bands"]}
        return tuple(sorted(found))

    def as_source(self) -> CogSource:
        """Return it as a source of embeddings, for `open_source` and `extract_embeddings`."""
        if self._source is None:
            index = (
                ArchiveIndex(self.place, self.network)
                if self._table is None
                else ArchiveIndex.of(self._table, self.place, self.network)
            )
            self._source = CogSource(index, name="cog", content=self.dataset.content, network=self.network)
        return self._source

    # --- the table

    def to_table(self) -> Any:
        """Return all tiles as a pyarrow table."""
        if self._table is None:
            self._table = read_tiles(self.dataset, self.place, self.network)
        return self._table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the table to DuckDB, Polars, pyarrow and others, without a copy."""
        return self.to_table().__arrow_c_stream__(requested_schema)

    def subset(
        self,
        *,
        bbox: Sequence[float] | None = None,
        geometries: Any = None,
        date_range: tuple[Any, Any] | None = None,
        where: Any = None,
    ) -> Collection:
        """Return a collection with some of the tiles.

        Parameters
        ----------
        bbox : (west, south, east, north), optional
            Tiles whose valid pixels' box touches it, EPSG:4326.
        geometries : optional
            Tiles whose valid pixels' box touches one of them; of any kind that `get_numpy` takes.
        date_range : pair of dates or years, optional
            Both ends are included; of annual tiles, every year that the range touches.
        where : str or pyarrow.compute.Expression, optional
            A condition on the columns. A text is SQL, and needs DuckDB.

        Returns
        -------
        Collection
        """
        shapes = None if geometries is None else read_geometries(geometries).geometries
        wanted: dict[str, Any] = {"bbox": bbox, "date_range": date_range, "geometries": shapes}
        if self._table is None:
            table = read_tiles(self.dataset, self.place, self.network, **wanted)
        else:
            table = within(self._table, **wanted)
        if where is not None:
            table = _where(table, where)
        return Collection(table, dataset=self.dataset, place=self.place, network=self.network)

    def save(self, path: str | Path) -> Path:
        """Write it as one GeoParquet file that `load` opens."""
        target = Path(path)
        write(resolved(self.to_table(), folder_of(self.place), self.network), target, self.dataset, {})
        return target

    # --- the pixels

    def get_numpy(
        self,
        geometries: Any,
        *,
        bands: Sequence[str] | None = None,
        years: Sequence[int] | None = None,
        decode: bool = True,
        geometry_crs: Any = None,
        geometry_column: str | None = None,
    ) -> Any:
        """Read pixels as masked arrays.

        Parameters
        ----------
        geometries
            ``(west, south, east, north)`` in EPSG:4326; shapely geometries (polygons or points); a GeoDataFrame, sites,
            or Arrow WKB in a column or table. Each is read in its own UTM zone (that of its centroid), whose tiles
            reach past the zone's edge. One that they don't cover is cut at the edge: its array holds the part in its
            own zone, with a warning, for zones' grids are never mixed; `get_gdf` and `get_xarray` give all parts.
        bands : sequence of str, optional
            Default: all.
        years : sequence of int, optional
            Default: all that the collection has.
        decode : bool
            True: vectors, float32, NaN without data. False: codes as stored, int8, which are no vectors (their dot
            product is no cosine; `codes_to_vectors` decodes them). Pixels of datasets other than embeddings are always
            as stored.
        geometry_crs : optional
            CRS of geometries without one. Default: EPSG:4326.
        geometry_column : str, optional
            Column of a table. Default: `geometry` or `geom`.

        Returns
        -------
        numpy.ma.MaskedArray or list of them
            (years, bands, height, width), north-up, float32 or int8, masked where there is no data and outside the
            geometry (pixels that it touches are inside; of a bbox tuple all pixels are). One geometry gives one
            array; several, of any sizes, give a list of arrays, one each, in their order. Memory: this result, and
            what `iter_numpy` needs.

        Raises
        ------
        ReadError
            If a read fails, naming the URL and the geometry.

        Examples
        --------
        >>> from gee_polygons.collection import load
        >>> collection = load("gee-polygons/sample")
        >>> array = collection.get_numpy((-48.02, -22.36, -48.018, -22.359), bands=["A00", "A01"], years=[2023])
        >>> array.shape
        (1, 2, 12, 22)
        """
        query = self._query(geometries, bands, years, decode, geometry_crs, geometry_column)
        arrays = dict(stream_arrays(query))
        return arrays[0] if query.geometries.single else [arrays[number] for number in range(len(arrays))]

    def iter_numpy(
        self,
        geometries: Any,
        *,
        bands: Sequence[str] | None = None,
        years: Sequence[int] | None = None,
        decode: bool = True,
        geometry_crs: Any = None,
        geometry_column: str | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Read pixels as `get_numpy` does, and yield each geometry's array as soon as it is complete.

        For more geometries than fit in memory: blocks are read row by row, and held are only the geometries of which
        some blocks have been read and others not yet, the block that is decoded and those that are fetched ahead.

        Parameters
        ----------
        geometries, bands, years, decode, geometry_crs, geometry_column
            See `get_numpy`.

        Yields
        ------
        number : int
            Which of the geometries, from 0. They come in the order in which their blocks are read.
        array : numpy.ma.MaskedArray
            (years, bands, height, width): see `get_numpy`.

        Examples
        --------
        >>> from gee_polygons.collection import load
        >>> from gee_polygons.sources.sample import sample_sites
        >>> collection = load("gee-polygons/sample")
        >>> arrays = collection.iter_numpy(sample_sites()[:2], bands=["A00"], years=[2023])
        >>> {number: int(array.count()) for number, array in arrays}
        {0: 2325, 1: 1697}
        """
        return stream_arrays(self._query(geometries, bands, years, decode, geometry_crs, geometry_column))

    def get_xarray(
        self,
        geometries: Any,
        *,
        bands: Sequence[str] | None = None,
        years: Sequence[int] | None = None,
        decode: bool = True,
        crs: str | None = None,
        chunks: Mapping[str, int] | str | None = None,
        geometry_crs: Any = None,
        geometry_column: str | None = None,
    ) -> Any:
        """Read the window around all geometries as an xarray.Dataset, one variable a band.

        Parameters
        ----------
        geometries, bands, years, decode, geometry_crs, geometry_column
            See `get_numpy`. Pixels outside the geometries are read too.
        crs : str, optional
            One zone to read, where geometries lie in several.
        chunks : mapping or "auto", optional
            Read lazily, in dask chunks of so many of "year", "y", "x"; "auto": a year and 1024 px.

        Returns
        -------
        xarray.Dataset
            Dimensions (year, y, x), north-up, with coordinates of pixel centres; attributes `crs`, `transform`. Codes
            have the attributes ``units`` (``"code"``) and ``nodata``. A geometry that is cut at a zone's edge (see
            `get_numpy`) has its pixels in the zone that their centres lie in, and nodata in the other.

        Raises
        ------
        UsageError
            If no geometry lies in `crs`; if geometries lie in several zones, and `crs` names none: the message lists
            them.
        """
        query = self._query(geometries, bands, years, decode, geometry_crs, geometry_column)
        return dataset_of(query, crs, chunks, self.dataset.attribution)

    def get_gdf(
        self,
        geometries: Any,
        *,
        bands: Sequence[str] | None = None,
        years: Sequence[int] | None = None,
        decode: bool = True,
        geometry_crs: Any = None,
        geometry_column: str | None = None,
    ) -> geopandas.GeoDataFrame:
        """Read pixels as a table: one row for each geometry and year.

        A geometry that is cut at a zone's edge (see `get_numpy`) has a row for each zone: of the same ground, `valid`
        is True in one of them only, so that counts add up. Memory: the result, and what
        `iter_numpy` needs.

        Parameters
        ----------
        geometries, bands, years, decode, geometry_crs, geometry_column
            See `get_numpy`.

        Returns
        -------
        geopandas.GeoDataFrame
            The columns that came with the geometries, then `year`, `pixels` (bands, height, width; with
            ``decode=False``, `codes`), `valid` (bool, height, width: has data, and lies inside the geometry),
            `transform`, `crs`, `geometry` (EPSG:4326).
        """
        return table_of_pixels(self._query(geometries, bands, years, decode, geometry_crs, geometry_column))

    def iter_gdf(
        self,
        geometries: Any,
        *,
        bands: Sequence[str] | None = None,
        years: Sequence[int] | None = None,
        decode: bool = True,
        geometry_crs: Any = None,
        geometry_column: str | None = None,
    ) -> Iterator[geopandas.GeoDataFrame]:
        """Read pixels as `get_gdf` does, in tables of about 16 MB of pixels each.

        For more geometries than fit in memory: a table that isn't kept is freed. Memory: one table, and what
        `iter_numpy` needs.

        Parameters
        ----------
        geometries, bands, years, decode, geometry_crs, geometry_column
            See `get_numpy`.

        Yields
        ------
        geopandas.GeoDataFrame
            Rows of `get_gdf`, with an index of their own. A table holds whole geometries, in the order in which their
            blocks are read.
        """
        return stream_tables(self._query(geometries, bands, years, decode, geometry_crs, geometry_column))

    def sample_points(
        self,
        points: Any,
        *,
        bands: Sequence[str] | None = None,
        years: Sequence[int] | None = None,
        decode: bool = True,
        max_distance_px: int = 0,
        geometry_crs: Any = None,
        geometry_column: str | None = None,
    ) -> geopandas.GeoDataFrame:
        """Read the pixel at each point.

        Parameters
        ----------
        points
            Points, of any kind that `get_numpy` takes; or an array of (longitude, latitude), shape (n, 2).
        max_distance_px : int
            Where the point's own pixel has no data, take the nearest that has, within this many pixels.
        bands, years, decode, geometry_crs, geometry_column
            See `get_numpy`.

        Returns
        -------
        geopandas.GeoDataFrame
            One row for each point and year: the columns that came with the points, `year`, one column a band (missing
            where there is no data; codes: Int8, and ``attrs["units"]`` is ``"code"``), `distance_px`, `geometry`.
        """
        if isinstance(points, np.ndarray) and points.ndim == 2 and points.shape[1] == 2:
            import shapely

            points = list(shapely.points(points.astype(np.float64)))
        query = self._query(points, bands, years, decode, geometry_crs, geometry_column)
        return samples_of(query, max_distance_px)

    def to_torchgeo_dataset(
        self, *, bands: Sequence[str] | None = None, years: Sequence[int] | None = None, chip_size: int = 256
    ) -> Any:
        """Return the chips of all tiles as a map-style dataset for torch's DataLoader.

        Needs the extra ``[torch]``.

        Parameters
        ----------
        bands, years
            See `get_numpy`.
        chip_size : int
            Width and height of a chip, pixels. Pixels at a tile's far sides that fill no whole chip are left out.

        Returns
        -------
        Dataset
            Each sample a mapping: `image` (float32, (bands, height, width), north-up; vectors of AlphaEarth codes, 0
            without data; else pixels as stored), `valid` (bool, (height, width)), `crs`, `bounds` (float64: west,
            south, east, north in the CRS), `year`.
        """
        from gee_polygons.collection.torch import chips_of

        return chips_of(self, self._bands(bands), self._years(years), chip_size)

    def _query(
        self,
        geometries: Any,
        bands: Sequence[str] | None,
        years: Sequence[int] | None,
        decode: bool,
        geometry_crs: Any,
        geometry_column: str | None,
    ) -> PixelQuery:
        """Check the arguments that all ways of reading pixels have."""
        found = read_geometries(geometries, geometry_crs, geometry_column)
        names, numbers = self._bands(bands), self._years(years)
        if not isinstance(decode, bool | np.bool_):
            raise UsageError(f"decode is True for vectors or False for codes, found {decode!r}")
        embeddings = self.dataset.embeddings
        return PixelQuery(self.as_source(), found, names, numbers, decode and embeddings, embeddings and not decode)

    def _bands(self, bands: Sequence[str] | None) -> tuple[str, ...]:
        known = self.bands
        names = known if bands is None else tuple([bands] if isinstance(bands, str) else bands)
        band_positions(names, known, f"{self.dataset.id or self.place} has")
        if not names or len(set(names)) != len(names):
            raise UsageError(f"bands are some of {known[0]}..{known[-1]}, each once, found {list(names)}")
        return names

    def _years(self, years: Sequence[int] | int | None) -> tuple[int, ...]:
        if years is None:
            return tuple(self.years)
        asked_for = [years] if isinstance(years, int | np.integer) else list(years)
        if not asked_for or not all(isinstance(year, int | np.integer) for year in asked_for):
            raise UsageError(f"years are whole numbers such as 2024, found {years!r}")
        return tuple(sorted({int(year) for year in asked_for}))


def _where(table: Any, where: Any) -> Any:
    if not isinstance(where, str):
        return table.filter(where)
    needed = "a condition in SQL needs DuckDB: pip install 'gee_polygons[duckdb]'; or give a pyarrow expression"
    duckdb = optional_import("duckdb", needed)
    try:
        with duckdb.connect() as connection:
            connection.register("tiles", table.drop_columns([n for n in ("header",) if n in table.column_names])
                                .append_column("_row", [np.arange(len(table))]))  # fmt: skip
            rows = connection.execute(f"SELECT _row FROM tiles WHERE ({where}) ORDER BY _row").fetchall()
    except duckdb.Error as error:
        raise UsageError(f"where={where!r}: {str(error).splitlines()[0]}") from error
    return table.take(np.array([row[0] for row in rows], np.int64))
