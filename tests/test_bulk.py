"""Runs over many sites: the same bits as one extraction, whatever the chunks, the engine and the interruptions."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import geopandas
import mosaics
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import shapely
from archives import FakeTile, assert_same_bits, ground, random_codes, write_archive
from oracles import one_line, star

from gee_polygons import extract_embeddings, extract_to_parquet, load_sites, open_source, sites_from_geodataframe
from gee_polygons.alphaearth import BANDS
from gee_polygons.bulk import engines, layout, run
from gee_polygons.bulk import sites as bulk_sites
from gee_polygons.bulk.layout import Boxes, GridPart, keys_at, make_layout
from gee_polygons.errors import InputFileError, OutputError, SiteError, UsageError
from gee_polygons.sources.cog import CogSource
from gee_polygons.tables import read_table
from gee_polygons.zonal.grid import Lattice, Window

YEARS = (2023, 2024)
SIZE = 192
SOUTH_TILES = [("EPSG:32722", 80_400 + SIZE * i, -750_000 + SIZE * j) for i in range(2) for j in range(2)]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Four tiles of a zone that abut and one of the next zone, which holds what lies beyond the boundary."""
    folder = tmp_path_factory.mktemp("archive")
    places = [*SOUTH_TILES, ("EPSG:32723", 19_100, -750_100)]
    tiles = [
        FakeTile(crs=crs, col=col, row=row, year=year, name=f"t{i}", codes=random_codes((SIZE, SIZE), i + year, 0.03))
        for year in YEARS
        for i, (crs, col, row) in enumerate(places)
    ]
    return str(write_archive(folder, tiles))


@pytest.fixture(scope="module")
def fields():
    """240 fields of a few to some thousand pixels over the four tiles, past their edges, and far from any tile."""
    rng = np.random.default_rng(3)
    corner = FakeTile(crs="EPSG:32722", col=SOUTH_TILES[0][1], row=SOUTH_TILES[0][2], codes=np.zeros((64, 1, 1)))
    shapes = [
        ground(star(i, rng.uniform(-8, 2 * SIZE + 8, 2), rng.choice([0.4, 6, 25], p=[0.1, 0.8, 0.1]), hole=i % 9 == 0),
               corner)
        for i in range(236)
    ]  # fmt: skip
    shapes.append(shapely.union_all([shapes[3], shapes[40]]))
    shapes += [shapely.box(lon, -22.0, lon + 0.01, -21.99) for lon in (10.0, -47.995, 179.995)]
    columns = {
        "site_id": [f"f{i}" for i in range(len(shapes))],
        "crop": np.where(np.arange(len(shapes)) % 3, "soy", None),
        "score": rng.uniform(size=len(shapes)).astype(np.float32),
        "n": pd.array([i if i % 5 else None for i in range(len(shapes))], "Int32"),
    }
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs=4326)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Rectangles of 64 to 16 pixels, and chunks of few sites."""
    monkeypatch.setattr(layout, "SIDE_PX", 128)
    monkeypatch.setattr(run, "CHUNK_SITES", 40)
    monkeypatch.setattr(bulk_sites, "BATCH", 50)
    monkeypatch.setattr(run, "_SMALL", 0)


def go(fields, folder, index, **how):
    how = {"years": YEARS, "source": index, "progress": False, "max_workers": 1, **how}
    return extract_to_parquet(fields, folder, **how)


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*.parquet"))}


def in_order(table, fields):
    """Rows in the order of an extraction, with its columns."""
    place = {site_id: i for i, site_id in enumerate(fields["site_id"])}
    ordered = table.assign(place=table["site_id"].map(place)).sort_values(["place", "year"])
    return ordered.drop(columns=["place", "hilbert_key"]).reset_index(drop=True)


@pytest.fixture(scope="module")
def expected(index, fields):
    return extract_embeddings(fields, years=YEARS, source=str(index))


@pytest.fixture(scope="module")
def whole(index, fields, tmp_path_factory):
    """A dataset, made chunk by chunk in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SIDE_PX", 128)
        patch.setattr(run, "CHUNK_SITES", 40)
        folder = tmp_path_factory.mktemp("whole") / "d"
        found = go(fields, folder, index, keep=True)
    assert found.is_complete
    return folder, found


