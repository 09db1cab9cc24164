"""Which columns of a table are vectors, sites and years: ours, or someone else's."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.audit.report import Finding, Severity, examples_of
from gee_polygons.errors import UsageError

# compared without case, spaces, "_", "-" and ":"; the first that the table has counts
SITE_COLUMNS: Final = (
    "siteid", "site", "rid", "featureid", "fieldid", "plotid", "polygonid", "parcelid", "fid", "id", "objectid",
    "globalid", "uuid",
)  # fmt: skip
# these may as well say what kind a site is, or number the rows of each export: they count where they tell rows apart
PERHAPS_SITE_COLUMNS: Final = ("feature", "field", "plot", "polygon", "parcel", "systemindex", "name")
YEAR_COLUMNS: Final = (
    "year",
    "yr",
    "imageyear",
    "time",
    "date",
    "datetime",
    "timestart",
    "systemtimestart",
    "timestamp",
)
_NOT_VECTORS: Final = ("std", "min", "max", "count", "var", "median", "mode", "sum")
_NUMBER: Final = re.compile(r"(?<!\d)\d{1,3}(?!\d)")
_TEXT_OF_NUMBERS: Final = re.compile(r"[\[({]?[-+.\deE,;\s]*[\])}]?|.*\bnan\b.*", re.DOTALL)
_MOST_DOUBLES: Final = 0.1
_EPOCH_MS: Final = 1e11  # numbers beyond this are milliseconds since 1970, as Earth Engine writes times


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
        """Vectors, one row per row of the table."""
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
    if any(name is not None for name in table.index.names):
        table = table.reset_index(allow_duplicates=True)
        table = table.loc[:, ~table.columns.duplicated()]
    found = [*_wide(table), *_lists(table)]
    if not found:
        raise UsageError(
            "no embedding vectors in the table: neither columns A00..A63 (or 64 numbered ones, such as emb_0..emb_63), "
            f"nor a column of lists of 64 numbers; it has {', '.join(map(str, table.columns[:8]))}"
        )
    found.sort(key=lambda v: (_rank(v.statistic), not v.whole))
    year = _column_of(table, YEAR_COLUMNS)
    site = _column_of(table, SITE_COLUMNS)
    if site is None and (perhaps := _column_of(table, PERHAPS_SITE_COLUMNS)) is not None:
        keys = [perhaps] if year is None else [perhaps, year]
        site = perhaps if table.duplicated(keys, keep=False).mean() < _MOST_DOUBLES else None
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


def _column_of(table: pd.DataFrame, known: tuple[str, ...]) -> Any:
    """Return the column with the first of some names, whatever its case and punctuation; None without one."""
    plain = {re.sub(r"[\W_]+", "", str(name)).lower(): name for name in reversed(list(table.columns))}
    return next((plain[name] for name in known if name in plain), None)


def _wide(table: pd.DataFrame) -> list[Vectors]:
    """Return groups of numbered columns: any of A00..A63, or exactly 64 of another name, from 0 or from 1."""
    groups: dict[tuple[str, str], dict[int, Any]] = {}
    names: list[Any] = list(table.columns)
    for name in names:
        if isinstance(name, int | np.integer):
            groups.setdefault(("", ""), {})[int(name)] = name
        elif isinstance(name, str):
            # which number is the band's isn't known yet: A00_p10, 2018_A00
            for match in _NUMBER.finditer(name):
                groups.setdefault((name[: match.start()], name[match.end() :]), {})[int(match[0])] = name
    found = []
    for (prefix, suffix), members in groups.items():
        order = sorted(members)
        ours = prefix == "A" and order[-1] < N_BANDS and all(str(name)[1:3].isdigit() for name in members.values())
        if not ours and order not in (list(range(N_BANDS)), list(range(1, N_BANDS + 1))):
            continue
        columns = table[[members[number] for number in order]]
        numbers = _numbers_of(columns)
        if not np.isfinite(numbers).any() and columns.notna().to_numpy().any():
            continue  # words
        first, last = members[order[0]], members[order[-1]]
        columns_text = f"{first}..{last}" + ("" if len(order) == N_BANDS else f" ({len(order)} of 64 bands)")
        found.append(_vectors(columns_text, _statistic(table, f"{prefix} {suffix}", suffix), numbers))
    return found


def _numbers_of(columns: pd.DataFrame) -> NDArray[np.float64]:
    """Return columns as numbers; NaN for words. Texts may have a decimal comma."""
    if all(isinstance(dtype, np.dtype) and dtype.kind in "fiu" for dtype in columns.dtypes):
        return columns.to_numpy(np.float64, copy=True)

    def parse(column: pd.Series[Any]) -> pd.Series[Any]:
        if not pd.api.types.is_numeric_dtype(column):
            column = column.where(
                ~column.astype(str).str.fullmatch(r"\s*[-+]?\d+,\d+\s*"), column.astype(str).str.replace(",", ".")
            )
        return pd.to_numeric(column, errors="coerce")

    return columns.apply(parse).to_numpy(np.float64, na_value=np.nan)


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
    """Return a list of numbers, also one written as text: "[0.1, 0.2]", "{0.1,0.2}", "[0.1 0.2]", "0.1 0.2"."""
    try:
        if isinstance(cell, str):
            if not _TEXT_OF_NUMBERS.fullmatch(cell):
                return None
            cell = cell.replace("null", "nan").strip("[](){} \t\n").replace(",", " ").replace(";", " ").split()
        if not isinstance(cell, list | tuple | np.ndarray):
            return None
        return np.array([np.nan if v is None else v for v in cell], np.float64)
    except (TypeError, ValueError):
        return None


def _statistic(table: pd.DataFrame, name: str, suffix: str) -> str:
    """Say which statistic columns hold: by their names, else (A00 alone) by the provenance."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word and not word.isdigit()]
    suffix = "" if suffix.strip("_ ").isdigit() else suffix  # a year
    known = next((w for w in words if w in ("mean", "medoid") or is_spread(w)), None)
    if known is not None or suffix:
        return known or suffix.strip("_ ").lower()
    said = str(dict(table.attrs.get("provenance", {})).get("statistics", ""))
    return said if said and "," not in said else "mean"


def _years_asked(table: pd.DataFrame) -> frozenset[int]:
    """Years that the provenance says were asked for, if it does."""
    said = str(dict(table.attrs.get("provenance", {})).get("years", ""))
    return frozenset(int(year) for year in said.split(",") if year.strip().isdigit())


def _vectors(columns: str, statistic: str, numbers: NDArray[np.float64]) -> Vectors:
    words = re.split(r"[^a-z]+", columns.lower())
    infinite = np.isinf(numbers)
    return Vectors(
        columns=columns,
        statistic=statistic,
        matrix=np.where(infinite, np.nan, numbers) if infinite.any() else numbers,
        infinite=np.asarray(infinite.any(axis=1)),
        unit=any(w in ("unit", "normalized", "normalised", "l2", "unitmean") for w in words),
    )


def _years(column: pd.Series[Any]) -> NDArray[np.int64]:
    """Years out of numbers, dates or text that begins with a year; -1 where there is none."""
    if pd.api.types.is_datetime64_any_dtype(column):
        years = column.dt.year
    elif pd.api.types.is_numeric_dtype(column) and column.notna().any() and column.abs().min() > _EPOCH_MS:
        years = pd.to_datetime(column, unit="ms").dt.year
    else:
        years = pd.to_numeric(column.astype(str).str.extract(r"^\s*(\d{4})", expand=False), errors="coerce")
    found: NDArray[np.int64] = years.fillna(-1).to_numpy(np.int64)
    return found
