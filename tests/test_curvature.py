"""Curvature of recovery trajectories: its estimate by hand, and confidence intervals on land with curvature."""

import numpy as np
import pandas as pd
import pytest
from simulated_land import simulate_archive, simulate_land
from simulated_sites import simulate

from gee_polygons.alphaearth import BANDS, N_BANDS
from gee_polygons.recovery.curvature import _between_site_variance
from gee_polygons.recovery.estimation import estimate_uncertainty, recovery
from gee_polygons.recovery.roles import Roles
from gee_polygons.recovery.trajectories import Trajectories
from gee_polygons.recovery.uncertainty import Curvature

YEARS = range(2016, 2025)
AXES = np.eye(N_BANDS)


def table_of(curvature: float, *, n_sites: int = 12, noise: float = 0.0, length_deg: float = 40.0) -> pd.DataFrame:
    """Sites that recover from 2018 to 2024, with a curvature in units of the length of their trajectories."""
    rng = np.random.default_rng(5)
    start = AXES[0]
    end = np.cos(np.radians(length_deg)) * AXES[0] + np.sin(np.radians(length_deg)) * AXES[1]
    p = np.clip((np.array(YEARS) - 2017) / 7, 0, 1)[:, None]
    off = curvature * np.linalg.norm(end - start) * AXES[2]
    path = (1 - p) * start + p * end + p * (1 - p) * off
    still = np.repeat(end[None], len(YEARS), axis=0)
    units = np.array([path] * n_sites + [still] * 4)
    units = units + rng.normal(size=units.shape) * noise / np.sqrt(N_BANDS)
    units /= np.linalg.norm(units, axis=2, keepdims=True)
    names = [f"s{i}" for i in range(n_sites)] + [f"ref{i}" for i in range(4)]
    table = pd.DataFrame(units.reshape(-1, N_BANDS), columns=list(BANDS))
    return table.assign(site_id=np.repeat(names, len(YEARS)), year=list(YEARS) * len(names), n_pixels=400.0)


def call(table):
    names = table["site_id"].unique()
    return {
        "references": [n for n in names if n.startswith("ref")],
        "start_years": {n: 2018 for n in names if n.startswith("s")},
    }


def measured(table, references, start_years):
    roles = Roles.of(table, references, start_years, "references", None)
    return roles, Trajectories.of(roles.sites, roles.references, roles.starts, roles.fixed.drift)


def curvature_of(table, references, start_years):
    """Return the common and own curvature that are estimated, in units of the length of the trajectories."""
    roles, trajectories = measured(table, references, start_years)
    found = estimate_uncertainty(roles, trajectories).curvature
    length = np.sqrt(np.nanmean(trajectories.position.length_squared))
    return np.sqrt(found.common) / length, np.sqrt(found.own) / length


@pytest.mark.parametrize("curvature", [0.0, 0.3, 0.8])
def test_curvature_is_estimated(curvature):
    common, own = curvature_of(table := table_of(curvature), **call(table))
    assert common == pytest.approx(curvature, rel=0.12, abs=1e-3)  # some of it is taken for noise
    assert own < 0.02 + 0.1 * curvature


def test_noise_is_no_curvature():
    table = table_of(0.0, noise=0.1)
    common, own = curvature_of(table, **call(table))
    assert common < 0.15
    assert own < 0.3  # the noise alone, per site: 0.1 / 0.25 / 0.68 = 0.6
    sim = simulate(ratio=1.0, n_sites=120)
    common, own = curvature_of(sim.table, sim.reference_ids, sim.planted)
    assert common < 0.2
    assert own < 0.2


def test_random_effects_by_hand():
    # mean 2, Q = 1 + 1, and DerSimonian & Laird's (Q - (k - 1)) / (sum w - sum w^2 / sum w) = (2 - 1) / (2 - 1)
    assert _between_site_variance(np.array([[1.0], [3.0]]), np.array([1.0, 1.0])) == pytest.approx(1.0)
    # w = 1, 1/2, 1/4: mean (1 + 2 + 1) / 1.75, Q = 4.8571, (Q - 2) / (1.75 - 1.3125 / 1.75) = 2.8571
    found = _between_site_variance(np.array([[1.0], [4.0], [4.0]]), np.array([1.0, 2.0, 4.0]))
    assert found == pytest.approx(1.8571428)
    assert _between_site_variance(np.array([[1.0], [1.0]]), np.array([1.0, 1.0])) == 0.0
    assert _between_site_variance(np.array([[1.0]]), np.array([1.0])) == 0.0


def test_curvature_widens_the_interval_half_way_and_not_at_the_ends():
    widths = {}
    for curvature in (0.0, 0.8):
        table = table_of(curvature, noise=0.02)
        found = recovery(table, **call(table)).yearly
        widths[curvature] = (found["share_high"] - found["share_low"]).groupby(found["year"]).mean()
    wider = widths[0.8] - widths[0.0]
    assert wider[2021] > 0.1
    assert abs(wider[2024]) < 0.2 * wider[2021]


def test_a_site_s_interval_does_not_depend_on_its_place_among_others():
    _, trajectories = measured(table := table_of(0.5, noise=0.02), **call(table))
    curvature = Curvature(common=0.04, own=0.02, directions=9.0)
    drawn = curvature.draw(trajectories.position, 50, np.random.default_rng(1))
    part = curvature.draw(trajectories.position.take(slice(3, 7)), 50, np.random.default_rng(1))
    assert np.array_equal(part, drawn[:, 3:7])


def held(sim):
    found = recovery(sim.table, references=sim.reference_ids, start_years=sim.planted).yearly
    found = found[(found["status"] == "ok") & (found["years_since_start"] >= 0) & found["share"].notna()]
    truth = sim.truth(found)
    assert np.abs(found["share"] - truth).mean() < 0.1
    return float(((found["share_low"] - 1e-9 <= truth) & (truth <= found["share_high"] + 1e-9)).mean())


def test_intervals_hold_on_the_sample_archive():
    assert 0.85 <= held(simulate_archive()) <= 0.95


def test_intervals_hold_on_other_land():
    # each land is one draw of the curvature, which all its sites share: the benchmark has 32
    assert 0.75 <= np.mean([held(simulate_land(seed=seed)) for seed in (3, 5, 8, 12)]) <= 0.98
