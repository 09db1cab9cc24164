"""Sites and periods -> requests: which go together, how big they are, how they are halved."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.site.geodesy import EE_DECIMALS, ee_geojson
from gee_polygons.sources.earthengine.cache import digest
from gee_polygons.sources.earthengine.recipes import Place, Recipe
from gee_polygons.sources.earthengine.session import unknown_client
from gee_polygons.sources.earthengine.transport import payload
from gee_polygons.zonal.zones import home_zones, unwrap

log = logging.getLogger(__name__)

SITES_PER_REQUEST: Final = 25
PERIODS_PER_REQUEST: Final = 4
BANDS_PER_REQUEST: Final = 300  # of one stacked image; the service's own limit is 5,000
PIXELS_PER_REQUEST: Final = 2_000_000  # of all sites and periods; the memory limit isn't published, halving finds it
GEOMETRY_BYTES_PER_REQUEST: Final = 4_000_000  # well below 10 MB, so that no request is built in vain
SHORTER_M: Final = (0.0, 0.1, 1.0, 10.0)  # tolerances of ever shorter outlines, for a site of many megabytes
_METRES_PER_DEG: Final = 111_320.0
MOST_SITE_BYTES: Final = 9_500_000  # with the rest of a request well below 10 MB
_BEYOND: Final = (91, 92, 93)  # latitudes that no outline has
SMALL_M2: Final = 10_000.0  # to shift every vertex by up to a centimetre changes the mean of a few pixels by 2e-4
SMALL_DECIMALS: Final = 9  # a tenth of a millimetre
_HILBERT_LEVEL: Final = 16
MOST_TILE_SCALE: Final = 16
# sites of fewer pixels than the first number: into how many parts each side of a pixel is cut. Shares in 8 bits shift
# the mean of 100 pixels by up to 2e-4 and of 25 by three times that; so it stays below 1e-4, for 2,500 parts at most
FINER: Final = ((25, 10), (100, 5), (400, 2))


class SiteShapes:
    """Sites as requests have them: zone, order, outline and its size, pixels.

    Parameters
    ----------
    polygons : array of shapely Polygon or MultiPolygon
        EPSG:4326.
    """

    def __init__(self, polygons: NDArray[Any]) -> None:
        self.polygons = unwrap(np.asarray(polygons, object))
        self.zones = home_zones(self.polygons) if len(self.polygons) else np.zeros(0, "U10")
        self.geojson, self.texts = [], []
        for polygon, small in zip(self.polygons, self.area_m2 < SMALL_M2, strict=True):
            geojson, text = _sendable(polygon, SMALL_DECIMALS if small else EE_DECIMALS)
            self.geojson.append(geojson)
            self.texts.append(text)

    def __len__(self) -> int:
        return len(self.polygons)

    @cached_property
    def order(self) -> list[int]:
        """Sites by zone, and in each along a Hilbert curve: neighbours in a request share tiles."""
        centres = shapely.centroid(self.polygons)
        places = _hilbert(shapely.get_x(centres), shapely.get_y(centres))
        found: list[int] = np.lexsort((places, self.zones)).tolist()
        return found

    @cached_property
    def area_m2(self) -> NDArray[np.float64]:
        """Approximate areas, to weigh requests with."""
        latitude = shapely.get_y(shapely.centroid(self.polygons))
        area: NDArray[np.float64] = shapely.area(self.polygons) * _METRES_PER_DEG**2 * np.cos(np.radians(latitude))
        return area

    def pixels(self, scale_m: float) -> NDArray[np.float64]:
        """Approximate numbers of pixels."""
        return np.asarray(np.maximum(self.area_m2 / scale_m**2, 1.0))

    def scale(self, recipe: Recipe, site: int) -> float:
        """Return the pixel size to measure a site with.

        The server rounds the covered share of a pixel to 8 bits, which spoils the mean of few pixels: those are cut
        into parts of the same value.
        """
        if recipe.reducer == "mean":
            n_pixels = self.area_m2[site] / recipe.scale_m**2
            for few, parts in FINER:
                if n_pixels < few:
                    return recipe.scale_m / parts
        return recipe.scale_m

    def feature(self, site: int, properties: Mapping[str, Any]) -> Any:
        """Return an `ee.Feature` of a site whose outline `body` fills in.

        The client's serializer looks at every number of an outline several times, seconds for a megabyte; so it gets
        three vertices that lie beyond the pole, and name the site.
        """
        import ee

        ring: Any = [[[site, latitude] for latitude in _BEYOND]]
        kind = self.geojson[site]["type"]
        outline = {"type": kind, "coordinates": ring if kind == "Polygon" else [ring]}
        return ee.Feature(ee.Geometry(outline, None, False), dict(properties))

    def body(self, expression: Any, sites: Sequence[int], **more: Any) -> bytes:
        """Return the body of a request about some sites, each of them in it once, with their outlines."""
        from ee import serializer

        encoded = serializer.encode(expression)
        if sorted(self._filled(encoded)) != sorted(sites):
            raise unknown_client("outlines are written in another way")
        return payload(encoded, **more)

    def _filled(self, node: Any) -> Iterator[int]:
        """Put outlines in their places; yield the sites whose they are."""
        if isinstance(node, dict):
            site = _site_of(node.get("constantValue"))
            if site is not None:
                node["constantValue"] = self.geojson[site]["coordinates"]
                yield site
            else:
                for part in node.values():
                    yield from self._filled(part)
        elif isinstance(node, list):
            for part in node:
                yield from self._filled(part)

    def key(self, recipe: Recipe, site: int, period: str, service: str) -> bytes:
        """Return what a site's values of a period are kept under."""
        grid = f"{self.zones[site]} {self.scale(recipe, site):g}"
        return digest(service, recipe.text, self.texts[site], period, grid)


