"""Simulated sites that don't change, so that every flag is false: autocorrelated noise, partly shared by neighbours."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import BANDS, N_BANDS

YEARS = np.arange(2017, 2026)


def null_units(
    n: int, seed: int, *, memory: float = 0.0, lasting: float = 1.0, alike: float = 0.0, drift: float = 0.12
) -> np.ndarray:
    """Return vectors of shape (n, 9, 64): each site's own place, a common drift, and noise.

    Of the noise the part `lasting` is AR(1) with the coefficient `memory`, the rest each year's own; the part `alike`
    is the same for five neighbours. Its size differs from site to site.
    """
    rng = np.random.default_rng(seed)
    t = len(YEARS)
    size = np.exp(-np.arange(N_BANDS) / 12)
    spread = np.sqrt(size / size.sum())
    root = np.linalg.cholesky(max(memory, 1e-9) ** np.abs(np.subtract.outer(np.arange(t), np.arange(t))))
    groups = np.arange(n) // 5

    def drawn() -> np.ndarray:
        own, shared = rng.normal(size=(n, t, N_BANDS)), rng.normal(size=(groups[-1] + 1, t, N_BANDS))[groups]
        return np.sqrt(1 - alike) * own + np.sqrt(alike) * shared

    noise = np.sqrt(lasting) * (root @ drawn()) + np.sqrt(1 - lasting) * drawn()
    steps = np.cumsum(rng.normal(size=(1, t, N_BANDS)), axis=1) * drift / np.sqrt(N_BANDS)
    place = rng.normal(size=(n, 1, N_BANDS)) * 0.2 * spread
    restless = np.exp(rng.normal(0, 0.3, (n, 1, 1)))
    return np.eye(N_BANDS)[0] + place + steps + noise * 0.07 * spread * restless


def null_table(n: int, seed: int, **options: float) -> pd.DataFrame:
    """Return `null_units` as a table."""
    table = pd.DataFrame(null_units(n, seed, **options).reshape(-1, N_BANDS), columns=list(BANDS))
    return table.assign(site_id=np.repeat(np.arange(n), len(YEARS)), year=np.tile(YEARS, n), n_pixels=400.0)
