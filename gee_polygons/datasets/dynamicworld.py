"""Dynamic World: land cover in near real time, one image per Sentinel-2 scene, 9 classes at 10 m.

Source: Brown et al., *Dynamic World, Near real-time global 10 m land use land cover mapping*, Scientific Data 9, 251
(2022); classes and colours as in the Earth Engine catalogue, GOOGLE/DYNAMICWORLD/V1. A single scene is noisy: take the
most frequent class of a year, or the mean of its probabilities.
"""

from __future__ import annotations

from typing import Any, Final

from gee_polygons.layers import CategoricalLayer, ContinuousLayer
from gee_polygons.moved import with_old_names
from gee_polygons.sources.earthengine.images import layer_image

__all__ = [
    "DYNAMIC_WORLD",
    "DYNAMIC_WORLD_PROBABILITIES",
    "DYNAMIC_WORLD_VIS",
    "get_dynamic_world_image",
]

_ID: Final = "GOOGLE/DYNAMICWORLD/V1"
_CLASSES: Final[tuple[tuple[str, str], ...]] = (
    ("water", "#419bdf"),
    ("trees", "#397d49"),
    ("grass", "#88b053"),
    ("flooded_vegetation", "#7a87c6"),
    ("crops", "#e49635"),
    ("shrub_and_scrub", "#dfc35a"),
    ("built", "#c4281b"),
    ("bare", "#a59b8f"),
    ("snow_and_ice", "#b39fe1"),
)
_FIRST_YEAR: Final = 2015  # from 27 June 2015
_ATTRIBUTION: Final = (
    "This dataset is produced for the Dynamic World Project by Google in partnership with National Geographic Society "
    "and the World Resources Institute. (CC BY 4.0)"
)

DYNAMIC_WORLD: Final = CategoricalLayer(
    name="dynamic_world",
    collection_id=_ID,
    band="label",
    scale_m=10.0,
    first_year=_FIRST_YEAR,
    class_names={number: name for number, (name, _) in enumerate(_CLASSES)},
    palette={number: color for number, (_, color) in enumerate(_CLASSES)},
    description="Dynamic World land cover, 9 classes: the most frequent class of the period.",
    attribution=_ATTRIBUTION,
    composite="mode",
)
"""The most frequent class, pixel by pixel, of all cloud-free scenes of a year (or month)."""

DYNAMIC_WORLD_PROBABILITIES: Final = ContinuousLayer(
    name="dynamic_world_probabilities",
    collection_id=_ID,
    bands=tuple(name for name, _ in _CLASSES),
    scale_m=10.0,
    first_year=_FIRST_YEAR,
    description="Dynamic World class probabilities, 0..1: their mean over the period.",
    attribution=_ATTRIBUTION,
    composite="mean",
)
"""The 9 probabilities, averaged over all cloud-free scenes of a year (or month)."""

DYNAMIC_WORLD_VIS: Final[dict[str, Any]] = {
    "min": 0,
    "max": len(_CLASSES) - 1,
    "palette": [color.lstrip("#") for _, color in _CLASSES],
}
"""The catalogue's colours, for `gee_polygons.visualize.render_image`."""


def get_dynamic_world_image(geometry: Any, year: int, month: int | None = None, *, probabilities: bool = False) -> Any:
    """Return Dynamic World's land cover of a year or month.

    Parameters
    ----------
    geometry : shapely geometry in EPSG:4326, or ee.Geometry
        Region of interest.
    year : int
        2015 or later (2015 begins on 27 June).
    month : int, optional
        1..12. Default: the whole year.
    probabilities : bool
        The mean probability of each class instead of the most frequent class.

    Returns
    -------
    ee.Image
        Band ``label`` with classes 0..8, or the 9 probability bands. Masked where no cloud-free scene was found.

    Raises
    ------
    UsageError
        For a year before 2015, an invalid month, or a geometry of another type.
    """
    return layer_image(DYNAMIC_WORLD_PROBABILITIES if probabilities else DYNAMIC_WORLD, geometry, year, month)


with_old_names(__name__)
