"""Image.parseExpression: arithmetic written as text, as Image.expression sends it.

Understood: numbers, variables, `image.band`, `b('name')`, `b(0)`, + - * / ** and comparisons, and parentheses. Anything
else (?:, logic, calls) is answered with HTTP 501.
"""

from __future__ import annotations

import ast
from typing import Any

from ..errors import ServiceError, UnimplementedError
from ..image import Image, constant
from ..registry import ee_function
from ..values import Algorithm
from .image_math import _BINARY, _unary, binary

_OPERATORS: dict[type, str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.Lt: "lt",
    ast.LtE: "lte",
    ast.Gt: "gt",
    ast.GtE: "gte",
    ast.Eq: "eq",
    ast.NotEq: "neq",
}


@ee_function("Image.parseExpression")
def parse_expression(
    expression: str, arg_name: str, vars: list, map_free_vars_to_default_image_bands: bool
) -> Algorithm:
    if map_free_vars_to_default_image_bands:
        raise UnimplementedError("Image.parseExpression with mapFreeVarsToDefaultImageBands")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except SyntaxError:
        raise UnimplementedError(f"the image expression {expression!r}") from None
    names = tuple(vars)

    def call(*images: Any) -> Image:
        return _evaluate(tree, dict(zip(names, images, strict=True)), arg_name, expression)

    return Algorithm(names, call)


def _evaluate(node: ast.expr, images: dict[str, Image], default: str, text: str) -> Image:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return constant([node.value])
    if isinstance(node, ast.Name):
        if node.id not in images:
            raise ServiceError(f"Image.parseExpression: Unknown variable '{node.id}' in '{text}'.")
        return images[node.id]
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return _evaluate(node.value, images, default, text).select([node.attr])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "b" and not node.keywords:
        return images[default].select([a.value for a in node.args if isinstance(a, ast.Constant)])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _unary(_evaluate(node.operand, images, default, text), lambda v: -v, lambda b: b.kind, "expression")
    pair = _pair(node)
    if pair is not None:
        left, right, name = pair
        operation, kind = _BINARY[name]
        first, second = (_evaluate(part, images, default, text) for part in (left, right))
        return binary(first, second, operation, kind, "Image.expression")
    raise UnimplementedError(f"the image expression {text!r}")


def _pair(node: ast.expr) -> tuple[ast.expr, ast.expr, str] | None:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return node.left, node.right, _OPERATORS[type(node.op)]
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _OPERATORS:
        return node.left, node.comparators[0], _OPERATORS[type(node.ops[0])]
    return None
