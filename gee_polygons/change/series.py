"""Arranges a table of embeddings as yearly series: an array site x year x band of unit vectors, NaN without data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.numerics import Flags, Floats
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.errors import UsageError, warn_data

_LONGEST: Final = 1.5  # means of unit vectors are at most 1 long, simulated ones a little more; codes are far longer
_SITES_AT_A_TIME: Final = 4_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """Unit mean vectors of sites over years.

    Parameters
    ----------
    site_ids : list
        In the order of the table.
    years : int array, shape (years,)
        Ascending.
    units : float array, shape (sites, years, 64)
        Means scaled to length 1; NaN without data.
    """

    site_ids: list[Any]
    years: NDArray[np.int64]
    units: Floats

    @property
    def present(self) -> Flags:
        """Whether a site has data in a year, shape (sites, years)."""
        return has_data(self.units)

    def take(self, rows: NDArray[np.intp]) -> Series:
        """Return some of the sites."""
        return Series(site_ids=[self.site_ids[i] for i in rows], years=self.years, units=self.units[rows])


def in_parts(n: int) -> Iterator[slice]:
    """Return slices of 4,000 sites, so that no step copies the series of all sites of a large table."""
    for first in range(0, n, _SITES_AT_A_TIME):
        yield slice(first, min(first + _SITES_AT_A_TIME, n))


def has_data(units: Floats) -> Flags:
    """Return which vectors, shape (..., 64), aren't NaN."""
    return np.isfinite(units[..., 0])


def series_from_table(table: pd.DataFrame, years: NDArray[np.int64] | None = None) -> Series:
    """Arrange a table by site and year; years without data in any site are left out; `years` limits it to these.

    Raises
    ------
    UsageError
        If columns are missing, a site has a year twice, no row has data, years aren't whole numbers, or vectors are
        longer than means of unit vectors can be.
    """
    band_matrix(table.iloc[:0])  # raises if the table has no embeddings
    for name in ("site_id", "year"):
        if name not in table.columns:
            raise UsageError(f"the table has no column {name!r}: one row per site and year is needed")
        if table[name].isna().any():
            raise UsageError(f"the table has rows without a {name}; complete these rows, or leave them out")
    for year in table["year"].unique().tolist():
        if not isinstance(year, Real) or year % 1:
            raise UsageError(f"years are whole numbers like 2018, found {year!r} in the column 'year'")
    row_years = table["year"].to_numpy(np.float64).astype(np.int64)
    twice = table.duplicated(["site_id", "year"])
    if twice.any():
        row = table[twice].iloc[0]
        raise UsageError(f"site {row['site_id']!r} has the year {row['year']} twice; keep one row per site and year")
    site_codes, ids = pd.factorize(table["site_id"])
    all_years = np.unique(row_years) if years is None else years
    cube = np.full((len(ids), len(all_years), N_BANDS), np.nan)
    for part in in_parts(len(table)):
        vectors = band_matrix(table.iloc[part])
        lengths = np.linalg.norm(vectors, axis=1)
        if np.nanmax(lengths, initial=0.0) > _LONGEST:
            i = part.start + int(np.nanargmax(lengths))
            raise UsageError(
                f"site {str(table['site_id'].iloc[i])!r} has a vector of length {np.nanmax(lengths):.3g} in "
                f"{row_years[i]}, and a mean of unit vectors is at most 1 long: these look like codes or scaled "
                "values; de-quantise them first"
            )
        units = normalize(vectors)
        kept = np.isin(row_years[part], all_years)
        cube[site_codes[part][kept], np.searchsorted(all_years, row_years[part][kept])] = units[kept]
    if years is None:
        with_data = has_data(cube).any(axis=0)
        if not with_data.any():
            raise UsageError("no row of the table has data: there is nothing to compare")
        all_years, cube = all_years[with_data], cube if with_data.all() else cube[:, with_data]
    return Series(site_ids=ids.tolist(), years=all_years, units=cube)


def site_positions(series: Series, ids: Iterable[Any], what: str) -> NDArray[np.intp]:
    """Return the rows of sites given by id, each once, ascending; 3107 and "3107" are the same id.

    Raises
    ------
    UsageError
        If none is given, or one is unknown; `what` names the argument in the message.
    """
    if isinstance(ids, str | bytes):
        raise UsageError(f"{what} is a list of site ids, found the text {ids!r}")
    place = {str(site_id): i for i, site_id in enumerate(series.site_ids)}
    names = {str(site_id): None for site_id in ids}
    for name in names:
        if name not in place:
            raise UsageError(f"{what}: site {name!r} is not among the table's {len(place)} sites")
    if not names:
        raise UsageError(f"{what} names no site; give at least one")
    return np.array(sorted(place[name] for name in names), np.intp)


def start_years_of(series: Series, start_years: Any) -> list[int | None]:
    """Return each site's start year, from a mapping by id, a SiteCollection, or a GeoDataFrame with `start_year`."""
    if hasattr(start_years, "start_years"):
        start_years = dict(zip(start_years.site_ids, start_years.start_years, strict=True))
    elif isinstance(start_years, pd.DataFrame):
        if not {"site_id", "start_year"} <= set(start_years.columns):
            raise UsageError("a table of start years needs the columns 'site_id' and 'start_year'")
        start_years = start_years.set_index("site_id")["start_year"]
    if not isinstance(start_years, Mapping | pd.Series):
        raise UsageError(f"start_years is a mapping from site id to year, found {type(start_years).__name__}")
    found = {str(site_id): None if pd.isna(year) else int(year) for site_id, year in start_years.items()}
    return [found.get(str(site_id)) for site_id in series.site_ids]


def baseline_mask(series: Series, baseline: Any) -> Flags:
    """Return which years are each site's baseline, where it has data: shape (sites, years).

    `baseline` is None (each site's first year with data), a year, several years, or a mapping from site id to either.
    """
    found: Flags = series.present
    if baseline is None:
        return found & (found.cumsum(axis=1) == 1)
    ids = [str(site_id) for site_id in series.site_ids]
    by_site = baseline if isinstance(baseline, Mapping) else dict.fromkeys(ids, baseline)
    site_positions(series, by_site, "baseline")  # raises for an unknown id
    chosen = {str(site_id): _baseline_years(years, series) for site_id, years in by_site.items()}
    found &= np.array([np.isin(series.years, chosen.get(site_id, [])) for site_id in ids])
    without = series.present.any(axis=1) & ~found.any(axis=1)
    if without.any():
        first = ids[int(without.argmax())]
        warn_data(f"sites without data in the baseline's years have no angles: {without.sum()}, the first is {first!r}")
    return found


def _baseline_years(given: Any, series: Series) -> list[Any]:
    """Return the years of a baseline, given as one or as several."""
    several = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [given]
    if not several or not all(isinstance(year, Real) and year % 1 == 0 for year in several):
        raise UsageError(f"a baseline is a year like 2018, or some of them, found {given!r}")
    for year in several:
        if year not in series.years:
            raise UsageError(f"the baseline year {year} isn't in the table: {series.years[0]}..{series.years[-1]}")
    return several
