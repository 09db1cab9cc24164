"""Runs an extraction over many sites: prepares chunks, lets an engine do those that are missing, finishes.

A dataset's folder holds the files, and in ``_run`` what a rerun needs: ``run.json`` (the question, the plan), the
sorted sites, and a receipt for each chunk, which is written last and so says that the chunk's files are whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely

from gee_polygons.alphaearth import N_BANDS, checked_bands
from gee_polygons.bulk import engines
from gee_polygons.bulk.finishing import BASIS_NAME, add_colors, finish
from gee_polygons.bulk.parts import EMBEDDINGS
from gee_polygons.bulk.preparing import RESERVED, prepare
from gee_polygons.bulk.sites import SiteInput
from gee_polygons.bulk.work import RUN_FOLDER, Job, read_receipt
from gee_polygons.errors import GeePolygonsError, OutputError, UsageError, warn_data
from gee_polygons.periods import checked_years, years_text
from gee_polygons.progress import Progress, heeding_interrupts, report_progress, show_notice
from gee_polygons.reduction.extents import both_extents
from gee_polygons.reduction.plan import Source
from gee_polygons.sources.opening import open_source
from gee_polygons.store.atomic import remove_leftovers, replacing, temporary_name
from gee_polygons.tables import WEIGHTS, columns, provenance
from gee_polygons.version import package_version
from gee_polygons.zonal.statistics import parse_statistics

log = logging.getLogger(__name__)

CHUNK_SITES: Final = 50_000  # sites in a rectangle above which it is divided
_SMALL: Final = 40_000  # rows that this process extracts sooner than others are started


@dataclass(frozen=True, kw_only=True)
class Run:
    """What `extract_to_parquet` did.

    Parameters
    ----------
    path : Path
        The dataset's folder.
    rows, parts, sites, blocks : int
        Rows and files of the dataset, sites, blocks read in this call.
    chunks, chunks_done : int
        Chunks of the run, and how many are done.
    failures : list of str
        Messages of failed reads and chunks.
    error_rows : int
        Rows with status ``"error"``.
    years_without_data : list of int
        Years in which no site has data.
    seconds : float
        Of this call.
    bytes : int
        Size of the dataset.
    """

    path: Path
    rows: int = 0
    parts: int = 0
    sites: int = 0
    blocks: int = 0
    chunks: int = 0
    chunks_done: int = 0
    failures: list[str] = field(default_factory=list)
    error_rows: int = 0
    years_without_data: list[int] = field(default_factory=list)
    seconds: float = 0.0
    bytes: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all chunks are done and no read failed."""
        return self.chunks_done == self.chunks and not self.failures

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failures" if self.failures else ""
        return (
            f"Run({self.path}: {self.rows:,} rows of {self.sites:,} sites in {self.parts} files, "
            f"{self.bytes / 1e6:.1f} MB, {self.chunks_done} of {self.chunks} chunks done{failed}, "
            f"{self.blocks:,} blocks read, {self.seconds:.1f} s)"
        )