# --- values


def test_a_dataset_holds_the_bits_of_one_extraction(whole, expected, fields):
    folder, found = whole
    assert found.chunks > 8
    assert found.rows == len(expected) == 2 * len(fields)
    table = in_order(read_table(folder), fields)
    assert_same_bits(table[expected.columns], expected)
    for name in ("crop", "n", "score"):
        kept = fields[name].repeat(2).reset_index(drop=True)
        assert table[name].isna().equals(kept.isna())
        assert (table[name] == kept)[kept.notna()].all()
    assert set(table["status"]) == {"ok", "masked", "no_data"}
    seams = [name for name in files_of(folder) if "seams" in name]
    assert seams


@pytest.mark.parametrize(
    "how",
    [
        {"statistics": ("mean", "std", "min", "max", "median", "p10", "count")},
        {"statistics": ("medoid",)},
        {"statistics": ("p90",), "bands": ("A07", "A01")},
    ],
    ids=lambda how: "-".join(how["statistics"]),
)
def test_every_statistic_has_the_bits_of_one_extraction(index, fields, tmp_path, how):
    go(fields, tmp_path / "d", index, **how)
    expected = extract_embeddings(fields, years=YEARS, source=str(index), **how)
    table = in_order(read_table(tmp_path / "d"), fields)
    assert_same_bits(table[expected.columns], expected)


def test_each_block_is_read_once(index, fields, tmp_path, monkeypatch):
    west = fields[(fields.bounds["maxx"] < -48.0001) & (fields.bounds["minx"] > -60)]  # others lie in two zones
    reads = Counter()
    read = CogSource.read

    def counting(self, refs, bands):
        reads.update((ref.tile, ref.year, ref.index) for ref in refs)
        return read(self, refs, bands)

    monkeypatch.setattr(CogSource, "read", counting)
    found = go(west, tmp_path / "d", index)
    assert set(reads.values()) == {1}
    source = CogSource(index)
    assert found.blocks == len(reads) == source.plan(sites_from_geodataframe(west).polygons, YEARS).blocks
    assert any("seams" in name for name in files_of(tmp_path / "d"))


def test_mosaics_and_rasters_too(tmp_path, index, fields):
    made = mosaics.make(shape=(320, 512))
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 512, 60) * made.step + made.west, made.north - rng.uniform(0, 320, 60) * made.step
    round_ones = geopandas.GeoDataFrame(
        {"site_id": np.arange(60)}, geometry=shapely.buffer(shapely.points(x, y), 3e-4), crs=4326
    )
    tile = open_source(str(next(Path(index).parent.rglob("2024/22S/t0.tiff"))), year=2024)
    for name, source, frame in (("raster", tile, fields), ("mosaic", str(made.write(tmp_path / "m.zarr")), round_ones)):
        found = go(frame, tmp_path / name, source, years=[2024])
        assert found.chunks > 3
        expected = extract_embeddings(frame, years=[2024], source=source)
        assert_same_bits(in_order(read_table(tmp_path / name), frame)[expected.columns], expected)


# --- engines


@pytest.mark.parametrize("engine", ["processes", "shards"])
def test_engines_give_the_same_bytes(whole, index, fields, tmp_path, engine):
    folder = tmp_path / "d"
    if engine == "processes":
        assert go(fields, folder, index, keep=True, max_workers=2).is_complete
    else:
        for i in (3, 1, 2):
            part = go(fields, folder, index, keep=True, shard=(i, 3))
            assert part.is_complete is (i == 2)
            assert not any("seams" in name for name in files_of(folder))
        assert go(fields, folder, index, keep=True).blocks == 0
    assert files_of(folder) == files_of(whole[0])


def test_a_killed_worker_is_replaced(whole, index, fields, tmp_path, monkeypatch):
    start, killed = engines._start, []

    def start_and_kill(folder, source):
        process = start(folder, source)
        if len(killed) < 2:
            killed.append(process.pid)
            process.kill()
        return process

    monkeypatch.setattr(engines, "_start", start_and_kill)
    assert go(fields, tmp_path / "d", index, keep=True, max_workers=2).is_complete
    assert len(killed) == 2
    assert files_of(tmp_path / "d") == files_of(whole[0])


