"""Engines that do the chunks of a run: this process, several processes of this machine, or a Ray cluster.

An engine is a generator: it takes the numbers of chunks, and yields each with its receipt or the exception that it
ended with. Which engine does a chunk, in which order and how often, changes no byte of the dataset.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from gee_polygons.bulk.work import do_chunk
from gee_polygons.errors import GeePolygonsError, UsageError
from gee_polygons.reduction.plan import Source

Outcome = tuple[int, "dict[str, Any] | BaseException"]
_TRIES: Final = 3  # of a chunk whose worker died
# each worker is one process with one thread
_WORKER: Final = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from gee_polygons.bulk.worker import main; main()"
)
WORKER_ENVIRONMENT: Final = {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def run_here(folder: str, chunks: Sequence[int], source: Source | None, max_workers: int | None) -> Iterator[Outcome]:
    """Do chunks one after the other in this process; `max_workers` threads reduce blocks."""
    for number in chunks:
        try:
            outcome: Any = do_chunk(folder, number, source, max_workers)
        except Exception as error:
            outcome = error
        yield number, outcome


def run_in_processes(folder: str, chunks: Sequence[int], source: Source | None, workers: int) -> Iterator[Outcome]:
    """Do chunks in processes of this machine; one whose worker is killed is done again by another."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    found: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
    for number in chunks:
        todo.put(number)
    stop = threading.Event()
    processes: set[subprocess.Popen[bytes]] = set()

    def feed() -> None:
        try:
            worker = None
            while not stop.is_set():
                try:
                    number = todo.get_nowait()
                except queue.Empty:
                    break
                for left in reversed(range(_TRIES)):
                    try:
                        if worker is None:
                            worker = _start(folder, source)
                            processes.add(worker)
                        assert worker.stdin is not None
                        assert worker.stdout is not None
                        pickle.dump(number, worker.stdin)
                        worker.stdin.flush()
                        found.put((number, pickle.load(worker.stdout)))
                        break
                    except (EOFError, OSError, ValueError, pickle.UnpicklingError):
                        if stop.is_set():
                            return
                        status = None if worker is None else _ended(worker)
                        worker = None
                        if not left:
                            message = f"{_TRIES} workers ended with status {status} in chunk {number}; lack of memory?"
                            found.put((number, WorkerError(message)))
        finally:
            found.put(None)

    threads = [threading.Thread(target=feed, daemon=True) for _ in range(min(workers, len(chunks)))]
    for thread in threads:
        thread.start()
    ended = 0
    try:
        while ended < len(threads):
            outcome = found.get()
            if outcome is None:
                ended += 1
            else:
                yield outcome
    finally:
        stop.set()
        for process in list(processes):
            _ended(process)
        for thread in threads:
            thread.join()
        for process in processes:  # started meanwhile
            _ended(process)


def _ended(process: subprocess.Popen[bytes]) -> int:
    """End a worker, if it hasn't ended, and return its status; what it may be doing is done by another."""
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):  # what was never sent
                stream.close()
    return process.wait()


class WorkerError(GeePolygonsError):
    """Worker processes ended before they had done a chunk."""

    code = "worker"


def _start(folder: str, source: Source | None) -> subprocess.Popen[bytes]:
    # not multiprocessing: it would run the caller's script again in each worker
    command = [sys.executable, "-c", _WORKER]
    environment = {**os.environ, **WORKER_ENVIRONMENT}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdin is not None
    pickle.dump(sys.path, process.stdin)
    pickle.dump((folder, source), process.stdin)
    process.stdin.flush()
    return process


def run_on_ray(folder: str, chunks: Sequence[int], source: Source | None, address: str | None) -> Iterator[Outcome]:
    """Do chunks as tasks of a Ray cluster that shares the dataset's folder; only receipts go through its store."""
    try:
        import ray
    except ImportError:
        raise UsageError('engine="ray" needs Ray: pip install "gee_polygons[ray]"') from None
    started = not ray.is_initialized()
    if started:
        options: dict[str, Any] = {"address": address} if address else {"object_store_memory": 150_000_000}
        ray.init(
            **options, log_to_driver=False, configure_logging=False, include_dashboard=False if not address else None,
            runtime_env={"env_vars": WORKER_ENVIRONMENT},
        )  # fmt: skip
    try:
        task = ray.remote(max_retries=_TRIES, num_cpus=1)(do_chunk)
        shared = None if source is None else ray.put(source)
        window = max(2 * int(ray.cluster_resources().get("CPU", 1)), 2)
        waiting: dict[Any, int] = {}
        numbers = iter(chunks)
        while True:
            while len(waiting) < window and (number := next(numbers, None)) is not None:
                waiting[task.remote(folder, number, shared, 1)] = number
            if not waiting:
                return
            done, _ = ray.wait(list(waiting), num_returns=1)
            for reference in done:
                number = waiting.pop(reference)
                try:
                    outcome: Any = ray.get(reference)
                except Exception as error:
                    outcome = getattr(error, "cause", None) or error
                    if outcome is not error:
                        outcome.__cause__ = error  # its text is the traceback in the worker
                yield number, outcome
    finally:
        if started:
            ray.shutdown()
