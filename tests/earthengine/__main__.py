"""Run the local Earth Engine as a process: prints its address, and serves until it is interrupted.

    python -m earthengine --tiles FOLDER [--catalogue FOLDER] [--exports FOLDER] [--port 0] [--latency 0.2]

(from the folder `tests`, or with it on PYTHONPATH).
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from . import EarthEngineServer


def main() -> None:
    parser = argparse.ArgumentParser(description="A local Earth Engine for tests.")
    parser.add_argument("--tiles", help="folder of AEF-style tiles")
    parser.add_argument("--catalogue", help="folder with a catalogue.json")
    parser.add_argument("--exports", help="folder that stands in for Drive and Cloud Storage")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds per request")
    options = parser.parse_args()
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with EarthEngineServer(options.tiles, options.catalogue, options.exports, port=options.port) as server:
        server.faults.latency_s = options.latency
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        done.wait()


if __name__ == "__main__":
    main()
