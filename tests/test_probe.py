"""The probe: figures by hand, and real labelled points within regions and across them."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from benchmarks.bench_probe import PLACES, coverage
from gee_polygons.alphaearth import BANDS
from gee_polygons.cli.main import main
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import DependencyError, InputFileError, OutputError, UsageError
from gee_polygons.probe import (
    ProbeResult,
    ValueResult,
    compare_block_sizes,
    cross_validate,
    fit_probe,
    load_probe,
    predict_sites,
    spatial_blocks,
    train_probe,
)
from gee_polygons.probe.validation import _balanced_accuracy

POINTS = Path(__file__).parents[2] / "shared" / "data"


def blobs(n=120, seed=0):
    """Twelve places that look alike inside, two classes that mean little beyond them."""
    rng = np.random.default_rng(seed)
    place = np.arange(n) % 12
    v = np.eye(64)[0] + rng.normal(size=(12, 64))[place] * 0.2 + rng.normal(size=(n, 64)) * 0.02
    table = pd.DataFrame(v, columns=list(BANDS)).assign(lon=place * 1.0, lat=0.0, label=np.where(place % 2, "a", "b"))
    return table


def test_balanced_accuracy_by_hand():
    assert _balanced_accuracy(np.array([[8.0, 2.0], [5.0, 5.0]])) == pytest.approx((0.8 + 0.5) / 2)
    assert _balanced_accuracy(np.array([[3.0, 1.0], [0.0, 0.0]])) == pytest.approx(
        0.75
    )  # a class that isn't there doesn't count


def test_blocks_are_square_metres_at_any_latitude():
    lon, lat = np.meshgrid(np.arange(0, 1, 0.01), np.arange(60, 60.5, 0.01))
    blocks = spatial_blocks(lon.ravel(), lat.ravel(), 10_000)
    squares = (0.99 * 111_320 * np.cos(np.radians(60.25)) + 1e4) * (0.49 * 111_320 + 1e4) / 1e8  # cut ones count too
    assert len(np.unique(blocks)) == pytest.approx(squares, rel=0.2)


@pytest.mark.parametrize("model", ["knn", "logistic"])
def test_a_random_split_flatters_and_says_so(model):
    pytest.importorskip("sklearn", reason="scikit-learn isn't installed: pip install 'gee_polygons[probe]'")
    spatial = cross_validate(blobs(), "label", model=model)
    flattering = cross_validate(blobs(), "label", model=model, random_split=True)
    assert flattering.balanced_accuracy > 0.95 > spatial.balanced_accuracy + 0.1
    assert "RANDOM SPLIT" in str(flattering)
    assert "blocks of 5000 m" in str(spatial)
    assert spatial.confusion.to_numpy().sum() == 120
    assert spatial.low <= spatial.balanced_accuracy <= spatial.high


def test_wrong_calls_say_what_to_do(monkeypatch):
    table = blobs()
    with pytest.raises(UsageError, match="random_split=True"):
        cross_validate(table.drop(columns=["lon", "lat"]), "label")
    with pytest.raises(UsageError, match="one group"):
        cross_validate(table, "label", groups=[1] * 120)
    with pytest.raises(UsageError, match="at least two classes"):
        cross_validate(table, ["a"] * 120)
    with pytest.raises(UsageError, match="'nolabel'"):
        cross_validate(table, "nolabel")
    with pytest.raises(UsageError, match="as many labels"):
        cross_validate(table, ["a"])
    with pytest.raises(UsageError, match="knn, logistic"):
        fit_probe(table, "label", model="forest")
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(DependencyError, match=r"gee_polygons\[probe\]"):
        fit_probe(table, "label")


def patchy(n=900, side=2_000.0, seed=0):
    """Points over 20 x 20 km; vectors and labels follow patches of a few hundred metres and a gradient."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 20_000, (2, n))
    centers = rng.uniform(0, 20_000, (150, 2))
    patch = ((x[:, None] - centers[:, 0]) ** 2 + (y[:, None] - centers[:, 1]) ** 2).argmin(axis=1)
    v = np.eye(64)[0] + rng.normal(size=(150, 64))[patch] * 0.1 + rng.normal(size=(n, 64)) * 0.02
    return pd.DataFrame(v, columns=list(BANDS)).assign(
        lon=x / 111_320, lat=y / 111_320, patch=patch, label=rng.choice(["a", "b"], 150)[patch]
    )


