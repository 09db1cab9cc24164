"""What a reference table shows: the order and signs of bands, rows mixed up, and how means were made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, N_BANDS
from gee_polygons.audit.report import Finding
from gee_polygons.audit.table import Audited
from gee_polygons.audit.values import UNIT
from gee_polygons.errors import UsageError

Vectors = NDArray[np.float64]
Rows = NDArray[np.intp]

AGREES: Final = 0.99995  # cosine; half a degree. Rounding to float16 or three decimals stays above
LENGTH_AGREES: Final = 0.002
# Cosine of a difference to the truth. Measured: 0.83..1 for zeros averaged in; 0.15..0.72 for codes averaged first,
# which lose much the same from every band
_ALONG: Final = 0.8
_LARGE: Final = 0.05  # components whose sign is beyond doubt
_ROWS_COMPARED: Final = 20_000
_ROWS_LOOKED_UP: Final = 5_000  # where more than that differ, the rest is told as a difference


def reference_findings(
    table: Audited, reference: Audited, usable: NDArray[np.bool_], wrong: NDArray[np.bool_]
) -> tuple[list[Finding], str]:
    """Compare the rows that both tables have; return findings, and what was compared.

    Parameters
    ----------
    table, reference : Audited
        Joined by site and year, else row by row where they have the same length.
    usable : bool array
        Rows of `table` whose values mean something: not filled, not pulled.
    wrong : bool array
        Rows that have a finding of their own, which explains a difference.
    """
    if not (table.vectors.whole and reference.vectors.whole):
        raise UsageError("a comparison with a reference needs all 64 bands in both tables")
    mine, theirs, how = _joined(table, reference)
    compared = f"compared with a reference {how}: {len(mine):,} rows"
    lacking = _lacking(table, reference, how)
    fine = usable[mine] & reference.complete[theirs]
    mine, theirs = mine[fine], theirs[fine]
    if not len(mine):
        return lacking, compared
    pairs = _Pairs.of(table, reference, mine, theirs)
    cosine, ratio = np.einsum("ij,ij->i", pairs.t, pairs.r), pairs.ratio
    open_rows = np.flatnonzero((cosine < AGREES) | ((np.abs(ratio - 1) > LENGTH_AGREES) & (ratio < 1.5)))
    found: list[Finding] = []
    for check in (_bands, _mixed_up, _pulled, _scaled, _of_codes):
        # a row that has a finding of its own has another length because of it
        asked = open_rows[~wrong[mine[open_rows]]] if check is _scaled else open_rows
        if len(asked):
            finding, explained = check(pairs, asked)
            found += finding
            open_rows = open_rows[~np.isin(open_rows, explained)]
    # rows in other units, or scaled to length 1, differ in length for a reason that has its own finding
    open_rows = open_rows[(cosine[open_rows] < AGREES) & ~wrong[mine[open_rows]]]
    if len(open_rows):
        low = cosine[open_rows]
        found.append(
            table.finding(
                "differs_from_reference",
                "warning",
                "rows differ from the reference, in no way that has a name",
                np.sort(mine[open_rows]),
                {"cosine": f"{low.min():.4f}..{low.max():.4f} (median {np.median(low):.4f})"},
                "look at weights (pixel centres instead of shares), scale (10 m), overlapping tiles, footprints",
            )
        )
    return [*found, *lacking], compared


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Rows that both tables have.

    `mine` are their positions in the table, `t` and `r` the unit vectors of the table and the reference, `ratio` the
    lengths of the former over those of the latter.
    """

    table: Audited
    reference: Audited
    mine: Rows
    t: Vectors
    r: Vectors
    ratio: Vectors

    @classmethod
    def of(cls, table: Audited, reference: Audited, mine: Rows, theirs: Rows) -> _Pairs:
        whole, truth = table.matrix[mine], reference.matrix[theirs]
        ratio = np.linalg.norm(whole, axis=1) / np.linalg.norm(truth, axis=1)
        return cls(table, reference, mine, _unit(whole), _unit(truth), ratio)

    def values(self, rows: Rows) -> tuple[Vectors, Vectors, Vectors]:
        """Return some rows of the table and of the reference as they are, and the ratios of their lengths."""
        whole, ratio = self.table.matrix[self.mine[rows]], self.ratio[rows]
        return whole, self.r[rows] * (np.linalg.norm(whole, axis=1) / ratio)[:, None], ratio

    def along_truth(self, rows: Rows) -> Vectors:
        """Return how much of what differs is a share of the truth, 0..1."""
        whole, truth, _ = self.values(rows)
        along: Vectors = np.abs(np.einsum("ij,ij->i", _unit(whole - truth), self.r[rows]))
        return along


