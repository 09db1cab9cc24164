"""The statistical functions written here, against SciPy where it is installed (scikit-learn brings it along)."""

import numpy as np
import pytest

from gee_polygons.change.numerics import nonnegative_least_squares
from gee_polygons.change.significance import adjusted_p_values, robust_z
from gee_polygons.embeddings.uncertainty import concentration


@pytest.fixture(scope="module")
def scipy():
    pytest.importorskip("scipy", reason="SciPy isn't installed: pip install 'gee_polygons[dev]'")
    import scipy.optimize
    import scipy.special
    import scipy.stats

    return scipy


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_adjusted_p_values(scipy, rng):
    p = np.round(rng.random(200) ** 3, 3)  # with ties
    with_gaps = np.insert(p, [0, 7, 200], np.nan)
    found = adjusted_p_values(with_gaps)
    assert np.isnan(found).sum() == 3
    assert found[np.isfinite(found)] == pytest.approx(scipy.stats.false_discovery_control(p), rel=1e-14)


def test_robust_z(scipy, rng):
    lengths = rng.random((501, 2))
    lengths[3:, 1] = np.nan  # too few to show what is usual
    x = lengths[:, 0] ** (2 / 3)
    expected = (x - np.median(x)) / scipy.stats.median_abs_deviation(x, scale="normal")
    assert robust_z(lengths)[:, 0] == pytest.approx(expected, rel=1e-12)
    assert np.isnan(robust_z(lengths)[:, 1]).all()


def test_nonnegative_least_squares(scipy, rng):
    a, b = rng.normal(size=(30, 64, 4)), rng.normal(size=(30, 64))
    a[:, :, 0] = 0.0  # a column without effect
    b += np.einsum("nbk,k->nb", a, [1.0, 2.0, -1.0, 0.5])
    found = nonnegative_least_squares(np.einsum("nbk,nbl->nkl", a, a), np.einsum("nbk,nb->nk", a, b))
    oracle = [scipy.optimize.nnls(matrix, vector)[0] for matrix, vector in zip(a, b, strict=True)]
    assert found == pytest.approx(np.array(oracle), abs=1e-9)
    assert (found[:, 0] == 0).all()
    assert (found == 0).any(axis=0)[2]


@pytest.mark.parametrize("kappa", [0.5, 40.0, 315.0, 5_000.0])
@pytest.mark.parametrize("p", [3, 64])
def test_concentration_inverts_the_ratio_of_bessel_functions(scipy, kappa, p):
    length = scipy.special.ive(p / 2, kappa) / scipy.special.ive(p / 2 - 1, kappa)
    assert float(concentration(np.array(length), p)) == pytest.approx(kappa, rel=1e-5)
