"""The command line `gee-polygons`: one module per group of commands."""
