"""Files are whole or not there, whoever writes them at the same time and whatever fails."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gee_polygons.collection import build, build_from_table, load
from gee_polygons.errors import DataWarning, InputFileError, OutputError, ReadError
from gee_polygons.sources.sample import build_sample_archive, write_tile
from gee_polygons.store import atomic
from gee_polygons.store.atomic import replacing, temporary_name
from gee_polygons.zonal.grid import Grid


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_two_threads_write_the_same_file(tmp_path):
    """Both had one temporary file: the second to finish found it gone, and the content could be a mixture."""
    target, both = tmp_path / "a.bin", threading.Barrier(2)
    failures = []

    def write(content):
        try:
            with replacing(target) as part:
                both.wait(10)
                part.write_bytes(content)
                both.wait(10)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(letter * 1000,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert target.read_bytes() in (b"a" * 1000, b"b" * 1000)
    assert names(tmp_path) == ["a.bin"]


def test_a_temporary_name_carries_process_and_thread(tmp_path):
    name = temporary_name(tmp_path / "a.tiff").name
    assert name.startswith(".a.")
    assert name.endswith(".tiff")
    assert f".{os.getpid()}-{threading.get_native_id()}-" in name


def test_temporary_names_differ_where_processes_have_the_same_number(tmp_path):
    """Two containers that share a folder: both have process 1 and thread 1."""
    assert temporary_name(tmp_path / "a.tiff") != temporary_name(tmp_path / "a.tiff")


KILLED = """
import os, sys
from pathlib import Path
from gee_polygons.store.atomic import replacing, temporary_name
folder = Path(sys.argv[1])
with replacing(folder / "a.parquet") as part:
    part.write_text("ha")
    temporary_name(folder / "sample-0.1.0", "old").mkdir()
    print("\\n".join(sorted(os.listdir(folder))), flush=True)
    input()
