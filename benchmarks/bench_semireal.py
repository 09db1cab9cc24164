"""Measures change on real point series with changes put in, beside simple methods in the same run.

`python benchmarks/bench_semireal.py POINTS.npz`: a file with `codes` (scene, year, point, 64), int8, and `years`.
Scenes 0-4 are for tuning, the others are reported apart. Writes SEMIREAL_RESULTS.md; about ten minutes.
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
from gee_polygons.errors import DataWarning  # noqa: E402

LEVEL, FALSE_RATE = 0.1, 0.1
AMOUNTS = (0.25, 0.5)
N_CONTROLS = 20
TUNED = 5  # scenes
THRESHOLD = 0.15  # of 1 - cosine
N_SCORES = 5
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


def by_change(case: Case, background: object) -> tuple[np.ndarray, pd.DataFrame]:
    """Return -p, and the rows of sites."""
    sites = change(case.table, background=background, level=LEVEL).sites
    return -sites["p"].to_numpy(), sites


def measured(points: Path, sizes: tuple[int, ...], repeats: int) -> dict[tuple[str, ...], float]:
    """Return the mean of each figure over all tables."""
    found: dict[tuple[str, ...], list[float]] = collections.defaultdict(list)
    vectors, years = read_series(points)
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
        print(f"scene {scene}", flush=True)
    return {key: float(np.mean(values)) for key, values in found.items()}


def add_figures(found: dict[tuple[str, ...], list[float]], where: tuple[str, str], case: Case, amount: float) -> None:
    """Add one table's figures of every method."""
    units = unit_cube(case)
    used = ~np.isin(case.sites, case.controls + (case.references if amount else []))
    true = case.start[used] > 0
    methods = {"1 - cosine": by_cosine, "yearly z": by_yearly_z, "regression": by_regression}
    scores = {name: method(units) for name, method in methods.items()}
    rows = {}
    for name, background in (("change, controls", case.controls), ("change, all", "all")):
        scores[name], rows[name] = by_change(case, background)
    flags = {name: table["flag"].to_numpy()[used] for name, table in rows.items()}
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
            for name in ("change, controls", "change, all", "1 - cosine"):
                key = (part, years, name)
                head = [figures.get((*key, figure), np.nan) for figure in ("null", "fdr", "start")]
                values = head + [figures.get((*key, "power", s, str(a)), np.nan) for s in SHAPES for a in AMOUNTS]
                lines.append(f"| {years} | {name} | {' | '.join(f'{v:.2f}' for v in values)} |")
        lines += ["", f"Found where {FALSE_RATE:.0%} of the unchanged sites are flagged, by every method alike:", ""]
        lines += [f"| years | method | {' | '.join(cells)} |", f"|---|---|{'---|' * len(cells)}"]
        for years in ("as they are", "shuffled"):
            for name in ("change, controls", "change, all", "yearly z", "regression", "1 - cosine"):
                values = [figures.get((part, years, name, "equal", s, str(a)), np.nan) for s in SHAPES for a in AMOUNTS]
                lines.append(f"| {years} | {name} | {' | '.join(f'{v:.2f}' for v in values)} |")
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
        "# Change on real point series with changes put in",
        "",
        f"Points of a scene that are alike make sites of {' and '.join(map(str, given.sizes))} points; {N_CONTROLS}",
        "sites are controls (a third, where there are fewer than 60); a quarter of the others is mixed with another",
        "cover of the scene: at once, over four years, or for one year. Years as they are (real changes of the land",
        "then count as false), or each site's departures from the scene's mean in an order of their own (nothing",
        "lasts; real one-year events stay, as events of another year, and count as false).",
        "",
        f"`1 - cosine`: any year more than {THRESHOLD} from the first. `yearly z`: largest robust z of a yearly step",
        "less the median step of all sites. `regression`: as CCDC does, departure from a line through the years",
        "before, in five PCA scores. PELT isn't measured: it needs the package ruptures. Tables flagged: of those",
        "without a change, where anything is flagged.",
        *tables(figures),
    ]
    given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
