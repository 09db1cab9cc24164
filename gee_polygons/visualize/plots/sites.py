"""Draws a map of sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from gee_polygons.errors import UsageError
from gee_polygons.visualize.basemap import draw_base_map
from gee_polygons.visualize.pictures.canvas import length_text, round_length
from gee_polygons.visualize.plots.coloring import colours_of
from gee_polygons.visualize.plots.figure import INK, OKABE_ITO, axes_or_new, column_named, tidy, white_edge
from gee_polygons.visualize.plots.labels import place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_MARKER_PT: Final = 6.0  # the point that stands for a small site
_METRES_PER_DEGREE: Final = 111_195.0  # of latitude, on a sphere of the Earth's mean radius


def plot_sites(
    sites: Any,
    ax: Axes | None = None,
    *,
    color: str | Sequence[Any] | pd.Series[Any] | None = None,
    label: str | None = None,
    cmap: str = "viridis",
    names: bool | None = None,
    basemap: bool | str = False,
) -> Axes:
    """Draw a map of sites, coloured by a property or by values of your own.

    Parameters
    ----------
    sites : SiteCollection or GeoDataFrame
        Polygons; a GeoDataFrame's CRS is read.
    ax : Axes, optional
        Where to draw.
    color : column name or one value per site, optional
        Numbers get the colours of `cmap` and a colour bar, text the Okabe-Ito colours and a legend; colours such as
        ``"#00ff00"`` (the column ``pca_rgb``) are used as they are.
    label : str, optional
        Title of the colour bar or legend, with the unit; by default the column's name.
    cmap : str
        Name of a colour map.
    names : bool, optional
        Whether to write site ids, where there is room for them; by default up to 20 sites.
    basemap : bool or str
        Tiles to draw below the sites, with their credit: True (OpenStreetMap), the name of a provider that
        ``contextily`` knows, such as ``"Esri.WorldImagery"``, or a URL with ``{x}``, ``{y}`` and ``{z}``. Needs a
        network (without one, a warning says so and the sites are drawn alone) and ``gee_polygons[basemap]``.

    Returns
    -------
    Axes in longitude and latitude, scaled so that a kilometre is the same both ways at the middle of the map.

    Raises
    ------
    DependencyError
        If `basemap` is asked for and contextily isn't installed.

    Examples
    --------
    >>> from gee_polygons.sources.sample import sample_sites
    >>> plot_sites(sample_sites(), color="start_year").get_xlabel()
    'longitude (°)'
    """
    frame = sites.to_geodataframe() if hasattr(sites, "to_geodataframe") else sites
    if not hasattr(frame, "geometry") or not hasattr(frame, "to_crs"):
        raise UsageError(f"sites are a SiteCollection or a GeoDataFrame, found {type(sites).__name__}")
    if len(frame) == 0:
        raise UsageError("there are no sites to draw")
    if not frame.geometry.geom_type.isin(["Polygon", "MultiPolygon"]).all():
        found = sorted({str(kind) for kind in frame.geometry.geom_type} - {"Polygon", "MultiPolygon"})[0]
        raise UsageError(f"sites are polygons, found a {found}; buffer it, or leave it out")
    frame = frame if frame.crs is None else frame.to_crs("EPSG:4326")
    values, title = _values_of(frame, color)
    ax = axes_or_new(ax, (6.4, 4.6), frame if values is None else values)
    west, south, east, north = frame.total_bounds
    middle = np.cos(np.radians((south + north) / 2))
    span = max((east - west) * middle, north - south, 1e-4)
    _draw_polygons(ax, frame, values, label or title, cmap, span, 0.6 if basemap else 1.0)
    # room around the sites, in proportions of ground
    for set_limits, low, high, scale in ((ax.set_xlim, west, east, middle), (ax.set_ylim, south, north, 1.0)):
        half = max((high - low) / 2, 0.3 * span / scale) + 0.09 * span / scale
        set_limits((low + high) / 2 - half, (low + high) / 2 + half)
    if basemap:
        draw_base_map(ax, basemap)
    ax.set_aspect(1 / middle)
    ax.set_xlabel("longitude (°)")
    ax.set_ylabel("latitude (°)")
    ax.locator_params(nbins=5)
    ax.ticklabel_format(useOffset=False)
    tidy(ax)
    _scale_bar(ax, span)
    if (names if names is not None else len(frame) <= 20) and "site_id" in frame.columns:
        _write_names(ax, frame)
    return ax


def _values_of(frame: Any, color: Any) -> tuple[pd.Series[Any] | None, str]:
    if color is None:
        return None, ""
    if isinstance(color, str):
        return frame[column_named(frame, color)], color
    if isinstance(color, pd.Series):
        values = color.reset_index(drop=True)
        title = str(color.name or "")
    else:
        values, title = pd.Series(list(color)), ""
    if len(values) != len(frame):
        raise UsageError(f"{len(frame)} sites need as many values to colour by, found {len(values)}")
    return values.set_axis(frame.index), title


def _draw_polygons(
    ax: Axes, frame: Any, values: pd.Series[Any] | None, title: str, cmap: str, span: float, opacity: float
) -> None:
    from matplotlib.collections import PathCollection
    from matplotlib.colors import to_rgba_array

    colours = [OKABE_ITO[0]] * len(frame) if values is None else colours_of(ax, values, title, cmap)
    outlines = PathCollection(
        [_outline(geometry) for geometry in frame.geometry],
        facecolors=to_rgba_array(colours, opacity),
        edgecolors=INK,
        linewidths=0.5,
        zorder=2,
    )
    ax.add_collection(outlines, autolim=False)
    # a site too small to be seen on the map gets a point
    bounds = frame.geometry.bounds
    size = np.maximum(bounds["maxx"] - bounds["minx"], bounds["maxy"] - bounds["miny"]).to_numpy()
    small = np.flatnonzero(size < span / 60)
    if len(small):
        points = frame.geometry.iloc[small].representative_point()
        own = [colours[i] for i in small]
        ax.scatter(points.x, points.y, s=_MARKER_PT**2, color=own, edgecolors=INK, linewidths=0.5, zorder=3)


def _scale_bar(ax: Axes, span: float) -> None:
    """Draw a bar of a round length on the ground, bottom right."""
    metres = round_length(span * _METRES_PER_DEGREE * 0.3)
    low, high = ax.get_ylim()
    west, east = ax.get_xlim()
    length = metres / (_METRES_PER_DEGREE * np.cos(np.radians((low + high) / 2)))
    start, up = east - 0.03 * (east - west) - length, low + 0.03 * (high - low)
    ax.plot([start, start + length], [up, up], color=INK, linewidth=2, solid_capstyle="butt", zorder=5)
    ax.annotate(
        length_text(metres), (start + length / 2, up), xytext=(0, 2.5), textcoords="offset points",
        ha="center", fontsize=7, color=INK, path_effects=white_edge(), zorder=5,
    )  # fmt: skip


def _outline(geometry: Any) -> Any:
    """Return all rings of a polygon or multipolygon as one path, so that holes stay open."""
    import shapely
    from matplotlib.path import Path as Outline

    rings = [ring for part in shapely.get_parts(geometry) for ring in (part.exterior, *part.interiors)]
    return Outline.make_compound_path(*[Outline(np.asarray(ring.coords)[:, :2], closed=True) for ring in rings])


def _write_names(ax: Axes, frame: Any) -> None:
    """Write site ids next to the sites, where they cover no other site and no other name."""
    boxes = frame.geometry.bounds.to_numpy()
    # large sites first: their names have the fewest places
    order = np.argsort(-(boxes[:, 2] - boxes[:, 0]), kind="stable")
    place_labels(ax, frame["site_id"].astype(str).to_numpy()[order].tolist(), boxes[order], marker=_MARKER_PT)
