"""`SiteCollection`: many sites, stored as columns."""

from __future__ import annotations

import operator
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, overload

import geopandas
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.errors import SiteError, UsageError
from gee_polygons.moved import with_old_members
from gee_polygons.site import html
from gee_polygons.site.site import Site
from gee_polygons.site.table import SiteTable, site_table
from gee_polygons.site.values import listed, near, plain
from gee_polygons.site.verbs import CollectionVerbs

SHOWN_SITES: Final = 10  # in the HTML of a notebook


class SiteRepairWarning(UserWarning):
    """Some polygons were invalid and have been repaired; `site_ids` says which."""

    def __init__(self, message: str, site_ids: tuple[int | str, ...] = ()) -> None:
        super().__init__(message)
        self.site_ids = site_ids


class SiteRefusedWarning(UserWarning):
    """Some rows can't be sites and were left out; `refused` has the id and the reason of each, by row."""

    def __init__(self, message: str, refused: Mapping[int, tuple[int | str | None, str]] | None = None) -> None:
        super().__init__(message)
        self.refused = dict(refused or {})  # pickle passes the message alone


class UnknownSiteError(UsageError, KeyError, IndexError):
    """There is no site with that id, or at that position."""

    code = "unknown_site"
    __str__ = Exception.__str__  # KeyError's would put the message in quotes


