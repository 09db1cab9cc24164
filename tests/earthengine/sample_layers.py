"""The sample archive's land as MapBiomas, Dynamic World and Sentinel-2 would show it: synthetic, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pyproj import Transformer

from gee_polygons.datasets.dynamicworld import DYNAMIC_WORLD, DYNAMIC_WORLD_PROBABILITIES
from gee_polygons.datasets.mapbiomas import MAPBIOMAS
from gee_polygons.datasets.sentinel2 import SENTINEL2_REFLECTANCE
from gee_polygons.sources.sample.scene import truth_label
from gee_polygons.zonal.grid import Window

from .synthetic import Catalogue

CRS, STEP = "EPSG:32722", 10
DEGREE = 0.000269494585235856  # MapBiomas' pixel
WINDOW = Window(row=-752800, col=80320, height=460, width=480)  # the western half of the sample sites
# pasture, young forest, mature forest, crop, water, built
_MAPBIOMAS = np.array([15, 3, 3, 20, 33, 24], np.uint8)
_DYNAMIC_WORLD = np.array([2, 5, 1, 4, 0, 6], np.uint8)
_REFLECTANCE = {
    "B2": (600, 380, 250, 750, 500, 1200),
    "B3": (900, 680, 450, 1050, 450, 1300),
    "B4": (1050, 520, 280, 1150, 300, 1400),
    "B8": (2700, 3100, 3000, 3500, 150, 2000),
    "B11": (2900, 2100, 1600, 2600, 80, 2300),
    "B12": (1800, 1100, 700, 1500, 50, 2000),
}


def write_sample_layers(folder: Path, years: Iterable[int] = range(2018, 2025)) -> Path:
    """Write a catalogue for `EarthEngineServer`: each year one classified image, and two scenes, one of them cloudy."""
    catalogue, years = Catalogue(folder), list(years)
    west, north = WINDOW.col * STEP, -WINDOW.row * STEP
    labels = {year: truth_label(CRS, WINDOW, year) for year in years}
    place = {"west": west, "north": north, "epsg": int(CRS[5:])}

    lon, lat = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(
        [west, west + WINDOW.width * STEP], [north, north - WINDOW.height * STEP]
    )
    columns, rows = np.arange(lon[0], lon[1], DEGREE), np.arange(lat[0], lat[1], -DEGREE)
    x, y = Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform(
        *np.meshgrid(columns + DEGREE / 2, rows - DEGREE / 2)
    )
    at = tuple(
        np.clip(np.floor(metres / STEP).astype(int), 0, size - 1)
        for metres, size in ((north - y, WINDOW.height), (x - west, WINDOW.width))
    )
    catalogue.add(
        MAPBIOMAS.collection_id,
        {MAPBIOMAS.band_of(year): _by_class(_MAPBIOMAS, labels[year][at]) for year in years},
        west=lon[0], north=lat[0], epsg=4326, step=DEGREE,
    )  # fmt: skip

    for year in years:
        classes = _by_class(_DYNAMIC_WORLD, labels[year], missing=4)
        names = DYNAMIC_WORLD_PROBABILITIES.bands
        shares = {name: np.where(classes == n, 0.8, 0.025).astype(np.float32) for n, name in enumerate(names)}
        scene = {"index": f"{year}0715T132000_T22KGA", "start": f"{year}-07-15T13:20:00"}
        catalogue.add(DYNAMIC_WORLD.collection_id, {**shares, "label": classes}, **place, **scene)
        noise = 1 + 0.06 * np.random.default_rng(year).standard_normal(labels[year].shape)
        ground = {
            band: (_by_class(np.array(values), labels[year]) * noise).astype(np.uint16)
            for band, values in _REFLECTANCE.items()
        }
        cloud = np.hypot(*np.ogrid[-200 : WINDOW.height - 200, -150 : WINDOW.width - 150]) < 60 + 10 * (year % 3)
        for day, covered in (("0715", np.zeros_like(cloud)), ("0804", cloud)):
            bands = {band: np.where(covered, 6000, values).astype(np.uint16) for band, values in ground.items()}
            bands["SCL"] = np.where(covered, 9, 4).astype(np.uint8)
            scene = {"index": f"{year}{day}T132000_T22KGA", "start": f"{year}-{day[:2]}-{day[2:]}T13:20:00"}
            catalogue.add(SENTINEL2_REFLECTANCE.collection_id, bands, **place, **scene)
    return catalogue.save()


def _by_class(values: np.ndarray, labels: np.ndarray, missing: int = 0) -> np.ndarray:
    """Return the value of each pixel's land cover; `missing` where the sample is masked."""
    return np.where(labels == 255, missing, values[np.minimum(labels, len(values) - 1)]).astype(values.dtype)
