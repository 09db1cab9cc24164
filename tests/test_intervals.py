"""Confidence intervals and what they are made of: scatter of few sites, yearly noise, Student's t; real vectors."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulated_scenes import simulate_scene
from simulated_sites import simulate

from benchmarks.semireal import SHAPES, make_case, read_series
from gee_polygons.alphaearth import BANDS
from gee_polygons.change.numerics import student_t
from gee_polygons.embeddings.directional import normalize
from gee_polygons.recovery import recovery
from gee_polygons.recovery.trajectories import LAND_SCATTER, SITE_DIRECTIONS, Cover, fill_gaps, yearly_noise

E = np.eye(64)


@pytest.mark.parametrize("m", [2, 3, 10])
def test_the_error_of_the_mean_of_few_sites_is_student_s_t(m):
    # 90 % of the intervals of repeated samples hold the true mean, where sites differ in as many directions as on land
    rng = np.random.default_rng(m)
    inside = []
    for _ in range(400):
        own = rng.normal(size=(m, int(SITE_DIRECTIONS))) @ E[: int(SITE_DIRECTIONS)] * 0.05
        cover = Cover.of(own[:, None])
        inside.append(abs(own.mean(axis=0)[2]) <= np.sqrt(cover.square_of_half_width(0.9) / m))
    assert 0.87 <= np.mean(inside) <= 0.94


def test_scatter_of_sites_by_hand():
    units = np.stack([E[0] + 0.1 * E[1], E[0] - 0.1 * E[1]])[:, None]
    found = Cover.of(units)
    assert found.scatter == pytest.approx(2 * 0.1**2)
    assert found.square_of_half_width(0.9) == pytest.approx(2.015**2 * 0.02 / 5, rel=1e-3)  # t of five
    assert Cover.of(units[:1]).scatter == LAND_SCATTER


def test_yearly_noise_is_found_again():
    rng = np.random.default_rng(0)
    size = np.sqrt(0.01 * np.exp(-np.arange(64) / 12) / np.exp(-np.arange(64) / 12).sum())
    units = E[0] + rng.normal(size=(60, 1, 64)) * 0.1 + rng.normal(size=(60, 9, 64)) * size
    assert yearly_noise(units) == pytest.approx(0.01, rel=0.05)
    assert yearly_noise(units, lost=0.5) == pytest.approx(0.02, rel=0.05)
    assert yearly_noise(units[:1, :1]) > 0  # nothing is known: a constant


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_quantiles_of_student_s_t(confidence):
    scipy_stats = pytest.importorskip("scipy.stats")
    freedom = np.array([1, 1.0005, 1.3, 1.7, 2, 2.5, 3, 5, 8, 17, 40, 100, 500, 1e4, 1e9])
    expected = scipy_stats.t.ppf((1 + confidence) / 2, freedom)
    assert [student_t(nu, confidence) for nu in freedom] == pytest.approx(expected, rel=5e-4)


def test_a_gap_in_one_reference_doesn_t_move_the_mean():
    units = normalize(E[0] + 0.2 * np.array([[E[1]], [-E[1]], [E[2]]]) + 0.05 * E[3] * np.arange(4)[None, :, None])
    holed = units.copy()
    holed[0, 2] = np.nan
    assert np.abs(np.mean(fill_gaps(holed) - units, axis=0)).max() < 0.02
    assert np.abs(np.nanmean(holed, axis=0) - units.mean(axis=0)).max() > 0.05
    assert fill_gaps(units) == pytest.approx(units, abs=0)


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
    assert np.mean(inside) >= 0.80  # three scenes, whose sites share references: the benchmark has more
    assert np.mean(errors) <= 0.1


# --- real vectors ---

POINTS = Path(__file__).parents[2] / "shared/data/points_8_scenes_2017_2024_int8.npz"


def measured_on_real_land(scenes, *, n_references, with_controls):
    """Return error of the share, whether the interval held, and its width, over all site-years since the start."""
    vectors, years = read_series(POINTS)
    rng, found = np.random.default_rng(0), []
    for scene, size, shuffled, shape, amount in product(scenes, (5, 20), (False, True), SHAPES[:2], (0.25, 0.5, 1.0)):
        options = {"size": size, "shuffled": shuffled, "amount": amount, "shape": shape}
        case = make_case(vectors[scene], years, **options, seed=7)
        names = np.array(case.sites)
        starts = dict(zip(names[case.start > 0], case.start[case.start > 0].tolist(), strict=True))
        references = rng.permutation(case.references)[:n_references].tolist()
        background = case.controls if with_controls else "references"
        rows = recovery(case.table, references=references, start_years=starts, background=background).yearly
        rows = rows[(rows["years_since_start"] >= 0) & rows["share"].notna()]
        truth = case.progress[np.searchsorted(names, rows["site_id"].to_list()), rows["year"] - years[0]]
        held = (rows["share_low"] - 1e-9 <= truth) & (truth <= rows["share_high"] + 1e-9)
        if len(rows):
            figures = (np.abs(rows["share"] - truth), held, rows["share_high"] - rows["share_low"])
            found.append([float(f.mean()) for f in figures])
    return np.mean(found, axis=0)


@pytest.mark.slow
@pytest.mark.skipif(not POINTS.exists(), reason="real points are development data, not part of the project")
@pytest.mark.parametrize("with_controls", [True, False])
def test_shares_and_intervals_hold_on_real_vectors(with_controls):
    error, held, _ = measured_on_real_land([5, 6], n_references=9, with_controls=with_controls)
    assert error <= 0.065
    assert 0.85 <= held <= 0.97
    few = measured_on_real_land([5, 6], n_references=2, with_controls=with_controls)
    assert 0.8 <= few[1] <= 0.97


def test_stand_ins_that_differ_widen_the_interval():
    sim = simulate(ratio=1.0, n_sites=60, seed=3)
    name = sim.start.dropna().index[0]
    table = sim.table[(sim.table["site_id"] != name) | (sim.table["year"] >= sim.start[name])]
    pasture = recovery(
        table, references=sim.reference_ids, start_years={name: int(sim.start[name])}, degraded=sim.control_ids[:8]
    )
    alike = table[table["site_id"].isin(sim.control_ids[:8])].groupby("year")[list(BANDS)].mean().reset_index()
    copies = [alike.assign(site_id=f"copy-{i}") for i in range(8)]
    same = recovery(
        pd.concat([table, *copies]),
        references=sim.reference_ids,
        start_years={name: int(sim.start[name])},
        degraded=[f"copy-{i}" for i in range(8)],
    )
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
