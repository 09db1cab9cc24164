"""Finds the columns of vectors, sites and years in a table, ours or someone else's."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS, NODATA
from gee_polygons.audit.checks import ERRORS, WARNINGS
from gee_polygons.audit.findings import Finding
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import UsageError

Positions = NDArray[np.intp]

# compared without case and punctuation; the first of them that the table has is used
SITE_COLUMNS: Final = (
    "siteid", "site", "rid", "featureid", "fieldid", "plotid", "polygonid", "parcelid", "fid", "id", "objectid",
    "globalid", "uuid",
)  # fmt: skip
# these may instead name the kind of a site, or number the rows of each export: used only if they distinguish rows
PERHAPS_SITE_COLUMNS: Final = ("feature", "field", "plot", "polygon", "parcel", "systemindex", "name")
YEAR_COLUMNS: Final = (
    "year", "yr", "imageyear", "time", "date", "datetime", "timestart", "systemtimestart", "timestamp",
)  # fmt: skip
_PER_BAND: Final = ("std", "min", "max", "count", "var", "median", "mode", "sum")
_UNIT: Final = re.compile(r"(?<![a-z])(unit|unitmean|normali[sz]ed|l2)(?![a-z])")
_NUMBER: Final = re.compile(r"(?<!\d)\d{1,3}(?!\d)")
_TEXT_OF_NUMBERS: Final = re.compile(r"[\[({]?[-+.\deE,;\s]*[\])}]?|.*\bnan\b.*", re.DOTALL)
_DECIMAL_COMMA: Final = r"(\d),(\d)"
_MOST_DUPLICATES: Final = 0.1
_EPOCH_MS: Final = 1e11  # numbers beyond this are milliseconds since 1970, as Earth Engine writes times
_BLOCK_ROWS: Final = 8_192
_EXAMPLES: Final = 5  # rows that a finding names


@dataclass(frozen=True, kw_only=True, eq=False)
class Vectors:
    """Vectors found in a table.

    Parameters
    ----------
    columns : str
        Where they were found, as messages say it.
    statistic : str
        ``"mean"``, ``"medoid"``, ``"std"``, ...: what the columns' names or the provenance say.
    matrix : float32 or float64 array, shape (rows, bands)
        Values, NaN where missing; float32 where the table's columns are no wider: a million rows of float64 take
        512 MB. Checks calculate with `of_rows`.
    infinite : bool array, shape (rows,)
        Rows that held infinities (NaN in `matrix`).
    """

    columns: str
    statistic: str
    matrix: NDArray[np.floating[Any]]
    infinite: NDArray[np.bool_]

    @classmethod
    def of(cls, columns: str, statistic: str, values: NDArray[np.floating[Any]]) -> Vectors:
        """Return vectors with infinities replaced by NaN."""
        infinite: NDArray[np.bool_] = np.isinf(values)
        matrix = np.where(infinite, np.nan, values) if infinite.any() else values
        return cls(columns=columns, statistic=statistic, matrix=matrix, infinite=np.asarray(infinite.any(axis=1)))

    def of_rows(self, rows: Any) -> NDArray[np.float64]:
        """Return the vectors of some rows."""
        return np.asarray(self.matrix[rows], np.float64)

    @property
    def squares(self) -> NDArray[np.float64]:
        """Squared length of each row's vector."""
        some = (self.of_rows(at) for at in blocks(len(self.matrix)))
        return np.concatenate([np.einsum("ij,ij->i", m, m) for m in some])

    @property
    def whole(self) -> bool:
        """Whether all 64 bands are there, so that lengths mean something."""
        return int(self.matrix.shape[1]) == N_BANDS

    @property
    def unit(self) -> bool:
        """Whether the columns' names promise vectors of length 1."""
        return _UNIT.search(self.columns.lower()) is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditedTable:
    """A table as the checks see it: vectors and their keys as arrays, one element per row."""

    n_rows: int
    vectors: Vectors
    others: tuple[Vectors, ...]
    site: NDArray[Any] | None
    year: NDArray[np.int64] | None
    numbers: dict[str, NDArray[np.float64]]
    years_asked: frozenset[int]

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Rows with a value in every band."""
        return np.asarray(np.isfinite(self.vectors.matrix).all(axis=1), np.bool_)

    def label(self, row: int) -> str:
        """Return the name of a row: its site and year, else its position."""
        name = str(self.site[row]) if self.site is not None else f"row {row}"
        return name if self.year is None or self.year[row] < 0 else f"{name} {self.year[row]}"

    def findings(self, code: str, rows: Any, evidence: dict[str, Any] | None = None, **words: str) -> list[Finding]:
        """Return the finding of a check in a list; an empty list if it concerns no row.

        Parameters
        ----------
        code : str
            The check: a key of `ERRORS` or `WARNINGS`.
        rows : bool array, shape (rows,), or int array
            The rows concerned, as a mask or as positions.
        evidence : dict, optional
            The figures that show it.
        words : str
            For the places in the title and the remedy.
        """
        rows = np.asarray(rows)
        at = np.flatnonzero(rows) if rows.dtype == np.bool_ else np.sort(rows)
        return [self.finding(code, at, evidence or {}, **words)] if len(at) else []

    def merged(self, findings: list[Finding]) -> list[Finding]:
        """Return one finding where several parts of the table have the same, with the evidence of most rows."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in sorted(findings, key=lambda f: -len(f.rows)):
            groups.setdefault((finding.code, finding.title), []).append(finding)
        return [self._joined(same) for same in groups.values()]

    def _joined(self, findings: list[Finding]) -> Finding:
        at = np.unique(np.concatenate([finding.rows for finding in findings])).astype(np.intp)
        return replace(
            findings[0], rows=tuple(at.tolist()), examples=tuple(self.label(row) for row in at[:_EXAMPLES].tolist())
        )

    def finding(self, code: str, at: Positions, evidence: dict[str, Any], **words: str) -> Finding:
        """Return the finding of a check for the rows at some positions."""
        title, remedy = (ERRORS | WARNINGS)[code]
        return Finding(
            code=code,
            severity="error" if code in ERRORS else "warning",
            title=title.format(**words),
            rows=tuple(at.tolist()),
            evidence=evidence,
            mend=remedy.format(**words),
            examples=tuple(self.label(row) for row in at[:_EXAMPLES].tolist()),
        )


