"""Places text next to points or boxes of a diagram, where it covers neither other text nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.visualize.plots.figure import INK, literal, white_edge

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Boxes = NDArray[np.float64]  # shape (n, 4): left, bottom, right, top

_LETTER_WIDTH: Final = 0.62  # mean width of a letter of DejaVu Sans, in text sizes
_LINE_HEIGHT: Final = 1.25
_MARGIN_PT: Final = 4.0  # a text nearer than this to another box would be taken for that one's
_LAYOUTS: Final = 3  # a constrained layout with a fixed aspect takes some rounds to settle
# a side of the box, and the position along it: the middles first, then the corners
_Side = tuple[str, float]
_SIDES: Final[tuple[_Side, ...]] = tuple(
    (side, along) for along in (0.5, 1.0, 0.0) for side in ("right", "left", "above", "below")
)


def place_labels(
    ax: Axes,
    texts: Sequence[str],
    boxes: Boxes,
    *,
    colours: Sequence[Any] | None = None,
    size: float = 7.0,
    gap: float = 2.0,
    marker: float = 0.0,
    obstacles: Boxes | None = None,
    always: bool = False,
) -> None:
    """Write each text next to its box, in the first of twelve places that is free.

    Parameters
    ----------
    ax : Axes
        Limits and aspect must be final.
    texts : sequence of str
        One per box.
    boxes : float array, shape (n, 4)
        Left, bottom, right, top of what is labelled, in data units. A point has no width.
    colours : sequence of colours, optional
        Colour of each text.
    size, gap : float
        Text size, and distance from the box, in points.
    marker : float
        Size in points of a marker at the middle of each box: a smaller box counts as large as its marker.
    obstacles : float array, shape (m, 4), optional
        Boxes in data units that the texts must not cover either.
    always : bool
        Whether a text without a free place is written where it covers least; by default it is left out.
    """
    # only the layout says where on the figure things are
    figure = ax.get_figure(root=True)
    assert figure is not None, "an axes always belongs to a figure"
    for _ in range(_LAYOUTS):
        figure.draw_without_rendering()
    pixels = figure.dpi / 72  # per point
    own = _in_pixels(ax, boxes)
    growth = np.clip(marker * pixels - (own[:, 2:] - own[:, :2]), 0, None) / 2
    own = own + np.concatenate([-growth, growth], axis=1)
    taken = [*own, *([] if obstacles is None else _in_pixels(ax, obstacles))]
    left, bottom, right, top = ax.get_window_extent().extents
    axes = np.array([left, bottom, right, top + 2 * pixels])
    margin = _MARGIN_PT * pixels * np.array([-1, -1, 1, 1])
    for number, text in enumerate(texts):
        width, height = _LETTER_WIDTH * size * pixels * len(text), _LINE_HEIGHT * size * pixels
        places = [_place(own[number], side, width, height, gap * pixels) for side in _SIDES]
        others = np.delete(own, number, axis=0) + margin
        covered = [_covered_area(place, [*taken, *others]) + _length_outside(place, axes) for place in places]
        best = int(np.argmin(covered))
        if covered[best] and not always:
            continue
        taken.append(places[best])
        x, y = ax.transData.inverted().transform((places[best][:2] + places[best][2:]) / 2)
        ax.annotate(
            literal(text),
            (float(x), float(y)),
            ha="center",
            va="center",
            fontsize=size,
            color=INK if colours is None else colours[number],
            path_effects=white_edge(),
            annotation_clip=False,
            zorder=8,
        )


def _in_pixels(ax: Axes, boxes: Boxes) -> Boxes:
    low, high = ax.transData.transform(boxes[:, :2]), ax.transData.transform(boxes[:, 2:])
    return np.concatenate([np.minimum(low, high), np.maximum(low, high)], axis=1)


def _place(box: Boxes, place: _Side, width: float, height: float, gap: float) -> Boxes:
    """Return the box of a text of a given width and height on one side of another box."""
    side, along = place
    x = box[0] + along * (box[2] - box[0] - width)
    y = box[1] + along * (box[3] - box[1] - height)
    if side in ("right", "left"):
        x = box[2] + gap if side == "right" else box[0] - gap - width
    else:
        y = box[3] + gap if side == "above" else box[1] - gap - height
    return np.array([x, y, x + width, y + height])


def _covered_area(place: Boxes, taken: Sequence[Boxes]) -> float:
    """Return the area that a place would cover, in square pixels; touching lines and points count a little."""
    others = np.array(taken)
    common = np.minimum(place[2:], others[:, 2:]) - np.maximum(place[:2], others[:, :2])
    return float((common + 1).prod(axis=1)[(common >= 0).all(axis=1)].sum())


def _length_outside(place: Boxes, axes: Boxes) -> float:
    """Return by how many pixels a place leaves the axes, summed over the four sides."""
    return float(np.clip([axes[:2] - place[:2], place[2:] - axes[2:]], 0, None).sum())
