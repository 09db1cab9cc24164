"""Finds the folder of files that can be made again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gee_polygons.errors import OutputError


def cache_folder() -> Path:
    """Return ``GEE_POLYGONS_CACHE`` if it is set, else this package's folder in the user's cache folder.

    Raises
    ------
    OutputError
        If the user has no home folder.
    """
    try:
        if chosen := os.environ.get("GEE_POLYGONS_CACHE"):
            return Path(chosen).expanduser()
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise OutputError("there is no home folder to keep files in; set GEE_POLYGONS_CACHE to a folder") from error
    return base / "gee_polygons"
