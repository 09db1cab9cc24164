"""The endpoints: what each request is answered with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from .coercion import to_collection
from .encode import encode, plain_feature
from .errors import ServiceError, UnimplementedError
from .exports import image_file, table_file
from .feature import Collection
from .graph import Expression
from .image import Context, Image
from .log import Entry
from .pixels import PICTURES, encode_image, picture, requested_grid, tile_grid, view_of_image, with_visualization
from .registry import algorithms_document, client_file

if TYPE_CHECKING:
    from .server import EarthEngineServer

Answer = tuple[int, bytes, str]
JSON = "application/json; charset=UTF-8"
PAGE_SIZE = 1_000  # documented default of computeFeatures


def answer(owner: EarthEngineServer, method: str, path: str, query: str, body: bytes, entry: Entry) -> Answer:
    """Find the endpoint and answer the request."""
    if path.startswith("/$discovery/rest"):
        return 200, discovery(owner.url), JSON
    if path.startswith("/control"):
        return _control(owner, method, path, body)
    for verb, pattern, function in _ROUTES:
        found = re.fullmatch(pattern, path)
        if found is not None and verb == method:
            request = _decode(body) if method == "POST" else {k: v[0] for k, v in parse_qs(query).items()}
            return function(_Call(owner, entry, request, found.groupdict()))
    raise UnimplementedError(f"{method} {path}")


def _decode(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        raise ServiceError("Invalid JSON payload received.") from None
    if not isinstance(found, dict):
        raise ServiceError("Invalid JSON payload received.")
    return found


@lru_cache(maxsize=4)
def discovery(url: str) -> bytes:
    """The client's own discovery document, as v1 and at this address; with `tables`, which it lacks."""
    text = client_file("cloud_api_discovery_document.json").read_text().replace("v1alpha", "v1")
    document = json.loads(text)
    document["rootUrl"] = document["baseUrl"] = url + "/"
    anything = {"type": "any"}
    document["resources"]["projects"]["resources"]["tables"] = {
        "methods": {
            "create": {
                "id": "earthengine.projects.tables.create",
                "httpMethod": "POST",
                "path": "v1/{+parent}/tables",
                "flatPath": "v1/projects/{projectsId}/tables",
                "parameterOrder": ["parent"],
                "parameters": {
                    "parent": {"location": "path", "required": True, "type": "string", "pattern": "^projects/[^/]+$"}
                },
                "request": anything,
                "response": anything,
            }
        }
    }
    return json.dumps(document).encode()


class _Call:
    """One request, decoded."""

    def __init__(self, owner: EarthEngineServer, entry: Entry, request: dict[str, Any], path: dict[str, str]) -> None:
        self.owner = owner
        self.entry = entry
        self.request = request
        self.path = path
        self.project = path.get("project", "")

    def context(self) -> Context:
        owner = self.owner
        return Context(
            archive=owner.archive,
            faults=owner.faults,
            null_properties=owner.null_properties,
            exact_weights=owner.exact_weights,
        )

    def evaluate(self, ctx: Context, expression: Any = None) -> Any:
        found = Expression(self.request.get("expression") if expression is None else expression)
        self.entry.functions = found.functions()
        return found.evaluate(ctx)

    def evaluate_image(self, ctx: Context, expression: Any = None) -> Image:
        value = self.evaluate(ctx, expression)
        if isinstance(value, Collection) and value.is_images:
            raise UnimplementedError("pixels of an image collection")
        if not isinstance(value, Image):
            raise ServiceError("Expected an Image.")
        return value


def _json(value: Any) -> Answer:
    return 200, json.dumps(value, separators=(",", ":")).encode(), JSON


# --- set-up and control -----------------------------------------------------------------------------------------------


def _algorithms(call: _Call) -> Answer:
    return 200, algorithms_document(), JSON


def _control(owner: EarthEngineServer, method: str, path: str, body: bytes) -> Answer:
    """GET /control/log, GET /control/unimplemented, POST /control, POST /control/clear-log."""
    if path == "/control/log":
        return _json(owner.log.as_json())
    if path == "/control/unimplemented":
        return _json({"unimplemented": owner.unimplemented, "failures": owner.failures})
    if path == "/control/clear-log" and method == "POST":
        owner.log.clear()
        return _json({})
    if path == "/control" and method == "POST":
        orders = _decode(body)
        for name in ("null_properties", "exact_weights"):
            if name in orders:
                setattr(owner, name, orders.pop(name))
        owner.faults.apply(orders)
        return _json({})
    raise UnimplementedError(f"{method} {path}")


