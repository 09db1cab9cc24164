"""Parts that all diagrams share: axes, colours, legends and saving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import credit_of
from gee_polygons.errors import UsageError
from gee_polygons.visualize.pictures.canvas import luminance, new_figure, wrap
from gee_polygons.visualize.saving import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# black last: outlines are black, too
OKABE_ITO: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
# of the groups of recovery, in every plot and map; they differ for people who see no red and green, too
GROUP_COLOURS: Final = {
    "declining": "#B2182B",
    "stalled": "#E69F00",
    "no evidence": "#999999",
    "recovering": "#0072B2",
    "at reference": "#88CCEE",
}
NO_DATA: Final = "#d6d6d6"
INK: Final = "#222222"
_CREDIT_PT: Final = 6.0
# a legend outside the axes, on the right
LEGEND: Final[dict[str, Any]] = {
    "loc": "upper left",
    "bbox_to_anchor": (1.01, 1.0),
    "borderaxespad": 0.0,
    "fontsize": 8,
    "title_fontsize": 8,
    "frameon": False,
}


# figure -> credits of the data drawn in it, each once
_credits: WeakKeyDictionary[Any, dict[str, None]] = WeakKeyDictionary()


def save_plot(ax: Axes, path: str | Path, *, dpi: float = 150) -> Path:
    """Write the figure of an axes with a line that says where its data come from. The same figure gives the same bytes.

    Parameters
    ----------
    ax : Axes
        Axes that a plot function returned.
    path : str or Path
        ``.png``, ``.jpg``, ``.webp``, ``.pdf`` or ``.svg``. Missing folders are created; an existing file is replaced.
    dpi : float
        Dots per inch: 150 for a screen, 300 for print.

    Returns
    -------
    Path

    Examples
    --------
    >>> import tempfile
    >>> from gee_polygons.visualize import plot_similarity_matrix
    >>> matrix = pd.DataFrame(np.eye(2), index=["a", "b"], columns=["a", "b"])
    >>> save_plot(plot_similarity_matrix(matrix), Path(tempfile.mkdtemp(), "m.png")).name
    'm.png'
    """
    figure = ax.get_figure(root=True)
    assert figure is not None, "an axes always belongs to a figure"
    credit = " ".join(_credits.get(figure, {}))
    lines = wrap(credit, figure.get_figwidth() * 72, _CREDIT_PT)
    # below the figure; what is cut off are the white edges around both
    text = figure.text(0.01, 0, "\n".join(lines), fontsize=_CREDIT_PT, color="#60646c", va="top", in_layout=bool(lines))
    try:
        return save_figure(figure, path, {"Attribution": credit} if credit else {}, dpi=dpi, crop=True)
    finally:
        text.remove()


def axes_or_new(ax: Axes | None, size: tuple[float, float], data: Any = None) -> Axes:
    """Return the axes given, or those of a new figure; `save_plot` will write the credit of the data drawn in it."""
    if ax is None:
        ax = new_figure(size, layout="constrained").add_subplot()
    if credit := credit_of(data):
        _credits.setdefault(ax.get_figure(root=True), {})[credit] = None
    return ax


def colour_bar(
    ax: Axes, mappable: Any, label: str, *, whole: bool = False, plain: bool = False, extend: str = "neither"
) -> None:
    """Draw a colour bar next to an axes.

    `whole` puts its ticks at whole numbers, such as years; `plain` writes powers of ten out.
    """
    from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

    # as high as the axes, whatever its proportions
    bar = ax.figure.colorbar(mappable, cax=ax.inset_axes((1.03, 0.0, 0.04, 1.0)), extend=extend)
    if whole:
        bar.locator = MaxNLocator(integer=True, nbins=6, min_n_ticks=1)
        bar.update_ticks()
    if plain:
        bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def colormap(name: str) -> Any:
    """Return the matplotlib colour map of that name."""
    import matplotlib as mpl

    if name not in mpl.colormaps:
        raise UsageError(f"unknown colour map {name!r}; give one of matplotlib's, such as 'viridis'")
    return mpl.colormaps[name].copy()


def white_edge() -> list[Any]:
    """Return the effect of a white outline, which keeps text readable over lines and dark fills."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.2, foreground="white")]


def tidy(ax: Axes) -> None:
    """Hide the top and right spines and set the tick size."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.xaxis.label.set_fontsize(9)
    ax.yaxis.label.set_fontsize(9)


def whole_years(ax: Axes, years: pd.Series[Any]) -> None:
    """Put the ticks of the x axis at whole years, at most ten of them or so."""
    low, high = int(years.min()), int(years.max())
    ax.set_xticks(range(low, high + 1, max(1, (high - low) // 9)))


def column_named(table: pd.DataFrame, name: str) -> str:
    """Return the column name, or raise if the table has no such column."""
    if name not in table.columns:
        raise UsageError(f"the table has no column {name!r}")
    return name


def readable_on(rgba: Any) -> str:
    """Return black or white, whichever has the higher contrast to a colour of 0..1 (WCAG 2.1)."""
    brightness = luminance(np.asarray(rgba[:3], float) * 255)
    return INK if (brightness + 0.05) ** 2 > 0.05 * 1.05 else "white"


def literal(text: object) -> str:
    """Return a text for matplotlib, which would set what stands between two dollar signs as a formula."""
    return str(text).replace("$", r"\$")