@with_old_members
class SiteCollection(CollectionVerbs, Sequence[Site]):
    """An immutable sequence of sites; it can be pickled.

    ``sites[0]`` is by position, ``sites["3107"]`` by id, ``sites[:5]`` a smaller collection. Sites share their
    properties' names: one that a site lacks is None.

    Parameters
    ----------
    sites : iterable of Site
        With unique ids.

    Raises
    ------
    SiteError
        If two sites have the same id.

    Examples
    --------
    >>> import shapely
    >>> box = shapely.box(-50, -10, -49.99, -9.99)
    >>> sites = SiteCollection([Site(polygon=box, site_id=i, properties={"kind": "control"}) for i in (7, 8, 9)])
    >>> sites
    SiteCollection(3 sites: 7, 8, 9)
    >>> sites["8"] == sites[1], len(sites[1:]), len(sites.filter(kind="control", site_id=9))
    (True, 2, 1)
    """

    # columns instead of a list of sites, so that a million take little memory; a `Site` is made on access
    __slots__ = ("_ids", "_made", "_polygons", "_positions", "_properties", "_repaired", "_start_years")

    def __init__(self, sites: Iterable[Site] = ()) -> None:
        given = list(sites)
        if strangers := [s for s in given if not isinstance(s, Site)]:
            raise UsageError(f"a SiteCollection is made of Site objects, found {type(strangers[0]).__name__}")
        times = Counter(str(s.site_id) for s in given)
        if twice := [site_id for site_id, n in times.items() if n > 1]:
            raise SiteError(f"ids must be unique, found more than once: {listed(twice, 3)}")
        polygons = np.empty(len(given), dtype=object)
        polygons[:] = [s.polygon for s in given]
        # dtype object: values stay as they are beside a missing one
        properties = pd.DataFrame([dict(s.properties) for s in given], index=range(len(given)), dtype=object)
        self._set(polygons, tuple(s.site_id for s in given), tuple(s.start_year for s in given), properties)

    @classmethod
    def _from_columns(
        cls,
        polygons: NDArray[Any],
        ids: tuple[int | str, ...],
        start_years: tuple[int | None, ...],
        properties: pd.DataFrame,
        repaired: frozenset[int | str],
    ) -> SiteCollection:
        sites = object.__new__(cls)
        sites._set(polygons, ids, start_years, properties, repaired)
        return sites

    def _set(
        self,
        polygons: NDArray[Any],
        ids: tuple[int | str, ...],
        start_years: tuple[int | None, ...],
        properties: pd.DataFrame,
        repaired: frozenset[int | str] = frozenset(),
    ) -> None:
        polygons.flags.writeable = False
        self._polygons = polygons
        self._ids = ids
        self._start_years = start_years
        self._properties = properties
        self._repaired = repaired
        self._positions: dict[str, int] | None = None
        self._made: dict[int, Site] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        columns = (self._polygons, self._ids, self._start_years, self._properties, self._repaired)
        return SiteCollection._from_columns, columns

    # a sequence ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, key: int | str) -> Site: ...

    @overload
    def __getitem__(self, key: slice) -> SiteCollection: ...

    def __getitem__(self, key: int | str | slice) -> Site | SiteCollection:
        if isinstance(key, str):
            return self._site(self._position(key))
        if isinstance(key, slice):
            return self._take(np.arange(len(self))[key])
        try:
            index = operator.index(key)
        except TypeError:
            raise UsageError(
                f"sites are taken by position (int), by id (str) or as a slice, found {type(key).__name__}"
            ) from None
        if not -len(self) <= index < len(self):
            raise UnknownSiteError(
                f'no site at position {index}: there are {len(self)}; for an id, write it as text: sites["{index}"]'
            )
        return self._site(index % len(self))

    def __iter__(self) -> Iterator[Site]:
        names = self.property_names
        columns = [self._properties[name].tolist() for name in names]
        for i in range(len(self)):
            made = self._made.get(i)
            yield made if made is not None else self._make(i, {n: c[i] for n, c in zip(names, columns, strict=True)})

    def __contains__(self, item: object) -> bool:
        if isinstance(item, str):
            return item in self._index()
        if isinstance(item, Site):
            at = self._index().get(str(item.site_id))
            return at is not None and self._site(at) == item
        return False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SiteCollection):
            return NotImplemented
        return self._ids == other._ids and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(self._ids)

    def _make(self, position: int, properties: Mapping[str, Any]) -> Site:
        plain_properties = {name: plain(value) for name, value in properties.items()}
        return Site._trusted(
            self._polygons[position], self._ids[position], self._start_years[position], plain_properties
        )

    def _site(self, position: int) -> Site:
        if position not in self._made:
            cells = {name: self._properties[name].iloc[position] for name in self.property_names}
            self._made[position] = self._make(position, cells)
        return self._made[position]

    def _index(self) -> dict[str, int]:
        if self._positions is None:
            self._positions = {str(site_id): i for i, site_id in enumerate(self._ids)}
        return self._positions

    def _position(self, site_id: str) -> int:
        position = self._index().get(site_id)
        if position is None:
            raise UnknownSiteError(f"no site has the id {site_id!r}; there are {near(site_id, self._ids)}")
        return position

    def _take(self, positions: NDArray[np.intp]) -> SiteCollection:
        ids = tuple(self._ids[i] for i in positions)
        return SiteCollection._from_columns(
            self._polygons[positions],
            ids,
            tuple(self._start_years[i] for i in positions),
            self._properties.iloc[positions].reset_index(drop=True),
            self._repaired & frozenset(ids),
        )

    # columns ---------------------------------------------------------------------------------------------------------

    @property
    def site_ids(self) -> tuple[int | str, ...]:
        """Ids, in order."""
        return self._ids

    @property
    def polygons(self) -> NDArray[Any]:
        """Read-only NumPy array of shapely polygons and multipolygons, EPSG:4326, in order."""
        return self._polygons

    @property
    def start_years(self) -> tuple[int | None, ...]:
        """Start years, in order; None where there is none."""
        return self._start_years

    @property
    def property_names(self) -> tuple[str, ...]:
        """Names of the other columns."""
        return tuple(self._properties.columns)

    @property
    def repaired(self) -> tuple[int | str, ...]:
        """Ids of the sites whose polygons were invalid and have been repaired, in order."""
        return tuple(i for i in self._ids if i in self._repaired)

    def filter(self, predicate: Callable[[Site], bool] | None = None, /, **equals: Any) -> SiteCollection:
        """Return the sites for which a function returns True and whose columns have the given values.

        Parameters
        ----------
        predicate : callable, optional
            Takes a `Site`, returns True to keep it.
        **equals
            ``site_id``, ``start_year`` or a property, and the value that it must have (None: missing).

        Returns
        -------
        SiteCollection
            It may be empty.

        Raises
        ------
        UsageError
            For a property that the sites don't have.

        Examples
        --------
        >>> import shapely
        >>> box = shapely.box(-50, -10, -49.99, -9.99)
        >>> sites = SiteCollection([Site(polygon=box, site_id=i, start_year=2015 + i) for i in range(4)])
        >>> sites.filter(lambda site: site.start_year > 2016).site_ids, sites.filter(start_year=2016).site_ids
        ((2, 3), (1,))
        """
        keep = np.ones(len(self), dtype=bool)
        for name, value in equals.items():
            keep &= np.fromiter((plain(v) == value for v in self._column(name)), bool, len(self))
        if predicate is None:
            return self._take(np.flatnonzero(keep))
        if not callable(predicate):
            raise UsageError(f"filter takes a function of a Site, found {type(predicate).__name__}")
        kept = [i for i, site in enumerate(self) if keep[i] and predicate(site)]
        return self._take(np.array(kept, dtype=np.intp))

    def _column(self, name: str) -> Sequence[Any]:
        known = ("site_id", "start_year", *self.property_names)
        if name not in known:
            raise UsageError(f"sites have no property {name!r}; they have {near(name, known)}")
        if name == "site_id":
            return self._ids
        return self._start_years if name == "start_year" else list(self._properties[name])

    # tables ----------------------------------------------------------------------------------------------------------

    def to_geodataframe(self) -> geopandas.GeoDataFrame:
        """Return a GeoDataFrame: ``site_id``, ``start_year`` (Int64), the properties, ``geometry`` (EPSG:4326).

        A property that has one of those names, in whatever case, gets ``_in_file`` appended to its own.

        Examples
        --------
        >>> import shapely
        >>> sites = SiteCollection([Site(polygon=shapely.box(0, 0, 1, 1), site_id=7, start_year=2016)])
        >>> sites.to_geodataframe().drop(columns="geometry").to_dict("records")
        [{'site_id': 7, 'start_year': 2016}]
        >>> SiteCollection.from_geodataframe(sites.to_geodataframe()) == sites
        True
        """
        own = ("site_id", "start_year", "geometry")
        properties = {
            f"{n}_in_file" if n.lower() in own else n: _typed(self._properties[n]) for n in self.property_names
        }
        columns = {
            "site_id": pd.Series(list(self._ids)),
            "start_year": pd.Series(list(self._start_years), dtype="Int64"),
            **properties,
        }
        return geopandas.GeoDataFrame(columns, geometry=self._polygons, crs="EPSG:4326")

    @classmethod
    def from_geodataframe(
        cls,
        gdf: geopandas.GeoDataFrame,
        *,
        id_column: str | None = None,
        start_year_column: str | None = None,
        crs: Any = None,
    ) -> SiteCollection:
        """Make sites of a GeoDataFrame: see `sites_from_geodataframe`."""
        where = "the GeoDataFrame"
        columns = site_table(gdf, id_column=id_column, start_year_column=start_year_column, crs=crs, where=where)
        return collected(columns, where=where)

    # shown -----------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        ids = f": {listed(map(repr, self._ids))}" if self._ids else ""
        return f"SiteCollection({len(self)} site{'' if len(self) == 1 else 's'}{ids})"

    def _repr_html_(self) -> str:
        rows = [
            html.record(
                {
                    "": html.outline_svg(site.polygon, 40),
                    "site_id": site.site_id,
                    "start_year": site.start_year,
                    "area (ha)": f"{site.area_ha:.2f}",
                },
                site.properties,
                3,
            )
            for site in self[:SHOWN_SITES]
        ]
        more = len(self) - len(rows)
        title = f"{len(self)} site{'' if len(self) == 1 else 's'}"
        return html.table_html(title, rows, note=f"and {more} more sites" if more else "")


