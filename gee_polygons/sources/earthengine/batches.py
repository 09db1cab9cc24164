"""Groups sites and periods into requests of a bounded size, and splits those that turn out too big."""

from __future__ import annotations

import json
import logging
import re
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
from gee_polygons.sources.earthengine.reductions import Reduction, ZoneBox
from gee_polygons.sources.earthengine.session import incompatible_client
from gee_polygons.sources.earthengine.transport import payload
from gee_polygons.zonal.zones import home_zones, unwrap

log = logging.getLogger(__name__)

SITES_PER_REQUEST: Final = 25
PERIODS_PER_REQUEST: Final = 4
BANDS_PER_REQUEST: Final = 300  # of one stacked image; the service's own limit is 5,000
PIXELS_PER_REQUEST: Final = 2_000_000  # of all sites and periods; the memory limit isn't published, splitting finds it
GEOMETRY_BYTES_PER_REQUEST: Final = 4_000_000  # well below 10 MB, so that no request is built in vain
SIMPLIFICATION_M: Final = (0.0, 0.1, 1.0, 10.0)  # tolerances, tried in turn for an outline of many megabytes
MAX_SITE_BYTES: Final = 9_500_000  # with the rest of a request well below 10 MB
_METRES_PER_DEG: Final = 111_320.0
_PLACEHOLDER: Final = re.compile(rb"\[+(\d+),91\],\[\1,92\],\[\1,93\]+")  # of an outline: latitudes that none has
SMALL_M2: Final = 10_000.0  # to shift every vertex by up to a centimetre changes the mean of a few pixels by 2e-4
SMALL_DECIMALS: Final = 9  # a tenth of a millimetre
MAX_TILE_SCALE: Final = 16
# sites of fewer pixels than the first number: into how many parts each side of a pixel is cut. Shares in 8 bits shift
# the mean of 100 pixels by up to 2e-4 and of 25 by three times that; so it stays below 1e-4, for 2,500 parts at most
OVERSAMPLING: Final = ((25, 10), (100, 5), (400, 2))


