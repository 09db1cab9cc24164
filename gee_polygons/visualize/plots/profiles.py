"""Draws the rows of a table as lines: over the bands, and over the years."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, N_BANDS
from gee_polygons.embeddings.inputs import band_matrix, reference_vector
from gee_polygons.embeddings.similarity import angular_distance_deg
from gee_polygons.errors import UsageError
from gee_polygons.visualize.plots.figure import (
    LEGEND,
    OKABE_ITO,
    axes_or_new,
    colormap,
    column_named,
    literal,
    tidy,
    whole_years,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_band_profile(
    table: pd.DataFrame, ax: Axes | None = None, *, by: str = "year", spread: str | None = None
) -> Axes:
    """Draw the 64 bands of each row as a line, with its spread inside the polygon where the table has it.

    Parameters
    ----------
    table : DataFrame
        A few rows (at most 8): one site's years, or one year's sites. ``A00_std``.. or ``A00_p10``.. and ``A00_p90``..
        give the spread.
    ax : Axes, optional
        Where to draw.
    by : str
        Column that names the lines: ``"year"`` or ``"site_id"``.
    spread : {"std", "p10-p90"}, optional
        Kind of spread; by default the one that the table has, the standard deviation if it has both.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(np.eye(64)[:2], columns=list(BANDS)).assign(year=[2023, 2024])
    >>> len(plot_band_profile(table).lines)
    3
    """
    means = band_matrix(table)
    names = table[column_named(table, by)]
    if not 1 <= len(table) <= len(OKABE_ITO):
        raise UsageError(f"a profile shows 1..{len(OKABE_ITO)} rows, found {len(table)}; choose a site or a year first")
    if spread not in (None, "std", "p10-p90"):
        raise UsageError(f"spread is 'std' or 'p10-p90', found {spread!r}")
    if spread is None:
        spread = "std" if "A00_std" in table.columns else "p10-p90" if "A00_p10" in table.columns else None
    low = high = means
    if spread == "std":
        deviation = band_matrix(table, "std")
        low, high = means - deviation, means + deviation
    elif spread == "p10-p90":
        low, high = band_matrix(table, "p10"), band_matrix(table, "p90")
    ax = axes_or_new(ax, (7.2, 3.0), table)
    ax.axhline(0, color="#999999", linewidth=0.8, zorder=1)
    colours: Sequence[Any] = OKABE_ITO
    if by == "year" and len(table) > 1:
        colours = colormap("cividis")(np.linspace(0.05, 0.92, len(table)))
    bands = np.arange(N_BANDS)
    for row in range(len(table)):
        if spread is not None:
            alpha = 0.2 if len(table) <= 3 else 0.1  # many spreads over each other hide the lines
            ax.fill_between(bands, low[row], high[row], color=colours[row], alpha=alpha, linewidth=0, zorder=2)
        ax.plot(bands, means[row], color=colours[row], linewidth=1.3, label=literal(names.iloc[row]), zorder=3)
    ticks = np.arange(0, N_BANDS, 8)
    ax.set_xticks([*ticks, N_BANDS - 1], [BANDS[i] for i in [*ticks, N_BANDS - 1]])
    ax.set_xlim(-0.5, N_BANDS - 0.5)
    ax.set_xlabel("band")
    what = {"std": "mean ± standard deviation", "p10-p90": "mean, 10th to 90th percentile", None: "mean"}[spread]
    ax.set_ylabel(f"{what}\n(component, unitless)")
    ax.legend(title="site" if by == "site_id" else by, **LEGEND)
    tidy(ax)
    return ax


def plot_change(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    reference: int | Sequence[float] | NDArray[np.float64] | None = None,
    start_years: dict[str, int] | None = None,
) -> Axes:
    """Draw the angle between each site's embedding and that of its first year, year by year.

    Parameters
    ----------
    table : DataFrame
        Columns ``site_id``, ``year`` and bands.
    ax : Axes, optional
        Where to draw.
    reference : int or array of 64 floats, optional
        A year (each site's own vector of it), or one vector for all. By default each site's first year with data.
    start_years : dict of site id to year, optional
        Years marked with a ring on the sites' lines.

    Returns
    -------
    Axes. The y axis is the angle in degrees. Part of each step is shared by the whole scene: compare with
    sites that didn't change.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(np.eye(64)[[0, 0, 1]], columns=list(BANDS)).assign(site_id="a", year=[2022, 2023, 2024])
    >>> plot_change(table).lines[0].get_ydata().round(6).tolist()
    [0.0, 0.0, 90.0]
    """
    sites = table[column_named(table, "site_id")]
    column_named(table, "year")
    ax = axes_or_new(ax, (4.8, 3.2), table)
    few = sites.nunique() <= len(OKABE_ITO)
    colours = OKABE_ITO if few else ["#0072B2"] * sites.nunique()
    for (site, rows), colour in zip(table.groupby(sites, sort=False), colours, strict=False):
        rows = rows.sort_values("year", kind="stable")
        vectors, years = band_matrix(rows), rows["year"].to_numpy()
        angle = angular_distance_deg(vectors, _reference_of(str(site), vectors, years, reference))
        ax.plot(
            years,
            angle,
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1.6 if few else 0.8,
            alpha=1 if few else 0.35,
            label=literal(site),
        )
        start = (start_years or {}).get(str(site))
        if start is not None and start in years:
            ax.plot(start, angle[years == start][0], "o", markersize=10, markerfacecolor="none", markeredgecolor=colour)
    ax.set_xlabel("year")
    against = "the first year" if reference is None else reference if isinstance(reference, int) else "the reference"
    ax.set_ylabel(f"angle to {against} (degrees)")
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    whole_years(ax, table["year"])
    if few:
        ax.legend(title="site" + (" (ring: start)" if start_years else ""), **LEGEND)
    tidy(ax)
    return ax


def _reference_of(site: str, vectors: NDArray[np.float64], years: Any, reference: Any) -> NDArray[np.float64]:
    """Return the vector that a site's years are compared with."""
    if isinstance(reference, int | np.integer):
        rows = np.flatnonzero(years == reference)
        if not len(rows):
            raise UsageError(f"site {site!r} has no row for the reference year {reference}")
    elif reference is None:
        rows = np.flatnonzero(np.isfinite(vectors[:, 0]))
    else:
        return reference_vector(reference)
    return vectors[rows[0] if len(rows) else 0]
