"""Intersects polygons with pixel grids and sums up their pixels; reads no files."""
