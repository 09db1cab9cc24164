"""Evaluation of a request's expression: `{"result": "0", "values": {"0": node, ...}}`.

Equal sub-objects are hoisted by the client and referenced; each is evaluated once, in the outermost function call
that gives it all the arguments it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import functions  # noqa: F401  (registers the functions)
from .errors import ServiceError, UnimplementedError
from .image import Context
from .registry import invoke
from .values import Algorithm

_UNSET = object()


class _Frame:
    """One call of a mapped function: its arguments, and what has been evaluated with them."""

    def __init__(self, arguments: dict[str, Any], parent: _Frame | None) -> None:
        self.arguments = arguments
        self.parent = parent
        self.known: dict[str, Any] = {}

    def argument(self, name: str) -> Any:
        frame: _Frame | None = self
        while frame is not None:
            if name in frame.arguments:
                return frame.arguments[name]
            frame = frame.parent
        raise ServiceError(f"Unbound argument reference: '{name}'.")

    def home(self, needed: frozenset[str]) -> _Frame:
        """Return the outermost frame that binds what an expression needs."""
        frame = self
        while frame.parent is not None and not (needed & frame.arguments.keys()):
            frame = frame.parent
        return frame


class Expression:
    """A decoded expression."""

    def __init__(self, body: Any) -> None:
        if not isinstance(body, dict) or "result" not in body or "values" not in body:
            raise ServiceError("Invalid expression: it has no 'result' and 'values'.")
        self.result: str = body["result"]
        self.values: dict[str, Any] = body["values"]
        self._free: dict[str, frozenset[str]] = {}

    def functions(self) -> tuple[str, ...]:
        """Return the names of the functions called, sorted."""
        return tuple(sorted(set(_called(self.values))))

    def evaluate(self, ctx: Context) -> Any:
        """Return the expression's value."""
        try:
            return self._reference(self.result, _Frame({}, None), ctx)
        except RecursionError:
            raise UnimplementedError("an expression this deeply nested") from None

    def _reference(self, name: str, frame: _Frame, ctx: Context) -> Any:
        home = frame.home(self._needs(name))
        found = home.known.get(name, _UNSET)
        if found is _UNSET:
            if name not in self.values:
                raise ServiceError(f"Invalid expression: no value '{name}'.")
            found = home.known[name] = self._node(self.values[name], home, ctx)
        return found

    def _node(self, node: dict[str, Any], frame: _Frame, ctx: Context) -> Any:
        (kind, content), *more = node.items() if node else [("", None)]
        if more:
            raise ServiceError(f"Invalid expression: a node of several kinds: {sorted(node)}.")
        if kind == "constantValue":
            return content
        if kind == "integerValue":
            return int(content)
        if kind == "valueReference":
            return self._reference(content, frame, ctx)
        if kind == "argumentReference":
            return frame.argument(content)
        if kind == "arrayValue":
            return [self._node(n, frame, ctx) for n in content.get("values", [])]
        if kind == "dictionaryValue":
            return {k: self._node(n, frame, ctx) for k, n in content.get("values", {}).items()}
        if kind == "functionDefinitionValue":
            return self._definition(content, frame, ctx)
        if kind == "functionInvocationValue":
            return self._invocation(content, frame, ctx)
        raise UnimplementedError(f"a node of kind {kind!r}")

    def _definition(self, content: dict[str, Any], frame: _Frame, ctx: Context) -> Algorithm:
        names = tuple(content.get("argumentNames", []))

        def call(*arguments: Any) -> Any:
            return self._reference(content["body"], _Frame(dict(zip(names, arguments, strict=True)), frame), ctx)

        return Algorithm(names, call)

    def _invocation(self, content: dict[str, Any], frame: _Frame, ctx: Context) -> Any:
        nodes = content.get("arguments", {})
        if "functionReference" in content:
            function = self._reference(content["functionReference"], frame, ctx)
            if not isinstance(function, Algorithm):
                raise ServiceError("Invalid expression: a function reference to something that is not a function.")
            return function(*(self._node(nodes[name], frame, ctx) for name in function.names))
        name = content["functionName"]
        if name == "If":  # the branch not taken is not evaluated
            chosen = "trueCase" if _truth(self._node(nodes["condition"], frame, ctx)) else "falseCase"
            return self._node(nodes[chosen], frame, ctx) if chosen in nodes else None
        return invoke(name, {key: self._node(node, frame, ctx) for key, node in nodes.items()}, ctx)

    def _needs(self, name: str) -> frozenset[str]:
        """Return the arguments that a value needs from the function calls around it."""
        if name not in self._free:
            self._free[name] = frozenset()  # expressions have no cycles; this ends a malformed one
            self._free[name] = self._node_needs(self.values.get(name, {}))
        return self._free[name]

    def _node_needs(self, node: Any) -> frozenset[str]:
        if not isinstance(node, dict):
            return frozenset()
        found: frozenset[str] = frozenset()
        for kind, content in node.items():
            if kind == "argumentReference":
                found |= {content}
            elif kind in ("valueReference", "functionReference"):
                found |= self._needs(content)
            elif kind == "arrayValue":
                found = found.union(*(self._node_needs(n) for n in content.get("values", [])))
            elif kind == "dictionaryValue":
                found = found.union(*(self._node_needs(n) for n in content.get("values", {}).values()))
            elif kind == "functionDefinitionValue":
                found |= self._needs(content["body"]) - frozenset(content.get("argumentNames", []))
            elif kind == "functionInvocationValue":
                if "functionReference" in content:
                    found |= self._needs(content["functionReference"])
                found = found.union(*(self._node_needs(n) for n in content.get("arguments", {}).values()))
        return found


def _truth(value: Any) -> bool:
    """Earth Engine's truth: null, false, 0 and the empty string are false; all other objects are true."""
    return bool(value) if value is None or isinstance(value, bool | int | float | str) else True


def _called(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("functionName"), str):
            yield node["functionName"]
        for key, value in node.items():
            if key != "constantValue":
                yield from _called(value)
    elif isinstance(node, list):
        for value in node:
            yield from _called(value)
