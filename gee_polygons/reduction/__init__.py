"""Reduces the pixels of sources over polygons: plans, reads blocks, sums them up and merges the sums."""
