"""The biggest jobs: batch tasks of Earth Engine that write tables to Drive or Cloud Storage.

A job is cut into tasks of some hundred sites; a few run at once. A task's name says what it computes, so starting the
same job again takes over what runs or is finished, and `resume_exports` takes up tasks by their ids.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import ALPHA_EMBEDDINGS
from gee_polygons.errors import EarthEngineError, InputFileError, UsageError
from gee_polygons.layers import CategoricalLayer
from gee_polygons.sources.earthengine.batches import SiteShapes, bounding_box, packed
from gee_polygons.sources.earthengine.cache import digest
from gee_polygons.sources.earthengine.recipes import (
    REDUCERS,
    Place,
    Recipe,
    embedding_recipe,
    histogram_recipe,
    layer_recipe,
    today,
)
from gee_polygons.sources.earthengine.session import earth_engine, project_path
from gee_polygons.sources.earthengine.tabulate import FREQUENCIES, class_rows, days_with_images, periods_between
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
# what tasks of the older interface are called
OTHER_STATES: Final = {"COMPLETED": "SUCCEEDED", "READY": "PENDING", "CANCEL_REQUESTED": "CANCELLING"}
PREFIX: Final = re.compile(r"[A-Za-z0-9._/-]{1,60}")
OWN_COLUMNS: Final = ("row", "site_id", "period", "about")


@dataclass
class _Task:
    """One task: what it is called, what it sends, and how it fares."""

    name: str
    sites: int
    body: Callable[[str], bytes] | None = None
    operation: str | None = None
    state: str = "WAITING"
    message: str = ""


@dataclass
class Exports:
    """Tasks of one job.

    Parameters
    ----------
    tasks : list
        In order.
    at_once : int
        How many may be under way; the others are started by `wait`, or by `status` as places become free.
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
        """Whether all tasks had ended when they were last asked for."""
        return all(task.state in ENDED for task in self.tasks)

    def status(self) -> pd.DataFrame:
        """Ask how the tasks fare, and start those that there is room for; one row per task."""
        states = {_short(operation): operation for operation in self._service.operations()}
        for task in self.tasks:
            if task.operation is not None and task.state not in ENDED:
                found = states.get(task.operation.rpartition("/")[2])
                task.state, task.message = _fares(found or self._service.operation(task.operation))
        self._fill()
        columns = ["task", "sites", "state", "message", "id"]
        rows = [[t.name, t.sites, t.state, t.message, t.operation] for t in self.tasks]
        return pd.DataFrame(rows, columns=columns)

    def wait(
        self, *, progress: bool | Callable[[int, int], object] = True, poll_s: float = POLL_S, raise_failed: bool = True
    ) -> pd.DataFrame:
        """Wait for all tasks, starting them as there is room.

        Parameters
        ----------
        progress : bool or callable
            A bar, or a function called with (tasks ended, in all).
        poll_s : float
            Seconds between two looks.
        raise_failed : bool
            Whether a failed task raises in the end.

        Returns
        -------
        DataFrame
            See `status`.
        """
        from tqdm.auto import tqdm

        with tqdm(total=len(self.tasks), unit="task", desc="exports", disable=progress is not True) as bar:
            while True:
                table = self.status()
                ended = sum(task.state in ENDED for task in self.tasks)
                bar.update(ended - bar.n)
                if callable(progress):
                    progress(ended, len(self.tasks))
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
        """Cancel what runs or waits."""
        for task in self.tasks:
            if task.operation is None:
                task.state = "CANCELLED"
            elif task.state not in ENDED:
                self._service.cancel(task.operation)
                task.state = "CANCELLED"

    def _fill(self) -> None:
        running = sum(task.operation is not None and task.state not in ENDED for task in self.tasks)
        for task in self.tasks:
            if running >= self.at_once:
                break
            if task.operation is None and task.state == "WAITING" and task.body is not None:
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
    start_date: str,
    end_date: str,
    reducer: str | None,
    frequency: str,
    drive_folder: str | None,
    bucket: str | None,
    prefix: str | None,
    at_once: int = TASKS_AT_ONCE,
) -> Exports:
    """Cut a job into tasks, take over those that are there already, and start what there is room for.

    `reducer` is None for a categorical layer. See `SiteCollection.export_continuous`.
    """
    from gee_polygons.periods import parse_dates

    if (drive_folder is None) == (bucket is None):
        raise UsageError("an export goes to drive_folder= or to bucket=: give one of them")
    named = prefix or layer.name
    if not PREFIX.fullmatch(named):
        raise UsageError(f"prefix is up to 60 letters, digits and ._/-, found {prefix!r}")
    earth_engine()
    first, last = (day.date() for day in parse_dates(start_date, end_date))
    recipe = _recipe(layer, reducer, frequency, first.isoformat(), (last + timedelta(days=1)).isoformat())
    shapes, service = SiteShapes(sites.polygons), Service()
    sizes = [len(text) for text in shapes.texts]
    parts: list[tuple[Sequence[int], tuple[str, ...]]] = []
    for members in packed(shapes.order, np.zeros(len(shapes)), sizes, SITES_PER_TASK):
        if isinstance(layer, CategoricalLayer) or frequency != "all":
            periods = periods_between(first, last, frequency, layer)
        else:
            periods = days_with_images(service, shapes, layer, members, first, last)
        starts = range(0, len(periods), PERIODS_PER_TASK)
        parts += [(members, tuple(periods[i : i + PERIODS_PER_TASK])) for i in starts]
    if not parts:
        raise UsageError(f"layer {layer.name!r} has nothing between {start_date} and {end_date}")
    there = {}
    for operation in reversed(service.operations()):
        if _fares(operation)[0] not in ("FAILED", "CANCELLED", "CANCELLING"):
            there[str((operation.get("metadata") or {}).get("description", ""))] = operation
    tasks = []
    for number, (some, dates) in enumerate(parts):
        told = "".join(shapes.texts[i] + json.dumps(sites.site_ids[i]) for i in some)
        # the same job again takes over what is there; not if it would compute something else by now
        stamp = "" if recipe.is_over(dates[-1]) else today().isoformat()
        stamp = stamp if recipe.text else str(time.time_ns())
        mark = digest(recipe.text, told, *dates, str(drive_folder), str(bucket), stamp).hex()[:8]
        name = f"{named}_{mark}_{number + 1:04d}of{len(parts):04d}"
        work = _Work(shapes, sites.site_ids, recipe, layer.name, frequency, some, dates)
        task = _Task(name.replace("/", "_"), len(some), work.body(name, drive_folder, bucket))
        if task.name in there:
            task.operation, (task.state, task.message) = there[task.name]["name"], _fares(there[task.name])
        tasks.append(task)
    exports = Exports(tasks, at_once, service)
    exports._fill()
    return exports


