"""The numbers of the report, as the page's script wants them: rounded, in order, None where there is nothing."""

from __future__ import annotations

import base64
import io
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import shapely

from gee_polygons.embeddings._inputs import band_matrix
from gee_polygons.embeddings.colors import PcaColors, add_pca_columns, fit_pca_colors
from gee_polygons.embeddings.directional import mean_resultant_length, normalize

if TYPE_CHECKING:
    from gee_polygons.change import Change
    from gee_polygons.recovery import Recovery
    from gee_polygons.site import SiteCollection

__all__ = ["map_of", "site_records", "strip_of"]

MAP_WIDTH: Final = 1000.0
_LEAST_RADIUS: Final = 4.0  # of the map's units: a site of a pixel must still be seen and clicked
_SIMPLIFY: Final = 0.4
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


def site_records(
    table: pd.DataFrame, sites: SiteCollection | None, changed: Change, recovered: Recovery | None
) -> tuple[list[dict[str, Any]], PcaColors]:
    """Return one record per site of the table, in its order, and the colour basis."""
    years = sorted(int(y) for y in table["year"].unique())
    basis = fit_pca_colors(table)
    rows = add_pca_columns(table, basis)
    vectors = band_matrix(table)
    rows = rows.assign(_row=np.arange(len(rows)), _rbar=mean_resultant_length(vectors))
    units = normalize(vectors)
    by_site = dict(iter(rows.groupby("site_id", sort=False)))
    found = changed.sites.set_index("site_id")
    place = {site_id: i for i, site_id in enumerate(found.index)}
    yearly = dict(iter(changed.yearly.groupby("site_id", sort=False)))
    shares = {} if recovered is None else dict(iter(recovered.yearly.groupby("site_id", sort=False)))
    summary = None if recovered is None else recovered.sites.set_index("site_id")
    names = set() if sites is None else {str(site_id) for site_id in sites.site_ids}
    records = []
    for site_id, own in by_site.items():
        own = own.set_index("year").reindex(years)
        record = _record(site_id, own, found.iloc[place[site_id]], yearly[site_id].set_index("year").reindex(years))
        at = own["_row"].fillna(-1).to_numpy().astype(int)
        record["sim"] = _similarities(np.where((at >= 0)[:, None], units[at], np.nan))
        _add_recovery(record, summary, shares, site_id, years)
        if str(site_id) in names and sites is not None:
            site = sites[str(site_id)]
            record |= {"area": round(site.area_ha, 2), "name": site.properties.get("name")}
            if record["begun"] is None:
                record["begun"] = site.start_year
        records.append(record)
    return records, basis


def _record(site_id: Any, own: pd.DataFrame, change: pd.Series[Any], yearly: pd.DataFrame) -> dict[str, Any]:
    present = own[own["_rbar"].notna()]
    valid = own["valid_fraction"] if "valid_fraction" in own.columns else pd.Series(np.nan, own.index)
    towards = {str(k)[8:]: v for k, v in change.items() if str(k).startswith("towards_") and k != "towards_fit"}
    largest = sorted(((v, k) for k, v in towards.items() if v == v and v >= 0.05), reverse=True)
    return {
        "id": str(site_id),
        "name": None,
        "begun": None,
        "area": clean(float(np.nanmax([0.0, *own["n_pixels"]])) / 100, 2) if "n_pixels" in own.columns else None,
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
    record |= dict.fromkeys(("group", "share", "low", "high", "rate", "evidence", "eighty", "expected"))
    if summary is None or site_id not in summary.index:
        return
    row = summary.loc[site_id]
    record |= {"group": row["group"], "share": clean(row["share"], 3), "rate": clean(row["rate"])}
    record |= {"low": clean(row["share_low"], 3), "high": clean(row["share_high"], 3)}
    record |= {"eighty": clean(row["years_to_80"], 1), "expected": clean(row["expected_years_to_80"], 1)}
    record |= {"evidence": row["evidence"], "begun": int(row["start_year"])}
    own = shares[site_id].set_index("year").reindex(years)
    for key, column in (("share", "share"), ("low", "share_low"), ("high", "share_high")):
        record["series"][key] = [clean(v, 3) for v in own[column]]


def map_of(records: list[dict[str, Any]], sites: SiteCollection) -> dict[str, Any] | None:
    """Give each record the path of its polygon, and return the map's frame and scale bar; None without polygons."""
    names = {str(site_id) for site_id in sites.site_ids}
    known = [r for r in records if r["id"] in names]
    if not known:
        return None
    shapes = np.array([sites[r["id"]].polygon for r in known], dtype=object)
    west, south, east, north = shapely.total_bounds(shapes)
    flat = math.cos(math.radians((south + north) / 2))
    span = max((east - west) * flat, (north - south) * 0.6, 1e-5)
    scale = MAP_WIDTH / span

    def place(xy: Any) -> Any:
        return np.column_stack([(xy[:, 0] - west) * flat * scale, (north - xy[:, 1]) * scale])

    placed = shapely.transform(shapes, place)
    for record, shape in zip(known, placed, strict=True):
        box = shape.bounds
        if max(box[2] - box[0], box[3] - box[1]) < 2 * _LEAST_RADIUS:
            shape = shape.centroid.buffer(_LEAST_RADIUS, quad_segs=3)
        record["path"] = _path(shapely.simplify(shape, _SIMPLIFY))
    height = (north - south) * scale
    return {
        "box": f"-20 -20 {(east - west) * flat * scale + 40:.0f} {height + 75:.0f}",
        "bar": _scale_bar(scale / 111_320.0, height),
    }


def _scale_bar(units_per_m: float, height: float) -> dict[str, Any]:
    """Return a bar of a round length, about a fifth of the map."""
    wanted = MAP_WIDTH / 5 / units_per_m
    power = 10 ** math.floor(math.log10(wanted))
    metres = max(m * power for m in (1, 2, 5) if m * power <= wanted)
    text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    length, y = metres * units_per_m, height + 32
    return {
        "path": f"M0 {y - 7:.1f}V{y:.1f}H{length:.1f}V{y - 7:.1f}",
        "x": length + 10,
        "y": y,
        "font": 20,
        "text": text,
    }


def _path(shape: shapely.Geometry) -> str:
    rings = [
        ring
        for part in shapely.get_parts(shape)
        if part.geom_type == "Polygon"
        for ring in (part.exterior, *part.interiors)
    ]
    text = ("L".join(f"{x:.1f} {y:.1f}" for x, y in shapely.get_coordinates(ring)[:-1]) for ring in rings)
    return "".join(f"M{points}Z" for points in text)


def strip_of(site: Any, source: Any, years: Sequence[int], colours: PcaColors) -> str:
    """Return a site's years side by side, as a JPEG in a data URL."""
    from PIL import Image

    from gee_polygons.pictures.series import export_timestrip

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


Progress = Callable[[int, int], object]
