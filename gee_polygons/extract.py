"""Extracts a table of yearly values from polygons and a source.

This module checks the arguments and builds the table; `gee_polygons.reduction.pipeline` reads and reduces the pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import COLLECTION_ID, N_BANDS, checked_bands
from gee_polygons.embeddings.directional import mean_resultant_length
from gee_polygons.errors import UsageError
from gee_polygons.periods import checked_years, parse_dates
from gee_polygons.progress import Progress, report_stage
from gee_polygons.reduction.checking import describe_damage
from gee_polygons.reduction.extents import warn_of_nothing
from gee_polygons.reduction.merging import Results
from gee_polygons.reduction.pipeline import reduce_polygons
from gee_polygons.reduction.plan import Failure, PixelSource, ReducingSource, Source
from gee_polygons.site.collection import SiteCollection
from gee_polygons.site.inputs import as_sites
from gee_polygons.sources.opening import SOURCE_SETTING, open_source
from gee_polygons.tables import WEIGHTS, columns, keep_columns, provenance
from gee_polygons.zonal.statistics import parse_statistics

if TYPE_CHECKING:
    from gee_polygons.layers import CategoricalLayer, ContinuousLayer

__all__ = ["extract_categorical", "extract_continuous", "extract_embeddings"]

REDUCERS: Final = {"mean": "mean", "median": "median", "min": "min", "max": "max", "stdDev": "std"}


def extract_embeddings(
    sites: Any,
    *,
    years: int | Iterable[int] | None = None,
    source: str | Source | None = None,
    statistics: Sequence[str] = ("mean",),
    bands: Sequence[str] | None = None,
    on_error: str = "raise",
    on_damage: str = "warn",
    keep: bool | Sequence[str] = False,
    progress: Progress = False,
    max_workers: int | None = None,
) -> pd.DataFrame:
    """Extract yearly embeddings of polygons, weighted by the exact share of each pixel inside them.

    Parameters
    ----------
    sites : SiteCollection, Site or GeoDataFrame
        Polygons. A GeoDataFrame goes through `sites_from_geodataframe` first.
    years : int or iterable of int, optional
        Years, for example ``range(2018, 2025)``. A year that the source lacks gives rows with status ``"no_data"``.
        Default: all years of the source.
    source : str or Source, optional
        ``"sample"``, ``"source-coop"``, ``"earthengine"``, ``"mosaic"``, or the path or URL of an archive index or a
        GeoTIFF; see `open_source`. ``"auto"``: the cheapest that is available, see `gee_polygons.costs`.
    statistics : sequence of str
        ``mean``, ``std``, ``min``, ``max``, ``median``, ``count``, ``medoid``, ``p0``..``p100``; see
        `gee_polygons.zonal.statistics` for the definitions. The medoid reads every block a second time.
    bands : sequence of str, optional
        Some of A00..A63. `Rbar` needs all of them and is NaN otherwise.
    on_error : {"raise", "collect"}
        After a failed read: stop with an error, or give its rows the status ``"error"`` and list the messages in
        ``table.attrs["errors"]``.
    on_damage : {"warn", "raise"}
        Pixels of an archive whose codes can't be those of a unit vector, also when their block is read again: count
        them as they are, with a `DataWarning` and an entry ``"damaged_pixels"`` in ``table.attrs["provenance"]``, but
        leave out those that lack some bands; or treat them as a failed read. Pixels of single rasters, of the mosaic
        and of Earth Engine need not be unit vectors, and aren't checked.
    keep : bool or sequence of str
        Properties of the sites that become columns after `year`, with ``start_year`` if there is one, ``lon`` and
        ``lat`` (centroid), as `gee_polygons.probe` needs them; True: all properties. See `tables.keep_columns`.
    progress : bool or callable
        A progress bar, or a function called with (blocks done, blocks in all).
    max_workers : int, optional
        Threads that decode and reduce. Default: one per core. The result doesn't depend on it.

    Returns
    -------
    pandas.DataFrame
        One row per site and year, always: site_id, year, A00..A63 (float64 means of unit vectors, not renormalised;
        with several statistics A00_mean.., A00_std..), with the medoid also medoid_similarity, then Rbar (length of the
        mean), n_pixels (coverage-weighted valid pixels), valid_fraction (of the polygon's area), status (``"ok"``;
        ``"masked"``: covered, but no valid pixel; ``"no_data"``: no tile; ``"error"``).

    Raises
    ------
    UsageError
        For an unknown band, statistic or source, and for impossible years.
    ReadError
        If a read failed; the message names the tile, block and band.

    Examples
    --------
    >>> from gee_polygons.sources.sample import sample_sites
    >>> table = extract_embeddings(sample_sites()[:2], years=2024, source="sample")
    >>> table.shape
    (2, 70)
    """
    with report_stage(progress, "checking sites"):
        collection = as_sites(sites)
    names = checked_bands(bands)
    wanted, needs = parse_statistics(statistics)
    if needs.medoid and len(names) != N_BANDS:
        raise UsageError("the medoid is the pixel nearest in all 64 bands; leave bands= out")
    if on_error not in ("raise", "collect"):
        raise UsageError(f"on_error is 'raise' or 'collect', found {on_error!r}")
    if on_damage not in ("warn", "raise"):
        raise UsageError(f"on_damage is 'warn' or 'raise', found {on_damage!r}")
    if max_workers is not None and max_workers < 1:
        raise UsageError(f"max_workers is 1 or more, found {max_workers}")
    if keep is not False:
        keep_columns(pd.DataFrame({"site_id": [], "year": []}), collection, keep)  # a wrong name is reported at once
    opened = _opened(source, collection, years)
    asked = tuple(opened.years()) if years is None else checked_years(years)
    how: dict[str, Any] = {"on_error": on_error, "progress": progress, "max_workers": max_workers}
    if isinstance(opened, PixelSource):
        how |= {"names": collection.site_ids, "on_damage": on_damage}
    results = _reduce(opened, collection.polygons, asked, names, wanted, **how)
    with report_stage(progress, "making the table"):
        table = embedding_table(collection.site_ids, asked, names, wanted, results)
    table.attrs["provenance"] = provenance(
        source=opened.name, archive=opened.archive, years=asked, statistics=wanted, bands=names,
        weights=getattr(opened, "weights", WEIGHTS),
    )  # fmt: skip
    if results.damage:
        table.attrs["provenance"]["damaged_pixels"] = describe_damage(results.damage)
    if on_error == "collect":
        table.attrs["errors"] = [_error_row(failure, collection.site_ids) for failure in results.failures]
    empty = warn_of_nothing(
        opened, collection.polygons, asked, results.status,
        lambda polygons, years: _reduce(opened, polygons, years, names[:1], ("mean",), on_error="collect").status,
    )  # fmt: skip
    if empty:
        table.attrs["years_without_data"] = empty
    return keep_columns(table, collection, keep)


def _reduce(source: Source, polygons: Any, years: Any, bands: Any, statistics: Any, **how: Any) -> Results:
    """Reduce polygons on the source's side, or here."""
    if isinstance(source, PixelSource):
        return reduce_polygons(source, polygons, years, bands=bands, statistics=statistics, **how)
    if isinstance(source, ReducingSource):
        results: Results = source.reduce(polygons, years, bands, statistics, **how)
        return results
    raise UsageError(f"the source {source.name!r} has neither pixels nor statistics")


