"""Which sites of a report get pictures, and the pictures as data URLs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from gee_polygons.embeddings.colors import PcaColors
from gee_polygons.errors import UsageError

if TYPE_CHECKING:
    from gee_polygons.site import Site, SiteCollection

FEW_SITES: Final = 12  # pictures="auto" makes pictures of so many sites
MAX_PICTURES: Final = 200  # sites; about 60 kB each
_FRAME_PX: Final = 220
_QUALITY: Final = 82
_BUFFER_M: Final = 200.0


def check_pictures(
    pictures: str | Sequence[Any], ids: Sequence[str], sites: SiteCollection | None, source: Any
) -> list[str] | None:
    """Return the ids of the sites to picture, before the long work; None for "auto", which follows from the results.

    Raises
    ------
    UsageError
        For an unknown choice or site, pictures without a source, or more than a page can hold.
    """
    if pictures == "auto":
        return None if source is not None and sites is not None else []
    in_sites = set() if sites is None else {str(site_id) for site_id in sites.site_ids}
    known = [site_id for site_id in ids if site_id in in_sites]
    if isinstance(pictures, str):
        if pictures not in ("all", "none"):
            raise UsageError(f"pictures is 'auto', 'none', 'all' or a list of site ids, found {pictures!r}")
        chosen = known if pictures == "all" else []
    else:
        chosen = list(dict.fromkeys(map(str, pictures)))
    if unknown := set(chosen) - set(known):
        raise UsageError(f"no picture can be made of {min(unknown)!r}: it isn't in both the table and the sites")
    if chosen and source is None:
        raise UsageError("pictures need a source to read them from: give --source")
    if len(chosen) > MAX_PICTURES:
        raise UsageError(f"{len(chosen)} pictures don't fit one page (at most {MAX_PICTURES}); name some sites")
    return chosen


def pictures_of(site: Site, source: Any, years: Sequence[int], colors: PcaColors) -> list[dict[str, Any]]:
    """Return a picture of each year in which the source has data of the site: its year, and a JPEG as a data URL."""
    from gee_polygons.visualize.pictures.render import render_image

    region, found = site.region(buffer_m=_BUFFER_M), []
    for year in sorted(set(years) & set(source.years())):
        image = source.image(region, year)
        if not image.valid.any():
            continue
        frame = render_image(image, region, colors, _FRAME_PX, site.polygon, scale_bar=True)
        buffer = io.BytesIO()
        frame.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, optimize=True)
        found.append({"year": year, "src": f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"})
    return found