@dataclass(frozen=True)
class Batch:
    """What one request asks for: some sites in some periods."""

    sites: tuple[int, ...]
    periods: tuple[str, ...]
    tile_scale: int = 1

    @property
    def pairs(self) -> list[tuple[int, str]]:
        """The (site, period) pairs."""
        return [(site, period) for site in self.sites for period in self.periods]

    def halves(self) -> list[Batch]:
        """Two batches of half the size; none for one site in one period."""
        if len(self.sites) > 1:
            middle = len(self.sites) // 2
            return [replace(self, sites=self.sites[:middle]), replace(self, sites=self.sites[middle:])]
        if len(self.periods) > 1:
            middle = len(self.periods) // 2
            return [replace(self, periods=self.periods[:middle]), replace(self, periods=self.periods[middle:])]
        return []

    def gentler(self) -> list[Batch]:
        """Return the same in smaller tiles on the server's side, where that still can be had."""
        scale = self.tile_scale * 2
        return [replace(self, tile_scale=scale)] if scale <= MOST_TILE_SCALE else []

    def body(self, shapes: SiteShapes, recipe: Recipe) -> bytes:
        """Return the body of this request: a collection of one feature per site, without geometry."""
        import ee

        names = [f"p{i}_{band}" for i in range(len(self.periods)) for band in recipe.bands]
        reducer = getattr(ee.Reducer, recipe.reducer)()
        if len(names) == 1:  # of a single band the property is named after the reducer's output
            reducer = reducer.setOutputs(names)
        groups: dict[tuple[str, float], list[int]] = defaultdict(list)
        for site in self.sites:
            groups[str(shapes.zones[site]), shapes.scale(recipe, site)].append(site)
        found = None
        for (crs, scale), members in groups.items():
            place = Place.of(bounding_box(shapes.polygons[members]), crs)
            images = [recipe.image(period, place) for period in self.periods]
            stacked = ee.Image.cat(images).rename(names) if len(images) > 1 else images[0].rename(names)
            features = [shapes.feature(i, {"i": i}) for i in members]
            reduced = stacked.reduceRegions(
                collection=ee.FeatureCollection(features),
                reducer=reducer,
                scale=scale,
                crs=crs,
                tileScale=self.tile_scale,
            ).select(["i", *names], None, False)
            found = reduced if found is None else found.merge(reduced)
        return shapes.body(found, self.sites)

    def read(self, features: Sequence[Mapping[str, Any]], recipe: Recipe) -> dict[tuple[int, str], list[Any]]:
        """Return the values of each pair that an answer holds."""
        found: dict[tuple[int, str], list[Any]] = {}
        for properties in features:
            site = -1 if properties.get("i") is None else int(float(properties["i"]))
            if site not in self.sites:
                continue
            for i, period in enumerate(self.periods):
                found[site, period] = [properties.get(f"p{i}_{band}") for band in recipe.bands]
        return found


