"""Compares sites with their other years and with each other: bands, years and sites mixed up, nodata, lost length."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.audit.findings import Finding, span
from gee_polygons.audit.reference import KNOWN_ORDERS, Pairs, band_disorders, nodata_averaged
from gee_polygons.audit.table import AuditedTable
from gee_polygons.embeddings.directional import normalize

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

FEWEST_SITES: Final = 5  # whose common step is the step of the scene
FEWEST_STEPS: Final = 3
# Cosine of all steps of a site to the scene's. A large part of each year's step is shared by the scene: its mean step
# is 0.48-0.82 times as long as the root mean square step (AEF.md, "Polygon vectors"; 16 scenes), which is what a
# point's own cosine comes to; with years shifted or bands mixed up it is about 0.
_FOLLOWS: Final = 0.5
_FOLLOWS_BETTER: Final = 0.25
_REPAIRED: Final = 0.8  # cosine to the site's other years; real ones have 0.97, 5 % of them below 0.90 (AEF.md)
_NEARER: Final = 0.7  # angle to another site, over that to the own
_MUCH_NEARER: Final = 0.5
_MANY: Final = 6  # sites out of order in one year, which chance doesn't bring about
_LEAST_ANGLE: Final = 0.2  # radians, 11 degrees: swapped sites that are more alike than this aren't seen
_MOST_CANDIDATES: Final = 2_000
_SITES_AT_ONCE: Final = 10_000  # compared with each other: a cube of a million rows would take gigabytes
_SHORTER: Final = 0.88  # length over that in other years; real means over 5 to 60 points have more than 0.9
_SAME_DIRECTION: Final = 0.96


def own_year_findings(table: AuditedTable, keys: pd.DataFrame) -> tuple[list[Finding], Mask]:
    """Check rows against the other years of their sites; return findings, and the rows that they explain.

    Parameters
    ----------
    table : AuditedTable
        The table.
    keys : DataFrame
        `site` (number) and `year` of the rows whose direction means something; its index is the rows' positions.
    """
    keys = keys.drop_duplicates(["site", "year"])
    explained = np.zeros(table.n_rows, np.bool_)
    found: list[Finding] = []
    for _, part in keys.groupby(keys["site"] // _SITES_AT_ONCE):
        found += _findings_of_part(table, part, explained)
    return table.merged(found), explained


def _findings_of_part(table: AuditedTable, keys: pd.DataFrame, explained: Mask) -> list[Finding]:
    """Check some of the sites; mark the rows that are explained."""
    site, n_sites = pd.factorize(keys["site"])[0], keys["site"].nunique()
    years, column = np.unique(keys["year"].to_numpy(), return_inverse=True)
    if len(years) < 2:
        return []
    row = np.full((n_sites, len(years)), -1)
    row[site, column] = keys.index
    units = np.full((n_sites, len(years), table.vectors.matrix.shape[1]), np.nan, np.float32)
    values = table.vectors.of_rows(keys.index)
    units[site, column] = values / np.linalg.norm(values, axis=1, keepdims=True)
    del values
    found: list[Finding] = []
    several = np.flatnonzero(np.sum(row >= 0, axis=1) > 1)
    total = np.nansum(units[several], axis=1)
    for t in range(len(years)):
        here = row[several, t] >= 0
        rows = row[several[here], t]
        if len(rows) < FEWEST_SITES:
            continue
        others = normalize(total[here] - units[several[here], t])
        pairs = Pairs.of(rows, table.vectors.of_rows(rows), others, explained[rows])
        more, hit = band_disorders(table, pairs, np.ones(len(rows), np.bool_), repaired_cosine=_REPAIRED)
        found += more
        explained[rows[hit]] = True
        pairs = pairs.only(~hit)
        more, hit = nodata_averaged(table, pairs, _REPAIRED)
        found += more
        explained[pairs.rows[hit]] = True
    units[(row >= 0) & explained[row]] = np.nan
    for check in (_against_the_scene, _swapped):
        more, at = check(table, units, row, years)
        found += more
        explained[row[at & (row >= 0)]] = True
        units[at] = np.nan
    return [*found, *_shorter(table, units, row)]


def _against_the_scene(
    table: AuditedTable, units: Floats, row: NDArray[np.intp], years: NDArray[np.int64]
) -> tuple[list[Finding], Mask]:
    """Find sites whose steps are the scene's of a year before or after, or with the bands in another order or sign."""
    found: list[Finding] = []
    wrong = np.zeros(row.shape, np.bool_)
    steps = np.diff(units, axis=1)
    steps[:, np.diff(years) != 1] = np.nan
    known = np.isfinite(steps[..., 0])
    if known.any(axis=1).sum() < FEWEST_SITES:
        return found, wrong
    scene = np.zeros(steps.shape[1:], np.float32)
    for t in np.flatnonzero(known.sum(axis=0) >= FEWEST_SITES):
        scene[t] = np.median(steps[known[:, t], t], axis=0)

    np.nan_to_num(steps, copy=False)
    squares = np.einsum("stb,stb->st", steps, steps)

    def cosine(shift: int, expected: Floats) -> NDArray[np.float64]:
        """Return each site's cosine to the scene's steps `shift` years later; -1 with fewer than three steps."""
        at = np.arange(max(0, -shift), len(expected) - max(0, shift))
        other = expected[at + shift]
        both = known[:, at] & other.any(axis=1)
        product = np.einsum("stb,tb->s", steps[:, at], other)
        length = np.sqrt((squares[:, at] * both).sum(axis=1) * (both @ (other**2).sum(axis=1)))
        return np.where(both.sum(axis=1) >= FEWEST_STEPS, product / np.maximum(length, 1e-12), -1.0)

    as_it_is = np.maximum(cosine(0, scene), 0)
    mistakes = [("years_shifted", f"{abs(k)} year too {'late' if k < 0 else 'early'}", k, scene) for k in (-1, 1)]
    mistakes += [("band_order", f"bands are {name}", 0, scene[:, order]) for name, order in KNOWN_ORDERS[1:]]
    mistakes.append(("band_sign", "all bands have the other sign", 0, -scene))
    scores = np.array([cosine(shift, expected) for _, _, shift, expected in mistakes])
    hit = (scores > _FOLLOWS) & (scores > as_it_is + _FOLLOWS_BETTER) & (scores == scores.max(axis=0))
    for (code, how, _, _), sites, score in zip(mistakes, hit, scores, strict=True):
        rows = row[sites]
        evidence = {
            "sites": f"{sites.sum()} of {len(row)}",
            "cosine to other sites' yearly steps": span(as_it_is[sites], ".2f"),
            "when repaired": span(score[sites], ".2f"),
        }
        found += table.findings(code, rows[rows >= 0], evidence, disorder=how)
        wrong |= sites[:, None]
    return found, wrong


