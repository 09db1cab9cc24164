"""What single rows give away: their length, their units, and the direction in which they were pulled."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.audit.precision import ROWS_AT_A_TIME, rounded, row_by_row
from gee_polygons.audit.report import Finding
from gee_polygons.audit.table import Audited, Vectors
from gee_polygons.embeddings.quantization import MAX_CODE, SCALE

Mask = NDArray[np.bool_]

# Measured on 12,000 real pixels of five regions: lengths 0.992..1.009; with k / 127 instead, 2.43..2.69; means over a
# square kilometre keep 0.8 of that. Cosine to the vector of equal components: -0.27..0.33.
LONGEST: Final = 1.012
SHORTEST: Final = 0.25
LINEAR: Final = (1.5, 2.9)
CODES: Final = (150.0, 2048.0)  # 64 codes of -128..127, or of 0..255 where int8 was read as uint8
PULLED: Final = -0.5
UNIT: Final = 5e-6  # six decimals of a CSV
FULL: Final = N_BANDS**0.5
FILL_VECTOR: Final = -128 * 128 / SCALE  # -1.0079, what -128 becomes without a mask; -128 / 127 is the same to 1e-5
DIVISORS: Final = (127.0, 127.5, 128.0)
_NEIGHBOURS: Final = 600
_CLOSEST: Final = 8
_AGREEING: Final = 3


def kinds_of_rows(vectors: Vectors) -> dict[str, Mask]:
    """Sort complete rows by what is wrong with them; each row has one kind at most.

    Returns
    -------
    dict of masks: ``filled``, ``pulled``, ``codes``, ``linear``, ``scaled``, ``long``, ``short``, ``sign_lost``.
    """
    shape = _shape_of_rows(vectors.matrix)
    left: Mask = shape.complete.copy()
    kinds: dict[str, Mask] = {}

    def take(name: str, mask: Mask) -> None:
        kinds[name] = mask & left
        np.logical_and(left, ~mask, out=left)

    largest, length = shape.largest, shape.length
    constant = shape.high - shape.low <= 1e-6 * np.maximum(largest, 1e-12)
    take("filled", constant if vectors.matrix.shape[1] >= 4 else largest == 128)
    if not vectors.whole:
        # lengths say nothing here; a component above 1 does
        take("codes", (largest > 2) & (largest <= 255))
        take("scaled", largest > LONGEST)
        return kinds
    # int8 codes read as uint8 point the other way: they are codes
    take("pulled", shape.along < PULLED)
    # what the codes stand for must be about as long as a vector: sums of vectors, or vectors times 1000, are not
    signed = (length >= CODES[0]) & (shape.stands_for > 0.4) & (shape.stands_for < 1.06)
    whole_numbers = shape.whole & (largest >= 2) & (shape.stands_for < 1.2)
    unsigned = (length >= CODES[0]) & (length <= CODES[1]) & (shape.low >= 0)
    take("codes", (whole_numbers | signed | unsigned) & (largest <= 255))
    long = (length > LONGEST) & (length <= LINEAR[1])
    # the table's other long rows say what a mixed polygon of length 1.2 is
    typical = np.median(length[long & left]) if (long & left).any() else 0.0
    take("linear", long & (length >= (LONGEST if typical >= LINEAR[0] else LINEAR[0])))
    take("scaled", length > LINEAR[1])
    take("long", long)
    take("short", length < SHORTEST)
    take("sign_lost", shape.low >= 0)
    return kinds


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """What matters of each row, by itself: a million rows of 64 bands are looked at once, in blocks.

    `along` is the cosine to equal components, `stands_for` the length of the vector if the values are codes, `whole`
    says whether all values are whole numbers. A row with a missing band is 0 throughout.
    """

    complete: Mask
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    length: NDArray[np.float64]
    along: NDArray[np.float64]
    stands_for: NDArray[np.float64]
    whole: Mask

    @property
    def largest(self) -> NDArray[np.float64]:
        """Largest absolute value."""
        return np.maximum(-self.low, self.high)


def _shape_of_rows(m: NDArray[np.float64]) -> _Shape:
    parts: dict[str, list[NDArray[Any]]] = {field.name: [] for field in fields(_Shape)}
    for start in range(0, max(len(m), 1), ROWS_AT_A_TIME):
        part = m[start : start + ROWS_AT_A_TIME]
        complete = np.asarray(np.isfinite(part).all(axis=1))
        part = np.where(complete[:, None], part, 0.0)
        squares = part * part
        length = np.sqrt(squares.sum(axis=1))
        along = np.divide(part.sum(axis=1), length * FULL, out=np.zeros(len(part)), where=length > 0)
        found = {
            "complete": complete,
            "low": part.min(axis=1),
            "high": part.max(axis=1),
            "length": length,
            "along": along,
            "stands_for": np.sqrt((squares * squares).sum(axis=1)) / SCALE,
            "whole": (part == np.rint(part)).all(axis=1),
        }
        for name, values in found.items():
            parts[name].append(values)
    return _Shape(**{name: np.concatenate(values) for name, values in parts.items()})


def value_findings(table: Audited, vectors: Vectors, kinds: dict[str, Mask]) -> list[Finding]:
    """Report each kind of row, and what else lengths and values give away."""
    found = [
        *_filled(table, vectors, kinds["filled"]),
        *_wrong_units(table, vectors, kinds),
        *_wrong_lengths(table, vectors, kinds),
        *_incomplete(table, vectors),
        *rounded(table, vectors, np.any(list(kinds.values()), axis=0)),
    ]
    if vectors.whole:
        good = np.isfinite(vectors.matrix).all(axis=1) & ~np.any(list(kinds.values()), axis=0)
        found += [*_pulled(table, vectors, kinds["pulled"], good), *_renormalised(table, vectors, good)]
    return found


def _filled(table: Audited, vectors: Vectors, rows: Mask) -> list[Finding]:
    if not rows.any():
        return []
    values = sorted({round(float(v), 4) for v in vectors.matrix[rows, 0]})
    names = ", ".join(f"{v:g}" for v in values[:4])
    return [
        table.finding(
            "nodata_as_value",
            "error",
            f"rows filled with one value ({names}): nodata kept as if it were data",
            rows,
            {"value in every band": names},
            "set these rows to NaN; mask code -128 (and the exporter's fill value) before anything else",
        )
    ]


def _wrong_units(table: Audited, vectors: Vectors, kinds: dict[str, Mask]) -> list[Finding]:
    found = []
    if (rows := kinds["codes"]).any():
        part = vectors.matrix[rows]
        unsigned = bool(part.min() >= 0)
        found.append(
            table.finding(
                "raw_codes",
                "error",
                "values in code units: " + ("int8 codes read as uint8" if unsigned else "codes were not de-quantised"),
                rows,
                {"values": f"{part.min():.4g}..{part.max():.4g}", **_lengths(vectors, rows)},
                "de-quantise each pixel, v = sign(k) (k / 127.5)^2, with -128 masked, then average; "
                "a mean of codes can't be mended: extract again",
            )
        )
    if "linear" in kinds and (rows := kinds["linear"]).any():
        found.append(
            table.finding(
                "linear_dequantisation",
                "error",
                f"codes were divided by {_divisor(vectors.matrix[rows])} instead of de-quantised",
                rows,
                {**_lengths(vectors, rows), "expected": "at most 1; 2.43..2.69 for pixels divided by 127"},
                "v = sign(k) (k / 127.5)^2; pixels can be mended, v = sign(x) (x * divisor / 127.5)^2; "
                "for polygons extract again (cosine to the truth 0.97..0.99)",
            )
        )
    if (rows := kinds["scaled"]).any():
        evidence = _lengths(vectors, rows) or {"largest": float(np.abs(vectors.matrix[rows]).max())}
        if vectors.whole and (factor := _power_of_ten(np.linalg.norm(vectors.matrix[rows], axis=1))):
            evidence["as if multiplied by"] = f"{factor:,}"
        if vectors.whole and "n_pixels" in table.numbers:
            ratio = np.linalg.norm(vectors.matrix[rows], axis=1) / table.numbers["n_pixels"][rows]
            evidence["length per pixel"] = float(np.median(ratio))
        found.append(
            table.finding(
                "unknown_scale",
                "error",
                "values are neither vectors nor codes",
                rows,
                evidence,
                "find the factor (a sum instead of a mean? an integer encoding?) and divide by it",
            )
        )
    return found


def _power_of_ten(lengths: NDArray[np.float64]) -> int:
    """Return the power of ten, 10 or more, that makes vectors of these lengths plausible; 0 without one."""
    factor = 10 ** int(np.ceil(np.log10(np.median(lengths) / LONGEST)))
    plausible = (lengths / factor > 0.5) & (lengths / factor <= LONGEST)
    return factor if factor > 1 and plausible.mean() > 0.95 else 0


def _wrong_lengths(table: Audited, vectors: Vectors, kinds: dict[str, Mask]) -> list[Finding]:
    found = []
    for name, code, severity, title, mend in (
        (
            "long",
            "longer_than_one",
            "error",
            "vectors longer than 1: no mean of unit vectors is (Rbar > 1)",
            "look for weights that don't add to 1, nodata averaged in, or a wrong de-quantisation; extract again",
        ),
        (
            "short",
            "implausibly_short",
            "warning",
            f"vectors shorter than {SHORTEST}: hardly any land is so mixed (1 km2: 0.8)",
            "look for values de-quantised twice, divided by an area, or a polygon far too large",
        ),
        (
            "sign_lost",
            "sign_lost",
            "error",
            "no component is negative: the sign was lost when squaring",
            "v = sign(k) (k / 127.5)^2, with the sign; extract again",
        ),
    ):
        rows = kinds.get(name)
        if rows is not None and rows.any():
            found.append(table.finding(code, severity, title, rows, _lengths(vectors, rows), mend))  # type: ignore[arg-type]
    return found


def _pulled(table: Audited, vectors: Vectors, strongly: Mask, good: Mask) -> list[Finding]:
    """Nodata averaged in pulls a vector towards equal negative components."""
    slightly, shares = _pulled_from_neighbours(vectors.matrix, good)
    rows = strongly | slightly
    if not rows.any():
        return []
    part = vectors.matrix[rows]
    in_codes = np.linalg.norm(part, axis=1) > CODES[0] / 4
    fill = np.where(in_codes, -128.0, FILL_VECTOR)
    share = np.where(np.isfinite(shares[rows]), shares[rows], np.clip(part.mean(axis=1) / fill, 0, 1))
    along = part.sum(axis=1) / np.linalg.norm(part, axis=1) / FULL
    return [
        table.finding(
            "nodata_averaged",
            "error",
            "nodata was averaged in: all bands are pulled towards "
            + ("-128" if in_codes.all() else "-1.008 or -1" if not in_codes.any() else "the code -128"),
            rows,
            {
                "share of nodata, about": f"{share.min():.0%}..{share.max():.0%}",
                "cosine to equal components": f"{along.min():.2f}..{along.max():.2f}",
                "real pixels have": "-0.27..0.33",
            },
            "mask code -128 before de-quantising and averaging; extract again",
        )
    ]


def _pulled_from_neighbours(m: NDArray[np.float64], good: Mask) -> tuple[Mask, NDArray[np.float64]]:
    """Find rows that are another row of the table plus a little of a constant, and how much.

    With the mean over the bands taken out, such a row points where its neighbour does; real change goes into one
    direction of 64 no more than into the others.
    """
    pulled, share = np.zeros(len(m), np.bool_), np.full(len(m), np.nan)
    rows = np.flatnonzero(good)
    if len(rows) < 2:
        return pulled, share
    some = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _NEIGHBOURS)).astype(np.intp))]
    # in a larger table more is alike by chance
    agreeing = min(_AGREEING + max(0, int(np.log10(len(rows) / 1000))), len(rows) - 1)
    level_of_some, length_of_some, unit_of_some = _centred(m[some])
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        part = rows[start : start + ROWS_AT_A_TIME]
        level, length, unit = _centred(m[part])
        shift = ((level / length)[:, None] - (level_of_some / length_of_some)[None]) * FULL
        apart = np.sqrt(np.maximum(2 - 2 * (unit @ unit_of_some.T), 0))
        # pulled down by more than 1 % of nodata, and by more than everything else that differs
        hit = (shift < -0.08) & (apart < 1.5 * np.abs(shift)) & (apart < 0.35)
        # of many neighbours one or the other lies that way by chance: several of the closest must
        at = np.flatnonzero(hit.sum(axis=1) >= agreeing)
        nearest = np.argsort(apart[at], axis=1)[:, : _CLOSEST + 1]  # and the row itself
        at = at[np.take_along_axis(hit[at], nearest, axis=1).sum(axis=1) >= agreeing]
        closest = np.where(hit[at], apart[at], np.inf).argmin(axis=1)
        where = part[at]
        pulled[where] = True
        # t = (1 - f) r + f c: the centred length shrinks by 1 - f, the level is r's share plus f c
        usual = level_of_some[closest] / length_of_some[closest]
        share[where] = np.clip((level[at] - usual * length[at]) / FILL_VECTOR, 0, 1)
    return pulled, share


def _centred(m: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return each row's mean over the bands, and length and direction of what is left without it."""
    level = m.mean(axis=1)
    centred = m - level[:, None]
    length = np.linalg.norm(centred, axis=1)
    return level, length, centred / length[:, None]


