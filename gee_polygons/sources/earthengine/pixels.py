"""Reads pixels of embeddings and of any other image through computePixels.

`CodeWindows` is a pixel source whose blocks are windows around sites. So every statistic is computed by the same exact
code, from the same int8 codes, as for the open archives.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.alphaearth import ALPHA_EMBEDDINGS, BANDS, N_BANDS, checked_bands
from gee_polygons.errors import ReadError
from gee_polygons.reduction.plan import BlockRef, EmbeddingImage, Job, Piece, Plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.reduction.windows import DecodedBlock, lattice_window
from gee_polygons.sources.earthengine.batches import SiteShapes, bounding_box
from gee_polygons.sources.earthengine.reductions import ZoneBox, embedding_codes
from gee_polygons.sources.earthengine.transport import Refusal, RequestFailedError, Service, payload
from gee_polygons.zonal.grid import Lattice, Window
from gee_polygons.zonal.projection import project_outline, transformer
from gee_polygons.zonal.zones import bounding_boxes, home_zones

MAX_PIXELS_BYTES: Final = 50_331_648  # https://developers.google.com/earth-engine/guides/usage: 48 MiB uncompressed
MAX_SIDE_PX: Final = 32_768  # of one computePixels
ANSWER_BYTES: Final = 12_000_000  # intended size of an answer: small enough for several at once
WINDOW_PX: Final = 512  # a wider site is divided into windows of this size
CLUSTER_PX: Final = 256  # neighbouring sites share a window up to this size
CLUSTER_WASTE: Final = 2.0  # and up to this multiple of the area of their own boxes
MIN_SPLIT_PX: Final = 16
_PARSING: Final = threading.Lock()  # Python 3.11 parses a header in two threads at once with a SystemError, rarely
_AHEAD: Final = 8  # requests that are sent before their pixels are needed


class CodeWindows:
    """Plans and reads the stored codes of Earth Engine's embeddings.

    Parameters
    ----------
    service : Service
        Sends the requests.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def plan(self, polygons: Polygons | NDArray[Any], years: Sequence[int]) -> Plan:
        """Plan the windows that cover the polygons, without a request."""
        projected = Polygons.of(polygons)
        shapes = SiteShapes(projected.geometries)
        pieces = tuple(Piece(i, _lattice(str(crs))) for i, crs in enumerate(shapes.zones))
        jobs: list[Job] = []
        for crs, some in groupby(shapes.order, key=lambda i: str(shapes.zones[i])):
            lattice = _lattice(crs)
            for window, members in _windows(projected, lattice, list(some)):
                tile, index = f"{ALPHA_EMBEDDINGS.collection_id}/{crs}", (window.row, window.col)
                reads = tuple(BlockRef(tile=tile, year=y, index=index, window=window, inside=window) for y in years)
                jobs.append(Job(lattice=lattice, window=window, pieces=tuple(sorted(members)), reads=reads))
        n_bytes = sum(job.window.height * job.window.width * N_BANDS * len(job.reads) for job in jobs)
        requests = sum(-(-len(job.reads) // _years_at_once(job.window, N_BANDS)) for job in jobs)
        return Plan(
            source="earthengine", years=tuple(years), n_polygons=len(projected), pieces=pieces,
            jobs=tuple(job for job in jobs if job.reads), requests=requests, bytes=n_bytes,
        )  # fmt: skip

    def read(self, refs: Sequence[BlockRef], bands: Sequence[str]) -> Iterator[DecodedBlock | ReadError]:
        """Read windows, in order, several years in one request and several requests at once."""
        names = list(bands)
        requests: list[list[BlockRef]] = []
        for _, of_window in groupby(refs, key=lambda ref: (ref.tile, ref.window)):
            years = list(of_window)
            at_once = _years_at_once(years[0].window, len(names))
            requests += [years[i : i + at_once] for i in range(0, len(years), at_once)]
        pool = ThreadPoolExecutor(min(_AHEAD, self._service.max_concurrent), thread_name_prefix="earthengine")
        pending: deque[Future[list[DecodedBlock | ReadError]]] = deque()
        try:
            for some in requests:
                pending.append(pool.submit(self._fetch, some, names))
                if len(pending) > _AHEAD:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, refs: Sequence[BlockRef], names: list[str]) -> list[DecodedBlock | ReadError]:
        window, crs = refs[0].window, refs[0].tile.rpartition("/")[2]
        try:
            planes = _codes(self._service, _lattice(crs), window, [ref.year for ref in refs], names)
        except RequestFailedError as error:
            if len(refs) > 1:  # perhaps only one of the years fails
                return [block for ref in refs for block in self._fetch([ref], names)]
            year = refs[0].year
            return [ReadError(f"{refs[0].tile}, {year}: {error.refusal.message}", url=refs[0].tile, year=year)]
        return [DecodedBlock(ref, of_year) for ref, of_year in zip(refs, planes, strict=True)]


def image_of_codes(
    service: Service, region: shapely.Geometry, year: int, bands: Sequence[str] | None = None
) -> EmbeddingImage:
    """Return the codes of a region's bounding box (EPSG:4326), north-up, in the UTM zone of its centroid."""
    names = tuple(bands) if bands is not None else BANDS
    distinct = list(checked_bands(list(dict.fromkeys(names))))
    lattice, window = window_of_region(region, ALPHA_EMBEDDINGS.scale_m)
    codes = _codes(service, lattice, window, [year], distinct)[0][[distinct.index(name) for name in names]]
    return EmbeddingImage(values=codes, grid=lattice.grid(window), bands=names, year=year, source="earthengine")


def window_of_region(region: shapely.Geometry, step_m: float) -> tuple[Lattice, Window]:
    """Return the window of a region's bounding box (EPSG:4326) on a lattice of the UTM zone of its centroid."""
    boxes = bounding_boxes(np.array([region], object))
    lattice = Lattice(str(home_zones(boxes)[0]), step_m, step_m)
    return lattice, lattice_window(boxes[0], lattice)


def _codes(
    service: Service, lattice: Lattice, window: Window, years: Sequence[int], names: list[str]
) -> NDArray[np.int8]:
    """Return codes of shape (years, bands, height, width)."""
    import ee

    place = ZoneBox.of(_lonlat_box(lattice, window), lattice.crs)
    images = [
        embedding_codes(year, place, names).rename([f"p{i}_{name}" for name in names]) for i, year in enumerate(years)
    ]
    bands = [f"p{i}_{name}" for i in range(len(years)) for name in names]
    found = compute_grid(service, ee.Image.cat(images), lattice, window, n_bands=len(bands), itemsize=1)
    if set(found.dtype.names or ()) != set(bands):
        message = f"the answer has {len(found.dtype.names or ())} of {len(bands)} bands"
        raise RequestFailedError(Refusal("other", message))
    planes = np.stack([found[band] for band in bands]).astype(np.int8, casting="same_kind")
    return planes.reshape(len(years), len(names), window.height, window.width)


def compute_grid(
    service: Service, image: Any, lattice: Lattice, window: Window, *, n_bands: int, itemsize: int
) -> NDArray[Any]:
    """Return the pixels of an image in a window, as a structured array of shape (height, width), one field per band.

    Parameters
    ----------
    service : Service
        Sends the requests: one, more where one would be too big.
    image : ee.Image
        Unmasked: the format has no masks.
    lattice, window : Lattice, Window
        The pixels to read.
    n_bands, itemsize : int
        Number of bands, and of bytes per value.

    Raises
    ------
    RequestFailedError
        If even small windows fail.
    """
    size = window.height * window.width * n_bands * itemsize
    if size > MAX_PIXELS_BYTES or max(window.height, window.width) > MAX_SIDE_PX:
        return _in_halves(service, image, lattice, window, n_bands, itemsize)
    a, _, c, _, e, f = lattice.transform(window)
    grid = {
        "dimensions": {"width": window.width, "height": window.height},
        "affineTransform": {"scaleX": a, "shearX": 0, "translateX": c, "shearY": 0, "scaleY": e, "translateY": f},
        "crsCode": lattice.crs,
    }
    try:
        content = service.pixels(payload(image, fileFormat="NPY", grid=grid))
    except RequestFailedError as error:
        if error.refusal.kind != "too_big" or min(window.height, window.width) < MIN_SPLIT_PX:
            raise
        return _in_halves(service, image, lattice, window, n_bands, itemsize)
    try:
        with _PARSING:
            found: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise RequestFailedError(Refusal("other", "the answer is not an array of pixels")) from error
    if found.shape != (window.height, window.width) or not found.dtype.names:
        message = f"the answer has the shape {found.shape} of {found.dtype}, not {(window.height, window.width)}"
        raise RequestFailedError(Refusal("other", message))
    return found


def _in_halves(
    service: Service, image: Any, lattice: Lattice, window: Window, n_bands: int, itemsize: int
) -> NDArray[Any]:
    w = window
    if w.height >= w.width:
        n = w.height // 2
        parts, axis = (Window(w.row, w.col, n, w.width), Window(w.row + n, w.col, w.height - n, w.width)), 0
    else:
        n = w.width // 2
        parts, axis = (Window(w.row, w.col, w.height, n), Window(w.row, w.col + n, w.height, w.width - n)), 1
    found = [compute_grid(service, image, lattice, part, n_bands=n_bands, itemsize=itemsize) for part in parts]
    return np.concatenate(found, axis=axis)


def _lattice(crs: str) -> Lattice:
    return Lattice(crs, ALPHA_EMBEDDINGS.scale_m, ALPHA_EMBEDDINGS.scale_m)


def _years_at_once(window: Window, n_bands: int) -> int:
    return max(1, ANSWER_BYTES // (window.height * window.width * n_bands))


@dataclass
class _Cluster:
    """Sites that share a window."""

    window: Window
    members: list[int]
    own_px: int  # sum of the areas of their boxes

    def joined(self, box: Window, site: int) -> _Cluster | None:
        """Return the cluster with one more site, if their common window is small enough."""
        row, col = min(self.window.row, box.row), min(self.window.col, box.col)
        height = max(self.window.row_stop, box.row_stop) - row
        width = max(self.window.col_stop, box.col_stop) - col
        own_px = self.own_px + box.height * box.width
        if max(height, width) > CLUSTER_PX or height * width > CLUSTER_WASTE * own_px:
            return None
        return _Cluster(Window(row, col, height, width), [*self.members, site], own_px)


def _windows(polygons: Polygons, lattice: Lattice, sites: Sequence[int]) -> Iterator[tuple[Window, list[int]]]:
    """Yield windows and the sites in each; together a site's windows cover each of its pixels once."""
    bounds = polygons.rings(lattice, np.array(sites, np.int64)).bounds()
    clusters: list[_Cluster] = []
    for site, (west, north, east, south) in zip(sites, bounds, strict=True):
        row, col = int(np.floor(north)), int(np.floor(west))
        box = Window(row, col, max(1, int(np.ceil(south)) - row), max(1, int(np.ceil(east)) - col))
        if max(box.height, box.width) > WINDOW_PX:
            for part in _parts(polygons.geometries[site], lattice, box):
                yield part, [site]
        elif clusters and (joined := clusters[-1].joined(box, site)) is not None:
            clusters[-1] = joined
        else:
            clusters.append(_Cluster(box, [site], box.height * box.width))
    for cluster in clusters:
        yield cluster.window, cluster.members


def _parts(polygon: Any, lattice: Lattice, box: Window) -> Iterator[Window]:
    """Divide a large site's box into windows, without those that it doesn't touch."""
    outline = project_outline(polygon, lattice.crs)
    shapely.prepare(outline)
    for row in range(box.row, box.row_stop, WINDOW_PX):
        for col in range(box.col, box.col_stop, WINDOW_PX):
            part = Window(row, col, min(WINDOW_PX, box.row_stop - row), min(WINDOW_PX, box.col_stop - col))
            # a pixel more on each side: edges are straight in longitude and latitude
            if shapely.intersects(outline, shapely.buffer(_ground(lattice, part), lattice.step_x, join_style="mitre")):
                yield part


def _ground(lattice: Lattice, window: Window) -> shapely.Geometry:
    """Return the rectangle of a window in the lattice's CRS."""
    a, _, west, _, e, north = lattice.transform(window)
    return shapely.box(west, north + e * window.height, west + a * window.width, north)


def _lonlat_box(lattice: Lattice, window: Window) -> dict[str, Any]:
    """Return the GeoJSON of a box around a window."""
    project = transformer(lattice.crs, "EPSG:4326").transform

    def to_lonlat(x: Any, y: Any) -> Any:
        lon, lat = project(x, y)
        return lon + 360.0 * np.round((lon[0] - lon) / 360.0), lat  # past 180 beyond the antimeridian

    edge = shapely.segmentize(_ground(lattice, window), 5_000)
    return bounding_box(np.array([shapely.transform(edge, to_lonlat, interleaved=False)]))
