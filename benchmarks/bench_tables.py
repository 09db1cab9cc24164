"""Time and memory of `nearest_sites` and `audit` on a table of a million rows.

Prints a table and writes it to TABLES_RESULTS.md. A minute and 2.5 GB: `python benchmarks/bench_tables.py`.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import BANDS
from gee_polygons.audit import audit
from gee_polygons.embeddings.similarity import nearest_sites

N_ROWS = 1_000_000
N_YEARS = 8
OUT = Path(__file__).parent / "TABLES_RESULTS.md"


def table(dtype: str) -> pd.DataFrame:
    """Return a million plausible rows: sites of twenty kinds of land, each with eight years."""
    rng = np.random.default_rng(0)
    n_sites = N_ROWS // N_YEARS
    kinds = rng.normal(size=(20, 64))
    rows = np.empty((N_ROWS, 64), dtype)
    for start in range(0, n_sites, 10_000):
        n = min(10_000, n_sites - start)
        sites = kinds[rng.integers(0, 20, n)] + 0.35 * rng.normal(size=(n, 64))
        vectors = (sites[:, None] + 0.2 * rng.normal(size=(n, N_YEARS, 64))).reshape(-1, 64)
        vectors *= 0.93 / np.linalg.norm(vectors, axis=1, keepdims=True)
        rows[start * N_YEARS : (start + n) * N_YEARS] = vectors * rng.uniform(0.8, 1.05, (len(vectors), 1))
    made = pd.DataFrame(rows, columns=list(BANDS))
    made.insert(0, "site_id", np.repeat(np.arange(n_sites), N_YEARS))
    made.insert(1, "year", np.tile(range(2017, 2017 + N_YEARS), n_sites))
    return made


def seconds(what: Callable[[], Any], rounds: int) -> str:
    """Return the median and the range of the times of some runs."""
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        what()
        took.append(time.perf_counter() - start)
    return f"{np.median(took):.2f} ({min(took):.2f}..{max(took):.2f})"


def brute_force(rows: pd.DataFrame, vector: Any) -> Any:
    """Return the ten nearest rows in plain NumPy, on the whole matrix at once."""
    m = rows[list(BANDS)].to_numpy(np.float64)
    cosine = (m @ vector) / np.linalg.norm(m, axis=1) / np.linalg.norm(vector)
    return np.argsort(-cosine, kind="stable")[:10]


def main() -> None:
    lines = ["| what | seconds: median (range) |", "|---|---|"]
    for dtype in ("float32", "float64"):
        rows = table(dtype)
        vector = rows.loc[N_ROWS // 2, list(BANDS)].to_numpy(np.float64)
        assert (nearest_sites(rows, vector, 10).index == brute_force(rows, vector)).all()
        lines.append(f"| nearest_sites, {dtype} | {seconds(lambda r=rows, v=vector: nearest_sites(r, v, 10), 5)} |")
        lines.append(f"| the same in plain NumPy, {dtype} | {seconds(lambda r=rows, v=vector: brute_force(r, v), 3)} |")
        if dtype == "float32":
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            lines.append(f"| audit | {seconds(lambda r=rows: audit(r), 1)} |")
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
            lines.append(f"| audit: memory above the highest before it | {more:.1f} GB |")
    head = [
        "# What large tables cost",
        "",
        f"{N_ROWS:,} rows of 64 bands, one vector, k = 10; the answers are equal. Made by",
        f"`python benchmarks/bench_tables.py`; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
    ]
    text = "\n".join([*head, *lines]) + "\n"
    print(text)
    OUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