def _renormalised(table: Audited, vectors: Vectors, good: Mask) -> list[Finding]:
    length = np.where(good, row_by_row(lambda m: np.linalg.norm(m, axis=1), vectors.matrix), 0.0)
    off = np.abs(length - 1)
    exact = good & (off <= UNIT) & ~row_by_row(_on_codes, vectors.matrix)
    by_chance = float((good & (off > UNIT) & (off <= 100 * UNIT)).sum()) / 99
    if vectors.unit:
        rows = good & (off > 0.012)
        if rows.any():
            return [
                table.finding(
                    "not_unit",
                    "error",
                    "vectors that are said to be unit are not: they are means, shorter than 1",
                    rows,
                    _lengths(vectors, rows),
                    "divide each by its length before cosines, dot products and nearest neighbours",
                )
            ]
        return []
    if not exact.any() or exact.sum() < 0.01 * good.sum() or exact.sum() <= 20 * by_chance:
        return []
    kept = "Rbar" in table.numbers and bool((table.numbers["Rbar"][exact] < 1 - 1e-3).any())
    return [
        table.finding(
            "renormalised",
            "warning",
            "vectors were scaled to length 1: how mixed a polygon is, is lost" + (" but for Rbar" if kept else ""),
            exact,
            {"length - 1, at most": float(off[exact].max()), "share of rows": f"{exact.sum() / good.sum():.0%}"},
            "multiply by Rbar" if kept else "keep the mean as it is, or store its length as Rbar before scaling",
        )
    ]


