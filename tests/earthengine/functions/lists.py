"""Lists."""

from __future__ import annotations

from typing import Any

from ..errors import ServiceError, UnimplementedError
from ..registry import ee_function
from ..values import Algorithm, Date, is_number, plain_number


def _at(items: list, index: int, function: str) -> int:
    if not -len(items) <= index < len(items):
        raise ServiceError(
            f"{function}: List index must be between 0 and {len(items) - 1}, or -{len(items)} and -1. Found {index}."
        )
    return index % len(items)


@ee_function("List.get", "List.getNumber", "List.getString", "List.getGeometry")
def list_get(list_: list, index: int) -> Any:
    return list_[_at(list_, index, "List.get")]


@ee_function("List.add")
def list_add(list_: list, element: Any) -> list:
    return [*list_, element]


@ee_function("List.cat")
def list_cat(list_: list, other: list) -> list:
    return [*list_, *other]


@ee_function("List.contains")
def list_contains(list_: list, element: Any) -> bool:
    return element in list_


@ee_function("List.containsAll")
def list_contains_all(list_: list, other: list) -> bool:
    return all(o in list_ for o in other)


@ee_function("List.distinct")
def list_distinct(list_: list) -> list:
    found: list = []
    for item in list_:
        if item not in found:
            found.append(item)
    return found


@ee_function("List.equals")
def list_equals(list_: list, other: list) -> bool:
    return list_ == other


@ee_function("List.flatten")
def list_flatten(list_: list) -> list:
    found: list = []
    for item in list_:
        found.extend(list_flatten(item) if isinstance(item, list) else [item])
    return found


@ee_function("List.frequency")
def list_frequency(list_: list, element: Any) -> int:
    return list_.count(element)


@ee_function("List.indexOf")
def list_index(list_: list, element: Any) -> int:
    return list_.index(element) if element in list_ else -1


@ee_function("List.insert")
def list_insert(list_: list, index: int, element: Any) -> list:
    found = list(list_)
    found.insert(index, element)
    return found


@ee_function("List.iterate")
def list_iterate(list_: list, function: Algorithm, first: Any) -> Any:
    state = first
    for item in list_:
        state = function(item, state)
    return state


@ee_function("List.join")
def list_join(list_: list, separator: str) -> str:
    return separator.join(str(plain_number(v)) if is_number(v) else str(v) for v in list_)


@ee_function("List.length", "List.size")
def list_length(list_: list) -> int:
    return len(list_)


@ee_function("List.map")
def list_map(list_: list, base_algorithm: Algorithm, drop_nulls: bool) -> list:
    found = [base_algorithm(item) for item in list_]
    return [v for v in found if v is not None] if drop_nulls else found


@ee_function("List.remove")
def list_remove(list_: list, element: Any) -> list:
    found = list(list_)
    if element in found:
        found.remove(element)
    return found


@ee_function("List.removeAll")
def list_remove_all(list_: list, other: list) -> list:
    return [v for v in list_ if v not in other]


@ee_function("List.repeat")
def list_repeat(value: Any, count: int) -> list:
    return [value] * count


@ee_function("List.replaceAll")
def list_replace_all(list_: list, oldval: Any, newval: Any) -> list:
    return [newval if v == oldval else v for v in list_]


@ee_function("List.reverse")
def list_reverse(list_: list) -> list:
    return list_[::-1]


@ee_function("List.sequence")
def list_sequence(start: float, end: float | None, step: float, count: int | None) -> list:
    if end is None and count is None:
        raise ServiceError("List.sequence: At least one of 'end' or 'count' must be specified.")
    if count is not None:
        if end is not None:
            step = (end - start) / (count - 1) if count > 1 else 0
        return [plain_number(start + i * step) for i in range(int(count))]
    if not step:
        raise ServiceError("List.sequence: 'step' cannot be 0.")
    assert end is not None
    length = max(int((end - start) / step + 1e-9) + 1, 0) if (end - start) * step >= 0 else 0
    return [plain_number(start + i * step) for i in range(length)]


@ee_function("List.set")
def list_set(list_: list, index: int, element: Any) -> list:
    found = list(list_)
    found[_at(list_, index, "List.set")] = element
    return found


@ee_function("List.slice")
def list_slice(list_: list, start: int, end: int | None, step: int | None) -> list:
    return list_[start : end : step or 1]


def _sort_key(value: Any) -> Any:
    if isinstance(value, Date):
        return value.ms
    if is_number(value) or isinstance(value, str):
        return value
    raise UnimplementedError(f"sorting by a {type(value).__name__}")


@ee_function("List.sort")
def list_sort(list_: list, keys: list | None) -> list:
    by = list_ if keys is None else keys
    if len(by) != len(list_):
        raise ServiceError("List.sort: 'keys' must have the same length as the list.")
    order = sorted(range(len(list_)), key=lambda i: _sort_key(by[i]))
    return [list_[i] for i in order]


@ee_function("List.zip")
def list_zip(list_: list, other: list) -> list:
    return [[a, b] for a, b in zip(list_, other, strict=False)]  # documented: as long as the shorter one


@ee_function("List.unzip")
def list_unzip(list_: list) -> list:
    return [list(column) for column in zip(*list_, strict=True)]