class SiteShapes:
    """Sites as requests need them: UTM zone, order, outline as JSON, number of pixels.

    Parameters
    ----------
    polygons : array of shapely Polygon or MultiPolygon
        EPSG:4326.
    """

    def __init__(self, polygons: NDArray[Any]) -> None:
        self.polygons = unwrap(np.asarray(polygons, object))
        self.zones = home_zones(self.polygons) if len(self.polygons) else np.zeros(0, "U10")
        small = self.area_m2 < SMALL_M2
        self.texts = [
            _outline(polygon, SMALL_DECIMALS if is_small else EE_DECIMALS)
            for polygon, is_small in zip(self.polygons, small, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.polygons)

    @cached_property
    def order(self) -> list[int]:
        """Sites by zone, and in each along a Hilbert curve: neighbours in a request share tiles."""
        if not len(self):
            return []
        from geopandas import GeoSeries

        # zones across the antimeridian have longitudes above 180
        places = GeoSeries(shapely.centroid(self.polygons)).hilbert_distance(total_bounds=(-180, -90, 360, 90))
        return np.lexsort((places, self.zones)).tolist()

    @cached_property
    def area_m2(self) -> NDArray[np.float64]:
        """Approximate areas, to estimate the size of requests."""
        latitude = shapely.get_y(shapely.centroid(self.polygons))
        return shapely.area(self.polygons) * _METRES_PER_DEG**2 * np.cos(np.radians(latitude))

    def pixels(self, scale_m: float) -> NDArray[np.float64]:
        """Approximate numbers of pixels."""
        return np.asarray(np.maximum(self.area_m2 / scale_m**2, 1.0))

    def scale(self, reduction: Reduction, site: int) -> float:
        """Return the scale to reduce a site at.

        The server rounds the covered share of a pixel to 8 bits, too coarse for the mean of few pixels: those are
        oversampled.
        """
        if reduction.reducer == "mean":
            n_pixels = self.area_m2[site] / reduction.scale_m**2
            for few, parts in OVERSAMPLING:
                if n_pixels < few:
                    return reduction.scale_m / parts
        return reduction.scale_m

    def groups(self, reduction: Reduction, sites: Sequence[int]) -> Iterator[tuple[ZoneBox, float, list[int]]]:
        """Yield the sites that are reduced on one grid, with their place and scale."""
        groups: dict[tuple[str, float], list[int]] = defaultdict(list)
        for site in sites:
            groups[str(self.zones[site]), self.scale(reduction, site)].append(site)
        for (crs, scale), members in sorted(groups.items()):
            yield ZoneBox.of(bounding_box(self.polygons[members]), crs), scale, members

    def feature(self, site: int, properties: Mapping[str, Any]) -> Any:
        """Return an `ee.Feature` of a site, with a placeholder that `body` replaces by the site's outline.

        The client's serializer looks at every number of an outline several times, seconds for a megabyte. The
        placeholder has three vertices beyond the pole, whose longitude is the site's position.
        """
        import ee

        rings: Any = [[[site, 91], [site, 92], [site, 93]]]
        outline = {"type": "Polygon", "coordinates": rings}
        if self.texts[site].startswith('{"type":"MultiPolygon"'):
            outline = {"type": "MultiPolygon", "coordinates": [rings]}
        return ee.Feature(ee.Geometry(outline, None, False), dict(properties))

    def body(self, expression: Any, sites: Sequence[int], **more: Any) -> bytes:
        """Return the body of a request for an expression that has a feature of each of the sites, once."""
        found: list[int] = []

        def coordinates(placeholder: re.Match[bytes]) -> bytes:
            found.append(int(placeholder[1]))
            text = self.texts[found[-1]]
            return text[text.index("[") : -1].encode()

        body = _PLACEHOLDER.sub(coordinates, payload(expression, **more))
        if sorted(found) != sorted(sites):
            raise incompatible_client("outlines are written in another way")
        return body

    def key(self, reduction: Reduction, site: int, period: str, service: str) -> bytes:
        """Return the key of a site's values of a period in the cache."""
        grid = f"{self.zones[site]} {self.scale(reduction, site):g}"
        return digest(service, reduction.text, self.texts[site], period, grid)


@dataclass(frozen=True)
class Batch:
    """The sites and periods of one request."""

    sites: tuple[int, ...]
    periods: tuple[str, ...]
    tile_scale: int = 1

    @property
    def pairs(self) -> list[tuple[int, str]]:
        """The (site, period) pairs."""
        return [(site, period) for site in self.sites for period in self.periods]

    def halves(self) -> list[Batch]:
        """Return two batches of half the size; nothing for one site in one period."""
        for name in ("sites", "periods"):
            members = getattr(self, name)
            middle = len(members) // 2
            if middle:
                return [replace(self, **{name: members[:middle]}), replace(self, **{name: members[middle:]})]
        return []

    def with_smaller_tiles(self) -> list[Batch]:
        """Return the same batch, computed in smaller tiles on the server; nothing where they can't be smaller."""
        scale = self.tile_scale * 2
        return [replace(self, tile_scale=scale)] if scale <= MAX_TILE_SCALE else []

    def body(self, shapes: SiteShapes, reduction: Reduction) -> bytes:
        """Return the body of this request: a collection of one feature per site, without geometry."""
        import ee

        names = [f"p{i}_{band}" for i in range(len(self.periods)) for band in reduction.bands]
        found = None
        for place, scale, members in shapes.groups(reduction, self.sites):
            images = [reduction.image(period, place) for period in self.periods]
            stacked = ee.Image.cat(images) if len(images) > 1 else images[0]
            features = [shapes.feature(i, {"i": i}) for i in members]
            reduced = reduction.reduce_regions(stacked, names, features, place, scale, self.tile_scale)
            reduced = reduced.select(["i", *names], None, False)
            found = reduced if found is None else found.merge(reduced)
        return shapes.body(found, self.sites)

    def read(self, features: Sequence[Mapping[str, Any]], reduction: Reduction) -> dict[tuple[int, str], list[Any]]:
        """Return the values of each (site, period) that an answer has."""
        found: dict[tuple[int, str], list[Any]] = {}
        for properties in features:
            site = -1 if properties.get("i") is None else int(float(properties["i"]))
            if site not in self.sites:
                continue
            for i, period in enumerate(self.periods):
                found[site, period] = [properties.get(f"p{i}_{band}") for band in reduction.bands]
        return found


def make_batches(shapes: SiteShapes, reduction: Reduction, missing: Mapping[int, Sequence[str]]) -> list[Batch]:
    """Group sites and their missing periods into requests.

    Parameters
    ----------
    shapes : SiteShapes
        All sites.
    reduction : Reduction
        The values to compute.
    missing : mapping of site to periods
        Which to request.
    """
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for site in shapes.order:
        if periods := missing.get(site):
            groups[tuple(periods)].append(site)
    pixels = shapes.pixels(reduction.scale_m)
    stack = max(1, min(PERIODS_PER_REQUEST, BANDS_PER_REQUEST // len(reduction.bands)))
    batches: list[Batch] = []
    for periods, sites in groups.items():
        for some in pack(sites, pixels, [len(text) for text in shapes.texts], SITES_PER_REQUEST):
            fitting = int(PIXELS_PER_REQUEST // pixels[list(some)].sum())
            at_once = max(1, min(stack, fitting, len(periods)))
            n_parts = -(-len(periods) // at_once)
            for part in np.array_split(np.array(periods, object), n_parts):
                batches.append(Batch(some, tuple(part.tolist())))
    return batches


def pack(
    sites: Sequence[int], pixels: NDArray[np.float64], sizes: Sequence[int], most: int
) -> Iterator[tuple[int, ...]]:
    """Yield the sites of each request, in order, within the limits of sites, pixels and bytes."""
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


def _outline(polygon: Any, decimals: int) -> str:
    """Return an outline as GeoJSON; one of more than 9.5 MB is simplified as little as possible."""
    for tolerance in SIMPLIFICATION_M:
        geojson = ee_geojson(shapely.simplify(polygon, tolerance / _METRES_PER_DEG) if tolerance else polygon, decimals)
        text = json.dumps(geojson, separators=(",", ":"))
        if len(text) < MAX_SITE_BYTES:
            break
    if tolerance:
        log.warning(
            "an outline of %d vertices is too long for a request and is sent simplified by %g m"
            "; in Python EarthEngineSource(method='pixels') measures it as it is",
            shapely.get_num_coordinates(polygon), tolerance,
        )  # fmt: skip
    return text


def bounding_box(polygons: NDArray[Any]) -> dict[str, Any]:
    """Return the GeoJSON of a box around polygons, a metre larger than they are."""
    west, south, east, north = (round(float(v), 6) for v in shapely.total_bounds(polygons))
    margin = 1e-5  # a metre: rounding must not cut a site's edge off
    west, south, east, north = west - margin, south - margin, east + margin, north + margin
    return {"type": "Polygon", "coordinates": [[[west, south], [east, south], [east, north], [west, north]]]}
