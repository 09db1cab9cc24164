"""Ctrl-C and SIGTERM stop the work, wherever they arrive; disks that are full and folders that aren't there."""

import errno
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gee_polygons.errors import OutputError
from gee_polygons.progress import heeding_interrupts
from gee_polygons.sources.earthengine.cache import open_cache
from gee_polygons.store.cache import cache_folder
from gee_polygons.zonal.compiled import compiled

ROOT = Path(__file__).parents[1]
LOST = """
import os, signal, sys, time
from gee_polygons.progress import heeding_interrupts

class Destructor:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(0.05)

began = time.monotonic()
try:
    with heeding_interrupts(signal.SIGTERM):
        Destructor()  # Python ignores what is raised in it
        print("lost", flush=True)
        time.sleep(100)
except KeyboardInterrupt:
    print("stopped" if time.monotonic() - began < 50 else "late")
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_that_python_loses_is_raised_again(name):
    """Of 250 runs of `extract` with Ctrl-C at a random moment, 2 went on: numba was loading compiled code."""
    done = subprocess.run([sys.executable, "-c", LOST, name], capture_output=True, text=True, timeout=150, check=True)
    assert done.stdout.split("\n")[:3] == ["lost", "stopped", "True True"]


def test_an_interrupt_in_compiled_code_is_an_interrupt():
    """numba's dispatcher raised a SystemError: "returned a result with an exception set"."""
    with pytest.raises(KeyboardInterrupt), heeding_interrupts():
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()
    with pytest.raises(SystemError), heeding_interrupts():
        raise SystemError("something else")
    with pytest.raises(KeyboardInterrupt), heeding_interrupts():  # noqa: PT012 - as Python's import does, if rarely
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise TypeError("expected a message argument") from None


def test_the_callers_handlers_stay():
    caught = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        with heeding_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught == [signal.SIGINT]
    failed = []

    def elsewhere():  # where no handler can be set
        try:
            with heeding_interrupts(signal.SIGTERM):
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not failed


STARTING = """
import os, runpy, signal, sys
moment = sys.argv.pop(1)

def hook(event, arguments):  # when a module is first asked for
    if event == "import" and arguments[0] == moment:
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(hook)
print("started", flush=True)
runpy.run_module("gee_polygons", run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_an_interrupt_while_the_command_starts_is_one_line(sample_archive, sample_sites, tmp_path):
    """It was a traceback of 40 lines; what was imported by then decides where it arrives."""
    sample_sites[:2].to_geodataframe().to_file(tmp_path / "s.geojson")
    rest = ["extract", "s.geojson", "--years", "2023", "--source", str(sample_archive), "-o", "t.csv"]
    for moment in ["gee_polygons.cli.main", "click", "importlib.metadata", "numpy", "numba", 0.02, 0.08, 0.2, 0.5]:
        command = [sys.executable, "-c", STARTING, str(moment), *rest]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:  # fmt: skip
            assert process.stdout.readline() == "started\n"
            if isinstance(moment, float):
                time.sleep(moment)
                process.send_signal(signal.SIGINT)
            output, shown = process.communicate(timeout=60)
        assert (process.returncode, output, len(shown.splitlines())) == (130, "", 1), (moment, shown)
        assert shown.startswith("interrupted; ")
        assert [path.name for path in tmp_path.iterdir()] == ["s.geojson"]


# --- where nothing can be kept


@pytest.fixture
def added(tmp_path, monkeypatch):
    """A module's function, and the folder in which numba keeps what it compiles of it."""
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "numba"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_module_of_this_test.py").write_text("def add(number):\n    return number + 1\n")
    yield importlib.import_module("a_module_of_this_test").add, tmp_path / "numba"
    del sys.modules["a_module_of_this_test"]


def test_damaged_compiled_code_is_compiled_anew(added):
    add, folder = added
    assert compiled(add)(1) == 2
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:40])
    assert compiled(add)(2) == 3


def test_compiled_code_that_cannot_be_kept_works(added, monkeypatch):
    """Without a home and a folder to write to, importing ended in an error; with a full disk, the first call."""
    from numba.core import caching

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    add, _ = added
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    assert compiled(add)(1) == 2
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert compiled(add)(1) == 2


def test_without_a_home_the_cache_says_what_to_set(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("GEE_POLYGONS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OutputError, match="set GEE_POLYGONS_CACHE to a folder"):
        cache_folder()
    assert open_cache(True).get([b"key"]) == {}  # Earth Engine works without


LIMITED = """
import resource, sys
from gee_polygons.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="this system has no limit of a file's size")
@pytest.mark.parametrize("format", ["npy", "tif"])
def test_a_disk_that_is_full_is_one_line(format, sample_archive, sample_sites, tmp_path):
    """NumPy's error didn't say why: "874496 requested and 106368 written", as a traceback."""
    sample_sites[:2].to_geodataframe().to_file(tmp_path / "sites.geojson")
    command = [sys.executable, "-c", LIMITED, "download", str(tmp_path / "sites.geojson"), "--years", "2023"]
    command += ["-o", str(tmp_path / "copy"), "--source", str(sample_archive), "--format", format]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: can't write {tmp_path}/copy/")
    assert "File too large" in done.stderr
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["download.json"]
