"""Draws the rows of a table in the plane of two principal components."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.embeddings.colors import PcaColors, fit_pca_colors
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.errors import UsageError
from gee_polygons.visualize.plots.coloring import colours_of
from gee_polygons.visualize.plots.figure import (
    INK,
    LEGEND,
    OKABE_ITO,
    axes_or_new,
    colour_bar,
    column_named,
    literal,
    tidy,
)
from gee_polygons.visualize.plots.labels import place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_pca_scatter(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    basis: PcaColors | None = None,
    components: tuple[int, int] = (1, 2),
    color: str | None = None,
    size: float | None = None,
) -> Axes:
    """Draw each row of a table as a point in the plane of two principal components.

    Parameters
    ----------
    table : DataFrame
        Columns ``A00``..``A63`` (or ``A00_mean``..).
    ax : Axes, optional
        Where to draw.
    basis : PcaColors, optional
        For example the one of pictures shown with this diagram; by default, one fitted to this table.
    components : tuple of two int, 1..3
        Which ones, along x and y.
    color : str, optional
        A column to colour by (numbers: viridis; text: Okabe-Ito; grey: no value); by default, the colours of the
        basis.
    size : float, optional
        Area of a point in square points.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 64)) * 0.1, columns=list(BANDS))
    >>> plot_pca_scatter(table).get_xlabel()[:3]
    'PC1'
    """
    ax, basis, at, rgb, present = _plane(table, ax, basis, components)
    points = float(np.clip(4000 / max(1, len(at)), 3, 36)) if size is None else size
    if color is None:
        colours: Any = rgb
        ax.set_title(f"Colours: {basis.describe()}", fontsize=8, color=INK)
    else:
        colours = colours_of(ax, table.loc[present, column_named(table, color)], color)
    # a thin dark edge keeps pale points visible on white
    ax.scatter(at[:, 0], at[:, 1], s=points, c=colours, edgecolors="#00000055", linewidths=0.3, zorder=2)
    return ax


def plot_pca_hexbin(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    basis: PcaColors | None = None,
    components: tuple[int, int] = (1, 2),
    gridsize: int = 40,
    counts: bool = False,
) -> Axes:
    """Draw many rows as hexagons in the plane of two principal components, where points would cover each other.

    Parameters
    ----------
    table : DataFrame
        Columns ``A00``..``A63`` (or ``A00_mean``..).
    ax : Axes, optional
        Where to draw.
    basis : PcaColors, optional
        By default, one fitted to this table.
    components : tuple of two int, 1..3
        Which ones, along x and y.
    gridsize : int
        Hexagons along x.
    counts : bool
        Colour by the number of rows (cividis, logarithmic) instead of their mean colour.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(np.random.default_rng(0).normal(size=(500, 64)) * 0.1, columns=list(BANDS))
    >>> plot_pca_hexbin(table, counts=True).get_ylabel()[:3]
    'PC2'
    """
    ax, basis, at, rgb, _ = _plane(table, ax, basis, components)
    draw = partial(ax.hexbin, at[:, 0], at[:, 1], gridsize=gridsize, mincnt=1, linewidths=0.2)
    hexagons = draw(bins="log", cmap="cividis")
    if counts:
        colour_bar(ax, hexagons, "rows per hexagon", plain=True)
    else:
        means = [draw(C=channel, reduce_C_function=np.mean, visible=False).get_array() for channel in rgb.T]
        number = np.asarray(hexagons.get_array(), np.float64)
        # fewer rows, fainter: the density stays visible
        alpha = 0.3 + 0.7 * np.log1p(number) / np.log1p(number.max())
        hexagons.set_array(None)
        mean = np.stack([np.asarray(channel, np.float64) for channel in means], axis=-1)
        # mixed with white, not transparent: the grid and the neighbours' edges don't show through
        colours: Any = 1 - alpha[:, None] * (1 - mean)
        hexagons.set_facecolor(colours)
        hexagons.set_edgecolor("face")
        ax.set_title(f"Colours: {basis.describe()}; paler: fewer rows", fontsize=8, color=INK)
    return ax


def plot_trajectory(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    basis: PcaColors | None = None,
    components: tuple[int, int] = (1, 2),
    background: pd.DataFrame | None = None,
) -> Axes:
    """Draw how sites move over the years, in the plane of two principal components.

    Parameters
    ----------
    table : DataFrame
        Columns ``site_id``, ``year`` and bands: one line per site, in the order of years.
    ax : Axes, optional
        Where to draw.
    basis : PcaColors, optional
        By default, one fitted to `background` and `table`.
    components : tuple of two int, 1..3
        Which ones, along x and y.
    background : DataFrame, optional
        Other rows, drawn as faint points in their own colours, to compare the sites with.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(np.eye(64)[:3], columns=list(BANDS)).assign(site_id="a", year=[2022, 2023, 2024])
    >>> [text.get_text() for text in plot_trajectory(table).texts if text.get_text()]
    ['2022', '2024']
    """
    if basis is None:
        basis = fit_pca_colors([table] if background is None else [background, table])
    x, y = _pair(components)
    sites = table[column_named(table, "site_id")]
    column_named(table, "year")
    if not 1 <= sites.nunique() <= len(OKABE_ITO):
        raise UsageError(
            f"trajectories are drawn of 1..{len(OKABE_ITO)} sites, found {sites.nunique()}; choose some of them"
        )
    ax = axes_or_new(ax, (4.8, 4.0), table)
    if background is not None:
        _, scores, rgb, _ = _scores(background, basis)
        ax.scatter(scores[:, x], scores[:, y], s=12, c=rgb, alpha=0.5, linewidths=0, zorder=1)
    ends: list[tuple[str, NDArray[np.float64], str]] = []
    drawn = [np.zeros((0, 2))]
    for (site, rows), colour in zip(table.groupby(sites, sort=False), OKABE_ITO, strict=False):
        rows = rows[np.isfinite(band_matrix(rows)[:, 0])].sort_values("year", kind="stable")
        if len(rows):
            at = basis.project(band_matrix(rows))[:, [x, y]]
            _draw_path(ax, at, str(site), colour)
            drawn.append(_along(at))
            ends += [(str(rows["year"].iloc[i]), at[i], colour) for i in sorted({0, len(rows) - 1})]
    ax.legend(title="site\n(ring: first year, dot: last)", **LEGEND)
    _label_components(ax, basis, x, y)
    if ends:
        years, places, colours = zip(*ends, strict=True)
        place_labels(
            ax, years, np.tile(np.array(places), 2), colours=colours, size=8, gap=5,
            obstacles=np.tile(np.concatenate(drawn), 2), always=True,
        )  # fmt: skip
    return ax


def _along(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points along a line, so close that no text fits between two of them."""
    steps = np.linspace(0, 1, 13)[:, None]
    return np.concatenate([at[:1], *(a + (b - a) * steps for a, b in itertools.pairwise(at))])