def test_a_buffer_keeps_neighbours_of_what_is_held_out_from_being_learnt(monkeypatch):
    pytest.importorskip("sklearn", reason="scikit-learn isn't installed: pip install 'gee_polygons[probe]'")
    from gee_polygons.probe import validation

    table = patchy()
    place = table[["lon", "lat"]].to_numpy() * 111_320
    nearest = []

    class Recorder:
        def fit(self, x, y):
            self.learnt = x
            return self

        def predict(self, x):
            rows = [np.flatnonzero(np.isin(units[:, 0], v[:, 0])) for v in (self.learnt, x)]
            apart = np.hypot(*(place[rows[0]][:, None] - place[rows[1]]).transpose(2, 0, 1))
            nearest.append(apart.min())
            return np.full(len(x), "a")

    from gee_polygons.embeddings.directional import normalize

    units = normalize(table[list(BANDS)].to_numpy())
    monkeypatch.setattr(validation, "estimator", lambda *_: Recorder())
    found = cross_validate(table, "label", block_m=2_000, folds=8)
    assert found.buffer_m in (2_000, 1_000, 500)  # the block's side, halved where that leaves too little
    assert min(nearest) >= 0.999 * found.buffer_m
    assert f"blocks of 2000 m, buffers of {found.buffer_m:g} m" in str(found)
    assert cross_validate(table, "label", block_m=500).buffer_m == 500
    assert cross_validate(table, "label", block_m=2_000, buffer_m=700).buffer_m == 700
    nearest.clear()
    assert "no buffer" in str(cross_validate(table, "label", block_m=2_000, buffer_m=0))
    assert min(nearest) < 100


def test_block_sizes_beside_a_random_split():
    pytest.importorskip("sklearn", reason="scikit-learn isn't installed: pip install 'gee_polygons[probe]'")
    found = compare_block_sizes(patchy(), "label", (500, 4_000, 30_000), model="knn")
    assert found["block_m"].tolist() == [0, 500, 4_000]  # 30 km hold everything: nothing to hold out
    assert (np.diff(found["balanced_accuracy"]) < 0).all()
    assert found["n_groups"].iloc[2] in (25, 36)
    with pytest.raises(UsageError, match="buffer needs finite places"):
        cross_validate(patchy().drop(columns="lon"), "label", groups="patch", buffer_m=100)
    with pytest.raises(UsageError, match="smaller buffers"):
        cross_validate(patchy(), "label", buffer_m=50_000)
    with pytest.raises(UsageError, match="buffer_m is a length"):
        cross_validate(patchy(), "label", buffer_m=-1)


@pytest.mark.parametrize(("task", "model"), [("classes", "knn"), ("values", "ridge")])
def test_intervals_hold_the_truth_with_few_groups(task, model):
    pytest.importorskip("sklearn", reason="scikit-learn isn't installed: pip install 'gee_polygons[probe]'")
    # 90 % intervals; of 40 studies the binomial's 1 % point is 31. benchmarks/bench_probe.py has more
    places = PLACES["2 classes, uneven, places differ much"]
    assert coverage(places, 6, 40, task=task, model=model)["held"] >= 31 / 40


def test_no_interval_below_five_groups():
    pytest.importorskip("sklearn", reason="scikit-learn isn't installed: pip install 'gee_polygons[probe]'")
    table = blobs().assign(region=np.arange(120) % 4)
    found = cross_validate(table, "label", groups="region", folds=None)
    assert np.isnan([found.low, found.high]).all()
    assert "no interval: 4 groups, 5 are needed" in str(found)
    values = cross_validate(gradient().assign(region=np.arange(240) % 4), "biomass", groups="region", folds=None)
    assert np.isnan([values.r2_low, values.r2_high, values.mae_low, values.mae_high]).all()
    assert "nan" not in str(values)
    # no error among 120 points isn't certainty
    sure = cross_validate(blobs().assign(label=np.where(np.arange(120) % 2, "a", "b")), "label", random_split=True)
    assert sure.balanced_accuracy == sure.high == 1.0
    assert 0.9 < sure.low < 0.99


@pytest.mark.slow
def test_real_points_within_regions_and_across_them():
    pytest.importorskip("sklearn", reason="scikit-learn isn't installed: pip install 'gee_polygons[probe]'")
    files = sorted(POINTS.glob("letocassius_*_2024.csv"))
    if len(files) < 4:
        pytest.skip(f"the four files of labelled points aren't in {POINTS.name}/")
    table = pd.concat([pd.read_csv(f) for f in files], ignore_index=True)
    inside, outside = {}, {}
    for model in ("knn", "logistic"):
        inside[model] = cross_validate(table, "dw_label", model=model, block_m=2_000)
        outside[model] = cross_validate(table, "dw_label", model=model, groups="region", folds=None)
        assert inside[model].balanced_accuracy > outside[model].balanced_accuracy
        assert inside[model].balanced_accuracy > 2 / len(inside[model].recall)
    for model in ("knn", "ridge"):
        near = cross_validate(table, "trees", model=model, block_m=2_000)
        far = cross_validate(table, "trees", model=model, groups="region", folds=None)
        assert near.r2 > far.r2


