"""Damages files of every kind that the package reads, at random from a fixed seed, and has it read them.

`python tests/fuzz.py [--stop 10000] [--seed 0] [TARGET ...]`, or `make fuzz`. Whatever the damage, reading must end in
numbers or in an error of this package, on one line, within a second of computing and 100 MB. A worker process does the
reading, so that one that dies is known by the number of the damage: `--first N --stop N+1` repeats it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely
from archives import random_codes
from mosaics import BloscCodec, BytesCodec, GzipCodec, Mosaic
from oracles import UTM, index_row, on_grid, one_line, sites, small_grid, unit_codes, write_gdal, write_index

from gee_polygons import build_from_table, extract_embeddings, load_sites, open_source
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import GeePolygonsError
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.cog.header import Content, open_tiles
from gee_polygons.sources.cog.writing import write_tile
from gee_polygons.sources.mosaic import MosaicSource
from gee_polygons.sources.raster import RasterSource

MOST_S, MOST_MB = 1.0, 100.0
SHAPE = (40, 50)
GRID = small_grid(SHAPE)
EXTREMES = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63,
            2**64 - 1)  # fmt: skip
VALUES: tuple[Any, ...] = (None, True, -1, 0, 1, 0.5, 2**31, 2**63, 2**64, 1e308, -1e308, float("nan"), float("inf"),
                           "", "x", "-1", "int64", "é\0\n", [], [[]], {}, [1, 2], {"x": 1}, [1e400] * 6,
                           "x" * 200)  # fmt: skip


ENDLESS_FRAME = b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8 + b"\x01\0\0"  # of zstd: claims 2^64 - 1 bytes


def polygons() -> Any:
    """Sites in the upper left of the pixels, one with a hole, one across the edge of the tile."""
    ring = shapely.Polygon([(3, 3), (20, 4), (18, 21), (4, 19)], [[(8, 8), (12, 8), (12, 12), (8, 12)]])
    return sites(on_grid([ring, shapely.box(30.2, 10.3, 60, 30.7)], GRID))


# --- damage


def damage_bytes(data: bytes, rng: np.random.Generator, end: int | None = None) -> bytes:
    """Change bytes, numbers or runs of bytes before `end`, or cut the data off."""
    end, out = min(end or len(data), len(data)), bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, kind = int(rng.integers(max(min(end, len(out)), 1))), int(rng.integers(6))
        if kind <= 1:
            out[at : at + 1] = bytes([byte ^ 1 << int(rng.integers(8)) for byte in out[at : at + 1]])
        elif kind == 2:
            size, order = int(rng.choice([1, 2, 4, 8])), str(rng.choice(["little", "big"]))
            number = int(rng.choice(np.array(EXTREMES, object))) % 2 ** (8 * size)
            out[at : at + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
        elif kind == 3:
            n = int(rng.integers(1, 64))
            out[at : at + n] = bytes(n) if rng.random() < 0.5 else rng.bytes(n)
        elif kind == 4:
            source, n = int(rng.integers(end)), int(rng.integers(1, 64))
            out[at : at + n] = out[source : source + n]
        elif rng.random() < 0.2:
            return bytes(out[:at])
    return bytes(out)


def damage_tags(data: bytes, rng: np.random.Generator) -> bytes:
    """Change fields of a TIFF's first directory to extreme or neighbouring values, or the bytes around it."""
    out, (where, n, size, order, big) = bytearray(data), directory(data)
    if rng.random() < 0.3:
        return damage_bytes(data, rng, where + n * size + 2000)
    for _ in range(int(rng.integers(1, 3))):
        at = where + int(rng.integers(n)) * size
        first, length = [(0, 2), (2, 2), (4, 8 if big else 4), (size - (8 if big else 4), 8 if big else 4)][
            rng.integers(4)
        ]
        old = int.from_bytes(out[at + first : at + first + length], order)
        new = [
            int(rng.choice(np.array(EXTREMES, object))),
            old + 1,
            old - 1,
            old * 2,
            old ^ 1 << int(rng.integers(8 * length)),
        ]
        number = new[rng.integers(5)] % 2 ** (8 * length)
        out[at + first : at + first + length] = number.to_bytes(length, order)
    return bytes(out)