def resume_exports(ids: Sequence[str]) -> Exports:
    """Take up tasks that were started before, by their ids."""
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
        name = str((found.get("metadata") or {}).get("description", operation))
        tasks.append(_Task(name, 0, None, operation, *_fares(found)))
    return Exports(tasks, TASKS_AT_ONCE, service)


def _short(operation: Mapping[str, Any]) -> str:
    """Return the last part of an operation's name: what comes before it is written in several ways."""
    return str(operation.get("name", "")).rpartition("/")[2]


def _fares(operation: Mapping[str, Any]) -> tuple[str, str]:
    """Return an operation's state, and its message if it failed."""
    error = operation.get("error") or {}
    state = (operation.get("metadata") or {}).get("state")
    if state is None:
        state = "RUNNING" if not operation.get("done") else "FAILED" if error else "SUCCEEDED"
    return OTHER_STATES.get(state, state), str(error.get("message", ""))


def read_exports(folder: str | Path, layer: CategoricalLayer | None = None) -> pd.DataFrame:
    """Gather the files of an export into the table that the extraction would have returned.

    Parameters
    ----------
    folder : str or Path
        Where the CSV files were downloaded to; folders below count too. All belong to one job.
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
        return pd.DataFrame(rows, columns=["site_id", "year", "class", "class_name", "count", "area_ha"])
    if about["frequency"] == "all":
        head = pd.DataFrame({"date": pd.to_datetime(table["period"]).to_numpy()})
    else:
        numbers = [[int(part) for part in period.split("-")] for period in table["period"]]
        head = pd.DataFrame(numbers, columns=["year", "month"][: len(numbers[0])])
    head.insert(0, "site_id", ids)
    bands = [band for band in about["bands"] if band not in ("valid", "covered")]
    values = values.reindex(columns=bands).astype(np.float64)
    some = values.notna().any(axis=1)
    return pd.concat([head, values], axis=1)[some].reset_index(drop=True)


@dataclass(frozen=True)
class _Work:
    """What one task computes."""

    shapes: SiteShapes
    site_ids: Sequence[int | str]
    recipe: Recipe
    layer: str
    frequency: str
    members: Sequence[int]
    periods: tuple[str, ...]

    def body(self, name: str, drive_folder: str | None, bucket: str | None) -> Callable[[str], bytes]:
        """Return what builds the request, once it is its turn."""
        options: dict[str, Any] = {"fileFormat": "CSV"}
        if bucket is None:
            options["driveDestination"] = {"folder": drive_folder, "filenamePrefix": name}
        else:
            options["cloudStorageDestination"] = {"bucket": bucket, "filenamePrefix": name}
        selectors = [*OWN_COLUMNS, *self.recipe.bands]

        def build(request_id: str) -> bytes:
            return self.shapes.body(
                self._expression(), self.members, description=name.replace("/", "_"), fileExportOptions=options,
                selectors=selectors, requestId=request_id,
            )  # fmt: skip

        return build

    def _expression(self) -> Any:
        import ee

        about = json.dumps(
            {"layer": self.layer, "reducer": self.recipe.reducer, "bands": list(self.recipe.bands),
             "scale_m": self.recipe.scale_m, "frequency": self.frequency}
        )  # fmt: skip
        names = list(self.recipe.bands)
        reducer = getattr(ee.Reducer, self.recipe.reducer)()
        reducer = reducer.setOutputs(names) if len(names) == 1 else reducer
        found = None
        groups: dict[tuple[str, float], list[int]] = defaultdict(list)
        for i in self.members:
            groups[str(self.shapes.zones[i]), self.shapes.scale(self.recipe, i)].append(i)
        for (crs, scale), here in sorted(groups.items()):
            place = Place.of(bounding_box(self.shapes.polygons[here]), crs)
            features = ee.FeatureCollection(
                [
                    self.shapes.feature(i, {"row": i, "site_id": json.dumps(self.site_ids[i]), "about": about})
                    for i in here
                ]
            )
            for period in self.periods:
                reduced = (
                    self.recipe.image(period, place)
                    .rename(names)
                    .reduceRegions(collection=features, reducer=reducer, scale=scale, crs=crs, tileScale=TILE_SCALE)
                )
                dated = reduced.map(lambda feature, period=period: feature.set("period", period))
                found = dated if found is None else found.merge(dated)
        return found


def _recipe(
    layer: ContinuousLayer | CategoricalLayer, reducer: str | None, frequency: str, starts: str, ends: str
) -> Recipe:
    if frequency not in FREQUENCIES:
        raise UsageError(f"frequency is one of {', '.join(FREQUENCIES)}, found {frequency!r}")
    if isinstance(layer, CategoricalLayer):
        return histogram_recipe(layer)
    if reducer not in REDUCERS:
        raise UsageError(f"unknown reducer {reducer!r}; there are {', '.join(REDUCERS)}")
    if layer.collection_id != ALPHA_EMBEDDINGS.collection_id:
        return layer_recipe(layer, reducer, starts, ends)
    if reducer != "mean" or frequency != "yearly":
        raise UsageError(
            "embeddings are exported as yearly means: the server takes other statistics of other pixels (by their "
            f"centres) than this package; asked for {frequency} {reducer}, which extract_embeddings(statistics=...) has"
        )
    return embedding_recipe(layer.bands)


def _histogram(text: Any) -> Mapping[str, float]:
    """Read a dictionary in a CSV cell: JSON, or Earth Engine's own ``{3=12.5, 15=4}``."""
    if not isinstance(text, str):
        return {}
    pairs = re.findall(r'"?(-?\d+(?:\.\d+)?)"?\s*[:=]\s*(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)', text)
    return {key: float(value) for key, value in pairs}
