"""Simulated site series: drift, noise and memory as measured on AlphaEarth, not chosen to suit any estimator.

From the measured facts (16 real scenes, points, steps of one year): mean squared step 0.066, of which 0.41 is shared by
the scene; neighbouring steps of the rest correlate -0.35, so it is each year's own noise and a random walk of
0.86 times its variance; its median is 0.66 of its mean, and points differ (5-95 %) by 0.55 .. 3.5 times their median:
sites and years have lognormal variances; participation ratio 17, the first three directions a third: eigenvalues fall
as k^-0.9; a mean over n alike points keeps n^-0.5 of the variance. Correlation in space by the fitted model (cosine
0.989 / 0.82 / 0.64 at 1 / 10 / 50 px). Not measured, and so assumed: half of the drift's variance is a random walk,
half is independent from year to year; forest and pasture are 0.75 apart; 40 % of the sites change; sites of a cover
differ by 0.245 (length); those that recover keep half of their deviation from their cover.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import BANDS, N_BANDS
from gee_polygons.embeddings.uncertainty import AEF_CORRELATION, effective_pixels

YEARS = tuple(range(2017, 2026))
STEP_SQUARED = 0.066
COHERENT_SHARE = 0.41  # of the squared step
DRIFT_STEP = float(np.sqrt(COHERENT_SHARE * STEP_SQUARED))  # 0.164
LOCAL_VARIANCE = (1 - COHERENT_SHARE) * STEP_SQUARED / 2.86  # each year's own, of a point, summed over the bands
LOCAL_WALK = 0.86 * LOCAL_VARIANCE  # of a year's step of the random walk
UNEVEN_SITES, UNEVEN_YEARS = 0.56, 0.72  # standard deviations of the log of the variance
WALK_SHARE = 0.5
COVER_DISTANCE = 0.75
OFFSET_LENGTH = 0.245
CHANGED_SHARE = 0.4
STARTS = (2019, 2020, 2021, 2022, 2023)
PIXELS = (20.0, 5_000.0)  # log-uniform: 0.2 .. 50 ha
MEAN_LENGTH = float(np.sqrt(AEF_CORRELATION.sill))


@dataclass(frozen=True, kw_only=True)
class Simulation:
    table: pd.DataFrame  # as extract_embeddings gives it: the sites, then the references, then the controls
    start: pd.Series  # by site id: first year that shows change, <NA> for a stable site
    progress: pd.DataFrame  # by site id and year: share of recovery, from pasture to forest
    reference_ids: list[str]
    control_ids: list[str]
    planted: dict[str, int]  # start year of each site that should recover

    def truth(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the true share of recovery of rows that have `site_id` and `year`."""
        by_name = {site_id: i for i, site_id in enumerate(self.progress.index)}
        at = [by_name[site_id] for site_id in rows["site_id"]]
        return self.progress.to_numpy()[at, np.searchsorted(YEARS, rows["year"])]


