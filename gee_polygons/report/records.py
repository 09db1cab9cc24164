"""The figures of each site as the page's script reads them: rounded, in the order of the table, None where missing."""

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
from gee_polygons.site.values import plain

# columns of the tables of change and recovery, which are keys of the records too
_RECOVERY: Final = (
    "group", "evidence", "start_year", "year", "share", "share_low", "share_high", "rate", "rate_low", "rate_high",
    "years_to_80", "years_to_range", "expected_years_to_80", "rank",
)  # fmt: skip
_YEARLY_RECOVERY: Final = ("share", "share_low", "share_high", "similarity")
# decimals of the figures of each year
_YEARLY: Final = {"angle_deg": 1, "relative_deg": 1, "z": 1, "Rbar": 3, "valid_fraction": 3} | dict.fromkeys(
    _YEARLY_RECOVERY, 3
)
_LEAST_DIRECTION: Final = 0.05  # of a change: smaller parts aren't named


def rounded(value: Any, digits: int = 4) -> Any:
    """Return a plain value, numbers rounded; None for a missing one."""
    if pd.isna(value):
        return None
    plain = value.item() if isinstance(value, np.generic) else value
    return round(plain, digits) if isinstance(plain, float) else plain


def site_records(findings: Findings) -> tuple[list[dict[str, Any]], PcaColors]:
    """Return one record per site of the table, in its order, and the colour basis."""
    table, sites, recovered = findings.table, findings.sites, findings.recovered
    basis = fit_pca_colors(table)
    vectors = band_matrix(table)
    rows = table[["site_id", "year"]].assign(
        pca_rgb=add_pca_columns(table, basis)["pca_rgb"],
        Rbar=mean_resultant_length(vectors),
        n_pixels=_numbers(table, "n_pixels"),
        valid_fraction=_numbers(table, "valid_fraction"),
        status=table["status"] if "status" in table.columns else None,
    )
    rows["effective_pixels"] = effective_pixels(rows["n_pixels"].to_numpy(np.float64))
    ids = rows["site_id"].unique().tolist()
    years = sorted(rows["year"].unique().tolist())
    every_year = pd.MultiIndex.from_product([ids, years], names=["site_id", "year"])
    yearly = _yearly(rows, findings, every_year)
    similarities = _similarities(rows, normalize(vectors), every_year, len(years))
    medians = rows.groupby("site_id", sort=False)[["Rbar", "valid_fraction", "effective_pixels"]].median()
    most_pixels = rows.groupby("site_id", sort=False)["n_pixels"].max()
    colors = rows.dropna(subset=["Rbar"]).sort_values("year").groupby("site_id")["pca_rgb"].last()
    change_of = findings.changed.sites.set_index("site_id")
    recovery_of = None if recovered is None else recovered.sites.set_index("site_id")
    off_trajectory = None if recovered is None else recovered.yearly.groupby("site_id")["off_way_deg"].last()
    known = set() if sites is None else {str(site_id) for site_id in sites.site_ids}
    roles = findings.roles
    records = []
    for i, site_id in enumerate(ids):
        pixels = most_pixels[site_id]
        record = {
            "id": str(site_id),
            "name": None,
            "area_ha": rounded(pixels / 100, 3),
            "n_pixels": rounded(pixels, 1),
            "effective_pixels": rounded(medians.loc[site_id, "effective_pixels"], 1) if pixels else None,
            "Rbar": rounded(medians.loc[site_id, "Rbar"], 3),
            "valid_fraction": rounded(medians.loc[site_id, "valid_fraction"], 3),
            "pca_rgb": colors.get(site_id),
            **_change(change_of.loc[site_id]),
            **dict.fromkeys((*_RECOVERY, "off_way_deg")),
            "series": {name: values[i] for name, values in yearly.items()},
            "similarity": similarities[i],
        }
        if recovery_of is not None and off_trajectory is not None and site_id in recovery_of.index:
            record |= _recovery(recovery_of.loc[site_id])
            record["off_way_deg"] = rounded(off_trajectory[site_id], 1)
        if sites is not None and record["id"] in known:
            site = sites[record["id"]]
            record |= {"area_ha": round(site.area_ha, 3), "name": _text(site.properties.get("name"))}
            if record["start_year"] is None:
                record["start_year"] = site.start_year
        restoration = record["group"] or record["start_year"] is not None
        record["role"] = roles.get(record["id"], "restoration" if restoration else "other")
        records.append(record)
    return records, basis


def _text(value: Any) -> str | None:
    """Return a property as text, whatever type its column has; None where it is missing or blank."""
    plain_value = plain(value)
    return None if plain_value is None else str(plain_value).strip() or None


def _numbers(table: pd.DataFrame, column: str) -> Any:
    """Return a column as float64; NaN where there is no such column."""
    return table[column].to_numpy(np.float64, na_value=np.nan) if column in table.columns else np.nan


def _change(change: pd.Series[Any]) -> dict[str, Any]:
    parts = {str(k).removeprefix("towards_"): v for k, v in change.items() if str(k).startswith("towards_")}
    parts.pop("fit", None)
    largest = sorted(((v, str(k)) for k, v in parts.items() if v >= _LEAST_DIRECTION), reverse=True)
    return {
        "change": change["kind"],
        "change_start": rounded(change["start"]),
        "size_deg": rounded(change["size_deg"], 1),
        "q": rounded(change["q"]),
        "direction": ", ".join(f"{label} {part:.0%}" for part, label in largest),
    }


def _recovery(site: pd.Series[Any]) -> dict[str, Any]:
    figures = {column: rounded(site[column]) for column in _RECOVERY}
    if figures["share"] is not None:
        # the page writes share and rate itself; the rest of the evidence follows the first semicolon
        figures["evidence"] = site["evidence"].partition("; ")[2] or None
    return figures


def _yearly(rows: pd.DataFrame, findings: Findings, every_year: pd.MultiIndex) -> dict[str, list[list[Any]]]:
    """Return the figures of each year, by name: a list per site."""
    figures = rows.set_index(["site_id", "year"])[["Rbar", "valid_fraction", "status"]].reindex(every_year)
    figures = figures.join(findings.changed.yearly.set_index(["site_id", "year"])[["angle_deg", "relative_deg", "z"]])
    if findings.recovered is None:
        figures[[*_YEARLY_RECOVERY]] = np.nan
    else:
        figures = figures.join(findings.recovered.yearly.set_index(["site_id", "year"])[[*_YEARLY_RECOVERY]])
        figures["similarity"] = figures["similarity"].clip(-1, 1)
    n_sites, n_years = (len(level) for level in every_year.levels)
    lists = {
        name: _rounded_rows(figures[name].to_numpy(np.float64), n_sites, digits) for name, digits in _YEARLY.items()
    }
    words: list[Any] = [s.replace("_", " ") if isinstance(s, str) else None for s in figures["status"]]
    lists["status"] = [words[start : start + n_years] for start in range(0, len(words), n_years)]
    return lists


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


def color_explanation(colors: PcaColors) -> str:
    """Say what the colours of the map are."""
    part = float(np.nansum(colors.explained_variance))
    return f"red, green and blue are the three principal components, {part:.0%} of the variance"