# --- values and tables ------------------------------------------------------------------------------------------------


def _compute_value(call: _Call) -> Answer:
    ctx = call.context()
    result = encode(call.evaluate(ctx))
    call.entry.pixel_bands = ctx.pixel_bands
    return _json({"result": result})


def _compute_features(call: _Call) -> Answer:
    """One page of features. The page token names the expression, so a page is computed once and served in parts."""
    size = int(call.request.get("pageSize") or PAGE_SIZE)
    if size < 0:
        raise ServiceError("pageSize must not be negative.")
    size = min(size, call.owner.dialect.page or size)  # fewer than asked for are allowed
    token = call.request.get("pageToken") or ""
    digest = hashlib.sha256(json.dumps(call.request.get("expression"), sort_keys=True).encode()).hexdigest()[:32]
    start = 0
    if token:
        named, _, offset = token.partition(".")
        if named != digest or not offset.isdigit():
            raise ServiceError("Invalid page token.")
        start = int(offset)
    features = call.owner.pages.get(digest) if token else None
    if features is None:
        ctx = call.context()
        features = [plain_feature(e) for e in to_collection(call.evaluate(ctx)).elements]
        call.entry.pixel_bands = ctx.pixel_bands
    else:
        call.entry.functions = Expression(call.request.get("expression")).functions()
    answer: dict[str, Any] = {"type": "FeatureCollection", "features": features[start : start + size]}
    if start + size < len(features):
        call.owner.pages[digest] = features
        answer["nextPageToken"] = f"{digest}.{start + size}"
    else:
        call.owner.pages.pop(digest, None)
    return _json(answer)


def _create_table(call: _Call) -> Answer:
    return _store(call, "tables")


def _get_table(call: _Call) -> Answer:
    stored = _stored(call)
    table = to_collection(call.evaluate(call.context(), stored["expression"]))
    kind = stored.get("fileFormat") or "CSV"
    content = table_file(table, kind, stored.get("selectors"))
    return 200, content, "text/csv" if kind == "CSV" else "application/json"


# --- pixels -----------------------------------------------------------------------------------------------------------


def _compute_pixels(call: _Call) -> Answer:
    ctx = call.context()
    kind = call.request.get("fileFormat") or "AUTO_JPEG_PNG"
    bands = call.request.get("bandIds") or []
    options = call.request.get("visualizationOptions")
    image = call.evaluate_image(ctx)
    if not image.bands:
        raise ServiceError("Image.computePixels: Image has no bands.")
    grid = requested_grid(call.request, image)
    image = with_visualization(image, options, bands)
    content, content_type = encode_image(image, grid, kind, ctx)
    call.entry.pixel_bands = ctx.pixel_bands
    return 200, content, content_type


def _store(call: _Call, kind: str) -> Answer:
    if "expression" not in call.request:
        raise ServiceError("The request has no expression.")
    call.entry.functions = Expression(call.request["expression"]).functions()
    digest = hashlib.sha256(json.dumps(call.request, sort_keys=True).encode()).hexdigest()[:32]
    name = f"projects/{call.project}/{kind}/{digest}"
    call.owner.stored[name] = call.request
    return _json({"name": name})


def _stored(call: _Call) -> dict[str, Any]:
    name = call.path["name"]
    if name not in call.owner.stored:
        raise ServiceError(f"Not found: '{name}'.", 404)
    return call.owner.stored[name]


def _create_thumbnail(call: _Call) -> Answer:
    return _store(call, "thumbnails")


def _get_thumbnail(call: _Call) -> Answer:
    stored = _stored(call)
    ctx = call.context()
    kind = stored.get("fileFormat") or "AUTO_JPEG_PNG"
    ctx.rendering = kind in PICTURES
    image = call.evaluate_image(ctx, stored["expression"])
    if not image.bands:
        raise ServiceError("Image.getThumbnail: Image has no bands.")
    grid = view_of_image(image)
    drawn = with_visualization(image, stored.get("visualizationOptions"), stored.get("bandIds") or [])
    content, content_type = encode_image(drawn, grid, kind, ctx)
    call.entry.pixel_bands = ctx.pixel_bands
    return 200, content, content_type


def _create_map(call: _Call) -> Answer:
    return _store(call, "maps")


