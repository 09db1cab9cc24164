"""Checks against a reference table: order and signs of bands, rows mixed up, and how means were made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, N_BANDS
from gee_polygons.audit.findings import Finding, span
from gee_polygons.audit.table import AuditedTable, blocks
from gee_polygons.audit.values import MEAN_OF_NODATA, UNIT
from gee_polygons.embeddings.directional import normalize
from gee_polygons.errors import UsageError

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Positions = NDArray[np.intp]
Result = tuple[list[Finding], Mask]  # findings, and the pairs that they explain

AGREES: Final = 0.99995  # cosine; half a degree. Rounding to float16 or three decimals stays above
LENGTH_AGREES: Final = 0.002
# Cosine of a difference to the reference. Measured: 0.83..1 for zeros averaged in; 0.15..0.72 for codes averaged first,
# which lose much the same from every band
_ALONG_REFERENCE: Final = 0.8
_LARGE: Final = 0.05  # components whose sign is beyond doubt
_REPAIRED: Final = 0.97  # cosine of rows to the reference, once their bands are in order
_FAR_BETTER: Final = 0.25  # squared distance, as a fraction of the distance before
_MOST_DISORDERS: Final = 3  # a table put together from parts may have more than one
_PAIRS_AT_ONCE: Final = 100_000  # of a million, with all that is computed of them, they would take gigabytes
_MOST_COMPARED: Final = 20_000
_MOST_ORDERED: Final = 4_000  # rows that tell the order of bands
_MOST_LOOKED_UP: Final = 5_000  # rows searched for elsewhere in the reference; further ones are reported as different
_IN_ORDER: Final = np.arange(N_BANDS)
_AS_WORDS: Final = np.array(sorted(range(N_BANDS), key=str))
KNOWN_ORDERS: Final = (
    ("in order", _IN_ORDER),
    ("backwards: A63 first", _IN_ORDER[::-1]),
    ("sorted as words: 0, 1, 10, 11, ...", _AS_WORDS),
    ("sorted as words: 0, 1, 10, 11, ...", np.argsort(_AS_WORDS)),
    ("moved by one", np.roll(_IN_ORDER, 1)),
    ("moved by one", np.roll(_IN_ORDER, -1)),
)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows of a table in pairs with vectors that they should have: their positions, both vectors, and unit vectors.

    `explained` says which rows have a finding of their own already.
    """

    rows: Positions
    given: Floats
    truth: Floats
    unit: Floats
    unit_truth: Floats
    explained: Mask

    @classmethod
    def of(cls, rows: Positions, given: Floats, truth: Floats, explained: Mask) -> Pairs:
        """Return pairs of some rows."""
        return cls(rows, given, truth, _unit(given), _unit(truth), explained)

    def only(self, chosen: Mask) -> Pairs:
        """Return some of the pairs."""
        return Pairs(**{name: a[chosen] for name, a in vars(self).items()})

    @property
    def cosine(self) -> Floats:
        """Cosine of each pair."""
        return _dot(self.unit, self.unit_truth)

    @property
    def length_ratio(self) -> Floats:
        """Length of the row's vector over that of what it should be."""
        return np.asarray(np.linalg.norm(self.given, axis=1) / np.linalg.norm(self.truth, axis=1))

    @property
    def along_truth(self) -> Floats:
        """Part of each difference that is a multiple of what it should be, 0..1."""
        return np.abs(_dot(_unit(self.given - self.truth), self.unit_truth))


