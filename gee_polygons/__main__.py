"""Runs `python -m gee_polygons` and the command `gee-polygons`; Ctrl-C is one line, also while they start."""

import sys


def run() -> None:
    """Run the command line; what it imports is imported here, where an interruption is caught."""
    try:
        from gee_polygons.cli.main import main

        main(prog_name="gee-polygons")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was written\n")
        sys.exit(130)


if __name__ == "__main__":
    run()