def _typed(column: pd.Series[Any]) -> pd.Series[Any]:
    """Convert a column of Python objects to the dtype that they share, so that any file format can hold it."""
    if column.dtype != object:
        return column
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind == "boolean":
        return column.astype("boolean")
    if kind == "integer":
        return column.astype("Int64") if column.dropna().abs().max() < 2**63 else column
    return column if kind.startswith("mixed") else column.infer_objects()


def collected(columns: SiteTable, *, where: str) -> SiteCollection:
    """Make a collection of normalised columns; warn about repaired polygons on behalf of the public function."""
    repaired = tuple(columns.ids[row] for row in columns.repairs)
    if repaired:
        said = listed(f"{columns.ids[row]} (row {row}: {why})" for row, why in columns.repairs.items())
        # stack: here, the public function, its caller
        warnings.warn(SiteRepairWarning(f"{where}: repaired invalid polygons: {said}", repaired), stacklevel=3)
    if columns.refused:
        said = listed((f"row {row} {reason}" for row, (_, reason) in columns.refused.items()), separator="; ")
        rows = f"{len(columns.refused)} row{'' if len(columns.refused) == 1 else 's'}"
        warnings.warn(SiteRefusedWarning(f"{where}: left out {rows}: {said}", columns.refused), stacklevel=3)
    return SiteCollection._from_columns(
        columns.polygons, columns.ids, columns.start_years, columns.properties, frozenset(repaired)
    )