"""


def test_what_a_killed_process_leaves_is_removed_by_the_next_run(tmp_path):
    others = [".a.12.part.parquet", ".a.1-1-00000000-00000000-0.part.parquet", "a.part"]  # none is of this machine
    for name in others:
        (tmp_path / name).write_text("")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        while process.stdout.readline().strip() != "a.part":
            pass
        running = names(tmp_path)
        assert len(running) == len(others) + 2
        run = "from gee_polygons.store.atomic import replacing\nwith replacing({!r}) as part: part.write_text('whole')"
        command = [sys.executable, "-c", run.format(str(tmp_path / "b.txt"))]
        subprocess.run(command, check=True)
        assert names(tmp_path) == sorted([*running, "b.txt"])  # its writer is alive
        process.kill()
        process.wait()
        subprocess.run(command, check=True)
    assert names(tmp_path) == sorted([*others, "b.txt"])


def test_a_name_as_long_as_file_systems_allow_can_be_written(tmp_path):
    target = tmp_path / ("n" * 251 + ".txt")
    with replacing(target) as part:
        part.write_bytes(b"whole")
    assert names(tmp_path) == [target.name]


GRID = Grid(crs="EPSG:32722", transform=(10, 0, 800000, 0, 10, 7500000), shape=(16, 16))
WRITERS = {
    "replacing": lambda path: _write_with_replacing(path),
    "write_tile": lambda path: write_tile(path, GRID, np.zeros((64, 16, 16), np.int8), block=16),
}


def _write_with_replacing(path):
    with replacing(path) as part:
        part.write_bytes(b"whole")


@pytest.mark.parametrize("writer", WRITERS)
def test_files_are_synced_before_they_are_renamed(writer, tmp_path, monkeypatch):
    """After a crash of the machine a renamed file without its content would look complete."""
    done, fsync, replace = [], os.fsync, Path.replace

    def noted_fsync(number):
        done.append(("fsync", os.fstat(number).st_ino))
        fsync(number)

    def noted_replace(self, target):
        done.append(("replace", self.stat().st_ino))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    WRITERS[writer](tmp_path / "a.tiff")
    inode = (tmp_path / "a.tiff").stat().st_ino
    assert done == [("fsync", inode), ("replace", inode)]


def test_a_sample_archive_is_on_the_disk_before_it_is_called_complete(tmp_path, monkeypatch):
    synced, fsync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.add(os.fstat(number).st_ino), fsync(number)))
    build_sample_archive(tmp_path / "sample", years=[2020])
    unsynced = {path.name for path in (tmp_path / "sample").rglob("*") if path.is_file()
                and path.stat().st_ino not in synced}  # fmt: skip
    assert unsynced == {"SYNTHETIC.txt"}


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/input.tiff"),
        PermissionError(errno.EACCES, "Permission denied", "/data/input.tiff"),
        OSError(errno.EIO, "Input/output error"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        ReadError("https://host/a.tiff: can't be read", url="https://host/a.tiff"),
        InputFileError("sites.geojson: no such file"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_reading_something_else_is_not_one_of_writing(error, tmp_path):
    with pytest.raises(type(error)) as caught, replacing(tmp_path / "out.parquet"):
        raise error
    assert caught.value is error
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_an_error_of_writing(code, tmp_path):
    with (
        pytest.raises(OutputError, match=r"can't write .*out\.parquet: ") as caught,
        replacing(tmp_path / "out.parquet"),
    ):
        raise OSError(code, os.strerror(code))
    assert caught.value.__cause__.errno == code
    assert names(tmp_path) == []


def test_what_names_the_temporary_file_is_an_error_of_writing(tmp_path):
    with pytest.raises(OutputError, match=r"can't write .*out\.npy: "), replacing(tmp_path / "out.npy") as part:
        (part / "below").open("wb")  # NotADirectoryError or FileNotFoundError, by the system
    with pytest.raises(OutputError, match=r"can't write .*out\.npy: "), replacing(tmp_path / "out.npy"):
        pass  # nothing was written


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for target in (tmp_path, tmp_path / "file" / "a.txt"):
        with pytest.raises(OutputError, match="folder"), replacing(target):
            raise AssertionError("not reached")


def test_an_interrupted_file_is_removed_and_the_old_one_stays(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(target) as part:  # noqa: PT012 - after a part is written
        part.write_text("ne")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_that_cannot_be_synced_is_not_renamed(tmp_path, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"), replacing(tmp_path / "a.txt") as part:
        part.write_text("whole")
    assert names(tmp_path) == []


# --- the cache


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def empty(path):
    path.write_bytes(b"")


def spoil_metadata(path):
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"gee_polygons": b'{"dataset": {"id"'}), path)


@pytest.mark.parametrize("damage", [cut, empty, spoil_metadata])
@pytest.mark.parametrize("from_table", [False, True], ids=["build", "build_from_table"])
def test_a_damaged_collection_in_the_cache_is_built_again(damage, from_table, tmp_path, monkeypatch):
    """It was an error, which stayed until the user found and removed the file."""
    sample = load("gee-polygons/sample")
    monkeypatch.setattr("gee_polygons.collection.building.cache_folder", lambda: tmp_path)

    def paths():
        if from_table:
            base = Path(sample.place).parent
            return build_from_table(sample.to_table().slice(0, 2), base=base).to_table()["path"].to_pylist()
        return build("gee-polygons/sample", date_range=(2023, 2023)).to_table()["path"].to_pylist()

    expected = paths()
    (file,) = (tmp_path / "collections").iterdir()
    damage(file)
    with pytest.warns(DataWarning, match=f"a damaged file of the cache is built again: .*{file.name}"):
        assert paths() == expected
    assert paths() == expected  # and it was kept: no second warning


def test_a_damaged_file_that_the_user_named_is_not_replaced(tmp_path):
    file = tmp_path / "mine.parquet"
    file.write_bytes(b"PAR1, not really")
    with pytest.raises(InputFileError, match=r"mine\.parquet"):
        build("gee-polygons/sample", date_range=(2023, 2023), path=file)
    assert file.read_bytes() == b"PAR1, not really"