# --- values ---


def gradient(n=240, seed=0):
    """A value that vectors tell, and places that look alike inside."""
    rng = np.random.default_rng(seed)
    place = np.arange(n) % 24
    value = rng.uniform(0, 1, 24)[place] * 0.7 + rng.uniform(0, 0.3, n)
    v = np.eye(64)[0] + value[:, None] * np.eye(64)[1] + rng.normal(size=(24, 64))[place] * 0.1
    v += rng.normal(size=(n, 64)) * 0.02
    return pd.DataFrame(v, columns=list(BANDS)).assign(lon=place * 1.0, lat=0.0, biomass=value)


@pytest.mark.parametrize("model", ["knn", "ridge"])
def test_values_are_judged_by_places_too(model):
    pytest.importorskip("sklearn", reason="scikit-learn isn't installed: pip install 'gee_polygons[probe]'")
    table = gradient()
    found = cross_validate(table, "biomass", model=model)
    assert isinstance(found, ValueResult)
    rows = found.predicted
    error = rows["true"] - rows["predicted"]
    by_hand = 1 - (error**2).sum() / ((rows["true"] - rows["true"].mean()) ** 2).sum()
    assert found.r2 == pytest.approx(by_hand)
    assert found.mae == pytest.approx(error.abs().mean())
    assert found.r2_low <= found.r2 <= found.r2_high
    assert found.mae_low <= found.mae <= found.mae_high
    assert found.folds["n"].sum() == 240
    # whole blocks are held out: no block lies on both sides
    assert rows.groupby(table["lon"])["fold"].nunique().eq(1).all()
    flattering = cross_validate(table, "biomass", model=model, random_split=True)
    assert flattering.r2 > found.r2
    assert "RANDOM SPLIT" in str(flattering)
    assert "blocks of 5000 m" in str(found)


def test_what_the_labels_are():
    pytest.importorskip("sklearn", reason="scikit-learn isn't installed: pip install 'gee_polygons[probe]'")
    table = gradient()
    whole = (table["biomass"] > 0.5).astype(float)
    assert isinstance(cross_validate(table, whole), ValueResult)  # floats are values, whole ones too
    assert isinstance(cross_validate(table, whole, task="classes"), ProbeResult)
    assert isinstance(cross_validate(table, whole.astype(int)), ProbeResult)
    assert isinstance(cross_validate(table, (table["biomass"] * 9).round(), task="values"), ValueResult)
    assert fit_probe(table, "biomass").predict(np.eye(64)[:1] + np.eye(64)[1]).shape == (1,)
    with_gap = table.assign(biomass=table["biomass"].where(table.index > 5))
    assert len(cross_validate(with_gap, "biomass").predicted) == 234
    with pytest.raises(UsageError, match="knn, ridge for values"):
        cross_validate(table, "biomass", model="logistic", task="values")
    with pytest.raises(UsageError, match="found 'much'"):
        cross_validate(table, ["much"] * 240, task="values")
    with pytest.raises(UsageError, match="not all the same"):
        cross_validate(table, [0.5] * 240)
    with pytest.raises(UsageError, match="auto, classes, values"):
        fit_probe(table, "biomass", task="regression")


def test_a_series_of_labels_is_matched_by_its_index_or_by_site_ids():
    pytest.importorskip("sklearn", reason="scikit-learn isn't installed: pip install 'gee_polygons[probe]'")
    table = gradient()
    right = cross_validate(table, "biomass").r2
    mixed = table["biomass"].sample(frac=1, random_state=0)
    assert cross_validate(table, mixed).r2 == right
    named = table.assign(site_id=[f"s{i}" for i in range(len(table))])
    by_site = mixed.set_axis([f"s{i}" for i in mixed.index])
    assert cross_validate(named, by_site).r2 == right
    places = table["lon"].sample(frac=1, random_state=1)
    assert cross_validate(table, "biomass", groups=places).r2 == cross_validate(table, "biomass", groups="lon").r2
    with pytest.raises(UsageError, match="labels are a Series whose index"):
        cross_validate(table, mixed.set_axis(mixed.index + 1))
    with pytest.raises(UsageError, match="as many groups, found 1"):
        cross_validate(table, "biomass", groups=["a"])


@pytest.mark.parametrize("folds", [1, 0, -3, 2.5])
def test_folds_are_two_or_more(folds):
    with pytest.raises(UsageError, match="folds are 2 or more"):
        cross_validate(gradient(), "biomass", folds=folds)


# --- saved


