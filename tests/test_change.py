"""Change: by hand on small series, on simulated sites, and on the sample archive whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated_sites import YEARS, simulate

from gee_polygons.alphaearth import BANDS
from gee_polygons.change import change, ring_sites
from gee_polygons.change.background import corrected
from gee_polygons.change.direction import direction_shares
from gee_polygons.change.series import series_from_table
from gee_polygons.change.significance import Tail, adjusted_p_values, robust_z, upper_tail, yearly_departures
from gee_polygons.change.templates import fit_templates
from gee_polygons.errors import DataWarning, UsageError
from gee_polygons.extract import extract_embeddings


def table_of(vectors, years, ids=None):
    n, t, _ = vectors.shape
    table = pd.DataFrame(vectors.reshape(-1, 64), columns=list(BANDS))
    return table.assign(site_id=np.repeat(ids if ids is not None else np.arange(n), t), year=np.tile(years, n))


@pytest.fixture(scope="module")
def simulated():
    return simulate(ratio=1.0, n_sites=200)


@pytest.fixture(scope="module")
def sample_table(sample_sites):
    return extract_embeddings(sample_sites, years=range(2018, 2025), source="sample")


# --- the pieces, by hand ---


def test_adjusted_p_values_of_the_paper():
    # Benjamini & Hochberg 1995, section 3.2: at 0.05 the first four of fifteen are discoveries
    p = np.array([0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
                  0.6528, 0.7590, 1.0])  # fmt: skip
    q = adjusted_p_values(p)
    assert (q <= 0.05).sum() == 4
    assert q[3] == pytest.approx(0.0095 * 15 / 4)
    assert adjusted_p_values(p[::-1])[::-1].tolist() == q.tolist()


def test_by_multiplies_by_the_harmonic_number():
    p = np.array([0.01, 0.02, 0.9])
    assert adjusted_p_values(p, "BY") == pytest.approx(np.minimum(adjusted_p_values(p) * (1 + 1 / 2 + 1 / 3), 1))


def test_the_upper_tail_by_hand():
    tail = Tail(excess=1.0, above_quartile=0.5, median=3.25)
    # 1..10: median 5.5, excesses 0.5 ... 4.5, and five of 1 for what lacks to ten: n = 10, S = 17.5
    sample = np.arange(1.0, 11.0)
    found = upper_tail(np.array([20.0, 5.5, 3.0, np.nan]), sample, tail, is_known=True)
    assert found == pytest.approx([0.5 * (1 + 14.5 / 17.5) ** -10, 0.5, 1.0, np.nan], nan_ok=True)
    # nothing known: the median is the lower quartile, 3.25, and 0.5
    found = upper_tail(np.array([20.0]), sample, tail, is_known=False)
    assert found == pytest.approx(0.5 * (1 + 16.25 / 10) ** -10)
    # two sites don't count: the median is that of real land
    found = upper_tail(np.array([20.0]), sample[:2], tail, is_known=True)
    assert found == pytest.approx(0.5 * (1 + 16.75 / 10) ** -10)


def test_p_values_of_exponential_excesses_are_exact():
    # with an exponential tail and as many unchanged sites as wanted, p of new unchanged sites is uniform
    rng = np.random.default_rng(0)
    tail = Tail(excess=1.0, above_quartile=0.5, median=0.0)
    values = rng.laplace(size=200_000)
    p = upper_tail(values, rng.laplace(size=200_000), tail, is_known=True)
    for level in (0.3, 0.1, 0.01, 0.001):
        assert (p <= level).mean() == pytest.approx(level, rel=0.15)


def test_yearly_departures_and_their_z_scores_by_hand():
    units = np.zeros((5, 4, 64))
    units[:, 1, 0] = np.array([1.0, 2.0, 3.0, 4.0, 5.0]) ** 1.5  # so that x is 1..5: median 3, MAD 1
    units[:, 3, 1] = 2.0
    found = yearly_departures(units, np.arange(2017, 2021))
    assert np.isnan(found[:, 0]).all()
    assert found[:, 1] == pytest.approx(units[:, 1, 0])
    assert found[:, 2] == pytest.approx(np.hypot(units[:, 1, 0] / 2, 1.0))
    assert found[:, 3] == pytest.approx(2.0)
    assert robust_z(found)[:, 1] == pytest.approx((np.arange(1, 6) - 3) * 0.6744897501960817)
    assert np.isnan(robust_z(found)[:, 3]).all()  # no spread
    units[0, 2] = np.nan  # a missing year is interpolated for its neighbours
    assert yearly_departures(units, np.arange(2017, 2021))[0, 1] == pytest.approx(
        np.linalg.norm(units[0, 1] - (units[0, 0] + (units[0, 1] + units[0, 3]) / 2) / 2)
    )


def test_the_median_step_by_hand():
    step = np.array([1.0, 2.0, 9.0]) / 10  # to the second year; 2 counts
    v = np.zeros((3, 4, 64)) + np.eye(64)[0]
    v[:, 1:, 1] = step[:, None]
    table = table_of(v / np.linalg.norm(v, axis=2, keepdims=True), np.arange(2017, 2021))
    drift = corrected(series_from_table(table), [0, 1, 2]).drift[0]
    assert drift[:, 1] == pytest.approx([0.0, *[np.sin(np.arctan(0.2))] * 3])
    assert drift[0].tolist() == [0.0] * 64


def test_the_best_template_by_hand():
    units = np.zeros((3, 6, 64)) + np.eye(64)[0]
    units[0, 3:, 1] += 1.0
    units[1, 2:4, 1] += 1.0
    units[2, 5:, 1] += 1.0
    units += np.random.default_rng(0).normal(size=units.shape) * 1e-3
    fit = fit_templates(units, units)
    assert fit.start.tolist() == [3, 2, 5]
    assert (fit.path[:, -1] == 0).tolist() == [False, True, False]
    assert fit.path[0].tolist() == [0, 0, 0, 1, 1, 1]


def test_shares_of_direction_by_hand():
    e = np.eye(64)
    before, moved = e[:1], (0.3 * e[1] + 0.2 * e[2] - 0.5 * e[0])[None]
    found = direction_shares(before, moved, {"a": e[1], "b": e[2], "same": e[0]}, np.array([2020]), np.zeros((1, 64)))
    assert found.iloc[0].to_dict() == pytest.approx(
        {"towards_a": 0.6, "towards_b": 0.4, "towards_same": 0.0, "towards_fit": 1.0}, abs=1e-9
    )


# --- whole series ---


def test_drift_is_no_site_s_change():
    rng = np.random.default_rng(0)
    site = rng.normal(size=(40, 1, 64)) * 0.05 + np.eye(64)[0]
    step = rng.normal(size=(1, 8, 64)) * 0.05
    v = site + step + rng.normal(size=(40, 8, 64)) * 0.004
    found = change(table_of(v, np.arange(2017, 2025)))
    assert not found.sites["flag"].any()
    rest = found.yearly[~found.yearly["is_baseline"]]
    assert rest["relative_deg"].median() < 0.25 * rest["angle_deg"].median()
    assert found.drift["share"].iloc[1:].min() > 0.9


def test_a_pulse_returns_a_step_persists_and_the_last_year_is_not_classified():
    rng = np.random.default_rng(0)
    v = np.eye(64)[0] + rng.normal(size=(30, 8, 64)) * 0.01
    v[0, 3:5, 1] += 0.4
    v[1, 3:, 1] += 0.4
    v[2, 7:, 1] += 0.4
    found = change(table_of(v, np.arange(2017, 2025)), level=0.1).sites.set_index("site_id")
    assert found.loc[[0, 1, 2], "kind"].tolist() == ["returned", "persistent", "last year only"]
    assert found.loc[[0, 1, 2], "start"].tolist() == [2020, 2020, 2024]
    assert found.loc[1, "size_deg"] == pytest.approx(np.degrees(np.arctan(0.4)), abs=1)
    assert found.loc[1, "largest_year"] == 2020


@pytest.mark.parametrize("background", ["all", "controls"])
def test_simulated_sites(simulated, background):
    chosen = simulated.control_ids if background == "controls" else background
    result = change(simulated.table, background=chosen, level=0.1)
    assert result.is_guaranteed == (background == "controls")
    found = result.sites.set_index("site_id")
    true, flag = simulated.start.notna(), found["flag"]
    assert (flag & ~true).sum() <= 0.13 * flag.sum()
    if background == "all":
        assert flag[true].mean() > 0.5
    if background == "controls":  # otherwise the sites that recover are each other's background
        near = (found["start"] - simulated.start).abs()[true] <= 1
        assert near.fillna(False).mean() >= 0.9


@pytest.mark.parametrize("n_years", range(3, 10))
def test_a_felled_forest_is_found_in_tables_of_three_to_nine_years(n_years):
    rng = np.random.default_rng(0)
    v = np.eye(64)[0] + rng.normal(size=(40, n_years, 64)) * 0.01
    v[0, n_years // 2 :] += np.eye(64)[1] - np.eye(64)[0]
    found = change(table_of(v, np.arange(2017, 2017 + n_years)), background=list(range(20, 40)))
    first = found.sites.iloc[0]
    assert first["flag"]
    assert not first["also_elsewhere"]
    assert first["start"] == 2017 + n_years // 2
    assert first["size_deg"] == pytest.approx(90, abs=3)
    assert found.sites["flag"].sum() == 1


def test_years_without_data_change_nothing(simulated):
    table = simulated.table[simulated.table["site_id"].isin(list(simulated.start.index[:60]) + simulated.control_ids)]
    empty = table[table["year"] == YEARS[0]].assign(**dict.fromkeys(BANDS, np.nan))
    longer = pd.concat([table, *(empty.assign(year=year) for year in (2015, 2026, 2027))])
    for background in (simulated.control_ids, "all"):
        one, two = change(table, background=background), change(longer, background=background)
        pd.testing.assert_frame_equal(one.sites, two.sites, check_exact=True)
        pd.testing.assert_frame_equal(one.yearly, two.yearly, check_exact=True)


def test_small_changes_are_not_flagged_unless_asked_for():
    rng = np.random.default_rng(0)
    v = np.eye(64)[0] + rng.normal(size=(40, 8, 64)) * 0.001
    v[0, 4:, 1] += np.tan(np.radians(5.0))
    table = table_of(v, np.arange(2017, 2025))
    assert not change(table).sites["flag"].any()
    found = change(table, least_size_deg=1.0).sites
    assert found["flag"].tolist() == [True] + [False] * 39
    assert found["size_deg"].iloc[0] == pytest.approx(5.0, abs=0.2)
    assert found["q"].equals(change(table).sites["q"])


def test_a_change_that_alike_sites_share_is_marked():
    rng = np.random.default_rng(0)
    v = np.eye(64)[0] + rng.normal(size=(60, 8, 64)) * 0.01
    v[:12] += 0.5 * np.eye(64)[2]  # another cover,
    v[:12, 5:, 1] += 0.4  # all of which moves in 2022
    v[12, 5:, 1] += 0.4  # and one site of the controls' cover
    found = change(table_of(v, np.arange(2017, 2025)), background=list(range(30, 60))).sites
    assert found["flag"][:13].all()
    assert found["also_elsewhere"][:12].all()
    assert not found["also_elsewhere"][12]


def test_sites_of_several_scenes_in_one_table_are_warned_of():
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.normal(size=(10, 1, 8, 64)) * 0.02, axis=2)  # each scene its own drift
    v = np.eye(64)[0] + rng.normal(size=(10, 10, 1, 64)) * 0.05 + steps + rng.normal(size=(10, 10, 8, 64)) * 0.003
    table = table_of(v.reshape(100, 8, 64), np.arange(2017, 2025))
    with pytest.warns(DataWarning, match="once per region"):
        change(table, background=list(range(5)))


def test_without_a_background_the_drift_hides_change(simulated):
    true = simulated.start.notna().to_numpy()
    with_it, without = (
        change(simulated.table, background=b).sites["flag"].to_numpy() for b in (simulated.control_ids, None)
    )
    assert with_it[true].mean() > without[true].mean() + 0.2


def test_gaps_and_order_do_not_matter():
    table = simulate(ratio=1.0, n_sites=60, n_controls=20).table
    whole = change(table, background="all").sites
    shuffled = change(table.sample(frac=1, random_state=1), background="all").sites
    merged = whole.merge(shuffled, on="site_id", suffixes=("", "_2"))
    assert (merged["flag"] == merged["flag_2"]).all()
    hole = table["site_id"].eq("site-0000") & table["year"].isin(YEARS[3:])
    table.loc[hole, list(BANDS)] = np.nan
    gone = table["site_id"].eq("site-0001") & table["year"].ne(YEARS[0])
    found = change(table[~gone], background="all")
    assert found.sites["n_years"].iloc[:2].tolist() == [3, 1]
    assert found.sites["kind"].iloc[1] == "no data"
    assert pd.isna(found.sites["p"].iloc[1])
    assert len(found.yearly) == len(table)


def test_the_sample_archive_tells_its_own_story(sample_table, sample_sites):
    controls = ["pasture-control", "crop-control", "forest-reference-1", "forest-reference-2"]
    labels = {"pasture-control": "pasture", "crop-control": "crop", "forest-reference-1": "forest"}
    prototypes = sample_table.assign(label=sample_table["site_id"].map(labels)).dropna(subset=["label"])
    found = change(sample_table, background=controls, prototypes=prototypes).sites.set_index("site_id")
    assert found.loc[["pasture-fast", "crop-to-forest", "cleared", "tile-edge"], "flag"].all()
    assert not found.loc[controls, "flag"].any()
    assert found.loc[["stalled"], "size_deg"].max() < 12  # it does grow, by 1.5 % a year
    assert found.loc["cleared", ["start", "kind"]].tolist() == [2021, "persistent"]
    assert found.loc["cleared", "towards_pasture"] > 0.7
    assert found.loc["pasture-fast", "towards_forest"] > 0.7
    assert found.loc["outside", "kind"] == "no data"


def test_rings_are_a_background(sample_table, sample_sites):
    rings = ring_sites(sample_sites[:8], outer_m=300)
    table = extract_embeddings(rings, years=range(2018, 2025), source="sample")
    found = change(sample_table[sample_table["site_id"].isin(rings.site_ids)], background=table)
    assert "own ring" in found.background
    sites = found.sites.set_index("site_id")
    assert sites.loc["pasture-fast", "flag"]
    for site in sample_sites[:8]:
        assert not any(ring.polygon.intersection(site.polygon).area > 1e-12 for ring in rings)


def test_a_few_sites_are_no_background(sample_table):
    own = sample_table[sample_table["site_id"].isin(["pasture-fast", "stalled"])]
    with pytest.warns(DataWarning, match="a table of 2 sites is too small") as said:
        found = change(own)
    assert said[0].filename == __file__  # where the reader called it
    assert found.sites["flag"].tolist() == [True, False]
    assert found.background.startswith("nothing")
    assert found.yearly["angle_deg"].equals(found.yearly["relative_deg"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": 1.0}, "between 0 and 1"),
        ({"background": "none"}, "'all', a list"),
        ({"background": ["nobody"]}, "'nobody' is not among"),
        ({"background": []}, "names no site"),
        ({"baseline": 1999}, "1999 isn't in the table"),
        ({"adjustment": "bonferroni"}, "'BH' or 'BY'"),
        ({"least_size_deg": -1.0}, "least_size_deg"),
        ({"prototypes": {"a": [1.0, 2.0]}}, "64 numbers"),
    ],
)
def test_wrong_calls_say_what_to_do(simulated, options, words):
    with pytest.raises(UsageError, match=words):
        change(simulated.table, **options)


def test_tables_that_aren_t_one_say_so(simulated):
    with pytest.raises(UsageError, match="'site_id'"):
        change(simulated.table.drop(columns="site_id"))
    with pytest.raises(UsageError, match="twice"):
        change(pd.concat([simulated.table, simulated.table.iloc[:1]]))
    with pytest.raises(UsageError, match="one year only"):
        change(simulated.table[simulated.table["year"] == 2020])
    with pytest.raises(UsageError, match="nothing to compare"):
        change(simulated.table.assign(**dict.fromkeys(BANDS, np.nan)))


def test_two_years_of_many_sites_have_angles_and_no_test():
    rng = np.random.default_rng(0)
    v = np.eye(64)[0] + rng.normal(size=(50, 2, 64)) * 0.01 + np.array([[[0.0] * 64], [[0.05] * 64]]).reshape(1, 2, 64)
    found = change(table_of(v, [2023, 2024]))
    assert found.sites["kind"].eq("no data").all()
    assert found.yearly["relative_deg"].max() < found.yearly["angle_deg"].max() / 2


def test_a_year_that_no_control_has_makes_nothing_a_change():
    rng = np.random.default_rng(0)
    v = np.eye(64)[0] + rng.normal(size=(60, 8, 64)) * 0.02
    v[:20, 4] = np.nan
    found = change(table_of(v, np.arange(2017, 2025)), background=list(range(20)), least_size_deg=0.0).sites
    assert found["flag"].sum() <= 2
