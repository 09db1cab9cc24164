"""Builds the synthetic sample archive: files in the published layout, whose true values are known by formula."""

from gee_polygons.sources.cog.writing import write_tile
from gee_polygons.sources.sample.archive import SAMPLE_YEARS, build_sample_archive, sample_archive_path
from gee_polygons.sources.sample.kernel import UNLABELLED
from gee_polygons.sources.sample.landscape import LAND_COVER
from gee_polygons.sources.sample.scene import (
    sample_sites,
    sample_sites_geojson,
    truth_codes,
    truth_label,
    truth_vectors,
    write_sample_sites,
)

__all__ = [
    "LAND_COVER",
    "SAMPLE_YEARS",
    "UNLABELLED",
    "build_sample_archive",
    "sample_archive_path",
    "sample_sites",
    "sample_sites_geojson",
    "truth_codes",
    "truth_label",
    "truth_vectors",
    "write_sample_sites",
    "write_tile",
]
