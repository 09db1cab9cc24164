"""Exports tables to Drive or Cloud Storage by batch tasks of Earth Engine, for the largest numbers of sites.

An export is divided into tasks of some hundred sites, of which a few run at once. A task's name has a digest of what it
computes, so that starting the same export again finds tasks that run or are finished. `resume_exports` finds tasks by
their ids.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import ALPHA_EMBEDDINGS
from gee_polygons.errors import EarthEngineError, InputFileError, UsageError
from gee_polygons.layers import CategoricalLayer
from gee_polygons.periods import parse_dates
from gee_polygons.progress import Progress, report_progress
from gee_polygons.sources.earthengine.batches import SiteShapes, pack
from gee_polygons.sources.earthengine.cache import digest
from gee_polygons.sources.earthengine.reductions import (
    REDUCERS,
    Reduction,
    embedding_reduction,
    histogram_reduction,
    layer_reduction,
    today,
)
from gee_polygons.sources.earthengine.session import earth_engine, project_path
from gee_polygons.sources.earthengine.tabulate import (
    CLASS_COLUMNS,
    FREQUENCIES,
    class_rows,
    days_with_images,
    periods_between,
)
from gee_polygons.sources.earthengine.transport import RequestFailedError, Service

if TYPE_CHECKING:
    from gee_polygons.layers import ContinuousLayer
    from gee_polygons.site import SiteCollection

# https://developers.google.com/earth-engine/guides/usage: a noncommercial project may run about two at once
TASKS_AT_ONCE: Final = 2
SITES_PER_TASK: Final = 500
PERIODS_PER_TASK: Final = 60
TILE_SCALE: Final = 4  # smaller tiles on the server: slower, and far from its memory limit
POLL_S: Final = 10.0
ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
# names of states in the older interface
LEGACY_STATES: Final = {"COMPLETED": "SUCCEEDED", "READY": "PENDING", "CANCEL_REQUESTED": "CANCELLING"}
PREFIX: Final = re.compile(r"[A-Za-z0-9._/-]{1,60}")
OWN_COLUMNS: Final = ("row", "site_id", "period", "about")


@dataclass
class _Task:
    """A batch task and its state."""

    name: str
    n_sites: int
    body: Callable[[str], bytes] | None = None  # of the request that starts it, given a request id
    operation: str | None = None
    state: str = "WAITING"
    message: str = ""


@dataclass
class Exports:
    """The batch tasks of one export.

    Parameters
    ----------
    tasks : list
        In order.
    at_once : int
        How many may run at once; `wait` and `status` start the others as tasks end.
    """

    tasks: list[_Task]
    at_once: int = TASKS_AT_ONCE
    _service: Service = field(default_factory=Service, repr=False)

    @property
    def ids(self) -> list[str]:
        """Ids of the tasks started so far; `resume_exports` takes them."""
        return [task.operation for task in self.tasks if task.operation is not None]

    @property
    def done(self) -> bool:
        """Whether all tasks had ended at the last `status`."""
        return all(task.state in ENDED for task in self.tasks)

    def status(self) -> pd.DataFrame:
        """Update the states of the tasks, start as many as may run, and return one row per task."""
        listed = {_short_name(operation): operation for operation in self._service.operations()}
        for task in self.tasks:
            if task.operation is not None and task.state not in ENDED:
                found = listed.get(task.operation.rpartition("/")[2])
                task.state, task.message = _state(found or self._service.operation(task.operation))
        self._start_tasks()
        columns = ["task", "sites", "state", "message", "id"]
        rows = [[t.name, t.n_sites, t.state, t.message, t.operation] for t in self.tasks]
        return pd.DataFrame(rows, columns=columns)

    def wait(self, *, progress: Progress = True, poll_s: float = POLL_S, raise_failed: bool = True) -> pd.DataFrame:
        """Wait until all tasks have ended.

        Parameters
        ----------
        progress : bool or callable
            A bar, or a function called with (tasks ended, in all).
        poll_s : float
            Seconds between two calls of `status`.
        raise_failed : bool
            Whether a failed task raises in the end.

        Returns
        -------
        DataFrame
            See `status`.
        """
        with report_progress(progress, len(self.tasks), unit="task", title="exports") as advance:
            n_ended = 0
            while True:
                table = self.status()
                before, n_ended = n_ended, sum(task.state in ENDED for task in self.tasks)
                advance(n_ended - before)
                if self.done:
                    break
                time.sleep(poll_s)
        failed = [task for task in self.tasks if task.state == "FAILED"]
        if failed and raise_failed:
            raise EarthEngineError(
                f"{len(failed)} of {len(self.tasks)} exports failed, the first, {failed[0].name}: {failed[0].message}; "
                "start the same export again to repeat these only"
            )
        return table

    def cancel(self) -> None:
        """Cancel the tasks that run or wait."""
        for task in self.tasks:
            if task.state not in ENDED:
                if task.operation is not None:
                    self._service.cancel(task.operation)
                task.state = "CANCELLED"

    def _start_tasks(self) -> None:
        running = sum(task.operation is not None and task.state not in ENDED for task in self.tasks)
        for task in self.tasks:
            if task.state != "WAITING" or task.body is None or running >= self.at_once:
                continue
            # the request id makes it safe to send this again after a lost answer, and new after a failure
            request_id = digest(task.name, str(time.time_ns())).hex()[:32]
            try:
                task.operation = self._service.export(task.body(request_id))["name"]
                task.state = "PENDING"
                running += 1
            except RequestFailedError as error:
                task.state, task.message = "FAILED", error.refusal.message


def start_exports(
    sites: SiteCollection,
    layer: ContinuousLayer | CategoricalLayer,
    *,
    start_date: str | int,
    end_date: str | int,
    reducer: str | None,
    frequency: str,
    drive_folder: str | None,
    bucket: str | None,
    prefix: str | None,
    at_once: int = TASKS_AT_ONCE,
) -> Exports:
    """Divide an export into tasks, find those that exist already, and start as many of the others as may run.

    `reducer` is None for a categorical layer. See `SiteCollection.export_continuous`.
    """
    if (drive_folder is None) == (bucket is None):
        raise UsageError("an export goes to drive_folder= or to bucket=: give one of them")
    prefix = layer.name if prefix is None else prefix
    if not PREFIX.fullmatch(prefix):
        raise UsageError(f"prefix is up to 60 letters, digits and ._/-, found {prefix!r}")
    earth_engine()
    first, last = (day.date() for day in parse_dates(start_date, end_date))
    reduction = _reduction(layer, reducer, frequency, first.isoformat(), (last + timedelta(days=1)).isoformat())
    shapes, service = SiteShapes(sites.polygons), Service()
    sizes = [len(text) for text in shapes.texts]
    parts: list[tuple[Sequence[int], list[str]]] = []
    for some in pack(shapes.order, np.zeros(len(shapes)), sizes, SITES_PER_TASK):
        if isinstance(layer, CategoricalLayer) or frequency != "all":
            periods = periods_between(first, last, frequency, layer)
        else:
            periods = days_with_images(service, shapes, layer, some, first, last)
        starts = range(0, len(periods), PERIODS_PER_TASK)
        parts += [(some, periods[i : i + PERIODS_PER_TASK]) for i in starts]
    if not parts:
        raise UsageError(f"layer {layer.name!r} has nothing between {start_date} and {end_date}")
    existing = {}
    for operation in reversed(service.operations()):
        if _state(operation)[0] not in ("FAILED", "CANCELLED", "CANCELLING"):
            existing[_description(operation)] = operation
    job = _Job(shapes, sites.site_ids, reduction, layer.name, frequency, drive_folder, bucket)
    tasks = []
    for number, (members, periods) in enumerate(parts, 1):
        file_name = f"{prefix}_{job.identity(members, periods)}_{number:04d}of{len(parts):04d}"
        name = file_name.replace("/", "_")
        task = _Task(name, len(members), partial(job.body, members, periods, name, file_name))
        if name in existing:
            task.operation, (task.state, task.message) = existing[name]["name"], _state(existing[name])
        tasks.append(task)
    exports = Exports(tasks, at_once, service)
    exports._start_tasks()
    return exports


def resume_exports(ids: Sequence[str]) -> Exports:
    """Return the exports of tasks that were started before, by their ids."""
    earth_engine()
    service = Service()
    tasks = []
    for given in ids:
        operation = given if "/" in given else f"{project_path()}/operations/{given}"
        try:
            found = service.operation(operation)
        except RequestFailedError as error:
            raise UsageError(f"there is no task {given!r}: {error.refusal.message}") from error
        except TypeError as error:  # the client checks the form of names
            raise UsageError(f"a task's id is like 'projects/NAME/operations/ID', found {given!r}") from error
        tasks.append(_Task(_description(found) or operation, 0, None, operation, *_state(found)))
    return Exports(tasks, TASKS_AT_ONCE, service)


def _short_name(operation: Mapping[str, Any]) -> str:
    """Return the last part of an operation's name: what comes before it is written in several ways."""
    return str(operation.get("name", "")).rpartition("/")[2]


