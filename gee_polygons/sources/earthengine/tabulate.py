"""Other layers of Earth Engine: one row per site and period, or per site, year and class.

Requests, retries and the cache are in `gee_polygons.sources.earthengine.source`; this module lists the periods and
arranges the numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from gee_polygons.errors import EarthEngineError, UsageError
from gee_polygons.sources.earthengine.batches import SiteShapes, bounding_box
from gee_polygons.sources.earthengine.recipes import has_values, histogram_recipe, layer_recipe, limits
from gee_polygons.sources.earthengine.running import Trouble, ask
from gee_polygons.sources.earthengine.source import EarthEngineSource
from gee_polygons.sources.earthengine.transport import RequestFailedError, Service
from gee_polygons.sources.opening import open_source

if TYPE_CHECKING:
    from gee_polygons.layers import CategoricalLayer, ContinuousLayer
    from gee_polygons.site import SiteCollection

FREQUENCIES: Final = ("yearly", "monthly", "all")
SITES_PER_DATE_LIST: Final = 200  # whose dates are asked for together
Progress = bool | Callable[[int, int], object]


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
        What.
    first, last : date
        Both days count. Composites of the first and the last period hold the days in between only.
    reducer : {"mean", "median", "min", "max", "stdDev"}
        Over the pixels of a site.
    frequency : {"yearly", "monthly", "all"}
        One row per composite of a year or a month, or per day with an image.
    source : None, "earthengine" or EarthEngineSource
        With its options.
    on_error : {"raise", "collect"}
        What can't be had raises in the end, or is listed in ``table.attrs["errors"]`` and has no row.
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
    recipe = layer_recipe(layer, reducer, first.isoformat(), (last + timedelta(days=1)).isoformat())
    shapes = SiteShapes(sites.polygons)
    service, cache = opened.service(), opened.open_cache()
    try:
        if frequency == "all":
            wanted = _dated(service, shapes, layer, first, last)
        else:
            periods = periods_between(first, last, frequency, layer)
            wanted = [(i, period) for i in range(len(shapes)) for period in periods]
        answers = ask(service, shapes, recipe, wanted, cache=cache, progress=progress)
    except RequestFailedError as error:
        raise EarthEngineError(f"layer {layer.name!r}: {error.refusal.message}") from error
    finally:
        cache.close()
        service.close()
    _raise_or_note(answers.troubles, sites, layer.name, len(wanted), on_error)
    rows = [
        [sites.site_ids[site], *_period_cells(period, frequency), *values]
        for (site, period), values in sorted(answers.found.items())
        if has_values(values)
    ]
    names = {"yearly": ["year"], "monthly": ["year", "month"], "all": ["date"]}[frequency]
    return _frame(rows, ["site_id", *names, *layer.bands], layer, answers.troubles, sites)


def categorical_table(
    sites: SiteCollection,
    layer: CategoricalLayer,
    *,
    years: Sequence[int],
    source: Any = None,
    on_error: str = "raise",
    progress: Progress = False,
) -> pd.DataFrame:
    """Measure how much of each site each class covers, on Earth Engine.

    Parameters
    ----------
    sites : SiteCollection
        Polygons.
    layer : CategoricalLayer
        What.
    years : sequence of int
        Those that the layer doesn't cover have no rows.
    source, on_error, progress
        See `continuous_table`.

    Returns
    -------
    DataFrame
        site_id, year, class, class_name, count (pixels, each weighted by its share inside the site), area_ha
        (count times the area of a pixel of the site's UTM zone).
    """
    opened = _earth_engine_source(source, layer.name)
    recipe, shapes = histogram_recipe(layer), SiteShapes(sites.polygons)
    there = [y for y in years if y >= layer.first_year and (layer.last_year is None or y <= layer.last_year)]
    wanted = [(i, str(year)) for i in range(len(shapes)) for year in there]
    service, cache = opened.service(), opened.open_cache()
    try:
        answers = ask(service, shapes, recipe, wanted, cache=cache, progress=progress)
    finally:
        cache.close()
        service.close()
    _raise_or_note(answers.troubles, sites, layer.name, len(wanted), on_error)
    rows = [
        row
        for (site, period), (histogram,) in sorted(answers.found.items())
        for row in class_rows(sites.site_ids[site], int(period), histogram or {}, layer, recipe.scale_m)
    ]
    columns = ["site_id", "year", "class", "class_name", "count", "area_ha"]
    return _frame(rows, columns, layer, answers.troubles, sites)


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
    """Return the years or months that two days and a layer's own years have in common.

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
    """List the days (UTC) on which a layer has images around some sites, in as few requests as the service allows.

    Parameters
    ----------
    service : Service
        Who is asked.
    shapes : SiteShapes
        All sites.
    layer : ContinuousLayer
        Of which.
    members : sequence of int
        Around which; better neighbours.
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


def _dated(
    service: Service, shapes: SiteShapes, layer: ContinuousLayer, first: date, last: date
) -> list[tuple[int, str]]:
    """List the days on which each group of neighbouring sites has images: a request per group and year."""
    wanted: list[tuple[int, str]] = []
    groups: dict[str, list[int]] = defaultdict(list)
    for site in shapes.order:
        groups[str(shapes.zones[site])].append(site)
    for sites in groups.values():
        for start in range(0, len(sites), SITES_PER_DATE_LIST):
            members = sites[start : start + SITES_PER_DATE_LIST]
            days = days_with_images(service, shapes, layer, members, first, last)
            wanted += [(site, day) for site in members for day in days]
    return wanted


def _period_cells(period: str, frequency: str) -> list[Any]:
    return [pd.Timestamp(period)] if frequency == "all" else [int(part) for part in period.split("-")]


def _frame(
    rows: list[list[Any]], columns: list[str], layer: Any, troubles: Sequence[Trouble], sites: SiteCollection
) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=columns)
    if not rows:
        whole = {"year", "month", "class"}
        frame = frame.astype({c: "int64" if c in whole else "object" if c == "site_id" else "float64" for c in columns
                              if c not in ("date", "class_name")})  # fmt: skip
        if "date" in columns:
            frame["date"] = pd.to_datetime(frame["date"])
    for band in getattr(layer, "bands", ()):
        frame[band] = frame[band].astype(np.float64)
    frame.attrs["provenance"] = {
        "package": "gee_polygons", "source": "earthengine", "archive": layer.collection_id,
        "attribution": layer.attribution,
    }  # fmt: skip
    if troubles:
        frame.attrs["errors"] = [
            {"period": period, "site_ids": [sites.site_ids[site]], "message": trouble.message}
            for trouble in troubles
            for site, period in trouble.pairs
        ]
    return frame


def _raise_or_note(troubles: Sequence[Trouble], sites: SiteCollection, name: str, total: int, on_error: str) -> None:
    if not troubles or on_error == "collect":
        return
    n = sum(len(trouble.pairs) for trouble in troubles)
    site, period = troubles[0].pairs[0]
    raise EarthEngineError(
        f"layer {name!r}: {n} of {total} site-periods can't be had, the first: site {sites.site_ids[site]}, {period}: "
        f'{troubles[0].message}; what is done is kept, and on_error="collect" gives a table without these'
    )


def _earth_engine_source(source: Any, name: str) -> EarthEngineSource:
    if source is None or source == "earthengine":
        source = open_source("earthengine")
    if not isinstance(source, EarthEngineSource):
        told = getattr(source, "name", source)
        raise UsageError(f"layer {name!r} is on Earth Engine only: leave source= out, found {told!r}")
    return source
