"""Projects polygons to lattice coordinates, as one ragged array of rings that all years and blocks share.

Vertices are projected, and edges are straight in the grid's CRS, as in geopandas and exactextract. An edge that would
deviate from its straight line in EPSG:4326 by more than `MAX_DEVIATION_PX` (at 10 m pixels, one of about 2 km) is
densified there first, so a country-sized polygon covers the same ground in every zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from gee_polygons.errors import CrsError, SiteError
from gee_polygons.zonal.grid import Lattice
from gee_polygons.zonal.ragged import offsets_of, ranges

MAX_DEVIATION_PX: Final = 0.01
# Edges below this can't deviate by 0.01 px of 10 m or less: an arc of length L leaves its chord by about
# L^2 tan(lat) / 8R, 0.1 m for 1.5 km at 65 degrees. Only a shortcut: longer ones are measured. In pixels the
# deviation grows with the square root of the pixel size.
_SHORT_EDGE_PX: Final = 90.0
_SHORT_EDGE_STEP_M: Final = 10.0
# Fractions of an edge where its deviation is measured. The middle alone would not do: the projection of an edge across
# the equator bends both ways and meets its chord there.
_MEASURED_AT: Final = (0.25, 0.5, 0.75)
_MOST_PASSES: Final = 8
_MOST_PIECES: Final = 10_000  # of one edge in one pass: half the Earth's circumference takes fewer


@dataclass(frozen=True)
class Rings:
    """Rings of many polygons in lattice coordinates (x = column, y = row counted southwards).

    Parameters
    ----------
    coords : float64 array, shape (vertices, 2)
        Closed rings, one after the other.
    ring_offsets : int64 array, shape (rings + 1,)
        Where each ring starts in `coords`.
    is_hole : bool array, shape (rings,)
        Whether the ring is a hole.
    polygon_offsets : int64 array, shape (polygons + 1,)
        Where each polygon's rings start. A multipolygon is one polygon with several outer rings.
    """

    coords: NDArray[np.float64]
    ring_offsets: NDArray[np.int64]
    is_hole: NDArray[np.bool_]
    polygon_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.polygon_offsets) - 1

    def bounds(self) -> NDArray[np.float64]:
        """Return (west, north, east, south) of each polygon in lattice coordinates, shape (polygons, 4)."""
        starts = self.ring_offsets[self.polygon_offsets[:-1]]
        low = np.minimum.reduceat(self.coords, starts, axis=0)
        high = np.maximum.reduceat(self.coords, starts, axis=0)
        return np.concatenate([low, high], axis=1)

    def joined(self, other: Rings) -> Rings:
        """Return these polygons, then the other's."""
        return Rings(
            np.concatenate([self.coords, other.coords]),
            np.concatenate([self.ring_offsets, other.ring_offsets[1:] + self.ring_offsets[-1]]),
            np.concatenate([self.is_hole, other.is_hole]),
            np.concatenate([self.polygon_offsets, other.polygon_offsets[1:] + self.polygon_offsets[-1]]),
        )

    def take(self, polygons: NDArray[np.int64]) -> Rings:
        """Return some of the polygons, in the order given."""
        rings = _items(self.polygon_offsets, polygons)
        vertices = _items(self.ring_offsets, rings)
        return Rings(
            self.coords[vertices],
            offsets_of(np.diff(self.ring_offsets)[rings]),
            self.is_hole[rings],
            offsets_of(np.diff(self.polygon_offsets)[polygons]),
        )


def project_to_lattice(polygons: NDArray[Any], lattice: Lattice, crs: str = "EPSG:4326") -> Rings:
    """Project polygons and express them in pixels of a lattice.

    Parameters
    ----------
    polygons : array of shapely Polygon or MultiPolygon
        In `crs`, two-dimensional, not empty.
    lattice : Lattice
        Target.
    crs : str
        CRS of the polygons.

    Returns
    -------
    Rings

    Raises
    ------
    SiteError
        If a vertex can't be expressed in the lattice's CRS.
    """
    rings = _ragged(polygons)
    if len(rings.coords) == 0:
        return rings
    coords = _to_lattice(rings.coords, lattice, crs)
    _check_finite(rings, coords, lattice)
    for _ in range(_MOST_PASSES):
        # the number of pieces assumes an even curvature; where it is uneven, the next pass cuts the pieces again
        pieces = _pieces_per_edge(rings, coords, lattice, crs)
        if pieces.max(initial=1) == 1:
            break
        rings = _densify(rings, pieces)
        coords = _to_lattice(rings.coords, lattice, crs)
        _check_finite(rings, coords, lattice)
    return Rings(coords, rings.ring_offsets, rings.is_hole, rings.polygon_offsets)


def _check_finite(rings: Rings, coords: NDArray[np.float64], lattice: Lattice) -> None:
    if not np.isfinite(coords).all():
        vertex = int(np.flatnonzero(~np.isfinite(coords).all(axis=1))[0])
        ring = int(np.searchsorted(rings.ring_offsets, vertex, side="right")) - 1
        polygon = int(np.searchsorted(rings.polygon_offsets, ring, side="right")) - 1
        x, y = rings.coords[vertex]
        raise SiteError(f"polygon {polygon}: vertex ({x:g}, {y:g}) can't be projected to {lattice.crs}; check its CRS")


