"""What rows say about each other: doubles, gaps, copies, and steps that land doesn't take."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.audit.report import Finding
from gee_polygons.audit.table import Audited
from gee_polygons.embeddings.similarity import angular_distance_deg

Mask = NDArray[np.bool_]

# Real steps of a year: median 13 degrees, 5 % above 26; other land cover in another region: 80..104
BLIP_DEG: Final = 45.0  # there and back again within three rows
LEAP_DEG: Final = 78.0  # further than any change of land cover in one place
APART_DEG: Final = 30.0  # median of all sites in one step
_TIMES_THE_SCENE: Final = 3.0
_TIMES_OTHER_YEARS: Final = 3.0
_FEWEST_STEPS: Final = 10
_FEWEST_SITES: Final = 5
ROWS_AT_A_TIME: Final = 4_096


def row_findings(table: Audited, sound: Mask) -> list[Finding]:
    """Check keys, and compare the rows of each site (those of `sound` rows) over the years."""
    found: list[Finding] = []
    if table.site is None:
        return found
    found += _duplicates(table)
    if table.year is None:
        return found
    found += [*_gaps(table), *_copies(table, sound)]
    if table.vectors.whole and table.vectors.statistic in ("mean", "medoid"):
        found += _jumps(table, sound)
    return found


def _keys(table: Audited) -> pd.DataFrame:
    assert table.site is not None
    year = table.year if table.year is not None else np.full(table.n_rows, -1)
    return pd.DataFrame({"site": pd.factorize(table.site)[0], "year": year})


def _duplicates(table: Audited) -> list[Finding]:
    keys = _keys(table)
    rows = keys.duplicated(keep=False).to_numpy()
    # without a year a site may well have several rows: then only identical ones are doubles
    if table.year is None:
        rows = rows & pd.DataFrame(table.matrix).assign(site=keys["site"]).duplicated(keep=False).to_numpy()
    if not rows.any():
        return []
    n = int(keys[rows].drop_duplicates().shape[0])
    return [
        table.finding(
            "duplicate_rows",
            "error",
            "several rows for one site" + (" and year" if table.year is not None else ""),
            rows,
            {"keys that occur more than once": n},
            "keep one row for each; look for tiles that were reduced one by one, or parts appended twice",
        )
    ]


def _gaps(table: Audited) -> list[Finding]:
    """Years that a site lacks, of those that the table has or jumps over."""
    assert table.site is not None
    keys = _keys(table)
    keys = keys[keys["year"] >= 0].drop_duplicates()
    if keys.empty or keys["year"].nunique() < 2:
        return []
    first, last = int(keys["year"].min()), int(keys["year"].max())
    there = set(keys["year"].tolist())
    nowhere = set(range(first, last + 1)) - there
    if table.years_asked:
        nowhere &= table.years_asked
    elif 2 * len(nowhere) >= len(there):  # every second year, or a few chosen ones
        nowhere = set()
    years = there | nowhere
    has: dict[int, set[int]] = {}
    for site, year in zip(keys["site"].tolist(), keys["year"].tolist(), strict=True):
        has.setdefault(site, set()).add(year)
    lacking = {site: sorted(years - found) for site, found in has.items() if years - found}
    if not lacking:
        return []
    names = pd.factorize(table.site)[1]
    total = sum(map(len, lacking.values()))
    some = [f"{names[site]}: {', '.join(map(str, gaps[:3]))}" for site, gaps in list(lacking.items())[:3]]
    rows = np.isin(pd.factorize(table.site)[0], list(lacking))
    evidence = {"rows missing": total, "such as": "; ".join(some), "sites": f"{len(lacking)} of {len(names)}"}
    if nowhere:
        evidence["missing for every site"] = ", ".join(map(str, sorted(nowhere)))
    return [
        table.finding(
            "missing_years",
            "warning",
            f"years are missing between {first} and {last}",
            rows,
            evidence,
            "keep a row with NaN and a status for each site and year, so that a gap isn't taken for a failure, "
            "nor two years' change for one",
        )
    ]


def _copies(table: Audited, sound: Mask) -> list[Finding]:
    """Return findings on the same vector in two years of a site, or in many sites."""
    keys = _keys(table)
    at = np.flatnonzero(sound)
    if len(at) < 2 or not len(table.matrix.T) >= 2:
        return []
    vector = pd.util.hash_pandas_object(pd.DataFrame(table.matrix[at]), index=False).to_numpy()
    part = keys.iloc[at].assign(vector=vector)
    found = []
    distinct = part.drop_duplicates(["site", "year", "vector"])
    again = distinct.duplicated(["site", "vector"], keep=False)
    if again.any():
        found.append(
            table.finding(
                "same_in_two_years",
                "error",
                "a site has exactly the same vector in two years",
                np.sort(distinct.index[again]),
                {"sites": int(distinct[again]["site"].nunique())},
                "look at the filter of years: the collection has no 'year' property, and the end of filterDate is "
                "exclusive",
            )
        )
    alike = distinct.groupby(["year", "vector"])["site"].transform("nunique")
    many = alike >= max(3, 0.02 * distinct["site"].nunique())
    if many.any():
        found.append(
            table.finding(
                "same_for_many_sites",
                "warning",
                "many sites have exactly the same vector in a year",
                np.sort(distinct.index[many]),
                {"sites that share one": int(alike.max())},
                "reduce at 10 m in the UTM zone's CRS: a mosaic has a default scale of one degree; "
                "if the sites lie in one pixel, this is right",
            )
        )
    return found


def _jumps(table: Audited, sound: Mask) -> list[Finding]:
    assert table.year is not None
    keys = _keys(table)[sound & (table.year >= 0)].drop_duplicates(["site", "year"])
    keys = keys.sort_values(["site", "year"], kind="stable")
    rows, site, year = keys.index.to_numpy(), keys["site"].to_numpy(), keys["year"].to_numpy()
    if len(rows) < 2:
        return []
    follows = site[1:] == site[:-1]
    step = np.where(follows, _angles(table.matrix, rows[1:], rows[:-1]), np.nan)
    found = []
    apart = _years_apart(step, year, follows)
    if apart:
        worst = max(apart, key=lambda y: apart[y][0])
        found.append(
            table.finding(
                "year_apart",
                "warning",
                f"in {', '.join(map(str, sorted(apart)))} all sites step at once, far more than in other years",
                np.sort(rows[np.isin(year, list(apart))]),
                {"median step": f"{apart[worst][0]:.0f} degrees", "other years": f"{apart[worst][1]:.0f} degrees"},
                "compare this year's extraction with the others': band order, de-quantisation, version, footprint",
            )
        )
    usual = float(np.nanmedian(step)) if follows.sum() >= _FEWEST_STEPS else 0.0
    blip, leap = max(BLIP_DEG, _TIMES_THE_SCENE * usual), max(LEAP_DEG, _TIMES_THE_SCENE * usual)
    wrong = np.zeros(len(rows), np.bool_)
    if len(rows) >= 3:
        back = _angles(table.matrix, rows[2:], rows[:-2])
        there_and_back = (step[:-1] > blip) & (step[1:] > blip) & (back < 0.5 * np.fmin(step[:-1], step[1:]))
        wrong[1:-1] |= there_and_back & follows[:-1] & follows[1:]
    far = np.flatnonzero(np.nan_to_num(step) > leap)
    # where a blip explains a leap, the blip is what is wrong
    wrong[[i + 1 for i in far if not wrong[i] and not wrong[i + 1]]] = True
    wrong &= ~np.isin(year, list(apart)) & ~np.isin(year - 1, list(apart))
    if wrong.any():
        at = np.flatnonzero(wrong)
        largest = np.nanmax(np.stack([step[at - 1], step[np.minimum(at, len(step) - 1)]]), axis=0)
        found.append(
            table.finding(
                "jump",
                "warning",
                "steps between years that land doesn't take",
                np.sort(rows[wrong]),
                {"angle": f"{largest.min():.0f}..{largest.max():.0f} degrees", "usual step": f"{usual:.0f} degrees"},
                "look at these rows' pictures: a wrong place, year, band order or a cloud of nodata; else it is news",
            )
        )
    return found


def _angles(m: NDArray[np.float64], rows: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the angles between rows, a block at a time."""
    angle = np.empty(len(rows))
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        part = slice(start, start + ROWS_AT_A_TIME)
        angle[part] = angular_distance_deg(m[rows[part]], m[others[part]])
    return angle


