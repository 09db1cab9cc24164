"""The numbers of the report, as the page's script wants them: rounded, in order, None where there is nothing."""

from __future__ import annotations

import base64
import io
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from gee_polygons.embeddings.colors import PcaColors, add_pca_columns, fit_pca_colors
from gee_polygons.embeddings.directional import mean_resultant_length, normalize
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.embeddings.uncertainty import effective_pixels
from gee_polygons.report.findings import Findings

if TYPE_CHECKING:
    pass

_RECOVERY: Final = {
    "group": "group",
    "evidence": "evidence",
    "begun": "start_year",
    "year": "year",
    "share": "share",
    "low": "share_low",
    "high": "share_high",
    "rate": "rate",
    "rateLow": "rate_low",
    "rateHigh": "rate_high",
    "eighty": "years_to_80",
    "toRange": "years_to_range",
    "expected": "expected_years_to_80",
    "rank": "rank",
}  # by the record's keys: columns of the recovery's sites
_YEARLY: Final = {"share": "share", "low": "share_low", "high": "share_high", "like": "similarity"}
_STRIP_FRAME_PX: Final = 150
_STRIP_QUALITY: Final = 82
_STRIP_BUFFER_M: Final = 200.0


def clean(value: Any, digits: int = 4) -> Any:
    """Return a plain number, rounded; None for a missing one."""
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, np.generic):
        return clean(value.item(), digits)
    return round(value, digits) if isinstance(value, float) else value


def site_records(findings: Findings) -> tuple[list[dict[str, Any]], PcaColors]:
    """Return one record per site of the table, in its order, and the colour basis."""
    table, sites, changed, recovered = findings.table, findings.sites, findings.changed, findings.recovered
    years = sorted(int(y) for y in table["year"].unique())
    basis = fit_pca_colors(table)
    rows = add_pca_columns(table, basis)
    vectors = band_matrix(table)
    rows = rows.assign(_row=np.arange(len(rows)), _rbar=mean_resultant_length(vectors))
    if "n_pixels" in rows.columns:  # all at once: setting up costs as much as thousands of sites
        rows["_worth"] = effective_pixels(rows["n_pixels"].to_numpy(np.float64, na_value=np.nan))
    units = normalize(vectors)
    by_site = dict(iter(rows.groupby("site_id", sort=False)))
    found = changed.sites.set_index("site_id")
    place = {site_id: i for i, site_id in enumerate(found.index)}
    yearly = dict(iter(changed.yearly.groupby("site_id", sort=False)))
    shares = {} if recovered is None else dict(iter(recovered.yearly.groupby("site_id", sort=False)))
    summary = None if recovered is None else recovered.sites.set_index("site_id")
    names = set() if sites is None else {str(site_id) for site_id in sites.site_ids}
    roles, records = findings.roles, []
    for site_id, own in by_site.items():
        own = own.set_index("year").reindex(years)
        record = _record(site_id, own, found.iloc[place[site_id]], yearly[site_id].set_index("year").reindex(years))
        at = own["_row"].fillna(-1).to_numpy().astype(int)
        record["sim"] = _similarities(np.where((at >= 0)[:, None], units[at], np.nan))
        _add_recovery(record, summary, shares, site_id, years)
        if str(site_id) in names and sites is not None:
            site = sites[str(site_id)]
            record |= {"area": round(site.area_ha, 3), "name": site.properties.get("name")}
            if record["begun"] is None:
                record["begun"] = site.start_year
        other = "restoration" if record["group"] or record["begun"] is not None else "other"
        record["role"] = roles.get(record["id"], other)
        records.append(record)
    return records, basis


