"""A map of sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gee_polygons.errors import UsageError
from gee_polygons.plots._figure import (
    BESIDE,
    INK,
    NO_DATA,
    OKABE_ITO,
    axes_or_new,
    class_colours,
    colormap,
    colour_bar,
    column_named,
    is_colour_column,
    tidy,
    white_edge,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_sites(
    sites: Any,
    ax: Axes | None = None,
    *,
    color: str | Sequence[Any] | pd.Series[Any] | None = None,
    label: str | None = None,
    cmap: str = "viridis",
    names: bool | None = None,
) -> Axes:
    """Draw a map of sites, coloured by anything.

    Parameters
    ----------
    sites : SiteCollection or GeoDataFrame
        Polygons; a GeoDataFrame's CRS is read.
    ax : Axes, optional
        Where to draw.
    color : column name or one value per site, optional
        Numbers get `cmap` and a colour bar, words the Okabe-Ito colours and a legend, ``"#rrggbb"`` (such as
        ``pca_rgb``) are drawn as they are.
    label : str, optional
        What the colour bar or legend says, with its unit; by default the column's name.
    cmap : str
        Name of a colour map.
    names : bool, optional
        Whether to write site ids, where there is room for them; by default up to 20 sites.

    Returns
    -------
    Axes in longitude and latitude, scaled so that a kilometre is the same both ways at the middle of the map.
    """
    frame = sites.to_geodataframe() if hasattr(sites, "to_geodataframe") else sites
    if not hasattr(frame, "geometry") or not hasattr(frame, "to_crs"):
        raise UsageError(f"sites are a SiteCollection or a GeoDataFrame, found {type(sites).__name__}")
    if len(frame) == 0:
        raise UsageError("there are no sites to draw")
    frame = frame if frame.crs is None else frame.to_crs("EPSG:4326")
    values, title = _values_of(frame, color)
    ax = axes_or_new(ax, (4.8, 4.2))
    west, south, east, north = frame.total_bounds
    middle = np.cos(np.radians((south + north) / 2))
    span = max((east - west) * middle, north - south, 1e-4)
    _draw_polygons(ax, frame, values, label or title, cmap, span)
    # room around the sites, in proportions of ground
    for set_limits, low, high, scale in ((ax.set_xlim, west, east, middle), (ax.set_ylim, south, north, 1.0)):
        half = max((high - low) / 2, 0.3 * span / scale) + 0.06 * span / scale
        set_limits((low + high) / 2 - half, (low + high) / 2 + half)
    ax.set_aspect(1 / middle)
    ax.set_xlabel("longitude (°)")
    ax.set_ylabel("latitude (°)")
    ax.locator_params(nbins=5)
    ax.ticklabel_format(useOffset=False)
    if (names if names is not None else len(frame) <= 20) and "site_id" in frame.columns:
        _write_names(ax, frame)
    tidy(ax)
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


def _draw_polygons(ax: Axes, frame: Any, values: pd.Series[Any] | None, title: str, cmap: str, span: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PathCollection
    from matplotlib.colors import Normalize
    from matplotlib.lines import Line2D

    if values is None:
        colours: list[Any] = [OKABE_ITO[0]] * len(frame)
    elif is_colour_column(values):
        colours = [NO_DATA if pd.isna(v) else v for v in values]
    elif pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        numbers = values.to_numpy(np.float64)
        shown = numbers[np.isfinite(numbers)] if np.isfinite(numbers).any() else np.array([0.0, 1.0])
        flat = 0.5 if shown.min() == shown.max() else 0.0
        norm, scale = Normalize(shown.min() - flat, shown.max() + flat), colormap(cmap)
        colours = [scale(norm(v)) if np.isfinite(v) else NO_DATA for v in numbers]
        colour_bar(ax, ScalarMappable(norm, scale), title, whole=bool(np.all(shown == np.rint(shown))))
    else:
        classes = class_colours(values)
        colours = [NO_DATA if pd.isna(v) else classes[str(v)] for v in values]
        handles = [Line2D([], [], marker="s", linestyle="", color=c, label=name) for name, c in classes.items()]
        ax.legend(handles=handles, title=title, fontsize=8, title_fontsize=8, frameon=False, **BESIDE)
    if NO_DATA in colours:
        ax.text(0.02, 0.02, "grey: no data", transform=ax.transAxes, fontsize=8, color=INK)
    outlines = PathCollection(
        [_outline(geometry) for geometry in frame.geometry],
        facecolors=colours,
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
        ax.scatter(points.x, points.y, s=28, color=own, edgecolors=INK, linewidths=0.5, zorder=3)


def _outline(geometry: Any) -> Any:
    """All rings of a polygon or multipolygon as one path: holes stay open."""
    import shapely
    from matplotlib.path import Path as Outline

    rings = [ring for part in shapely.get_parts(geometry) for ring in (part.exterior, *part.interiors)]
    return Outline.make_compound_path(*[Outline(np.asarray(ring.coords)[:, :2], closed=True) for ring in rings])


def _write_names(ax: Axes, frame: Any) -> None:
    """Write site ids beside the sites, each on the first of four sides where no other name stands, if there is one."""
    # until the figure is laid out, nobody knows where on it the sites are
    figure = ax.get_figure(root=True)
    assert figure is not None, "an axes always belongs to a figure"
    figure.draw_without_rendering()
    room = ax.get_window_extent().extents
    # a letter of 7 points is about 4.6 points wide
    letter, line = 4.6 * ax.figure.dpi / 72, 9.0 * ax.figure.dpi / 72
    taken: list[tuple[float, float, float, float]] = []
    for site_id, point in zip(frame["site_id"].astype(str), frame.geometry.representative_point(), strict=True):
        x, y = ax.transData.transform((point.x, point.y))
        boxes = []
        for to_right, up in ((True, True), (False, True), (True, False), (False, False)):
            left = x + line / 2 if to_right else x - line / 2 - letter * len(site_id)
            bottom = y + line / 3 if up else y - line * 4 / 3
            boxes.append((left, bottom, left + letter * len(site_id), bottom + line))
        inside = [i for i, box in enumerate(boxes) if box[0] >= room[0] and box[2] <= room[2] + 6 * letter]
        free = [i for i in inside if not any(_overlap(boxes[i], other) for other in taken)]
        if not free:
            continue
        side = free[0]
        taken.append(boxes[side])
        ax.annotate(
            site_id,
            (point.x, point.y),
            xytext=(4 if side in (0, 2) else -4, 3 if side < 2 else -3),
            textcoords="offset points",
            ha="left" if side in (0, 2) else "right",
            va="bottom" if side < 2 else "top",
            fontsize=7,
            color=INK,
            path_effects=white_edge(),
            zorder=4,
        )


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