def directory(data: bytes) -> tuple[int, int, int, Any, bool]:
    """Return where a TIFF's first directory has its entries, their number and size, the byte order, whether BigTIFF."""
    sign = "<" if data[:2] == b"II" else ">"
    big = struct.unpack(sign + "H", data[2:4])[0] == 43
    where = struct.unpack_from(sign + ("Q" if big else "I"), data, 8 if big else 4)[0]
    n = struct.unpack_from(sign + ("Q" if big else "H"), data, where)[0]
    return where + (8 if big else 2), n, 20 if big else 12, "little" if sign == "<" else "big", big


def damage_json(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace, remove or repeat members of a JSON document; sometimes damage its bytes."""
    if rng.random() < 0.2:
        return damage_bytes(data, rng)
    document = json.loads(data)
    for _ in range(int(rng.integers(1, 3))):
        found = list(members(document))
        (holder, key), (other, name) = (found[rng.integers(len(found))] for _ in range(2))
        kind = rng.integers(8)
        if kind == 0 and len(found) > 1:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder[key:key] = [holder[key]] * int(rng.integers(1, 50))
        else:
            holder[key] = deepcopy(other[name] if kind == 2 else VALUES[rng.integers(len(VALUES))])
    return json.dumps(document).encode()


def members(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the objects and lists of a document with each of their keys and positions."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from members(node[key])


@cache
def bombs() -> tuple[bytes, ...]:
    """Return short frames of every compressor that hold 60 MB of zeros, or claim to hold more."""
    import imagecodecs

    zeros = bytes(60 * 2**20)
    return (imagecodecs.zstd_encode(zeros), imagecodecs.zlib_encode(zeros), imagecodecs.lzw_encode(zeros[: 2**20]),
            imagecodecs.gzip_encode(zeros), imagecodecs.blosc_encode(zeros), ENDLESS_FRAME)  # fmt: skip


def damage_blocks(data: bytes, rng: np.random.Generator, start: int | None = None) -> bytes:
    """Damage what lies behind a TIFF's header, or behind `start`; put frames in that claim or hold too much."""
    start = min(directory(data)[0] + 3000, len(data) - 1) if start is None else start
    if rng.random() < 0.5:
        return data[:start] + damage_bytes(data[start:], rng)
    out = bytearray(data)
    for at in [start, *rng.integers(start, len(data), 20).tolist()]:
        frame = bombs()[rng.integers(len(bombs()))]
        out[at : at + len(frame)] = frame[: max(len(data) - at, 5000)]
    return bytes(out)


# --- targets: files to damage, and how they are read


def tag_last(path: Path) -> Path:
    """Move the directory to the end of the file, its tags in reversed order."""
    data = path.read_bytes()
    where, n, size, order, big = directory(data)
    entries = [data[where + i * size : where + (i + 1) * size] for i in range(n)]
    start = len(data) + len(data) % 2
    first = n.to_bytes(8 if big else 2, order) + b"".join(reversed(entries)) + bytes(8)
    at = start.to_bytes(8 if big else 4, order)
    head = data[: 8 if big else 4] + at
    path.write_bytes((head + data[len(head) :]).ljust(start, b"\0") + first)
    return path


def write_tiles(folder: Path) -> list[Path]:
    """Write one tile in each layout of headers."""
    codes = random_codes(SHAPE, seed=1)
    layouts = {
        "big": {"bigtiff": "yes"},
        "swapped": {"endianness": "big"},
        "big-swapped": {"bigtiff": "yes", "endianness": "big"},
        "pixel": {"interleave": "pixel"},
        "deflate": {"compress": "deflate", "predictor": 2},
        "plain": {"compress": "none"},
        "lzw": {"compress": "lzw", "sparse_ok": "true"},
        "one-block": {"blockxsize": 64, "blockysize": 64},
    }
    made = [write_tile(folder / "published.tiff", GRID, codes, block=16)]
    for name, layout in layouts.items():
        how = {"compress": "zstd", "interleave": "band", "blockxsize": 16, "blockysize": 32, "tiled": True, **layout}
        made.append(write_gdal(folder / f"{name}.tiff", GRID, codes, **how))
    made.append(tag_last(write_gdal(folder / "last.tiff", GRID, codes, compress="zstd", interleave="band", tiled=True,
                                    blockxsize=16, blockysize=16)))  # fmt: skip
    made.append(write_gdal(folder / "overviews.tiff", GRID, codes, compress="zstd", interleave="band", tiled=True,
                           blockxsize=16, blockysize=16))  # fmt: skip
    import rasterio

    with rasterio.open(made[-1], "r+") as file:
        file.build_overviews([2, 4])
    return made


def read_tile(path: Path) -> None:
    """Extract from the tile, and parse its header as one of an unknown collection."""
    open_tiles([(str(path), 2024)], contents=Content())
    row = index_row(path, GRID)
    extract_embeddings(polygons(), source=CogSource(write_index(path.parent, [row])), progress=False)


def write_mosaics(folder: Path) -> list[Path]:
    """Write a mosaic in shards, and in chunks of each compressor; every file of theirs is to be damaged."""
    codes = np.stack([unit_codes((32, 64), seed=i) for i in range(2)])
    whole = Mosaic(codes=codes)
    plain, vectors = whole.but(shard=None, on="array"), codes_to_vectors(codes, np.float32)
    floats = plain.but(codes=vectors, dtype="float32", fill=float("nan"), chunk=(1, 64, 32, 64))
    how = {
        "shards": whole,
        "chunks": plain,
        "gzip": plain.but(codecs=(BytesCodec(), GzipCodec(level=1))),
        "blosc": plain.but(codecs=(BytesCodec(), BloscCodec(cname="lz4", typesize=1, shuffle="shuffle"))),
        "floats": floats,
    }
    stores = [mosaic.write(folder / name) for name, mosaic in how.items()]
    return [path for store in stores for path in sorted(store.rglob("*")) if path.is_file()]


def read_mosaic(path: Path) -> None:
    """Extract from the mosaic that a file belongs to."""
    store = next(folder for folder in path.parents if folder.parent.name == "mosaics")
    step = 8.983111749910169e-05
    square = shapely.box(-48.05 + 4.3 * step, -22.33 - 20 * step, -48.05 + 30 * step, -22.33 - 3.2 * step)
    extract_embeddings(sites([square], crs="EPSG:4326"), source=MosaicSource(store), progress=False)


def write_indexes(folder: Path) -> list[Path]:
    """Write an archive's index in its formats, and a collection, whose table holds the headers."""
    tile = write_tile(folder / "tile.tiff", GRID, random_codes(SHAPE, seed=1), block=16)
    (folder / "kept").mkdir()
    made = [write_index(folder, [index_row(tile, GRID), index_row("other.tiff", GRID, 2023)])]
    pd.read_parquet(made[0]).assign(geom="").to_csv(folder / "index.csv", index=False)
    kept = write_index(folder / "kept", [index_row(tile, GRID)])
    build_from_table(kept, path=folder / "collection.parquet")
    boxes = geopandas.GeoDataFrame(
        pd.read_parquet(made[0]).drop(columns=["geom", "fid"]), geometry=polygons().geometry, crs=4326
    )
    boxes.to_file(folder / "index.gpkg")
    box = polygons().to_crs(GRID.crs).to_crs(4326).total_bounds
    item = {
        "datetime": "2024-01-01T00:00:00Z",
        "proj:epsg": 32722,
        "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)),
        "assets": {"data": {"href": str(tile)}},
    }
    pd.DataFrame([item] * 3).to_parquet(folder / "stac.parquet")
    return [*made, *(folder / name for name in ("index.csv", "index.gpkg", "stac.parquet", "collection.parquet"))]


def read_index(path: Path) -> None:
    """Extract from the archive."""
    extract_embeddings(polygons(), source=open_source(path), years=[2024], progress=False)


def write_sites(folder: Path) -> list[Path]:
    """Write sites as GeoJSON, with and without a CRS, and as GeoParquet."""
    frame = polygons().assign(start_year=[2016, 2019], name=["a", "b"])
    frame.to_file(folder / "sites.geojson")
    frame.to_crs(UTM).to_file(folder / "metres.geojson")
    frame.to_parquet(folder / "sites.parquet")
    return sorted(folder.iterdir())


def read_sites(path: Path) -> None:
    """Load sites, and use what they know of themselves."""
    for site in load_sites(path):
        _ = site.area_ha, site.properties, site.buffer(10), repr(site)


def write_rasters(folder: Path) -> list[Path]:
    """Write single rasters: two GeoTIFFs, of codes and of vectors, and two NumPy files."""
    codes = random_codes(SHAPE, seed=1)
    vectors = codes_to_vectors(codes, np.float32)
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    made = [write_gdal(folder / "codes_2024.tif", GRID, codes, compress="zstd", interleave="band", **tiled)]
    made.append(write_gdal(folder / "vectors_2024.tif", GRID, vectors, nodata=None, compress="deflate", predictor=3))
    for name, save in (("codes_2024.npz", np.savez), ("packed_2024.npz", np.savez_compressed)):
        save(folder / name, codes=codes, transform=np.array(GRID.transform), crs=GRID.crs)
        made.append(folder / name)
    return made


def read_raster(path: Path) -> None:
    """Extract from a single raster."""
    extract_embeddings(polygons(), source=RasterSource(path), progress=False)


def damage_any(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage JSON as JSON, a TIFF's header as tags, the footer of Parquet, and else bytes near either end."""
    if data[:1] in (b"{", b"["):
        return damage_json(data, rng)
    if data[:2] in (b"II", b"MM"):
        return damage_tags(data, rng) if rng.random() < 0.7 else damage_blocks(data, rng)
    if data[:4] in (b"(\xb5/\xfd", b"\x1f\x8b\x08\0", b"\x02\x01\x21\x01"):  # a chunk in zstd, gzip or blosc
        return damage_blocks(data, rng, 0)
    if rng.random() < 0.3:
        return damage_bytes(data, rng)
    if rng.random() < 0.5:
        return damage_bytes(data[:256], rng) + data[256:]
    tail = max(len(data) - 3000, 0)
    return data[:tail] + damage_bytes(data[tail:], rng)


@dataclass(frozen=True)
class Target:
    """Files of one kind: how they are written, damaged and read."""

    write: Callable[[Path], list[Path]]
    read: Callable[[Path], None]
    damage: Callable[[bytes, np.random.Generator], bytes] = damage_any


TARGETS = {
    "headers": Target(write_tiles, read_tile, damage_tags),
    "blocks": Target(write_tiles, read_tile, damage_blocks),
    "mosaics": Target(write_mosaics, read_mosaic),
    "indexes": Target(write_indexes, read_index),
    "sites": Target(write_sites, read_sites),
    "rasters": Target(write_rasters, read_raster),
}


# --- the worker: one damage after the other, each reported on a line


def memory_mb(name: str) -> float:
    """Return a figure of this process's memory; 0 where the system doesn't say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), 0.0)


def say(what: list[Any]) -> None:
    """Write a line for the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def work(names: list[str], seed: int, first: int, stop: int) -> None:
    """Damage and read, the targets in turn; says the number before each, then the outcome, the seconds and the MB."""
    warnings.simplefilter("ignore")
    logging.disable()
    with tempfile.TemporaryDirectory() as scratch:
        files = {}
        for name in names:
            folder = Path(scratch) / name
            folder.mkdir()
            files[name] = TARGETS[name].write(folder)
            for path in files[name]:
                TARGETS[name].read(path)  # sound, and compiles what it takes
        for number, name in ((number, name) for number in range(first, stop) for name in names):
            target, path = TARGETS[name], files[name][number % len(files[name])]
            sound = path.read_bytes()
            path.write_bytes(target.damage(sound, np.random.default_rng([seed, number])))
            say([name, number, path.name])
            if Path("/proc/self/clear_refs").exists():
                Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
            before, began = memory_mb("VmRSS"), time.process_time()
            outcome = outcome_of(target, path)
            say([outcome, time.process_time() - began, memory_mb("VmHWM") - before])
            path.write_bytes(sound)


def outcome_of(target: Target, path: Path) -> str:
    """Read a file; return "read", the class of this package's error, or what else was raised."""
    try:
        target.read(path)
    except GeePolygonsError as error:
        return type(error).__name__ if one_line(error) else f"not one line: {error}"[:300]
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "gee_polygons" in f.filename]
        at = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return f"raw {type(error).__name__}{at}: {error}"[:300]
    return "read"


# --- the parent


def attack(
    names: list[str], stop: int, seed: int = 0, first: int = 0
) -> tuple[dict[str, Counter[str]], dict[str, tuple[float, float]], list[str]]:
    """Have a worker read damaged files; return the outcomes, the most seconds and MB, and the failures, numbered."""
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in names}
    worst = dict.fromkeys(names, (0.0, 0.0))
    failures: list[str] = []
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # the same copy of the package
    while first < stop:
        command = [sys.executable, __file__, *names, "--work", f"--seed={seed}", f"--first={first}", f"--stop={stop}"]
        with (
            tempfile.TemporaryFile("w+") as stderr,
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True) as worker,
        ):
            name, number, file, outcome = "", first - 1, "", ""
            killer = threading.Timer(60 + len(names) * (stop - first), worker.kill)
            killer.start()
            assert worker.stdout is not None
            for line in worker.stdout:
                said = json.loads(line)
                if isinstance(said[-1], str):
                    (name, number, file), outcome = said, ""
                    continue
                outcome, seconds, mb = said
                outcomes[name][outcome.split(" ")[0]] += 1
                worst[name] = max(worst[name][0], seconds), max(worst[name][1], mb)
                if outcome.startswith(("raw", "not")) or seconds > MOST_S or mb > MOST_MB:
                    failures.append(f"{name} {number} {file}: {outcome}, {seconds:.2f} s, {mb:.0f} MB")
            killer.cancel()
            if worker.wait():
                stderr.seek(0)
                last = " ".join(stderr.read().split())[-200:]
                assert number >= first, f"{name}: the sound files can't be read: {last}"
                if not outcome:
                    outcomes[name]["died"] += 1
                failures.append(f"{name} {number} {file}: died with {worker.returncode}: {last}")
        first = number + 1
    return outcomes, worst, failures


def main() -> int:
    """Run what the command line says; the exit status is 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(TARGETS), help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first damaged file of each target")
    parser.add_argument("--stop", type=int, default=10_000, help="number after the last one")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.targets, options.seed, options.first, options.stop)
        return 0
    outcomes, worst, failures = attack(options.targets, options.stop, options.seed, options.first)
    lines = [
        f"{name}: {dict(found.most_common())}, at most {worst[name][0]:.2f} s and {worst[name][1]:.0f} MB"
        for name, found in outcomes.items()
    ]
    sys.stdout.write("\n".join([*lines, *failures]) + "\n")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
