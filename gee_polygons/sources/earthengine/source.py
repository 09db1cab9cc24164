"""Earth Engine as a source of embeddings: the same arguments and the same table as from the open archives.

A mean alone is computed on the server (`reduceRegions` on the tiles' own pixels, weighted by the covered fraction in
steps of about 1/255). Any other statistic is computed on this machine from the stored int8 codes (`computePixels`),
exactly as for the open archives; a mean that is requested along with it, too, so that the two never contradict.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.alphaearth import ALPHA_EMBEDDINGS, EMBEDDING_YEARS
from gee_polygons.errors import EarthEngineError, UsageError
from gee_polygons.progress import Progress, report_progress
from gee_polygons.reduction.merging import Results
from gee_polygons.reduction.pipeline import reduce_polygons
from gee_polygons.reduction.plan import EmbeddingImage, Failure
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.earthengine.batches import SiteShapes, make_batches
from gee_polygons.sources.earthengine.cache import Cache, open_cache
from gee_polygons.sources.earthengine.pixels import CodeWindows, image_of_codes
from gee_polygons.sources.earthengine.reductions import COMPLETE, embedding_reduction, possible_years
from gee_polygons.sources.earthengine.running import TITLE, FailedPairs, Pair, Values, compute, known_and_missing
from gee_polygons.sources.earthengine.session import earth_engine
from gee_polygons.sources.earthengine.transport import DEFAULT_CONCURRENT, INTERACTIVE_S, MAX_CONCURRENT, Service
from gee_polygons.zonal.coverage import FULL, compute_coverage
from gee_polygons.zonal.grid import Lattice

METHODS: Final = ("auto", "server", "pixels")
SITES_AT_ONCE: Final = 200  # of method="pixels": kept in the cache as soon as these are done
# Google doesn't publish a price per pixel; a rough rate, to tell minutes from days
PIXEL_BANDS_PER_EECU_S: Final = 2e6


@dataclass(frozen=True, kw_only=True)
class RequestCost:
    """Estimated cost of an extraction.

    Parameters
    ----------
    site_years, known : int
        Number of site-years, and of those that the cache has.
    requests, bytes : int
        Number and size of the requests.
    pixels : int
        Pixel-years that the server reads, 64 bands each.
    eecu_hours : float
        Rough estimate of the compute time, to be compared with the monthly allowance.
    """

    site_years: int
    known: int
    requests: int
    bytes: int
    pixels: int
    eecu_hours: float


class EarthEngineSource:
    """Embeddings from Earth Engine, in the session that the user has started.

    Parameters
    ----------
    method : {"auto", "server", "pixels"}
        ``"server"`` computes on the server, the mean only; ``"pixels"`` reads int8 codes and computes on this machine.
        ``"auto"``: the mean alone on the server, everything else from pixels.
    cache : bool
        Whether finished site-years are kept on this machine (``GEE_POLYGONS_CACHE`` names the folder) and not computed
        again. Values that may change (no data, a tile missing, a year that isn't over) expire after a day: a new
        year's tiles appear one by one in January.
    max_concurrent : int
        Requests at once, 1..40.
    deadline_s : float
        Seconds without an answer after which a request is given up and sent again.

    Raises
    ------
    UsageError
        For an invalid option.
    EarthEngineError
        If Earth Engine is not initialised.
    """

    name = "earthengine"

    def __init__(
        self,
        *,
        method: str = "auto",
        cache: bool = True,
        max_concurrent: int = DEFAULT_CONCURRENT,
        deadline_s: float = INTERACTIVE_S,
    ) -> None:
        if method not in METHODS:
            raise UsageError(f"method is one of {', '.join(METHODS)}, found {method!r}")
        if isinstance(max_concurrent, bool) or not 1 <= max_concurrent <= MAX_CONCURRENT:
            raise UsageError(f"max_concurrent is 1..{MAX_CONCURRENT}, found {max_concurrent!r}")
        if not deadline_s > 0:
            raise UsageError(f"deadline_s is a number of seconds above 0, found {deadline_s!r}")
        earth_engine()
        self.archive = ALPHA_EMBEDDINGS.collection_id
        self._method, self._cache = method, cache
        self._max_concurrent, self._deadline_s = int(max_concurrent), deadline_s

    def __repr__(self) -> str:
        return f"EarthEngineSource({self.archive!r}, method={self._method!r}, cache={self._cache})"

    def years(self) -> list[int]:
        """Return the years published when this version was made, without a request."""
        return list(EMBEDDING_YEARS)

    def extent(self) -> tuple[float, ...]:
        """(west, south, east, north) in degrees: all land."""
        return -180.0, -90.0, 180.0, 90.0

    def image(self, region: shapely.Geometry, year: int, bands: Sequence[str] | None = None) -> EmbeddingImage:
        """Return the codes of a region's bounding box, north-up, in the UTM zone of its centroid."""
        with self.connection() as (service, _):
            return image_of_codes(service, region, year, bands)

    @contextmanager
    def connection(self) -> Iterator[tuple[Service, Cache]]:
        """Open the service and the cache of finished values, with this source's options."""
        earth_engine()
        service, cache = Service(self._max_concurrent, self._deadline_s), open_cache(self._cache)
        try:
            yield service, cache
        finally:
            cache.close()
            service.close()

    def cost(self, polygons: NDArray[Any], years: Sequence[int]) -> RequestCost:
        """Estimate the cost of the mean of all 64 bands, without a request.

        Parameters
        ----------
        polygons : array of shapely Polygon or MultiPolygon
            EPSG:4326.
        years : sequence of int
            Years.
        """
        shapes, reduction = SiteShapes(polygons), embedding_reduction(ALPHA_EMBEDDINGS.bands)
        wanted = [(i, str(year)) for i in range(len(shapes)) for year in years if year in possible_years()]
        with self.connection() as (_, cache):
            known, missing, _ = known_and_missing(shapes, reduction, wanted, cache)
        batches = make_batches(shapes, reduction, missing)
        size = sum(len(batch.body(shapes, reduction)) for batch in batches)
        areas = shapes.pixels(reduction.scale_m)
        pixels = int(sum(areas[site] * len(periods) for site, periods in missing.items()))
        return RequestCost(
            site_years=len(wanted), known=len(known), requests=len(batches), bytes=size, pixels=pixels,
            eecu_hours=pixels * len(reduction.bands) / PIXEL_BANDS_PER_EECU_S / 3600,
        )  # fmt: skip

    def reduce(
        self,
        polygons: NDArray[Any],
        years: Sequence[int],
        bands: Sequence[str],
        statistics: Sequence[str] = ("mean",),
        *,
        on_error: str = "raise",
        progress: Progress = False,
        max_workers: int | None = None,
    ) -> Results:
        """Return the statistics of polygons and years.

        Parameters
        ----------
        polygons : array of shapely Polygon or MultiPolygon
            EPSG:4326, valid.
        years, bands, statistics : sequences
            Years, band names and statistics.
        on_error : {"raise", "collect"}
            Whether failed site-years raise, after everything else is computed and in the cache, or are listed.
        progress : bool or callable
            A bar, or a function called with (done, in all).
        max_workers : int, optional
            Threads that reduce pixels.

        Raises
        ------
        EarthEngineError
            With ``on_error="raise"``, naming the site and the year.
        """
        means_only = list(statistics) == ["mean"]
        if self._method == "server" and not means_only:
            raise UsageError(
                f"method='server' computes the mean only, found {', '.join(statistics)}; leave method= out"
            )
        with self.connection() as (service, cache):
            extraction = _Extraction(service, cache, polygons, years, bands, statistics, max_workers)
            on_server = means_only and self._method != "pixels"
            results = extraction.on_server(progress) if on_server else extraction.from_pixels(progress)
        if results.failures and on_error == "raise":
            raise EarthEngineError(_summary(results.failures, results.n_pixels.size))
        return results


class _Extraction:
    """The state of one call of `EarthEngineSource.reduce`."""

    def __init__(
        self, service: Service, cache: Cache, polygons: NDArray[Any], years: Sequence[int], bands: Sequence[str],
        statistics: Sequence[str], max_workers: int | None = None,
    ) -> None:  # fmt: skip
        self.service, self.cache, self.max_workers = service, cache, max_workers
        self.bands, self.statistics = bands, statistics
        self.shapes = SiteShapes(polygons)
        self.results = Results.empty(len(polygons), len(years), len(bands), statistics)
        self.column = {str(year): i for i, year in enumerate(years) if year in possible_years()}
        self.wanted = [(site, period) for site in range(len(polygons)) for period in self.column]

    def on_server(self, progress: Progress) -> Results:
        """Return means that the server computes."""
        reduction = embedding_reduction(self.bands)
        answers = compute(self.service, self.shapes, reduction, self.wanted, cache=self.cache, progress=progress)
        pixels, results = _exact_pixels(self.shapes), self.results
        for (site, period), (*mean, valid, covered) in answers.found.items():
            here = site, self.column[period]
            if not covered:
                continue  # "no_data", as it is from the start
            valid = valid or 0.0
            results.status[here] = "ok" if valid > 0 else "masked"
            results.valid_fraction[here] = valid
            results.n_pixels[here] = valid * pixels[site]
            if valid > 0:
                results.statistics["mean"][here] = [np.nan if v is None else v for v in mean]
                if None in mean:
                    answers.failed.append(FailedPairs(((site, period),), "the answer lacks some of the bands"))
        self._mark_failed(answers.failed)
        # the server, whose fractions have 8 bits, sees no pixel of very thin sites
        if slivers := [pair for pair, values in answers.found.items() if values[-1] is None]:
            self._read_slivers(slivers)
        return results

    def from_pixels(self, progress: Progress) -> Results:
        """Return statistics computed from codes, a few hundred sites at a time."""
        reduction = embedding_reduction(self.bands)
        reduction = replace(reduction, text=f"{reduction.text} by pixels: {','.join(self.statistics)}", reducer="")
        known, missing, keys = known_and_missing(self.shapes, reduction, self.wanted, self.cache)
        for (site, period), values in known.items():
            self._unpack(site, self.column[period], values)
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for site in self.shapes.order:
            if site in missing:
                groups[tuple(missing[site])].append(site)
        with report_progress(progress, len(self.wanted), unit="site-year", title=TITLE, done=len(known)) as advance:
            for periods, sites in groups.items():
                for start in range(0, len(sites), SITES_AT_ONCE):
                    some = sites[start : start + SITES_AT_ONCE]
                    self._read_pixels(some, periods, keys)
                    advance(len(some) * len(periods))
        return self.results

    def _read_pixels(self, sites: list[int], periods: tuple[str, ...], keys: dict[Pair, bytes]) -> None:
        """Reduce the pixels of some sites, and keep the results in the cache."""
        years = [int(period) for period in periods]
        found = reduce_polygons(
            CodeWindows(self.service), self.shapes.polygons[sites], years, bands=self.bands,
            statistics=self.statistics, on_error="collect", max_workers=self.max_workers,
        )  # fmt: skip
        # pixels without a value are masked, or no tile covers them
        partial = np.isin(found.status, ("ok", "masked")) & (found.valid_fraction < COMPLETE)
        pairs = [(sites[i], periods[j]) for i, j in np.argwhere(partial).tolist()]
        coverage = embedding_reduction(self.bands[:1])
        covered = compute(self.service, self.shapes, coverage, pairs, cache=self.cache)
        empty = {(sites[i], periods[j]): (i, j) for i, j in np.argwhere(found.status == "masked").tolist()}
        for pair, place in empty.items():
            # the coverage of a sliver is None: whether a tile covers it can't be known
            if not covered.found.get(pair, [None])[-1]:
                found.status[place] = "no_data"
        failed = [replace(some, pairs=tuple(pair for pair in some.pairs if pair in empty)) for some in covered.failed]
        unknown = {pair for some in failed for pair in some.pairs}
        fresh: dict[bytes, Values] = {}
        expiring = []
        for i, j in np.argwhere(found.status != "error").tolist():
            pair = sites[i], periods[j]
            if pair in unknown:
                continue
            fresh[keys[pair]] = self._pack(found, i, j)
            complete = found.valid_fraction[i, j] >= COMPLETE or coverage.is_complete(covered.found.get(pair, [None]))
            if not (complete and coverage.is_over(pair[1])):
                expiring.append(keys[pair])
        self.cache.put(fresh, expiring)
        self._take(found, sites, np.ix_(sites, [self.column[period] for period in periods]), ...)
        self._mark_failed(failed)

    def _read_slivers(self, pairs: Sequence[Pair]) -> None:
        """Take the means of some site-years from pixels."""
        sites = sorted({site for site, _ in pairs})
        years = sorted({int(period) for _, period in pairs})
        polygons = self.shapes.polygons[sites]
        found = _Extraction(self.service, self.cache, polygons, years, self.bands, ["mean"]).from_pixels(False)
        here = [site for site, _ in pairs], [self.column[period] for _, period in pairs]
        there = [sites.index(site) for site, _ in pairs], [years.index(int(period)) for _, period in pairs]
        self._take(found, sites, here, there)

    def _take(self, found: Results, sites: Sequence[int], here: Any, there: Any) -> None:
        """Copy the results of some sites at one index to another index of the results of all."""
        self.results.status[here] = found.status[there]
        for own, others in zip(self.results.numbers(), found.numbers(), strict=True):
            own[here] = others[there]
        self.results.failures += [replace(f, polygons=tuple(sites[i] for i in f.polygons)) for f in found.failures]

    def _mark_failed(self, failed: Sequence[FailedPairs]) -> None:
        """Set failed site-years to "error" and NaN, and list them by cause."""
        by_cause: dict[Pair, list[int]] = defaultdict(list)
        for some in failed:
            for site, period in some.pairs:
                by_cause[int(period), some.message].append(site)
                here = site, self.column[period]
                self.results.status[here] = "error"
                for numbers in self.results.numbers():
                    numbers[here] = np.nan
        for (year, message), sites in sorted(by_cause.items()):
            failure = Failure(f"{message} ({year})", year, tuple(sorted(sites)), ALPHA_EMBEDDINGS.collection_id)
            self.results.failures.append(failure)

    _STATUS = ("ok", "masked", "no_data")

    def _pack(self, found: Results, i: int, j: int) -> Values:
        numbers = np.concatenate([np.atleast_1d(array[i, j]).ravel() for array in found.numbers()])
        return [float(self._STATUS.index(str(found.status[i, j]))), *numbers.tolist()]

    def _unpack(self, site: int, year: int, values: Values) -> None:
        self.results.status[site, year] = self._STATUS[int(values[0])]
        rest = np.array([np.nan if v is None else v for v in values[1:]])
        start = 0
        for array in self.results.numbers():
            n = array[site, year].size
            array[site, year] = rest[start : start + n].reshape(np.shape(array[site, year]))
            start += n


def _exact_pixels(shapes: SiteShapes) -> NDArray[np.float64]:
    """Return each site's exact area in pixels of its zone."""
    found = np.zeros(len(shapes))
    projected = Polygons(shapes.polygons)
    for crs in sorted(set(shapes.zones.tolist())):
        members = np.flatnonzero(shapes.zones == crs)
        rings = projected.rings(Lattice(crs, ALPHA_EMBEDDINGS.scale_m, ALPHA_EMBEDDINGS.scale_m), members)
        found[members] = compute_coverage(rings).weights / FULL
    return found


def _summary(failures: Sequence[Failure], total: int) -> str:
    first = failures[0]
    n = sum(len(failure.polygons) for failure in failures)
    return (
        f"{n} of {total} site-years failed, the first: site at position {first.polygons[0]}, {first.year}: "
        f'{first.message}; finished values are in the cache, and on_error="collect" gives a table that marks these'
    )