def _opened(source: Any, sites: SiteCollection, years: int | Iterable[int] | None) -> Source:
    """Open a source; ``"auto"`` takes the cheapest for these sites and years."""
    named = os.environ.get(SOURCE_SETTING) if source is None else source
    if not (isinstance(named, str) and named == "auto"):
        return open_source(source)
    if years is None:
        raise UsageError('source="auto" needs years=: the cheapest source depends on them')
    from gee_polygons.costs import choose_source

    chosen = choose_source(sites, [years] if isinstance(years, int | np.integer) else list(years)).opened
    assert chosen is not None
    return chosen


def extract_continuous(
    sites: Any,
    layer: ContinuousLayer,
    *,
    start_date: str | int,
    end_date: str | int,
    reducer: str = "mean",
    frequency: str = "yearly",
    source: str | Source | None = None,
    on_error: str = "raise",
    keep: bool | Sequence[str] = False,
    progress: Progress = False,
) -> pd.DataFrame:
    """Reduce a layer to one row per site and period.

    Parameters
    ----------
    sites : SiteCollection, Site or GeoDataFrame
        Polygons.
    layer : ContinuousLayer
        `ALPHA_EMBEDDINGS`, from any source; any other layer, from Earth Engine.
    start_date, end_date : str, date or int
        ``"YYYY-MM-DD"``, or a year or month; both ends are included. Embeddings are returned for every year that the
        period touches.
    reducer : {"mean", "median", "min", "max", "stdDev"}
        Statistic, by its name on Earth Engine.
    frequency : {"yearly", "monthly", "all"}
        One row per year, per month (not for embeddings), or per date with an image (UTC; embeddings are dated
        1 January). Images of one date are mosaicked before they are reduced, so a site across tiles has one row.
    source, on_error, keep, progress
        See `extract_embeddings`. With ``on_error="collect"``, rows that failed are left out.

    Returns
    -------
    pandas.DataFrame
        Exactly the columns site_id, year, A00..A63 (other layers: their bands, and month or date), and those of
        `keep` after the second. Site-years without
        data have no row.

    Raises
    ------
    UsageError
        For an invalid date, an unknown reducer or frequency, or a layer that the source doesn't have.
    """
    if reducer not in REDUCERS:
        raise UsageError(f"unknown reducer {reducer!r}; there are {', '.join(REDUCERS)}")
    first, last = parse_dates(start_date, end_date)
    sites = as_sites(sites)
    if layer.collection_id != COLLECTION_ID:
        from gee_polygons.sources.earthengine.tabulate import continuous_table

        found = continuous_table(
            sites, layer, first=first.date(), last=last.date(), reducer=reducer, frequency=frequency,
            source=source, on_error=on_error, progress=progress,
        )  # fmt: skip
        return keep_columns(found, sites, keep)
    if frequency not in ("yearly", "all"):
        raise UsageError(
            f"{layer.name!r} has one image a year: frequency is 'yearly', or 'all' for dates, found {frequency!r}"
        )
    years = list(range(first.year, last.year + 1))
    if frequency == "all":  # images are dated 1 January
        years = [year for year in years if pd.Timestamp(year, 1, 1) >= first]
        if not years:
            raise UsageError(f"{layer.name!r} has images of 1 January only, none from {start_date} to {end_date}")
    table = extract_embeddings(
        sites, years=years, source=source, statistics=[REDUCERS[reducer]], on_error=on_error, progress=progress
    )
    found = table.loc[table["status"] == "ok", ["site_id", "year", *layer.bands]].reset_index(drop=True)
    if frequency == "all":
        found["year"] = pd.to_datetime(found["year"].astype(str), format="%Y")
        found = found.rename(columns={"year": "date"})
    found.attrs = table.attrs
    return keep_columns(found, sites, keep)