def table_to_audit(table: pd.DataFrame) -> AuditedTable:
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
    found = [*_numbered_columns(table), *_list_columns(table)]
    if not found:
        raise UsageError(
            "no embedding vectors in the table: neither columns A00..A63 (or 64 numbered ones, such as emb_0..emb_63), "
            f"nor a column of lists of 64 numbers; it has {', '.join(map(str, table.columns[:8]))}"
        )
    found.sort(key=lambda v: (_rank(v.statistic), not v.whole))
    year = _first_column(table, YEAR_COLUMNS)
    site = _first_column(table, SITE_COLUMNS)
    if site is None and (perhaps := _first_column(table, PERHAPS_SITE_COLUMNS)) is not None:
        keys = [perhaps] if year is None else [perhaps, year]
        site = perhaps if table.duplicated(keys, keep=False).mean() < _MOST_DUPLICATES else None
    provenance = dict(table.attrs.get("provenance", {}))
    return AuditedTable(
        n_rows=len(table),
        vectors=found[0],
        others=tuple(found[1:]),
        site=None if site is None else _names(table[site]),
        year=None if year is None else _years(table[year]),
        numbers={
            name: np.asarray(_numbers(table[[name]])[:, 0], np.float64)
            for name in ("Rbar", "n_pixels", "valid_fraction")
            if name in table
        },
        years_asked=frozenset(int(y) for y in str(provenance.get("years", "")).split(",") if y.strip().isdigit()),
    )


def blocks(n_rows: int) -> list[slice]:
    """Return slices of some thousand rows (at least one): copies of a million vectors would take gigabytes."""
    return [slice(start, start + _BLOCK_ROWS) for start in range(0, max(n_rows, 1), _BLOCK_ROWS)]


def is_per_band(statistic: str) -> bool:
    """Whether a statistic describes each band by itself, so that a row of its values isn't a vector."""
    return statistic in _PER_BAND or re.fullmatch(r"p\d+", statistic) is not None


def _rank(statistic: str) -> int:
    """Return the order of statistics: an audit is mainly about the first one."""
    return {"mean": 0, "medoid": 2}.get(statistic, 3 if is_per_band(statistic) else 1)


def _first_column(table: pd.DataFrame, known: tuple[str, ...]) -> Any:
    """Return the column with the first of some names, whatever its case and punctuation; None without one."""
    plain = {re.sub(r"[\W_]+", "", str(name)).lower(): name for name in reversed(list(table.columns))}
    return next((plain[name] for name in known if name in plain), None)


def _numbered_columns(table: pd.DataFrame) -> list[Vectors]:
    """Return groups of numbered columns: any of A00..A63, or exactly 64 of another name, from 0 or from 1."""
    groups: dict[tuple[str, str], dict[int, Any]] = {}
    for column in table.columns:
        if isinstance(column, int | np.integer | str):
            # it isn't known yet which number is the band's: A00_p10, 2018_A00
            for match in _NUMBER.finditer(str(column)):
                prefix, suffix = str(column)[: match.start()], str(column)[match.end() :]
                groups.setdefault((prefix, suffix), {})[int(match[0])] = column
    found = []
    for (prefix, suffix), members in groups.items():
        order = sorted(members)
        ours = prefix == "A" and order[-1] < N_BANDS and all(str(name)[1:3].isdigit() for name in members.values())
        if not ours and order not in (list(range(N_BANDS)), list(range(1, N_BANDS + 1))):
            continue
        columns = table[[members[number] for number in order]]
        is_code = table.attrs.get("units") == "code" or {str(dtype).lower() for dtype in columns.dtypes} == {"int8"}
        numbers = _decoded(_numbers(columns)) if is_code else _numbers(columns)
        if not np.isfinite(numbers).any() and columns.notna().to_numpy().any():
            continue  # words
        where = f"{columns.columns[0]}..{columns.columns[-1]}"
        where += "" if len(order) == N_BANDS else f" ({len(order)} of 64 bands)"
        where += " (int8 codes, decoded for the checks)" if is_code else ""
        found.append(Vectors.of(where, _statistic(table, f"{prefix} {suffix}", suffix), numbers))
    return found