def extract_to_parquet(
    sites: Any,
    path: str | Path,
    *,
    years: int | Iterable[int],
    source: str | Source | None = None,
    statistics: Sequence[str] = ("mean",),
    bands: Sequence[str] | None = None,
    engine: str = "local",
    shard: tuple[int, int] | None = None,
    partition_by: Sequence[str] = ("year",),
    embedding: str = "columns",
    keep: bool | Sequence[str] = (),
    pca: bool = False,
    resume: bool = True,
    on_error: str = "collect",
    max_workers: int | None = None,
    progress: Progress = True,
    **options: Any,
) -> Run:
    """Extract yearly embeddings of any number of sites into a folder of GeoParquet files.

    The sites are divided into chunks, rectangles of whole blocks, so that each block is read once in the whole run.
    The values are those of `extract_embeddings`, to the bit, whatever the engine. Interrupted or killed, the same call
    goes on where it was.

    Parameters
    ----------
    sites : path, SiteCollection or GeoDataFrame
        GeoParquet (a file or a folder), GeoPackage and FlatGeobuf are read in batches, never whole.
    path : str or Path
        The dataset's folder; created if need be.
    years, source, statistics, bands
        See `extract_embeddings`.
    engine : str
        ``"local"``: processes of this machine; ``"ray"``: tasks of a Ray cluster started here, or of the one that is
        connected; ``"ray://HOST:PORT"``: of that cluster. All machines must see `path` and the source.
    shard : (int, int), optional
        (3, 100): do only the third hundredth of the chunks, as a job array does; no engine is needed. When all are
        done, the call without it finishes the dataset.
    partition_by : sequence of str
        Columns that become folders: ``year``, ``time`` (``2023-01-01``) or kept columns of the sites.
    embedding : {"columns", "array", "list", "codes"}
        A00..A63 as columns; ``mean`` as an array of 64 float32 or a list of doubles; ``codes``: the unit mean as 64
        bytes, quantised as the archive does. The last three need all bands and the mean alone.
    keep : bool or sequence of str
        Columns of the sites to write, with their types; True: all.
    pca : bool
        Add ``pca_components``: scores on the first three principal components of the whole dataset.
    resume : bool
        Go on with what the folder holds of the same run; False: delete that and start over.
    on_error : {"collect", "raise"}
        Give rows of failed reads the status ``"error"``, to be tried again by the next call; or stop.
    max_workers : int, optional
        Processes. Default: one per core.
    progress : bool or callable
        See `extract_embeddings`; the unit is the site.
    **options
        ``id_column``, ``start_year_column``, ``crs``, ``layer``: see `load_sites`.

    Returns
    -------
    Run

    Raises
    ------
    OutputError
        If the folder holds something else, another run, or one that is being written by another process.
    UsageError
        For unknown columns, statistics, engines or formats.

    Examples
    --------
    >>> import tempfile
    >>> from gee_polygons.sources.sample import sample_sites
    >>> folder = Path(tempfile.mkdtemp(), "embeddings")
    >>> run = extract_to_parquet(sample_sites()[:3], folder, years=[2023, 2024], source="sample", progress=False)
    >>> run.rows, run.is_complete, sorted(p.name for p in folder.glob("year=*"))
    (6, True, ['year=2023', 'year=2024'])
    """
    started = time.perf_counter()
    question = _Question.of(sites, options, years, source, statistics, bands, partition_by, embedding, keep, pca)
    if on_error not in ("collect", "raise"):
        raise UsageError(f"on_error is 'collect' or 'raise', found {on_error!r}")
    if shard is not None and not (len(shard) == 2 and 1 <= shard[0] <= shard[1]):
        raise UsageError(f"shard is (number, of), from (1, of) to (of, of), found {shard!r}")
    if shard is not None and not resume:
        raise UsageError("to start over would delete what other shards did; start over without a shard first")
    if max_workers is not None and max_workers < 1:
        raise UsageError(f"max_workers is 1 or more, found {max_workers}")
    folder = Path(path).expanduser().absolute()
    with heeding_interrupts(), _locked(folder, shared=shard is not None):
        job = _prepared(folder, question, resume, progress)
        state = _State.of(job)
        todo = [n for n in range(len(job.counts)) if n not in state.done]
        if shard is not None:
            todo = [n for n in todo if n % shard[1] == shard[0] - 1]
        if not state.finished:
            _do(job, question, todo, state, engine, on_error, max_workers, progress)
        whole = all(n in state.done or n in state.tried for n in range(len(job.counts)))
        if whole and shard is None and not state.finished:
            state.finish(job, question, max_workers, pca=pca)
        return state.run(job, time.perf_counter() - started)


