"""Side-by-side measurements: `python -m benchmarks` (or `make bench`); RESULTS.md holds what one run printed."""
