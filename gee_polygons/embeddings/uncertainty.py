"""Estimates the uncertainty of a polygon's mean direction: concentration, effective sample size, standard error.

Two things make a mean uncertain, and they fall with size by different laws. The *pattern* of the land: a polygon is a
sample of similar land, and neighbouring pixels show the same piece of it. And the *noise of a year*: weather and the
model move all pixels of a place together, so that the variance of a mean falls as about ``n^-0.5``, not ``1 / n``.
`effective_pixels` is about the pattern, `YearlyNoise` about the noise; `fit_from_rings` estimates both on the user's
own land, instead of the constants measured on other land.

The pattern: neighbouring pixels are correlated, so n pixels aren't n independent measurements. The correlation of
pixels at a distance h is modelled as ``C(h) = c + s exp(-h / L)`` for h > 0 and ``C(0) = 1`` (a sill c of distant
pixels, an exponential part, and a nugget ``1 - c - s`` of white noise), fitted to measurements (`MEASURED_COSINES`,
`MEASURED_RBAR`).

Sources: Banerjee, Dhillon, Ghosh & Sra, *Clustering on the unit hypersphere using von Mises-Fisher distributions*,
JMLR 6 (2005), eq. 4.4; Sra, *A short note on parameter approximation for von Mises-Fisher distributions*, Comput.
Stat. 27 (2012), eqs. 6-8; Gautschi & Slavik, *On the computation of modified Bessel function ratios*, Math. Comp. 32
(1978); Griffith, *Effective geographic sample size in the presence of spatial autocorrelation*, Ann. AAG 95 (2005);
Mardia & Jupp, *Directional Statistics* (2000), 10.3; Solomon, *Geometric Probability* (1978), distances in a disc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.embeddings.directional import mean_resultant_length, normalize
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.errors import UsageError

# Measured on real AlphaEarth pixels (the project's notes on the data): cosine of two pixels by distance in 10 m
# pixels, and mean resultant length of squares by side in pixels. Rbar^2 is the mean cosine of all pairs of pixels, so
# both depend on C(h).
MEASURED_COSINES: Final = {1.0: 0.989, 10.0: 0.82, 50.0: 0.64}
MEASURED_RBAR: Final = {3: 0.990, 10: 0.946, 20: 0.905, 100: 0.818}
# Measured on real AlphaEarth points (the project's notes on the data, AEF.md: 16 scenes of 500 points, 2017-2024): the
# variance of a year's noise in a mean over n alike points, relative to one point; and the mean squared step of one
# year, the scene's own step taken off. A step is the difference of two years: twice the variance of one.
MEASURED_YEARLY_SHARES: Final = {5: 0.41, 20: 0.21, 60: 0.14}
MEASURED_SQUARED_STEP: Final = 0.038
_FEWEST_RINGS: Final = 10
_FEWEST_STEPS: Final = 2
_LEAST_SPAN: Final = 4.0  # ratio of sizes from which an exponent can be estimated
_POINTS: Final = 150  # drawn in each ring: 11,175 pairs
_RANGES_PX: Final = np.arange(5.0, 60.0, 0.05)  # ranges tried by the fit, within the measured distances
_QUADRATURE: Final = 400  # nodes of the integral over a disc: relative error < 1e-4 up to 10,000 km2
_UNKNOWN_DEG: Final = 90.0  # mean angle between a direction and a random one
_NEWTON_STEPS: Final = 4  # Sra 2012 takes two, which are enough for 64 bands, but not for three
_FRACTION_TERMS: Final = 200
_PIXELS_PER_DEGREE: Final = 11_132.0

_Shape = tuple[NDArray[np.float64], NDArray[np.float64], float, float]


@dataclass(frozen=True, kw_only=True)
class SpatialCorrelation:
    """The correlation of pixels by distance: ``C(h) = sill + part * exp(-h / range_px)`` for h > 0, ``C(0) = 1``.

    Parameters
    ----------
    sill : float
        Cosine of distant pixels, common to all land. It cancels between years and isn't noise.
    part : float
        Part of the correlation that decreases with distance.
    range_px : float
        Distance, in pixels of 10 m, over which that part falls to 1/e.
    """

    sill: float
    part: float
    range_px: float

    @property
    def variance(self) -> float:
        """Variance of a pixel about the mean of all land, summed over the bands: ``1 - sill``."""
        return 1.0 - self.sill

    @property
    def nugget(self) -> float:
        """Share of `variance` that isn't correlated even between neighbours, 0..1."""
        return max(0.0, 1.0 - self.part / self.variance)

    def cosine(self, lag_px: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return the expected cosine of two pixels at a distance of `lag_px`."""
        h = np.asarray(lag_px, np.float64)
        return np.where(h > 0, self.sill + self.part * np.exp(-h / self.range_px), 1.0)


@dataclass(frozen=True, kw_only=True)
class YearlyNoise:
    """The noise of a year in a polygon's mean: variance ``pixel_variance * n^-exponent``.

    Parameters
    ----------
    pixel_variance : float
        Variance of a pixel's vector between years of unchanged land, without what the whole scene does, summed over the
        bands.
    exponent : float
        0: a mean over many pixels is as noisy as one; 1: pixels are independent.
    """

    pixel_variance: float
    exponent: float

    def effective_pixels(self, n_pixels: NDArray[np.floating[Any]] | float) -> NDArray[np.float64]:
        """Return how many independent pixels would have a mean of the same yearly noise; NaN for none."""
        n = np.asarray(n_pixels, np.float64)
        return np.where(n > 0, np.maximum(n, 1.0) ** self.exponent, np.nan)

    def error_deg(self, Rbar: NDArray[np.floating[Any]], n_pixels: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return the standard error of one year's mean direction by this noise, in degrees, at most 90."""
        with np.errstate(divide="ignore"):
            angle = np.sqrt(self.pixel_variance / self.effective_pixels(n_pixels)) / np.asarray(Rbar, np.float64)
        return np.minimum(np.degrees(angle), _UNKNOWN_DEG)


def fit_yearly_noise(table: pd.DataFrame) -> YearlyNoise:
    """Estimate the noise of a year from unchanged places, such as rings around sites (`change.ring_sites`) or controls.

    Each year's median step of all places is taken off; half of the mean squared rest is a place's noise. The median
    slope (Theil & Sen) of its logarithm over that of `n_pixels` gives the exponent.

    Parameters
    ----------
    table : DataFrame
        `site_id`, `year`, ``A00``..``A63``, `n_pixels`: at least ten places with three consecutive years. Where the
        largest tenth isn't four times the smallest, the exponent stays that of `AEF_YEARLY_NOISE`.

    Returns
    -------
    YearlyNoise

    Raises
    ------
    UsageError
        If columns are missing, or there are too few places or years.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> v = np.eye(64)[0] + np.random.default_rng(0).normal(0, 0.01, (12 * 5, 64))
    >>> table = pd.DataFrame(v, columns=list(BANDS)).assign(site_id=np.repeat(range(12), 5), n_pixels=1.0)
    >>> round(fit_yearly_noise(table.assign(year=list(range(2018, 2023)) * 12)).pixel_variance, 4)
    0.0061
    """
    for name in ("site_id", "year", "n_pixels"):
        if name not in table.columns:
            raise UsageError(f"the table of unchanged places has no column {name!r}")
    table = table.sort_values(["site_id", "year"], kind="stable").reset_index(drop=True)
    steps = pd.DataFrame(normalize(band_matrix(table))).diff()
    following = table["site_id"].eq(table["site_id"].shift()) & table["year"].eq(table["year"].shift() + 1)
    steps = steps[following & steps[0].notna()]
    local = steps - steps.groupby(table["year"]).transform("median")
    places = pd.DataFrame({"square": (local**2).sum(axis=1), "n": table["n_pixels"]}).loc[steps.index]
    found = places.groupby(table["site_id"]).agg(square=("square", "mean"), n=("n", "median"), steps=("n", "size"))
    found = found[(found["steps"] >= _FEWEST_STEPS) & (found["square"] > 0) & (found["n"] > 0)]
    if len(found) < _FEWEST_RINGS:
        raise UsageError(
            f"{_FEWEST_RINGS} unchanged places with three consecutive years are needed, found {len(found)}; add rings "
            "or controls"
        )
    size, noise = np.log(np.maximum(found["n"].to_numpy(), 1.0)), np.log(found["square"].to_numpy() / 2)
    exponent = AEF_YEARLY_NOISE.exponent
    if np.diff(np.quantile(size, [0.1, 0.9]))[0] >= np.log(_LEAST_SPAN):
        first, second = np.triu_indices(len(size), 1)
        apart = np.abs(size[first] - size[second]) > 1e-9
        slopes = ((noise[first] - noise[second])[apart]) / ((size[first] - size[second])[apart])
        exponent = float(np.clip(-np.median(slopes), 0.0, 1.0))
    # the mean, as real noise has heavy tails, of each place's noise brought to the size of a pixel
    return YearlyNoise(pixel_variance=float(np.mean(np.exp(noise + exponent * size))), exponent=exponent)


def fit_from_rings(table: pd.DataFrame, polygons: Sequence[Any]) -> tuple[SpatialCorrelation, YearlyNoise]:
    """Estimate both laws from rings, or any polygons of several sizes on unchanged land.

    Parameters
    ----------
    table : DataFrame
        An extraction of the polygons: see `fit_yearly_noise`.
    polygons : sequence of shapely polygons, EPSG:4326
        In the order in which their ids first appear in the table.

    Returns
    -------
    SpatialCorrelation, YearlyNoise: for `add_uncertainty`, `effective_pixels` and `mean_direction_error_deg`.

    Raises
    ------
    UsageError
        As `fit_yearly_noise`; or if there isn't one polygon per site id.
    """
    import shapely

    noise = fit_yearly_noise(table)
    table = table.assign(_square=np.sum(band_matrix(table) ** 2, axis=1))
    by_site = table.groupby("site_id", sort=False)[["_square", "n_pixels"]].median()
    if len(polygons) != len(by_site):
        raise UsageError(f"{len(by_site)} site ids need as many polygons, found {len(polygons)}")
    rng = np.random.default_rng(0)
    shapes: list[_Shape] = []
    for polygon, square, n in zip(polygons, by_site["_square"], by_site["n_pixels"], strict=True):
        west, south, east, north = polygon.bounds
        points = np.empty((0, 2))
        while len(points) < _POINTS and np.isfinite(square) and n > 0:
            drawn = rng.uniform((west, south), (east, north), (10 * _POINTS, 2))
            points = np.vstack([points, drawn[shapely.contains_xy(polygon, drawn)]])
        if len(points):
            flat = points[:_POINTS] * _PIXELS_PER_DEGREE * (np.cos(np.radians((south + north) / 2)), 1.0)
            first, second = np.triu_indices(_POINTS, 1)
            count, edges = np.histogram(np.hypot(*(flat[first] - flat[second]).T), bins=200)
            own = 1 / max(float(n), 1.0)
            shapes.append(((edges[1:] + edges[:-1]) / 2, count / count.sum(), own, float(square)))
    return _fitted(shapes), noise


def fit_spatial_correlation(
    cosines: dict[float, float] | None = None, rbars: dict[int, float] | None = None
) -> SpatialCorrelation:
    """Fit sill, part and range by least squares, with a nugget of at least 0.

    Parameters
    ----------
    cosines : dict of lag in pixels to mean cosine, optional
        By default those measured on real land, `MEASURED_COSINES`.
    rbars : dict of side in pixels to mean resultant length of squares, optional
        By default `MEASURED_RBAR`.

    Returns
    -------
    SpatialCorrelation

    Raises
    ------
    UsageError
        For fewer than three measurements.

    Examples
    --------
    >>> model = fit_spatial_correlation()
    >>> round(model.sill, 2), round(model.range_px), round(float(model.cosine(10.0)), 2)
    (0.63, 15, 0.82)
    """
    cosines = MEASURED_COSINES if cosines is None else cosines
    rbars = MEASURED_RBAR if rbars is None else rbars
    if len(cosines) + len(rbars) < 3:
        raise UsageError(f"a sill, a part and a range need 3 measurements, found {len(cosines) + len(rbars)}")
    shapes: list[_Shape] = [(np.array([lag]), np.array([1.0]), 0.0, value) for lag, value in cosines.items()]
    shapes += [(*_lags_of_square(side), 1.0 / side**2, rbar**2) for side, rbar in rbars.items()]
    return _fitted(shapes)


def _fitted(shapes: list[_Shape]) -> SpatialCorrelation:
    """Fit the model to shapes: distances of pixels, the share of pairs at each, 1 / pixels, and the mean cosine."""
    best, found = np.inf, (0.0, 0.0, 1.0)
    for range_px in _RANGES_PX:
        # mean cosine = self + (1 - self) * (sill + part * mean of exp): linear in sill and part
        rows = [
            ((1 - own), (1 - own) * float(weight @ np.exp(-lag / range_px)), value - own)
            for lag, weight, own, value in shapes
        ]
        design, target = np.array(rows)[:, :2], np.array(rows)[:, 2]
        sill, part = np.linalg.lstsq(design, target, rcond=None)[0]
        if sill + part > 1.0:  # a negative nugget: fit on its boundary, part = 1 - sill
            x, y = design[:, 0] - design[:, 1], target - design[:, 1]
            sill = float(x @ y / (x @ x))
            part = 1.0 - sill
        misfit = float(np.sum((design @ (sill, part) - target) ** 2))
        if misfit < best:
            best, found = misfit, (float(sill), float(part), float(range_px))
    return SpatialCorrelation(sill=found[0], part=found[1], range_px=found[2])


def _lags_of_square(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances between different pixels of a square, and the share of the pairs at each."""
    steps = np.arange(side)
    times = np.where(steps == 0, side, 2 * (side - steps)).astype(np.float64)
    count = np.outer(times, times).ravel()[1:]
    lag = np.hypot(steps[:, None], steps[None, :]).ravel()[1:]
    return lag, count / count.sum()


# the results of fitting the constants above (tests compare them); the first is within 0.014 of every measurement, the
# second, by least squares of logarithms, within 0.04
AEF_YEARLY_NOISE: Final = YearlyNoise(pixel_variance=MEASURED_SQUARED_STEP / 2, exponent=0.5)
AEF_CORRELATION: Final = SpatialCorrelation(sill=0.6294, part=0.3706, range_px=15.1)


def effective_pixels(
    n_pixels: NDArray[np.floating[Any]] | float, correlation: SpatialCorrelation = AEF_CORRELATION
) -> NDArray[np.float64]:
    """Return the effective sample size of the pattern: how many independent pixels would have as good a mean.

    It says how well a polygon represents similar land, not how noisy its years are (`YearlyNoise`). The variance of the
    mean of a disc of n pixels, relative to that of a pixel, is
    ``nugget / n + (1 - nugget) E exp(-d / L)`` with d the distance of two random points of the disc; the effective
    sample size is one over it. A disc has the smallest of all shapes of an area, so the result is a lower bound.

    Parameters
    ----------
    n_pixels : float array
        Number of 10 m pixels, as in the column `n_pixels`.
    correlation : SpatialCorrelation
        Correlation of the pixels.

    Returns
    -------
    float64 array of the same shape: 1 for a polygon of one pixel or less, never more than `n_pixels`; NaN for none.

    Examples
    --------
    >>> effective_pixels(np.array([0.4, 5, 500, 5_000, 500_000])).round(1).tolist()
    [1.0, 1.1, 2.0, 6.2, 366.7]
    """
    n = np.asarray(n_pixels, np.float64)
    present = n > 0
    radius = np.sqrt(np.where(present, n, 1.0) / np.pi)
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE)
    # for a large disc most of the integral comes from short distances: x = t^3 puts the nodes there
    t = (nodes + 1) / 2
    x, dx = t**3, weights / 2 * 3 * t**2  # d = 2 R x
    density = (16 / np.pi) * x * (np.arccos(x) - x * np.sqrt(1 - x * x))  # of x: Solomon 1978
    mean_correlation = np.exp(-2 * radius[..., None] * x / correlation.range_px) @ (density * dx)
    nugget = correlation.nugget
    relative_variance = nugget / np.maximum(n, 1.0) + (1 - nugget) * mean_correlation
    effective = np.clip(1.0 / relative_variance, 1.0, np.maximum(n, 1.0))
    return np.where(present, effective, np.nan)


def concentration(Rbar: NDArray[np.floating[Any]] | float, dimension: int = N_BANDS) -> NDArray[np.float64]:
    """Estimate the concentration of a von Mises-Fisher distribution from the mean resultant length.

    Start: ``k = R (p - R^2) / (1 - R^2)`` (Banerjee et al. 2005); then Newton steps towards ``A_p(k) = R``, with
    ``A_p = I_{p/2} / I_{p/2-1}`` and ``A_p' = 1 - A_p^2 - (p - 1) A_p / k`` (Sra 2012).

    Parameters
    ----------
    Rbar : float array
        0..1. Values above 1 by rounding (up to 1 %, as pixel norms are) count as 1.
    dimension : int
        Number of bands.

    Returns
    -------
    float64 array: 0 for Rbar 0, infinity for 1, NaN for NaN.

    Raises
    ------
    UsageError
        For an Rbar outside 0..1.01.

    Examples
    --------
    >>> concentration(np.array([0.0, 0.5, 0.905, 0.99])).round(1).tolist()
    [0.0, 42.4, 315.5, 3134.7]
    """
    r = np.asarray(Rbar, np.float64)
    if np.any((r < 0) | (r > 1.01)):
        raise UsageError(f"Rbar is a length between 0 and 1, found {float(np.nanmax(np.abs(r)))}")
    p = float(dimension)
    inside = (r > 0) & (r < 1)
    s = np.where(inside, r, 0.5)
    kappa = s * (p - s * s) / (1 - s * s)
    for _ in range(_NEWTON_STEPS):
        a = _bessel_ratio(kappa, p)
        kappa = kappa - (a - s) / (1 - a * a - (p - 1) * a / kappa)
    return np.where(inside, kappa, np.where(r >= 1, np.inf, np.where(r == 0, 0.0, np.nan)))


def _bessel_ratio(kappa: NDArray[np.float64], p: float) -> NDArray[np.float64]:
    """Return ``I_{p/2}(k) / I_{p/2-1}(k)`` by the continued fraction 1 / (p/k + 1 / ((p+2)/k + ...)).

    It is evaluated from its tail (Gautschi & Slavik 1978). The tail is such a ratio of a higher order, for which the
    bound of Amos (*Math. Comp.* 28, 1974) is a close approximation: so large k are as accurate as small ones.
    """
    order = p / 2 - 1 + _FRACTION_TERMS
    tail = kappa / (order + 0.5 + np.sqrt((order + 1.5) ** 2 + kappa * kappa))
    for i in range(_FRACTION_TERMS - 1, -1, -1):
        tail = 1.0 / ((p + 2 * i) / kappa + tail)
    return tail


def mean_direction_error_deg(
    Rbar: NDArray[np.floating[Any]], n_pixels: NDArray[np.floating[Any]], correlation: SpatialCorrelation | None = None
) -> NDArray[np.float64]:
    """Return the standard error of a polygon's mean direction, as a sample of similar land, in degrees.

    The variance within the polygon is ``1 - Rbar^2``. It is too small by the factor ``1 - 1 / n_eff`` because the
    pixels are correlated, so the variance of a pixel is ``(1 - Rbar^2) / (1 - 1 / n_eff)``, at most 1, and the variance
    of the mean is that divided by n_eff. A polygon with n_eff near 1 doesn't show its own variance: therefore the
    variance of real land (`SpatialCorrelation.variance`) is added with the weight of one effective pixel. The angle is
    ``sqrt(variance of the mean) / Rbar``, over all 63 directions of the sphere (Mardia & Jupp 2000, 10.3), and at most
    90, the mean angle to a random direction.

    Parameters
    ----------
    Rbar, n_pixels : float arrays
        Mean resultant length and number of pixels, as in the table.
    correlation : SpatialCorrelation, optional
        Correlation of the pixels; by default `AEF_CORRELATION`, measured on real land.

    Returns
    -------
    float64 array, degrees, NaN without data. It doesn't include the noise between years (`YearlyNoise.error_deg`),
    which `change` estimates from the table.

    Examples
    --------
    >>> mean_direction_error_deg(np.array([0.95, 0.95]), np.array([5.0, 5_000.0])).round(1).tolist()
    [38.6, 9.6]
    """
    model = AEF_CORRELATION if correlation is None else correlation
    r, n_eff = np.asarray(Rbar, np.float64), effective_pixels(n_pixels, model)
    # n_eff - 1 degrees of freedom of the polygon and one of real land: never a division by 0
    within = np.clip(1.0 - r * r, 0.0, 1.0)
    variance = np.minimum((within * n_eff + model.variance) / n_eff, 1.0)
    with np.errstate(divide="ignore"):  # a mean of length 0 has no direction
        return np.minimum(np.degrees(np.sqrt(variance / n_eff) / r), _UNKNOWN_DEG)


def add_uncertainty(
    table: pd.DataFrame, correlation: SpatialCorrelation | None = None, noise: YearlyNoise | None = None
) -> pd.DataFrame:
    """Return a copy of a table with more columns: concentration, effective sample sizes and standard errors.

    Parameters
    ----------
    table : DataFrame
        With ``A00``..``A63`` and ``n_pixels``.
    correlation, noise : optional
        By default `AEF_CORRELATION` and `AEF_YEARLY_NOISE`, measured on other land; `fit_from_rings` gives one's own.

    Returns
    -------
    DataFrame with `kappa` (vMF concentration, unitless); `n_effective` (pixels) and `mean_direction_error_deg` of the
    pattern; `n_effective_yearly` (pixels) and `yearly_noise_deg` of one year's noise, which is what differences between
    years are to be compared with.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(np.eye(64)[:1] * 0.95, columns=list(BANDS)).assign(n_pixels=2_500.0)
    >>> names = ["kappa", "n_effective", "n_effective_yearly", "yearly_noise_deg"]
    >>> add_uncertainty(table)[names].round(1).values.tolist()
    [[614.3, 4.0, 50.0, 1.2]]
    """
    if "n_pixels" not in table.columns:
        raise UsageError("the table has no column 'n_pixels', which the standard error of a mean depends on")
    length = np.minimum(mean_resultant_length(band_matrix(table)), 1.0)
    n = table["n_pixels"].to_numpy(np.float64)
    noise = AEF_YEARLY_NOISE if noise is None else noise
    return table.assign(
        kappa=concentration(length),
        n_effective=effective_pixels(n, correlation or AEF_CORRELATION),
        mean_direction_error_deg=mean_direction_error_deg(length, n, correlation),
        n_effective_yearly=noise.effective_pixels(n),
        yearly_noise_deg=noise.error_deg(length, n),
    )
