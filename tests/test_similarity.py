from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gee_polygons.alphaearth import BANDS
from gee_polygons.embeddings.quantization import vectors_to_codes
from gee_polygons.embeddings.similarity import (
    angular_distance_deg,
    nearest_sites,
    similarity_image,
    similarity_matrix,
)
from gee_polygons.errors import DataWarning, UsageError
from gee_polygons.reduction.plan import EmbeddingImage
from gee_polygons.visualize import plot_similarity_matrix
from gee_polygons.zonal.grid import Grid


def table_of(vectors, sites="a", years=None, suffix=""):
    vectors = np.asarray(vectors, float)
    full = np.zeros((len(vectors), 64))
    full[:, : vectors.shape[1]] = vectors
    table = pd.DataFrame(full, columns=[band + suffix for band in BANDS])
    table.insert(0, "year", years if years is not None else 2018 + np.arange(len(vectors)))
    table.insert(0, "site_id", sites)
    return table


# by hand: directions at 0, 60 and 90 degrees, lengths 0.9, 0.8 and 0.5
HAND = [[0.9, 0.0], [0.4, 0.4 * math.sqrt(3)], [0.0, 0.5]]
COSINES = [[1.0, 0.5, 0.0], [0.5, 1.0, math.sqrt(3) / 2], [0.0, math.sqrt(3) / 2, 1.0]]


@pytest.mark.parametrize("suffix", ["", "_mean"])
def test_cosine_of_unit_means_by_hand(suffix):
    matrix = similarity_matrix(table_of(HAND, suffix=suffix))
    np.testing.assert_allclose(matrix, COSINES, atol=1e-15)
    assert np.diag(matrix).tolist() == [1.0, 1.0, 1.0]
    assert matrix.index.tolist() == matrix.columns.tolist() == [2018, 2019, 2020]
    assert matrix.index.name == matrix.columns.name == "year"


def test_dot_is_the_product_of_means_and_its_diagonal_is_rbar_squared():
    matrix = similarity_matrix(table_of(HAND), kind="dot")
    lengths = np.array([0.9, 0.8, 0.5])
    np.testing.assert_allclose(matrix, np.array(COSINES) * np.outer(lengths, lengths), atol=1e-15)
    np.testing.assert_allclose(np.diag(matrix), lengths**2)


def test_the_documents_table_and_the_true_cosine():
    # reference/datasets_alpha_embeddings.txt: diagonal 0.920, 2018-2019 0.902; the cosine is 0.902 / 0.920 = 0.980
    rbar = math.sqrt(0.920)
    angle = math.acos(0.902 / 0.920)
    table = table_of([[rbar, 0.0], [rbar * math.cos(angle), rbar * math.sin(angle)]])
    assert similarity_matrix(table, kind="dot").round(3).to_numpy().tolist() == [[0.920, 0.902], [0.902, 0.920]]
    assert similarity_matrix(table).loc[2018, 2019] == pytest.approx(0.980, abs=5e-4)


# in thousandths: numbers near the smallest float would test the float, not the formula
vectors = hnp.arrays(np.int16, (5, 64), elements=st.integers(-300, 300)).map(lambda v: v / 1000)


@settings(max_examples=50, deadline=None)
@given(vectors, hnp.arrays(np.float64, 5, elements=st.floats(0.01, 100)))
def test_cosine_is_symmetric_within_bounds_and_blind_to_length(values, factors):
    values = values + np.eye(64)[:5] * 0.5  # no row of zeros
    matrix = similarity_matrix(table_of(values)).to_numpy()
    assert np.array_equal(matrix, matrix.T)
    assert np.all(np.diag(matrix) == 1.0)
    assert np.all(np.abs(matrix) <= 1.0)
    scaled = similarity_matrix(table_of(values * factors[:, None])).to_numpy()
    np.testing.assert_allclose(scaled, matrix, atol=1e-12)


def test_a_row_without_data_stays_as_nan_or_is_dropped():
    table = table_of([HAND[0], [np.nan, 0.2], HAND[2]])
    matrix = similarity_matrix(table)
    assert matrix.isna().to_numpy().tolist() == [[False, True, False], [True, True, True], [False, True, False]]
    assert similarity_matrix(table, dropna=True).index.tolist() == [2018, 2020]


def test_years_come_in_order_whatever_the_order_of_rows():
    table = table_of(HAND)
    pd.testing.assert_frame_equal(similarity_matrix(table.iloc[[2, 0, 1]]), similarity_matrix(table))


