"""Codes <-> vectors, exhaustively; Rbar by hand."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gee_polygons.alphaearth import BANDS
from gee_polygons.embeddings.directional import mean_resultant_length, normalize
from gee_polygons.embeddings.quantization import codes_to_vectors, is_on_codes, signed_squares, vectors_to_codes
from gee_polygons.errors import UsageError

ALL = np.arange(-127, 128).astype(np.int8)


def true_value(k: int) -> Fraction:
    """sign(k) (k / 127.5)^2, exactly: 127.5^2 = 65025 / 4."""
    return Fraction(k * abs(k)) / Fraction(65025, 4)


def test_there_are_64_bands():
    assert len(BANDS) == 64
    assert BANDS[0] == "A00"
    assert BANDS[63] == "A63"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_code_has_its_value_to_the_last_bit(dtype):
    found = codes_to_vectors(ALL, dtype)
    assert found.dtype == dtype
    for k, value in zip(ALL.tolist(), found, strict=True):
        assert value == dtype(float(true_value(k)))
    assert np.isnan(codes_to_vectors(np.array([-128], np.int8), dtype)).all()


def test_values_by_hand():
    # 127^2 / 127.5^2 = 16129 / 16256.25
    assert codes_to_vectors(np.array([127, -127, 0, 51], np.int8), np.float64).round(6).tolist() == [
        0.992172, -0.992172, 0.0, 0.16,
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_code_survives_the_round_trip(dtype):
    assert np.array_equal(vectors_to_codes(codes_to_vectors(ALL, dtype)), ALL)
    assert vectors_to_codes(np.array([np.nan], dtype)).tolist() == [-128]


def test_every_code_and_nodata_has_its_signed_square():
    assert signed_squares(ALL).tolist() == [k * abs(k) for k in ALL.tolist()]
    assert signed_squares(np.array([-128], np.int8)).tolist() == [0]
    assert signed_squares(ALL).dtype == np.int32


@settings(deadline=None)
@given(st.floats(-1, 1))
def test_quantising_takes_the_nearest_code_in_root_space(value):
    code = int(vectors_to_codes(np.array([value]))[0])
    root = np.sign(value) * np.sqrt(abs(value)) * 127.5
    assert abs(code - root) <= 0.5 + 1e-9
    assert -127 <= code <= 127


def test_the_ends_are_clipped_and_never_nodata():
    assert vectors_to_codes(np.array([1.0, -1.0, 1.0 + 5e-7])).tolist() == [127, -127, 127]


def test_shapes_are_kept():
    codes = np.zeros((2, 64, 3, 5), np.int8)
    assert codes_to_vectors(codes).shape == codes.shape
    assert vectors_to_codes(codes_to_vectors(codes)).shape == codes.shape
    assert codes_to_vectors(np.zeros((0, 4), np.int8)).shape == (0, 4)
    assert vectors_to_codes(np.zeros((0, 4))).shape == (0, 4)


# --- codes and vectors can't be mixed up


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "float32", "float64", "bool"])
def test_only_int8_is_codes(dtype):
    for function in (codes_to_vectors, signed_squares):
        with pytest.raises(UsageError, match=f"int8, found {dtype}"):
            function(np.zeros(3, dtype))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool", "complex128"])
def test_only_floats_are_vectors(dtype):
    for function in (vectors_to_codes, mean_resultant_length, normalize):
        with pytest.raises(UsageError, match=f"floats, found {dtype}"):
            function(np.zeros((2, 64), dtype))


@pytest.mark.parametrize("dtype", ["int8", "float16", "object"])
def test_vectors_are_float32_or_float64(dtype):
    with pytest.raises(UsageError, match="float32 or float64"):
        codes_to_vectors(ALL, dtype)


@pytest.mark.parametrize("value", [1.01, -2.0, 127.0, np.inf, -np.inf])
def test_what_is_beyond_a_unit_vector_is_refused(value):
    with pytest.raises(UsageError, match=r"lie in -1..1"):
        vectors_to_codes(np.array([0.1, value, np.nan]))


def test_values_on_the_codes_are_known():
    assert is_on_codes(codes_to_vectors(ALL, np.float32))
    assert is_on_codes(np.array([np.nan]))
    midway = (codes_to_vectors(ALL[:-1], np.float64) + codes_to_vectors(ALL[1:], np.float64)) / 2
    assert not any(is_on_codes(np.array([value])) for value in midway if abs(value) > 1e-4)


# --- Rbar


def test_rbar_by_hand():
    means = np.zeros((4, 64))
    means[0, 5] = 1.0  # all pixels alike
    means[1, :2] = 0.5  # two pixels at right angles: 1 / sqrt 2
    means[2, 0] = 0.0  # two opposite pixels
    means[3, :4] = [0.5, -0.5, 0.5, -0.5]
    assert mean_resultant_length(means).tolist() == pytest.approx([1.0, np.sqrt(0.5), 0.0, 1.0], abs=1e-15)


def test_mean_pairwise_cosine_is_rbar_squared():
    rng = np.random.default_rng(3)
    pixels = normalize(rng.normal(size=(200, 64)) + 0.3)
    rbar = mean_resultant_length(pixels.mean(axis=0))
    assert (pixels @ pixels.T).mean() == pytest.approx(float(rbar) ** 2, rel=1e-12)


@pytest.mark.parametrize("n", [1, 3, 63, 65])
def test_rbar_of_a_subset_is_nan(n):
    assert np.isnan(mean_resultant_length(np.ones((2, n)))).tolist() == [True, True]


def test_rbar_with_a_missing_band_is_nan():
    means = np.full((1, 64), 0.1)
    means[0, 7] = np.nan
    assert np.isnan(mean_resultant_length(means)[0])


def test_normalize_by_hand():
    assert normalize(np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, 1.0]])).tolist()[0] == [0.6, 0.8]
    assert np.isnan(normalize(np.array([[0.0, 0.0], [np.nan, 1.0]]))).all()
    assert normalize(np.zeros((2, 64), np.float32)).dtype == np.float64
