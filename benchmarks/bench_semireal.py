"""Measures change and recovery on real point series with changes put in, beside simple methods in the same run.

`python benchmarks/bench_semireal.py POINTS.npz`: a file with `codes` (scene, year, point, 64), int8, and `years`.
Scenes 0-4 are for tuning, the others are reported apart. Writes SEMIREAL_RESULTS.md; about ten minutes. PELT is
measured where the package ruptures is installed (`pip install ruptures`).
"""

from __future__ import annotations

import argparse
import collections
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.semireal import SHAPES, Case, make_case, read_series, unit_cube  # noqa: E402
from gee_polygons.change import change  # noqa: E402
from gee_polygons.change.background import corrected  # noqa: E402
from gee_polygons.change.series import series_from_table  # noqa: E402
from gee_polygons.change.significance import robust_z, yearly_departures  # noqa: E402
from gee_polygons.change.templates import explained_and_left, log_ratio, paths_over  # noqa: E402
from gee_polygons.errors import DataWarning  # noqa: E402
from gee_polygons.recovery import recovery  # noqa: E402

try:
    import ruptures
except ImportError:
    ruptures = None

LEVEL, FALSE_RATE = 0.1, 0.1
AMOUNTS = (0.25, 0.5)
N_CONTROLS = 20
TUNED = 5  # scenes
THRESHOLD = 0.15  # of 1 - cosine
N_SCORES = 5
EVENTS = ("change, controls: events", "change, all: events")
_MAD = 0.6744897501960817


def by_cosine(units: np.ndarray) -> np.ndarray:
    """Return the largest 1 - cosine to the first year, shape (sites,)."""
    return (1 - np.einsum("ntb,nb->nt", units, units[:, 0])).max(axis=1)


def by_yearly_z(units: np.ndarray) -> np.ndarray:
    """Return the largest robust z of a yearly step, the median step of all sites taken off."""
    steps = np.diff(units, axis=1)
    x = np.linalg.norm(steps - np.median(steps, axis=0), axis=2)
    centre = np.median(x, axis=0)
    return ((x - centre) / np.maximum(np.median(np.abs(x - centre), axis=0) / _MAD, 1e-9)).max(axis=1)


def by_regression(units: np.ndarray) -> np.ndarray:
    """Return the largest departure from a line through the years before it, in PCA scores (as CCDC does with bands).

    Of two years in a row the smaller departure counts, so that a single year is no break; the last year counts alone.
    """
    n, t, _ = units.shape
    flat = units.reshape(-1, units.shape[2])
    axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)[2][:N_SCORES]
    scores, years = units @ axes.T, np.arange(t)
    far = np.zeros((n, t))
    for y in range(3, t):
        design = np.column_stack([np.ones(y), years[:y]])
        weights = np.linalg.lstsq(design, scores[:, :y].transpose(1, 0, 2).reshape(y, -1), rcond=None)[0]
        left = scores[:, :y] - (design @ weights).reshape(y, n, -1).transpose(1, 0, 2)
        size = np.sqrt(np.mean(left**2, axis=1))
        size = np.maximum(size, np.median(size, axis=0))
        ahead = (np.array([1.0, y]) @ weights).reshape(n, -1)
        far[:, y] = np.sqrt(np.mean(((scores[:, y] - ahead) / size) ** 2, axis=1))
    return np.maximum(np.minimum(far[:, :-1], far[:, 1:]).max(axis=1), far[:, -1])


def by_pelt(units: np.ndarray) -> np.ndarray:
    """Return the largest penalty per break at which PELT (Killick et al., 2012) still breaks a site's series in two.

    Cost: squared distance from the segment's mean; the median step of all sites is taken off.
    """
    t = units.shape[1]
    shared = np.concatenate([np.zeros((1, units.shape[2])), np.median(np.diff(units, axis=1), axis=0).cumsum(axis=0)])
    found = np.zeros(len(units))
    for i, x in enumerate(units - shared):
        search = ruptures.Pelt(model="l2", min_size=1, jump=1).fit(x)
        low, high = 0.0, float(np.sum((x - x.mean(axis=0)) ** 2))
        for _ in range(7):
            middle = (low + high) / 2
            low, high = (middle, high) if len(search.predict(pen=middle)) > 1 else (low, middle)
        found[i] = low / t
    return found


def tails(units: np.ndarray, years: np.ndarray) -> dict[str, np.ndarray]:
    """Return the statistics of sites' best paths and largest z, as `change` has them."""
    explained, left = explained_and_left(units, paths_over(len(years)))
    ratio = log_ratio(explained.max(axis=1), left, float(np.median(left)))
    return {"log ratio": ratio, "z": np.nanmax(robust_z(yearly_departures(units, years)), axis=1)}


