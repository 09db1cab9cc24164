"""The synthetic sample archive: files in the layout of the real one, with values known by formula."""

from gee_polygons.sources.sample.archive import (
    LAND_COVER,
    SAMPLE_YEARS,
    UNLABELLED,
    build_sample_archive,
    make_benchmark_tile,
    sample_archive_path,
    sample_sites,
    sample_sites_geojson,
    truth_codes,
    truth_label,
    truth_vectors,
    write_sample_sites,
    write_tile,
)

__all__ = [
    "LAND_COVER",
    "SAMPLE_YEARS",
    "UNLABELLED",
    "build_sample_archive",
    "make_benchmark_tile",
    "sample_archive_path",
    "sample_sites",
    "sample_sites_geojson",
    "truth_codes",
    "truth_label",
    "truth_vectors",
    "write_sample_sites",
    "write_tile",
]
