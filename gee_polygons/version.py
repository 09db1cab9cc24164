"""The installed version of this package."""

from __future__ import annotations

from importlib.metadata import version


def package_version() -> str:
    """Return the version of the installed distribution."""
    return version("gee_polygons")