def add_tails(found: dict[tuple[str, ...], list[float]], case: Case) -> None:
    """Add the figures of a table without changes that `change/significance.py` has as constants, for 3 to 8 years."""
    series = series_from_table(case.table)
    for t in range(3, len(series.years) + 1):
        part = series_from_table(case.table[case.table["year"] < series.years[0] + t])
        for name, values in tails(corrected(part, "all").units, part.years).items():
            median, quartile = np.median(values), np.quantile(values, 0.25)
            found["tail", name, str(t), "excess"].append(float((values[values > median] - median).mean()))
            found["tail", name, str(t), "above_quartile"].append(float(median - quartile))
            found["tail", name, str(t), "median"].append(float(median))


def add_shares(found: dict[tuple[str, ...], list[float]], part: str, case: Case, rng: np.random.Generator) -> None:
    """Add recovery's error of the share, whether the 90 % interval holds it, and its width."""
    names = np.array(case.sites)
    starts = dict(zip(names[case.start > 0], case.start[case.start > 0].tolist(), strict=True))
    for m in (len(case.references), 2):
        references = rng.permutation(case.references)[:m].tolist()
        for words, background in (("controls", case.controls), ("references", "references")):
            rows = recovery(case.table, references=references, start_years=starts, background=background).yearly
            rows = rows[(rows["years_since_start"] >= 0) & rows["share"].notna()]
            if rows.empty:
                continue
            year = rows["year"].to_numpy() - int(case.table["year"].min())
            truth = case.progress[np.searchsorted(names, rows["site_id"].to_list()), year]
            held = (rows["share_low"] - 1e-9 <= truth) & (truth <= rows["share_high"] + 1e-9)
            key = ("recovery", part, words, "2" if m == 2 else "all")
            found[*key, "error"].append(float(np.abs(rows["share"] - truth).mean()))
            found[*key, "holds"].append(float(held.mean()))
            found[*key, "width"].append(float((rows["share_high"] - rows["share_low"]).mean()))


def by_change(case: Case, background: object) -> tuple[np.ndarray, pd.DataFrame]:
    """Return -p, and the rows of sites."""
    sites = change(case.table, background=background, level=LEVEL).sites
    return -sites["p"].to_numpy(), sites


def measured(points: Path, sizes: tuple[int, ...], repeats: int) -> dict[tuple[str, ...], float]:
    """Return the mean of each figure over all tables."""
    found: dict[tuple[str, ...], list[float]] = collections.defaultdict(list)
    vectors, years = read_series(points)
    rng = np.random.default_rng(0)
    plans = [("step", 0.0, 100 + i) for i in range(repeats)] + [(s, a, 7) for s in SHAPES for a in AMOUNTS]
    for scene in range(len(vectors)):
        part = "tuned" if scene < TUNED else "held out"
        for size in sizes:
            for shuffled in (False, True):
                for shape, amount, seed in plans:
                    case = make_case(
                        vectors[scene],
                        years,
                        size=size,
                        shuffled=shuffled,
                        amount=amount,
                        shape=shape,
                        seed=seed,
                        n_controls=N_CONTROLS,
                    )
                    add_figures(found, (part, "shuffled" if shuffled else "as they are"), case, amount)
                    if not amount:
                        add_tails(found, case)
                    elif shape != "one year":
                        add_shares(found, part, case, rng)
        print(f"scene {scene}", flush=True)
    return {key: float(np.mean(values)) for key, values in found.items()}


def add_figures(found: dict[tuple[str, ...], list[float]], where: tuple[str, str], case: Case, amount: float) -> None:
    """Add one table's figures of every method."""
    units = unit_cube(case)
    used = ~np.isin(case.sites, case.controls + (case.references if amount else []))
    true = case.start[used] > 0
    methods = {"1 - cosine": by_cosine, "yearly z": by_yearly_z, "regression": by_regression}
    if ruptures is not None and amount:
        methods["PELT"] = by_pelt
    scores = {name: method(units) for name, method in methods.items()}
    rows = {}
    for name, background in (("change, controls", case.controls), ("change, all", "all")):
        scores[name], rows[name] = by_change(case, background)
    flags = {name: table["flag"].to_numpy()[used] for name, table in rows.items()}
    for name in list(rows):
        scores[f"{name}: events"] = rows[name]["event_z"].fillna(-np.inf).to_numpy()
        flags[f"{name}: events"] = rows[name]["event"].to_numpy()[used]
    flags["1 - cosine"] = scores["1 - cosine"][used] > THRESHOLD
    for name, flag in flags.items():
        if not amount:
            found[*where, name, "null"].append(float(flag.any()))
            continue
        found[*where, name, "fdr"].append((flag & ~true).sum() / max(flag.sum(), 1))
        found[*where, name, "power", case.shape, str(amount)].append(flag[true].mean())
        if name in rows and (flag & true).any():
            start = rows[name]["start"].to_numpy(np.float64, na_value=np.nan)[used]
            found[*where, name, "start"].append((np.abs(start - case.start[used]) <= 1)[flag & true].mean())
    for name, score in scores.items() if amount else ():
        limit = np.quantile(score[used][~true], 1 - FALSE_RATE)
        found[*where, name, "equal", case.shape, str(amount)].append((score[used][true] > limit).mean())


