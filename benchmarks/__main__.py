"""Run the benchmarks: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import peers, scaling
from benchmarks.contestants import CONTESTANTS
from benchmarks.workload import other_work, standard_work


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare this package with others on one tile, and see how it scales. Writes RESULTS.md for the "
        "standard tile and fields, prints only for others and for --quick.",
    )
    parser.add_argument("what", nargs="*", choices=["peers", *scaling.EXPERIMENTS, []], help="default: everything")
    parser.add_argument("--tile", type=Path, help="GeoTIFF of 64 int8 bands in blocks (with --polygons)")
    parser.add_argument("--polygons", type=Path, help="any vector file over it")
    parser.add_argument("--only", help=f"contestants, comma-separated: {', '.join(CONTESTANTS)}")
    parser.add_argument("--repeats", type=int, help="processes per contestant, at most")
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the tile, one process each")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md alone")
    asked = parser.parse_args()
    if bool(asked.tile) != bool(asked.polygons):
        parser.error("--tile and --polygons go together")
    work = other_work(asked.tile, asked.polygons) if asked.tile else standard_work(quick=asked.quick)
    write = not (asked.tile or asked.quick or asked.no_write)
    names = asked.only.split(",") if asked.only else list(CONTESTANTS)
    what = asked.what or ["peers", *scaling.EXPERIMENTS]
    if "peers" in what:
        peers.run(work, names, repeats=1 if asked.quick else asked.repeats, write=write)
    chosen = [name for name in scaling.EXPERIMENTS if name in what]
    if chosen:
        scaling.run(work, chosen, quick=asked.quick, write=write)


if __name__ == "__main__":
    main()
