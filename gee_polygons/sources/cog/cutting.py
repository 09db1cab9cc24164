"""Pixels of areas that one UTM zone doesn't hold: a window in each zone, and no ground in two of them.

As in an extraction, an area belongs to the zone of its centroid, whose tiles reach past the zone's edge. Only where
those don't cover it is it cut at the edge: then each zone gives the pixels whose centres lie in the zone's own cell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import shapely

from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.cog.index import TileIndex
from gee_polygons.sources.cog.patches import Patch, Region, inside, open_near, region_of, stream_regions
from gee_polygons.sources.cog.zoning import ZonePart, crosses_cells, split_parts, zone_parts

if TYPE_CHECKING:
    from gee_polygons.sources.cog.source import CogSource


def parts_of(source: CogSource, areas: Polygons, years: Sequence[int], bands: Sequence[str]) -> list[list[Region]]:
    """Return each area's windows: one in its home zone, or one in each zone that it is cut into, its home first.

    Raises
    ------
    ReadError, TileError
        If a tile that an area touches can't be opened, naming both.
    """
    if not len(areas):
        return []
    archive = source.near(areas)
    index = archive.of_years(years)
    parts = zone_parts(areas, index, archive)
    found = _cut(source, areas, [part for part in parts if part.clip is not None], index, bands)
    home = {part.polygon: part for part in parts if part.clip is None}
    # with tiles at home alone there is nothing to be counted twice
    whole = [home[i] for i in range(len(areas)) if {r.lattice.crs for r in found.get(i, ())} <= {home[i].crs}]
    tiles = open_near(source, areas, whole, index, bands)
    for part in whole:
        found[part.polygon] = [region_of(areas, part, tiles[part.crs])]
    for i, regions in found.items():
        regions.sort(key=lambda region: (region.lattice.crs != home[i].crs, region.lattice.crs))
    return [found[i] for i in range(len(areas))]


def _cut(
    source: CogSource, areas: Polygons, parts: Sequence[ZonePart], index: TileIndex, bands: Sequence[str]
) -> dict[int, list[Region]]:
    """Return the windows of parts that have tiles, by area."""
    tiles = open_near(source, areas, parts, index, bands)
    found: dict[int, list[Region]] = defaultdict(list)
    for part in parts:
        region = region_of(areas, part, tiles[part.crs])
        if region.tiles:
            found[part.polygon].append(region)
    return dict(found)


def settled_parts(source: CogSource, areas: Polygons, years: Sequence[int], bands: Sequence[str]) -> list[list[Region]]:
    """Return each area's windows as `stream_parts` reads them: of areas across a zone's edge, one band is looked at."""
    parts = parts_of(source, areas, years, bands)
    across = _across(areas, parts)
    seen = dict(zip(across, _read(source, [parts[i] for i in across], years, bands[:1]), strict=True))
    for i, (regions, _) in _cut_after_all(source, areas, years, bands[:1], seen).items():
        parts[i] = regions
    return parts


def stream_parts(
    source: CogSource, areas: Polygons, years: Sequence[int], bands: Sequence[str]
) -> Iterator[tuple[int, list[Patch]]]:
    """Read areas, each in its own zone or in several (see `parts_of`); yield (number, patches) as they are complete.

    An area across a zone's edge whose home zone has files beyond it, but no data in them, is cut after all, if that
    gives more pixels. Held in memory: what `stream_regions` holds, and to the end areas of this kind.

    Raises
    ------
    ReadError
        Naming the file and the geometry, if a read fails.
    """
    parts = parts_of(source, areas, years, bands)
    across = set(_across(areas, parts))
    incomplete: dict[int, list[Patch]] = {}
    for i, patches in _stream(source, parts, years, bands):
        if i in across and _years_lacking(areas, i, patches[0], years):
            incomplete[i] = patches
        else:
            yield i, patches
    better = _cut_after_all(source, areas, years, bands, incomplete)
    for i, patches in incomplete.items():
        yield i, better[i][1] if i in better else patches


def _across(areas: Polygons, parts: Sequence[Sequence[Region]]) -> list[int]:
    """List the areas that reach into several zones' cells and aren't cut."""
    crosses = crosses_cells(shapely.bounds(areas.geometries)) if len(areas) else np.zeros(0, np.bool_)
    return [i for i in np.flatnonzero(crosses).tolist() if len(parts[i]) == 1]


def _cut_after_all(
    source: CogSource, areas: Polygons, years: Sequence[int], bands: Sequence[str], seen: dict[int, list[Patch]]
) -> dict[int, tuple[list[Region], list[Patch]]]:
    """Return the windows and pixels of areas that lack pixels at home and have more of them when they are cut."""
    incomplete = [(i, year) for i, (patch,) in seen.items() for year in _years_lacking(areas, i, patch, years)]
    if not incomplete:
        return {}
    index = source.near(areas).of_years(years)
    others = _cut(source, areas, split_parts(areas, incomplete, index), index, bands)
    better: dict[int, tuple[list[Region], list[Patch]]] = {}
    for (i, regions), patches in zip(others.items(), _read(source, list(others.values()), years, bands), strict=True):
        if _count(areas, i, patches) > _count(areas, i, seen[i]):
            home = seen[i][0].grid.crs
            order = sorted(range(len(regions)), key=lambda n: (regions[n].lattice.crs != home, regions[n].lattice.crs))
            better[i] = [regions[n] for n in order], [patches[n] for n in order]
    return better


def _years_lacking(areas: Polygons, number: int, patch: Patch, years: Sequence[int]) -> list[int]:
    """Return the years in which some of an area's pixels have no data."""
    touched = inside(areas, number, patch)
    return [year for year, valid in zip(years, patch.valid, strict=True) if not valid.all(axis=0)[touched].all()]


def _read(
    source: CogSource, parts: Sequence[Sequence[Region]], years: Sequence[int], bands: Sequence[str]
) -> list[list[Patch]]:
    found = dict(_stream(source, parts, years, bands))
    return [found[i] for i in range(len(parts))]


def _stream(
    source: CogSource, parts: Sequence[Sequence[Region]], years: Sequence[int], bands: Sequence[str]
) -> Iterator[tuple[int, list[Patch]]]:
    """Read all windows at once, so that a block is read once however many of them touch it."""
    owners = [(i, part) for i, regions in enumerate(parts) for part in range(len(regions))]
    found: dict[int, dict[int, Patch]] = defaultdict(dict)
    for number, patch in stream_regions(source, [region for some in parts for region in some], years, bands):
        i, part = owners[number]
        found[i][part] = patch
        if len(found[i]) == len(parts[i]):
            patches = found.pop(i)
            yield i, [patches[n] for n in range(len(patches))]


def _count(areas: Polygons, number: int, patches: Sequence[Patch]) -> int:
    """Count the pixels with data inside an area."""
    touched = [inside(areas, number, patch) for patch in patches]
    return sum(int((patch.valid.all(axis=1) & here).sum()) for patch, here in zip(patches, touched, strict=True))
