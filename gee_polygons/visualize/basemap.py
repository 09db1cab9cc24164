"""Finds the tiles of base maps, and draws them below a map of sites where there is a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gee_polygons.errors import UsageError, optional_import, warn_data

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PATIENCE_S: Final = 10.0  # for a tile
_CREDIT_PT: Final = 5


def tiles_of(basemap: bool | str) -> Any:
    """Return the provider of a base map: True, a name such as "Esri.WorldImagery", or a URL with {x}, {y} and {z}.

    Raises
    ------
    DependencyError
        If contextily isn't installed.
    UsageError
        If no provider has that name.
    """
    contextily = optional_import("contextily", 'a base map needs contextily: pip install "gee_polygons[basemap]"')
    if isinstance(basemap, str) and "://" in basemap:
        from xyzservices import TileProvider

        return TileProvider(url=basemap, attribution="", name="url")
    try:
        return contextily.providers.query_name("OpenStreetMap.HOT" if basemap is True else basemap)
    except ValueError as error:
        raise UsageError(
            f"no base map is called {basemap!r}; give 'Esri.WorldImagery', say, or a URL with {{x}}, {{y}}, {{z}}"
        ) from error


def draw_base_map(ax: Axes, basemap: bool | str) -> None:
    """Draw a base map below an axes in longitude and latitude; where tiles can't be had, warn in one line."""
    tiles = tiles_of(basemap)
    import contextily

    try:
        contextily.add_basemap(
            ax, crs="EPSG:4326", source=tiles, attribution_size=_CREDIT_PT, timeout=_PATIENCE_S, zorder=0
        )
    except OSError as error:  # of requests, all of them
        reason = str(error).partition("\n")[0][:120]
        warn_data(f"no base map below the sites: {tiles.name} didn't answer ({reason}); they are drawn without it")