def _draw_path(ax: Axes, at: NDArray[np.float64], site: str, colour: str) -> None:
    """Draw a line from a ring (first year) over points to a dot (last year)."""
    ax.plot(*at.T, color=colour, linewidth=1.4, label=literal(site), zorder=3)
    ax.scatter(at[1:-1, 0], at[1:-1, 1], s=14, color=colour, edgecolors="white", linewidths=0.6, zorder=4)
    ax.scatter(at[-1, 0], at[-1, 1], s=44, color=colour, edgecolors="white", linewidths=0.8, zorder=5)
    ax.scatter(at[0, 0], at[0, 1], s=36, facecolor="white", edgecolors=colour, linewidths=1.4, zorder=5)


def _plane(
    table: pd.DataFrame, ax: Axes | None, basis: PcaColors | None, components: tuple[int, int]
) -> tuple[Axes, PcaColors, NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return labelled axes, and what `_scores` returns, with two scores of each row."""
    basis, scores, rgb, present = _scores(table, basis)
    x, y = _pair(components)
    ax = axes_or_new(ax, (4.8, 4.0), table)
    _label_components(ax, basis, x, y)
    return ax, basis, scores[:, [x, y]], rgb, present


def _scores(
    table: pd.DataFrame, basis: PcaColors | None
) -> tuple[PcaColors, NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return the basis, scores and colours (0..1) of the rows with data, and which rows these are."""
    basis = fit_pca_colors(table) if basis is None else basis
    scores = basis.scores(table)
    present = np.isfinite(scores[:, 0])
    if not present.any():
        raise UsageError("no row of the table has data")
    return basis, scores[present], basis.rgb_of_scores(scores[present]) / 255, present


def _pair(components: tuple[int, int]) -> tuple[int, int]:
    if len(components) != 2 or any(c not in (1, 2, 3) for c in components) or components[0] == components[1]:
        raise UsageError(f"components are two different numbers out of 1, 2, 3, found {components!r}")
    return components[0] - 1, components[1] - 1


def _label_components(ax: Axes, basis: PcaColors, x: int, y: int) -> None:
    share = basis.explained_variance
    ax.set_xlabel(f"PC{x + 1} ({100 * share[x]:.0f} % of variance, unitless)")
    ax.set_ylabel(f"PC{y + 1} ({100 * share[y]:.0f} % of variance, unitless)")
    ax.axhline(0, color="#dddddd", linewidth=0.8, zorder=0)
    ax.axvline(0, color="#dddddd", linewidth=0.8, zorder=0)
    tidy(ax)
