"""The names of version 0.0.4: those that live on elsewhere are found there, the others say what to use instead."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final, TypeVar

from gee_polygons.errors import MovedError

PAGE: Final = "docs/coming_from_0.0.4.md"
_T = TypeVar("_T", bound=type)
_SITES = "gee_polygons.site"
_MAPBIOMAS = "gee_polygons.datasets.mapbiomas"
_DYNAMIC_WORLD = "gee_polygons.datasets.dynamicworld"
_SENTINEL2 = "gee_polygons.datasets.sentinel2"

# old name in a module, or member of a class -> where the same thing is found today
SAME: Final[dict[str, str]] = {
    "gee_polygons.core.Site": f"{_SITES}:Site",
    "gee_polygons.core.load_sites": f"{_SITES}:load_sites",
    "gee_polygons.collection.SiteCollection": f"{_SITES}:SiteCollection",
    "gee_polygons.charts.DEFAULT_PALETTE": "gee_polygons.visualize.plots.figure:OKABE_ITO",
    f"{_MAPBIOMAS}.MAPBIOMAS_LULC": f"{_MAPBIOMAS}:MAPBIOMAS",
    f"{_MAPBIOMAS}.LULC_CLASS_MAP": f"{_MAPBIOMAS}:MAPBIOMAS.class_names",
    f"{_MAPBIOMAS}.LULC_PALETTE": f"{_MAPBIOMAS}:MAPBIOMAS.palette",
    f"{_MAPBIOMAS}.MAPBIOMAS_DEFREG": f"{_MAPBIOMAS}:MAPBIOMAS_SECONDARY",
    f"{_MAPBIOMAS}.DEFREG_CLASS_MAP": f"{_MAPBIOMAS}:MAPBIOMAS_SECONDARY.class_names",
    f"{_MAPBIOMAS}.DEFREG_PALETTE": f"{_MAPBIOMAS}:MAPBIOMAS_SECONDARY.palette",
    f"{_DYNAMIC_WORLD}.DYNAMIC_WORLD_CLASS_MAP": f"{_DYNAMIC_WORLD}:DYNAMIC_WORLD.class_names",
    f"{_DYNAMIC_WORLD}.DYNAMIC_WORLD_PALETTE": f"{_DYNAMIC_WORLD}:DYNAMIC_WORLD.palette",
    f"{_SENTINEL2}.SENTINEL2_NDVI_EVI": f"{_SENTINEL2}:SENTINEL2_INDICES",
    f"{_SENTINEL2}.mask_s2_clouds": f"{_SENTINEL2}:mask_scl",
    "gee_polygons.visualize.NDVI_VIS": f"{_SENTINEL2}:SENTINEL2_VIS_NDVI",
    "gee_polygons.visualize.get_image_for_layer": "gee_polygons.sources.earthengine.images:layer_image",
    "CategoricalLayer.asset_id": "collection_id",
    "CategoricalLayer.scale": "scale_m",
    "CategoricalLayer.class_map": "class_names",
    "ContinuousLayer.scale": "scale_m",
    "ContinuousLayer.preprocess": "prepare",
}

# old name -> what to use instead
INSTEAD: Final[dict[str, str]] = {
    "gee_polygons.ChunkedResult": "the DataFrame that extractions return, with failures in its attrs['errors']",
    "gee_polygons.ExportDestination": "sites.export_continuous(..., drive_folder=NAME) or bucket=NAME",
    "gee_polygons.ExportConfig": "no settings; export_continuous groups sites and queues tasks itself",
    "gee_polygons.ExportTask": "what export_continuous returns, with status(), wait(), cancel() and ids",
    "gee_polygons.collection.calculate_chunk_size": "no settings; sites are grouped into requests by extent and size",
    "gee_polygons.collection.chunk_items": "itertools.batched, or slices of a SiteCollection",
    "gee_polygons.charts.prepare_chart_data": "table.pivot_table(index='year', columns='class_name', values='area_ha')",
    "gee_polygons.charts.get_class_colors": "layer.palette, colours by class number",
    "gee_polygons.charts.plot_extraction": "gee_polygons.visualize.plot_classes",
    "gee_polygons.charts.plot_aggregated": "plot_classes(table.replace({'class_name': {OLD: GROUP}}))",
    "gee_polygons.charts.plot_class_distribution_interactive": "gee_polygons.visualize.plot_classes(share=True)",
    "gee_polygons.charts.plot_class_area_stacked_interactive": "gee_polygons.visualize.plot_classes",
    "gee_polygons.charts.plot_aggregated_interactive": "gee_polygons.visualize.plot_classes",
    f"{_SENTINEL2}.get_sentinel_composite": "get_sentinel2_image(geometry, year, month, bands=[...])",
    f"{_SENTINEL2}.get_s2_collection": "get_sentinel2_image, or sources.earthengine.images.layer_collection",
    f"{_SENTINEL2}.BANDS_TRUE_COLOR": "['B4', 'B3', 'B2'], the bands of SENTINEL2_VIS_TRUE",
    f"{_SENTINEL2}.BANDS_FALSE_COLOR": "['B8', 'B4', 'B3']",
    f"{_SENTINEL2}.BANDS_AGRICULTURE": "['B11', 'B8', 'B2']",
    f"{_SENTINEL2}.SENTINEL_VIS": "SENTINEL2_VIS_TRUE, which names its bands",
    f"{_SENTINEL2}.SENTINEL_VIS_BRIGHT": "{**SENTINEL2_VIS_TRUE, 'gamma': 1.6}",
    "gee_polygons.visualize.EVI_VIS": "{**SENTINEL2_VIS_NDVI, 'bands': ['EVI'], 'max': 0.6}",
    "gee_polygons.visualize.render_thumbnail": "render_image, which returns a PIL image",
    "gee_polygons.visualize.add_label": "render_image(..., label=TEXT)",
    "gee_polygons.visualize.get_vis_params_from_layer": "MAPBIOMAS_VIS, DYNAMIC_WORLD_VIS, or no vis_params at all",
    "Site.from_geojson": "Site(polygon=shapely.geometry.shape(feature['geometry']), site_id=ID)",
    "Site.from_geodataframe_row": "sites_from_geodataframe(gdf)",
    "Site.show_layer": "export_layer_timestrip(site, layer, path, years), or site.show(image, vis_params)",
    "SiteCollection.from_sites": "SiteCollection(sites)",
    "SiteCollection.from_feature_collection": (
        "sites_from_geodataframe(geopandas.GeoDataFrame.from_features(collection.getInfo(), crs='EPSG:4326'))"
    ),
    "SiteCollection.filter_by_property": "sites.filter(NAME=VALUE)",
    "SiteCollection.feature_collection": "ee.FeatureCollection([site.feature for site in sites])",
    "CategoricalLayer.temporal_mode": "is_image: True for one image with a band per year",
    "CategoricalLayer.band_pattern": "band, such as 'classification_{year}'",
    "CategoricalLayer.class_name": "layer.class_names[NUMBER]",
    "CategoricalLayer.class_color": "layer.palette[NUMBER]",
}
for _name in ("ExportDestination", "ExportConfig", "ExportTask", "ChunkedResult"):
    _home = "collection" if _name == "ChunkedResult" else "export"
    INSTEAD[f"gee_polygons.{_home}.{_name}"] = INSTEAD[f"gee_polygons.{_name}"]


def old_name(module: str, name: str) -> Any:
    """Return what a module had under a name in 0.0.4.

    Raises
    ------
    MovedError
        If there is something else to use today.
    AttributeError
        If 0.0.4 had no such name either.

    Examples
    --------
    >>> old_name("gee_polygons.datasets.mapbiomas", "MAPBIOMAS_LULC").name
    'mapbiomas'
    """
    full = f"{module}.{name}"
    if full in SAME:
        home, _, path = SAME[full].partition(":")
        found: Any = importlib.import_module(home)
        for part in path.split("."):
            found = getattr(found, part)
        return found
    if full in INSTEAD:
        raise MovedError(_message(full))
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def with_old_names(module: str) -> None:
    """Let a module find its names of 0.0.4 as well; called in its last line."""
    sys.modules[module].__dict__["__getattr__"] = lambda name: old_name(module, name)


def with_old_members(cls: _T) -> _T:
    """Let a class find its members of 0.0.4 as well; a decorator."""
    for full in (*SAME, *INSTEAD):
        owner, _, name = full.partition(".")
        if owner == cls.__name__:
            setattr(cls, name, _OldMember(full))
    return cls


class _OldMember:
    """A member of a class in 0.0.4."""

    def __init__(self, full: str) -> None:
        self._full = full

    def __get__(self, thing: Any, owner: type) -> Any:
        if self._full in SAME:
            return getattr(owner if thing is None else thing, SAME[self._full])
        raise AttributeError(_message(self._full))


def _message(full: str) -> str:
    return f"{full} of version 0.0.4 is gone; instead: {INSTEAD[full]} (see {PAGE})"
