"""Checks of rows against each other: duplicates, missing years, copies, and changes that land doesn't make."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import EMBEDDING_YEARS
from gee_polygons.audit.findings import Finding, span
from gee_polygons.audit.own_years import FEWEST_SITES, own_year_findings
from gee_polygons.audit.table import AuditedTable, Vectors, blocks
from gee_polygons.embeddings.similarity import angular_distance_deg

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Positions = NDArray[np.intp]

# Real angles between years: median 13 degrees, 5 % above 26; to other land cover in another region: 80..104
BLIP_DEG: Final = 45.0  # there and back again within three rows
LEAP_DEG: Final = 78.0  # further than any change of land cover in one place
APART_DEG: Final = 30.0  # median of all sites between a year and the others
_TIMES_USUAL: Final = 3.0
_FEWEST_STEPS: Final = 10


def row_findings(table: AuditedTable, usable: Mask) -> list[Finding]:
    """Check sites and years, and compare the `usable` rows of each site over the years."""
    if table.site is None:
        return []
    year = np.full(table.n_rows, -1) if table.year is None else table.year
    keys = pd.DataFrame({"site": pd.factorize(table.site)[0], "year": year})
    frames = (pd.DataFrame(table.vectors.matrix[block]) for block in blocks(table.n_rows))
    vector = np.concatenate([pd.util.hash_pandas_object(frame, index=False) for frame in frames])
    found = _duplicates(table, keys, vector)
    if table.year is None:
        return found
    found += [*_missing_years(table, keys), *_copies(table, keys.assign(vector=vector)[usable])]
    early = (year >= 0) & (year < EMBEDDING_YEARS.start)
    found += table.findings(
        "years_before_data", early, {"years": span(year[early], "d")}, first=str(EMBEDDING_YEARS[0])
    )
    if table.vectors.whole and table.vectors.statistic in ("mean", "medoid"):
        more, explained = own_year_findings(table, keys[usable & (year >= 0)])
        found += [*more, *_jumps(table, keys[usable & ~explained & (year >= 0)])]
    return found


def _duplicates(table: AuditedTable, keys: pd.DataFrame, vector: NDArray[np.uint64]) -> list[Finding]:
    # without a year a site may well have several rows: then only identical ones are duplicates
    rows = (keys if table.year is not None else keys.assign(vector=vector)).duplicated(keep=False)
    evidence = {"keys that occur more than once": len(keys[rows].drop_duplicates())}
    return table.findings("duplicate_rows", rows, evidence, year=" and year" if table.year is not None else "")


def _missing_years(table: AuditedTable, keys: pd.DataFrame) -> list[Finding]:
    """Check whether sites lack years that other sites have, or that all sites skip."""
    with_year = keys[keys["year"] >= 0]
    present = set(with_year["year"].tolist())
    nowhere = set(range(min(present, default=0), max(present, default=0))) - present
    if table.years_asked:
        nowhere &= table.years_asked
    elif 2 * len(nowhere) >= len(present):  # every second year, or a few chosen ones
        nowhere = set()
    years, names = np.array(sorted(present | nowhere), np.int64), pd.factorize(np.asarray(table.site))[1]
    has = np.zeros((len(names), len(years)), np.bool_)
    has[with_year["site"], np.searchsorted(years, with_year["year"])] = True
    n_years = has.sum(axis=1)
    missing: Mask = ~has & (n_years > 0)[:, None]
    sites = np.flatnonzero(missing.any(axis=1))
    examples = [f"{names[i]}: {', '.join(map(str, years[missing[i]][:3]))}" for i in sites[:3]]
    evidence = {
        "rows missing": int(missing.sum()),
        "such as": "; ".join(examples),
        "sites": f"{len(sites)} of {(n_years > 0).sum()}",
    }
    if nowhere:
        evidence["missing for every site"] = ", ".join(map(str, sorted(nowhere)))
    words = {"first": str(min(present, default="")), "last": str(max(present, default=""))}
    return table.findings("missing_years", missing.sum(axis=1)[keys["site"]] > 0, evidence, **words)


def _copies(table: AuditedTable, keys: pd.DataFrame) -> list[Finding]:
    """Check for the same vector in two years of a site, and in many sites of a year."""
    if len(keys) < 2 or table.vectors.matrix.shape[1] < 2:
        return []
    distinct = keys.drop_duplicates()
    in_two_years = distinct.duplicated(["site", "vector"], keep=False)
    n_sharing = distinct.groupby(["year", "vector"])["site"].transform("nunique")
    many = n_sharing >= max(3, 0.02 * distinct["site"].nunique())
    sites = {"sites": distinct[in_two_years]["site"].nunique()}
    sharing = {"sites that share one": int(n_sharing.max())}
    return [
        *table.findings("same_in_two_years", distinct.index[in_two_years], sites),
        *table.findings("same_for_many_sites", distinct.index[many], sharing),
    ]


def _jumps(table: AuditedTable, keys: pd.DataFrame) -> list[Finding]:
    """Check for years that differ from all others in every site, and for rows that don't belong to their site."""
    keys = keys.drop_duplicates().sort_values(["site", "year"], kind="stable")
    rows, site, year = keys.index.to_numpy(), keys["site"].to_numpy(), keys["year"].to_numpy()
    if len(rows) < 2:
        return []
    same_site = site[1:] == site[:-1]
    step = np.where(same_site, _angles(table.vectors, rows[1:], rows[:-1]), np.nan)
    usual = float(np.nanmedian(step)) if same_site.sum() >= _FEWEST_STEPS else 0.0
    apart, at_least = _years_apart(step, year)
    evidence = {"angle, at least": f"{at_least:.0f} degrees", "usual angle": f"{usual:.0f} degrees"}
    found = table.findings("year_apart", rows[np.isin(year, apart)], evidence, years=", ".join(map(str, apart)))
    wrong = _misplaced(table.vectors, rows, step, usual) & ~np.isin(year, apart) & ~np.isin(year - 1, apart)
    angle = np.fmax(np.append(np.nan, step), np.append(step, np.nan))[wrong]
    evidence = {"angle": f"{span(angle, '.0f')} degrees", "usual angle": f"{usual:.0f} degrees"}
    return found + table.findings("jump", rows[wrong], evidence)