def test_workers_that_always_die_are_an_error_of_their_chunks(index, fields, tmp_path, monkeypatch):
    def start(folder, source):
        return subprocess.Popen(
            [sys.executable, "-c", "import os; os._exit(9)"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    monkeypatch.setattr(engines, "_start", start)
    found = go(fields, tmp_path / "d", index, max_workers=2)
    assert not found.is_complete
    assert "workers ended with status 9" in found.failures[0]
    assert one_line(found.failures[0])


def test_a_bug_in_a_worker_shows_its_traceback(index, fields, tmp_path):
    folder = tmp_path / "d"
    go(fields.iloc[:100], folder, index, shard=(1, 100))
    ((_, error),) = engines.run_in_processes(str(folder), [99_999], None, 1)
    assert isinstance(error, Exception)
    assert "in do_chunk" in "".join(traceback.format_exception(error))


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = {tests!r}
from gee_polygons import extract_to_parquet
from gee_polygons.bulk import layout, run
layout.SIDE_PX, run.CHUNK_SITES, run._SMALL = 128, 40, 0
if __name__ == "__main__":
    print("started", flush=True)
    extract_to_parquet({sites!r}, {folder!r}, years=(2023, 2024), source={index!r}, keep=True, progress=False,
                       max_workers={workers})
"""


def test_killed_runs_go_on_to_the_same_bytes(whole, index, fields, tmp_path):
    fields.to_parquet(tmp_path / "fields.parquet")
    folder = tmp_path / "d"
    script = tmp_path / "s.py"
    rng = np.random.default_rng(int(time.time()))
    for workers in (1, 1, 2):
        script.write_text(
            KILLED.format(tests=[str(Path(__file__).parents[1])], sites=str(tmp_path / "fields.parquet"),
                          folder=str(folder), index=str(index), workers=workers)
        )  # fmt: skip
        process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0.1, 2.0))
        process.kill()
        process.communicate()
    found = go(tmp_path / "fields.parquet", folder, index, keep=True)
    assert found.is_complete
    assert files_of(folder) == files_of(whole[0])
    assert not [p for p in folder.rglob("*") if ".part" in p.name]


# --- going on


def test_a_rerun_does_what_is_missing(whole, index, fields, tmp_path):
    import shutil

    folder = tmp_path / "d"
    shutil.copytree(whole[0], folder)
    assert go(fields, folder, index, keep=True).blocks == 0
    victim = next(folder.rglob("part-000002.parquet"))
    os.truncate(victim, 100)
    found = go(fields, folder, index, keep=True)  # the sites' copy is gone by then: it is made again
    assert found.blocks > 0
    assert found.is_complete
    assert files_of(folder) == files_of(whole[0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"years": [2024]}, "years"),
        ({"statistics": ("std",)}, "statistics"),
        ({"keep": ["crop"]}, "keep"),
        ({"embedding": "list"}, "embedding"),
    ],
)
def test_another_question_is_refused(whole, index, fields, change, says):
    with pytest.raises(OutputError, match=says) as caught:
        go(fields, whole[0], index, **({"keep": True} | change))
    assert one_line(str(caught.value))


def test_other_sites_are_refused_and_can_start_over(whole, index, fields, tmp_path):
    import shutil

    folder = tmp_path / "d"
    shutil.copytree(whole[0], folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="other sites"):
        go(fields.iloc[:100], folder, index, keep=True)
    found = go(fields.iloc[:100], folder, index, keep=True, resume=False)
    assert found.is_complete
    assert found.rows == 200 == len(read_table(folder))
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_folder_of_something_else_is_refused(index, fields, tmp_path):
    (tmp_path / "photo.jpg").write_text("")
    with pytest.raises(OutputError, match="aren't of a run"):
        go(fields, tmp_path, index)


def test_a_second_run_on_a_folder_is_refused(index, fields, tmp_path):
    with run._locked(tmp_path / "d", shared=False), pytest.raises(OutputError, match="another process"):
        go(fields, tmp_path / "d", index)


def test_failed_reads_are_rows_with_a_status_and_healed_by_a_rerun(whole, index, fields, tmp_path):
    tile = next(Path(index).parent.rglob("2023/22S/t1.tiff"))
    good = tile.read_bytes()
    folder = tmp_path / "d"
    try:
        tile.write_bytes(good[: len(good) // 2])
        broken = go(fields, folder, index, keep=True)
        assert not broken.is_complete
        assert broken.error_rows > 0
        assert "t1.tiff" in broken.failures[0]
        table = read_table(folder)
        assert (table["status"] == "error").sum() == broken.error_rows > 0
        assert len(table) == 2 * len(fields)
    finally:
        tile.write_bytes(good)
    healed = go(fields, folder, index, keep=True)
    assert healed.is_complete
    assert 0 < healed.blocks < whole[1].blocks
    assert files_of(folder) == files_of(whole[0])


def test_on_error_raise_stops_and_says_why(index, fields, tmp_path):
    tile = next(Path(index).parent.rglob("2023/22S/t1.tiff"))
    good = tile.read_bytes()
    try:
        tile.write_bytes(good[: len(good) // 2])
        with pytest.raises(OutputError, match="read failed"):
            go(fields, tmp_path / "d", index, on_error="raise")
    finally:
        tile.write_bytes(good)


def test_damaged_receipts_and_lost_parts_are_done_again(whole, index, fields, tmp_path):
    folder = tmp_path / "d"
    go(fields, folder, index, keep=True, shard=(1, 2))
    receipts = sorted((folder / "_run" / "done").iterdir())
    for path, size in zip(receipts, (0, 100, receipts[2].stat().st_size - 3), strict=False):
        os.truncate(path, size)
    flipped = bytearray(receipts[3].read_bytes())
    flipped[len(flipped) // 2] ^= 255
    receipts[3].write_bytes(flipped)
    next(folder.rglob("part-*.parquet")).unlink()
    assert go(fields, folder, index, keep=True).is_complete
    assert files_of(folder) == files_of(whole[0])


def test_shards_that_start_at_once_agree(whole, index, fields, tmp_path):
    fields.to_parquet(tmp_path / "fields.parquet")
    script = KILLED.replace("keep=True,", "keep=True, shard=(int(sys.argv[1]), 3),").format(
        tests=[str(Path(__file__).parents[1])], sites=str(tmp_path / "fields.parquet"), folder=str(tmp_path / "d"),
        index=str(index), workers=1,
    )  # fmt: skip
    started = [subprocess.Popen([sys.executable, "-c", script, str(i)]) for i in (1, 2, 3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert go(tmp_path / "fields.parquet", tmp_path / "d", index, keep=True).blocks == 0
    assert files_of(tmp_path / "d") == files_of(whole[0])


FULL = KILLED.replace(
    "if __name__", "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\nif __name__"
)


@pytest.mark.parametrize("limit", [30_000, 65_000], ids=["sites", "parts"])
def test_a_full_disk_is_one_line_and_the_run_goes_on(whole, index, fields, tmp_path, limit):
    fields.to_parquet(tmp_path / "fields.parquet")
    script = FULL.format(tests=[str(Path(__file__).parents[1])], sites=str(tmp_path / "fields.parquet"),
                         folder=str(tmp_path / "d"), index=str(index), workers=1, limit=limit)  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("gee_polygons.errors.OutputError: can't write")
    assert go(tmp_path / "fields.parquet", tmp_path / "d", index, keep=True).is_complete
    assert files_of(tmp_path / "d") == files_of(whole[0])


# --- sites


def test_sites_are_read_from_any_file(whole, index, fields, tmp_path):
    fields.to_parquet(tmp_path / "f.parquet")
    (tmp_path / "parts" / "zone=a").mkdir(parents=True)
    (tmp_path / "parts" / "zone=b").mkdir()
    fields.iloc[:120].to_parquet(tmp_path / "parts" / "zone=a" / "0.parquet")
    fields.iloc[120:].to_parquet(tmp_path / "parts" / "zone=b" / "0.parquet")
    for suffix in ("gpkg", "fgb"):
        fields[["site_id", "geometry"]].to_file(tmp_path / f"f.{suffix}", SPATIAL_INDEX="NO")
    expected = read_table(whole[0])[["site_id", "year", *BANDS]]
    expected = expected.sort_values(["site_id", "year"]).reset_index(drop=True)
    for name in ("f.parquet", "parts", "f.gpkg", "f.fgb"):
        go(tmp_path / name, tmp_path / f"{name}.d", index)
        found = read_table(tmp_path / f"{name}.d")[["site_id", "year", *BANDS]]
        assert_same_bits(found.sort_values(["site_id", "year"]).reset_index(drop=True), expected)
    found = go(tmp_path / "parts", tmp_path / "kept", index, keep=["zone"], partition_by=("zone", "year"))
    assert found.is_complete
    assert {p.parent.parent.name for p in (tmp_path / "kept").rglob("part*.parquet")} == {"zone=a", "zone=b"}


def test_bad_sites_are_one_line(index, fields, tmp_path):
    twice = pd.concat([fields, fields.iloc[[7]]])
    with pytest.raises(SiteError, match="f7") as caught:
        go(twice, tmp_path / "a", index)
    twice.to_parquet(tmp_path / "twice.parquet")
    with pytest.raises(SiteError, match="f7 is that of the rows 7, 240") as caught:
        go(tmp_path / "twice.parquet", tmp_path / "b", index)
    assert one_line(str(caught.value))
    with pytest.raises(UsageError, match="'crops'"):
        go(fields, tmp_path / "c", index, keep=["crops"])
    assert not list(tmp_path.rglob("*.arrow"))


def test_sites_without_ids_are_numbered(index, fields, tmp_path):
    fields[["geometry"]].to_parquet(tmp_path / "f.parquet")
    go(tmp_path / "f.parquet", tmp_path / "d", index)
    assert sorted(read_table(tmp_path / "d")["site_id"].unique()) == list(range(len(fields)))


def test_columns_keep_their_types_whatever_the_first_batch_holds(index, fields, tmp_path):
    n = np.arange(len(fields))
    late = n >= 60  # a batch has 50 sites
    frame = fields[["site_id", "geometry"]].assign(
        day=[datetime.date(2020, 1, 1 + i % 28) if i >= 60 else None for i in n],
        when=pd.to_datetime([f"2020-01-{1 + i % 28:02d}" if i >= 60 else None for i in n]),
        lists=[[1.0, float(i)] if i >= 60 else None for i in n],
        blob=[bytes([i]) if i >= 60 else None for i in n],
        small=pd.array(np.where(late, n % 100, None), "Int16"),
        flag=pd.array(np.where(late, n % 2 == 0, None), "boolean"),
        struct=[{"a": int(i)} for i in n],
    )
    table = pa.table(frame.to_arrow()).replace_schema_metadata(None)
    plain = {name: table.schema.field(name).type for name in frame.columns[2:]}
    (tmp_path / "parts").mkdir()
    kinds = {"kind": pd.Categorical([f"k{i // 90}" for i in n])}
    frame = frame.assign(**kinds)
    for i in range(2):  # the files' dictionaries differ
        part = frame.iloc[120 * i : 120 * (i + 1)]
        part.assign(kind=part["kind"].cat.remove_unused_categories()).to_parquet(tmp_path / "parts" / f"{i}.parquet")
    for name, sites in (("file", tmp_path / "parts"), ("frame", frame)):
        go(sites, tmp_path / name, index, keep=True, years=[2024])
        data = pyarrow.dataset.dataset(tmp_path / name, partitioning="hive").to_table()
        assert {column: data.schema.field(column).type for column in plain} == plain
        found = pd.DataFrame(data.select(["site_id", "kind", *plain]).to_pylist()).set_index("site_id")
        true = pd.DataFrame(table.select(["site_id", *plain]).to_pylist()).assign(**kinds).set_index("site_id")
        true = true.astype(object).where(true.notna(), None)
        found = found.astype(object).where(found.notna(), None)
        assert found.loc[true.index, list(true.columns)].to_dict() == true.to_dict()


def test_mixed_ids_and_hidden_ids(index, fields, tmp_path):
    frame = fields[["site_id", "geometry"]].iloc[:60]
    mixed = frame.assign(site_id=[i if i < 55 else f"x{i}" for i in range(60)])
    go(mixed, tmp_path / "d", index)
    assert set(read_table(tmp_path / "d")["site_id"]) == {str(i) for i in mixed["site_id"]}
    with pytest.raises(SiteError, match="duplicates"):
        go(frame.assign(site_id=[7, "7", *range(8, 66)]), tmp_path / "e", index)
    frame[["geometry"]].to_file(tmp_path / "f.gpkg")
    go(tmp_path / "f.gpkg", tmp_path / "f", index, id_column="fid")
    assert sorted(read_table(tmp_path / "f")["site_id"].unique()) == list(range(1, 61))


def test_columns_with_names_of_the_dataset_are_kept_under_another(index, fields, tmp_path):
    taken = ("A00", "year", "site", "site_row", "n_pixels", "chunk", "others", "mean", "lon", "hilbert_key")
    frame = fields[["site_id", "geometry"]].iloc[:60].assign(**dict.fromkeys(taken, 3))
    go(frame, tmp_path / "d", index, keep=True)
    table = read_table(tmp_path / "d")
    assert {f"{name}_in_file" for name in taken} <= set(table.columns)
    assert table.columns.is_unique


def test_folders_whose_files_differ_in_crs_are_refused(index, fields, tmp_path):
    (tmp_path / "p").mkdir()
    for i, crs in enumerate((32722, 32723)):
        fields.iloc[100 * i : 100 * (i + 1)].to_crs(crs).to_parquet(tmp_path / "p" / f"{i}.parquet")
    with pytest.raises(InputFileError, match="differ in CRS"):
        go(tmp_path / "p", tmp_path / "d", index)


@pytest.mark.parametrize("how", [{}, {"partition_by": ("time",), "embedding": "codes"}], ids=["years", "codes"])
def test_a_dataset_gives_its_sites_to_another(index, fields, tmp_path, how):
    go(fields, tmp_path / "d", index, keep=True, **how)
    found = go(tmp_path / "d", tmp_path / "e", index, keep=True)
    assert found.sites == len(fields)
    first, second = (in_order(read_table(tmp_path / name), fields) for name in "de")
    assert_same_bits(second[["status", "n_pixels", "crop", "n"]], first[["status", "n_pixels", "crop", "n"]])


def test_any_value_can_name_a_folder(index, fields, tmp_path):
    values = ["a/b", 'it\'s "q"', "", None, "ä ß 日本", "a=b", "..", "%2F", "x?y*", "7"]
    frame = fields.assign(**{"my/label": [values[i % len(values)] for i in range(len(fields))]})
    how = {"keep": ["my/label"], "partition_by": ("my/label",)}
    assert go(frame, tmp_path / "d", index, **how).is_complete
    table = in_order(read_table(tmp_path / "d"), frame)
    true = frame["my/label"].repeat(2).replace("", None).reset_index(drop=True)
    assert len(table) == 2 * len(frame)
    (name,) = set(table.columns) & {"my/label", "my%2Flabel"}
    assert table[name].fillna("-").equals(true.fillna("-"))
    with pytest.raises(UsageError, match="as long as"):
        go(frame.assign(**{"my/label": "x" * 300}), tmp_path / "e", index, **how)


# --- files


@pytest.mark.parametrize("embedding", ["array", "list", "codes"])
def test_vectors_in_one_column(index, fields, expected, tmp_path, embedding):
    folder = tmp_path / "d"
    go(fields, folder, index, embedding=embedding, partition_by=("time",), pca=True)
    assert {p.name for p in folder.iterdir() if "=" in p.name} == {"time=2023-01-01", "time=2024-01-01"}
    table = in_order(read_table(folder), fields)
    found, true = table[list(BANDS)].to_numpy(), expected[list(BANDS)].to_numpy()
    if embedding == "list":
        assert np.array_equal(found, true, equal_nan=True)
    elif embedding == "array":
        assert np.array_equal(found, true.astype(np.float32), equal_nan=True)
    else:
        unit = true / np.linalg.norm(true, axis=1, keepdims=True)
        assert np.nanmax(np.abs(found - unit)) < 0.008
    schema = pq.read_schema(next(folder.rglob("part*.parquet")))
    assert str(schema.field({"codes": "codes"}.get(embedding, "mean")).type) == {
        "array": "fixed_size_list<element: float>[64]", "list": "list<element: double>",
        "codes": "fixed_size_binary[64]",
    }[embedding]  # fmt: skip
    scores = np.array([np.nan if v is None else v[0] for v in table["pca_components"]], float)
    assert np.isfinite(scores).sum() == (table["status"] == "ok").sum()


def test_colours_are_those_of_all_rows_at_once(index, fields, expected, tmp_path):
    from gee_polygons.embeddings.colors import fit_pca_colors

    go(fields, tmp_path / "d", index, pca=True)
    table = in_order(read_table(tmp_path / "d"), fields)
    basis = fit_pca_colors(expected)
    ok = (table["status"] == "ok").to_numpy()
    found = np.stack(table["pca_components"][ok])
    np.testing.assert_allclose(found, basis.scores(expected)[ok], atol=1e-5)
    before = files_of(tmp_path / "d")
    assert go(fields, tmp_path / "d", index, pca=True).blocks == 0
    assert files_of(tmp_path / "d") == before


def test_others_read_it(whole, fields, expected):
    import duckdb
    import polars

    folder, found = whole
    n = len(expected)
    assert duckdb.sql(
        f"select count(*) from read_parquet('{folder}/*/*.parquet', hive_partitioning=true)"
    ).fetchall() == [(n,)]
    mean = duckdb.sql(f"select avg(A07) from read_parquet('{folder}/**/*.parquet') where year = 2024").fetchall()[0][0]
    assert mean == pytest.approx(expected.loc[expected["year"] == 2024, "A07"].mean(), abs=1e-12)
    assert polars.scan_parquet(f"{folder}/*/*.parquet", hive_partitioning=True).collect().height == n
    frame = geopandas.read_parquet(folder)
    assert len(frame) == n
    assert frame.crs.equals(4326)
    one = geopandas.read_parquet(next(folder.rglob("part*.parquet")), bbox=tuple(frame.total_bounds))
    assert len(one) > 0
    assert pyarrow.dataset.dataset(folder, partitioning="hive").count_rows() == n
    assert found.bytes == sum(len(content) for content in files_of(folder).values())
    back = load_sites(folder)
    assert sorted(back.site_ids) == sorted(fields["site_id"])
    assert back.property_names
    for path in folder.rglob("*.parquet"):
        part = pq.ParquetFile(path).read(["hilbert_key", "site_id"]).to_pylist()
        keys = [(row["hilbert_key"], row["site_id"]) for row in part]
        assert keys == sorted(keys)


def test_metadata_says_what_it_is(whole):
    path = next(whole[0].rglob("part*.parquet"))
    metadata = pq.read_schema(path).metadata
    assert json.loads(metadata[b"geo"])["columns"]["geometry"]["covering"]
    assert json.loads(metadata[b"gee_polygons"])["attribution"]
    assert json.loads(metadata[b"gee_polygons_run"])["plan"] == json.loads(
        (whole[0] / "_run" / "run.json").read_text()
    )["hash"]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"engine": "slurm"}, "engine"),
        ({"embedding": "codes", "statistics": ("std",)}, "needs all bands"),
        ({"partition_by": ("crop",)}, "name it in keep="),
        ({"shard": (0, 3)}, "shard"),
        ({"shard": (1, 3), "resume": False}, "other shards"),
        ({"max_workers": 0}, "max_workers"),
        ({"on_error": "stop"}, "on_error"),
        ({"embedding": "vector"}, "embedding is one of"),
    ],
)
def test_wrong_calls_are_one_line(index, fields, tmp_path, how, says):
    with pytest.raises(UsageError, match=says) as caught:
        go(fields, tmp_path / "d", index, **how)
    assert one_line(str(caught.value))


# --- the layout


def test_a_grid_is_the_same_whichever_block_is_seen():
    lattice = Lattice("EPSG:32722", 10.0, 10.0)
    seen = {GridPart.around(lattice, Window(5 + 32 * i, 7 - 16 * i, 32, 16)) for i in range(9)}
    assert len(seen) == 1


def test_every_pixel_has_one_rectangle():
    rng = np.random.default_rng(0)
    grid = GridPart.around(Lattice("EPSG:32722", 10.0, 10.0), Window(-37, 1005, 32, 16))
    assert (grid.height, grid.width, grid.levels) == (128, 128, 3)
    row, col = rng.integers(-500, 500, (2, 400))
    boxes = Boxes(grid=np.zeros(400, int), row=row, row_last=row + rng.integers(0, 90, 400), col=col, col_last=col + 7)
    found, chunk, others = make_layout([grid], boxes, rng.integers(0, 99, 400), most=12)
    middle = found.chunk(found.key(0, *boxes.middle))
    assert np.array_equal(middle, chunk)
    assert set(chunk) == set(range(chunk.max() + 1))
    for site in range(400):
        rows = np.arange(boxes.row[site], boxes.row_last[site] + 1)
        cols = np.arange(boxes.col[site], boxes.col_last[site] + 1)
        reached = set(found.chunk(found.key(0, rows[:, None], cols)).ravel().tolist())
        assert reached - {int(chunk[site])} == set(others.get(site, []))
    y, x = np.meshgrid(np.arange(-37 - 64, -37 + 64), np.arange(1005 - 64, 1005 + 64), indexing="ij")
    keys = found.key(0, y, x).reshape(4, 32, 8, 16)
    assert (keys == keys[:, :1, :, :1]).all()  # no edge inside a block
    assert len(np.unique(keys_at([grid], 2, np.zeros(9, int), np.full(9, -37), np.arange(9)))) <= 2


# --- the command


def command(*words):
    from click.testing import CliRunner

    from gee_polygons.cli.main import main

    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_command_writes_a_dataset_and_goes_on(whole, index, fields, tmp_path):
    fields.to_parquet(tmp_path / "f.parquet")
    words = ["extract", tmp_path / "f.parquet", "--years", "2023,2024", "--source", index, "-o", tmp_path / "d"]
    more = ["--keep", "all", "--max-workers", "1"]
    for i in (1, 2):
        done = command(*words, *more, "--shard", f"{i}/2")
        assert done.exit_code == 0, done.output
    assert "again without --shard" in done.stderr
    done = command(*words, *more)
    assert done.exit_code == 0
    assert "480 rows" in done.stdout
    assert files_of(tmp_path / "d") == files_of(whole[0])
    other = command(*words, "--embedding", "codes")
    assert other.exit_code == 1
    assert "--restart" in other.stderr
    assert one_line(other.stderr.strip())
    done = command(*words, "--embedding", "codes", "--restart", "--pca", "--partition-by", "time")
    assert done.exit_code == 0, done.stderr
    assert {p.name for p in (tmp_path / "d").glob("time=*")} == {"time=2023-01-01", "time=2024-01-01"}


def test_years_without_data_are_said(index, fields, tmp_path):
    fields.to_parquet(tmp_path / "f.parquet")
    words = ["extract", tmp_path / "f.parquet", "--years", "2024,2019", "--source", index, "-o", tmp_path / "d"]
    done = command(*words, "--max-workers", "1", "--strict")
    assert done.exit_code == 1
    assert "no site has data in 2019: the source cog covers longitude" in done.stderr
    assert (read_table(tmp_path / "d")["status"] == "ok").any()


def test_options_of_datasets_need_a_folder(index, fields, tmp_path):
    fields.to_parquet(tmp_path / "f.parquet")
    words = ["extract", tmp_path / "f.parquet", "--years", "2023", "--source", index, "-o", tmp_path / "t.csv"]
    done = command(*words, "--shard", "1/2")
    assert done.exit_code == 2
    assert "--shard" in done.stderr
    assert one_line(done.stderr.strip())