def _swapped(
    table: AuditedTable, units: Floats, row: NDArray[np.intp], years: NDArray[np.int64]
) -> tuple[list[Finding], Mask]:
    """Find sites that continue each other's series from one year to the next: in pairs, or in longer circles."""
    wrong = np.zeros(row.shape, np.bool_)
    examples = []
    own = np.arccos(np.clip(np.einsum("stb,stb->st", units[:, 1:], units[:, :-1]), -1, 1))
    for t in range(1, len(years)):
        at = np.flatnonzero(own[:, t - 1] > _LEAST_ANGLE)
        at = at[np.argsort(-own[at, t - 1])][:_MOST_CANDIDATES]
        if len(at) < 2:
            continue
        angle = np.arccos(np.clip(units[at, t] @ units[at, t - 1].T, -1, 1))
        np.fill_diagonal(angle, np.inf)
        nearest = angle.argmin(axis=1)
        ratio = angle.min(axis=1) / own[at, t - 1]
        nearer = _in_circles(ratio < _NEARER, nearest)
        if nearer.sum() < max(_MANY, 0.05 * len(own)):
            # two fields under rotation change places too, though not as exactly, nor once only
            others = np.nan_to_num(np.delete(own[at], [t - 1, *range(t, min(t + 1, own.shape[1]))], axis=1))
            once = others.max(axis=1, initial=0) < _NEARER * own[at, t - 1]
            nearer = _in_circles(nearer & once & (ratio < _MUCH_NEARER), nearest)
        hit = at[nearer]
        new = ~wrong[hit, t - 1]  # back in their places, after a single year
        wrong[hit[new], t] = True
        names = zip(at[nearer][new], at[nearest[nearer]][new], strict=True)
        examples += [f"{table.label(row[a, t])} continues {table.label(row[b, t - 1])}" for a, b in names]
    return table.findings("sites_swapped", row[wrong], {"such as": "; ".join(examples[:3])}), wrong | wrong.any(
        axis=1, keepdims=True
    )


def _in_circles(chosen: Mask, nearest: NDArray[np.intp]) -> Mask:
    """Return which of the chosen sites stand in a circle, each of them nearest to the next."""
    while (left := chosen & chosen[nearest] & np.isin(np.arange(len(chosen)), nearest[chosen])).sum() < chosen.sum():
        chosen = left
    return chosen


def _shorter(table: AuditedTable, units: Floats, row: NDArray[np.intp]) -> list[Finding]:
    """Find rows that have the direction of the site's other years, but are far shorter."""
    length = np.where(row >= 0, np.linalg.norm(table.vectors.of_rows(row), axis=2), np.nan)
    wrong = np.zeros(row.shape, np.bool_)
    some = np.sum(np.isfinite(units[..., 0]), axis=1) >= FEWEST_STEPS
    usual = np.nanmedian(length[some], axis=1, keepdims=True) if some.any() else np.ones((0, 1))
    others = np.nansum(units[some], axis=1, keepdims=True) - np.nan_to_num(units[some])
    cosine = np.sum(units[some] * others, axis=2) / np.maximum(np.linalg.norm(others, axis=2), 1e-12)
    wrong[some] = (length[some] < _SHORTER * usual) & (cosine > _SAME_DIRECTION)
    evidence = {"length over the usual": span((length[some] / usual)[wrong[some]], ".2f")}
    return table.findings("shorter_than_usual", row[wrong], evidence)
