"""Extracts tables of any Earth Engine layer: one row per site and period, or per site, year and class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from gee_polygons.errors import EarthEngineError, UsageError
from gee_polygons.progress import Progress
from gee_polygons.sources.earthengine.batches import SiteShapes, bounding_box
from gee_polygons.sources.earthengine.images import limits
from gee_polygons.sources.earthengine.reductions import Reduction, has_values, histogram_reduction, layer_reduction
from gee_polygons.sources.earthengine.running import FailedPairs, Pair, Values, compute
from gee_polygons.sources.earthengine.source import EarthEngineSource
from gee_polygons.sources.earthengine.transport import RequestFailedError, Service
from gee_polygons.sources.opening import open_source

if TYPE_CHECKING:
    from gee_polygons.layers import CategoricalLayer, ContinuousLayer
    from gee_polygons.site import SiteCollection

FREQUENCIES: Final = {"yearly": ["year"], "monthly": ["year", "month"], "all": ["date"]}  # and their columns
CLASS_COLUMNS: Final = ["site_id", "year", "class", "class_name", "count", "area_ha"]
SITES_PER_DATE_LIST: Final = 200  # whose dates are requested together
_TYPES: Final = {"year": "int64", "month": "int64", "class": "int64"}  # of the other numbers: float64


def continuous_table(
    sites: SiteCollection,
    layer: ContinuousLayer,
    *,
    first: date,
    last: date,
    reducer: str,
    frequency: str,
    source: Any = None,
    on_error: str = "raise",
    progress: Progress = False,
) -> pd.DataFrame:
    """Reduce a continuous layer on Earth Engine.

    Parameters
    ----------
    sites : SiteCollection
        Polygons.
    layer : ContinuousLayer
        The layer.
    first, last : date
        Both days count. Composites of the first and the last period use images of the days in between only.
    reducer : {"mean", "median", "min", "max", "stdDev"}
        Over the pixels of a site.
    frequency : {"yearly", "monthly", "all"}
        One row per composite of a year or a month, or per day with an image.
    source : None, "earthengine" or EarthEngineSource
        A source has options of its own.
    on_error : {"raise", "collect"}
        Whether failed site-periods raise in the end, or are listed in ``table.attrs["errors"]`` and have no row.
    progress : bool or callable
        A bar, or a function called with (done, in all).

    Returns
    -------
    DataFrame
        site_id, year (and month; or date instead of both), and one column per band; no row where there is no data.
    """
    if frequency not in FREQUENCIES:
        raise UsageError(f"frequency is one of {', '.join(FREQUENCIES)}, found {frequency!r}")
    opened = _earth_engine_source(source, layer.name)
    reduction = layer_reduction(layer, reducer, first.isoformat(), (last + timedelta(days=1)).isoformat())

    def wanted(service: Service, shapes: SiteShapes) -> list[Pair]:
        if frequency == "all":
            return _days_of_sites(service, shapes, layer, first, last)
        periods = periods_between(first, last, frequency, layer)
        return [(i, period) for i in range(len(shapes)) for period in periods]

    def rows(site_id: int | str, period: str, values: Values) -> list[list[Any]]:
        if not has_values(values):
            return []
        cells = [pd.Timestamp(period)] if frequency == "all" else [int(part) for part in period.split("-")]
        return [[site_id, *cells, *values]]

    columns = ["site_id", *FREQUENCIES[frequency], *layer.bands]
    return _table(opened, sites, layer, reduction, wanted, rows, columns, on_error, progress)


def categorical_table(
    sites: SiteCollection,
    layer: CategoricalLayer,
    *,
    years: Sequence[int],
    source: Any = None,
    on_error: str = "raise",
    progress: Progress = False,
) -> pd.DataFrame:
    """Measure the area of each class in each site, on Earth Engine.

    Parameters
    ----------
    sites : SiteCollection
        Polygons.
    layer : CategoricalLayer
        The layer.
    years : sequence of int
        Years that the layer doesn't cover have no rows.
    source, on_error, progress
        See `continuous_table`.

    Returns
    -------
    DataFrame
        site_id, year, class, class_name, count (pixels, each weighted by its share inside the site), area_ha
        (count times the area of a pixel of the site's UTM zone).
    """
    opened = _earth_engine_source(source, layer.name)
    reduction = histogram_reduction(layer)
    covered = [y for y in years if y >= layer.first_year and (layer.last_year is None or y <= layer.last_year)]

    def wanted(service: Service, shapes: SiteShapes) -> list[Pair]:
        return [(i, str(year)) for i in range(len(shapes)) for year in covered]

    def rows(site_id: int | str, period: str, values: Values) -> list[list[Any]]:
        return class_rows(site_id, int(period), values[0] or {}, layer, reduction.scale_m)

    return _table(opened, sites, layer, reduction, wanted, rows, CLASS_COLUMNS, on_error, progress)


def _table(
    opened: EarthEngineSource, sites: SiteCollection, layer: ContinuousLayer | CategoricalLayer, reduction: Reduction,
    wanted: Callable[[Service, SiteShapes], list[Pair]], rows: Callable[[int | str, str, Values], list[list[Any]]],
    columns: Sequence[str], on_error: str, progress: Progress,
) -> pd.DataFrame:  # fmt: skip
    """Compute the wanted site-periods, and return the table of the rows that are made of their values."""
    shapes, ids = SiteShapes(sites.polygons), sites.site_ids
    try:
        with opened.connection() as (service, cache):
            pairs = wanted(service, shapes)
            answers = compute(service, shapes, reduction, pairs, cache=cache, progress=progress)
    except RequestFailedError as error:
        raise EarthEngineError(f"layer {layer.name!r}: {error.refusal.message}") from error
    if answers.failed and on_error != "collect":
        _raise_first(answers.failed, ids, layer.name, len(pairs))
    found = sorted(answers.found.items())
    cells = [row for (site, period), values in found for row in rows(ids[site], period, values)]
    numbers = [name for name in columns if name not in ("site_id", "class_name", "date")]
    frame = pd.DataFrame(cells, columns=list(columns)).astype({name: _TYPES.get(name, "float64") for name in numbers})
    if "date" in frame:
        frame["date"] = pd.to_datetime(frame["date"])  # for a table without rows
    frame.attrs["provenance"] = {
        "package": "gee_polygons", "source": "earthengine", "archive": layer.collection_id,
        "attribution": layer.attribution,
    }  # fmt: skip
    if answers.failed:
        frame.attrs["errors"] = [
            {"period": period, "site_ids": [ids[site]], "message": failed.message}
            for failed in answers.failed
            for site, period in failed.pairs
        ]
    return frame


def class_rows(
    site_id: int | str, year: int, histogram: Mapping[str, float], layer: CategoricalLayer, sampled_m: float
) -> list[list[Any]]:
    """Return site_id, year, class, class_name, count, area_ha of each class in a histogram of samples."""
    per_sample = (sampled_m / layer.scale_m) ** 2
    counts = sorted((int(float(key)), float(count) * per_sample) for key, count in histogram.items())
    return [
        [site_id, year, number, layer.class_names.get(number, f"class {number}"), count, count * layer.scale_m**2 / 1e4]
        for number, count in counts
    ]


def periods_between(first: date, last: date, frequency: str, layer: ContinuousLayer | CategoricalLayer) -> list[str]:
    """Return the years or months between two days that a layer covers.

    Examples
    --------
    >>> from gee_polygons.layers import ContinuousLayer
    >>> layer = ContinuousLayer(name="n", collection_id="X/Y", bands=("b",), scale_m=10, first_year=2017)
    >>> periods_between(date(2020, 11, 15), date(2021, 1, 1), "monthly", layer)
    ['2020-11', '2020-12', '2021-01']
    """
    end = last.year if layer.last_year is None else min(last.year, layer.last_year)
    years = range(max(first.year, layer.first_year), end + 1)
    if frequency == "yearly":
        return [str(year) for year in years]
    months = [f"{year}-{month:02d}" for year in years for month in range(1, 13)]
    return [month for month in months if limits(month)[1] > first.isoformat() and month <= last.isoformat()]


def days_with_images(
    service: Service, shapes: SiteShapes, layer: ContinuousLayer, members: Sequence[int], first: date, last: date
) -> list[str]:
    """List the days (UTC) on which a layer has images around some sites.

    Parameters
    ----------
    service : Service
        Sends the requests: one per year, more where a year has more than 5,000 images.
    shapes : SiteShapes
        All sites.
    layer : ContinuousLayer
        The layer.
    members : sequence of int
        Positions of the sites; neighbours, because images are selected by the box around all.
    first, last : date
        Both days count.
    """
    import ee

    box = ee.Geometry(bounding_box(shapes.polygons[list(members)]), None, False)
    days: set[str] = set()
    spans = [(max(first, date(y, 1, 1)), min(last, date(y, 12, 31))) for y in range(first.year, last.year + 1)]
    while spans:
        start, end = spans.pop()
        following = (end + timedelta(days=1)).isoformat()
        images = ee.ImageCollection(layer.collection_id).filterDate(start.isoformat(), following).filterBounds(box)
        try:
            times = service.value(images.aggregate_array("system:time_start")) or []
        except RequestFailedError as error:
            if error.refusal.kind != "too_big" or start == end:
                raise
            middle = start + (end - start) // 2  # more than 5,000 images: half the time has fewer
            spans += [(start, middle), (middle + timedelta(days=1), end)]
            continue
        days |= {datetime.fromtimestamp(ms / 1000, UTC).date().isoformat() for ms in times if ms is not None}
    return sorted(days)


def _days_of_sites(service: Service, shapes: SiteShapes, layer: ContinuousLayer, first: date, last: date) -> list[Pair]:
    """List the days on which the sites have images: a request per group of neighbouring sites and year."""
    wanted: list[Pair] = []
    for _, of_zone in groupby(shapes.order, key=lambda site: str(shapes.zones[site])):
        sites = list(of_zone)
        for start in range(0, len(sites), SITES_PER_DATE_LIST):
            members = sites[start : start + SITES_PER_DATE_LIST]
            days = days_with_images(service, shapes, layer, members, first, last)
            wanted += [(site, day) for site in members for day in days]
    return wanted


def _raise_first(failed: Sequence[FailedPairs], ids: Sequence[int | str], name: str, total: int) -> None:
    n = sum(len(some.pairs) for some in failed)
    site, period = failed[0].pairs[0]
    raise EarthEngineError(
        f"layer {name!r}: {n} of {total} site-periods failed, the first: site {ids[site]}, {period}: "
        f'{failed[0].message}; finished values are in the cache, and on_error="collect" gives a table without these'
    )


def _earth_engine_source(source: Any, name: str) -> EarthEngineSource:
    if source is None or source == "earthengine":
        source = open_source("earthengine")
    if not isinstance(source, EarthEngineSource):
        given = getattr(source, "name", source)
        raise UsageError(f"layer {name!r} is on Earth Engine only: leave source= out, found {given!r}")
    return source