def _joined(table: Audited, reference: Audited) -> tuple[Rows, Rows, str]:
    if table.site is None or reference.site is None:
        if table.n_rows != reference.n_rows:
            raise UsageError(
                "the reference can't be joined: a table has no site column (site_id, rid, fid, id, ...), and they have "
                f"{table.n_rows} and {reference.n_rows} rows"
            )
        rows = np.arange(table.n_rows)
        return rows, rows, "row by row"
    with_year = table.year is not None and reference.year is not None
    names = ["site", "year"] if with_year else ["site"]
    left, right = (
        pd.DataFrame({"site": t.site, "year": t.year if with_year else 0, "row": np.arange(t.n_rows)})
        for t in (table, reference)
    )
    both = left.merge(right.drop_duplicates(names), on=names, suffixes=("", "_reference"))
    if both.empty:
        raise UsageError(f"the reference has none of the table's rows (joined by {' and '.join(names)})")
    how = "by " + " and ".join(names)
    return both["row"].to_numpy(np.intp), both["row_reference"].to_numpy(np.intp), how


def _lacking(table: Audited, reference: Audited, how: str) -> list[Finding]:
    if table.site is None or reference.site is None:
        return []
    years = (table.year, reference.year) if "year" in how else (None, None)
    mine, theirs = (
        set(zip(t.site, y if y is not None else np.zeros(t.n_rows), strict=True))
        for t, y in zip((table, reference), years, strict=True)
        if t.site is not None
    )
    lost = sorted(theirs - mine)
    if not lost:
        return []
    some = ", ".join(" ".join(map(str, key)) for key in lost[:3])
    return [
        table.finding(
            "rows_missing",
            "warning",
            "the reference has rows that the table lacks",
            np.zeros(0, np.intp),
            {"rows": len(lost), "such as": some},
            "extract them, or keep a row with NaN and a status where there is no data",
        )
    ]


def _unit(m: Vectors) -> Vectors:
    length = np.linalg.norm(m, axis=1, keepdims=True)
    unit: Vectors = np.divide(m, length, out=np.zeros_like(m), where=length > 0)
    return unit


def _bands(pairs: _Pairs, rows: Rows) -> tuple[list[Finding], Rows]:
    """Bands that are in another place, or have the other sign."""
    t, r = pairs.t, pairs.r
    found: list[Finding] = []
    explained: list[Rows] = []
    left = rows
    for _ in range(3):  # a table put together from parts may have more than one disorder
        order, sign = _order_of(t[left], r[left])
        if (order == np.arange(N_BANDS)).all() and (sign > 0).all():
            break
        back = np.empty_like(t)
        back[:, order] = t * sign
        better, as_it_is = np.einsum("ij,ij->i", back, r), np.einsum("ij,ij->i", t, r)
        # most of the difference goes away; rows that hardly differ (two bands alike) are in the same disorder
        gain = (better > 0.97) & (1 - better < 0.5 * (1 - as_it_is)) & (as_it_is < 1 - 1e-9)
        mended = np.flatnonzero(gain & ~np.isin(np.arange(len(t)), np.concatenate([[-1], *explained])))
        if not len(np.intersect1d(mended, left)):
            break
        name, code = _name_of(order, sign)
        moved = np.flatnonzero(order != np.arange(N_BANDS))
        example = ", ".join(f"{BANDS[i]} holds {BANDS[order[i]]}" for i in moved[:3])
        flipped = np.flatnonzero(sign < 0)
        evidence = {"cosine as it is": float(np.median(as_it_is[mended]))}
        evidence["cosine when mended"] = float(np.median(better[mended]))
        said = {"bands": example} if len(moved) else {"bands": ", ".join(BANDS[i] for i in flipped[:5])}
        found.append(
            pairs.table.finding(
                code,
                "error",
                name,
                np.sort(pairs.mine[mended]),
                {**said, **evidence},
                "rename the columns (sort bands by number, not by name), or multiply them by -1, and compare again",
            )
        )
        explained.append(mended)
        left = left[~np.isin(left, mended)]
        if not len(left):
            break
    return found, np.concatenate(explained) if explained else np.zeros(0, np.intp)


