"""Checks an embedding table and reports what is wrong with it, in which rows, and how to repair it."""

from gee_polygons.audit.auditing import audit
from gee_polygons.audit.findings import AuditReport, Finding, Severity

__all__ = ["AuditReport", "Finding", "Severity", "audit"]