def _description(operation: Mapping[str, Any]) -> str:
    return str((operation.get("metadata") or {}).get("description", ""))


def _state(operation: Mapping[str, Any]) -> tuple[str, str]:
    """Return an operation's state, and its message if it failed."""
    error = operation.get("error") or {}
    state = (operation.get("metadata") or {}).get("state")
    if state is None:
        state = "RUNNING" if not operation.get("done") else "FAILED" if error else "SUCCEEDED"
    return LEGACY_STATES.get(state, state), str(error.get("message", ""))


def read_exports(folder: str | Path, layer: CategoricalLayer | None = None) -> pd.DataFrame:
    """Read the files of an export into the table that the extraction would have returned.

    Parameters
    ----------
    folder : str or Path
        Folder of the downloaded CSV files of one export; folders below it are searched too.
    layer : CategoricalLayer, optional
        The layer of `export_categorical`, for its class names and pixel size.

    Returns
    -------
    DataFrame
        As of `extract_continuous` or `extract_categorical`; sites in their order.

    Raises
    ------
    InputFileError
        If there is no file, or one isn't an export of this package.
    """
    paths = sorted(Path(folder).rglob("*.csv"))
    if not paths:
        raise InputFileError(f"{folder}: no CSV file there")
    parts = []
    for path in paths:
        part = pd.read_csv(path, dtype={"site_id": str, "period": str, "about": str})
        if missing := [name for name in OWN_COLUMNS if name not in part]:
            raise InputFileError(f"{path}: isn't an export of gee_polygons, it has no column {missing[0]!r}")
        parts.append(part)
    table = pd.concat(parts, ignore_index=True).drop_duplicates(["row", "period"]).sort_values(["row", "period"])
    if len(set(table["about"])) != 1:
        raise InputFileError(f"{folder}: files of several exports: {', '.join(sorted(table['about'].unique()))}")
    about = json.loads(table["about"].iloc[0])
    ids: Any = [json.loads(text) for text in table["site_id"]]
    values = table.drop(columns=list(OWN_COLUMNS)).reset_index(drop=True)
    if about["reducer"] == "frequencyHistogram":
        if layer is None or layer.name != about["layer"]:
            raise UsageError(f"this is an export of {about['layer']!r}: give that layer, for its class names")
        rows = [
            row
            for site_id, period, text in zip(ids, table["period"], values[about["bands"][0]], strict=True)
            for row in class_rows(site_id, int(period), _histogram(text), layer, about["scale_m"])
        ]
        return pd.DataFrame(rows, columns=CLASS_COLUMNS)
    if about["frequency"] == "all":
        head = pd.DataFrame({"date": pd.to_datetime(table["period"]).to_numpy()})
    else:
        numbers = [[int(part) for part in period.split("-")] for period in table["period"]]
        head = pd.DataFrame(numbers, columns=FREQUENCIES[about["frequency"]])
    head.insert(0, "site_id", ids)
    bands = [band for band in about["bands"] if band not in ("valid", "covered")]
    values = values.reindex(columns=bands).astype(np.float64)
    some = values.notna().any(axis=1)
    return pd.concat([head, values], axis=1)[some].reset_index(drop=True)


