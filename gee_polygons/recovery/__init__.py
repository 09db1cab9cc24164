"""Measures how far each site has moved from its start towards reference sites."""

from gee_polygons.recovery.estimation import (
    Recovery,
    block_sites,
    recovery,
)

__all__ = ["Recovery", "block_sites", "recovery"]
