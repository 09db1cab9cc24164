"""Measures the recovery of restoration sites: how far each has moved from its start towards reference sites."""

from gee_polygons.recovery.estimation import Recovery, recovery

__all__ = ["Recovery", "recovery"]
