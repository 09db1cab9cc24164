"""Sentinel-2 surface reflectance (harmonised): cloud masks, four indices, yearly and monthly composites.

Source: Copernicus Sentinel-2, COPERNICUS/S2_SR_HARMONIZED in the Earth Engine catalogue (values are reflectance times
10,000; scenes after January 2022 are shifted to the range of the older ones). Indices are computed scene by scene and
composited afterwards: a median of indices, not an index of medians.

* NDVI = (NIR - red) / (NIR + red), Rouse et al. 1974
* EVI = 2.5 (NIR - red) / (NIR + 6 red - 7.5 blue + 1), Huete et al. 2002
* NBR = (NIR - SWIR2) / (NIR + SWIR2), Key and Benson 2006
* NDWI = (green - NIR) / (green + NIR), McFeeters 1996 (open water; not Gao's index of water in leaves)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from gee_polygons.errors import UsageError
from gee_polygons.layers import ContinuousLayer
from gee_polygons.moved import with_old_names
from gee_polygons.sources.earthengine.images import layer_image

__all__ = [
    "CLOUD_MASKS",
    "SENTINEL2_INDICES",
    "SENTINEL2_REFLECTANCE",
    "SENTINEL2_VIS_NDVI",
    "SENTINEL2_VIS_TRUE",
    "add_indices",
    "get_sentinel2_image",
    "mask_cloud_score_plus",
    "mask_scl",
    "with_cloud_mask",
]

_ID: Final = "COPERNICUS/S2_SR_HARMONIZED"
_CLOUD_SCORE_ID: Final = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"
_REFLECTANCE: Final = ("B2", "B3", "B4", "B8", "B11", "B12")
_INDICES: Final = ("NDVI", "EVI", "NBR", "NDWI")
_SCALE: Final = 10_000  # digital numbers per unit of reflectance
# scene classes that are not ground: no data, saturated, cloud shadow, cloud of medium and high probability, cirrus
_SCL_MASKED: Final = (0, 1, 3, 8, 9, 10)
# the catalogue's example keeps pixels that are this clear
_CLEAR: Final = 0.60


def mask_scl(image: Any) -> Any:
    """Mask clouds, shadows, cirrus and bad pixels by the scene classification (band SCL, 20 m)."""
    scl = image.select("SCL")
    clear = scl.neq(_SCL_MASKED[0])
    for number in _SCL_MASKED[1:]:
        clear = clear.And(scl.neq(number))
    return image.updateMask(clear)


def mask_cloud_score_plus(image: Any) -> Any:
    """Mask pixels with a Cloud Score+ (Pasquarella et al. 2023; band cs_cdf, 10 m) below 0.6."""
    import ee

    scored = image.linkCollection(ee.ImageCollection(_CLOUD_SCORE_ID), ["cs_cdf"])
    return image.updateMask(scored.select("cs_cdf").gte(_CLEAR))


CLOUD_MASKS: Final[dict[str, Callable[[Any], Any]]] = {"scl": mask_scl, "cloud_score_plus": mask_cloud_score_plus}
"""The masks by name. SCL needs no second collection; Cloud Score+ finds more thin cloud and shadow."""


def add_indices(image: Any) -> Any:
    """Return NDVI, EVI, NBR and NDWI of a scene. A negative reflectance masks the normalized differences."""
    import ee

    reflectance = _reflectance(image)
    red, nir, blue = (reflectance.select(b) for b in ("B4", "B8", "B2"))
    evi = nir.subtract(red).multiply(2.5).divide(nir.add(red.multiply(6)).subtract(blue.multiply(7.5)).add(1))
    pairs = {"NDVI": ("B8", "B4"), "NBR": ("B8", "B12"), "NDWI": ("B3", "B8")}
    found = {name: reflectance.normalizedDifference(list(pair)).rename(name) for name, pair in pairs.items()}
    found["EVI"] = evi.rename("EVI")
    return ee.Image.cat([found[name] for name in _INDICES])


def _reflectance(image: Any) -> Any:
    return image.select(list(_REFLECTANCE)).toFloat().divide(_SCALE)


@dataclass(frozen=True)
class _Prepare:
    """Masks the clouds of a scene and computes its bands; unlike a partial function, equal when it does the same."""

    cloud_mask: str
    indices: bool

    def __call__(self, image: Any) -> Any:
        masked = CLOUD_MASKS[self.cloud_mask](image)
        return add_indices(masked) if self.indices else _reflectance(masked)


SENTINEL2_INDICES: Final = ContinuousLayer(
    name="sentinel2_indices",
    collection_id=_ID,
    bands=_INDICES,
    scale_m=10.0,
    first_year=2017,
    description="Sentinel-2 NDVI, EVI, NBR and NDWI: median of the cloud-free scenes of the period.",
    attribution="Contains modified Copernicus Sentinel data.",
    composite="median",
    prepare=_Prepare("scl", indices=True),
)
"""Four vegetation, burn and water indices. Surface reflectance begins on 28 March 2017, globally in December 2018."""

SENTINEL2_REFLECTANCE: Final = replace(
    SENTINEL2_INDICES,
    name="sentinel2_reflectance",
    bands=_REFLECTANCE,
    description="Sentinel-2 surface reflectance, 0..1: median of the cloud-free scenes of the period.",
    prepare=_Prepare("scl", indices=False),
)
"""Blue, green, red, near infrared (10 m) and both short-wave infrareds (20 m)."""

SENTINEL2_VIS_TRUE: Final[dict[str, Any]] = {"bands": ["B4", "B3", "B2"], "min": 0.0, "max": 0.25}
"""True colour."""
SENTINEL2_VIS_NDVI: Final[dict[str, Any]] = {
    "bands": ["NDVI"],
    "min": 0.0,
    "max": 0.9,
    "palette": ["440154", "3b528b", "21918c", "5ec962", "fde725"],
}
"""NDVI in viridis."""


def with_cloud_mask(layer: ContinuousLayer, cloud_mask: str) -> ContinuousLayer:
    """Return a Sentinel-2 layer with another cloud mask.

    Examples
    --------
    >>> with_cloud_mask(SENTINEL2_INDICES, "cloud_score_plus").related_ids
    ('GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED',)
    """
    if cloud_mask not in CLOUD_MASKS:
        raise UsageError(f"cloud_mask must be one of {', '.join(CLOUD_MASKS)}, found {cloud_mask!r}")
    related = (_CLOUD_SCORE_ID,) if cloud_mask == "cloud_score_plus" else ()
    if not isinstance(layer.prepare, _Prepare):
        raise UsageError(f"layer {layer.name!r} isn't made by this module; give one of its Sentinel-2 layers")
    return replace(layer, prepare=replace(layer.prepare, cloud_mask=cloud_mask), related_ids=related)


def get_sentinel2_image(
    geometry: Any,
    year: int,
    month: int | None = None,
    *,
    bands: Sequence[str] | None = None,
    cloud_mask: str = "scl",
) -> Any:
    """Return the median of a year's or month's cloud-free scenes.

    Parameters
    ----------
    geometry : shapely geometry in EPSG:4326, or ee.Geometry
        Region of interest.
    year : int
        2017 or later.
    month : int, optional
        1..12. Default: the whole year.
    bands : sequence of str, optional
        Indices (NDVI, EVI, NBR, NDWI) and reflectances (B2, B3, B4, B8, B11, B12), in this order. Default: the indices.
    cloud_mask : str
        ``"scl"`` or ``"cloud_score_plus"``.

    Returns
    -------
    ee.Image
        Float bands; masked where no cloud-free pixel was found.

    Raises
    ------
    UsageError
        For an unknown band or mask, or a year or month without data.
    """
    wanted = list(_INDICES) if bands is None else [bands] if isinstance(bands, str) else list(bands)
    unknown = [b for b in wanted if b not in _INDICES + _REFLECTANCE]
    if unknown or not wanted:
        named = repr(unknown[0]) if unknown else "an empty list"
        raise UsageError(f"there is no band {named}; there are {', '.join(_INDICES + _REFLECTANCE)}")
    images = [
        layer_image(with_cloud_mask(layer, cloud_mask), geometry, year, month)
        for layer in (SENTINEL2_INDICES, SENTINEL2_REFLECTANCE)
        if any(b in layer.bands for b in wanted)
    ]
    found = images[0] if len(images) == 1 else images[0].addBands(images[1])
    return found.select(wanted)


with_old_names(__name__)
