"""Which sites of a report get pictures, and the pictures as data URLs."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gee_polygons.embeddings.colors import PcaColors
from gee_polygons.errors import UsageError

if TYPE_CHECKING:
    from gee_polygons.site import Site, SiteCollection

FEW_SITES: Final = 12  # pictures="auto" makes pictures of all sites up to this number
MAX_PICTURES: Final = 200  # about 60 kB each: 12 MB of the 25 that a page may have
_STRIP_FRAME_PX: Final = 150
_STRIP_QUALITY: Final = 82
_STRIP_BUFFER_M: Final = 200.0


def pictured(
    pictures: str | Sequence[Any], records: list[dict[str, Any]], sites: SiteCollection | None, source: Any
) -> list[tuple[dict[str, Any], Site]]:
    """Return the sites that get pictures, each with its record.

    Raises
    ------
    UsageError
        For an unknown choice or site, pictures without a source, or more than a page can hold.
    """
    site_by_id = {str(site.site_id): site for site in sites or ()}
    known = {r["id"]: (r, site_by_id[r["id"]]) for r in records if r["id"] in site_by_id}
    if pictures == "auto":
        chosen = list(known) if source is not None and len(records) <= FEW_SITES else []
    elif isinstance(pictures, str):
        if pictures not in ("all", "none"):
            raise UsageError(f"pictures is 'auto', 'none', 'all' or a list of site ids, found {pictures!r}")
        chosen = list(known) if pictures == "all" else []
    else:
        chosen = list(map(str, pictures))
    for site_id in chosen:
        if site_id not in known:
            raise UsageError(f"no picture can be made of {site_id!r}: it isn't in both the table and the sites")
    if chosen and source is None:
        raise UsageError("pictures need a source to read them from: give --source")
    if len(chosen) > MAX_PICTURES:
        raise UsageError(f"{len(chosen)} pictures don't fit one page (at most {MAX_PICTURES}); name some sites")
    return [known[site_id] for site_id in chosen]


def picture_strip(site: Site, source: Any, years: Sequence[int], colors: PcaColors) -> str:
    """Return a site's years side by side, as a JPEG in a data URL."""
    from PIL import Image

    from gee_polygons.visualize.pictures.series import export_timestrip

    with tempfile.TemporaryDirectory() as folder:
        path = export_timestrip(
            site,
            Path(folder) / "strip.png",
            years=years,
            source=source,
            vis_params=colors,
            buffer_m=_STRIP_BUFFER_M,
            dimensions=_STRIP_FRAME_PX,
        )
        with Image.open(path) as picture:
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, "JPEG", quality=_STRIP_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