def reference_findings(
    table: AuditedTable, reference: AuditedTable, usable: Mask, explained: Mask
) -> tuple[list[Finding], str]:
    """Compare the rows that both tables have; return findings, and what was compared.

    Parameters
    ----------
    table, reference : AuditedTable
        Joined by site and year, else row by row where they have the same length.
    usable : bool array
        Rows of `table` whose direction means something.
    explained : bool array
        Rows that have a finding of their own, which explains a difference.
    """
    if not (table.vectors.whole and reference.vectors.whole):
        raise UsageError("a comparison with a reference needs all 64 bands in both tables")
    rows, reference_rows, how = _joined(table, reference)
    compared = f"compared with a reference {how}: {len(rows):,} rows"
    missing = _missing_rows(table, reference, how)
    both = usable[rows] & reference.complete[reference_rows]
    rows, reference_rows = rows[both], reference_rows[both]
    found: list[Finding] = []
    for start in range(0, len(rows), _PAIRS_AT_ONCE):
        some, others = rows[start : start + _PAIRS_AT_ONCE], reference_rows[start : start + _PAIRS_AT_ONCE]
        given, truth = table.vectors.of_rows(some), reference.vectors.of_rows(others)
        found += _findings_of_pairs(table, reference, Pairs.of(some, given, truth, explained[some]))
        del given, truth  # before the next ones are read
    return [*table.merged(found), *missing], compared


def _findings_of_pairs(table: AuditedTable, reference: AuditedTable, pairs: Pairs) -> list[Finding]:
    ratio = pairs.length_ratio
    differs = (pairs.cosine < AGREES) | ((np.abs(ratio - 1) > LENGTH_AGREES) & (ratio < 1.5))
    found, hit = band_disorders(table, pairs, differs)
    pairs = pairs.only(differs & ~hit)
    for check in (partial(_mixed_up, reference), nodata_averaged, _other_length, _mean_of_codes):
        more, hit = check(table, pairs)
        found += more
        pairs = pairs.only(~hit)
    # rows in other units, or scaled to length 1, differ in length for a reason that has its own finding
    pairs = pairs.only((pairs.cosine < AGREES) & ~pairs.explained)
    return found + table.findings(
        "differs_from_reference", pairs.rows, {"cosine": span(pairs.cosine, ".4f", median=True)}
    )


def _joined(table: AuditedTable, reference: AuditedTable) -> tuple[Positions, Positions, str]:
    """Return the positions of the rows that both tables have, and how they were joined."""
    if table.site is None or reference.site is None:
        if table.n_rows != reference.n_rows:
            raise UsageError(
                "the reference can't be joined: a table has no site column (site_id, rid, fid, id, ...), and they have "
                f"{table.n_rows} and {reference.n_rows} rows"
            )
        rows = np.arange(table.n_rows)
        return rows, rows, "row by row"
    names = ["site"] if table.year is None or reference.year is None else ["site", "year"]
    left, right = (
        pd.DataFrame({"site": t.site, "year": t.year, "row": np.arange(t.n_rows)}) for t in (table, reference)
    )
    both = left.merge(right.drop_duplicates(names), on=names, suffixes=("", "_reference"))
    if both.empty:
        raise UsageError(f"the reference has none of the table's rows (joined by {' and '.join(names)})")
    how = "by " + " and ".join(names)
    return both["row"].to_numpy(np.intp), both["row_reference"].to_numpy(np.intp), how


def _missing_rows(table: AuditedTable, reference: AuditedTable, how: str) -> list[Finding]:
    if table.site is None or reference.site is None:
        return []
    names = ["site", "year"] if "year" in how else ["site"]
    keys, wanted = (
        pd.MultiIndex.from_frame(pd.DataFrame({n: getattr(t, n) for n in names})) for t in (table, reference)
    )
    if not len(missing := wanted.difference(keys)):
        return []
    examples = ", ".join(" ".join(map(str, key)) for key in missing[:3])
    return [table.finding("rows_missing", np.zeros(0, np.intp), {"rows": len(missing), "such as": examples})]


def _unit(m: Floats) -> Floats:
    """Return vectors of length 1, and 0 where the length is 0."""
    units = np.empty_like(m)
    for at in blocks(len(m)):
        units[at] = np.nan_to_num(normalize(m[at]))
    return units


def _dot(a: Floats, b: Floats) -> Floats:
    """Return the dot product of each row of `a` with that row of `b`."""
    return np.asarray(np.einsum("ij,ij->i", a, b))