def test_a_large_matrix_takes_what_it_holds_and_is_announced(monkeypatch):
    """One of 20,000 rows took 10 GB for the 3.2 of its numbers; a picture of 5,000 rows 126 s."""
    monkeypatch.setattr("gee_polygons.embeddings.similarity._LARGE_BYTES", 2e6)
    vectors = np.random.default_rng(0).normal(size=(2500, 64))
    table = table_of(vectors, sites=range(2500), years=2023)
    tracemalloc.start()
    with pytest.warns(DataWarning, match="a matrix of 2,500 x 2,500 takes 0.1 GB of memory; nearest_sites"):
        matrix = similarity_matrix(table, by="site", kind="dot")
    assert tracemalloc.get_traced_memory()[1] < 1.5 * 8 * 2500**2
    tracemalloc.stop()
    assert np.array_equal(matrix, matrix.T)
    assert np.allclose(matrix, np.clip(vectors @ vectors.T, -1, 1), atol=1e-12)
    monkeypatch.setattr("gee_polygons.visualize.plots.matrix._MOST_ROWS", 100)
    ax = plot_similarity_matrix(matrix)
    assert ax.images[0].get_array().shape == (100, 100)
    assert ax.get_xlabel() == "one of 25 rows is drawn"


def test_sites_of_a_year():
    table = table_of([*HAND, HAND[1]], sites=["c", "a", "b", "a"], years=[2020, 2020, 2020, 2021])
    matrix = similarity_matrix(table, by="site", year=2020)
    assert matrix.index.tolist() == ["c", "a", "b"]
    np.testing.assert_allclose(matrix, COSINES, atol=1e-15)


def test_site_ids_are_found_as_text_and_as_number():
    table = table_of([*HAND, *HAND], sites=[1, 1, 1, 2, 2, 2], years=[1, 2, 3] * 2)
    pd.testing.assert_frame_equal(similarity_matrix(table, site_id="2"), similarity_matrix(table, site_id=2))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t, {}, r"holds 2 sites \('a', 'b'\); choose one with site_id="),
        (lambda t: t, {"site_id": "z"}, "site 'z' is not in the table; it holds 'a', 'b'"),
        (lambda t: t, {"by": "site"}, r"holds the years 2018..2019; choose one with year="),
        (lambda t: t, {"by": "site", "year": 1999}, r"year 1999 is not in the table; it holds 2018..2019"),
        (lambda t: t, {"by": "band"}, "by is 'year' or 'site'"),
        (lambda t: t, {"kind": "euclid"}, "kind is 'cosine' or 'dot'"),
        (lambda t: t.drop(columns="A07"), {"site_id": "a"}, "63 of the 64 columns A00..A63 .missing 'A07'"),
        (lambda t: t.drop(columns="year"), {"site_id": "a"}, "needs a column 'year'"),
        (lambda t: pd.concat([t, t]), {"site_id": "a"}, "2018 has several rows"),
        (lambda t: t.astype({"A03": int}), {"site_id": "a"}, "'A03' holds integers"),
        (lambda t: t.to_dict(), {}, "a pandas DataFrame"),
    ],
)
def test_bad_tables_get_one_line(change, options, message):
    table = table_of([HAND[0], HAND[1]] * 2, sites=["a", "a", "b", "b"], years=[2018, 2019] * 2)
    with pytest.raises(UsageError, match=message) as caught:
        similarity_matrix(change(table), **options)
    assert "\n" not in str(caught.value)


@given(st.floats(0.0, 180.0), st.floats(0.1, 10))
def test_angles(angle, length):
    a = np.array([1.0, 0.0, 0.0])
    b = length * np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle)), 0.0])
    assert angular_distance_deg(a, b) == pytest.approx(angle, abs=1e-9)


def test_small_angles_are_not_lost_as_the_arc_cosine_loses_them():
    tiny = 1e-7
    a, b = np.array([1.0, 0.0]), np.array([math.cos(tiny), math.sin(tiny)])
    assert angular_distance_deg(a, b) == pytest.approx(math.degrees(tiny), rel=1e-8)
    assert np.isnan(angular_distance_deg(a, np.zeros(2)))


