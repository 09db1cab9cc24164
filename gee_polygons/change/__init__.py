"""Tests whether and when each site changed, relative to a background."""

from gee_polygons.change.detection import (
    Change,
    Corrected,
    change,
    corrected,
    ring_sites,
)

__all__ = ["Change", "Corrected", "change", "corrected", "ring_sites"]
