"""HTML of sites for notebooks; made in memory, with all text escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import numpy as np
import shapely

_PADDING_PX: Final = 3.0
_CELL_CHARS: Final = 80


class Drawing(str):
    """Markup made in this module, which is not escaped."""

    __slots__ = ()


_NO_DRAWING: Final = Drawing()


def outline_svg(polygon: Any, size_px: int = 120) -> Drawing:
    """Draw a polygon's outline, north up, in the right proportions."""
    west, south, east, north = polygon.bounds
    stretch = max(math.cos(math.radians((south + north) / 2)), 0.01)
    inner = size_px - 2 * _PADDING_PX
    scale = inner / max((east - west) * stretch, north - south)
    paths = []
    # a fifth of a pixel can't be seen
    for part in shapely.get_parts(shapely.simplify(polygon, 0.2 / scale)):
        for ring in (part.exterior, *part.interiors):
            lon, lat = shapely.get_coordinates(ring)[:-1].T
            x = size_px / 2 + (lon - (west + east) / 2) * stretch * scale
            y = size_px / 2 - (lat - (south + north) / 2) * scale
            points = " ".join(f"{px:.1f},{py:.1f}" for px, py in np.column_stack([x, y]))
            paths.append(f"M{points}Z")
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size_px}" height="{size_px}" role="img">'
        f'<path d="{"".join(paths)}" fill="#0072b2" fill-opacity="0.25" fill-rule="evenodd" '
        'stroke="#0072b2" stroke-width="1.2"/></svg>'
    )


def record(own: Mapping[str, object], properties: Mapping[str, object], most: int) -> dict[str, object]:
    """Join a site's own facts and its first properties; a property of the same name gets ``(property)`` behind it."""
    first = list(properties.items())[:most]
    return {**own, **{f"{name} (property)" if name in own else name: value for name, value in first}}


def table_html(
    title: str, rows: Sequence[Mapping[str, object]], *, note: str = "", drawing: Drawing = _NO_DRAWING
) -> str:
    """Write records as a table under a title, beside a drawing."""
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0]) if rows else ""
    body = "".join("<tr>" + "".join(_cell(v) for v in row.values()) + "</tr>" for row in rows)
    return (
        f"<div><b>{escape(title)}</b><div style='display:flex;gap:1em;align-items:flex-start'>{drawing}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"{escape(note)}</div>"
    )


def _cell(value: object) -> str:
    if isinstance(value, Drawing):
        return f"<td>{value}</td>"
    text = "" if value is None else str(value)
    if len(text) > _CELL_CHARS:
        text = text[: _CELL_CHARS - 1] + "…"
    return f"<td style='text-align:left'>{escape(text)}</td>"
