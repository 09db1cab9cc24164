"""Simulated site series of a second kind: built without the assumptions that the estimators make.

From the measured facts: mean squared step of a year 0.066; cosine of pixels 1, 10 and 50 px apart, 0.989, 0.82, 0.64.
The part of the squared step that the whole scene shares is drawn per scene from 0.23 .. 0.67. Eigenvalues of the noise
fall so that its participation ratio is 17, and its variance falls as n^-0.5.

What differs from the first simulator, and is assumed: all vectors stay on the sphere and move along great circles; the
drift keeps a direction of its own (AR(1)) and acts by parallel transport, neither as one translation nor as one
rotation; what isn't shared is a field over the scene (exponential covariance, 5 km) and each site's own noise, half of
it autocorrelated (AR(1)), its size lognormal about that of a mean of n pixels; a mean has the length of a mean of von
Mises-Fisher pixels; recovery is logistic or saturating in the angle (the truth is the corresponding share of the
mixture); a site ends like *some* forest, drawn as the references are; sizes are lognormal, 6 % of the site-years are
missing, a tenth of the sites began before the data do; some of the stable land is cleared for good or for two years.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from simulated_sites import Simulation

from gee_polygons.alphaearth import BANDS, N_BANDS
from gee_polygons.embeddings.uncertainty import effective_pixels

YEARS = np.arange(2017, 2026)
STEP_SQUARED = 0.066
COHERENT = (0.23, 0.67)  # share of the squared step
LAND_COSINE = 0.64  # of pixels far apart: what two covers have in common
FIELD_SHARE = 0.3  # of the step that isn't shared: a field over the scene
FIELD_M, SCENE_M = 5_000.0, 40_000.0
MEMORY = 0.5  # AR(1) coefficient of half of a site's noise, and of the drift's direction
SPREAD_DEG = 13.0  # of sites of one cover about its mean
KAPPA = 600.0  # of a site's pixels: Rbar 0.95
MISSING, BEFORE = 0.06, 0.1
SIZES_HA = (np.log(4.0), 1.3)


def simulate_scene(
    *,
    ratio: float,
    n_sites: int = 400,
    n_references: int = 12,
    n_controls: int = 40,
    seed: int = 1,
    changed: float = 0.4,
) -> Simulation:
    """Sites of one scene whose largest yearly change is `ratio` times the drift's step."""
    rng = np.random.default_rng([seed, 77])
    n, t = n_sites + n_references + n_controls, len(YEARS)
    kind = np.array(["site"] * n_sites + ["reference"] * n_references + ["control"] * n_controls)
    covers = _covers(rng)  # pasture, forest, crop, bare
    coherent = rng.uniform(*COHERENT)
    drift_step = np.sqrt(coherent * STEP_SQUARED)
    spread = _spread(rng)
    is_changed = (kind == "site") & (rng.random(n) < changed)
    is_cleared = (kind == "site") & ~is_changed & (rng.random(n) < 0.1)
    cover = np.where(rng.random(n) < 0.3, 2, 0)
    cover[is_changed], cover[is_cleared], cover[kind == "reference"] = 0, 1, 1
    start = np.where(is_changed | is_cleared, rng.integers(YEARS[0] + 2, YEARS[-1] - 1, n), 9_999)
    start[is_changed & (rng.random(n) < BEFORE)] = YEARS[0] - 1
    was = _at(covers[cover], _offsets(rng, spread, n))
    becomes = _at(covers[np.where(is_cleared, 3, 1)], _offsets(rng, spread, n))
    progress = _progress(rng, start, is_cleared, ratio * drift_step, _angle(was, becomes))
    clear = _slerp(was[:, None], becomes[:, None], progress[..., None])
    pixels = np.maximum(1.0, 100 * np.exp(rng.normal(*SIZES_HA, n)))
    vectors = _noisy(rng, _drifting(rng, clear, drift_step), spread, pixels, coherent)
    means, length = _means(rng, vectors, pixels)
    gone = rng.random((n, t)) < MISSING
    means[gone], length[gone] = np.nan, np.nan
    ids = np.array([f"{k}-{i:04d}" for i, k in enumerate(kind)], dtype=object)
    table = pd.DataFrame(means.reshape(n * t, N_BANDS), columns=list(BANDS))
    table.insert(0, "site_id", np.repeat(ids, t))
    table.insert(1, "year", np.tile(YEARS, n))
    table = table.assign(Rbar=length.ravel(), n_pixels=np.repeat(pixels, t), valid_fraction=1.0 - gone.ravel())
    table["status"] = np.where(gone.ravel(), "no_data", "ok")
    first = np.where(is_changed | is_cleared, start, 0)
    return Simulation(
        table=table,
        start=pd.Series(first, ids).replace(0, pd.NA).astype("Int64"),
        progress=pd.DataFrame(_as_mixture(progress, _angle(was, becomes)), index=ids, columns=list(YEARS)),
        reference_ids=ids[kind == "reference"].tolist(),
        control_ids=ids[kind == "control"].tolist(),
        planted=dict(zip(ids[is_changed], start[is_changed].tolist(), strict=True)),
    )


def _covers(rng: np.random.Generator) -> np.ndarray:
    common, *own = np.linalg.qr(rng.normal(size=(N_BANDS, 5)))[0].T
    return np.sqrt(LAND_COSINE) * common + np.sqrt(1 - LAND_COSINE) * np.array(own)


def _spread(rng: np.random.Generator) -> np.ndarray:
    """Square root of the covariance of sites of one cover: eigenvalues fall, axes at random."""
    axes = np.linalg.qr(rng.normal(size=(N_BANDS, N_BANDS)))[0]
    values = np.exp(-np.arange(N_BANDS) / 8.5)
    return axes * np.sqrt(values / values.sum())


