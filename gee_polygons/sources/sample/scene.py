"""Defines the sites of the sample archive, their land cover over the years, and the true value of each pixel.

Positions are metres east and north of the origin, in the landscape's local frame: x = 0 is the seam of UTM zones
22S and 23S (48 W).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.sources.sample.landscape import Landscape, Patch
from gee_polygons.store.atomic import replacing
from gee_polygons.zonal.grid import Window

_LON, _LAT, _SEED = -48.0, -22.35, 1

# By zone and year, the area (metres) in which the zone's tiles have nodata, beyond the zone's edge.
_NOT_PUBLISHED: Final = {
    ("EPSG:32723", 2021): shapely.box(-1e5, -1e5, -300, 1e5),
    ("EPSG:32722", 2022): shapely.box(600, -1e5, 1e5, 1e5),
}


@dataclass(frozen=True, kw_only=True)
class _SampleSite(Patch):
    """A site: its outline in metres of the scene, and its history."""

    site_id: str
    name: str
    kind: str


def outline(x: float, y: float, area_ha: float, stretch: float = 1.3, turn: float = 0.0) -> shapely.Polygon:
    """Return an irregular, smooth outline around (x, y) with a given area.

    A circle with four harmonics whose phases come from its place, stretched and turned (radians).

    Examples
    --------
    >>> round(outline(0, 0, 12).area / 10_000, 6)
    12.0
    """
    phases = [int.from_bytes(hashlib.blake2b(f"{x} {y} {j}".encode(), digest_size=2).digest(), "big") for j in range(4)]
    angles = np.linspace(0, 2 * math.pi, 45)[:-1]
    radius = np.ones_like(angles)
    for j, phase in enumerate(phases):
        radius += 0.16 / (j + 1) * np.cos((j + 2) * angles + phase / 65536 * 2 * math.pi)
    shape = shapely.Polygon(np.column_stack([radius * np.cos(angles) * stretch, radius * np.sin(angles)]))
    shape = shapely.affinity.rotate(shape, turn, origin=(0, 0), use_radians=True)
    scale = math.sqrt(area_ha * 10_000 / shape.area)
    return shapely.Polygon(shapely.get_coordinates(shape) * scale + (x, y))


def _corridor(west: float, east: float, y: float, width: float) -> shapely.Polygon:
    """Return a winding strip from west to east, like woods along a stream."""
    x = np.linspace(west, east, 40)
    middle = y + 90 * np.sin((x - west) / 330.0) + 35 * np.cos(x / 140.0)
    half = 0.5 * width * (1 + 0.25 * np.sin(x / 210.0))
    return shapely.Polygon(np.vstack([np.column_stack([x, middle - half]), np.column_stack([x, middle + half])[::-1]]))


def _regrowth(
    site_id: str, name: str, shape: shapely.Geometry, start_year: int, pace: float, before: str = "pasture"
) -> _SampleSite:
    covers = (before, "young forest", "mature forest")
    return _SampleSite(
        site_id=site_id, name=name, kind="restoration", polygon=shape, covers=covers, start_year=start_year, pace=pace
    )


def _steady(site_id: str, name: str, shape: shapely.Geometry, cover: str, kind: str = "control") -> _SampleSite:
    return _SampleSite(site_id=site_id, name=name, kind=kind, polygon=shape, covers=(cover, cover, cover))


_RESERVOIR = outline(-950, -1000, 34, stretch=1.5, turn=0.5)
_GROVE = outline(-1370, 930, 6, stretch=1.5, turn=0.2)  # in the hole of a site, and no part of it

_SITES: Final = (
    _regrowth("pasture-fast", "Pasture to forest, fast", outline(-4700, 950, 22, 1.4, 0.3), 2019, 0.24),
    _regrowth("pasture-medium", "Pasture to forest, medium", outline(-3900, 1050, 16, 1.2, 1.1), 2019, 0.14),
    _regrowth("pasture-slow", "Pasture to forest, slow", outline(-3050, 900, 27, 1.6, 2.2), 2018, 0.08),
    _regrowth("pasture-late", "Pasture to forest, planted late", outline(-4750, 50, 12, 1.3, 0.7), 2022, 0.3),
    _regrowth("crop-to-forest", "Cropland to forest", outline(-3950, 180, 19, 1.2, 1.9), 2020, 0.18, before="crop"),
    _regrowth("stalled", "Planted, but nothing grew", outline(-3100, -50, 14, 1.5, 2.8), 2019, 0.015),
    _steady("pasture-control", "Pasture that stays pasture", outline(-4750, -850, 18, 1.25, 0.1), "pasture"),
    _steady("forest-reference-1", "Old forest", outline(-3850, -900, 40, 1.35, 1.4), "mature forest", "reference"),
    _SampleSite(
        site_id="cleared",
        name="Old forest, cleared in 2021",
        kind="clearing",
        polygon=outline(-2950, -1000, 21, 1.3, 0.5),
        covers=("mature forest", "pasture", "pasture"),
        start_year=2021,
        pace=1.0,
    ),
    _regrowth("tile-edge", "Across the edge of two tiles", outline(-2200, 480, 24, 1.5, 0.2), 2020, 0.2),
    _regrowth("hole", "Around an old grove", outline(-1350, 950, 32, 1.2, 0.9).difference(_GROVE), 2019, 0.16),
    _regrowth(
        "multipolygon",
        "Three parts",
        shapely.MultiPolygon(
            [
                outline(-1650, 120, 8, 1.4, 2.0),
                outline(-1180, -60, 5, 1.1),
                outline(-1400, -330, 2.5, 1.6, 0.4),
            ]
        ),
        2019,
        0.2,
    ),
    _regrowth("half-water", "Half in the masked reservoir", outline(-690, -840, 17, 1.2, 1.0), 2019, 0.15),
    _steady("sub-pixel", "Smaller than a pixel", outline(-452.3, 983.7, 0.004, 1.2, 0.3), "mature forest"),
    _regrowth("zone-seam", "Across the zone seam", outline(40, 420, 20, 1.4, 0.4), 2019, 0.18),
    _regrowth(
        "zone-seam-long",
        "Across the zone seam, in neither zone's tiles alone",
        _corridor(-1250, 1150, -330, 130),
        2020,
        0.15,
    ),
    _steady(
        "crop-control",
        "Cropland that stays cropland",
        shapely.affinity.rotate(shapely.box(1250, 850, 1720, 1180), 14),
        "crop",
    ),
    _steady("forest-reference-2", "Old forest", outline(1580, 280, 25, 1.2, 2.4), "mature forest", "reference"),
    _regrowth("pasture-east", "Pasture to forest, slow", outline(1500, -950, 30, 1.5, 2.9), 2019, 0.1),
    _steady("outside", "Outside the archive", outline(9_000, 300, 10, 1.3, 0.6), "pasture"),
)


@lru_cache(maxsize=1)
def _scene() -> Landscape:
    """Return the land of the sample archive."""
    grove = Patch(polygon=_GROVE, covers=("mature forest", "mature forest", "mature forest"))
    return Landscape(lon=_LON, lat=_LAT, seed=_SEED, patches=(*_SITES, grove), masked=(_RESERVOIR,))


@lru_cache(maxsize=64)
def _scene_of(crs: str, year: int) -> Landscape:
    """Return the land as one zone's tiles of one year show it."""
    scene, hidden = _scene(), _NOT_PUBLISHED.get((crs, year))
    return scene if hidden is None else replace(scene, masked=(*scene.masked, hidden))


