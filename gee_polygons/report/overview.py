"""Lists all sites of a table with role, verdict, area and place, counts hectares, and says which sites need a visit."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from gee_polygons.report.findings import Findings
from gee_polygons.report.language import Language
from gee_polygons.site.values import plain
from gee_polygons.visualize.plots.figure import GROUP_COLOURS

VISIT: Final = ("declining", "stalled")
CHANGES: Final = ("persistent", "last year only", "returned", "none", "no data")
_NAMES: Final = {"none": "no change found", "persistent": "lasting change", "returned": "changed and came back"}
_VISIT_CHANGED: Final = CHANGES[:2]  # where recovery wasn't measured
_PLACES: Final = ("place", "municipality", "municipio", "município", "locality", "city", "county")


def overview(findings: Findings) -> pd.DataFrame:
    """Return one row per site of the table, in its order.

    Columns: `site_id` as in the table; `id`, the same as text; `role`; `verdict`, the group of recovery, or the kind
    of change where recovery wasn't measured, None for sites that aren't restoration or have none; `area_ha` (NaN:
    unknown); `name`, `place` (None: unknown); `start_year`; `lon`, `lat`, a point inside (NaN: no polygon).
    """
    table, sites = findings.table, findings.sites
    rows = pd.DataFrame({"site_id": pd.unique(table["site_id"])})
    rows["id"] = rows["site_id"].astype(str)
    rows["area_ha"] = np.nan
    if "n_pixels" in table.columns:
        rows["area_ha"] = rows["site_id"].map(table.groupby("site_id")["n_pixels"].max()).astype(np.float64) / 100
    roles = findings.roles
    rows["role"] = [roles.get(site_id, "restoration") for site_id in rows["id"]]
    verdict = findings.changed.sites.set_index("site_id")["kind"]
    if findings.recovered is not None:
        verdict = findings.recovered.sites.set_index("site_id")["group"]
    found = rows["site_id"].map(verdict).astype(object)
    rows["verdict"] = found.where(rows["role"].eq("restoration") & found.notna(), None)
    if sites is None:
        return rows.assign(name=None, place=None, start_year=None, lon=np.nan, lat=np.nan)
    columns: dict[str, Any] = {"id": list(map(str, sites.site_ids)), "start_year": list(sites.start_years)}
    columns["own_area"] = [site.area_ha for site in sites]
    place = next((name for name in sites.property_names if name.lower() in _PLACES), None)
    for column, name in (("name", "name"), ("place", place)):
        columns[column] = [text_of(site.properties.get(name or "")) for site in sites]
    columns["lon"], columns["lat"] = shapely.get_coordinates(shapely.point_on_surface(sites.polygons)).T
    rows = rows.merge(pd.DataFrame(columns).astype({"start_year": object}), on="id", how="left")
    rows["area_ha"] = rows.pop("own_area").fillna(rows["area_ha"])
    return rows


def text_of(value: Any) -> str | None:
    """Return a property as text, whatever type its column has; None where it is missing or blank."""
    value = plain(value)
    return None if value is None else str(value).strip().removesuffix(" 00:00:00") or None  # a date is a day


def visits(findings: Findings, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the sites that need a visit, the largest first."""
    wanted = _VISIT_CHANGED if findings.recovered is None else VISIT
    return rows[rows["verdict"].isin(wanted)].sort_values("area_ha", ascending=False, kind="stable")


def hectares_table(findings: Findings, rows: pd.DataFrame, say: Language) -> str:
    """Return the sites and hectares of each verdict, which add up to those of all restoration sites, as HTML."""
    groups = CHANGES if findings.recovered is None else tuple(GROUP_COLOURS)
    is_counted = rows["role"].eq("restoration")
    verdict = rows["verdict"].where(rows["verdict"].notna(), "no verdict")
    keys = [(group, is_counted & verdict.eq(group)) for group in (*groups, "no verdict")]
    keys = [(key, chosen) for key, chosen in keys if chosen.any()]
    areas = np.array([rows.loc[chosen, "area_ha"].sum() for _, chosen in keys])
    digits = 0 if areas.sum() >= 100 else 1
    written = _adding_up(areas, digits)
    total = written.sum()
    all_sites = say("all restoration sites" if (~is_counted).any() else "all sites")
    lines = [
        (_tag(key, say), int(chosen.sum()), area, area / total if total else 0.0)
        for (key, chosen), area in zip(keys, written, strict=True)
    ] + [(f"<b>{all_sites}</b>", int(is_counted.sum()), total, 1.0)]
    body = "".join(_line(*line, digits=digits, say=say) for line in lines)
    left_out = [say.count(int(n), f"{role} site") for role, n in rows.loc[~is_counted, "role"].value_counts().items()]
    notes = [say("Not counted: {sites}.", sites=", ".join(left_out))] if left_out else []
    if n_unknown := int(rows.loc[is_counted, "area_ha"].isna().sum()):
        notes.append(say("Area unknown: {sites}.", sites=say.count(n_unknown, "site")))
    head = "".join(f"<th class='n'>{say(name)}</th>" for name in ("Sites", "Hectares", "Share of area"))
    return (
        f'<table class="verdicts"><thead><tr><th>{say("Verdict")}</th>{head}</tr></thead><tbody>{body}</tbody></table>'
        f'<p class="soft">{" ".join(notes)}</p>'
    )


def _tag(key: str, say: Language) -> str:
    name = _NAMES.get(key, key)
    color = GROUP_COLOURS.get(key, "#fff")
    return f'<span class="swatch" style="background:{color}"></span>{say(name)}'


def _line(name: str, n: int, area: float, part: float, *, digits: int, say: Language) -> str:
    cells = (say.number(n), say.number(area, digits), f"{part:.0%}")
    figures = "".join(f"<td class='n'>{cell}</td>" for cell in cells)
    return f"<tr><td>{name}</td>{figures}</tr>"


def _adding_up(values: NDArray[np.float64], digits: int) -> NDArray[np.float64]:
    """Round values so that they add up to their rounded sum: the largest remainders are rounded up."""
    units = values * 10**digits
    floor = np.floor(units)
    missing = int(np.rint(units.sum()) - floor.sum())
    floor[np.argsort(floor - units, kind="stable")[:missing]] += 1
    return np.asarray(floor / 10**digits, np.float64)
