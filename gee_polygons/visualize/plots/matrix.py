"""Draws a similarity matrix as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.errors import UsageError
from gee_polygons.visualize.plots.figure import INK, NO_DATA, axes_or_new, colormap, colour_bar, literal, readable_on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_CELLS_WITH_VALUES: Final = 16
_MOST_LABELS: Final = 40
_MOST_ROWS: Final = 2_000  # a picture has fewer pixels; of 20,000 rows it would take tens of gigabytes


def plot_similarity_matrix(
    matrix: pd.DataFrame,
    ax: Axes | None = None,
    *,
    cmap: str = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
    annotate: bool | None = None,
    decimals: int | None = None,
    title: str | None = None,
    label: str | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draw a similarity matrix as a heat map with its values.

    Parameters
    ----------
    matrix : DataFrame
        Square, as `similarity_matrix` returns it. Of more than 2,000 rows every second, third, ... is drawn.
    ax : Axes, optional
        Where to draw; by default, a new figure (``ax.figure``).
    cmap : str
        Name of a colour map. For matrices with values below 0, ``"RdBu"`` with ``vmin=-1, vmax=1`` has white at 0.
    vmin, vmax : float, optional
        Values at the ends of the colours. By default the smallest and largest; of cosines those *off the diagonal*,
        which is 1 by construction and would leave little contrast to the rest.
    annotate : bool, optional
        Whether to write the values; by default up to 16 rows.
    decimals : int, optional
        Decimal places of the values; by default 2, or 3 where all values lie within 0.1.
    title : str, optional
        Title.
    label : str, optional
        Text of the colour bar; by default "cosine similarity", or "dot product of means" where the diagonal isn't 1.
    colorbar : bool
        Whether to draw a colour bar.

    Returns
    -------
    Axes

    Examples
    --------
    >>> matrix = pd.DataFrame([[1.0, 0.9], [0.9, 1.0]], index=[2023, 2024], columns=[2023, 2024])
    >>> [text.get_text() for text in plot_similarity_matrix(matrix).texts]
    ['1', '0.900', '0.900', '1']
    """
    from matplotlib.colors import Normalize

    _check_square(matrix)
    every = -(-len(matrix) // _MOST_ROWS)
    matrix = matrix.iloc[::every, ::every]
    values = matrix.to_numpy(np.float64)
    n = len(values)
    diagonal = np.diag(values)
    is_cosine = bool(np.all((diagonal == 1) | np.isnan(diagonal)))
    compared = _compared(values, is_cosine)
    low, high = _ends(compared, vmin, vmax)
    side = float(np.clip(1.1 + 0.44 * n, 2.8, 9.0))
    ax = axes_or_new(ax, (side + 0.9, side), matrix)
    colours = colormap(cmap).with_extremes(bad=NO_DATA)
    image = ax.imshow(np.ma.masked_invalid(values), cmap=colours, norm=Normalize(low, high), interpolation="nearest")
    _name_rows(ax, matrix)
    if annotate if annotate is not None else n <= _MOST_CELLS_WITH_VALUES:
        _write_values(ax, image, values, _decimals(compared) if decimals is None else decimals)
    notes = [f"one of {every} rows is drawn"] * (every > 1) + ["grey: no data"] * bool(np.isnan(diagonal).any())
    if notes:
        ax.set_xlabel("; ".join(notes), fontsize=8, color=INK)
    if colorbar:
        extend = "max" if is_cosine and high < 1 else "neither"
        colour_bar(ax, image, label or ("cosine similarity" if is_cosine else "dot product of means"), extend=extend)
    if title:
        ax.set_title(title)
    return ax


def _compared(values: NDArray[np.float64], is_cosine: bool) -> NDArray[np.float64]:
    """Return the values that colours and decimals are chosen for: not the diagonal of cosines, which is always 1."""
    n = len(values)
    chosen = values[~np.eye(n, dtype=bool)] if is_cosine and n > 1 else values.ravel()
    return chosen[np.isfinite(chosen)] if np.isfinite(chosen).any() else np.array([0.0, 1.0])


def _ends(compared: NDArray[np.float64], vmin: float | None, vmax: float | None) -> tuple[float, float]:
    low = float(compared.min()) if vmin is None else vmin
    high = float(compared.max()) if vmax is None else vmax
    if high - low >= 1e-9:
        return low, high
    return (low - 0.01, high) if vmin is None else (low, low + 0.01)


def _name_rows(ax: Axes, matrix: pd.DataFrame) -> None:
    """Write the names of rows and columns, as many as can be read, and white lines between the cells."""
    n = len(matrix)
    every = max(1, -(-n // _MOST_LABELS))
    ticks = np.arange(0, n, every)
    ax.set_xticks(ticks, [literal(name) for name in matrix.columns[::every]])
    ax.set_yticks(ticks, [literal(name) for name in matrix.index[::every]])
    if max(len(str(name)) for name in matrix.columns) > 4 or n > 12:
        ax.tick_params(axis="x", labelrotation=90)
    if n <= _MOST_LABELS:
        ax.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1.2)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)


def _write_values(ax: Axes, image: Any, values: NDArray[np.float64], places: int) -> None:
    size = _text_size(ax, len(values), places)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            text = "1" if value == 1 else f"{value:.{places}f}"
            ink = readable_on(image.cmap(image.norm(value)))
            ax.text(column, row, text, ha="center", va="center", fontsize=size, color=ink)


def _check_square(matrix: pd.DataFrame) -> None:
    if not isinstance(matrix, pd.DataFrame) or matrix.shape[0] != matrix.shape[1] or matrix.empty:
        shape = getattr(matrix, "shape", type(matrix).__name__)
        raise UsageError(f"a square DataFrame is needed, found {shape}; make one with similarity_matrix")


def _text_size(ax: Axes, n: int, places: int) -> float:
    """Return the text size in points at which a value fills three quarters of a cell's width before the layout."""
    box = ax.get_window_extent()
    cell_pt = min(box.width, box.height) / n * 72 / ax.figure.dpi
    # a figure of DejaVu Sans is 0.64 of its size wide, a point 0.32
    return float(np.clip(0.75 * cell_pt / (0.64 * (places + 1) + 0.32), 4.0, 11.0))


def _decimals(values: NDArray[np.float64]) -> int:
    """Return two decimal places, or three where two would leave fewer than ten steps between the values."""
    return 2 if float(np.ptp(values)) >= 0.1 else 3