def _numbers(columns: pd.DataFrame) -> NDArray[np.floating[Any]]:
    """Return columns as numbers; NaN for words. Texts may have a decimal comma."""
    if all(isinstance(dtype, np.dtype) and dtype.kind in "fiu" for dtype in columns.dtypes):
        exact: Any = np.float32 if np.can_cast(np.result_type(*columns.dtypes), np.float32) else np.float64
        return columns.to_numpy(exact, copy=True)

    def parse(column: pd.Series[Any]) -> pd.Series[Any]:
        if not pd.api.types.is_numeric_dtype(column):
            column = column.astype(str).str.replace(_DECIMAL_COMMA, r"\1.\2", regex=True)
        return pd.to_numeric(column, errors="coerce")

    return columns.apply(parse).to_numpy(np.float64, na_value=np.nan)


def _decoded(codes: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the vectors of codes that are declared as such: by their type int8, or ``attrs["units"]``."""
    missing = ~np.isfinite(codes)
    plain = np.where(missing, NODATA, codes).clip(NODATA, -NODATA - 1)
    return codes_to_vectors(plain.astype(np.int8), np.float64)


def _list_columns(table: pd.DataFrame) -> list[Vectors]:
    """Return the columns whose cells are lists of 64 numbers, also written as text in a CSV."""
    found = []
    for name in table.columns:
        column = table[name]
        if column.dtype != object and not isinstance(column.dtype, pd.StringDtype | pd.ArrowDtype):
            continue
        cells = column.dropna()
        if not len(cells) or _vector(cells.iloc[0]) is None:
            continue
        numbers = np.full((len(column), N_BANDS), np.nan)
        for row, cell in enumerate(column):
            if (values := _vector(cell)) is not None:
                numbers[row] = values
        found.append(Vectors.of(f"the lists of {str(name)!r}", _statistic(table, str(name), ""), numbers))
    return found


def _vector(cell: Any) -> NDArray[np.float64] | None:
    """Return a list of 64 numbers, also one written as text: "[0.1, 0.2]", "{0.1,0.2}", "[0.1 0.2]", "0.1 0.2"."""
    try:
        if isinstance(cell, str):
            if not _TEXT_OF_NUMBERS.fullmatch(cell):
                return None
            cell = re.sub(r"[\[\](){},;]", " ", cell.replace("null", "nan")).split()
        if not isinstance(cell, list | tuple | np.ndarray) or len(cell) != N_BANDS:
            return None
        return np.array([np.nan if v is None else v for v in cell], np.float64)
    except (TypeError, ValueError):
        return None


def _statistic(table: pd.DataFrame, name: str, suffix: str) -> str:
    """Return the statistic that columns hold: by their names, else (A00 alone) by the provenance."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word and not word.isdigit()]
    suffix = "" if suffix.strip("_ ").isdigit() else suffix  # a year
    known = next((w for w in words if w in ("mean", "medoid") or is_per_band(w)), None)
    if known is not None or suffix:
        return known or suffix.strip("_ ").lower()
    stated = str(dict(table.attrs.get("provenance", {})).get("statistics", ""))
    return stated if stated and "," not in stated else "mean"


def _names(column: pd.Series[Any]) -> NDArray[Any]:
    """Return names of sites, one object for all rows of a site; 3107 and "3107" are the same site."""
    rows, distinct = pd.factorize(column.astype(str), use_na_sentinel=False)
    return np.asarray(distinct, object)[rows]


def _years(column: pd.Series[Any]) -> NDArray[np.int64]:
    """Return years out of numbers, dates or text that begins with a year; -1 where there is none."""
    rows, distinct = pd.factorize(column, use_na_sentinel=False)
    column = pd.Series(distinct)
    if pd.api.types.is_datetime64_any_dtype(column):
        years = column.dt.year
    elif pd.api.types.is_numeric_dtype(column) and column.notna().any() and column.abs().min() > _EPOCH_MS:
        years = pd.to_datetime(column, unit="ms").dt.year
    else:
        years = pd.to_numeric(column.astype(str).str.extract(r"^\s*(\d{4})", expand=False), errors="coerce")
    found: NDArray[np.int64] = years.fillna(-1).to_numpy(np.int64)[rows]
    return found