def _record(site_id: Any, own: pd.DataFrame, change: pd.Series[Any], yearly: pd.DataFrame) -> dict[str, Any]:
    present = own[own["_rbar"].notna()]
    valid = own["valid_fraction"] if "valid_fraction" in own.columns else pd.Series(np.nan, own.index)
    towards = {str(k)[8:]: v for k, v in change.items() if str(k).startswith("towards_") and k != "towards_fit"}
    pixels = float(np.nanmax([0.0, *own["n_pixels"]])) if "n_pixels" in own.columns else None
    largest = sorted(((v, k) for k, v in towards.items() if v == v and v >= 0.05), reverse=True)
    return {
        "id": str(site_id),
        "name": None,
        "begun": None,
        "area": None if pixels is None else clean(pixels / 100, 3),
        "pixels": clean(pixels, 1),
        "eff": clean(float(own["_worth"].median()), 1) if pixels else None,
        "rgb": present["pca_rgb"].iloc[-1] if len(present) else None,
        "change": change["kind"],
        "when": clean(change["start"]),
        "size": clean(change["size_deg"], 1),
        "q": clean(change["q"]),
        "towards": ", ".join(f"{k} {v:.0%}" for v, k in largest),
        "rbar": clean(float(np.median(present["_rbar"])) if len(present) else None, 3),
        "valid": clean(float(np.nanmedian(valid)) if valid.notna().any() else None, 3),
        "series": {
            "raw": [clean(v, 1) for v in yearly["angle_deg"]],
            "rel": [clean(v, 1) for v in yearly["relative_deg"]],
            "z": [clean(v, 1) for v in yearly["z"]],
            "rbar": [clean(v, 3) for v in own["_rbar"]],
            "valid": [clean(v, 3) for v in valid],
            "status": [_status(v) for v in own["status"]] if "status" in own.columns else [None] * len(own),
            "share": [None] * len(own),
            "low": [None] * len(own),
            "high": [None] * len(own),
            "like": [None] * len(own),
        },
    }


def _status(value: Any) -> str | None:
    return str(value).replace("_", " ") if isinstance(value, str) else None


def _similarities(units: Any) -> list[float | None]:
    """Lower triangle of the years' cosines, row by row, diagonal included."""
    cosine = units @ units.T
    return [clean(float(cosine[i, j]), 3) for i in range(len(cosine)) for j in range(i + 1)]


def _add_recovery(
    record: dict[str, Any], summary: pd.DataFrame | None, shares: dict[Any, Any], site_id: Any, years: Sequence[int]
) -> None:
    record |= {**dict.fromkeys((*_RECOVERY, "off")), "begun": record["begun"]}
    if summary is None or site_id not in summary.index:
        return
    row = summary.loc[site_id]
    record |= {key: clean(row[column]) for key, column in _RECOVERY.items()}
    if record["share"] is not None:
        # the page says share and rate from the figures; what else the group rests on follows in the evidence
        record["evidence"] = row["evidence"].partition("; ")[2] or None
    own = shares[site_id].set_index("year").reindex(years)
    own["similarity"] = own["similarity"].clip(-1, 1)
    for key, column in _YEARLY.items():
        record["series"][key] = [clean(v, 3) for v in own[column]]
    off = own["off_way_deg"].dropna()
    record["off"] = clean(float(off.iloc[-1]), 1) if len(off) else None


def in_words(colours: PcaColors) -> str:
    """Say what the colours of the map are, in plain words."""
    part = float(np.nansum(colours.explained_variance))
    return f"red, green and blue stand for the three largest differences, {part:.0%} of all"


def strip_of(site: Any, source: Any, years: Sequence[int], colours: PcaColors) -> str:
    """Return a site's years side by side, as a JPEG in a data URL."""
    from PIL import Image

    from gee_polygons.visualize.pictures.series import export_timestrip

    with tempfile.TemporaryDirectory() as folder:
        path = export_timestrip(
            site,
            Path(folder) / "strip.png",
            years=years,
            source=source,
            vis_params=colours,
            buffer_m=_STRIP_BUFFER_M,
            dimensions=_STRIP_FRAME_PX,
        )
        with Image.open(path) as picture:
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, "JPEG", quality=_STRIP_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