@dataclass(frozen=True)
class _Job:
    """The parts that all tasks of an export have in common."""

    shapes: SiteShapes
    site_ids: Sequence[int | str]
    reduction: Reduction
    layer: str
    frequency: str
    drive_folder: str | None
    bucket: str | None

    def identity(self, members: Sequence[int], periods: Sequence[str]) -> str:
        """Return a digest of what a task computes, so that the same export finds its tasks again.

        The values of a period that isn't over change from day to day; those of a reduction without a text may always.
        """
        changing = "" if self.reduction.is_over(periods[-1]) else today().isoformat()
        changing = changing if self.reduction.text else str(time.time_ns())
        outlines = "".join(self.shapes.texts[i] + json.dumps(self.site_ids[i]) for i in members)
        place = str(self.drive_folder), str(self.bucket)
        return digest(self.reduction.text, outlines, *periods, *place, changing).hex()[:8]

    def body(self, members: Sequence[int], periods: Sequence[str], name: str, file_name: str, request_id: str) -> bytes:
        """Return the body of the request that starts a task: one feature per site and period, without geometry."""
        if self.bucket is None:
            place = "driveDestination", {"folder": self.drive_folder, "filenamePrefix": file_name}
        else:
            place = "cloudStorageDestination", {"bucket": self.bucket, "filenamePrefix": file_name}
        return self.shapes.body(
            self._expression(members, periods), members, description=name, requestId=request_id,
            fileExportOptions={"fileFormat": "CSV", place[0]: place[1]},
            selectors=[*OWN_COLUMNS, *self.reduction.bands],
        )  # fmt: skip

    def _expression(self, members: Sequence[int], periods: Sequence[str]) -> Any:
        names = list(self.reduction.bands)
        about = json.dumps(
            {"layer": self.layer, "reducer": self.reduction.reducer, "bands": names,
             "scale_m": self.reduction.scale_m, "frequency": self.frequency}
        )  # fmt: skip
        found = None
        for place, scale, here in self.shapes.groups(self.reduction, members):
            features = [
                self.shapes.feature(i, {"row": i, "site_id": json.dumps(self.site_ids[i]), "about": about})
                for i in here
            ]
            for period in periods:
                image = self.reduction.image(period, place)
                reduced = self.reduction.reduce_regions(image, names, features, place, scale, TILE_SCALE)
                dated = reduced.map(lambda feature, period=period: feature.set("period", period))
                found = dated if found is None else found.merge(dated)
        return found


def _reduction(
    layer: ContinuousLayer | CategoricalLayer, reducer: str | None, frequency: str, start: str, end: str
) -> Reduction:
    if frequency not in FREQUENCIES:
        raise UsageError(f"frequency is one of {', '.join(FREQUENCIES)}, found {frequency!r}")
    if isinstance(layer, CategoricalLayer):
        return histogram_reduction(layer)
    if layer.collection_id != ALPHA_EMBEDDINGS.collection_id or reducer not in REDUCERS:
        return layer_reduction(layer, str(reducer), start, end)
    if reducer != "mean" or frequency != "yearly":
        raise UsageError(
            "embeddings are exported as yearly means: the server weighs pixels for other statistics by their centres, "
            f"unlike this package; found {frequency} {reducer}, which extract_embeddings(statistics=...) computes"
        )
    return embedding_reduction(layer.bands)


def _histogram(text: Any) -> Mapping[str, float]:
    """Parse a dictionary in a CSV cell: JSON, or Earth Engine's own ``{3=12.5, 15=4}``."""
    if not isinstance(text, str):
        return {}
    pairs = re.findall(r'"?(-?\d+(?:\.\d+)?)"?\s*[:=]\s*(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)', text)
    return {key: float(value) for key, value in pairs}
