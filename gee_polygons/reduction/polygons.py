"""Holds the polygons of one extraction, and projects each once per lattice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.reduction.plan import Piece
from gee_polygons.zonal.grid import Lattice
from gee_polygons.zonal.projection import Rings, project_to_lattice
from gee_polygons.zonal.zones import unwrap, wrap


class Polygons:
    """Polygons in EPSG:4326 that keep their projections; those cut at the antimeridian are joined.

    Choosing zones, planning blocks and computing coverage all need the same projected vertices.

    Parameters
    ----------
    geometries : array of shapely Polygon or MultiPolygon
        EPSG:4326.
    """

    def __init__(self, geometries: NDArray[Any]) -> None:
        self.geometries = unwrap(np.asarray(geometries, object))
        self._projected: dict[Lattice, tuple[NDArray[np.int64], Rings]] = {}

    @classmethod
    def of(cls, polygons: Polygons | NDArray[Any]) -> Polygons:
        """Return polygons as `Polygons`, unless they are already."""
        return polygons if isinstance(polygons, Polygons) else cls(polygons)

    def __len__(self) -> int:
        return len(self.geometries)

    def rings(self, lattice: Lattice, numbers: NDArray[np.int64]) -> Rings:
        """Return some of the polygons in lattice coordinates, in the requested order."""
        place, known = self._projected.get(lattice, (np.full(len(self), -1, np.int64), None))
        missing = np.unique(numbers[place[numbers] < 0])
        if len(missing) or known is None:
            added = project_to_lattice(self.geometries[missing], lattice)
            place[missing] = np.arange(len(missing)) + (0 if known is None else len(known))
            known = added if known is None else known.joined(added)
            self._projected[lattice] = place, known
        wanted = place[numbers]
        return known if np.array_equal(wanted, np.arange(len(known))) else known.take(wanted)

    def pieces(self, pieces: Sequence[Piece]) -> Rings:
        """Return pieces, all of one lattice, in lattice coordinates."""
        lattice = pieces[0].lattice
        if all(piece.clip is None and piece.seam is None for piece in pieces):
            return self.rings(lattice, np.array([piece.polygon for piece in pieces], np.int64))
        geometries = self.geometries[[piece.polygon for piece in pieces]]
        for i, piece in enumerate(pieces):
            if piece.clip is not None:
                geometries[i] = _polygonal(shapely.intersection(geometries[i], shapely.box(*piece.clip)))
            if piece.seam is not None:
                geometries[i] = wrap(geometries[i], piece.seam)
        return project_to_lattice(geometries, lattice)

    def bounds(self, crs: str, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (west, south, east, north) in units of a CRS, shape (numbers, 4)."""
        lattice = Lattice(crs, 10.0, 10.0)  # the tiles' own, so that the projection is needed anyway
        west, north, east, south = (self.rings(lattice, numbers).bounds() * 10.0).T
        return np.column_stack([west, -south, east, -north])


def _polygonal(geometry: Any) -> Any:
    """Drop the points and lines that an intersection may also contain."""
    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        return geometry
    parts = shapely.get_parts(geometry)
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])
