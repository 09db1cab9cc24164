"""Measures the recovery of restoration sites: how far each has moved from its start towards reference sites."""

from gee_polygons.recovery.blocks import block_sites
from gee_polygons.recovery.estimation import Recovery, recovery

__all__ = ["Recovery", "block_sites", "recovery"]
