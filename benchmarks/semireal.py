"""Tables of real point series with changes put in: what change and recovery are judged by.

Points of a scene that are alike are grouped into sites. Their years are taken as they are (then real changes of the
land are among the "unchanged" sites), or shuffled: a site's departures from the scene's mean of each year are put in an
order of their own, so that its years are exchangeable, nothing lasts, and whatever is flagged is false. Changes are put
in by mixing a site's vectors with those of another cover of the same scene and year: drift and noise stay real.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import BANDS
from gee_polygons.embeddings.quantization import codes_to_vectors

SHAPES = ("step", "gradual", "one year")
GRADUAL_YEARS = 4


@dataclass(frozen=True, kw_only=True)
class Case:
    """One table, and the truth about it."""

    table: pd.DataFrame
    controls: list[str]
    references: list[str]  # sites of the cover that the changed ones move towards
    amount: np.ndarray  # share of the way that each site goes, 0 = unchanged; of the sites in order
    start: np.ndarray  # first changed year, 0 = unchanged
    shape: str
    progress: np.ndarray  # (sites, years), true share of the way

    @property
    def sites(self) -> list[str]:
        """Ids in the table's order, controls and references included."""
        return list(pd.unique(self.table["site_id"]))


def read_series(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors (scene, year, point, 64) and years of a file with `codes` and `years`."""
    with np.load(path) as found:
        return codes_to_vectors(found["codes"], np.float64), found["years"]


def sites_of(vectors: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Group alike points: each takes the nearest unused ones by cosine of the mean over years: (sites, size)."""
    mean = vectors.mean(axis=0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    free, found = np.ones(len(mean), bool), []
    for seed in rng.permutation(len(mean)):
        if not free[seed] or free.sum() < size:
            continue
        near = np.where(free, mean @ mean[seed], -2.0)
        group = np.argsort(-near)[:size]
        free[group] = False
        found.append(group)
    return np.array(found)


def make_case(
    scene: np.ndarray,
    years: np.ndarray,
    *,
    size: int,
    shuffled: bool,
    amount: float,
    shape: str,
    seed: int,
    changed: float = 0.25,
    n_controls: int = 6,
) -> Case:
    """Make one table of a scene (year, point, 64)."""
    rng = np.random.default_rng(seed)
    groups = sites_of(scene, size, rng)
    series = scene[:, groups].mean(axis=2).transpose(1, 0, 2)  # (sites, years, 64)
    n, t = series.shape[:2]
    if shuffled:
        shared = scene.mean(axis=1)
        order = np.argsort(rng.random((n, t)), axis=1)
        series = shared + np.take_along_axis(series - shared, order[..., None], axis=1)
    own = series.mean(axis=1)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    # the other cover: the site least like the scene's mean, and the sites most like it
    target = int(np.argmin(own @ own.mean(axis=0)))
    alike = np.argsort(-(own @ own[target]))
    n_references = max(2, min(5, n // 6))
    references = alike[:n_references]
    rest = np.array([i for i in range(n) if i not in set(references)])
    rng.shuffle(rest)
    controls, others = rest[: min(n_controls, len(rest) // 3)], rest[min(n_controls, len(rest) // 3) :]
    moved = others[: max(1, round(changed * len(others)))] if amount else others[:0]
    progress = np.zeros((n, t))
    start = np.zeros(n, np.int64)
    y = np.arange(t)
    for i in moved:
        first = int(rng.integers(1, t - 1))
        start[i] = years[first]
        if shape == "step":
            path = (y >= first).astype(float)
        elif shape == "gradual":
            path = np.clip((y - first + 1) / GRADUAL_YEARS, 0, 1)
        else:
            path = (y == first).astype(float)
        progress[i] = amount * path
    goal = series[references].mean(axis=0)
    mixed = (1 - progress[..., None]) * series + progress[..., None] * goal
    table = pd.DataFrame(mixed.reshape(-1, 64), columns=list(BANDS))
    names = np.array([f"s{i:03d}" for i in range(n)])
    table = table.assign(site_id=np.repeat(names, t), year=np.tile(years, n), n_pixels=float(size))
    full = np.zeros(n)
    full[moved] = amount
    return Case(
        table=table,
        controls=names[controls].tolist(),
        references=names[references].tolist(),
        amount=full,
        start=start,
        shape=shape,
        progress=progress,
    )


def unit_cube(case: Case) -> np.ndarray:
    """Return unit vectors (sites, years, 64)."""
    cube: Any = case.table[list(BANDS)].to_numpy().reshape(len(case.amount), -1, 64)
    return cube / np.linalg.norm(cube, axis=-1, keepdims=True)