def make_batches(shapes: SiteShapes, recipe: Recipe, missing: Mapping[int, Sequence[str]]) -> list[Batch]:
    """Group sites and their missing periods into requests.

    Parameters
    ----------
    shapes : SiteShapes
        All sites.
    recipe : Recipe
        What is asked of them.
    missing : mapping of site to periods
        What isn't known yet.
    """
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for site in shapes.order:
        if periods := missing.get(site):
            groups[tuple(periods)].append(site)
    pixels = shapes.pixels(recipe.scale_m)
    stack = max(1, min(PERIODS_PER_REQUEST, BANDS_PER_REQUEST // len(recipe.bands)))
    batches: list[Batch] = []
    for periods, sites in groups.items():
        for some in packed(sites, pixels, [len(text) for text in shapes.texts], SITES_PER_REQUEST):
            room = int(PIXELS_PER_REQUEST // pixels[list(some)].sum())
            at_once = max(1, min(stack, room, len(periods)))
            n_parts = -(-len(periods) // at_once)
            for part in np.array_split(np.array(periods, object), n_parts):
                batches.append(Batch(some, tuple(part.tolist())))
    return batches


def packed(
    sites: Sequence[int], pixels: NDArray[np.float64], sizes: Sequence[int], most: int
) -> Iterator[tuple[int, ...]]:
    """Fill requests, in order, up to the number of sites, of pixels and of bytes that one may hold."""
    taken: list[int] = []
    weight, size = 0.0, 0
    for site in sites:
        heavier, bigger = weight + pixels[site], size + sizes[site]
        full = len(taken) == most
        if taken and (full or heavier > PIXELS_PER_REQUEST or bigger > GEOMETRY_BYTES_PER_REQUEST):
            yield tuple(taken)
            taken, heavier, bigger = [], pixels[site], sizes[site]
        taken.append(site)
        weight, size = heavier, bigger
    if taken:
        yield tuple(taken)


def _sendable(polygon: Any, decimals: int) -> tuple[dict[str, Any], str]:
    """Return an outline and its text; one of more than 9.5 MB is simplified by as little as it takes."""
    for tolerance in SHORTER_M:
        shorter = polygon if not tolerance else shapely.simplify(polygon, tolerance / _METRES_PER_DEG)
        geojson = ee_geojson(shorter, decimals)
        text = json.dumps(geojson, separators=(",", ":"))
        if len(text) < MOST_SITE_BYTES:
            break
    if tolerance:
        log.warning(
            "an outline of %d vertices is too long for a request and is sent simplified by %g m; "
            "EarthEngineSource(method='pixels') measures it as it is", shapely.get_num_coordinates(polygon), tolerance,
        )  # fmt: skip
    return geojson, text


def _site_of(coordinates: Any) -> int | None:
    """Return the site whose outline is to stand where these coordinates are; None if they are real."""
    while isinstance(coordinates, list) and len(coordinates) == 1:
        coordinates = coordinates[0]
    if not isinstance(coordinates, list) or len(coordinates) != len(_BEYOND):
        return None
    named = [point for point, latitude in zip(coordinates, _BEYOND, strict=True) if point[1:] == [latitude]]
    return int(named[0][0]) if len(named) == len(_BEYOND) else None


def bounding_box(polygons: NDArray[Any]) -> dict[str, Any]:
    """Return the GeoJSON of a box around polygons, a metre larger than they are."""
    west, south, east, north = (round(float(v), 6) for v in shapely.total_bounds(polygons))
    margin = 1e-5  # a metre: rounding must not cut a site's edge off
    west, south, east, north = west - margin, south - margin, east + margin, north + margin
    return {"type": "Polygon", "coordinates": [[[west, south], [east, south], [east, north], [west, north]]]}


def _hilbert(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return positions along a Hilbert curve over all longitudes and latitudes (Skilling 2004, two dimensions)."""
    side = 1 << _HILBERT_LEVEL
    x = np.clip((lon + 180) / 540 * side, 0, side - 1).astype(np.int64)
    y = np.clip((lat + 90) / 180 * side, 0, side - 1).astype(np.int64)
    found = np.zeros(len(x), np.int64)
    step = side // 2
    while step:
        right, upper = (x & step) > 0, (y & step) > 0
        found += step * step * ((3 * right) ^ upper)
        flip = ~upper
        x, y = np.where(flip & right, side - 1 - x, x), np.where(flip & right, side - 1 - y, y)
        x, y = np.where(flip, y, x), np.where(flip, x, y)
        step //= 2
    return found
