"""Holds what the confidence intervals of shares of recovery are drawn from: noise, references, drift, curvature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gee_polygons.change.noise import Noise
from gee_polygons.change.numerics import Floats
from gee_polygons.recovery.geometry import Position
from gee_polygons.recovery.scatter import Scatter

_NOTHING: Final = 1e-9  # squared length of a trajectory to references that lie where the site starts


@dataclass(frozen=True, kw_only=True, eq=False)
class Curvature:
    """How far trajectories deviate from straight ones.

    Parameters
    ----------
    common : float
        Squared length of the curvature that all sites share.
    own : float
        Variance of a site's curvature about it, squared length.
    directions : float
        Effective number of directions that it may have.
    """

    common: float = 0.0
    own: float = 0.0
    directions: float = np.inf

    def draw(self, position: Position, draws: int, rng: np.random.Generator) -> Floats:
        """Draw what curvature along the trajectory adds to shares, shape (draws, sites, years)."""
        if self.common + self.own <= 0:
            return np.zeros((1, *position.share.shape))
        p = np.clip(np.nan_to_num(position.share), 0, 1)
        reach = p * (1 - p) / np.sqrt(np.maximum(np.nan_to_num(position.length_squared, nan=1.0), _NOTHING))
        freedom = self.directions - 1
        common, own = rng.standard_t(freedom, size=(2, draws, 1, 1))
        found: Floats = reach * (np.sqrt(self.common / freedom) * common + np.sqrt(self.own / freedom) * own)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Uncertainty:
    """Sources of error of shares of recovery.

    Parameters
    ----------
    noise : Noise
        Of the restoration sites.
    references : Scatter
        How reference sites differ.
    reference_variance : float
        Squared length of the noise of the references' mean in a year.
    degraded : Scatter, optional
        How degraded stand-ins differ.
    step_variance : float
        Squared length of the noise of the drift's step in a year; 0 without a background.
    step_covariance : float array, shape (years, 64, 64)
        Covariance of the part of a year's step that the background can't determine.
    own_background : bool
        Whether the references are the background, so that their noise is the step's.
    end_variance : float
        Variance of the sites' final states about the references' mean, relative to the references' own.
    curvature : Curvature
        Of the trajectories.
    """

    noise: Noise
    references: Scatter
    reference_variance: float
    degraded: Scatter | None
    step_variance: float
    step_covariance: Floats
    own_background: bool
    end_variance: float = 1.0
    curvature: Curvature = Curvature()

    def shared_variance(self, by_year: Floats, by_end: Floats, correlation: Floats) -> float:
        """Return the variance that the errors shared by all sites give a weighted mean over sites.

        Parameters
        ----------
        by_year, by_end : float arrays, shape (years,)
            Weights of the years' vectors, and of the years' references.
        correlation : float array, shape (years, years)
            Of the noise between years.
        """
        total = self.step_variance + np.trace(self.step_covariance, axis1=1, axis2=2)
        step = (by_year if self.own_background else by_year - by_end) * np.sqrt(total)
        end = 0.0 if self.own_background else self.reference_variance * float(by_end @ correlation @ by_end)
        return float(step @ correlation @ step) + end
