"""Checks of single rows: units, lengths, nodata, missing bands, and rounding."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.audit.findings import Finding, span
from gee_polygons.audit.table import AuditedTable, Vectors, blocks
from gee_polygons.embeddings.quantization import MAX_CODE, SCALE

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Kinds = NDArray[np.str_]

# Measured on 12,000 real pixels of five regions: lengths 0.992..1.009; with k / 127 instead, 2.43..2.69; means over a
# square kilometre keep 0.8 of that. Cosine to the vector of equal components: -0.27..0.33.
MEAN_OF_NODATA: Final = -128 * 128 / SCALE  # -1.0079: -128 de-quantised without a mask; -128 / 127 is the same to 1e-5
# rounding to codes can lengthen a pixel's vector by sqrt(sum (|k| + 1/4)^2) / 127.5^2 <= 0.0223
LONGEST: Final = 1.0225
SHORTEST: Final = 0.25
LINEAR: Final = (1.5, 2.9)  # lengths of codes divided by 127
CODES: Final = (150.0, 2048.0)  # lengths of 64 codes of -128..127, or of 0..255 where int8 was read as uint8
LEAST_COSINE: Final = -0.5  # to equal components; below it nodata was averaged in
UNIT: Final = 5e-6  # deviation of a length from 1: six decimals of a CSV
PLAUSIBLE: Final = "plausible"  # the kind of a row in which nothing is wrong by itself
_MOST_DESCRIBED: Final = 50_000  # rows whose values are looked at for the evidence
_DESCRIBED: Final = (
    "nodata_as_value", "raw_codes", "linear_dequantisation", "unknown_scale", "longer_than_one", "implausibly_short",
    "sign_lost",
)  # fmt: skip
_DIVISORS: Final = (127.0, 127.5, 128.0)
# Shares of components below 2 % of the vector's length, medians over tables of the points' scenes that AEF.md lists
# and of squares of a real window: 11-16 % for means of vectors, 20-28 % for de-quantised means of codes where lengths
# are below 0.93
_SMALL: Final = 0.02
_MANY_SMALL: Final = 0.19
_MIXED: Final = 0.94
_MOST_ZEROS: Final = 10  # of a pixel's 64 codes one is 0, on average
_LEAST_VALUES: Final = 8  # fewer may be round by chance


def row_figures(vectors: Vectors) -> pd.DataFrame:
    """Return what each row shows by itself; a row with a missing band counts as 0 throughout.

    `cosine` is that to equal components; `length_as_codes` the length of the vector if the values are codes; `on_codes`
    says whether every component is the value of a code, as in a single pixel.
    """
    return pd.concat([_figures_of_block(vectors.of_rows(at)) for at in blocks(len(vectors.matrix))], ignore_index=True)


def _figures_of_block(m: Floats) -> pd.DataFrame:
    complete = np.asarray(np.isfinite(m).all(axis=1))
    m = np.where(complete[:, None], m, 0.0)
    squares = m * m
    length = np.sqrt(squares.sum(axis=1))
    codes = np.clip(np.rint(np.sqrt(np.abs(m)) * 127.5), 0, MAX_CODE)
    low, high = m.min(axis=1), m.max(axis=1)
    with np.errstate(over="ignore"):
        float16 = (m.astype(np.float16).astype(np.float64) == m).all(axis=1)
    return pd.DataFrame(
        {
            "complete": complete,
            "low": low,
            "high": high,
            "largest": np.maximum(-low, high),
            "length": length,
            "cosine": np.divide(m.sum(axis=1), length * N_BANDS**0.5, out=np.zeros(len(m)), where=length > 0),
            "length_as_codes": np.sqrt((squares * squares).sum(axis=1)) / SCALE,
            "integers": (m == np.rint(m)).all(axis=1),
            "float16": float16,
            "three_decimals": (np.abs(m * 1000 - np.rint(m * 1000)) < 1e-6).all(axis=1),
            "on_codes": (np.abs(codes * codes / SCALE - np.abs(m)) <= 1e-6).all(axis=1),
        }
    )


def kinds_of_rows(vectors: Vectors, figures: pd.DataFrame) -> Kinds:
    """Return for each row the code of the first check that it fails, else `PLAUSIBLE`; "" where bands are missing."""
    largest, length, low = (figures[name].to_numpy() for name in ("largest", "length", "low"))
    incomplete = ~figures["complete"].to_numpy()
    filled = figures["high"].to_numpy() - low <= 1e-6 * np.maximum(largest, 1e-12)
    if vectors.matrix.shape[1] < 4:
        filled = largest == 128
    if not vectors.whole:
        # the length says nothing here; a component above 1 does
        kinds = {"nodata_as_value": filled, "raw_codes": (largest > 2) & (largest <= 255)}
        kinds["unknown_scale"] = largest > LONGEST
    else:
        # int8 codes read as uint8 have a cosine near 1: they are codes
        pulled = figures["cosine"].to_numpy() < LEAST_COSINE
        # what the codes stand for must be about as long as a vector: sums of vectors, or vectors times 1000, are not
        as_codes = figures["length_as_codes"].to_numpy()
        signed = (length >= CODES[0]) & (as_codes > 0.4) & (as_codes < 1.06)
        unsigned = (length >= CODES[0]) & (length <= CODES[1]) & (low >= 0)
        integers = figures["integers"].to_numpy() & (largest >= 2) & (as_codes < 1.2)
        codes = (integers | signed | unsigned) & (largest <= 255)
        long = (length > LONGEST) & (length <= LINEAR[1])
        # the table's other long rows tell whether a length of 1.2 is a mixed polygon divided by 127
        others = length[long & ~incomplete & ~filled & ~pulled & ~codes]
        shortest_linear = LONGEST if len(others) and np.median(others) >= LINEAR[0] else LINEAR[0]
        kinds = {
            "nodata_as_value": filled,
            "nodata_averaged": pulled,
            "raw_codes": codes,
            "linear_dequantisation": long & (length >= shortest_linear),
            "unknown_scale": length > LINEAR[1],
            "longer_than_one": long,
            "implausibly_short": length < SHORTEST,
            "sign_lost": low >= 0,
        }
    return np.select([incomplete, *kinds.values()], ["", *kinds], default=PLAUSIBLE)


def value_findings(table: AuditedTable, vectors: Vectors, figures: pd.DataFrame, kinds: Kinds) -> list[Finding]:
    """Check each row by itself."""
    missing = np.isnan(vectors.matrix).sum(axis=1)
    partial = ((missing > 0) & (missing < vectors.matrix.shape[1])) | vectors.infinite
    found = table.findings("partial_rows", partial, {"bands missing": span(missing[partial], "d")})
    for code in _DESCRIBED:
        rows = kinds == code
        if rows.any():
            evidence, words = _described(code, vectors.of_rows(np.flatnonzero(rows)[:_MOST_DESCRIBED]), figures[rows])
            if vectors.whole and code != "nodata_as_value":
                evidence["length"] = _length_text(figures["length"][rows])
            if code == "unknown_scale" and vectors.whole and "n_pixels" in table.numbers:
                per_pixel = figures["length"][rows] / table.numbers["n_pixels"][rows]
                evidence["length per pixel"] = float(per_pixel.median())
            found += table.findings(code, rows, evidence, **words)
    found += _rounded(table, vectors, figures, kinds)
    if vectors.whole:
        found += [*_nodata_averaged(table, vectors, kinds), *_unit_lengths(table, vectors, figures, kinds)]
        found += [*_zero_bands(table, vectors, kinds), *_mean_of_codes(table, vectors, figures, kinds)]
    return found


def _described(code: str, m: Floats, figures: pd.DataFrame) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the evidence for a kind of rows, and the words of its message."""
    low, high = figures["low"].min(), figures["high"].max()
    if code == "nodata_as_value":
        values = ", ".join(f"{v:g}" for v in np.unique(m[:, 0].round(4))[:4])
        return {"value in every band": values}, {"values": values}
    if code == "raw_codes":
        how = "int8 codes read as uint8" if low >= 0 else "codes were not de-quantised"
        return {"values": span([low, high])}, {"how": how}
    if code == "linear_dequantisation":
        # single pixels show the divisor, means don't
        whole = [f"{d:g}" for d in _DIVISORS if (np.abs(m * d - np.rint(m * d)) < 0.02).all(axis=1).any()]
        divisor = whole[0] if whole else "127 (or 127.5, or 128)"
        return {"expected": "at most 1; 2.43..2.69 for pixels divided by 127"}, {"divisor": divisor}
    if code == "unknown_scale":
        return {"largest": float(figures["largest"].max())}, {}
    return {}, {"shortest": f"{SHORTEST:g}"}