def _order_of(t: Vectors, r: Vectors) -> tuple[Rows, Vectors]:
    """Which reference band each band holds, and with which sign: what most of the rows agree with."""
    t, r = t[:_ROWS_COMPARED], r[:_ROWS_COMPARED]
    candidates = [*_usual_orders()]
    scores = [np.median(np.einsum("ij,ij->i", t, r[:, order])) for order in candidates]
    best = candidates[int(np.argmax(scores))]
    if max(scores) < 0.97 or (best == np.arange(N_BANDS)).all():
        squares = (t * t).sum(axis=0)[:, None] + (r * r).sum(axis=0)[None]
        product = t.T @ r
        distance = squares - 2 * np.abs(product)
        own = np.diagonal(distance) if (best == np.arange(N_BANDS)).all() else np.full(N_BANDS, np.inf)
        # a band stays where it is unless another place fits far better
        nearest = distance.argmin(axis=1)
        best = np.where(distance.min(axis=1) < 0.25 * own, nearest, np.arange(N_BANDS))
        if len(np.unique(best)) < N_BANDS:
            best = np.arange(N_BANDS)
    at = r[:, best]
    minus, plus = ((t + at) ** 2).sum(axis=0), ((t - at) ** 2).sum(axis=0)
    return best, np.where(minus < 0.25 * plus, -1.0, 1.0)


def _usual_orders() -> list[Rows]:
    """As they are; backwards; sorted as words (0, 1, 10, 11, ..., 2); moved by one."""
    number = np.arange(N_BANDS)
    words = np.array(sorted(range(N_BANDS), key=str))
    return [number, number[::-1].copy(), words, np.argsort(words), np.roll(number, 1), np.roll(number, -1)]


def _name_of(order: Rows, sign: Vectors) -> tuple[str, str]:
    usual = ("", "backwards: A63 first", "sorted as words: 0, 1, 10, 11, ...", "sorted as words: 0, 1, 10, 11, ...",
             "moved by one", "moved by one")  # fmt: skip
    moved = int((order != np.arange(N_BANDS)).sum())
    if not moved:
        return f"{int((sign < 0).sum())} band(s) have the other sign", "band_sign"
    for known, name in zip(_usual_orders()[1:], usual[1:], strict=True):
        if (known == order).all():
            return f"bands are {name}", "band_order"
    return f"{moved} bands are in another place", "band_order"


def _mixed_up(pairs: _Pairs, rows: Rows) -> tuple[list[Finding], Rows]:
    """Rows that hold another row's vector: another year's, or another site's."""
    pool = np.flatnonzero(pairs.reference.complete)[:_ROWS_COMPARED]
    other = _unit(pairs.reference.matrix[pool])
    hits, says = [], []
    for row in rows[:_ROWS_LOOKED_UP]:
        cosine = other @ pairs.t[row]
        best = int(np.argmax(cosine))
        if cosine[best] > AGREES and pairs.t[row] @ pairs.r[row] < AGREES:
            hits.append(row)
            says.append(f"{pairs.table.label(int(pairs.mine[row]))} holds {pairs.reference.label(int(pool[best]))}")
    if not hits:
        return [], np.zeros(0, np.intp)
    return [
        pairs.table.finding(
            "rows_mixed_up",
            "error",
            "rows hold the vector of another site or year",
            np.sort(pairs.mine[hits]),
            {"such as": "; ".join(says[:3])},
            "look at the join, the order of sites, and the filter of years (the end of filterDate is exclusive)",
        )
    ], np.array(hits, np.intp)


