"""Sorts a table's sites by their roles: restoration sites, references, and degraded stand-ins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.change.background import Corrected, corrected
from gee_polygons.change.numerics import Flags
from gee_polygons.change.series import Series, series_from_table, site_positions, start_years_of
from gee_polygons.errors import UsageError
from gee_polygons.recovery.trajectories import StartingStates


@dataclass(frozen=True, kw_only=True, eq=False)
class Roles:
    """The series of a table, and which of its rows are which sites.

    Parameters
    ----------
    fixed : Corrected
        All series, as in the table and without drift.
    rows : int array
        Of the restoration sites, which are measured.
    reference_rows, degraded_rows : int arrays
        Of the references and the degraded stand-ins with data.
    start_years : int array
        Of the restoration sites.
    starts : StartingStates
        Of the restoration sites.
    own_background : bool
        Whether the references are the background.
    """

    fixed: Corrected
    rows: NDArray[np.intp]
    reference_rows: NDArray[np.intp]
    degraded_rows: NDArray[np.intp]
    start_years: NDArray[np.int64]
    starts: StartingStates
    own_background: bool

    @property
    def sites(self) -> Series:
        """The restoration sites."""
        return self.fixed.raw.take(self.rows)

    @property
    def references(self) -> Series:
        """The reference sites."""
        return self.fixed.raw.take(self.reference_rows)

    @property
    def years_since_start(self) -> NDArray[np.int64]:
        """Years since each restoration site's start, shape (sites, years)."""
        return self.fixed.raw.years[None] - self.start_years[:, None]

    def stable(self) -> Flags:
        """Return the years in which sites are known not to change, shape (all sites, years)."""
        found = np.zeros(self.fixed.raw.present.shape, np.bool_)
        found[[*self.reference_rows, *self.degraded_rows]] = True
        found[self.fixed.is_background & self.fixed.is_named] = True
        found[self.rows] = self.starts.before
        return found

    @classmethod
    def of(cls, table: pd.DataFrame, references: Any, start_years: Any, background: Any, degraded: Any) -> Roles:
        """Find the roles from the arguments of `recovery`."""
        series = series_from_table(table)
        named = np.sort(site_positions(series, references, "references"))
        reference_rows = named[series.with_data[named]]
        if not len(reference_rows):
            raise UsageError("no reference site has data in any year")
        own_background = isinstance(background, str) and background == "references"
        if own_background:
            background = [series.site_ids[i] for i in reference_rows]
        fixed = corrected(table, background=background)
        stand_ins = np.array([], np.intp)
        if degraded is not None:
            stand_ins = np.sort(site_positions(series, degraded, "degraded"))
        starts = {i: year for i, year in enumerate(start_years_of(series, start_years)) if year is not None}
        rows = [i for i in starts if i not in {*named, *stand_ins}]
        if not rows:
            raise UsageError("no site of the table (references aside) has a start year; give start_years")
        stand_ins = stand_ins[series.with_data[stand_ins]]
        began = [starts[i] for i in rows]
        return cls(
            fixed=fixed,
            rows=np.array(rows, np.intp),
            reference_rows=reference_rows,
            degraded_rows=stand_ins,
            start_years=np.array(began, np.int64),
            starts=StartingStates.of(fixed.units[rows], series.years, began, fixed.units[stand_ins]),
            own_background=own_background,
        )
