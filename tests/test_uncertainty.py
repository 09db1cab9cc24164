"""Concentration against numerical integration, effective pixels against simulated fields, the fit against its data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import shapely

from gee_polygons.alphaearth import BANDS
from gee_polygons.embeddings.uncertainty import (
    AEF_CORRELATION,
    AEF_YEARLY_NOISE,
    MEASURED_COSINES,
    MEASURED_YEARLY_SHARES,
    SpatialCorrelation,
    YearlyNoise,
    add_uncertainty,
    concentration,
    effective_pixels,
    fit_from_rings,
    fit_spatial_correlation,
    fit_yearly_noise,
    mean_direction_error_deg,
)
from gee_polygons.errors import UsageError


@pytest.mark.parametrize("kappa", [3.0, 40.0, 315.0, 5_000.0])
@pytest.mark.parametrize("p", [3, 64])
def test_concentration_inverts_the_mean_resultant_length(kappa, p):
    # A_p(k) by its integral: the mean of cos t under exp(k cos t) sin(t)^(p - 2)
    t = np.linspace(0, np.pi, 400_001)[1:-1]
    log = kappa * (np.cos(t) - 1) + (p - 2) * np.log(np.sin(t))
    weight = np.exp(log - log.max())
    length = (weight * np.cos(t)).sum() / weight.sum()
    assert float(concentration(np.array(length), p)) == pytest.approx(kappa, rel=1e-5)


def test_concentration_at_the_ends():
    found = concentration(np.array([0.0, 1.0, 1.005, np.nan]))
    assert found[0] == 0
    assert np.isinf(found[1:3]).all()
    assert np.isnan(found[3])
    with pytest.raises(UsageError, match="between 0 and 1"):
        concentration(1.2)


def test_the_constant_is_what_the_fit_gives_and_the_fit_is_near_its_data():
    fitted = fit_spatial_correlation()
    for name in ("sill", "part", "range_px"):
        assert getattr(fitted, name) == pytest.approx(getattr(AEF_CORRELATION, name), rel=1e-3)
    for lag, cosine in MEASURED_COSINES.items():
        assert float(fitted.cosine(lag)) == pytest.approx(cosine, abs=0.014)


def test_the_fit_finds_a_model_again():
    true = SpatialCorrelation(sill=0.5, part=0.4, range_px=22.0)
    found = fit_spatial_correlation({h: float(true.cosine(h)) for h in (1.0, 4.0, 15.0, 40.0, 120.0)}, {})
    assert (found.sill, found.part, found.range_px) == pytest.approx((0.5, 0.4, 22.0), rel=1e-2)
    assert found.nugget == pytest.approx(0.2, abs=0.01)
    with pytest.raises(UsageError, match="3 measurements"):
        fit_spatial_correlation({1.0: 0.9}, {})


def test_the_yearly_noise_follows_its_measurements_and_not_one_over_n():
    for n, share in MEASURED_YEARLY_SHARES.items():
        assert 1 / float(AEF_YEARLY_NOISE.effective_pixels(n)) == pytest.approx(share, abs=0.04)
    assert np.isnan(AEF_YEARLY_NOISE.effective_pixels(np.array([0.0, np.nan]))).all()
    angle = AEF_YEARLY_NOISE.error_deg(np.ones(2), np.array([1.0, 400.0]))
    assert np.cumsum(angle[::-1]) == pytest.approx(np.degrees(np.sqrt(0.019)) * np.cumsum([20**-0.5, 1]))


def test_both_laws_are_found_again_from_rings():
    rng = np.random.default_rng(0)
    noise = YearlyNoise(pixel_variance=0.03, exponent=0.3)
    pattern = SpatialCorrelation(sill=0.5, part=0.45, range_px=25.0)
    rings, rows = [], []
    for i, radius in enumerate(np.geomspace(4, 120, 60)):  # pixels
        point = shapely.Point(-48.0 + 0.05 * i, 0.0)
        rings.append(point.buffer(radius / 11_132).difference(point.buffer(0.5 * radius / 11_132)))
        n = rings[-1].area * 11_132**2
        pixels = np.linspace(-radius, radius, 41)
        x, y = (v.ravel() for v in np.meshgrid(pixels, pixels))
        inside = (np.hypot(x, y) < radius) & (np.hypot(x, y) > radius / 2)
        apart = np.hypot(x[inside][:, None] - x[inside], y[inside][:, None] - y[inside])
        length = np.sqrt(1 / n + (1 - 1 / n) * (0.5 + 0.45 * np.exp(-apart / 25)).mean())
        for year in range(2017, 2025):
            v = np.eye(64)[0] + rng.normal(0, np.sqrt(0.03 * n**-0.3 / 64), 64) + 0.02 * np.sin(year + np.arange(64))
            rows.append([i, year, n, *(length * v / np.linalg.norm(v))])
    table = pd.DataFrame(rows, columns=["site_id", "year", "n_pixels", *BANDS])
    found, yearly = fit_from_rings(table, rings)
    assert yearly.exponent == pytest.approx(noise.exponent, abs=0.05)
    assert float(yearly.effective_pixels(1_000.0)) == pytest.approx(1_000**0.3, rel=0.35)
    assert yearly.pixel_variance * 1_000**-yearly.exponent == pytest.approx(0.03 * 1_000**-0.3, rel=0.15)
    for n in (100.0, 5_000.0):
        assert float(effective_pixels(n, found)) == pytest.approx(float(effective_pixels(n, pattern)), rel=0.2)
    own = add_uncertainty(table, found, yearly)
    assert own["yearly_noise_deg"].iloc[0] > 2 * own["yearly_noise_deg"].iloc[-1]
    same_size = table[table["site_id"].between(40, 52)]
    assert fit_yearly_noise(same_size).exponent == AEF_YEARLY_NOISE.exponent
    with pytest.raises(UsageError, match="as many polygons"):
        fit_from_rings(table, rings[:3])
    with pytest.raises(UsageError, match="10 unchanged places"):
        fit_yearly_noise(table[table["site_id"] < 5])
    with pytest.raises(UsageError, match="no column 'n_pixels'"):
        fit_yearly_noise(table.drop(columns="n_pixels"))


@pytest.mark.parametrize("n", [5, 300, 5_000])
def test_effective_pixels_is_the_mean_correlation_of_pairs_in_a_disc(n):
    rng = np.random.default_rng(1)
    radius, angle = np.sqrt(n / np.pi * rng.random(400_000)), rng.random(400_000) * 2 * np.pi
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    distance = np.hypot(x[::2] - x[1::2], y[::2] - y[1::2])
    by_hand = 1 / np.exp(-distance / AEF_CORRELATION.range_px).mean()
    assert float(effective_pixels(float(n))) == pytest.approx(by_hand, rel=0.01)


def test_effective_pixels_grows_with_area_and_stays_below_the_count():
    n = np.array([0.5, 1, 5, 50, 500, 5_000, 1e6])
    effective = effective_pixels(n)
    assert (np.diff(effective) >= 0).all()
    assert (effective <= np.maximum(n, 1)).all()
    # far larger than the range: area / (2 pi L^2)
    assert effective[-1] == pytest.approx(1e6 / (2 * np.pi * AEF_CORRELATION.range_px**2), rel=0.1)
    white = SpatialCorrelation(sill=0.6, part=0.0, range_px=15.0)
    assert effective_pixels(n[1:], white).tolist() == pytest.approx(n[1:].tolist())
    assert np.isnan(effective_pixels(0.0))


def test_a_small_site_is_less_sure_than_a_large_one():
    error = mean_direction_error_deg(np.full(3, 0.95), np.array([5.0, 500.0, 5_000.0]))
    assert error[0] > 1.5 * error[1] > 2 * error[2] > 0


def test_columns_are_added_and_a_missing_one_is_named():
    table = pd.DataFrame(np.eye(64)[:2] * 0.9, columns=list(BANDS)).assign(n_pixels=[100.0, np.nan])
    table.loc[1, "A00"] = np.nan
    found = add_uncertainty(table)
    assert found.loc[0, "kappa"] > 0
    assert found.loc[1, ["kappa", "n_effective", "mean_direction_error_deg"]].isna().all()
    with pytest.raises(UsageError, match="n_pixels"):
        add_uncertainty(table.drop(columns="n_pixels"))


def test_no_mean_direction_is_worse_than_one_that_nothing_is_known_of():
    error = mean_direction_error_deg(np.array([0.3, 0.0, np.nan]), np.full(3, 400.0))
    assert error[:2].tolist() == [90.0, 90.0]
    assert np.isnan(error[2])
