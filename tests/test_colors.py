from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from gee_polygons.alphaearth import BANDS
from gee_polygons.embeddings.colors import SAMPLE_ROWS, Moments, PcaColors, add_pca_columns, fit_pca_colors
from gee_polygons.embeddings.quantization import codes_to_vectors, vectors_to_codes
from gee_polygons.errors import InputFileError, UsageError
from gee_polygons.reduction.plan import EmbeddingImage
from gee_polygons.zonal.grid import Grid


def codes(n, seed=0):
    """Codes of unit vectors with a few strong axes, like land cover."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(64, 6)))[0]
    vectors = rng.normal(size=(n, 6)) * [3, 2, 1.5, 0.5, 0.4, 0.3] @ axes.T + rng.normal(size=(n, 64)) * 0.05
    return vectors_to_codes(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def same(a, b):
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("count", "total", "products", "sample", "keys"))


def test_agrees_with_a_singular_value_decomposition():
    vectors = codes_to_vectors(codes(3000), np.float64)
    basis = fit_pca_colors(vectors)
    centred = vectors - vectors.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(basis.mean, vectors.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(basis.components * axes[:3], axis=1)), 1, atol=1e-9)
    np.testing.assert_allclose(basis.explained_variance, (singular**2 / np.sum(singular**2))[:3], atol=1e-12)
    np.testing.assert_allclose(basis.components @ basis.components.T, np.eye(3), atol=1e-12)
    scores = basis.project(vectors)
    np.testing.assert_allclose(scores, centred @ basis.components.T, atol=1e-12)
    # few enough to be kept whole: the stretch is that of all, to the rounding of float32
    np.testing.assert_allclose([basis.low, basis.high], np.percentile(scores, (2, 98), axis=0), atol=1e-6)


def test_colours_by_plain_numpy():
    vectors = codes_to_vectors(codes(500), np.float64)
    basis = fit_pca_colors(vectors)
    share = (vectors - basis.mean) @ basis.components.T
    share = np.clip((share - basis.low) / (basis.high - basis.low), 0, 1)
    assert np.array_equal(basis.rgb(vectors), np.rint(share * 255).astype(np.uint8))


def test_parts_merge_to_the_whole_to_the_last_bit():
    whole = codes(50_000)  # more than the sample holds
    assert len(Moments.of(whole).sample) == SAMPLE_ROWS
    parts = [Moments.of(part) for part in np.array_split(whole, [100, 7_000, 33_333])]
    assert same(Moments.of(whole), parts[0] + parts[1] + parts[2] + parts[3])
    assert same(Moments.of(whole), (parts[3] + parts[1]) + (parts[0] + parts[2]))
    shuffled = Moments.of(whole[np.random.default_rng(1).permutation(len(whole))])
    assert same(Moments.of(whole), shuffled)
    a, b = Moments.of(whole).fit(), shuffled.fit()
    assert np.array_equal(a.components, b.components)
    assert np.array_equal(a.low, b.low)


def test_the_sample_is_fair():
    whole = codes(50_000)
    basis = fit_pca_colors(whole)
    scores = basis.project(codes_to_vectors(whole, np.float64))
    share_below = (scores < basis.low).mean(axis=0), (scores > basis.high).mean(axis=0)
    np.testing.assert_allclose(share_below, 0.02, atol=0.004)


def test_signs_are_the_same_for_mirrored_and_reordered_data():
    vectors = codes_to_vectors(codes(400), np.float64)
    basis = fit_pca_colors(vectors)
    largest = np.argmax(np.abs(basis.components), axis=1)
    assert np.all(basis.components[np.arange(3), largest] > 0)
    # the covariance of -v is that of v: so must be the axes
    np.testing.assert_allclose(fit_pca_colors(-vectors).components, basis.components, atol=1e-9)
    np.testing.assert_allclose(fit_pca_colors(vectors[::-1]).components, basis.components, atol=1e-9)


def test_all_kinds_of_input_give_the_same_basis():
    pixels = codes(60)
    grid = Grid(crs="EPSG:32616", transform=(10, 0, 400000, 0, -10, 4900000), shape=(6, 10))
    planes = np.ascontiguousarray(pixels.T.reshape(64, 6, 10))
    image = EmbeddingImage(values=planes, grid=grid, year=2024)
    vectors = codes_to_vectors(pixels, np.float64)
    table = pd.DataFrame(vectors, columns=[f"{b}_mean" for b in BANDS])
    expected = fit_pca_colors(pixels)
    for data in (image, [image], (part for part in (pixels[:7], pixels[7:])), pixels.reshape(6, 10, 64)):
        assert np.array_equal(fit_pca_colors(data).components, expected.components)
    for data in (vectors, table, image.select(BANDS[::-1])):
        np.testing.assert_allclose(fit_pca_colors(data).components, expected.components, atol=1e-9)
    assert np.array_equal(expected.image_rgb(image).reshape(-1, 3), expected.rgb(codes_to_vectors(pixels)))


def test_nodata_takes_no_part():
    pixels = codes(100)
    holes = np.concatenate([pixels, np.full((50, 64), -128, np.int8)])
    assert same(Moments.of(holes), Moments.of(pixels))
    vectors = codes_to_vectors(pixels, np.float64)
    gappy = np.concatenate([vectors, np.full((3, 64), np.nan)])
    assert Moments.of(gappy).count == 100


def test_json_round_trip_keeps_every_bit(tmp_path):
    basis = fit_pca_colors(codes(300), percentiles=(1, 99))
    path = basis.save(tmp_path / "new" / "basis.json")
    again = PcaColors.load(path)
    for name in ("mean", "components", "low", "high", "explained_variance"):
        assert np.array_equal(getattr(again, name), getattr(basis, name))
    assert (again.count, again.percentiles) == (basis.count, (1.0, 99.0))
    assert again.save(tmp_path / "again.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("damage", ["not json", "[]", '{"format": "other"}', "cut", "shape", "bands"])
def test_a_damaged_file_gets_one_line(tmp_path, damage):
    path = fit_pca_colors(codes(50)).save(tmp_path / "basis.json")
    content = json.loads(path.read_text())
    if damage == "cut":
        del content["low"]
        damage = json.dumps(content)
    elif damage in ("shape", "bands"):
        content["mean" if damage == "shape" else "bands"].pop()
        damage = json.dumps(content)
    path.write_text(damage)
    with pytest.raises(InputFileError, match=r"basis\.json") as caught:
        PcaColors.load(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputFileError):
        PcaColors.load(tmp_path / "missing.json")


def test_columns_of_a_table():
    vectors = codes_to_vectors(codes(20), np.float64)
    table = pd.DataFrame(vectors, columns=list(BANDS), index=range(100, 120)).assign(site_id="a")
    basis = fit_pca_colors(table)
    table.iloc[3, 5] = np.nan
    found = add_pca_columns(table, basis)
    assert "pca_rgb" not in table.columns
    assert found["pca_rgb"].iloc[3] is None
    assert found["pca_components"].iloc[3] is None
    rgb = basis.rgb(vectors[:1])[0]
    assert found["pca_rgb"].iloc[0] == "#{:02x}{:02x}{:02x}".format(*rgb)
    np.testing.assert_allclose(found["pca_components"].iloc[0], basis.project(vectors[0]))
    assert found.index.equals(table.index)


def test_constant_data_are_grey():
    basis = fit_pca_colors(np.tile(codes(1), (5, 1)))
    assert basis.explained_variance.tolist() == [0, 0, 0]
    assert np.unique(basis.rgb(codes_to_vectors(codes(1)))).tolist() == [128]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (codes(1), "at least 2 vectors with data, found 1"),
        (np.full((9, 64), np.nan), "found 0"),
        (np.zeros((9, 63)), r"64 bands on their last axis, found shape \(9, 63\)"),
        (np.zeros((9, 64), int), "found int64"),
        ([], "found 0"),
        ("pixels.npy", "tables, images or arrays, found str"),
        (pd.DataFrame({"A00": [0.1]}), "1 of the 64 columns"),
    ],
)
def test_bad_data_get_one_line(data, message):
    with pytest.raises(UsageError, match=message):
        fit_pca_colors(data)


def test_codes_are_not_projected_as_vectors():
    basis = fit_pca_colors(codes(9))
    with pytest.raises(UsageError, match="de-quantise"):
        basis.project(codes(2))
    with pytest.raises(UsageError, match="percentiles"):
        fit_pca_colors(codes(9), percentiles=(98, 2))