def tables(figures: dict[tuple[str, ...], float]) -> list[str]:
    """Return the tables in Markdown."""
    lines = []
    for part, words in (("tuned", "Scenes 0-4, for tuning"), ("held out", "Scenes held out")):
        lines += ["", f"## {words}", ""]
        lines += [f"At the level of {LEVEL:.0%}:", ""]
        cells = [f"{shape} {float(amount):.0%}" for shape in SHAPES for amount in AMOUNTS]
        lines += [
            f"| years | method | tables flagged | false of the flags | start within a year | {' | '.join(cells)} |",
            f"|---|---|---|---|---|{'---|' * len(cells)}",
        ]
        for years in ("as they are", "shuffled"):
            for name in ("change, controls", "change, all", *EVENTS, "1 - cosine"):
                key = (part, years, name)
                head = [figures.get((*key, figure), np.nan) for figure in ("null", "fdr", "start")]
                values = head + [figures.get((*key, "power", s, str(a)), np.nan) for s in SHAPES for a in AMOUNTS]
                lines.append(f"| {years} | {name} | {' | '.join(f'{v:.2f}' for v in values)} |")
        lines += ["", f"Found where {FALSE_RATE:.0%} of the unchanged sites are flagged, by every method alike:", ""]
        lines += [f"| years | method | {' | '.join(cells)} |", f"|---|---|{'---|' * len(cells)}"]
        for years in ("as they are", "shuffled"):
            for name in ("change, controls", "change, all", *EVENTS, "yearly z", "regression", "PELT", "1 - cosine"):
                values = [figures.get((part, years, name, "equal", s, str(a)), np.nan) for s in SHAPES for a in AMOUNTS]
                lines.append(f"| {years} | {name} | {' | '.join(f'{v:.2f}' for v in values)} |")
    lines += ["", "## Recovery", "", "Error of the share, how often the 90 % interval holds it, and its width:", ""]
    lines += ["| scenes | background | references | error | holds | width |", "|---|---|---|---|---|---|"]
    for part in ("tuned", "held out"):
        for words in ("controls", "references"):
            for m in ("all", "2"):
                values = [figures.get(("recovery", part, words, m, f), np.nan) for f in ("error", "holds", "width")]
                lines.append(f"| {part} | {words} | {m} | {' | '.join(f'{v:.3f}' for v in values)} |")
    lines += ["", "## Constants of tails", "", "Sites without a put-in change, all scenes, background `all`:", ""]
    lines += ["| statistic | years | mean excess over the median | median less lower quartile | median |"]
    lines += ["|---|---|---|---|---|"]
    for name in ("log ratio", "z"):
        for t in range(3, 9):
            values = [figures.get(("tail", name, str(t), f), np.nan) for f in ("excess", "above_quartile", "median")]
            lines.append(f"| {name} | {t} | {' | '.join(f'{v:.2f}' for v in values)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 20], help="points of a site")
    parser.add_argument("--repeats", type=int, default=2, help="tables without a change, per scene, size and order")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks" / "SEMIREAL_RESULTS.md")
    given = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)
    figures = measured(given.points, tuple(given.sizes), given.repeats)
    lines = [
        "# Change and recovery on real point series with changes put in",
        "",
        f"Points of a scene that are alike make sites of {' and '.join(map(str, given.sizes))} points; {N_CONTROLS}",
        "sites are controls (a third, where there are fewer than 60); a quarter of the others is mixed with another",
        "cover of the scene: at once, over four years, or for one year. Years as they are (real changes of the land",
        "then count as false), or each site's departures from the scene's mean in an order of their own (nothing",
        "lasts; real one-year events stay, as events of another year, and count as false).",
        "",
        f"`1 - cosine`: any year more than {THRESHOLD} from the first. `yearly z`: largest robust z of a yearly step",
        "less the median step of all sites. `regression`: as CCDC does, departure from a line through the years",
        "before, in five PCA scores. `PELT`: largest penalty at which squared distances from the segments' means are",
        f"worth a break{'' if ruptures else ' (not measured: ruptures is not installed)'}. `events`: change's test of "
        "single years, `event_z`. Tables flagged: of those without",
        "a change, where anything is flagged.",
        *tables(figures),
    ]
    given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
