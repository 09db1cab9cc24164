"""CPU time, wall time and memory of one call; and what machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "gee_polygons", "numpy", "numba", "imagecodecs", "obstore", "exactextract", "xvec", "rasterio", "rasterstats",
    "shapely", "pyproj",
)  # fmt: skip


def measured(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Call once. Returns its result, and CPU seconds (of all threads), wall seconds and memory in MB.

    Memory is the highest resident size during the call, and how far it is above the one before the call; both as the
    kernel counts them, so that no peak is missed.
    """
    before = _memory_mb("VmRSS")
    _reset_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    figures = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    peak = _memory_mb("VmHWM")
    return result, {**figures, "peak_mb": peak, "above_mb": peak - before}


def cpu_seconds(call: Callable[[], Any], repeats: int = 5) -> float:
    """Median CPU seconds of a call, after one that isn't counted."""
    call()
    return median(measured(call)[1]["cpu_s"] for _ in range(repeats))


def in_own_process(module: str, *arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a module of this package in a new process; returns the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        return {"error": last}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _memory_mb(key: str) -> float:
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:  # not Linux: the highest of the whole process is all there is
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(key)) / 1000


def _reset_peak() -> None:
    with suppress(OSError):  # the peak then counts what came before, too
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def machine() -> list[str]:
    """Describe the machine and the versions, without naming it."""
    found = {name: _version(name) for name in PACKAGES}
    return [
        f"{date.today().isoformat()}; {_cpu_model()}, {os.cpu_count()} cores, {_total_memory_gb():.0f} GB; "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        ", ".join(f"{name} {number}" for name, number in found.items() if number),
    ]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _total_memory_gb() -> float:
    import psutil

    return float(psutil.virtual_memory().total) / 2**30


def busy() -> float:
    """Share of the machine that other processes use right now, over a second."""
    import psutil

    return float(psutil.cpu_percent(interval=1.0)) / 100