def _incomplete(table: Audited, vectors: Vectors) -> list[Finding]:
    finite = np.isfinite(vectors.matrix)
    partly = finite.any(axis=1) & ~finite.all(axis=1) & ~vectors.infinite
    found = []
    if partly.any():
        found.append(
            table.finding(
                "partial_rows",
                "error",
                "rows in which some bands are missing: a pixel has all 64 or none",
                partly,
                {"bands missing": f"{(~finite[partly]).sum(axis=1).min()}..{(~finite[partly]).sum(axis=1).max()}"},
                "treat the whole row as missing; look for a read that failed, or a mask applied band by band",
            )
        )
    if vectors.infinite.any():
        found.append(
            table.finding(
                "infinite",
                "error",
                "infinite values",
                vectors.infinite,
                {},
                "look for a division by an empty area or by n_pixels = 0; set these rows to NaN",
            )
        )
    return found


def _lengths(vectors: Vectors, rows: Mask) -> dict[str, Any]:
    if not vectors.whole:
        return {}
    length = np.linalg.norm(vectors.matrix[rows], axis=1)
    low, high, middle = (
        f"{v:.3g}" if v < 1000 else f"{v:,.0f}" for v in (length.min(), length.max(), np.median(length))
    )
    return {"length": f"{low}..{high} (median {middle})"}


def _divisor(part: NDArray[np.float64]) -> str:
    """Say what codes were divided by: single pixels show it, means don't."""
    for divisor in DIVISORS:
        k = part * divisor
        if (np.abs(k - np.rint(k)) < 0.02).all(axis=1).any():
            return f"{divisor:g}"
    return "127 (or 127.5, or 128)"


def _on_codes(m: NDArray[np.float64]) -> Mask:
    """Whether every component is the value of a code: a pixel's, whose length is 1 by nature."""
    k = np.clip(np.rint(np.sqrt(np.abs(np.nan_to_num(m))) * 127.5), 0, MAX_CODE)
    found: Mask = (np.abs(k * k / SCALE - np.abs(m)) <= 1e-6).all(axis=1)
    return found
