"""Polygon x grid, without I/O: grids, projection, coverage, kernels, partial sums."""
