"""MapBiomas Brazil, collection 10: yearly land cover and use, and deforestation with secondary vegetation, at 30 m.

Source: MapBiomas Project, Collection 10 of the annual land cover and land use maps of Brazil (1985-2024), and its
product "Deforestation and Secondary Vegetation"; codes, names and colours of their public legends. Both are single
images with one band per year. Pixels are in EPSG:4326, about 30 m; class 0 is "not observed".
"""

from __future__ import annotations

from typing import Any, Final

from gee_polygons.layers import CategoricalLayer
from gee_polygons.moved import with_old_names
from gee_polygons.sources.earthengine.images import layer_image

__all__ = [
    "MAPBIOMAS",
    "MAPBIOMAS_SECONDARY",
    "MAPBIOMAS_SECONDARY_VIS",
    "MAPBIOMAS_VIS",
    "get_mapbiomas_image",
]

_FOLDER: Final = "projects/mapbiomas-public/assets/brazil/lulc/collection10"
_ATTRIBUTION: Final = (
    "MapBiomas Project - Collection 10 of the Annual Land Cover and Land Use Maps of Brazil. (CC BY 4.0)"
)

# the legend's own order: natural vegetation, farming, non-vegetated, water
_COVERAGE: Final[tuple[tuple[int, str, str], ...]] = (
    (1, "Forest", "#1f8d49"),
    (3, "Forest Formation", "#1f8d49"),
    (4, "Savanna Formation", "#7dc975"),
    (5, "Mangrove", "#04381d"),
    (6, "Floodable Forest", "#007785"),
    (49, "Wooded Sandbank Vegetation", "#02d659"),
    (10, "Herbaceous and Shrubby Vegetation", "#d6bc74"),
    (11, "Wetland", "#519799"),
    (12, "Grassland", "#d6bc74"),
    (32, "Hypersaline Tidal Flat", "#fc8114"),
    (29, "Rocky Outcrop", "#ffaa5f"),
    (50, "Herbaceous Sandbank Vegetation", "#ad5100"),
    (13, "Other Non Forest Formations", "#d89f5c"),
    (14, "Farming", "#ffefc3"),
    (15, "Pasture", "#edde8e"),
    (18, "Agriculture", "#e974ed"),
    (19, "Temporary Crop", "#c27ba0"),
    (39, "Soybean", "#f5b3c8"),
    (20, "Sugar Cane", "#db7093"),
    (40, "Rice", "#c71585"),
    (62, "Cotton", "#ff69b4"),
    (41, "Other Temporary Crops", "#f54ca9"),
    (36, "Perennial Crop", "#d082de"),
    (46, "Coffee", "#d68fe2"),
    (47, "Citrus", "#9932cc"),
    (35, "Palm Oil", "#9065d0"),
    (48, "Other Perennial Crops", "#e6ccff"),
    (9, "Forest Plantation", "#7a5900"),
    (21, "Mosaic of Uses", "#ffefc3"),
    (22, "Non Vegetated Area", "#d4271e"),
    (23, "Beach, Dune and Sand Spot", "#ffa07a"),
    (24, "Urban Area", "#d4271e"),
    (30, "Mining", "#9c0027"),
    (75, "Photovoltaic Power Plant", "#c12100"),
    (25, "Other Non Vegetated Areas", "#db4d4f"),
    (26, "Water", "#2532e4"),
    (33, "River, Lake and Ocean", "#2532e4"),
    (31, "Aquaculture", "#091077"),
    (27, "Not Observed", "#ffffff"),
    (0, "Not Observed", "#ffffff"),
)

_SECONDARY: Final[tuple[tuple[int, str, str], ...]] = (
    (0, "No Data", "#ffffff"),
    (1, "Anthropic", "#faf5d1"),
    (2, "Primary Vegetation", "#3f7849"),
    (3, "Secondary Vegetation", "#5bcf20"),
    (4, "Primary Vegetation Suppression", "#ea1c1c"),
    (5, "Recovery to Secondary Vegetation", "#b4f792"),
    (6, "Secondary Vegetation Suppression", "#fe9934"),
    (7, "Other Transitions", "#303149"),
)


def _layer(name: str, asset: str, classes: tuple[tuple[int, str, str], ...], description: str) -> CategoricalLayer:
    return CategoricalLayer(
        name=name,
        collection_id=f"{_FOLDER}/{asset}",
        band="classification_{year}",
        scale_m=30.0,
        first_year=1985,
        last_year=2024,
        class_names={number: label for number, label, _ in classes},
        palette={number: color for number, _, color in classes},
        description=description,
        attribution=_ATTRIBUTION,
    )


MAPBIOMAS: Final = _layer(
    "mapbiomas",
    "mapbiomas_brazil_collection10_coverage_v2",
    _COVERAGE,
    "MapBiomas Brazil collection 10, yearly land cover and land use.",
)
"""Land cover and use, 1985-2024."""

MAPBIOMAS_SECONDARY: Final = _layer(
    "mapbiomas_secondary",
    "mapbiomas_brazil_collection10_deforestation_secondary_vegetation_v2",
    _SECONDARY,
    "MapBiomas Brazil collection 10, deforestation and secondary vegetation, year by year.",
)
"""Deforestation and secondary vegetation: classes 4 and 6 are a year's clearing, 5 its regrowth.

Clearing and regrowth are confirmed by the years around them, so the first and last years of the series hold less.
"""


def _vis(layer: CategoricalLayer) -> dict[str, Any]:
    last = max(layer.palette)
    colors = [layer.palette.get(number, "#ffffff").lstrip("#") for number in range(last + 1)]
    return {"min": 0, "max": last, "palette": colors}


MAPBIOMAS_VIS: Final = _vis(MAPBIOMAS)
"""The legend's colours by class number, white where there is no class."""

MAPBIOMAS_SECONDARY_VIS: Final = _vis(MAPBIOMAS_SECONDARY)
"""The colours of deforestation and secondary vegetation."""


def get_mapbiomas_image(year: int, *, layer: CategoricalLayer = MAPBIOMAS) -> Any:
    """Return an image of the classes of a year.

    Parameters
    ----------
    year : int
        1985..2024.
    layer : CategoricalLayer
        `MAPBIOMAS` (land cover and use) or `MAPBIOMAS_SECONDARY` (deforestation and secondary vegetation).

    Returns
    -------
    ee.Image
        One band, ``classification``.

    Raises
    ------
    UsageError
        For a year outside the collection.
    """
    return layer_image(layer, None, year)


with_old_names(__name__)
