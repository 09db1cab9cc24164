"""Findings of an audit, and the report that holds them."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

Severity = Literal["error", "warning"]

_COLUMNS: Final = 80
_SIGNS: Final = {"error": "✗", "warning": "!"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with a table.

    Parameters
    ----------
    code : str
        Stable name, for programs: ``"linear_dequantisation"``, ...
    severity : {"error", "warning"}
        ``"error"``: the values are wrong. ``"warning"``: something is missing, lost or unlikely.
    title : str
        What is wrong, in one line.
    rows : tuple of int
        Positions of the rows concerned, counted from 0; empty where no row of the table is concerned.
    evidence : mapping of str to number or str
        The figures that show it.
    mend : str
        What to do about it.
    examples : tuple of str
        The first few rows, by site and year.
    """

    code: str
    severity: Severity
    title: str
    rows: tuple[int, ...]
    evidence: Mapping[str, Any]
    mend: str
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = {"rows": self.where, "evidence": self.seen_by, "mend": self.mend}
        lines = [_wrapped(f"{_SIGNS[self.severity]} {self.severity}: {self.title} [{self.code}]", 4)]
        lines += [_wrapped(f"    {name:10}{text}", 14) for name, text in said.items() if text]
        return "\n".join(lines)

    @property
    def where(self) -> str:
        """The number of rows and the first few of them, as text."""
        more = ", ..." if len(self.rows) > len(self.examples) else ""
        return f"{len(self.rows):,}: {', '.join(self.examples)}{more}" if self.rows else ""

    @property
    def seen_by(self) -> str:
        """The evidence as one line of text."""
        return "; ".join(f"{name} {_text(value)}" for name, value in self.evidence.items())


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """Findings of an audit.

    Parameters
    ----------
    findings : tuple of Finding
        Errors first, then warnings.
    n_rows : int
        Rows of the table.
    n_without_data : int
        Rows without any value, which is not a fault.
    vectors : str
        The columns that hold the vectors.
    checked : tuple of str
        What else the table was compared with.
    not_checked : tuple of str
        Mistakes that this table can't show, each with the reason: bands, columns, years or a reference are missing.
    whole : bool
        Whether all 64 bands are there.
    """

    findings: tuple[Finding, ...]
    n_rows: int
    n_without_data: int
    vectors: str
    checked: tuple[str, ...] = field(default=())
    not_checked: tuple[str, ...] = field(default=())
    whole: bool = True

    @property
    def is_clean(self) -> bool:
        """Whether all 64 bands could be checked, and nothing was found."""
        return self.whole and not self.findings

    @property
    def codes(self) -> tuple[str, ...]:
        """The findings' codes, in order."""
        return tuple(finding.code for finding in self.findings)

    @property
    def head(self) -> str:
        """What was audited, in one line."""
        empty = f", {self.n_without_data:,} without data" if self.n_without_data else ""
        rows = f"{self.n_rows:,} row{'' if self.n_rows == 1 else 's'}{empty}"
        return "; ".join([rows, f"vectors in {self.vectors}", *self.checked])

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        if not self.findings:
            return "clean: nothing found" if self.whole else f"nothing found, but not checked for {self.not_checked[0]}"
        number = {s: sum(f.severity == s for f in self.findings) for s in ("error", "warning")}
        return ", ".join(f"{n} {s}{'' if n == 1 else 's'}" for s, n in number.items() if n)

    def __str__(self) -> str:
        unseen = [_wrapped(f"  not checked for {what}", 4) for what in self.not_checked]
        return "\n".join([_wrapped(self.head, 4), *map(str, self.findings), *unseen, _wrapped(self.verdict, 4)])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per finding, with the columns code, severity, title, n_rows, rows, evidence and mend."""
        names = ["code", "severity", "title", "n_rows", "rows", "evidence", "mend"]
        content = [
            (f.code, f.severity, f.title, len(f.rows), list(f.rows), dict(f.evidence), f.mend) for f in self.findings
        ]
        return pd.DataFrame(content, columns=names)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def _wrapped(line: str, indent: int) -> str:
    """Break a line so that it fits a terminal; words, paths and numbers stay whole."""
    return textwrap.fill(line, _COLUMNS, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def span(values: Any, form: str = ".4g", *, median: bool = False) -> str:
    """Return the range of some numbers as text, with their median if wanted; "" without numbers."""
    if not len(values):
        return ""
    text = f"{np.min(values):{form}}..{np.max(values):{form}}"
    return f"{text} (median {np.median(values):{form}})" if median else text