def _misplaced(vectors: Vectors, rows: Positions, step: Floats, usual: float) -> Mask:
    """Return which rows differ from both neighbours while these agree, and which differ more than land can change."""
    blip, leap = max(BLIP_DEG, _TIMES_USUAL * usual), max(LEAP_DEG, _TIMES_USUAL * usual)
    wrong = np.zeros(len(rows), np.bool_)
    across = _angles(vectors, rows[2:], rows[:-2])
    # a step to another site is NaN, so that a comparison with it is false
    wrong[1:-1] = (step[:-1] > blip) & (step[1:] > blip) & (across < 0.5 * np.minimum(step[:-1], step[1:]))
    # where a blip explains a leap, the blip is what is wrong
    leaps = np.flatnonzero(step > leap)
    wrong[leaps[~wrong[leaps] & ~wrong[leaps + 1]] + 1] = True
    return wrong


def _angles(vectors: Vectors, rows: Positions, others: Positions) -> Floats:
    """Return the angles between rows, a block at a time."""
    pairs = ((vectors.of_rows(rows[at]), vectors.of_rows(others[at])) for at in blocks(len(rows)))
    return np.concatenate([angular_distance_deg(*pair) for pair in pairs])


def _years_apart(step: Floats, year: NDArray[np.int64]) -> tuple[list[int], float]:
    """Return the years in which most sites are further from both their neighbours in time than ever else."""
    after, before = np.append(np.nan, step), np.append(step, np.nan)
    nearer = pd.Series(np.fmin(np.where(np.isnan(after), before, after), np.where(np.isnan(before), after, before)))
    by_year = nearer.groupby(year).agg(["median", "size"])
    by_year = by_year[by_year["size"] >= FEWEST_SITES]
    least = max(APART_DEG, _TIMES_USUAL * float(by_year["median"].min())) if len(by_year) > 2 else np.inf
    return by_year.index[by_year["median"] > least].tolist(), least