def _rounded(table: AuditedTable, vectors: Vectors, figures: pd.DataFrame, kinds: Kinds) -> list[Finding]:
    """Check whether values are exactly float16's, or have at most three decimals."""
    found = []
    for name, to in (("float16", "float16"), ("three_decimals", "three decimals or fewer")):
        rows = ((kinds == PLAUSIBLE) & ~figures["integers"] & figures[name]).to_numpy()
        if rows.sum() * vectors.matrix.shape[1] >= _LEAST_VALUES:
            found += table.findings("rounded", rows, to=to)
    return found[:1]


def _nodata_averaged(table: AuditedTable, vectors: Vectors, kinds: Kinds) -> list[Finding]:
    """Check whether vectors are pulled towards equal negative components, which is what averaged nodata does."""
    rows = kinds == "nodata_averaged"
    m = vectors.of_rows(np.flatnonzero(rows)[:_MOST_DESCRIBED])
    length = np.linalg.norm(m, axis=1)
    in_codes = length > CODES[0] / 4
    estimate = np.clip(m.mean(axis=1) / np.where(in_codes, -128.0, MEAN_OF_NODATA), 0, 1)
    towards = "-128" if in_codes.all() else "the code -128" if in_codes.any() else "-1.008 or -1"
    evidence = {
        "share of nodata, about": span(estimate, ".0%"),
        "cosine to equal components": span(m.sum(axis=1) / length / N_BANDS**0.5, ".2f"),
        "real pixels have": "-0.27..0.33",
    }
    return table.findings("nodata_averaged", rows, evidence, how=f"all bands are pulled towards {towards}")


