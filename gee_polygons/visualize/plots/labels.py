"""Words beside points of a diagram, where they cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.visualize.plots.figure import INK, white_edge

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Boxes = NDArray[np.float64]  # shape (n, 4): left, bottom, right, top

_LETTER: Final = 0.62  # width of a letter of DejaVu Sans, in text sizes
_LINE: Final = 1.25
_MARGIN_PT: Final = 4.0
_LAYOUTS: Final = 3  # a constrained layout with a fixed aspect takes some rounds to settle
_Side = tuple[str, float]
# first beside or over the middle of a box, then along its corners
_SIDES: Final[tuple[_Side, ...]] = tuple(
    (side, along) for along in (0.5, 1.0, 0.0) for side in ("right", "left", "above", "below")
)


def write_beside(
    ax: Axes,
    texts: Sequence[str],
    boxes: Boxes,
    *,
    colours: Sequence[Any] | None = None,
    size: float = 7.0,
    gap: float = 2.0,
    least: float = 0.0,
    obstacles: Boxes | None = None,
    always: bool = False,
) -> list[bool]:
    """Write each text beside its box, in the first of twelve places that is free.

    Parameters
    ----------
    ax : Axes
        Limits and aspect must be final.
    texts : sequence of str
        One per box.
    boxes : float array, shape (n, 4)
        Left, bottom, right, top in data units: what is named. A point has no width.
    colours : sequence of colours, optional
        Of the texts.
    size, gap : float
        Text size, and distance from the box, in points.
    least : float
        Points that a box is wide and high at least, such as those of a marker.
    obstacles : float array, shape (m, 4), optional
        What else isn't to be covered, in data units; the boxes aren't anyway.
    always : bool
        Whether a text without a free side is written on the least covered one; by default it is left out.

    Returns
    -------
    Which texts were written.
    """
    # until the figure is laid out, nobody knows where on it things are
    figure = ax.get_figure(root=True)
    assert figure is not None, "an axes always belongs to a figure"
    for _ in range(_LAYOUTS):
        figure.draw_without_rendering()
    dots = figure.dpi / 72
    own = _in_pixels(ax, boxes)
    grow = np.clip(least * dots - (own[:, 2:] - own[:, :2]), 0, None) / 2
    own = own + np.concatenate([-grow, grow], axis=1)
    taken = [*own, *([] if obstacles is None else _in_pixels(ax, obstacles))]
    left, bottom, right, top = ax.get_window_extent().extents
    room = np.array([left, bottom, right, top + 2 * dots])
    margin = _MARGIN_PT * dots * np.array([-1, -1, 1, 1])
    written = []
    for number, text in enumerate(texts):
        width, height = _LETTER * size * dots * len(text), _LINE * size * dots
        places = [_beside(own[number], side, width, height, gap * dots) for side in _SIDES]
        # right beside another box, a text would be taken for that one's
        others = np.delete(own, number, axis=0) + margin
        covered = [_covered(p, [*taken, *others]) + _outside(p, room) for p in places]
        best = int(np.argmin(covered))
        written.append(always or covered[best] == 0)
        if not written[-1]:
            continue
        taken.append(places[best])
        x, y = ax.transData.inverted().transform((places[best][:2] + places[best][2:]) / 2)
        ax.annotate(
            text,
            (float(x), float(y)),
            ha="center",
            va="center",
            fontsize=size,
            color=INK if colours is None else colours[number],
            path_effects=white_edge(),
            annotation_clip=False,
            zorder=8,
        )
    return written


def _in_pixels(ax: Axes, boxes: Boxes) -> Boxes:
    low, high = ax.transData.transform(boxes[:, :2]), ax.transData.transform(boxes[:, 2:])
    return np.concatenate([np.minimum(low, high), np.maximum(low, high)], axis=1)


def _beside(box: Boxes, place: _Side, width: float, height: float, gap: float) -> Boxes:
    side, along = place
    x = box[0] + along * (box[2] - box[0] - width)
    y = box[1] + along * (box[3] - box[1] - height)
    if side in ("right", "left"):
        x = box[2] + gap if side == "right" else box[0] - gap - width
    else:
        y = box[3] + gap if side == "above" else box[1] - gap - height
    return np.array([x, y, x + width, y + height])


def _covered(place: Boxes, taken: Sequence[Boxes]) -> float:
    """Area of what a place would cover, in square pixels; touching lines and points count a little."""
    others = np.array(taken)
    across = np.minimum(place[2], others[:, 2]) - np.maximum(place[0], others[:, 0])
    up = np.minimum(place[3], others[:, 3]) - np.maximum(place[1], others[:, 1])
    hit = (across >= 0) & (up >= 0)
    return float(((across + 1) * (up + 1))[hit].sum())


def _outside(place: Boxes, room: Boxes) -> float:
    beyond = np.concatenate([room[:2] - place[:2], place[2:] - room[2:]])
    return float(np.clip(beyond, 0, None).sum())
