"""Side by side: every contestant on the same tile and fields, each in a process of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.contestants import CONTESTANTS
from benchmarks.measure import busy, in_own_process, machine
from benchmarks.report import publish, table
from benchmarks.workload import Work

MODULE = "benchmarks.contestants"
REFERENCE = "exactextract_memory"
_FEWEST = 20  # fields for the slowest
HEAD = (
    "", "fields", "fields per core-second", "raw MB per core-second", "CPU s", "wall s", "peak MB", "above MB",
    "share of decode only", "exactextract from file = 1", "largest difference of a mean",
)  # fmt: skip


def run(work: Work, names: list[str], *, repeats: int | None, write: bool) -> None:
    """Run the contestants, print the table."""
    before = busy()
    with tempfile.TemporaryDirectory() as folder:
        runs = _runs(work, names, repeats, Path(folder))
        means = {path.stem: np.load(path) for path in Path(folder).glob("*.npy")}
        compile_s = _compile_seconds(work)
    parts = ["\n".join(_preface(work, before)), _table(work, runs, means), *_notes(compile_s)]
    publish("peers", "\n\n".join(parts), write=write)


def _runs(work: Work, names: list[str], repeats: int | None, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Round after round, so that what disturbs the machine for a while disturbs all who run often."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    times = {name: min(CONTESTANTS[name].repeats, repeats or 99) for name in names}
    for turn in range(max(times.values())):
        for name in names:
            if turn >= times[name]:
                continue
            n_fields = max(_FEWEST, round(len(work.fields) * CONTESTANTS[name].share))
            result = in_own_process(
                MODULE, name, "--tile", str(work.tile), "--polygons", str(work.polygons),
                "--n-fields", str(n_fields), "--save", str(folder / f"{name}.npy"),
            )  # fmt: skip
            print(f"{name}: {result}", flush=True)
            runs[name].append(result)
    return runs


def _table(work: Work, runs: dict[str, list[dict[str, Any]]], means: dict[str, np.ndarray]) -> str:
    rates = {name: _rate(found) for name, found in runs.items()}
    rows = []
    for name, found in runs.items():
        contestant = CONTESTANTS[name]
        if "error" in found[0]:
            rows.append([f"{contestant.label}: not run, {found[0]['error']}", *[None] * (len(HEAD) - 1)])
            continue
        figures = {key: median(run[key] for run in found) for key in ("cpu_s", "wall_s", "peak_mb", "above_mb")}
        n_fields = int(found[0]["fields"])
        part = Work(work.tile, work.polygons, n_fields)
        rows.append(
            [contestant.label, n_fields, rates[name], part.raw_mb / figures["cpu_s"], *figures.values(),
             _share(rates[name], rates.get("decode"), "%"), _share(rates[name], rates.get("exactextract_file"), "x"),
             _difference(means.get(name), means.get(REFERENCE), name)]
        )  # fmt: skip
    return table(HEAD, rows)


def _rate(found: list[dict[str, Any]]) -> float:
    return float(median(run["fields"] / run["cpu_s"] for run in found)) if "error" not in found[0] else float("nan")


def _share(rate: float, other: float | None, unit: str) -> str:
    if not other:
        return ""
    return f"{100 * rate / other:.0f} %" if unit == "%" else f"{rate / other:.1f}"


def _difference(means: np.ndarray | None, reference: np.ndarray | None, name: str) -> str:
    if means is None or reference is None or name == REFERENCE:
        return ""
    reference = reference[: len(means)]
    missing = int((np.isnan(means).any(axis=1) != np.isnan(reference).any(axis=1)).sum())
    text = f"{np.nanmax(np.abs(means - reference)):.0e}"
    return text if not missing else f"{text}; {missing} fields without a value"


def _compile_seconds(work: Work) -> float:
    """What the first call on five fields takes longer where nothing has been compiled yet."""
    arguments = ("first", "--tile", str(work.tile), "--polygons", str(work.polygons), "--n-fields", "5")
    with tempfile.TemporaryDirectory() as empty:
        cold = in_own_process(MODULE, *arguments, env={"NUMBA_CACHE_DIR": empty})
        warm = in_own_process(MODULE, *arguments, env={"NUMBA_CACHE_DIR": empty})
    return float(cold.get("cpu_s", np.nan) - warm.get("cpu_s", np.nan))


def _preface(work: Work, before: float) -> list[str]:
    kinds = work.fields.geom_type.value_counts()
    holes = int((work.fields.count_interior_rings() > 0).sum()) if len(kinds) else 0
    area = work.local.area / 1e4
    return [
        "## Side by side", "",
        *(f"* {line}" for line in machine()),
        f"* {before:.0%} of the machine was busy with something else when this began.",
        f"* {work.profile['width']} x {work.profile['height']} px, 64 bands, {work.tile.stat().st_size / 1e6:,.0f} MB "
        f"({work.raw_mb:,.0f} MB decoded, of the blocks that fields touch), in the page cache.",
        f"* {len(work.fields):,} fields, median {area.median():.2f} ha ({area.min():.4f} to {area.max():.1f}), "
        f"{int(kinds.get('MultiPolygon', 0)):,} multipolygons, {holes:,} with holes, "
        f"{int((area < 0.01).sum()):,} smaller than a pixel.",
    ]  # fmt: skip


def _notes(compile_s: float) -> list[str]:
    return [
        f"The first call ever compiles for another {compile_s:.1f} s of CPU; the result is kept. `python -m "
        "gee_polygons.warmup` does it in advance.",
        "Rates are per second of CPU time of all threads; medians of several processes where there are several. "
        "*Above* is the highest resident memory during the call over that before it. Everyone gets the fields in "
        "memory, ours in EPSG:4326 and projected within the time, theirs projected before. Who takes minutes gets the "
        "first few blocks' fields. The largest difference is from *exactextract, vectors in memory*, over all bands "
        "and all fields compared.",
    ]  # fmt: skip
