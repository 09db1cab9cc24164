"""Fits simple models on embeddings and scores them by spatial cross-validation."""

from gee_polygons.probe.fitting import fit_probe
from gee_polygons.probe.validation import ProbeResult, ValueResult, cross_validate, spatial_blocks

__all__ = ["ProbeResult", "ValueResult", "cross_validate", "fit_probe", "spatial_blocks"]