def test_nearest_sites_agrees_with_a_full_sort():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(5000, 64))
    values[17] = np.nan
    table = table_of(values, sites=[f"s{i}" for i in range(5000)], years=2020)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    query = unit[42]
    expected = np.argsort(-(unit @ query), kind="stable")[:7]
    found = nearest_sites(table, query, 7)
    assert found.index.tolist() == expected.tolist()
    np.testing.assert_allclose(found["cosine"], (unit @ query)[expected])
    np.testing.assert_allclose(found["angle_deg"], np.degrees(np.arccos(np.clip(found["cosine"], -1, 1))), atol=1e-5)
    assert list(found.columns) == ["site_id", "year", "cosine", "angle_deg"]


def test_nearest_sites_of_a_site_leaves_the_site_out_and_keeps_the_year():
    table = table_of([[1, 0], [0.9, 0.1], [1, 0], [0, 1]], sites=["a", "b", "a", "c"], years=[2020, 2020, 2021, 2020])
    assert nearest_sites(table, "a", 5, year=2020)["site_id"].tolist() == ["b", "c"]
    with pytest.raises(UsageError, match=r"'a' has 2 rows in the table; choose one with year="):
        nearest_sites(table, "a")
    assert nearest_sites(table, table.iloc[3], 1)["site_id"].tolist() == ["c"]
    assert nearest_sites(table, table.iloc[[3]], 1, year=2020)["site_id"].tolist() == ["c"]


def test_equals_come_in_table_order_also_at_the_border():
    table = table_of([[1.0, 0.0]] * 6, sites=list("fedcba"))
    assert nearest_sites(table, np.eye(64)[0], 4)["site_id"].tolist() == list("fedc")


@pytest.mark.parametrize("query", [np.zeros(64), np.full(64, np.nan), np.ones(63), np.ones(64, int), "nobody"])
def test_bad_queries(query):
    with pytest.raises(UsageError):
        nearest_sites(table_of(HAND), query)


def test_bad_k():
    with pytest.raises(UsageError, match="at least 1"):
        nearest_sites(table_of(HAND), np.eye(64)[0], 0)


@pytest.mark.parametrize("layout", ["one array", "columns", "Float32", "reversed"])
def test_nearest_of_many_rows_equals_brute_force(layout):
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(size=(50_000, 64)), 1).astype(np.float32)
    values[rng.integers(0, len(values), 5_000)] = values[0]  # ties, far more than are asked for
    values[7::100, 5] = np.nan
    table = pd.DataFrame(values, columns=list(BANDS))
    if layout == "columns":
        table = pd.DataFrame({band: values[:, i].copy() for i, band in enumerate(BANDS)})
    if layout == "Float32":
        table = table.astype("Float32")
    if layout == "reversed":
        table = table[list(BANDS[::-1])]
    table.insert(0, "site_id", np.arange(len(table)))
    exact = values.astype(np.float64)
    for query in (exact[0], rng.normal(size=64)):
        cosine = (exact @ query) / np.linalg.norm(exact, axis=1) / np.linalg.norm(query)
        order = np.argsort(-np.where(np.isnan(cosine), -9, cosine.round(12)), kind="stable")
        found = nearest_sites(table, query, 100)
        assert found["site_id"].tolist() == order[:100].tolist()
        np.testing.assert_allclose(found["cosine"], cosine[order[:100]], atol=1e-12)
    n_present = int(np.isfinite(exact).all(axis=1).sum())
    assert len(nearest_sites(table, exact[0], 10**6)) == n_present


@pytest.mark.parametrize("as_codes", [True, False])
def test_similarity_image(as_codes):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(64, 5, 7))
    values /= np.linalg.norm(values, axis=0)
    values[:, 2, 3] = np.nan
    stored = vectors_to_codes(values) if as_codes else values
    grid = Grid(crs="EPSG:32616", transform=(10, 0, 400000, 0, -10, 4900000), shape=(5, 7))
    image = EmbeddingImage(values=stored, grid=grid, year=2024, source="x")
    found = similarity_image(image, 3.0 * np.nan_to_num(values[:, 0, 0]))
    expected = np.einsum("b,brc->rc", values[:, 0, 0], image.vectors.astype(float))
    expected /= np.linalg.norm(image.vectors.astype(float), axis=0)
    assert found.bands == ("cosine",)
    assert (found.grid, found.year, found.source) == (grid, 2024, "x")
    (cosine,) = found.vectors
    np.testing.assert_allclose(cosine, expected, atol=2e-3 if as_codes else 1e-6)
    assert np.isnan(cosine[2, 3])
    assert found.valid.sum() == 34
    with pytest.raises(UsageError, match="63 of the 64 bands"):
        similarity_image(image.select(BANDS[:-1]), values[:, 0, 0])
