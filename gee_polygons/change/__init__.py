"""Tests whether and when each site changed, relative to a background."""

from gee_polygons.change.background import Corrected, corrected
from gee_polygons.change.detection import Change, change
from gee_polygons.change.rings import ring_sites

__all__ = ["Change", "Corrected", "change", "corrected", "ring_sites"]
