"""`python -m gee_polygons`: the same as the command `gee-polygons`."""

from gee_polygons.cli.main import main

if __name__ == "__main__":
    main(prog_name="gee-polygons")
