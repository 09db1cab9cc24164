"""Batch tasks: table and image exports into folders that stand in for Drive and Cloud Storage.

`<exports>/drive/<folder>/<prefix>.csv` and `<exports>/storage/<bucket>/<prefix>.csv`. Two tasks run at once, the others
are PENDING. A request id that was seen already gives the same operation again.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .encode import encode, plain_feature
from .errors import ServiceError, UnimplementedError
from .faults import Faults
from .feature import Collection, Feature
from .image import Context, Image
from .pixels import geotiff, masked_planes, view_of_image

TASKS_AT_ONCE = 2
_EXTENSIONS = {"CSV": "csv", "GEO_JSON": "geojson", "GEO_TIFF": "tif"}


@dataclass
class Operation:
    name: str
    kind: str
    description: str
    created: float = field(default_factory=time.time)
    started: float | None = None
    updated: float = field(default_factory=time.time)
    state: str = "PENDING"
    error: str | None = None
    uris: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "@type": "type.googleapis.com/google.earthengine.v1.OperationMetadata",
            "state": self.state,
            "description": self.description,
            "type": self.kind,
            "priority": 100,
            "attempt": 1,
            "createTime": _timestamp(self.created),
            "updateTime": _timestamp(self.updated),
            "progress": 1.0 if self.state == "SUCCEEDED" else 0.0,
            "destinationUris": self.uris,
        }
        if self.started is not None:
            metadata["startTime"] = _timestamp(self.started)
        done = self.state in ("SUCCEEDED", "FAILED", "CANCELLED")
        found: dict[str, Any] = {"name": self.name, "metadata": metadata, "done": done}
        if self.error is not None:
            found["error"] = {"code": 3, "message": self.error}
        elif self.state == "CANCELLED":
            found["error"] = {"code": 1, "message": "Cancelled."}
        elif done:
            found["response"] = {}
        if done:
            metadata["endTime"] = _timestamp(self.updated)
        return found


def _timestamp(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Exports:
    """The operations of a server."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        self.folder = folder
        self.faults = faults
        self._operations: dict[str, Operation] = {}
        self._by_request: dict[str, Operation] = {}
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(TASKS_AT_ONCE)

    def start(self, project: str, kind: str, request: dict[str, Any], write: Callable[[], bytes]) -> Operation:
        """Queue a task whose file is what `write` returns."""
        target = self._target(request)
        request_id = request.get("requestId")
        with self._lock:
            if request_id and request_id in self._by_request:
                return self._by_request[request_id]
            name = f"projects/{project}/operations/{uuid.uuid4().hex[:24].upper()}"
            operation = Operation(name, kind, request.get("description", ""))
            self._operations[name] = operation
            if request_id:
                self._by_request[request_id] = operation
        threading.Thread(target=self._run, args=(operation, target, write), daemon=True).start()
        return operation

    def _target(self, request: dict[str, Any]) -> Path:
        options = request.get("fileExportOptions") or {}
        extension = _EXTENSIONS.get(options.get("fileFormat", ""))
        if extension is None:
            raise UnimplementedError(f"exports in the format {options.get('fileFormat')}")
        if "driveDestination" in options:
            place = options["driveDestination"]
            parent = self.folder / "drive" / place.get("folder", "")
        elif "cloudStorageDestination" in options:
            place = options["cloudStorageDestination"]
            parent = self.folder / "storage" / place["bucket"]
        else:
            raise UnimplementedError(f"exports to {sorted(options)}")
        target = parent / f"{place.get('filenamePrefix') or request.get('description') or 'export'}.{extension}"
        if self.folder.resolve() not in target.resolve().parents:
            raise ServiceError(f"not a file name: {place.get('filenamePrefix')!r}")
        return target

    def _run(self, operation: Operation, target: Path, write: Callable[[], bytes]) -> None:
        with self._slots:
            if operation.state == "CANCELLED":
                return
            self._change(operation, "RUNNING")
            operation.started = operation.updated
            end = time.monotonic() + self.faults.export_seconds
            while time.monotonic() < end and operation.state == "RUNNING":
                time.sleep(0.01)
            try:
                if self.faults.export_error is not None:
                    raise ServiceError(self.faults.export_error)
                content = write()
            except ServiceError as error:
                operation.error = error.message
                self._change(operation, "FAILED")
                return
            except Exception as error:  # a task never takes the server with it
                operation.error = f"An internal error has occurred: {error!r}"
                self._change(operation, "FAILED")
                return
            if operation.state != "RUNNING":
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + ".part")
            part.write_bytes(content)
            part.replace(target)
            operation.uris = [target.parent.resolve().as_uri()]
            self._change(operation, "SUCCEEDED")

    def _change(self, operation: Operation, state: str) -> None:
        with self._lock:
            if operation.state != "CANCELLED":
                operation.state, operation.updated = state, time.time()

    def get(self, name: str) -> Operation:
        with self._lock:
            if name not in self._operations:
                raise ServiceError(f"Operation {name} not found.", 404)
            return self._operations[name]

    def cancel(self, name: str) -> None:
        operation = self.get(name)
        if operation.state in ("PENDING", "RUNNING"):
            self._change(operation, "CANCELLED")

    def listed(self, project: str) -> list[Operation]:
        with self._lock:
            found = [o for o in self._operations.values() if o.name.startswith(f"projects/{project}/")]
        return sorted(found, key=lambda o: o.created, reverse=True)


def table_file(collection: Collection, kind: str, selectors: list[str] | None) -> bytes:
    """Write features as CSV (with system:index and .geo unless selectors are given) or GeoJSON."""
    for element in collection.elements:
        if not isinstance(element, Feature):
            raise ServiceError("Unable to export features: every element must be a Feature.")
    if kind == "GEO_JSON":
        features = [_selected(plain_feature(f), selectors) for f in collection.elements]
        return json.dumps({"type": "FeatureCollection", "features": features}).encode()
    if kind != "CSV":
        raise UnimplementedError(f"tables in the format {kind}")
    if selectors is None:
        names = {k for f in collection.elements for k in f.properties if k != "system:index"}
        selectors = ["system:index", *sorted(names), ".geo"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(selectors)
    for feature in collection.elements:
        writer.writerow([_cell(feature, name) for name in selectors])
    return file.getvalue().encode()


def _selected(feature: dict[str, Any], selectors: list[str] | None) -> dict[str, Any]:
    if selectors is not None:
        feature["properties"] = {
            k: feature["properties"].get(k) for k in selectors if k not in (".geo", "system:index")
        }
    return feature


def _cell(feature: Feature, name: str) -> Any:
    if name == ".geo":
        return "" if feature.geometry is None else json.dumps(feature.geometry.geojson())
    value = feature.properties.get(name)
    if value is None:
        return ""
    found = encode(value)
    return found if isinstance(found, str | int | float) else json.dumps(found)


def image_file(image: Image, ctx: Context) -> bytes:
    """Write an exported image on its own grid."""
    grid = view_of_image(image)
    return geotiff(image, grid, masked_planes(image, grid, ctx))