@dataclass(frozen=True, kw_only=True)
class _Question:
    """The arguments that decide about a dataset, checked."""

    input: SiteInput
    opened: Source
    spec: str | None  # of the source, if workers can open it themselves
    keep: tuple[str, ...] | None
    asked: dict[str, Any]

    @classmethod
    def of(
        cls, sites: Any, options: Any, years: Any, source: Any, statistics: Any, bands: Any, partition_by: Any,
        embedding: str, keep: Any, pca: bool,
    ) -> _Question:  # fmt: skip
        unknown = set(options) - {"id_column", "start_year_column", "crs", "layer"}
        if unknown:
            raise TypeError(f"extract_to_parquet() got an unexpected keyword argument {min(unknown)!r}")
        names = checked_bands(bands)
        wanted, needs = parse_statistics(statistics)
        if needs.medoid and len(names) != N_BANDS:
            raise UsageError("the medoid is the pixel nearest in all 64 bands; leave bands= out")
        if embedding not in EMBEDDINGS:
            raise UsageError(f"embedding is one of {', '.join(EMBEDDINGS)}, found {embedding!r}")
        only_mean = wanted == ("mean",) and len(names) == N_BANDS
        if not only_mean and (embedding != "columns" or pca):
            what = "pca=True" if embedding == "columns" else f"embedding={embedding!r}"
            raise UsageError(f"{what} needs all bands and the mean alone, found {', '.join(wanted)}")
        kept = None if keep is True else (keep,) if isinstance(keep, str) else tuple(keep or ())
        places = (partition_by,) if isinstance(partition_by, str) else tuple(partition_by)
        for name in places:
            if name not in ("year", "time") and not (kept is None or name in kept):
                raise UsageError(f"partition_by={name!r}: name it in keep=, too; others are year and time")
        if {"year", "time"} <= set(places):
            raise UsageError("partition_by takes year or time, not both")
        opened = open_source(source)
        asked: dict[str, Any] = {
            "version": package_version(), "source": opened.name, "archive": opened.archive,
            "years": list(checked_years(years)), "statistics": list(wanted), "bands": list(names),
            "partition_by": list(places), "embedding": embedding, "keep": None if kept is None else list(kept),
            "pca": pca, "options": {k: str(v) for k, v in sorted(options.items()) if v is not None},
        }  # fmt: skip
        spec = source if isinstance(source, str) else None
        return cls(input=SiteInput(sites, options), opened=opened, spec=spec, keep=kept, asked=asked)

    @property
    def identity(self) -> list[Any] | None:
        """Path, size and time of a file of sites; None for others."""
        path = self.input.path
        if path is None or not path.is_file():
            return None
        stat = path.stat()
        return [str(path.absolute()), stat.st_size, stat.st_mtime_ns]