def _zero_bands(table: AuditedTable, vectors: Vectors, kinds: Kinds) -> list[Finding]:
    """Check for bands that are 0 in all rows, and rows with 0 in many bands."""
    zero = (vectors.matrix == 0) & (kinds != "nodata_as_value")[:, None]
    filled = ~np.isnan(vectors.matrix).all(axis=1) & (kinds != "nodata_as_value")
    lost = (zero.sum(axis=0) == filled.sum()) & (filled.sum() >= _LEAST_VALUES)
    rows = (zero.sum(axis=1) >= _MOST_ZEROS) | zero[:, lost].any(axis=1)
    evidence = {"bands that are 0": span(zero[rows].sum(axis=1), "d"), "in all rows": int(lost.sum())}
    return table.findings("zero_bands", rows, evidence)


def _mean_of_codes(table: AuditedTable, vectors: Vectors, figures: pd.DataFrame, kinds: Kinds) -> list[Finding]:
    """Check whether codes were averaged before they were de-quantised, by what that does to small components.

    Pixels of length 1 have ``sum mean^2 + sum std^2 = 1`` where the table has both. Else: a square of a mean has far
    more components near 0 than a mean of squares, which shows in tables of mixed polygons.
    """
    mixed = (kinds == PLAUSIBLE) & (figures["length"] < _MIXED).to_numpy()
    std = next((v for v in table.others if v.statistic == "std" and v.whole), None)
    if std is not None and vectors.statistic == "mean":
        energy = vectors.squares + std.squares
        rows = (
            (kinds == PLAUSIBLE) & (np.abs(energy - 1) > 2 * (LONGEST - 1)) & (float(np.nanmax(std.matrix)) <= LONGEST)
        )
        return table.findings("not_of_unit_pixels", rows, {"sum of mean^2 + std^2": span(energy[rows], ".3f")})
    if vectors.statistic != "mean" or mixed.sum() < max(_LEAST_VALUES, 0.5 * (kinds == PLAUSIBLE).sum()):
        return []
    some = np.flatnonzero(mixed)[:_MOST_DESCRIBED]
    length = figures["length"].to_numpy()[some, None]
    small = float(np.median((np.abs(vectors.of_rows(some)) < _SMALL * length).mean(axis=1)))
    evidence = {"components below 2 % of the length": f"{small:.0%}", "expected": "11 % to 16 %"}
    return table.findings("mean_of_codes", mixed & (small > _MANY_SMALL), evidence)


def _unit_lengths(table: AuditedTable, vectors: Vectors, figures: pd.DataFrame, kinds: Kinds) -> list[Finding]:
    """Check whether vectors have length 1 where they should not, or not where their columns' names promise it."""
    plausible = kinds == PLAUSIBLE
    off = (figures["length"] - 1).abs().to_numpy()
    if vectors.unit:
        rows = plausible & (off > LONGEST - 1)
        return table.findings("not_unit", rows, {"length": _length_text(figures["length"][rows])})
    # a pixel's length is 1 by nature
    exact = plausible & (off <= UNIT) & ~figures["on_codes"].to_numpy()
    by_chance = (plausible & (off > UNIT) & (off <= 100 * UNIT)).sum() / 99
    if not exact.any() or exact.sum() < 0.01 * plausible.sum() or exact.sum() <= 20 * by_chance:
        return []
    kept = "Rbar" in table.numbers and bool((table.numbers["Rbar"][exact] < 1 - 1e-3).any())
    return table.findings(
        "renormalised",
        exact,
        {"length - 1, at most": float(off[exact].max()), "share of rows": f"{exact.sum() / plausible.sum():.0%}"},
        kept=" but for Rbar" if kept else "",
        remedy="multiply by Rbar" if kept else "keep the mean as it is, or store its length as Rbar before scaling",
    )


def _length_text(length: pd.Series[float]) -> str:
    return span(length, ".3g" if length.max() < 1000 else ",.0f", median=True)