def truth_codes(crs: str, window: Window, year: int) -> NDArray[np.int8]:
    """Return the true codes of the sample archive in a window.

    Parameters
    ----------
    crs : str
        ``"EPSG:32722"`` or ``"EPSG:32723"`` for what the tiles of a zone hold; any other projected CRS in metres
        shows the same ground on its own 10 m lattice.
    window : Window
        Rows (southwards) and columns of the lattice of 10 m pixels with edges at multiples of 10 m.
    year : int
        A year; also a missing tile-year has its truth.

    Returns
    -------
    int8 array, shape (64, height, width), north-up; -128 in all bands where masked.

    Examples
    --------
    >>> truth_codes("EPSG:32722", Window(row=-752600, col=80500, height=2, width=3), 2020).shape
    (64, 2, 3)
    """
    return _scene_of(crs, year).codes(crs, window, year)


def truth_vectors(crs: str, window: Window, year: int) -> NDArray[np.float32]:
    """Return the vectors that `truth_codes` stands for: float32, shape (64, height, width), NaN where masked.

    Examples
    --------
    >>> vector = truth_vectors("EPSG:32722", Window(row=-752600, col=80500, height=1, width=1), 2020)
    >>> bool(abs(np.linalg.norm(vector) - 1) < 0.01)
    True
    """
    return codes_to_vectors(truth_codes(crs, window, year), np.float32)


