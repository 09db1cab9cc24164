"""Which columns of a table are vectors, sites and years: ours, or someone else's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons._audit.report import Finding, Severity, examples_of
from gee_polygons.embeddings.quantization import N_BANDS
from gee_polygons.errors import UsageError

__all__ = ["Audited", "Vectors", "look_at"]

SITE_COLUMNS: Final = ("site_id", "rid", "feature_id", "field_id", "plot_id", "polygon_id", "fid", "id")
YEAR_COLUMNS: Final = ("year", "time", "date", "datetime")
_NOT_VECTORS: Final = ("std", "min", "max", "count", "var", "median", "mode", "sum")
_NUMBERED: Final = re.compile(r"(.*?)(\d{1,2})((?:_[A-Za-z]\w*)?)")


@dataclass(frozen=True, kw_only=True, eq=False)
class Vectors:
    """Vectors out of a table.

    Parameters
    ----------
    columns : str
        Where they were found, for people.
    statistic : str
        ``"mean"``, ``"medoid"``, ``"std"``, ...: what the columns' names or the provenance say.
    matrix : float64 array, shape (rows, bands)
        Values, NaN where missing.
    infinite : bool array, shape (rows,)
        Rows that held infinities (NaN in `matrix`).
    unit : bool
        Whether the columns' names promise vectors of length 1.
    """

    columns: str
    statistic: str
    matrix: NDArray[np.float64]
    infinite: NDArray[np.bool_]
    unit: bool

    @property
    def whole(self) -> bool:
        """Whether all 64 bands are there, so that lengths mean something."""
        return int(self.matrix.shape[1]) == N_BANDS


@dataclass(frozen=True, kw_only=True, eq=False)
class Audited:
    """A table as the checks see it."""

    n_rows: int
    vectors: Vectors
    others: tuple[Vectors, ...]
    site: NDArray[Any] | None
    year: NDArray[np.int64] | None
    numbers: dict[str, NDArray[np.float64]]
    years_asked: frozenset[int] = frozenset()

    @property
    def matrix(self) -> NDArray[np.float64]:
        return self.vectors.matrix

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Rows with a value in every band."""
        found: NDArray[np.bool_] = np.asarray(np.isfinite(self.matrix).all(axis=1))
        return found

    def label(self, row: int) -> str:
        """Name a row: by site and year, else by its position."""
        names = [str(self.site[row])] if self.site is not None else [f"row {row}"]
        if self.year is not None and self.year[row] >= 0:
            names.append(str(self.year[row]))
        return " ".join(names)

    def finding(
        self, code: str, severity: Severity, title: str, rows: Any, evidence: dict[str, Any], mend: str
    ) -> Finding:
        """Make a finding out of a mask or positions of rows."""
        at = np.asarray(rows)
        at = np.flatnonzero(at) if at.dtype == np.bool_ else at
        label: Callable[[int], str] = self.label
        return Finding(
            code=code,
            severity=severity,
            title=title,
            rows=tuple(at.tolist()),
            evidence=evidence,
            mend=mend,
            examples=examples_of(label, at),
        )


def look_at(table: pd.DataFrame) -> Audited:
    """Find out what a table holds.

    Raises
    ------
    UsageError
        If there is nothing that looks like embedding vectors.
    """
    if not isinstance(table, pd.DataFrame):
        raise UsageError(f"an audit looks at a table (DataFrame) or the path of one, found {type(table).__name__}")
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise UsageError(f"the table has two columns {twice!r}; rename one")
    found = [*_wide(table), *_lists(table)]
    if not found:
        raise UsageError(
            "no embedding vectors in the table: neither columns A00..A63 (or 64 numbered ones, such as emb_0..emb_63), "
            f"nor a column of lists of 64 numbers; it has {', '.join(map(str, table.columns[:8]))}"
        )
    found.sort(key=lambda v: (_rank(v.statistic), not v.whole))
    site = next((name for name in SITE_COLUMNS if name in table.columns), None)
    year = next((name for name in YEAR_COLUMNS if name in table.columns), None)
    numbers = {
        name: pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        for name in ("Rbar", "embedding_dispersion", "n_pixels", "valid_fraction")
        if name in table.columns
    }
    return Audited(
        n_rows=len(table),
        vectors=found[0],
        others=tuple(found[1:]),
        # 3107 and "3107" are the same site
        site=None if site is None else table[site].astype(str).to_numpy(object),
        year=None if year is None else _years(table[year]),
        numbers=numbers,
        years_asked=_years_asked(table),
    )