def _scaled(pairs: _Pairs, rows: Rows) -> tuple[list[Finding], Rows]:
    """Rows that point where the reference's do, and are shorter or longer: what differs is a share of the truth."""
    whole, truth, ratio = pairs.values(rows)
    hit = (pairs.along_truth(rows) > _ALONG) & (np.abs(ratio - 1) > LENGTH_AGREES)
    # a row scaled to length 1 has a finding of its own, and the reference may be of unit means
    for side in (whole, truth):
        hit &= np.abs(np.linalg.norm(side, axis=1) - 1) > UNIT
    if not hit.any():
        return [], np.zeros(0, np.intp)
    found = ratio[hit]
    return [
        pairs.table.finding(
            "length_differs",
            "error",
            "rows point where the reference's do, but have another length (Rbar)",
            np.sort(pairs.mine[rows[hit]]),
            {"length over the reference's": f"{found.min():.3f}..{found.max():.3f} (median {np.median(found):.3f})"},
            "look for nodata averaged in as 0, a sum divided by the whole area instead of the valid one, or a factor",
        )
    ], rows[hit]


def _of_codes(pairs: _Pairs, rows: Rows) -> tuple[list[Finding], Rows]:
    """Means of codes, de-quantised afterwards: (mean k)^2 is below the mean of k^2, in every band."""
    whole, truth, ratio = pairs.values(rows)
    large = (np.abs(truth) > _LARGE) & (np.sign(truth) == np.sign(whole))
    smaller = (np.abs(whole) < np.abs(truth)) & large
    share = smaller.sum(axis=1) / np.maximum(large.sum(axis=1), 1)
    angle = np.einsum("ij,ij->i", pairs.t[rows], pairs.r[rows])
    # a vector that is merely shorter keeps its direction
    hit = (share > 0.93) & (large.sum(axis=1) >= 8) & (angle > 0.93) & (angle < 1 - 1e-7) & (ratio < 0.999)
    along_signs = np.abs(np.einsum("ij,ij->i", _unit(whole - truth), np.sign(truth))) / N_BANDS**0.5
    hit &= (ratio > 0.5) & (along_signs > pairs.along_truth(rows))
    if not hit.any():
        return [], np.zeros(0, np.intp)
    low = angle[hit]
    return [
        pairs.table.finding(
            "mean_of_codes",
            "error",
            "codes were averaged, then de-quantised: every component is too small",
            np.sort(pairs.mine[rows[hit]]),
            {
                "cosine": f"{low.min():.4f}..{low.max():.4f}",
                "length over the reference's": f"{ratio[hit].min():.3f}..{ratio[hit].max():.3f}",
                "components that shrank": f"{share[hit].mean():.0%}",
            },
            "de-quantise each pixel, then average: extract again",
        )
    ], rows[hit]


def _pulled(pairs: _Pairs, rows: Rows) -> tuple[list[Finding], Rows]:
    """Rows that are the reference's plus a share of a constant: nodata averaged in."""
    whole, truth, _ = pairs.values(rows)
    mean_w, mean_t = whole.mean(axis=1), truth.mean(axis=1)
    w, v = whole - mean_w[:, None], truth - mean_t[:, None]
    kept = np.einsum("ij,ij->i", w, v) / np.einsum("ij,ij->i", v, v)
    constant = mean_w - kept * mean_t
    rest = np.linalg.norm(w - kept[:, None] * v, axis=1)
    hit = (rest < 0.2 * N_BANDS**0.5 * np.abs(constant)) & (np.abs(constant) > 1e-3) & (kept > 0) & (kept < 1)
    if not hit.any():
        return [], np.zeros(0, np.intp)
    share = 1 - kept[hit]
    return [
        pairs.table.finding(
            "nodata_averaged",
            "error",
            "nodata was averaged in: rows are the reference's plus a share of a constant",
            np.sort(pairs.mine[rows[hit]]),
            {
                "share of nodata": f"{share.min():.1%}..{share.max():.1%}",
                "constant": float(np.median(constant[hit] / share)),
            },
            "mask code -128 before de-quantising and averaging; extract again",
        )
    ], rows[hit]