def _prepared(folder: Path, question: _Question, resume: bool, progress: Progress) -> Job:
    """Return the run of a folder; make it if there is none."""
    place = folder / RUN_FOLDER
    said = _read_run(place)
    is_ours = said is not None
    if is_ours and not resume:
        _remove_dataset(folder)
        said = None
    if said is not None:
        for name, value in question.asked.items():
            if said["asked"].get(name) != value:
                raise OutputError(
                    f"{folder} holds a run with {name}={_short(said['asked'].get(name))}, asked is {_short(value)}; "
                    "name another folder, or start over (resume=False, --restart)"
                )
        is_same_file = said["identity"] is not None and said["identity"] == question.identity
        if is_same_file and ((place / "sites.arrow").exists() or _finished(folder, said["hash"])):
            return Job.load(folder)
    elif not is_ours and any(not p.name.startswith(".") and p.name != RUN_FOLDER for p in folder.iterdir()):
        raise OutputError(f"{folder} holds files that aren't of a run; name an empty folder")
    making = temporary_name(place)
    making.mkdir()
    try:
        with report_progress(progress, 0, unit="site", title="reading sites") as advance:
            prepared = prepare(
                question.input, making, source=question.opened, years=question.asked["years"], keep=question.keep,
                most=CHUNK_SITES, advance=advance,
            )  # fmt: skip
        if said is None:
            _write_run(making, question, prepared)
        elif said["digest"] != prepared.digest:
            raise OutputError(
                f"{folder} holds a run of other sites ({said['n']:,}, now {prepared.n:,}, or the same number with "
                "other values); name another folder, or start over (resume=False, --restart)"
            )
        (place / "done").mkdir(exist_ok=True)
        for name in ("sites.arrow", "run.json"):  # last: where run.json is, the rest is
            if (making / name).exists():
                (making / name).replace(place / name)
    except OSError as error:
        if isinstance(error, GeePolygonsError):
            raise
        raise OutputError(f"can't write into {folder}: {error}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return Job.load(folder)


def _finished(folder: Path, plan_hash: str) -> dict[str, Any] | None:
    """Return the record of a finished dataset, if all of its files are there."""
    try:
        said: dict[str, Any] = json.loads((folder / RUN_FOLDER / "finished.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return said if said["plan"] == plan_hash and _are_there(folder, said["files"]) else None


def _write_run(place: Path, question: _Question, prepared: Any) -> None:
    import pyarrow as pa

    with pa.memory_map(str(place / "sites.arrow")) as file:
        reader = pa.ipc.open_file(file)
        names = [n for n in reader.schema.names if n not in RESERVED]
        has_start = any(
            reader.get_batch(i)["start_year"].null_count < len(reader.get_batch(i))
            for i in range(reader.num_record_batches)
        )
    asked = question.asked
    kept = [*(["start_year"] if has_start else []), *names, *(["lon", "lat"] if names else [])]
    text = json.dumps([asked, prepared.digest], sort_keys=True)
    content = {
        "format": 1, "asked": asked, "source": question.spec, "identity": question.identity, "n": prepared.n,
        "digest": prepared.digest, "hash": hashlib.sha256(text.encode()).hexdigest()[:32], "kept": kept,
        "values": columns(asked["bands"], asked["statistics"]), "counts": prepared.counts, "bounds": prepared.bounds,
        "provenance": provenance(
            source=asked["source"], archive=asked["archive"], years=asked["years"], statistics=asked["statistics"],
            bands=asked["bands"], weights=getattr(question.opened, "weights", WEIGHTS),
        ),
        "layout": prepared.layout.as_dict(),
    }  # fmt: skip
    (place / "run.json").write_text(json.dumps(content), encoding="utf-8")


def _read_run(place: Path) -> dict[str, Any] | None:
    try:
        said = json.loads((place / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{place / 'run.json'} can't be read: {error}; start over (resume=False, --restart)"
        ) from error
    if not isinstance(said, dict) or said.get("format") != 1:
        raise OutputError(f"{place.parent} holds a run of another version; start over (resume=False, --restart)")
    return said


def _remove_dataset(folder: Path) -> None:
    """Remove the files of a run, and no others."""
    for path in sorted(folder.rglob("*.parquet")):
        if path.name.startswith(("part-", "seams-")):
            path.unlink()
    for path in sorted((p for p in folder.rglob("*=*") if p.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
    (folder / BASIS_NAME).unlink(missing_ok=True)
    for path in (folder / RUN_FOLDER).iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else f"{text[:76]}..."


# --- doing and finishing ----------------------------------------------------------------------------------------------


class _State:
    """Which chunks are done, and what the finished dataset holds."""

    def __init__(self) -> None:
        self.done: dict[int, dict[str, Any]] = {}
        self.tried: dict[int, dict[str, Any]] = {}  # with failed reads
        self.failures: list[str] = []
        self.finished: dict[str, Any] | None = None
        self.blocks = self.damaged = 0

    @classmethod
    def of(cls, job: Job) -> _State:
        """Look at a folder. A chunk is done if its receipt is that of this run, and its files are there as written."""
        state = cls()
        state.finished = _finished(job.folder, job.plan_hash)
        if state.finished is not None:
            return state
        for number in range(len(job.counts)):
            path = job.receipt_path(number)
            if not path.exists():
                continue
            try:
                receipt, _ = read_receipt(path)
            except (OSError, ValueError, KeyError):
                continue
            if receipt["plan"] == job.plan_hash and not receipt["errors"] and _are_there(job.folder, receipt["files"]):
                state.done[number] = receipt
        return state

    def add(self, number: int, receipt: dict[str, Any]) -> None:
        """Note a chunk that was done just now."""
        self.blocks += receipt["blocks"]
        self.damaged += receipt["damaged"]
        (self.tried if receipt["errors"] else self.done)[number] = receipt
        self.failures += receipt["failures"]

    def finish(self, job: Job, question: _Question, max_workers: int | None, *, pca: bool) -> None:
        """Write what no chunk could complete, and colours; then the record that the dataset is whole."""
        paths = [job.receipt_path(number) for number in range(len(job.counts))]
        receipts = [read_receipt(path)[0] for path in paths]
        found = finish(job, question.opened, paths, max_workers)
        files = {name: size for receipt in receipts for name, size in receipt["files"].items()} | found["files"]
        self.failures += found["failures"]
        errors = found["errors"] + sum(receipt["error_rows"] for receipt in receipts)
        rows = found["rows"] + sum(receipt["rows"] for receipt in receipts)
        with_data = np.sum([found["with_data"], *(receipt["with_data"] for receipt in receipts)], axis=0)
        empty = [year for year, n in zip(job.years, with_data.tolist(), strict=True) if not n]
        if empty:
            said = "" if len(empty) == len(job.years) else f" in {years_text(empty)}"
            warn_data(f"no site has data{said}: {both_extents(question.opened, np.array([shapely.box(*job.bounds)]))}")
        record = {"plan": job.plan_hash, "files": files, "rows": rows, "error_rows": errors, "empty": empty}
        if not errors and not self.failures:
            if pca:
                record["files"] = add_colors(job, files)
            with replacing(job.folder / RUN_FOLDER / "finished.json") as part:
                part.write_text(json.dumps(record), encoding="utf-8")
            shutil.rmtree(job.folder / RUN_FOLDER / "done", ignore_errors=True)
            job.sites_path.unlink(missing_ok=True)
        self.finished = record
        if self.damaged:
            warn_data(f"{self.damaged} pixels can't be unit vectors, and count as they are")

    def run(self, job: Job, seconds: float) -> Run:
        """Return the result of a call."""
        receipts = [*self.done.values(), *self.tried.values()]
        files: dict[str, int] = {}
        for receipt in receipts if self.finished is None else [self.finished]:
            files |= receipt["files"]
        rows = sum(r["rows"] for r in receipts) if self.finished is None else self.finished["rows"]
        errors = sum(r["error_rows"] for r in receipts) if self.finished is None else self.finished["error_rows"]
        n = len(job.counts)
        return Run(
            path=job.folder, rows=rows, parts=len(files), sites=sum(job.counts), blocks=self.blocks, chunks=n,
            chunks_done=n if self.finished is not None else len(receipts), failures=self.failures,
            years_without_data=(self.finished or {}).get("empty", []), error_rows=errors,
            seconds=seconds, bytes=sum(files.values()),
        )  # fmt: skip


def _are_there(folder: Path, files: dict[str, int]) -> bool:
    for name, size in files.items():
        try:
            if (folder / name).stat().st_size != size:
                return False
        except OSError:
            return False
    return True


def _do(
    job: Job, question: _Question, todo: list[int], state: _State, engine: str, on_error: str,
    max_workers: int | None, progress: Progress,
) -> None:  # fmt: skip
    """Let an engine do chunks, and note their outcomes."""
    source = None if question.spec is not None else question.opened
    folder, workers = str(job.folder), max_workers or os.cpu_count() or 1
    rows = sum(job.counts[number] for number in todo) * len(job.years)
    if engine == "local" and (workers == 1 or len(todo) < 2 or rows < _SMALL):
        outcomes: Iterator[engines.Outcome] = engines.run_here(folder, todo, question.opened, max_workers)
    elif engine == "local":
        outcomes = engines.run_in_processes(folder, todo, source, workers)
    elif engine == "ray" or engine.startswith("ray://"):
        outcomes = engines.run_on_ray(folder, todo, source, engine if "://" in engine else None)
    else:
        raise UsageError(f"engine is 'local', 'ray' or 'ray://HOST:PORT', found {engine!r}")
    total, before = sum(job.counts), sum(job.counts[number] for number in state.done)
    with report_progress(progress, total, unit="site", title="extract", done=before) as advance:
        try:
            for number, outcome in outcomes:
                if isinstance(outcome, BaseException):
                    is_of_all = isinstance(outcome, UsageError | OutputError)
                    is_of_all |= not isinstance(outcome, GeePolygonsError)  # a bug
                    if on_error == "raise" or is_of_all:
                        raise outcome
                    state.failures.append(f"chunk {number}: {outcome}")
                    continue
                state.add(number, outcome)
                advance(job.counts[number])
                failed = f", {len(state.failures):,} failures" if state.failures else ""
                show_notice(f"{state.blocks:,} blocks{failed}")
                if on_error == "raise" and outcome["errors"]:
                    raise OutputError(f"a read failed: {outcome['failures'][0]}; the same call goes on")
        finally:
            outcomes.close()  # type: ignore[attr-defined]


@contextmanager
def _locked(folder: Path, *, shared: bool) -> Iterator[None]:
    """Hold a dataset's folder against other runs; shards share it. The system frees it when this process ends."""
    place = folder / RUN_FOLDER
    try:
        place.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        file = (place / "lock").open("a")
    except OSError as error:
        raise OutputError(f"can't write into {folder}: {error.strerror or error}") from error
    with file:
        if os.name == "posix":
            import fcntl

            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(f"another process is writing {folder}; wait for it, or name another folder") from None
            except OSError:
                log.warning("%s can't be locked: see that no other process writes it", folder)
        yield