def extract_categorical(
    sites: Any,
    layer: CategoricalLayer,
    years: Iterable[int] | None = None,
    *,
    start_date: str | int | None = None,
    end_date: str | int | None = None,
    source: str | Source | None = None,
    on_error: str = "raise",
    keep: bool | Sequence[str] = False,
    progress: Progress = False,
) -> pd.DataFrame:
    """Measure the area of each class in each site, year by year. Needs Earth Engine.

    Parameters
    ----------
    sites : SiteCollection, Site or GeoDataFrame
        Polygons.
    layer : CategoricalLayer
        Such as `gee_polygons.datasets.mapbiomas.MAPBIOMAS`.
    years : iterable of int, optional
        The years; or give `start_date` and `end_date`.
    start_date, end_date : str, date or int
        ``"YYYY-MM-DD"``, or a year or month; every year that the period touches.
    source, on_error, keep, progress
        See `extract_embeddings`.

    Returns
    -------
    pandas.DataFrame
        One row per site, year and class: site_id, year, those of `keep`, class, class_name, count (pixels of the
        layer's size in the site's UTM zone, weighted by their share inside), area_ha. Years without data have no rows.
    """
    from gee_polygons.sources.earthengine.tabulate import categorical_table

    if start_date is not None and end_date is not None and years is None:
        first, last = parse_dates(start_date, end_date)
        years = range(first.year, last.year + 1)
    elif years is None or start_date is not None or end_date is not None:
        raise UsageError("give either years, or start_date and end_date")
    years = checked_years(years)
    sites = as_sites(sites)
    found = categorical_table(sites, layer, years=years, source=source, on_error=on_error, progress=progress)
    return keep_columns(found, sites, keep)


def embedding_table(
    site_ids: Sequence[int | str],
    years: Sequence[int],
    bands: Sequence[str],
    statistics: Sequence[str],
    results: Results,
) -> pd.DataFrame:
    """Return results as a table: site after site, year after year."""
    n_sites, n_years = results.n_pixels.shape
    rows = n_sites * n_years
    blocks = [results.statistics[name].reshape(rows, len(bands)) for name in statistics]
    values = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
    ids: Any = np.repeat(np.array(site_ids, dtype=_id_type(site_ids)), n_years)
    parts = [
        pd.DataFrame({"site_id": ids, "year": np.tile(np.array(years, np.int64), n_sites)}),
        pd.DataFrame(values, columns=columns(bands, statistics), copy=False),
    ]
    if "medoid" in statistics:
        parts.append(pd.DataFrame({"medoid_similarity": results.similarity.ravel()}))
    parts.append(
        pd.DataFrame(
            {
                "Rbar": mean_resultant_length(results.statistics["mean"].reshape(rows, len(bands))),
                "n_pixels": results.n_pixels.ravel(),
                "valid_fraction": results.valid_fraction.ravel(),
                "status": results.status.ravel().astype(str),
            }
        )
    )
    return pd.concat(parts, axis=1)


def _id_type(site_ids: Sequence[int | str]) -> type:
    return int if all(isinstance(site_id, int) for site_id in site_ids) and site_ids else object


def _error_row(failure: Failure, site_ids: Sequence[int | str]) -> dict[str, Any]:
    return {
        "year": failure.year,
        "site_ids": [site_ids[i] for i in failure.polygons],
        "url": failure.url,
        "message": failure.message,
    }
