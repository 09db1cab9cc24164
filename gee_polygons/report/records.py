"""The figures of each site as the page's script reads them: rounded, in the table's order, left out where missing."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.embeddings.colors import PcaColors, add_pca_columns, fit_pca_colors
from gee_polygons.embeddings.directional import mean_resultant_length, normalize
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.embeddings.uncertainty import effective_pixels
from gee_polygons.report.findings import Findings

# columns of the tables of recovery, which are keys of the records too, and their decimals
_RECOVERY: Final = dict.fromkeys(
    (
        "year", "share", "share_low", "share_high", "similarity", "similarity_start", "rate", "rate_low", "rate_high",
        "years_to_80", "years_to_range", "expected_years_to_80", "rank",
    ),
    4,
) | {"off_way_deg": 1, "status": 0}  # fmt: skip
# decimals of the figures of each year
_YEARLY_CHANGE: Final = {"angle_deg": 1, "relative_deg": 1, "z": 1}
_YEARLY_RECOVERY: Final = {"share": 3, "share_low": 3, "share_high": 3, "similarity": 3}
_LEAST_DIRECTION: Final = 0.05  # of a change: smaller parts aren't named


def site_records(findings: Findings, listed: pd.DataFrame) -> tuple[list[dict[str, Any]], PcaColors]:
    """Return one record for each of the listed rows of `overview`, in their order, and the colour basis."""
    changed, recovered = findings.changed, findings.recovered
    ids = listed["site_id"]
    table = _of_sites(findings.table, ids)
    basis = fit_pca_colors(table)
    vectors = band_matrix(table)
    rows = table[["site_id", "year"]].assign(
        pca_rgb=add_pca_columns(table, basis)["pca_rgb"],
        Rbar=mean_resultant_length(vectors),
        n_pixels=_numbers(table, "n_pixels"),
        valid_fraction=_numbers(table, "valid_fraction"),
        status=table["status"] if "status" in table.columns else None,
    )
    years = sorted(findings.table["year"].unique().tolist())
    every_year = pd.MultiIndex.from_product([ids, years], names=["site_id", "year"])
    sites = listed.set_index("site_id").drop(columns=["verdict"])
    sites["group"] = None if recovered is None else listed["verdict"].to_numpy()
    by_site = rows.groupby("site_id", sort=False)
    medians = by_site[["Rbar", "valid_fraction", "n_pixels"]].median()
    medians["effective_pixels"] = effective_pixels(medians.pop("n_pixels").to_numpy(np.float64))
    sites = sites.join(medians).join(by_site["n_pixels"].max())
    sites = sites.join(rows.dropna(subset=["Rbar"]).sort_values("year").groupby("site_id")["pca_rgb"].last())
    change = changed.sites.set_index("site_id").reindex(ids)
    sites = sites.assign(change=change["kind"], change_start=change["start"], q=change["q"])
    if "event" in change.columns:  # tables of two years have none
        sites["event_year"] = change["event_year"].where(change["event"])
    sites["elsewhere"] = change["also_elsewhere"].where(change["also_elsewhere"].eq(True), None)
    sites["direction"] = _directions(change)
    if recovered is not None:
        own = [name for name in _RECOVERY if name in recovered.sites.columns]
        sites = sites.join(recovered.sites.set_index("site_id")[own])
    series = _yearly(rows, findings, every_year, len(ids))
    sites["size_deg"], sites["size_year"] = _sizes(change, _grid(changed.yearly, every_year, "relative_deg"), years)
    series["similarities"] = _similarities(rows, normalize(vectors), every_year, len(years))
    decimals = _RECOVERY | {
        "Rbar": 3,
        "valid_fraction": 3,
        "effective_pixels": 1,
        "area_ha": 3,
        "n_pixels": 1,
        "lon": 5,
        "lat": 5,
        "size_deg": 1,
        "q": 4,
    }
    columns = {name: plain_values(sites[name], decimals.get(name, 4)) for name in sites.columns}
    records = [
        {name: value for name, value in zip(columns, values, strict=True) if value is not None}
        for values in zip(*columns.values(), strict=True)
    ]
    for i, record in enumerate(records):
        record["series"] = {name: values[i] for name, values in series.items() if any(v is not None for v in values[i])}
    return records, basis


def plain_values(values: Any, digits: int) -> list[Any]:
    """Return plain values, numbers rounded; None for missing ones."""
    plain = pd.Series(values).astype(object).tolist()
    return [None if pd.isna(v) else round(v, digits) if isinstance(v, float) else v for v in plain]


def _of_sites(table: pd.DataFrame, ids: pd.Series[Any]) -> pd.DataFrame:
    return table if len(ids) == table["site_id"].nunique() else table[table["site_id"].isin(ids)]


def _numbers(table: pd.DataFrame, column: str) -> Any:
    """Return a column as float64; NaN where there is no such column."""
    return table[column].to_numpy(np.float64, na_value=np.nan) if column in table.columns else np.nan


def _directions(change: pd.DataFrame) -> list[str | None]:
    """Return what each site changed towards, in words: "forest 80%, water 20%"."""
    labels = [str(name) for name in change.columns if str(name).startswith("towards_") and name != "towards_fit"]
    texts: list[str | None] = []
    for parts in change[labels].to_numpy(np.float64):
        largest = sorted(((part, name) for part, name in zip(parts, labels, strict=True) if part >= _LEAST_DIRECTION))
        texts.append(", ".join(f"{name.removeprefix('towards_')} {part:.0%}" for part, name in largest[::-1]) or None)
    return texts


def _grid(yearly: pd.DataFrame, every_year: pd.MultiIndex, column: str) -> NDArray[np.float64]:
    values = yearly.set_index(["site_id", "year"])[column].reindex(every_year)
    return values.to_numpy(np.float64, na_value=np.nan).reshape(-1, len(every_year.levels[1]))


def _sizes(change: pd.DataFrame, angles: NDArray[np.float64], years: list[int]) -> tuple[Any, Any]:
    """Return the size of each change as its chart shows it, and the year: the last, or the largest if it returned."""
    start = change["start"].to_numpy(np.float64, na_value=np.nan)[:, None]
    since = np.where(np.array(years)[None] >= start, angles, np.nan)
    known = ~np.isnan(since)
    last = since.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
    at = np.where(change["kind"].eq("returned"), np.where(known, since, -1.0).argmax(axis=1), last)
    size = since[np.arange(len(since)), at]
    return size, np.where(np.isnan(size), None, np.array(years, dtype=object)[at])


def _yearly(
    rows: pd.DataFrame, findings: Findings, every_year: pd.MultiIndex, n_sites: int
) -> dict[str, list[list[Any]]]:
    """Return the figures of each year, by name: a list per site."""
    found = {}
    sources: list[tuple[pd.DataFrame, dict[str, int]]] = [
        (rows, {"Rbar": 3, "valid_fraction": 3}),
        (findings.changed.yearly, _YEARLY_CHANGE),
    ]
    if findings.recovered is not None:
        sources.append((findings.recovered.yearly, _YEARLY_RECOVERY))
    for table, columns in sources:
        for name, digits in columns.items():
            found[name] = _rounded_rows(_grid(table, every_year, name), n_sites, digits)
    status = rows.set_index(["site_id", "year"])["status"].reindex(every_year).tolist()
    words = [s.replace("_", " ") if isinstance(s, str) and s != "ok" else None for s in status]
    n_years = len(every_year.levels[1])
    return found | {"status": [words[first : first + n_years] for first in range(0, len(words), n_years)]}


def _similarities(rows: pd.DataFrame, units: NDArray[np.float64], every_year: pd.MultiIndex, n_years: int) -> list[Any]:
    """Return each site's cosines between its years: the lower triangle row by row, diagonal included."""
    place = pd.Series(np.arange(len(rows)), index=pd.MultiIndex.from_frame(rows[["site_id", "year"]]))
    at = place.reindex(every_year, fill_value=-1).to_numpy()
    vectors = np.where((at >= 0)[:, None], units[at], np.nan).reshape(-1, n_years, units.shape[1])
    cosines = vectors @ vectors.transpose(0, 2, 1)
    return _rounded_rows(cosines[(slice(None), *np.tril_indices(n_years))], len(vectors), 3)


def _rounded_rows(values: NDArray[np.float64], n_rows: int, digits: int) -> list[list[float | None]]:
    rows = values.reshape(n_rows, -1).tolist()
    return [[None if v != v else round(v, digits) for v in row] for row in rows]
