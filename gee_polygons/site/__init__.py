"""Sites: polygons with an id and, often, the year in which a restoration started.

`load_sites` reads them. It makes every polygon valid, two-dimensional and EPSG:4326, and checks that ids are unique.
Nothing here makes a request: areas, buffers and drawings are computed in memory; `Site.geometry` and `Site.feature`
build Earth Engine objects without evaluating them.
"""

from gee_polygons.site.collection import SiteCollection, SiteRefusedWarning, SiteRepairWarning, UnknownSiteError
from gee_polygons.site.inputs import load_sites, sites_from_geodataframe
from gee_polygons.site.site import Site

__all__ = [
    "Site",
    "SiteCollection",
    "SiteRefusedWarning",
    "SiteRepairWarning",
    "UnknownSiteError",
    "load_sites",
    "sites_from_geodataframe",
]
