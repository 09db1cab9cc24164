"""Checks an embedding table and reports what is wrong with it, in which rows, and how to mend it."""

from gee_polygons.audit.auditing import audit
from gee_polygons.audit.report import AuditReport, Finding, Severity

__all__ = ["AuditReport", "Finding", "Severity", "audit"]
