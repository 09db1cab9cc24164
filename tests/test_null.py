"""Sites that didn't change, with noise of many kinds: what change flags is false."""

import numpy as np
import pandas as pd
import pytest
from simulated_null import null_table

from gee_polygons.alphaearth import BANDS
from gee_polygons.change import change


def noisy_table(kind, seed, n=30):
    """Return unchanged sites with kinds of noise for which earlier versions flagged 30-100 % of them."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, 9, 64))
    if kind == "first year":
        noise[:, 0] *= 2.0
    if kind == "uneven":
        noise *= np.exp(0.3 * rng.normal(size=(n, 9, 1)))
    if kind == "t4":
        noise *= np.sqrt(4 / rng.chisquare(4, size=(n, 9, 1)))
    if kind == "own directions":
        axes = np.linalg.qr(rng.normal(size=(n, 64, 3)))[0]
        noise = 0.6 * noise + 0.8 * 8 * np.einsum("ntk,nbk->ntb", rng.normal(size=(n, 9, 3)) / np.sqrt(3), axes)
    v = np.eye(64)[0] + 0.08 * rng.normal(size=(n, 1, 64)) + 0.0075 * noise
    table = pd.DataFrame(v.reshape(-1, 64), columns=list(BANDS))
    return table.assign(site_id=np.repeat(np.arange(n), 9), year=list(range(2017, 2026)) * n, n_pixels=500.0)


@pytest.mark.parametrize("kind", ["first year", "uneven", "t4", "own directions"])
def test_unusual_noise_is_no_change(kind):
    flags = [change(noisy_table(kind, seed), level=0.1).sites["flag"] for seed in range(5)]
    assert sum(flag.any() for flag in flags) <= 3
    assert np.mean(flags) < 0.1


@pytest.mark.parametrize(("n_controls", "share"), [(0, 0.3), (0, 0.45), (0, 0.6), (10, 0.6), (30, 0.45)])
def test_many_sites_may_change_alike(n_controls, share):
    # with 40 % or more changed sites of 50, an earlier version took them for the null, and found nothing
    rng = np.random.default_rng(3)
    n = 100 + n_controls
    changed = np.arange(n) < share * 100
    start = rng.integers(2, 6, size=n)
    jump = 0.8 * np.eye(64)[1] + 0.08 * rng.normal(size=(n, 64))
    path = (np.arange(9)[None] >= start[:, None]) & changed[:, None]
    v = np.eye(64)[0] + 0.05 * rng.normal(size=(n, 1, 64)) + path[..., None] * jump[:, None]
    v += 0.02 * rng.normal(size=v.shape)
    v /= np.linalg.norm(v, axis=2, keepdims=True)
    table = pd.DataFrame(v.reshape(-1, 64), columns=list(BANDS))
    table = table.assign(site_id=np.repeat(np.arange(n), 9), year=list(range(2017, 2026)) * n, n_pixels=500.0)
    found = change(table, background=list(range(100, n)) or "all").sites["flag"].to_numpy()
    assert found[changed].all()
    assert found[~changed].mean() < 0.1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"memory": 0.5, "alike": 0.4},
        {"memory": 0.7, "lasting": 0.5},
        {"memory": 0.9, "lasting": 0.5},
    ],
    ids=str,
)
def test_false_discoveries_where_nothing_changed(options):
    # without a change every flag is false: tables with any flag are the false-discovery rate
    any_flag = [change(null_table(40, seed, **options), level=0.1).sites["flag"].any() for seed in range(8)]
    assert sum(any_flag) <= 3  # 8 tables at a level of 0.1: more than three has a chance of 0.5 %