def band_disorders(table: AuditedTable, pairs: Pairs, differs: Mask, repaired_cosine: float = _REPAIRED) -> Result:
    """Check for bands that are in another place, or have the other sign, in most of the pairs that differ."""
    found: list[Finding] = []
    explained, left, cosine = np.zeros(len(pairs.rows), np.bool_), differs.copy(), pairs.cosine
    for _ in range(_MOST_DISORDERS):
        if not left.any():
            break
        order, sign = _order_of(pairs.unit[left], pairs.unit_truth[left])
        if (order == _IN_ORDER).all() and (sign > 0).all():
            break
        back = np.argsort(order)
        repaired = np.take(pairs.unit, back, axis=1)
        repaired *= sign[back]
        now = _dot(repaired, pairs.unit_truth)
        # most of the difference goes away; rows that hardly differ (two bands alike) are in the same disorder
        better = (now > repaired_cosine) & (1 - now < 0.5 * (1 - cosine)) & (cosine < 1 - 1e-9)
        better &= ~explained
        if not (better & left).any():
            break
        code, disorder, bands = _disorder(order, sign)
        evidence = {
            "bands": bands,
            "cosine as it is": float(np.median(cosine[better])),
            "cosine when repaired": float(np.median(now[better])),
        }
        found += table.findings(code, pairs.rows[better], evidence, disorder=disorder)
        explained |= better
        left &= ~better
    return found, explained