def _rank(statistic: str) -> int:
    """Return the place of a statistic: what an audit is about comes first."""
    return {"mean": 0, "medoid": 2}.get(statistic, 3 if is_spread(statistic) else 1)


def is_spread(statistic: str) -> bool:
    """Whether numbers of this name aren't vectors: each band for itself."""
    return statistic in _NOT_VECTORS or re.fullmatch(r"p\d+", statistic) is not None


def _wide(table: pd.DataFrame) -> list[Vectors]:
    """Return groups of numbered columns: any of A00..A63, or exactly 64 of another name, from 0 or from 1."""
    groups: dict[tuple[str, str], dict[int, Any]] = {}
    names: list[Any] = list(table.columns)
    for name in names:
        match = _NUMBERED.fullmatch(name) if isinstance(name, str) else None
        if match:
            groups.setdefault((match[1], match[3]), {})[int(match[2])] = name
        elif isinstance(name, int | np.integer):
            groups.setdefault(("", ""), {})[int(name)] = name
    found = []
    for (prefix, suffix), members in groups.items():
        order = sorted(members)
        ours = prefix == "A" and order[-1] < N_BANDS
        if not ours and order not in (list(range(N_BANDS)), list(range(1, N_BANDS + 1))):
            continue
        columns = table[[members[number] for number in order]]
        numbers = columns.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        if not np.isfinite(numbers).any() and columns.notna().to_numpy().any():
            continue  # words
        first, last = members[order[0]], members[order[-1]]
        columns_text = f"{first}..{last}" + ("" if len(order) == N_BANDS else f" ({len(order)} of 64 bands)")
        found.append(_vectors(columns_text, _statistic(table, f"{prefix}{suffix}", suffix), numbers))
    return found


def _lists(table: pd.DataFrame) -> list[Vectors]:
    """Columns whose cells are lists of 64 numbers, also written as text in a CSV."""
    found = []
    for name in table.columns:
        column = table[name]
        if column.dtype != object and not isinstance(column.dtype, pd.StringDtype | pd.ArrowDtype):
            continue
        cells = column.dropna()
        first = _listed(cells.iloc[0]) if len(cells) else None
        if first is None or first.shape != (N_BANDS,):
            continue
        numbers = np.full((len(column), N_BANDS), np.nan)
        for row, cell in enumerate(column):
            values = _listed(cell)
            if values is not None and values.shape == (N_BANDS,):
                numbers[row] = values
        found.append(_vectors(f"the lists of {str(name)!r}", _statistic(table, str(name), ""), numbers))
    return found


def _listed(cell: Any) -> NDArray[np.float64] | None:
    try:
        if isinstance(cell, str):
            text = cell.strip()
            cell = json.loads(text) if text.startswith("[") else None
        if not isinstance(cell, list | tuple | np.ndarray):
            return None
        return np.array([np.nan if v is None else v for v in cell], np.float64)
    except (TypeError, ValueError):
        return None


def _statistic(table: pd.DataFrame, name: str, suffix: str) -> str:
    """Say which statistic columns hold: by their names, else (A00 alone) by the provenance."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    known = next((w for w in words if w in ("mean", "medoid") or is_spread(w)), None)
    if known is not None or suffix:
        return known or suffix.strip("_").lower()
    said = str(dict(table.attrs.get("provenance", {})).get("statistics", ""))
    return said if said and "," not in said else "mean"


def _years_asked(table: pd.DataFrame) -> frozenset[int]:
    """Years that the provenance says were asked for, if it does."""
    said = str(dict(table.attrs.get("provenance", {})).get("years", ""))
    return frozenset(int(year) for year in said.split(",") if year.strip().isdigit())


def _vectors(columns: str, statistic: str, numbers: NDArray[np.float64]) -> Vectors:
    words = re.split(r"[^a-z]+", columns.lower())
    return Vectors(
        columns=columns,
        statistic=statistic,
        matrix=np.where(np.isinf(numbers), np.nan, numbers),
        infinite=np.asarray(np.isinf(numbers).any(axis=1)),
        unit=any(w in ("unit", "normalized", "normalised", "l2", "unitmean") for w in words),
    )


def _years(column: pd.Series[Any]) -> NDArray[np.int64]:
    """Years out of numbers, dates or text that begins with a year; -1 where there is none."""
    if pd.api.types.is_datetime64_any_dtype(column):
        years = column.dt.year
    else:
        years = pd.to_numeric(column.astype(str).str.extract(r"^\s*(\d{4})", expand=False), errors="coerce")
    found: NDArray[np.int64] = years.fillna(-1).to_numpy(np.int64)
    return found
