"""The installed version of this package."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

__version__: Final = version("gee_polygons")


def package_version() -> str:
    """Return the version of the installed distribution."""
    return __version__
