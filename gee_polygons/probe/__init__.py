"""Fits simple models on embeddings and scores them by spatial cross-validation."""

from gee_polygons.probe.fitting import fit_probe
from gee_polygons.probe.saved import Probe, load_probe, predict_sites, train_probe
from gee_polygons.probe.validation import (
    ProbeResult,
    ValueResult,
    compare_block_sizes,
    cross_validate,
    spatial_blocks,
)

__all__ = [
    "Probe",
    "ProbeResult",
    "ValueResult",
    "compare_block_sizes",
    "cross_validate",
    "fit_probe",
    "load_probe",
    "predict_sites",
    "spatial_blocks",
    "train_probe",
]