@lru_cache(maxsize=256)
def transformer(source: str, target: str) -> pyproj.Transformer:
    """Return a cached transformer with x, y (longitude, latitude) axis order. Thread-safe in pyproj >= 3.1."""
    try:
        return pyproj.Transformer.from_crs(source, target, always_xy=True)
    except pyproj.exceptions.CRSError as error:
        raise CrsError(f"can't transform from {source} to {target}: {str(error).splitlines()[0]}") from error


def project_outline(polygon: Any, crs: str) -> Any:
    """Project a polygon in EPSG:4326, with vertices every kilometre or so: long edges bend in the other CRS."""
    project = transformer("EPSG:4326", crs).transform
    return shapely.transform(shapely.segmentize(polygon, 0.01), project, interleaved=False)


def _to_lattice(coords: NDArray[np.float64], lattice: Lattice, crs: str) -> NDArray[np.float64]:
    x, y = coords[:, 0], coords[:, 1]
    if crs != lattice.crs:
        x, y = transformer(crs, lattice.crs).transform(x, y)
    return np.column_stack([x / lattice.step_x - lattice.phase_x, -y / lattice.step_y - lattice.phase_y])


def _ragged(polygons: NDArray[Any]) -> Rings:
    """Flatten shapely polygons and multipolygons to rings."""
    geometries = np.asarray(polygons, dtype=object)
    if len(geometries) == 0:
        zero = np.zeros(1, np.int64)
        return Rings(np.empty((0, 2)), zero, np.zeros(0, np.bool_), zero)
    kind, coords, offsets = shapely.to_ragged_array(geometries, include_z=False)
    if kind == shapely.GeometryType.POLYGON:
        ring_offsets, part_offsets = (o.astype(np.int64) for o in offsets)
        geometry_offsets = np.arange(len(part_offsets), dtype=np.int64)
    elif kind == shapely.GeometryType.MULTIPOLYGON:
        ring_offsets, part_offsets, geometry_offsets = (o.astype(np.int64) for o in offsets)
    else:
        raise SiteError(f"sites must be polygons, found {kind.name.lower()}s")
    is_hole = np.ones(len(ring_offsets) - 1, np.bool_)
    is_hole[part_offsets[:-1]] = False
    return Rings(np.ascontiguousarray(coords, np.float64), ring_offsets, is_hole, part_offsets[geometry_offsets])


def _pieces_per_edge(rings: Rings, coords: NDArray[np.float64], lattice: Lattice, crs: str) -> NDArray[np.int64]:
    """Return how many pieces each edge (vertex i to i + 1) must be cut into to stay within the allowed deviation."""
    pieces = np.ones(len(coords) - 1, np.int64)
    if crs == lattice.crs:
        return pieces
    step = np.maximum(np.abs(np.diff(coords[:, 0])), np.abs(np.diff(coords[:, 1])))
    step[rings.ring_offsets[1:-1] - 1] = 0.0  # from the last vertex of a ring to the next ring there is no edge
    coarser = max(1.0, max(lattice.step_x, lattice.step_y) / _SHORT_EDGE_STEP_M)
    far = np.flatnonzero(step > _SHORT_EDGE_PX / np.sqrt(coarser))
    if len(far):
        deviation = np.zeros(len(far))
        for share in _MEASURED_AT:
            bent = _to_lattice(_between(rings.coords, far, share), lattice, crs)
            off = np.where(np.isfinite(bent), bent - _between(coords, far, share), 0.0)
            deviation = np.maximum(deviation, np.hypot(off[:, 0], off[:, 1]))
        # the deviation falls with the square of the length
        pieces[far] = np.ceil(np.sqrt(deviation / MAX_DEVIATION_PX)).clip(1, _MOST_PIECES)
    return pieces


def _between(coords: NDArray[np.float64], edges: NDArray[np.int64], share: float) -> NDArray[np.float64]:
    return coords[edges] * (1 - share) + coords[edges + 1] * share


def _densify(rings: Rings, pieces: NDArray[np.int64]) -> Rings:
    """Cut edges into equal pieces in the rings' own CRS."""
    repeats = np.append(pieces, 1)
    start = np.repeat(np.arange(len(repeats)), repeats)
    step = np.arange(len(start)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    share = (step / repeats[start])[:, None]
    after = np.minimum(start + 1, len(rings.coords) - 1)
    coords = np.where(share > 0, rings.coords[start] * (1 - share) + rings.coords[after] * share, rings.coords[start])
    shift = offsets_of(repeats)
    return Rings(coords, shift[rings.ring_offsets], rings.is_hole, rings.polygon_offsets)


def _items(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the items of some rows of a ragged array are, in the order of the rows."""
    return ranges(offsets[rows], offsets[rows + 1] - offsets[rows])
