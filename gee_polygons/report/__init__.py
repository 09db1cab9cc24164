"""Writes an HTML page about a table of embeddings: what changed, what recovered, with pictures."""

from gee_polygons.report.roles import check_references, check_shared, of_kind, prototypes_of
from gee_polygons.report.writing import check_report, write_report

__all__ = ["check_references", "check_report", "check_shared", "of_kind", "prototypes_of", "write_report"]
