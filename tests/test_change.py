"""Change: by hand on small series, on simulated sites, and on the sample archive whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated_sites import YEARS, simulate

from gee_polygons.alphaearth import BANDS
from gee_polygons.change import change, ring_sites
from gee_polygons.change.direction import direction_shares
from gee_polygons.change.drift import Drift, robust_location
from gee_polygons.change.numerics import adjusted_p_values, p_to_z, z_to_p
from gee_polygons.change.significance import empirical_null, robust_z
from gee_polygons.embeddings.directional import normalize
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


@pytest.mark.parametrize("background", ["all", None, [0, 1, 2, 3]])
def test_years_that_no_site_has_change_nothing(background):
    rng = np.random.default_rng(0)
    v = np.eye(64)[0] + rng.normal(size=(20, 8, 64)) * 0.01
    v[0, 4:, 1] += 0.5
    table = table_of(v, range(2017, 2025))
    later = table[table["year"] < 2019].assign(year=lambda t: t["year"] + 8, **dict.fromkeys(BANDS, np.nan))
    found, again = (change(t, background=background) for t in (table, pd.concat([table, later])))
    pd.testing.assert_frame_equal(again.sites, found.sites)
    pd.testing.assert_frame_equal(again.yearly, found.yearly)
    pd.testing.assert_frame_equal(again.drift, found.drift)


# --- the pieces, by hand ---


def test_adjusted_p_values_of_the_paper():
    # Benjamini & Hochberg 1995, section 3.2: at 0.05 the first four of fifteen are discoveries
    p = np.array([0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
                  0.6528, 0.7590, 1.0])  # fmt: skip
    q = adjusted_p_values(p)
    assert (q <= 0.05).sum() == 4
    assert q[3] == pytest.approx(0.0095 * 15 / 4)
    assert adjusted_p_values(p[::-1])[::-1].tolist() == q.tolist()


def test_z_and_p_are_each_others_inverse():
    z = np.array([-3.0, 0.0, 1.6448536269514722, 8.0])
    assert p_to_z(z_to_p(z)) == pytest.approx(z)
    assert z_to_p(z)[2] == pytest.approx(0.05)


def test_an_empirical_null_only_ever_makes_tests_more_cautious():
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(0, 1, 600), rng.uniform(5, 30, 400)])
    centre, scale = empirical_null(z)
    assert 0 <= centre < 0.3
    assert 1 <= scale < 1.3
    centre, scale = empirical_null(1.5 + 1.8 * z)
    assert centre == pytest.approx(1.5, abs=0.5)
    assert scale == pytest.approx(1.8, abs=0.5)
    assert empirical_null(z[:10]) == (0.0, 1.0)


def test_robust_z_by_hand():
    lengths = np.array([1.0, 2.0, 3.0, 4.0, 5.0]) ** 1.5  # so that x is 1..5: median 3, MAD 1
    assert robust_z(lengths, np.ones(5, bool)) == pytest.approx((np.arange(1, 6) - 3) * 0.6744897501960817)
    assert np.isnan(robust_z(lengths, np.zeros(5, bool))).all()


def test_robust_location_isn_t_moved_by_a_third_of_outliers():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(90, 64)) * 0.01
    points[:30, 0] += 3.0
    centre, weight = robust_location(points, np.ones(90))
    assert np.linalg.norm(centre) < 0.02
    assert (weight[:30] == 0).all()


@pytest.mark.parametrize("model", ["translation", "rotation"])
def test_vectors_moved_by_a_drift_are_home_again_without_it(model):
    rng = np.random.default_rng(0)
    centre, steps = np.eye(64)[0], rng.normal(size=(3, 64)) * 0.02
    home = normalize(centre + rng.normal(size=(5, 64)) * 0.05)
    if model == "translation":
        moved = normalize(home[:, None] + steps)
    else:  # the smallest rotation from a to b: of the part of a vector that lies in the plane of both
        moved = np.empty((5, 3, 64))
        for y, b in enumerate(normalize(centre + steps)):
            across = normalize(b - (b @ centre) * centre)
            x, z = home @ centre, home @ across
            cos, sin = b @ centre, b @ across
            turned = np.outer(cos * x - sin * z - x, centre) + np.outer(sin * x + cos * z - z, across)
            moved[:, y] = home + turned
    drift = Drift(steps=steps, centre=centre, known=np.ones(3, bool), model=model)
    assert np.abs(drift.remove(moved) - home[:, None]).max() < (1e-9 if model == "rotation" else 0.01)


def test_shares_of_direction_by_hand():
    e = np.eye(64)
    before, after = e[:1], (0.5 * e[0] + 0.3 * e[1] + 0.2 * e[2])[None]
    found = direction_shares(before, after, {"a": e[1], "b": e[2], "same": e[0]}, np.array([2020]), Drift.none(1))
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
    found = change(table_of(v, np.arange(2017, 2025)), level=0.01).sites.set_index("site_id")
    assert found.loc[[0, 1, 2], "kind"].tolist() == ["returned", "persistent", "last year only"]
    assert found.loc[[0, 1, 2], "start"].tolist() == [2020, 2020, 2024]
    assert found.loc[1, "size_deg"] == pytest.approx(np.degrees(np.arctan(0.4)), abs=1)
    assert found.loc[1, "largest_year"] == 2020


@pytest.mark.parametrize("background", ["all", "controls"])
def test_simulated_sites(simulated, background):
    chosen = "all" if background == "all" else simulated.control_ids
    found = change(simulated.table, background=chosen, level=0.1).sites.set_index("site_id")
    true, flag = simulated.start.notna(), found["flag"]
    assert (flag & ~true).sum() / flag.sum() <= 0.1
    near = (found["start"] - simulated.start).abs()[true] <= 1
    assert near.fillna(False).mean() >= 0.95


def test_without_a_background_the_drift_hides_slow_change():
    slow = simulate(ratio=0.5, n_sites=200)
    true = slow.start.notna().to_numpy()
    with_it, without = (change(slow.table, background=b).sites["flag"].to_numpy() for b in ("all", None))
    assert with_it[true].mean() > 0.95
    assert without[true].mean() < 0.7


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
    assert not found.loc[[*controls, "stalled"], "flag"].any()
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


def test_most_sites_may_change_if_each_does_so_in_its_own_way(sample_table):
    with pytest.warns(DataWarning, match="look unchanged"):
        found = change(sample_table, background="all").sites.set_index("site_id")
    still = ["pasture-control", "crop-control", "forest-reference-1", "forest-reference-2", "sub-pixel", "stalled"]
    assert not found.loc[still, "flag"].any()
    changed = found.index.difference([*still, "outside", "pasture-slow"])
    assert found.loc[changed, "flag"].all()
    assert found.loc["cleared", ["start", "kind"]].tolist() == [2021, "persistent"]  # 2020 has no data


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
        ({"drift": "shift"}, "auto, translation, rotation"),
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
