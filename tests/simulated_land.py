"""The sample archive's land with other seeds: sites made of pixels, whose recovery trajectories are curved.

Unlike in the two simulators of series, means come from quantised pixels; a restoration site passes through young
forest, which is no mixture of pasture and old forest; growth differs within a site; references and controls are few.
The truth is the mean progress of a site's pixels, which no embedding shows directly.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import shapely
from oracles import shapely_coverage, weighted_means, window_of
from simulated_sites import Simulation

from gee_polygons import extract_embeddings
from gee_polygons.alphaearth import BANDS
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.sources.sample.kernel import _PACE, _value
from gee_polygons.sources.sample.landscape import PIXEL_M, Patch, _key
from gee_polygons.sources.sample.scene import _SITES, _scene, sample_sites

YEARS = tuple(range(2017, 2026))
CRS = "EPSG:32722"
UNSEEN = 0.1  # a site that never gets so far is planted, but doesn't change


def simulate_archive() -> Simulation:
    """The sample archive as it is, 2018-2024, through the library."""
    land, sites = simulate_land(seed=1), sample_sites()
    table = extract_embeddings(sites, years=range(2018, 2025), source="sample")
    return replace(land, table=table[table["site_id"].isin(land.progress.index)])


def simulate_land(*, seed: int) -> Simulation:
    """The sample archive's sites on land of another seed (1: the sample archive's own), without gaps or masks."""
    scene = replace(_scene(), seed=seed, masked=())
    sites = [site for site in _SITES if site.site_id not in ("outside", "sub-pixel")]
    rows, truth = [], []
    for site in sites:
        window, weights, pace = _pixels(scene, site.outline)
        patch = Patch(polygon=site.outline, covers=site.covers, start_year=site.start_year or 0, pace=site.pace)
        for year in YEARS:
            truth.append(np.average(np.clip(patch.progress(year) * pace, 0, 1), weights=weights))
            mean, total = weighted_means(codes_to_vectors(scene.codes(CRS, window, year)), weights)
            about = {"site_id": site.site_id, "year": year, "n_pixels": total, "Rbar": np.linalg.norm(mean)}
            rows.append(about | dict(zip(BANDS, mean, strict=True)))
    ids = [site.site_id for site in sites]
    progress = pd.DataFrame(np.reshape(truth, (len(sites), len(YEARS))), ids, list(YEARS))
    planted = pd.Series([site.start_year for site in sites], ids).astype("Int64")
    return Simulation(
        table=pd.DataFrame(rows).assign(valid_fraction=1.0, status="ok"),
        start=planted.where(progress.max(axis=1) > UNSEEN),
        progress=progress,
        reference_ids=[site.site_id for site in sites if site.kind == "reference"],
        control_ids=[site.site_id for site in sites if site.kind == "control"],
        planted={site.site_id: site.start_year for site in sites if site.kind == "restoration"},
    )


def _pixels(scene, outline):
    """Return the window around an outline, and each pixel's coverage and pace relative to its site's."""

    def to_pixels(xy):
        x, y = scene.from_frame(CRS, xy[:, 0], xy[:, 1])
        return np.column_stack([x, -np.asarray(y)]) / PIXEL_M

    polygon = shapely.transform(outline, to_pixels)
    window = window_of(polygon)
    rows, cols = np.mgrid[window.row : window.row_stop, window.col : window.col_stop] + 0.5
    x, y = scene.to_frame(CRS, cols * PIXEL_M, rows * -PIXEL_M)
    key = np.uint32(_key(scene.seed, _PACE))
    pace = [1 + 0.35 * _value(a, b, 120.0, key) for a, b in zip(x.flat, y.flat, strict=True)]
    return window, shapely_coverage(polygon, window), np.reshape(pace, x.shape)