@pytest.mark.parametrize(("model", "values"), [("logistic", False), ("knn", False), ("ridge", True), ("knn", True)])
def test_a_saved_probe_predicts_what_scikit_learn_does(model, values, tmp_path):
    table = blobs()
    labels = pd.Series(table["A00"] * 3 + table["A05"], name="height") if values else table["label"].replace("a", "é")
    if model == "logistic":
        labels = labels.where(table["lon"] > 2, "third")  # softmax; with two classes below
    for y in [labels] if values else [labels, table["label"]]:
        probe = train_probe(table, y, model=model, groups=table["lon"], target="x")
        back = load_probe(probe.save(tmp_path / "p.json", overwrite=True))
        assert back.scores == probe.scores
        assert "90 % interval" in back.scores["summary"]
        found = predict_sites(back, table)
        fitted = fit_probe(table, y, model=model)
        units = normalize(table[list(BANDS)].to_numpy())
        if model == "knn":  # fitted to the codes
            units = normalize(codes_to_vectors(np.array(probe.codes, np.int8), np.float64))
            fitted = fitted.fit(units, y.astype(float) if values else y)
            found = predict_sites(back, table.assign(**dict(zip(BANDS, units.T, strict=True))))
        if values:
            assert np.allclose(found["x"], fitted.predict(units), atol=1e-9)
        else:
            assert (found["x"] == fitted.predict(units)).all()
            shares = found[[f"p_{name}" for name in fitted.classes_]].to_numpy()
            assert np.allclose(shares, fitted.predict_proba(units), atol=1e-6)
            assert np.array_equal(found["probability"], shares.max(axis=1))


def test_sites_unlike_all_training_vectors_are_flagged():
    table = blobs()
    probe = train_probe(table, "label", groups="lon")
    far = table[:3].copy()
    far.loc[0, list(BANDS)] = -table.loc[0, list(BANDS)]
    far.loc[1, "A07"] = np.nan
    found = predict_sites(probe, far)
    assert found["is_unlike"].tolist()[0] is True
    assert found.loc[0, "distance_deg"] > 90
    assert found.loc[1].drop(["is_unlike"]).isna().all()
    assert found["is_unlike"].isna().tolist() == [False, True, False]
    assert not found.loc[2, "is_unlike"]
    assert predict_sites(probe, table)["is_unlike"].sum() == 0


def test_what_is_no_probe_is_refused(tmp_path):
    path = train_probe(blobs(), "label", groups="lon").save(tmp_path / "p.json")
    content = json.loads(path.read_text())
    with pytest.raises(OutputError, match="exists already"):
        train_probe(blobs(), "label", groups="lon").save(path)
    for change in (
        {"format": "another"}, {"bands": ["A00"]}, {"kind": "forest"}, {"coefficients": [[1.0]]}, {"codes": []},
        {"mean": [float("nan")] * 64}, {"labels": ["c"] * 120}, {"intercept": "text"}, {"codes": [[1000] * 64] * 120},
    ):  # fmt: skip
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(InputFileError, match="probe"):
            load_probe(path)
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputFileError, match="no probe"):
        load_probe(path)


def test_the_command_works_on_what_extract_writes(sample_sites, tmp_path):
    def run(*args):
        return CliRunner().invoke(main, [str(arg) for arg in args])

    frame = pd.concat([sample_sites.to_geodataframe()] * 2, ignore_index=True).iloc[:24]
    frame["site_id"] = range(24)
    frame["crop"] = ["a", "b"] * 12
    frame.to_file(tmp_path / "sites.geojson")
    table = tmp_path / "t.parquet"
    done = run(
        "extract", tmp_path / "sites.geojson", "--years", 2024, "--source", "sample", "--keep", "crop", "-o", table
    )
    assert done.exit_code == 0, done.output
    how = ("--block-m", 500, "--buffer-m", 0)
    done = run("probe", table, "--target", "crop", "-o", tmp_path / "p.json", *how)
    assert done.exit_code == 0, done.output
    assert "logistic, blocks of 500 m" in done.output
    pd.DataFrame({"site_id": range(24), "crop": ["a", "b"] * 12}).to_csv(tmp_path / "labels.csv", index=False)
    again = run("probe", table, "--labels", tmp_path / "labels.csv", "-o", tmp_path / "q.json", *how)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "p.json").read_text() == (tmp_path / "q.json").read_text()
    for wrong, says in (
        ((), "--target COLUMN"), (("--target", "none"), "no column 'none'"),
        (("--labels", table), "name one with --target"),
    ):  # fmt: skip
        done = run("probe", table, "-o", tmp_path / "r.json", *wrong)
        assert done.exit_code == 2
        assert says in done.stderr
