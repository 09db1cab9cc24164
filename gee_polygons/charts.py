"""Charts of class areas under their names of version 0.0.4; `gee_polygons.visualize.plot_classes` draws them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from gee_polygons.layers import CategoricalLayer
from gee_polygons.moved import with_old_names
from gee_polygons.visualize import plot_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_class_distribution(
    df: pd.DataFrame,
    title: str = "Class Distribution Over Time (%)",
    colors: Mapping[str, str] | None = None,
    layer: CategoricalLayer | None = None,
    *,
    share: bool = True,
) -> tuple[Figure, Axes]:
    """Draw each class's share in percent as a line; return figure and axes."""
    ax = plot_classes(df, layer=layer, share=share, colors=colors)
    ax.set_title(title)
    figure = ax.get_figure(root=True)
    assert figure is not None, "an axes always belongs to a figure"
    return figure, ax


def plot_class_area_stacked(
    df: pd.DataFrame,
    title: str = "Area by Class Over Time (hectares)",
    colors: Mapping[str, str] | None = None,
    layer: CategoricalLayer | None = None,
) -> tuple[Figure, Axes]:
    """Draw each class's area in hectares as stacked bars; return figure and axes."""
    return plot_class_distribution(df, title, colors, layer, share=False)


with_old_names(__name__)