def _offsets(rng: np.random.Generator, spread: np.ndarray, n: int) -> np.ndarray:
    return np.radians(SPREAD_DEG) * rng.normal(size=(n, N_BANDS)) @ spread.T


def _at(base: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """Go from points of the sphere along tangent vectors: the exponential map."""
    tangent = tangent - np.sum(tangent * base, axis=-1, keepdims=True) * base
    length = np.maximum(np.linalg.norm(tangent, axis=-1, keepdims=True), 1e-12)
    return np.cos(length) * base + np.sin(length) * tangent / length


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.arccos(np.clip(np.sum(a * b, axis=-1), -1, 1))


def _slerp(a: np.ndarray, b: np.ndarray, p: np.ndarray) -> np.ndarray:
    angle = _angle(a, b)[..., None]
    return (np.sin((1 - p) * angle) * a + np.sin(p * angle) * b) / np.sin(angle)


def _as_mixture(along: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return the share p of the mixture (1 - p) a + p b that lies at a share of the angle from a to b."""
    there, left = np.sin(along * angle[:, None]), np.sin((1 - along) * angle[:, None])
    return there / (there + left)


def _progress(
    rng: np.random.Generator, start: np.ndarray, cleared: np.ndarray, step: float, way: np.ndarray
) -> np.ndarray:
    """Share of the angle covered by year; the steepest year covers `step` (an angle)."""
    age = YEARS[None] - start[:, None] + 1.0  # the first year that shows it has age 1
    pace = np.minimum(step / way, 1.0)[:, None]
    logistic = 1 / (1 + np.exp(-np.clip(4 * pace * (age - 1 - 0.5 / pace), -50, 50)))
    at_zero = 1 / (1 + np.exp(-4 * pace * (-1 - 0.5 / pace)))
    logistic = (logistic - at_zero) / (1 - at_zero)
    saturating = 1 - np.exp(np.log1p(-np.minimum(pace, 0.98)) * np.maximum(age, 0))
    found = np.where(rng.random(len(start))[:, None] < 0.5, logistic, saturating)
    pulse = cleared & (rng.random(len(start)) < 0.4)
    found = np.where(cleared[:, None], 1.0 * ~(pulse[:, None] & (age > 2)), found)
    return np.where(age >= 1, np.clip(found, 0, 1), 0.0)


def _drifting(rng: np.random.Generator, clear: np.ndarray, step: float) -> np.ndarray:
    """Move each year's points along one field of directions: that of the scene's centre, transported to each point."""
    centre = clear[:, 0].mean(axis=0)
    centre /= np.linalg.norm(centre)
    # stationary: each year's place has variance step^2 / (2 (1 - MEMORY)), so that yearly steps have step^2
    place = rng.normal(size=N_BANDS) / np.sqrt(2 * (1 - MEMORY))
    moved = np.empty_like(clear)
    for y in range(clear.shape[1]):
        if y:
            place = MEMORY * place + rng.normal(size=N_BANDS) * np.sqrt((1 - MEMORY**2) / (2 * (1 - MEMORY)))
        vector = place * step / np.sqrt(N_BANDS)
        vector -= vector @ centre * centre
        x = clear[:, y]
        # parallel transport along the great circle from the centre to x
        there = vector - (x @ vector / (1 + x @ centre))[:, None] * (x + centre)
        moved[:, y] = _at(x, there)
    return moved


def _noisy(
    rng: np.random.Generator, vectors: np.ndarray, spread: np.ndarray, pixels: np.ndarray, coherent: float
) -> np.ndarray:
    """Add what isn't shared: a field over the scene, and each site's own noise with and without a memory."""
    n, t, _ = vectors.shape
    variance = (1 - coherent) * STEP_SQUARED / 2  # a step is a difference of two years
    xy = rng.uniform(0, SCENE_M, (n, 2))
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    root = np.linalg.cholesky(np.exp(-apart / FIELD_M) + 1e-8 * np.eye(n))
    field = (
        np.einsum("ij,jtb->itb", root, rng.normal(size=(n, t, N_BANDS))) @ spread.T * np.sqrt(FIELD_SHARE * variance)
    )
    own = np.sqrt((1 - FIELD_SHARE) * variance / np.sqrt(effective_pixels(pixels))) * np.exp(rng.normal(0, 0.28, n))
    heavy = own[:, None] * np.exp(rng.normal(0, 0.36, (n, t)))  # tails: the median step is 0.66 of the mean
    fresh, old = rng.normal(size=(2, n, t, N_BANDS))
    for y in range(1, t):
        old[:, y] = MEMORY * old[:, y - 1] + np.sqrt(1 - MEMORY**2) * old[:, y]
    return _at(vectors, field + ((fresh + old) / np.sqrt(2)) @ spread.T * heavy[..., None])


def _means(rng: np.random.Generator, vectors: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale to the length of means of von Mises-Fisher pixels; the same pixels every year, so no further noise."""
    n, t, _ = vectors.shape
    length = np.sqrt(1 - (1 - _vmf_mean() ** 2) * (1 - 1 / (1 + np.sqrt(pixels))))
    wobble = np.clip(length[:, None] + rng.normal(size=(n, t)) * 0.003, 0.5, 1.0)
    return vectors * wobble[..., None], wobble


def _vmf_mean() -> float:
    """Mean resultant length of a von Mises-Fisher distribution in 64 dimensions, for large concentrations."""
    return 1 - (N_BANDS - 1) / (2 * KAPPA)
