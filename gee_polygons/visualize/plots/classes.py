"""Draws the areas of classes over the years, as stacked bars or as lines of their shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gee_polygons.errors import UsageError
from gee_polygons.layers import CategoricalLayer
from gee_polygons.visualize.plots.figure import LEGEND, OKABE_ITO, axes_or_new, column_named, literal, tidy, whole_years

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_classes(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    layer: CategoricalLayer | None = None,
    share: bool = False,
    colors: Mapping[str, str] | None = None,
) -> Axes:
    """Draw the area of each class, year by year, summed over the sites of the table.

    Parameters
    ----------
    table : DataFrame
        What `extract_categorical` returns, or some of its rows: columns year, class, class_name and area_ha.
    ax : Axes, optional
        Where to draw.
    layer : CategoricalLayer, optional
        Its legend's colours are taken.
    share : bool
        Lines of each class's share in percent of a year's area, in place of stacked bars in hectares.
    colors : mapping of class name to colour, optional
        Colours of your own.

    Returns
    -------
    Axes

    Examples
    --------
    >>> rows = [(2020, 3, "Forest", 2.0), (2020, 15, "Pasture", 6.0), (2021, 3, "Forest", 8.0)]
    >>> table = pd.DataFrame(rows, columns=["year", "class", "class_name", "area_ha"])
    >>> [line.get_ydata().tolist() for line in plot_classes(table, share=True).lines]
    [[25.0, 100.0], [75.0, 0.0]]
    """
    for name in ("year", "class", "class_name", "area_ha"):
        column_named(table, name)
    if table.empty:
        raise UsageError("the table has no rows: these sites and years have no classes to draw")
    areas = table.pivot_table(index="year", columns="class", values="area_ha", aggfunc="sum")
    areas = areas.fillna(0.0)[areas.sum().sort_values(ascending=False, kind="stable").index]
    names = table.groupby("class")["class_name"].first()
    legend: Mapping[Any, str] = layer.palette if layer is not None else {}
    ax = axes_or_new(ax, (7.2, 3.0), table)
    bottom = np.zeros(len(areas))
    for i, (number, name) in enumerate(names[areas.columns].items()):
        area = areas[number]
        colour = (colors or {}).get(name) or legend.get(number, OKABE_ITO[i % len(OKABE_ITO)])
        if share:
            ax.plot(
                areas.index, 100 * area / areas.sum(axis=1), marker="o", markersize=4, label=literal(name), color=colour
            )
        else:
            ax.bar(areas.index, area, bottom=bottom, width=0.75, label=literal(name), color=colour)
            bottom += area.to_numpy()
    ax.set_xlabel("year")
    ax.set_ylabel("share of the area (%)" if share else "area (ha)")
    ax.set_ylim(bottom=0)
    whole_years(ax, table["year"])
    ax.legend(title="class", **LEGEND)
    tidy(ax)
    return ax
