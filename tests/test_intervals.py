"""Confidence intervals and the errors they are drawn from: noise, scatter of few sites, drift; by hand or simulated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated_scenes import simulate_scene
from simulated_sites import simulate

from gee_polygons.alphaearth import BANDS
from gee_polygons.change.drift import Drift, step_covariance
from gee_polygons.change.noise import PRIOR_VARIANCE, estimate_noise
from gee_polygons.change.numerics import ar1_correlation
from gee_polygons.change.series import Series
from gee_polygons.change.stable_sites import most_similar_sites
from gee_polygons.embeddings.directional import normalize
from gee_polygons.recovery import recovery
from gee_polygons.recovery.geometry import local_mean_start
from gee_polygons.recovery.scatter import estimate_scatter, fill_gaps

E = np.eye(64)


def noisy(n=60, t=9, memory=0.0, variance=0.01, seed=0):
    rng = np.random.default_rng(seed)
    size = np.exp(-np.arange(64) / 12)
    size = np.sqrt(variance * size / size.sum())
    noise = np.linalg.cholesky(ar1_correlation(t, memory)) @ rng.normal(size=(n, t, 64)) * size
    return E[0] + rng.normal(size=(n, 1, 64)) * 0.02 + noise


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_noise_is_found_again_with_its_memory(memory):
    units = noisy(memory=memory)
    found = estimate_noise(units, np.ones(60), np.ones((60, 9), bool))
    assert found.ar1 == pytest.approx(memory, abs=0.07)
    assert np.median(found.variance) == pytest.approx(0.01, rel=0.1)
    assert float(found.along(E[0])) ** 2 == pytest.approx(1 / 12, rel=0.35)  # the first of the eigenvalues
    assert np.trace(found.shape) == pytest.approx(1)


def test_a_path_isn_t_noise():
    units = noisy()
    bent = units + np.clip((np.arange(9) - 2) / 4, 0, 1)[None, :, None] ** 1.5 * 0.6 * E[1]
    known = np.zeros((60, 9), bool)
    known[:, :3] = True
    still, moving = (estimate_noise(u, np.ones(60), known) for u in (units, bent))
    assert np.median(moving.variance) == pytest.approx(np.median(still.variance), rel=0.25)


def test_with_too_few_years_the_prior_is_used():
    found = estimate_noise(noisy(n=3, t=2), np.array([1.0, 2.0, 4.0]), np.zeros((3, 2), bool))
    assert found.variance.tolist() == pytest.approx([PRIOR_VARIANCE, PRIOR_VARIANCE / 2, PRIOR_VARIANCE / 4])


@pytest.mark.parametrize("m", [2, 3, 10])
def test_the_error_of_the_mean_of_few_sites_is_student_s_t(m):
    # 90 % of the intervals of repeated samples hold the true mean
    rng = np.random.default_rng(m)
    slope = E[None, None, 5]
    inside = []
    for _ in range(300):
        own = rng.normal(size=(m, 64)) * 0.05
        scatter = estimate_scatter(own[:, None], np.eye(64) / 64)
        drawn = scatter.draw_mean(slope, scatter.stretches(300, rng), rng)[:, 0, 0]
        low, high = np.quantile(drawn, [0.05, 0.95])
        inside.append(low <= own.mean(axis=0)[5] <= high)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.07)


def test_scatter_of_sites_by_hand():
    units = np.stack([E[0] + 0.1 * E[1], E[0] - 0.1 * E[1]])[:, None]
    found = estimate_scatter(units, np.eye(64) / 64)
    assert found.length == pytest.approx(np.sqrt(2 * 0.1**2))
    assert found.freedom == pytest.approx(1 + 30)  # all directions alike: the average tells as much as it may
    one = estimate_scatter(units[:1], np.eye(64) / 64, 0.04)
    assert one.length == pytest.approx(0.2)


def test_a_gap_in_one_reference_doesn_t_move_the_mean():
    units = normalize(E[0] + 0.2 * np.array([[E[1]], [-E[1]], [E[2]]]) + 0.05 * E[3] * np.arange(4)[None, :, None])
    holed = units.copy()
    holed[0, 2] = np.nan
    assert np.abs(fill_gaps(holed) - units).max() < 1e-3
    assert np.abs(np.nanmean(holed, axis=0) - units.mean(axis=0)).max() > 0.05
    assert fill_gaps(units) is units


def test_stable_sites_are_found_even_if_they_are_a_minority():
    rng = np.random.default_rng(0)
    step = np.cumsum(rng.normal(size=(8, 64)) * 0.01, axis=0)
    units = E[0] + step + rng.normal(size=(30, 8, 64)) * 0.004
    for i in range(8, 30):  # 22 of 30 change towards the same cover, each in its own time
        units[i] += np.clip((np.arange(8) - rng.integers(1, 5)) / rng.uniform(1, 6), 0, 1)[:, None] * 0.6 * E[1]
    series = Series(site_ids=list(range(30)), years=np.arange(8), units=normalize(units), n_effective=np.ones(30))
    found = most_similar_sites(series, np.arange(8) == 0)
    assert found.sum() == 6
    assert not found[8:].any()


def test_sites_of_one_cover_do_not_determine_the_part_of_a_step_that_points_at_them():
    drift = Drift(steps=np.array([0 * E[0], 0.1 * E[3]]), centre=E[0], known=np.ones(2, bool), model="translation")
    found = step_covariance(drift, E[[0, 0, 0]], np.full(3, 1e-4))
    assert not found[0].any()
    assert E[0] @ found[1] @ E[0] == pytest.approx(0.01 / 63, rel=0.05)
    assert E[5] @ found[1] @ E[5] == pytest.approx(0, abs=1e-9)


def test_the_mean_start_of_a_cover_isn_t_drawn_towards_the_site():
    rng = np.random.default_rng(0)
    size = np.exp(-np.arange(64) / 6)
    sites = normalize(E[0] + rng.normal(size=(60, 64)) * 0.25 * np.sqrt(size / size.sum()))
    middle = local_mean_start(sites)
    apart = sites - sites.mean(axis=0)
    lean = np.sum((middle - sites.mean(axis=0)) * apart, axis=1) / np.sum(apart**2, axis=1)
    assert abs(np.median(lean)) < 0.1


# --- whole tables ---


def recovered(sim, **options):
    found = recovery(sim.table, references=sim.reference_ids, start_years=sim.planted, **options).yearly
    found = found[(found["status"] == "ok") & (found["years_since_start"] >= 0) & found["share"].notna()]
    truth = sim.truth(found)
    return found, truth, (found["share_low"] - 1e-9 <= truth) & (truth <= found["share_high"] + 1e-9)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_intervals_hold_on_a_simulator_that_is_unlike_the_estimator(ratio):
    inside, errors = [], []
    for seed in (11, 12, 13):
        sim = simulate_scene(ratio=ratio, n_sites=80, seed=seed)
        found, truth, held = recovered(sim, background=sim.control_ids)
        inside.append(held.mean())
        errors.append(np.abs(found["share"] - truth).mean())
    assert 0.80 <= np.mean(inside) <= 0.99  # three scenes, whose sites share references: the benchmark has more
    assert np.mean(errors) <= 0.1


@pytest.mark.parametrize("m", [1, 2, 3])
def test_few_references_make_wide_intervals_that_hold(m):
    inside, width = [], []
    for seed in range(1, 5):
        for n, kept in ((m, inside), (20, None)):
            found, _, held = recovered(simulate(ratio=1.0, n_sites=40, n_references=n, seed=seed))
            width.append((found["share_high"] - found["share_low"]).mean())
            if kept is not None:
                kept.append(held.mean())
    assert np.mean(inside) >= 0.8
    assert np.mean(width[::2]) > 1.2 * np.mean(width[1::2])


def test_stand_ins_that_differ_widen_the_interval():
    sim = simulate(ratio=1.0, n_sites=60, seed=3)
    name = sim.start.dropna().index[0]
    table = sim.table[(sim.table["site_id"] != name) | (sim.table["year"] >= sim.start[name])]
    still = sim.start.index[sim.start.isna() & sim.start.index.str.startswith("site")].tolist()
    pasture = recovery(
        table, references=sim.reference_ids, start_years={name: int(sim.start[name])}, degraded=sim.control_ids[:8]
    )
    alike = table[table["site_id"] == sim.control_ids[0]]
    copies = [alike.assign(site_id=f"copy-{i}") for i in range(8)]
    same = recovery(
        pd.concat([table, *copies]),
        references=sim.reference_ids,
        start_years={name: int(sim.start[name])},
        degraded=[f"copy-{i}" for i in range(8)],
    )
    assert len(still) > 0
    first = [f.yearly[f.yearly["site_id"] == name].dropna(subset=["share"]).iloc[0] for f in (pasture, same)]
    widths = [row["share_high"] - row["share_low"] for row in first]
    assert widths[0] > widths[1]


# --- by hand ---


def straight(ids, shares, years):
    """Sites on a straight trajectory between two states, by their shares in each year."""
    p = np.array(shares)[..., None]
    v = ((1 - p) * E[0] + p * E[1]).reshape(-1, 64)
    table = pd.DataFrame(v, columns=list(BANDS))
    return table.assign(site_id=np.repeat(ids, len(years)), year=np.tile(years, len(ids)))


def test_statuses_groups_and_years_by_hand():
    years = np.arange(2018, 2025)
    table = straight(
        ["r1", "r2", "grows", "stays", "sinks", "young", "bare"],
        [
            [1] * 7,
            [1] * 7,
            [0, 0.2, 0.4, 0.6, 0.8, 1, 1],  # from 2019, a fifth a year
            [0, 0, 0.01, 0, 0.01, 0, 0.01],
            [0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
            [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],  # began in the first year: no baseline
            [0] * 7,
        ],
        years,
    )
    starts = {"grows": 2019, "stays": 2019, "sinks": 2020, "young": 2018}
    found = recovery(table, references=["r1", "r2"], start_years=starts).sites.set_index("site_id")
    assert found["status"].to_dict() == {"grows": "ok", "stays": "ok", "sinks": "ok", "young": "no_baseline"}
    assert found["group"].to_dict() == {
        "grows": "recovering", "stays": "stalled", "sinks": "declining", "young": "no evidence"
    }  # fmt: skip
    assert found.loc["grows", "rate"] == pytest.approx(0.2)  # until it has arrived
    assert found.loc["grows", "years_to_80"] == pytest.approx(3)  # 2022, where `years_since_start` is 3
    assert found.loc["grows", "years_to_range"] == pytest.approx(4)
    assert found.loc["grows", "rank"] == 1
    assert np.isnan(found.loc["stays", "years_to_80"])
    stood_in = recovery(table, references=["r1", "r2"], start_years=starts, degraded=["bare"]).sites
    young = stood_in.set_index("site_id").loc["young"]
    assert young["status"] == "ok"
    assert young["share"] == pytest.approx(0.7)
    assert young["rate"] == pytest.approx(0.1)


def test_classes_depend_on_all_years_and_on_the_last_four():
    years = np.arange(2017, 2026)
    ways = {
        "burnt at the end": [0, 0, 0.3, 0.6, 0.85, 1.05, 0, 0, 0],
        "burnt half-way": [0, 0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.1, 0],
        "arrived": [0, 0, 0.25, 0.5, 0.75, 0.95, 0.97, 0.97, 0.97],
        "stopped": [0, 0, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4],
        "sinks a little": [0.3, 0.3, 0.3, 0.29, 0.29, 0.28, 0.28, 0.28, 0.27],
        "sinks": [0.6, 0.6, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3],
        "grows": [0, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
        "slow": [0, 0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14],
    }
    table = straight(["r1", "r2", *ways], [[1] * 9, [1] * 9, *ways.values()], years)
    found = recovery(table, references=["r1", "r2"], start_years=dict.fromkeys(ways, 2019)).sites.set_index("site_id")
    assert found["group"].to_dict() == {
        "burnt at the end": "declining", "burnt half-way": "declining", "arrived": "recovering", "stopped": "stalled",
        "sinks a little": "stalled", "sinks": "declining", "grows": "recovering", "slow": "stalled",
    }  # fmt: skip
    assert found["years_to_80"].notna().to_dict() == {name: name == "arrived" for name in ways}
    assert found["expected_years_to_80"].notna().to_dict() == {name: name == "grows" for name in ways}
    assert found.loc["grows", "expected_years_to_80"] == pytest.approx(7)  # 0.7 six years after its start, 0.1 a year
    assert "it had 100% in 2022" in found.loc["burnt at the end", "evidence"]
    assert "last 4 years" in found.loc["stopped", "evidence"]


def test_one_reference_is_enough_for_a_share():
    table = straight(["r", "s"], [[1] * 5, [0, 0, 0.25, 0.5, 0.75]], np.arange(2018, 2023))
    near = table.copy()  # 26 degrees from start to reference: near for land, not for one cover
    p, r = table[["A01"]].to_numpy(), normalize(E[0] + 0.5 * E[1])
    near[list(BANDS)] = (1 - p) * E[0] + p * r
    for rows in (table, near):
        found = recovery(rows, references=["r"], start_years={"s": 2020}).sites.iloc[0]
        assert found["status"] == "ok"
        assert found["share_low"] <= found["share"] <= found["share_high"]
        assert found["share"] == pytest.approx(0.75, abs=1e-6)


def test_rows_without_sizes_and_in_any_order_are_enough():
    sim = simulate(ratio=1.0, n_sites=60, seed=2)
    table = sim.table[["site_id", "year", *BANDS]]
    starts = sim.start.dropna().to_dict()
    found = recovery(table, references=sim.reference_ids, start_years=starts)
    mixed = recovery(table.sample(frac=1, random_state=0), references=sim.reference_ids, start_years=starts)
    same = mixed.sites.set_index("site_id").loc[found.sites["site_id"]].reset_index()
    pd.testing.assert_frame_equal(same, found.sites, check_exact=True)
    whole = recovery(sim.table, references=sim.reference_ids, start_years=starts)
    assert (found.sites["share"] - whole.sites["share"]).abs().max() < 0.1
    assert np.isfinite(found.sites[["share_low", "share_high"]]).all(axis=None)