def simulate(
    *,
    ratio: float,
    n_sites: int = 1_000,
    n_references: int = 20,
    n_controls: int = 60,
    drift: str = "translation",
    seed: int = 1,
) -> Simulation:
    """Sites whose yearly change is `ratio` times the drift's step; `drift` is a "translation" or a "rotation"."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(N_BANDS, N_BANDS)))[0].T
    base = MEAN_LENGTH * basis[0]
    pasture, forest = base - COVER_DISTANCE / 2 * basis[1], base + COVER_DISTANCE / 2 * basis[1]
    crop = base + 0.4 * basis[2]
    n = n_sites + n_references + n_controls
    kind = np.array(["site"] * n_sites + ["reference"] * n_references + ["control"] * n_controls)
    changed = (kind == "site") & (rng.random(n) < CHANGED_SHARE)
    start = np.where(changed, rng.choice(STARTS, n), 9999)
    cover = np.where((rng.random(n) < 0.3)[:, None] & ~changed[:, None], crop, pasture)
    cover[kind == "reference"] = forest
    offset = _spectral(rng, basis, (n,)) * OFFSET_LENGTH
    n_pixels = np.exp(rng.uniform(np.log(PIXELS[0]), np.log(PIXELS[1]), n))
    size = np.exp(rng.normal(-(UNEVEN_SITES**2) / 2, UNEVEN_SITES, n)) / np.sqrt(effective_pixels(n_pixels))
    uneven = np.exp(rng.normal(-(UNEVEN_YEARS**2) / 2, UNEVEN_YEARS, (2, n, len(YEARS)))) * size[:, None]
    pace = ratio * DRIFT_STEP / COVER_DISTANCE
    progress = np.clip((np.array(YEARS)[None] - start[:, None] + 1) * pace, 0, 1)
    state = (1 - progress)[..., None] * (cover + offset)[:, None] + progress[..., None] * (forest + offset / 2)[:, None]
    own, walk = _spectral(rng, basis, (2, n, len(YEARS))) * np.sqrt(uneven)[..., None]
    state += np.sqrt(LOCAL_VARIANCE) * own + np.sqrt(LOCAL_WALK) * walk.cumsum(axis=1)
    vectors = _drifted(rng, state, drift)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    length = np.sqrt(AEF_CORRELATION.sill + AEF_CORRELATION.part / effective_pixels(n_pixels))
    means = vectors * length[:, None, None]
    ids = np.array([f"{k}-{i:04d}" for i, k in enumerate(kind)], dtype=object)
    return Simulation(
        table=_table(ids, means, n_pixels, length),
        start=pd.Series(np.where(changed, start, 0), ids).replace(0, pd.NA).astype("Int64"),
        progress=pd.DataFrame(progress, index=ids, columns=list(YEARS)),
        reference_ids=ids[kind == "reference"].tolist(),
        control_ids=ids[kind == "control"].tolist(),
        planted=dict(zip(ids[changed], start[changed].tolist(), strict=True)),
    )


def _spectral(rng: np.random.Generator, basis: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Random vectors of mean squared length 1 whose variance falls along an orthonormal basis, as real bands' does."""
    falling = 1 / np.arange(1, N_BANDS) ** 0.9
    order = np.random.default_rng(0).permutation(N_BANDS - 1)  # pasture to forest is a direction like any other
    sizes = np.sqrt(falling / falling.sum())[order]
    return (rng.normal(size=(*shape, N_BANDS - 1)) * sizes) @ basis[1:]


def _drifted(rng: np.random.Generator, state: np.ndarray, drift: str) -> np.ndarray:
    own = rng.normal(size=(len(YEARS), N_BANDS)) / np.sqrt(N_BANDS) * DRIFT_STEP * np.sqrt((1 - WALK_SHARE) / 2)
    walk = rng.normal(size=(len(YEARS), N_BANDS)) / np.sqrt(N_BANDS) * DRIFT_STEP * np.sqrt(WALK_SHARE)
    steps = own + np.cumsum(walk, axis=0)
    if drift == "translation":
        return state + steps
    # a rotation that takes the mean of all land as far as the translation would
    centre = state.mean(axis=(0, 1))
    turned = np.empty_like(state)
    for i, step in enumerate(steps):
        a, b = centre / np.linalg.norm(centre), (centre + step) / np.linalg.norm(centre + step)
        k = np.outer(b, a) - np.outer(a, b)
        turned[:, i] = state[:, i] @ (np.eye(N_BANDS) + k + k @ k / (1 + a @ b)).T
    return turned


def _table(ids: np.ndarray, means: np.ndarray, n_pixels: np.ndarray, length: np.ndarray) -> pd.DataFrame:
    n, t, _ = means.shape
    return pd.concat(
        [
            pd.DataFrame({"site_id": np.repeat(ids, t), "year": np.tile(YEARS, n)}),
            pd.DataFrame(means.reshape(n * t, N_BANDS), columns=list(BANDS)),
            pd.DataFrame({"Rbar": np.repeat(length, t), "n_pixels": np.repeat(n_pixels, t)}),
            pd.DataFrame({"valid_fraction": np.ones(n * t), "status": "ok"}),
        ],
        axis=1,
    )