def truth_label(crs: str, window: Window, year: int) -> NDArray[np.uint8]:
    """Return the prevailing land cover: uint8, shape (height, width), position in `LAND_COVER`, 255 where masked.

    Examples
    --------
    >>> label = truth_label("EPSG:32722", Window(row=-752600, col=80500, height=2, width=3), 2020)
    >>> label.shape, str(label.dtype)
    ((2, 3), 'uint8')
    """
    return _scene_of(crs, year).labels(crs, window, year)


def sample_sites_geojson() -> dict[str, Any]:
    """Return the sample sites as a GeoJSON mapping (EPSG:4326, 7 decimals: 1 cm)."""

    def to_degrees(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        lon, lat = _scene().from_frame("EPSG:4326", xy[:, 0], xy[:, 1])
        return np.round(np.column_stack([lon, lat]), 7)

    features = []
    for site in _SITES:
        geometry = shapely.orient_polygons(shapely.transform(site.polygon, to_degrees))
        start_year = site.start_year or None
        properties = {"site_id": site.site_id, "name": site.name, "kind": site.kind, "start_year": start_year}
        features.append({"type": "Feature", "properties": properties, "geometry": shapely.geometry.mapping(geometry)})
    return {"type": "FeatureCollection", "name": "sample_sites", "features": features}


def sample_sites() -> Any:
    """Return the sites of the sample archive, also in the repository as ``data/sample_sites.geojson``.

    Returns
    -------
    geopandas.GeoDataFrame
        Columns `site_id`, `name`, `kind` (restoration, control, reference, clearing), `start_year` (Int64, missing
        for land that stays as it is) and `geometry` (EPSG:4326).

    Examples
    --------
    >>> sites = sample_sites()
    >>> sites.set_index("site_id").loc["pasture-fast", "start_year"]
    np.int64(2019)
    """
    import geopandas

    sites = geopandas.GeoDataFrame.from_features(sample_sites_geojson(), crs="EPSG:4326")
    sites["start_year"] = sites["start_year"].astype("Int64")
    return sites[["site_id", "name", "kind", "start_year", "geometry"]]


def write_sample_sites(path: Path | str) -> Path:
    """Write the sample sites as GeoJSON, one line a site; made ``data/sample_sites.geojson``."""
    with replacing(path) as part:
        part.write_text(_sites_text(), "utf-8")
    return Path(path)


def holds_sample_sites(path: Path) -> bool:
    """Whether a file is what `write_sample_sites` writes, so that nothing is lost with it."""
    return path.is_file() and path.read_bytes() == _sites_text().encode()


def _sites_text() -> str:
    lines = ",\n".join(json.dumps(feature) for feature in sample_sites_geojson()["features"])
    return f'{{"type": "FeatureCollection", "name": "sample_sites", "features": [\n{lines}\n]}}\n'
