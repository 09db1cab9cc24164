"""Gives values their colours in a diagram, and draws the legend or colour bar that explains them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from gee_polygons.errors import UsageError
from gee_polygons.visualize.plots.figure import (
    GROUP_COLOURS,
    INK,
    LEGEND,
    NO_DATA,
    OKABE_ITO,
    colormap,
    colour_bar,
    literal,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_STEPS: Final = 8  # of whole numbers that are listed in a legend


def colours_of(ax: Axes, values: pd.Series[Any], title: str, cmap: str = "viridis") -> Any:
    """Return the colour of each value, names or RGBA, grey where there is none, and draw what explains the colours.

    Colours such as ``"#00ff00"`` are used as they are; numbers get the colours of `cmap`, text those of Okabe and Ito;
    groups of recovery have their own.
    """
    present = values.dropna()
    if len(present) and present.astype(str).str.fullmatch(r"#[0-9a-fA-F]{6}").all():
        return [NO_DATA if pd.isna(v) else v for v in values]
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return _colours_of_numbers(ax, values.to_numpy(np.float64, na_value=np.nan), title, cmap)
    classes = sorted(present.astype(str).unique())
    if len(classes) > len(OKABE_ITO):
        raise UsageError(f"there are colours for {len(OKABE_ITO)} classes, found {len(classes)}; group them")
    colour_of = dict(zip(classes, OKABE_ITO, strict=False))
    if GROUP_COLOURS.keys() >= colour_of.keys():
        colour_of = {group: colour for group, colour in GROUP_COLOURS.items() if group in colour_of}
    colours = [NO_DATA if pd.isna(v) else colour_of[str(v)] for v in values]
    _legend(ax, colour_of, title, gaps=NO_DATA in colours)
    return colours


def _colours_of_numbers(ax: Axes, numbers: Any, title: str, cmap: str) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize, to_rgba

    shown = numbers[np.isfinite(numbers)] if np.isfinite(numbers).any() else np.array([0.0, 1.0])
    margin = 0.5 if shown.min() == shown.max() else 0.0
    norm, scale = Normalize(shown.min() - margin, shown.max() + margin), colormap(cmap)
    gaps = ~np.isfinite(numbers)
    colours = scale(norm(np.where(gaps, shown[0], numbers)))
    colours[gaps] = to_rgba(NO_DATA)
    steps = np.unique(shown)
    whole = bool(np.all(shown == np.rint(shown)))
    if whole and len(steps) <= _MOST_STEPS:  # a few years are easier to read from a list than from a colour bar
        _legend(ax, {f"{v:.0f}": scale(norm(v)) for v in steps}, title, gaps=gaps.any())
    else:
        colour_bar(ax, ScalarMappable(norm, scale), title, whole=whole)
        if gaps.any():
            ax.set_title("grey: no value", fontsize=8, color=INK, loc="left")
    return colours


def _legend(ax: Axes, colours: dict[str, Any], title: str, *, gaps: bool) -> None:
    from matplotlib.lines import Line2D

    shown = {**colours, "no value": NO_DATA} if gaps else colours
    style: dict[str, Any] = {"marker": "s", "linestyle": "", "markeredgecolor": INK, "markeredgewidth": 0.5}
    handles = [Line2D([], [], color=colour, label=literal(name), **style) for name, colour in shown.items()]
    # a long title would push the diagram aside
    ax.legend(handles=handles, title=textwrap.fill(title, 18), **LEGEND)