def _get_tile(call: _Call) -> Answer:
    stored = _stored(call)
    ctx = call.context()
    ctx.rendering = True
    image = call.evaluate_image(ctx, stored["expression"])
    image = with_visualization(image, stored.get("visualizationOptions"), stored.get("bandIds") or [])
    zoom, column, row = (int(call.path[k]) for k in ("zoom", "column", "row"))
    content, kind = picture(image, tile_grid(zoom, column, row), "PNG", ctx)
    return 200, content, kind


# --- exports ----------------------------------------------------------------------------------------------------------


def _export(call: _Call, kind: str, write: Callable[[Context, Any], bytes]) -> Answer:
    expression = Expression(call.request.get("expression"))
    call.entry.functions = expression.functions()

    def file() -> bytes:
        ctx = call.context()
        ctx.batch = True
        return write(ctx, expression.evaluate(ctx))

    return _json(call.owner.exports.start(call.project, kind, call.request, file).as_json())


def _export_table(call: _Call) -> Answer:
    options = call.request.get("fileExportOptions") or {}
    selectors = call.request.get("selectors")
    return _export(
        call,
        "EXPORT_FEATURES",
        lambda ctx, value: table_file(to_collection(value), options.get("fileFormat", "CSV"), selectors),
    )


def _export_image(call: _Call) -> Answer:
    def write(ctx: Context, value: Any) -> bytes:
        if not isinstance(value, Image):
            raise ServiceError("Expected an Image.")
        return image_file(value, ctx)

    return _export(call, "EXPORT_IMAGE", write)


def _list_operations(call: _Call) -> Answer:
    return _json({"operations": [o.as_json() for o in call.owner.exports.listed(call.project)]})


def _get_operation(call: _Call) -> Answer:
    return _json(call.owner.exports.get(call.path["name"]).as_json())


def _cancel_operation(call: _Call) -> Answer:
    call.owner.exports.cancel(call.path["name"])
    return _json({})


# --- assets -----------------------------------------------------------------------------------------------------------


def _get_asset(call: _Call) -> Answer:
    """Say that an asset exists, and what its properties are."""
    asset, archive = call.path["asset"], call.owner.archive
    if call.project not in ("earthengine-public", "earthengine-legacy"):
        asset = f"projects/{call.project}/assets/{asset}"
    name = call.path["name"]
    if asset in archive.collections:
        return _json({"type": "IMAGE_COLLECTION", "name": name, "id": asset, "properties": {}})
    try:
        image = archive.image(asset)
    except ServiceError:
        raise ServiceError(f"Asset '{name}' not found.", 404) from None
    properties = {k: v for k, v in image.properties.items() if not k.startswith("system:")}
    return _json({"type": "IMAGE", "name": name, "id": asset, "properties": encode(properties)})


_PROJECT = r"/v1/projects/(?P<project>[^/:]+)"
_ROUTES: list[tuple[str, str, Callable[[_Call], Answer]]] = [
    ("GET", _PROJECT + r"/algorithms", _algorithms),
    ("POST", _PROJECT + r"/value:compute", _compute_value),
    ("POST", _PROJECT + r"/table:computeFeatures", _compute_features),
    ("POST", _PROJECT + r"/image:computePixels", _compute_pixels),
    ("POST", _PROJECT + r"/thumbnails", _create_thumbnail),
    ("GET", r"/v1/(?P<name>projects/(?P<project>[^/:]+)/thumbnails/[^/:]+):getPixels", _get_thumbnail),
    ("POST", _PROJECT + r"/maps", _create_map),
    (
        "GET",
        r"/v1/(?P<name>projects/(?P<project>[^/:]+)/maps/[^/:]+)/tiles/(?P<zoom>\d+)/(?P<column>\d+)/(?P<row>\d+)",
        _get_tile,
    ),
    ("POST", _PROJECT + r"/tables", _create_table),
    ("GET", r"/v1/(?P<name>projects/(?P<project>[^/:]+)/tables/[^/:]+):getFeatures", _get_table),
    ("POST", _PROJECT + r"/table:export", _export_table),
    ("POST", _PROJECT + r"/image:export", _export_image),
    ("GET", _PROJECT + r"/operations", _list_operations),
    ("GET", r"/v1/(?P<name>projects/(?P<project>[^/:]+)/operations/[^/:]+)", _get_operation),
    ("POST", r"/v1/(?P<name>projects/(?P<project>[^/:]+)/operations/[^/:]+):cancel", _cancel_operation),
    ("GET", r"/v1/(?P<name>projects/(?P<project>[^/:]+)/assets/(?P<asset>.+))", _get_asset),
]