def _years_apart(step: NDArray[np.float64], year: NDArray[np.int64], follows: Mask) -> dict[int, tuple[float, float]]:
    """Years in which the median site steps far more than in other years: the median, and that of the others."""
    steps = pd.DataFrame({"to": year[1:], "from": year[:-1], "step": step})[follows]
    by_pair = steps.groupby(["from", "to"])["step"].agg(["median", "size"])
    medians = by_pair.loc[by_pair["size"] >= _FEWEST_SITES, "median"]
    if len(medians) < 3:
        return {}
    far = {}
    pairs = [(int(before), int(after)) for before, after in medians.index.tolist()]
    for place, ((before, after), median) in enumerate(zip(pairs, medians.to_numpy(), strict=True)):
        usual = float(np.median(np.delete(medians.to_numpy(), place)))
        # of a year that is off, the step to it and the step away from it are both large
        lesser = float(medians.min())
        if median > max(APART_DEG, _TIMES_OTHER_YEARS * min(usual, lesser * 1.5)):
            far[(before, after)] = (float(median), lesser)
    years: dict[int, tuple[float, float]] = {}
    for (before, after), numbers in far.items():
        # the year that both steps share, else the later one (the earlier where the series starts with it)
        shared = before if any(b == before for _, b in far) else after
        if shared == after and before == int(year.min()) and not any(a == after for a, _ in far):
            shared = before
        years[shared] = max(numbers, years.get(shared, numbers))
    return years