def _order_of(unit: Floats, truth: Floats) -> tuple[Positions, Floats]:
    """Return which reference band each band holds, and with which sign: what most of the rows agree with."""
    step = -(-len(unit) // _MOST_ORDERED)
    unit, truth = unit[::step], truth[::step]
    scores = [np.median(_dot(unit, truth[:, order])) for _, order in KNOWN_ORDERS]
    order = KNOWN_ORDERS[int(np.argmax(scores))][1]
    in_order = bool((order == _IN_ORDER).all())
    if max(scores) < _REPAIRED or in_order:
        squares = (unit * unit).sum(axis=0)[:, None] + (truth * truth).sum(axis=0)[None]
        distance = squares - 2 * np.abs(unit.T @ truth)
        # a band stays where it is unless another place fits far better
        own = np.diagonal(distance) if in_order else np.full(N_BANDS, np.inf)
        order = np.where(distance.min(axis=1) < _FAR_BETTER * own, distance.argmin(axis=1), _IN_ORDER)
        if len(np.unique(order)) < N_BANDS:
            order = _IN_ORDER
    ordered = truth[:, order]
    minus, plus = ((unit + ordered) ** 2).sum(axis=0), ((unit - ordered) ** 2).sum(axis=0)
    return order, np.where(minus < _FAR_BETTER * plus, -1.0, 1.0)


def _disorder(order: Positions, sign: Floats) -> tuple[str, str, str]:
    """Return the code of a disorder, its description, and examples of bands."""
    moved, flipped = np.flatnonzero(order != _IN_ORDER), np.flatnonzero(sign < 0)
    if not len(moved):
        return "band_sign", f"{len(flipped)} band(s) have the other sign", ", ".join(BANDS[i] for i in flipped[:5])
    bands = ", ".join(f"{BANDS[i]} holds {BANDS[order[i]]}" for i in moved[:3])
    known = next((name for name, known in KNOWN_ORDERS if (known == order).all()), None)
    return "band_order", f"bands are {known}" if known else f"{len(moved)} bands are in another place", bands


def _mixed_up(reference: AuditedTable, table: AuditedTable, pairs: Pairs) -> Result:
    """Check for rows that hold the vector of another year or site."""
    pool = np.flatnonzero(reference.complete)[:_MOST_COMPARED]
    pool_unit = _unit(reference.vectors.of_rows(pool))
    hit = np.zeros(len(pairs.rows), np.bool_)
    examples = []
    for i in np.flatnonzero(pairs.cosine < AGREES)[:_MOST_LOOKED_UP].tolist():
        cosine = pool_unit @ pairs.unit[i]
        best = int(np.argmax(cosine))
        if cosine[best] > AGREES:
            hit[i] = True
            examples.append(f"{table.label(pairs.rows[i])} holds {reference.label(pool[best])}")
    evidence = {"such as": "; ".join(examples[:3])}
    return table.findings("rows_mixed_up", pairs.rows[hit], evidence), hit


def nodata_averaged(table: AuditedTable, pairs: Pairs, least_cosine: float = 1.0) -> Result:
    """Check for rows that are what they should be plus a share of a constant, and little else.

    Vectors of other years differ anyhow (`least_cosine` below 1): then the constant is negative, as nodata is, and the
    row agrees with them without it.
    """
    values, truth = pairs.given, pairs.truth
    mean, truth_mean = values.mean(axis=1), truth.mean(axis=1)
    v, t = values - mean[:, None], truth - truth_mean[:, None]
    kept = _dot(v, t) / _dot(t, t)
    constant = mean - kept * truth_mean
    rest = np.linalg.norm(v - kept[:, None] * t, axis=1)
    if least_cosine == 1:
        hit = (rest < 0.2 * N_BANDS**0.5 * np.abs(constant)) & (np.abs(constant) > 1e-3) & (kept > 0) & (kept < 1)
    else:
        hit = (rest < 0.6 * N_BANDS**0.5 * -constant) & (constant < -0.02) & (kept > 0) & (kept < 1.2)
        hit &= (_dot(_unit(v), _unit(t)) > least_cosine) & ~pairs.explained
    share = 1 - kept[hit] if least_cosine == 1 else constant[hit] / MEAN_OF_NODATA
    evidence: dict[str, Any] = {"share of nodata": span(share, ".1%")}
    if len(share):
        evidence["constant"] = float(np.median(constant[hit] / share))
    truth_of = "the reference's" if least_cosine == 1 else "their other years'"
    how = f"rows are {truth_of} plus a share of a constant"
    return table.findings("nodata_averaged", pairs.rows[hit], evidence, how=how), hit


def _other_length(table: AuditedTable, pairs: Pairs) -> Result:
    """Check for rows that have the reference's direction, and are shorter or longer."""
    ratio = pairs.length_ratio
    hit = (pairs.along_truth > _ALONG_REFERENCE) & (np.abs(ratio - 1) > LENGTH_AGREES) & ~pairs.explained
    # a row scaled to length 1 has a finding of its own, and the reference may be of unit means
    for vectors in (pairs.given, pairs.truth):
        hit &= np.abs(np.linalg.norm(vectors, axis=1) - 1) > UNIT
    evidence = {"length over the reference's": span(ratio[hit], ".3f", median=True)}
    return table.findings("length_differs", pairs.rows[hit], evidence), hit


def _mean_of_codes(table: AuditedTable, pairs: Pairs) -> Result:
    """Check for means of codes, de-quantised afterwards: (mean k)^2 is below the mean of k^2, in every band."""
    values, truth, cosine, ratio = pairs.given, pairs.truth, pairs.cosine, pairs.length_ratio
    large = (np.abs(truth) > _LARGE) & (np.sign(truth) == np.sign(values))
    shrunk = ((np.abs(values) < np.abs(truth)) & large).sum(axis=1) / np.maximum(large.sum(axis=1), 1)
    # a vector that is merely shorter keeps its direction
    hit = (shrunk > 0.93) & (large.sum(axis=1) >= 8) & (cosine > 0.93) & (cosine < 1 - 1e-7)
    along_signs = np.abs(_dot(_unit(values - truth), np.sign(truth))) / N_BANDS**0.5
    hit &= (ratio > 0.5) & (ratio < 0.999) & (along_signs > pairs.along_truth)
    evidence = {
        "cosine": span(cosine[hit], ".4f"),
        "length over the reference's": span(ratio[hit], ".3f"),
        "components that shrank": span(shrunk[hit], ".0%"),
    }
    return table.findings("mean_of_codes", pairs.rows[hit], evidence), hit
