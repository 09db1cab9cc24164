"""The functions of the expression language: signatures from the client's own list, implementations registered here.

Each implementation takes the documented arguments by name (in snake_case), already coerced to the documented types, and
may ask for the evaluation's context with a parameter `ctx`. A function that is documented but not registered, and an
argument that is documented but not taken, are answered with HTTP 501.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .coercion import coerce
from .errors import ServiceError, UnimplementedError
from .image import Context

_REGISTERED: dict[str, tuple[Callable[..., Any], frozenset[str]]] = {}


def client_file(name: str) -> Path:
    """Return a file that the earthengine-api package ships for its own tests (without importing it)."""
    spec = find_spec("ee")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "tests" / name


@lru_cache(maxsize=1)
def algorithms_document() -> bytes:
    return client_file("algorithms.json").read_bytes()


@lru_cache(maxsize=1)
def signatures() -> dict[str, dict[str, Any]]:
    listed = json.loads(algorithms_document())["algorithms"]
    return {entry["name"].removeprefix("algorithms/"): entry for entry in listed}


def registered() -> dict[str, frozenset[str]]:
    """Return the names of the registered functions and the arguments that each takes."""
    return {name: parameters for name, (_, parameters) in _REGISTERED.items()}


def ee_function(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register an implementation under one or more documented names."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = frozenset(inspect.signature(function).parameters)
        for name in names:
            if name in _REGISTERED:
                raise ValueError(f"{name} is registered twice")
            _REGISTERED[name] = (function, parameters)
        return function

    return register


@lru_cache(maxsize=1024)
def snake(name: str) -> str:
    found = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m.group(1).lower(), name).lower()
    return found + "_" if found in ("from", "filter", "list", "object", "type", "format", "min", "max") else found


def invoke(name: str, given: dict[str, Any], ctx: Context) -> Any:
    """Call a function by its documented name."""
    signature = signatures().get(name)
    if signature is None:
        raise ServiceError(f"Invalid function name: '{name}'.")
    if name not in _REGISTERED:
        raise UnimplementedError(name)
    function, parameters = _REGISTERED[name]
    known = {argument["argumentName"] for argument in signature.get("arguments", [])}
    for argument in given:
        if argument not in known:
            raise ServiceError(f"{name}: Unrecognized argument '{argument}'.")
    call: dict[str, Any] = {"ctx": ctx} if "ctx" in parameters else {}
    for argument in signature.get("arguments", []):
        label, default = argument["argumentName"], argument.get("defaultValue")
        value = given.get(label)
        if value is None:
            # the service allows null for an untyped value only
            nullable = argument["type"] in ("Object", "<any>") and label in given
            if not argument.get("optional") and not nullable:
                raise ServiceError(f"{name}: Parameter '{label}' is required and may not be null.")
            value = default
        parameter = snake(label)
        if parameter not in parameters:
            # an error margin that isn't taken is kept anyway: everything here is exact to a centimetre
            if value is not None and value != default and argument["type"] != "ErrorMargin":
                raise UnimplementedError(f"{name} with the argument {label!r}")
            continue
        call[parameter] = None if value is None else coerce(value, argument["type"], name, label)
    return function(**call)
