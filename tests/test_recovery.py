"""Recovery: shares by hand, intervals on simulated sites, and the sample archive's own truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated_sites import simulate

from gee_polygons.alphaearth import BANDS
from gee_polygons.change.numerics import student_t
from gee_polygons.embeddings.directional import normalize
from gee_polygons.errors import UsageError
from gee_polygons.extract import extract_embeddings
from gee_polygons.recovery import recovery
from gee_polygons.recovery.results import interpolated_year
from gee_polygons.recovery.trajectories import DIRECTIONS, Cover, measure

REFERENCES = ["forest-reference-1", "forest-reference-2"]


@pytest.fixture(scope="module")
def sample_table(sample_sites):
    return extract_embeddings(sample_sites, years=range(2018, 2025), source="sample")


def placed(units, start, target, noise=1e-4):
    """Measure one site, shape (years, 64), after a year in its starting state, on its way to references all alike."""
    years = np.vstack([start, np.atleast_2d(units)])
    references = Cover(mean=np.tile(target, (len(years), 1)), scatter=0.0, n=2)
    return measure(years[None], np.eye(1, len(years), dtype=bool), references, None, noise, 0.9)


@pytest.mark.parametrize("p", [-0.1, 0.0, 0.3, 0.5, 1.0, 1.2])
def test_the_share_of_a_mixture_is_its_share(p):
    rng = np.random.default_rng(0)
    a, r = normalize(rng.normal(size=(2, 64)))
    u = normalize((1 - p) * a + p * r)
    place = placed(u, a, r)
    assert float(place.share[0, 1]) == pytest.approx(p, abs=1e-9)
    assert float(place.off_deg[0, 0, 1]) == pytest.approx(0, abs=1e-5)
    assert float(place.noise[0, 1, 1]) == pytest.approx(0, abs=1e-12)


def test_noise_along_the_trajectory_is_taken_from_noise_across_it():
    rng, e = np.random.default_rng(1), np.eye(64)
    # noise that is the same in 17 directions, of which the trajectory is one
    sample = normalize(e[0] + rng.normal(size=(400, 17)) @ e[1:18] * np.sqrt(0.01 / 17))
    places = [placed(u, e[0], e[1], 0.01) for u in sample]
    expected = np.mean([place.noise[0, 1, 1] for place in places]) / student_t(DIRECTIONS, 0.9) ** 2
    assert expected == pytest.approx(np.mean([place.share[0, 1] ** 2 for place in places]), rel=0.25)


def test_the_off_trajectory_angle_has_an_interval_that_holds_the_true_angle():
    rng = np.random.default_rng(2)
    e = np.eye(64)
    for true in (0.0, 10.0, 30.0):
        u = np.cos(np.radians(true)) * e[0] + np.sin(np.radians(true)) * e[5]
        # 17 directions of the same variance, as real noise has
        sample = normalize(u + rng.normal(size=(400, 17)) @ np.eye(64)[6:23] * np.sqrt(0.004 / 17))
        off, low, high = placed(sample, e[0], e[1], 0.004).off_deg[:, 0, 1:]
        assert ((low <= off) & (off <= high)).all()
        assert np.mean((low <= true + 1e-9) & (true <= high)) >= 0.85


def test_the_year_a_level_is_reached_is_between_years_and_must_last():
    years = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    assert interpolated_year(years, np.array([0, 0.5, 0.7, 0.9, 1.0]), 0.8) == pytest.approx(2.5)
    assert interpolated_year(years, np.array([0, 0.9, 0.2, 0.9, 1.0]), 0.8) == pytest.approx(2 + 0.6 / 0.7)
    assert np.isnan(interpolated_year(years, np.zeros(5), 0.8))


def test_without_a_background_slow_recovery_is_misjudged():
    sim = simulate(ratio=0.5, n_sites=120)
    starts = sim.start.dropna().to_dict()
    errors = []
    for background in ("references", None):
        found = recovery(sim.table, references=sim.reference_ids, start_years=starts, background=background).yearly
        truth = sim.truth(found)
        errors.append(np.abs(found["share"] - truth).mean())
    assert errors[1] > 1.3 * errors[0]  # on real points 0.032 against 0.027, with controls 0.021


def test_the_sample_archive_tells_its_own_story(sample_table, sample_sites):
    found = recovery(sample_table, references=REFERENCES, start_years=sample_sites)
    sites = found.sites.set_index("site_id")
    assert sites.loc[["pasture-fast", "multipolygon", "tile-edge"], "group"].eq("recovering").all()
    assert sites.loc["stalled", "group"] == "stalled"
    assert sites.loc["cleared", ["status", "group"]].tolist() == ["at_reference", "declining"]
    shares = sites.loc[["pasture-fast", "pasture-medium", "pasture-east", "stalled"], "share"]
    assert shares.is_monotonic_decreasing
    assert sites.loc["pasture-fast", "rank"] < sites.loc["stalled", "rank"]
    assert "pasture-control" not in sites.index  # no start year: not a restoration site
    assert not set(REFERENCES) & set(sites.index)
    yearly = found.yearly
    ok = yearly[yearly["share"].notna()]
    assert ((ok["share_low"] <= ok["share"]) & (ok["share"] <= ok["share_high"])).mean() > 0.99


def test_a_site_without_years_before_its_start_has_no_share_unless_degraded_sites_are_given(sample_table):
    starts = {"pasture-fast": 2017, "pasture-medium": 2019}
    found = recovery(sample_table, references=REFERENCES, start_years=starts).sites.set_index("site_id")
    assert found.loc["pasture-fast", ["status", "group"]].tolist() == ["no_baseline", "no evidence"]
    assert np.isnan(found.loc["pasture-fast", "share"])
    assert found.loc["pasture-medium", "status"] == "ok"
    stood_in = recovery(sample_table, references=REFERENCES, start_years=starts, degraded=["pasture-control"])
    assert stood_in.sites.set_index("site_id").loc["pasture-fast", "share"] > 0.7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"references": ["nobody"]}, "'nobody' is not among"),
        ({"references": []}, "names no site"),
        ({"start_years": {}}, "no site of the table"),
        ({"start_years": 2019}, "mapping from site id"),
        ({"confidence": 90}, "between 0 and 1"),
        ({"references": ["outside"]}, "no reference site has data|no year|data"),
    ],
)
def test_wrong_calls_say_what_to_do(sample_table, options, words):
    with pytest.raises(UsageError, match=words):
        recovery(sample_table, **({"references": REFERENCES, "start_years": {"pasture-fast": 2019}} | options))


def test_a_trajectory_by_hand():
    way = np.linspace(0, 1, 5)[:, None]
    e = np.eye(64)
    table = pd.DataFrame(np.vstack([(1 - way) * e[0] + way * e[1], e[[1] * 5]]), columns=list(BANDS))
    table = table.assign(site_id=["s"] * 5 + ["r"] * 5, year=[*range(2018, 2023)] * 2)
    found = recovery(table, references=["r"], start_years={"s": 2019})
    row = found.sites.iloc[0]
    assert row["rate"] == pytest.approx(0.25)
    assert row["years_to_80"] == pytest.approx(2.2)
    assert row["group"] == "recovering"


# --- what must never be called recovering ---

E = np.eye(64)
SPECTRUM = np.sqrt(1 / np.arange(1, 65) ** 0.75)[np.random.default_rng(9).permutation(64)]
SPECTRUM /= np.linalg.norm(SPECTRUM)


def land_with_clear_cuts(n=1_520, n_felled=80, between_references=0.05, years=range(2017, 2025), seed=0):
    """Pasture that regrows, and forest like the references that is felled; drift and noise as on real land."""
    rng = np.random.default_rng(seed)
    t = len(years)

    def scatter(*shape):
        return rng.normal(size=(*shape, 64)) * SPECTRUM

    pasture, forest, cut = normalize(np.array([E[0] - 0.4 * E[1], E[0] + 0.4 * E[1], E[0] - 0.1 * E[1] + 0.5 * E[2]]))
    start = rng.integers(2, t - 2, n)
    felled = np.arange(n) < n_felled
    before = np.where(felled[:, None], forest, pasture) + scatter(n) * 0.2
    after = np.where(felled[:, None], cut, forest) + scatter(n) * 0.15
    since = np.arange(t)[None] - start[:, None] + 1
    p = np.where(felled[:, None], since > 0, np.clip(since * 0.12, 0, 1))[..., None]
    sites = (1 - p) * before[:, None] + p * after[:, None]
    references = np.repeat((forest + scatter(10) * between_references)[:, None], t, axis=1)
    controls = np.repeat((pasture + scatter(10) * 0.2)[:, None], t, axis=1)
    all_sites = np.concatenate([sites, references, controls])
    all_sites = normalize(all_sites + np.cumsum(scatter(t) * 0.1, axis=0) + scatter(*all_sites.shape[:2]) * 0.05)
    ids = [*(f"s{i}" for i in range(n)), *(f"r{i}" for i in range(10)), *(f"c{i}" for i in range(10))]
    table = pd.DataFrame(all_sites.reshape(-1, 64), columns=list(BANDS))
    table = table.assign(site_id=np.repeat(ids, t), year=list(years) * len(ids))
    return table, {f"s{i}": years[0] + int(start[i]) for i in range(n)}, {f"s{i}" for i in range(n_felled)}


R10, C10 = [f"r{i}" for i in range(10)], [f"c{i}" for i in range(10)]


@pytest.mark.parametrize("between_references", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("background", ["references", C10])
def test_no_felled_forest_is_recovering(between_references, background):
    table, starts, felled = land_with_clear_cuts(between_references=between_references)
    sites = recovery(table, references=R10, start_years=starts, background=background).sites
    is_felled = sites["site_id"].isin(felled)
    assert not sites.loc[is_felled, "group"].isin(["recovering", "at reference"]).any()
    assert sites.loc[is_felled, "group"].eq("declining").mean() > 0.9
    assert sites.loc[is_felled, "rank"].isna().all()
    assert sites.loc[~is_felled, "group"].eq("recovering").mean() > 0.9
    recovering = sites[sites["group"] == "recovering"]
    assert (recovering["similarity"] >= recovering["similarity_start"]).all()
    assert (recovering["off_way_deg"] <= 20).all()


def test_forest_that_stays_is_at_reference():
    table, starts, felled = land_with_clear_cuts(n=100, n_felled=20, between_references=0.2)
    still = table[table["site_id"].isin(felled)].copy()
    first = still.groupby("site_id")[list(BANDS)].transform("first").to_numpy()
    controls = table[table["site_id"].eq("c0")].set_index("year")[list(BANDS)]
    drift = controls.to_numpy() - controls.to_numpy()[0]
    still[list(BANDS)] = first + np.tile(drift, (20, 1))
    table = pd.concat([table[~table["site_id"].isin(felled)], still])
    sites = recovery(table, references=R10, start_years=starts, background=C10).sites
    sites = sites[sites["site_id"].isin(felled) & sites["status"].eq("at_reference")]
    assert len(sites) > 5
    assert sites["group"].eq("at reference").all()
    assert sites[["share", "rank"]].isna().all(axis=None)


def test_a_site_that_becomes_something_else_is_not_recovering():
    # towards the references, and further towards another cover: more similar than before, but far off the trajectory
    table, starts, _ = land_with_clear_cuts(n=40, n_felled=0)
    odd = table["site_id"].eq("s0")
    own = table.loc[odd, "year"].to_numpy() - starts["s0"] + 1
    moved = table.loc[odd, list(BANDS)].to_numpy() + np.clip(own * 0.15, 0, 1)[:, None] * E[7]
    table.loc[odd, list(BANDS)] = moved
    row = recovery(table, references=R10, start_years=starts).sites.set_index("site_id").loc["s0"]
    assert row["off_way_deg"] > 20
    assert row["off_way_low"] > 15
    assert row["group"] in ("no evidence", "declining")
    assert np.isnan(row["rank"]) if row["rank"] is not pd.NA else True


# --- years without data ---


def with_empty_years(table, years):
    empty = table.drop_duplicates("site_id")
    rows = [empty.assign(year=year, **dict.fromkeys(BANDS, np.nan)) for year in years]
    return pd.concat([table, *rows]).sort_values(["site_id", "year"], kind="stable")


@pytest.mark.parametrize("background", ["references", C10, "all", None])
def test_years_that_no_site_has_change_nothing(background):
    table, starts, _ = land_with_clear_cuts(n=60, n_felled=5)
    plain = table.sort_values(["site_id", "year"], kind="stable")
    gaps = with_empty_years(table, [2016, 2025, 2026])
    found = [recovery(t, references=R10, start_years=starts, background=background) for t in (plain, gaps)]
    pd.testing.assert_frame_equal(found[0].yearly, found[1].yearly, check_exact=True)
    pd.testing.assert_frame_equal(found[0].sites, found[1].sites, check_exact=True)


@pytest.mark.parametrize("missing", ["one ring", "all rings", "one control", "all controls"])
def test_a_gap_in_the_background_does_not_lose_its_movement(missing):
    years, rng = np.arange(2017, 2025), np.random.default_rng(3)
    drift = np.cumsum(rng.normal(size=(8, 64)) * SPECTRUM * 0.15, axis=0)
    p = np.clip((years - 2019) / 4, 0, 1)[:, None]
    pasture, forest = E[0] - 0.4 * E[1], E[0] + 0.4 * E[1]
    ids = [*(f"s{i}" for i in range(6)), "r0", "r1"]
    sites = np.array([(1 - p) * pasture + p * forest] * 6 + [np.tile(forest, (8, 1))] * 2) + drift
    table = pd.DataFrame(sites.reshape(-1, 64), columns=list(BANDS))
    table = table.assign(site_id=np.repeat(ids, 8), year=np.tile(years, len(ids)))
    ring = pd.DataFrame(np.tile(pasture + drift, (len(ids), 1)), columns=list(BANDS))
    ring = ring.assign(site_id=np.repeat(ids if "ring" in missing else [f"c{i}" for i in range(len(ids))], 8))
    ring = ring.assign(year=np.tile(years, len(ids)))
    first = ring["site_id"].iloc[0]
    gap = ring["year"].eq(2020) & (ring["site_id"].eq(first) if "one" in missing else True)
    ring.loc[gap, list(BANDS)] = np.nan
    background = ring
    if "control" in missing:
        table, background = pd.concat([table, ring]), ring["site_id"].unique().tolist()
    found = recovery(table, references=["r0", "r1"], start_years=dict.fromkeys(ids[:6], 2019), background=background)
    assert found.sites["share"].to_numpy() == pytest.approx(1.0, abs=0.02)
