"""Earth Engine as a source: the same arguments and the same table as from the open archives.

The mean is reduced on the server (`reduceRegions`, on the tiles' own pixels, weighted by the covered fraction in steps
of about 1/255); every other statistic is computed here from the stored int8 codes (`computePixels`), exactly as for the
open archives, and then the mean beside it too, so that the numbers of one table never contradict each other.

Nothing here authenticates or initialises Earth Engine but `connect`, when it is called.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.alphaearth import ALPHA_EMBEDDINGS, EMBEDDING_YEARS
from gee_polygons.errors import EarthEngineError, UsageError
from gee_polygons.reduction.plan import EmbeddingImage, Failure
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.earthengine.batches import SiteShapes, make_batches
from gee_polygons.sources.earthengine.cache import Cache, open_cache
from gee_polygons.sources.earthengine.pixels import CodeWindows, image_of_codes
from gee_polygons.sources.earthengine.recipes import COMPLETE, Recipe, embedding_recipe
from gee_polygons.sources.earthengine.running import Trouble, ask, known_and_missing, reporter
from gee_polygons.sources.earthengine.session import earth_engine
from gee_polygons.sources.earthengine.transport import (
    DEFAULT_CONCURRENT,
    INTERACTIVE_S,
    MAX_CONCURRENT,
    Service,
)
from gee_polygons.zonal.coverage import FULL, compute_coverage
from gee_polygons.zonal.grid import Lattice

if TYPE_CHECKING:
    from gee_polygons.reduction.merging import Results

METHODS: Final = ("auto", "server", "pixels")
SITES_AT_ONCE: Final = 200  # of method="pixels": kept in the cache as soon as these are done
# Google doesn't publish a price per pixel; a rough rate, to tell minutes from days
PIXEL_BANDS_PER_EECU_S: Final = 2e6
Progress = bool | Callable[[int, int], object]


@dataclass(frozen=True, kw_only=True)
class RequestCost:
    """What an extraction would send and compute.

    Parameters
    ----------
    site_years, known : int
        All, and those that the cache has already.
    requests, bytes : int
        To be sent.
    pixels : int
        Pixel-years to be read on the server, 64 bands each.
    eecu_hours : float
        A rough estimate of compute, to be compared with the monthly allowance.
    """

    site_years: int
    known: int
    requests: int
    bytes: int
    pixels: int
    eecu_hours: float


class EarthEngineSource:
    """Embeddings from Earth Engine, with the session that you have started.

    Parameters
    ----------
    method : {"auto", "server", "pixels"}
        ``"server"`` reduces on the server, and knows the mean only; ``"pixels"`` reads int8 codes and reduces here.
        ``"auto"`` takes the server for the mean alone, and pixels for all else.
    cache : bool
        Whether finished site-years are kept on this machine (``GEE_POLYGONS_CACHE`` names the folder) and not computed
        again. Values are kept for good, "no data" for a day: a new year's tiles appear one by one in January.
    max_concurrent : int
        Requests at once, 1..40.
    deadline_s : float
        After which a silent request is given up and asked again.

    Raises
    ------
    UsageError
        For an option that there isn't.
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
        self._options = {"max_concurrent": max_concurrent, "deadline_s": deadline_s}

    def __repr__(self) -> str:
        return f"EarthEngineSource({self.archive!r}, method={self._method!r}, cache={self._cache})"

    def years(self) -> list[int]:
        """Years published when this version was made; asks nothing."""
        return list(EMBEDDING_YEARS)

    def image(self, region: shapely.Geometry, year: int, bands: Sequence[str] | None = None) -> EmbeddingImage:
        """Return the codes of a region's bounding box, north-up, in the UTM zone of its centroid."""
        service = self.service()
        try:
            return image_of_codes(service, region, year, bands)
        finally:
            service.close()

    def service(self) -> Service:
        """Return the way to the service, with this source's options."""
        earth_engine()
        return Service(max_concurrent=int(self._options["max_concurrent"]), deadline_s=self._options["deadline_s"])

    def open_cache(self) -> Cache:
        """Open the cache of finished site-years."""
        return open_cache(self._cache)

    def cost(self, polygons: NDArray[Any], years: Sequence[int]) -> RequestCost:
        """Say what the mean of all 64 bands would cost, before anything is sent.

        Parameters
        ----------
        polygons : array of shapely Polygon or MultiPolygon
            EPSG:4326.
        years : sequence of int
            Years.

        Returns
        -------
        RequestCost
        """
        earth_engine()
        shapes, recipe = SiteShapes(polygons), embedding_recipe(ALPHA_EMBEDDINGS.bands)
        wanted = [(i, str(year)) for i in range(len(shapes)) for year in askable(years)]
        cache = self.open_cache()
        try:
            known, missing, _ = known_and_missing(shapes, recipe, wanted, cache)
        finally:
            cache.close()
        batches = make_batches(shapes, recipe, missing)
        size = sum(len(batch.body(shapes, recipe)) for batch in batches)
        areas = shapes.pixels(recipe.scale_m)
        pixels = int(sum(areas[site] * len(periods) for site, periods in missing.items()))
        return RequestCost(
            site_years=len(wanted), known=len(known), requests=len(batches), bytes=size, pixels=pixels,
            eecu_hours=pixels * len(recipe.bands) / PIXEL_BANDS_PER_EECU_S / 3600,
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
            What is wanted.
        on_error : {"raise", "collect"}
            Whether site-years that can't be had raise, after everything else is done and in the cache, or are listed.
        progress : bool or callable
            A bar, or a function called with (done, in all).
        max_workers : int, optional
            Threads of ``method="pixels"``.

        Returns
        -------
        Results

        Raises
        ------
        EarthEngineError
            With ``on_error="raise"``, naming the site and the year.
        """
        means_only = list(statistics) == ["mean"]
        if self._method == "server" and not means_only:
            raise UsageError(
                f"method='server' knows the mean only, asked for {', '.join(statistics)}; leave method= out"
            )
        service, cache = self.service(), self.open_cache()
        try:
            if means_only and self._method != "pixels":
                results = _means(service, cache, polygons, years, bands, progress)
            else:
                work = _Pixels(service, cache, polygons, bands, statistics, max_workers)
                results = work.reduce(years, progress)
        finally:
            cache.close()
            service.close()
        if results.failures and on_error == "raise":
            raise EarthEngineError(_summary(results.failures, results.n_pixels.size))
        return results


def askable(years: Sequence[int]) -> list[int]:
    """Return the years that embeddings may exist for by now: those published since this version was made, too."""
    last = max(EMBEDDING_YEARS.stop - 1, datetime.now(UTC).year)
    return [year for year in years if EMBEDDING_YEARS.start <= year <= last]


def _means(
    service: Service, cache: Cache, polygons: NDArray[Any], years: Sequence[int], bands: Sequence[str],
    progress: Progress,
) -> Results:  # fmt: skip
    """Reduce on the server."""
    from gee_polygons.reduction.merging import Results

    recipe, shapes = embedding_recipe(bands), SiteShapes(polygons)
    results = Results.empty(len(shapes), len(years), len(bands), ["mean"])
    there = askable(years)
    column = {str(year): i for i, year in enumerate(years) if year in there}
    wanted = [(i, period) for i in range(len(shapes)) for period in column]
    answers = ask(service, shapes, recipe, wanted, cache=cache, progress=progress)
    pixels = _exact_pixels(shapes)
    for (site, period), values in answers.found.items():
        if values[-2] and None in values[:-2]:  # valid pixels, but not in all bands
            answers.troubles.append(Trouble(((site, period),), "the answer lacks some of the bands"))
        _enter(results, site, column[period], values, pixels[site])
    _note_troubles(results, answers.troubles, column)
    slivers = [pair for pair, values in answers.found.items() if values[-1] is None]
    if slivers:
        _measure_slivers(service, cache, results, shapes, slivers, bands, column)
    return results


def _enter(results: Results, site: int, year: int, values: list[Any], pixels: float) -> None:
    *mean, valid, covered = values
    if not covered:
        return  # "no_data", as it is from the start
    valid = valid or 0.0
    results.status[site, year] = "ok" if valid > 0 else "masked"
    results.valid_fraction[site, year] = valid
    results.n_pixels[site, year] = valid * pixels
    if valid > 0:
        results.statistics["mean"][site, year] = [np.nan if v is None else v for v in mean]


def _note_troubles(results: Results, troubles: Sequence[Trouble], column: dict[str, int]) -> None:
    by_cause: dict[tuple[str, str], list[int]] = defaultdict(list)
    for trouble in troubles:
        for site, period in trouble.pairs:
            by_cause[period, trouble.message].append(site)
            results.status[site, column[period]] = "error"
            for numbers in results.numbers():
                numbers[site, column[period]] = np.nan
    for (period, message), sites in sorted(by_cause.items()):
        results.failures.append(
            Failure(f"{message} ({period})", int(period), tuple(sorted(sites)), ALPHA_EMBEDDINGS.collection_id)
        )


def _measure_slivers(
    service: Service, cache: Cache, results: Results, shapes: SiteShapes, pairs: Sequence[tuple[int, str]],
    bands: Sequence[str], column: dict[str, int],
) -> None:  # fmt: skip
    """Read the pixels of sites so thin that the server, whose fractions have 8 bits, sees none of them."""
    sites = sorted({site for site, _ in pairs})
    years = sorted({int(period) for _, period in pairs})
    found = _Pixels(service, cache, shapes.polygons[sites], bands, ["mean"], None).reduce(years, False)
    for site, period in pairs:
        here, there = (site, column[period]), (sites.index(site), years.index(int(period)))
        results.status[here] = found.status[there]
        for mine, theirs in zip(results.numbers(), found.numbers(), strict=True):
            mine[here] = theirs[there]
    results.failures += [replace(f, polygons=tuple(sites[i] for i in f.polygons)) for f in found.failures]


def _exact_pixels(shapes: SiteShapes) -> NDArray[np.float64]:
    """Return each site's exact area in pixels of its zone."""
    found = np.zeros(len(shapes))
    projected = Polygons(shapes.polygons)
    for crs in sorted(set(shapes.zones.tolist())):
        members = np.flatnonzero(shapes.zones == crs)
        rings = projected.rings(Lattice(crs, ALPHA_EMBEDDINGS.scale_m, ALPHA_EMBEDDINGS.scale_m), members)
        found[members] = compute_coverage(rings).weights / FULL
    return found


@dataclass
class _Pixels:
    """Every statistic, from codes."""

    service: Service
    cache: Cache
    polygons: NDArray[Any]
    bands: Sequence[str]
    statistics: Sequence[str]
    max_workers: int | None

    def reduce(self, years: Sequence[int], progress: Progress) -> Results:
        """Reduce what the cache lacks, a few hundred sites at a time."""
        from gee_polygons.reduction.merging import Results

        shapes = SiteShapes(self.polygons)
        results = Results.empty(len(shapes), len(years), len(self.bands), self.statistics)
        there = askable(years)
        wanted = [(i, str(year)) for i in range(len(shapes)) for year in there]
        known, missing, keys = known_and_missing(shapes, self._recipe(), wanted, self.cache)
        column = {year: i for i, year in enumerate(years)}
        for (site, period), values in known.items():
            self._unpack(results, site, column[int(period)], values)
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for site in shapes.order:
            if site in missing:
                groups[tuple(int(period) for period in missing[site])].append(site)
        with reporter(progress, len(wanted), len(known)) as advance:
            for some_years, sites in groups.items():
                for start in range(0, len(sites), SITES_AT_ONCE):
                    some = sites[start : start + SITES_AT_ONCE]
                    self._some(results, shapes, some, some_years, column, keys)
                    advance(len(some) * len(some_years))
        return results

    def _some(
        self, results: Results, shapes: SiteShapes, sites: list[int], years: tuple[int, ...], column: dict[int, int],
        keys: dict[tuple[int, str], bytes],
    ) -> None:  # fmt: skip
        from gee_polygons.reduction.pipeline import reduce_polygons

        found = reduce_polygons(
            CodeWindows(self.service, years), shapes.polygons[sites], years, bands=self.bands,
            statistics=self.statistics, on_error="collect", max_workers=self.max_workers,
        )  # fmt: skip
        # pixels without a value are masked, or no tile covers them
        partial = np.isin(found.status, ("ok", "masked")) & (found.valid_fraction < COMPLETE)
        pairs = [(sites[i], str(years[j])) for i, j in np.argwhere(partial).tolist()]
        coverage = embedding_recipe(self.bands[:1])
        covered = ask(self.service, shapes, coverage, pairs, cache=self.cache)
        empty = {(sites[i], str(years[j])): (i, j) for i, j in np.argwhere(found.status == "masked").tolist()}
        for pair, place in empty.items():
            # a sliver's answer is None: it is as likely outside the tiles, nobody can tell
            if not covered.found.get(pair, [None])[-1]:
                found.status[place] = "no_data"
        troubles = [replace(t, pairs=tuple(pair for pair in t.pairs if pair in empty)) for t in covered.troubles]
        unknown = {pair for trouble in troubles for pair in trouble.pairs}
        columns = [column[year] for year in years]
        results.status[np.ix_(sites, columns)] = found.status
        for mine, theirs in zip(results.numbers(), found.numbers(), strict=True):
            mine[np.ix_(sites, columns)] = theirs
        fresh: dict[bytes, list[Any]] = {}
        expiring = []
        for i, j in np.argwhere(found.status != "error").tolist():
            pair = sites[i], str(years[j])
            if pair in unknown:
                continue
            fresh[keys[pair]] = self._pack(found, i, j)
            complete = found.valid_fraction[i, j] >= COMPLETE or coverage.is_complete(covered.found.get(pair, [None]))
            if not (complete and coverage.is_over(pair[1])):
                expiring.append(keys[pair])
        self.cache.put(fresh, expiring)
        results.failures += [replace(f, polygons=tuple(sites[i] for i in f.polygons)) for f in found.failures]
        _note_troubles(results, troubles, {str(year): column[year] for year in years})

    def _recipe(self) -> Recipe:
        recipe = embedding_recipe(self.bands)
        return replace(recipe, text=f"{recipe.text} by pixels: {','.join(self.statistics)}", reducer="")

    _STATUS = ("ok", "masked", "no_data")

    def _pack(self, found: Results, i: int, j: int) -> list[Any]:
        numbers = np.concatenate([np.atleast_1d(array[i, j]).ravel() for array in found.numbers()])
        return [float(self._STATUS.index(str(found.status[i, j]))), *numbers.tolist()]

    def _unpack(self, results: Results, site: int, year: int, values: list[Any]) -> None:
        results.status[site, year] = self._STATUS[int(values[0])]
        rest = np.array([np.nan if v is None else v for v in values[1:]])
        start = 0
        for array in results.numbers():
            n = array[site, year].size
            array[site, year] = rest[start : start + n].reshape(np.shape(array[site, year]))
            start += n


def _summary(failures: Sequence[Failure], total: int) -> str:
    first = failures[0]
    n = sum(len(failure.polygons) for failure in failures)
    return (
        f"{n} of {total} site-years can't be had, the first: site at position {first.polygons[0]}, {first.year}: "
        f'{first.message}; what is done is kept, and on_error="collect" gives a table with these rows marked'
    )
