"""Warnings of what the data can't tell, shown where the package was called."""

from __future__ import annotations

import sys
import warnings

from gee_polygons.errors import DataWarning


def tell(message: str) -> None:
    """Warn with a `DataWarning`, as if from the first line outside of this package that led here."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] == "gee_polygons":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DataWarning, stacklevel=level)
