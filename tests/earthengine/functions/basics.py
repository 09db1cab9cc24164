"""Numbers, strings and dictionaries."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from ..errors import ServiceError, UnimplementedError
from ..image import INTEGER_RANGES, Image, constant
from ..registry import ee_function
from ..values import Algorithm, Date, is_number, kind_of, plain_number

# --- numbers ----------------------------------------------------------------------------------------------------------


def _divide(left: float, right: float) -> float:
    return left / right if right else 0.0  # as the image operation, which is documented to return 0


def _power(left: float, right: float) -> float:
    try:
        return math.pow(left, right)
    except (ValueError, OverflowError):
        raise UnimplementedError(f"Number.pow({left}, {right}), which is not a finite number") from None


_BINARY: dict[str, Callable[[float, float], float]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": _divide,
    "max": max,
    "min": min,
    "mod": math.fmod,
    "pow": _power,
    "and": lambda a, b: int(bool(a) and bool(b)),
    "or": lambda a, b: int(bool(a) or bool(b)),
    "lt": lambda a, b: int(a < b),
    "lte": lambda a, b: int(a <= b),
    "gt": lambda a, b: int(a > b),
    "gte": lambda a, b: int(a >= b),
    "eq": lambda a, b: int(a == b),
    "neq": lambda a, b: int(a != b),
}

_UNARY: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "round": lambda v: math.floor(v + 0.5),
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "log10": math.log10,
    "signum": lambda v: (v > 0) - (v < 0),
    "not": lambda v: int(not v),
    "float": float,
    "toFloat": float,
    "double": float,
    "toDouble": float,
}

_INTEGER_NAMES = {
    "uint8": ("uint8", "toUint8", "byte", "toByte"),
    "int8": ("int8", "toInt8"),
    "uint16": ("uint16", "toUint16"),
    "int16": ("int16", "toInt16", "short", "toShort"),
    "uint32": ("uint32", "toUint32"),
    "int32": ("int32", "toInt32", "int", "toInt"),
    "int64": ("int64", "toInt64", "long", "toLong"),
}


def _two(operation: Callable[[float, float], float]) -> Callable[[float, float], float]:
    def function(left: float, right: float) -> float:
        return plain_number(operation(left, right))

    return function


def _one(name: str, operation: Callable[[float], float]) -> Callable[[float], float]:
    def function(input: float) -> float:
        try:
            return plain_number(operation(input))
        except ValueError:
            raise UnimplementedError(f"Number.{name}({input}), which is not a finite number") from None

    return function


def _clamped(kind: str) -> Callable[[float], float]:
    low, high = INTEGER_RANGES[kind]
    # documented: fractions are lost, the range is clamped
    return lambda value: min(max(math.trunc(value), low), high)


for _name, _operation in _BINARY.items():
    ee_function(f"Number.{_name}")(_two(_operation))
for _name, _single in _UNARY.items():
    ee_function(f"Number.{_name}")(_one(_name, _single))
for _kind, _names in _INTEGER_NAMES.items():
    ee_function(*(f"Number.{n}" for n in _names))(_one(_kind, _clamped(_kind)))


@ee_function("Number.clamp")
def number_clamp(number: float, min_: float, max_: float) -> float:
    return min(max(number, min_), max_)


@ee_function("Number.parse")
def number_parse(input: str, radix: int) -> float:
    try:
        return plain_number(float(input)) if radix == 10 else int(input, int(radix))
    except ValueError:
        raise ServiceError(f"Number.parse: Cannot parse '{input}' as a number.") from None


@ee_function("Number.format")
def number_format(number: float, pattern: str) -> str:
    found = re.fullmatch(r"([^%]*)%([-+ 0]*\d*(?:\.\d+)?)([sdf])([^%]*)", pattern)
    if found is None:
        raise UnimplementedError(f"Number.format with the pattern {pattern!r}")
    before, modifier, conversion, after = found.groups()
    if conversion == "d" and number != int(number):
        raise ServiceError(f"Number.format: {number} can't be formatted with '{pattern}'.")
    return before + f"%{modifier}{conversion}" % (int(number) if conversion == "d" else number) + after


# --- strings ----------------------------------------------------------------------------------------------------------


@ee_function("String")
def string(input: Any) -> str:
    if isinstance(input, str):
        return input
    if is_number(input):
        return str(plain_number(input))
    raise ServiceError(f"String: Cannot convert a {kind_of(input)} to a String.")


@ee_function("String.cat")
def string_cat(string1: str, string2: str) -> str:
    return string1 + string2


@ee_function("String.length")
def string_length(string: str) -> int:
    return len(string)


@ee_function("String.index")
def string_index(target: str, pattern: str) -> int:
    return target.find(pattern)


@ee_function("String.rindex")
def string_rindex(target: str, pattern: str) -> int:
    return target.rfind(pattern)


@ee_function("String.equals")
def string_equals(reference: str, target: Any) -> bool:
    return reference == target


@ee_function("String.compareTo")
def string_compare(string1: str, string2: str) -> int:
    return (string1 > string2) - (string1 < string2)


@ee_function("String.slice")
def string_slice(string: str, start: int, end: int | None) -> str:
    return string[start:end]


@ee_function("String.toLowerCase")
def string_lower(string: str) -> str:
    return string.lower()


@ee_function("String.toUpperCase")
def string_upper(string: str) -> str:
    return string.upper()


@ee_function("String.trim")
def string_trim(string: str) -> str:
    return string.strip()


def _flags(flags: str) -> tuple[re.RegexFlag, bool]:
    if set(flags) - {"g", "i"}:
        raise UnimplementedError(f"regular expression flags {flags!r}")
    return (re.IGNORECASE if "i" in flags else re.RegexFlag(0)), "g" in flags


@ee_function("String.replace")
def string_replace(input: str, regex: str, replacement: str, flags: str) -> str:
    options, everywhere = _flags(flags)
    if "$" in replacement or "\\" in replacement:
        raise UnimplementedError("String.replace with groups in the replacement")
    return re.sub(regex, replacement, input, count=0 if everywhere else 1, flags=options)


@ee_function("String.match")
def string_match(input: str, regex: str, flags: str) -> list[str]:
    options, everywhere = _flags(flags)
    if everywhere:
        return [m.group(0) for m in re.finditer(regex, input, options)]
    found = re.search(regex, input, options)
    return [] if found is None else [found.group(0), *found.groups()]


@ee_function("String.split")
def string_split(string: str, regex: str, flags: str) -> list[str]:
    options, _ = _flags(flags)
    return re.split(regex, string, flags=options)


@ee_function("String.encodeJSON")
def string_encode(object_: Any) -> str:
    return json.dumps(object_)


@ee_function("String.decodeJSON")
def string_decode(string: str) -> Any:
    return json.loads(string)


# --- dictionaries -----------------------------------------------------------------------------------------------------


@ee_function("Dictionary")
def dictionary(input: Any) -> dict:
    if input is None:
        return {}
    if isinstance(input, dict):
        return input
    if isinstance(input, list) and len(input) % 2 == 0 and all(isinstance(k, str) for k in input[::2]):
        return dict(zip(input[::2], input[1::2], strict=True))
    raise ServiceError(f"Dictionary: Cannot convert a {kind_of(input)} to a Dictionary.")


def _value(dictionary: dict, key: str, function: str) -> Any:
    if key not in dictionary:
        raise ServiceError(f"{function}: Dictionary does not contain key: '{key}'.")
    return dictionary[key]


@ee_function("Dictionary.get")
def dictionary_get(dictionary: dict, key: str, default_value: Any) -> Any:
    if key not in dictionary and default_value is not None:
        return default_value
    return _value(dictionary, key, "Dictionary.get")


@ee_function("Dictionary.getNumber")
def dictionary_number(dictionary: dict, key: str) -> Any:
    return _value(dictionary, key, "Dictionary.getNumber")


@ee_function("Dictionary.getString")
def dictionary_string(dictionary: dict, key: str) -> Any:
    return _value(dictionary, key, "Dictionary.getString")


@ee_function("Dictionary.contains")
def dictionary_contains(dictionary: dict, key: str) -> bool:
    return key in dictionary


@ee_function("Dictionary.fromLists")
def dictionary_from_lists(keys: list, values: list) -> dict:
    if len(keys) != len(values):
        raise ServiceError(f"Dictionary.fromLists: {len(keys)} keys and {len(values)} values.")
    return dict(zip(keys, values, strict=True))


@ee_function("Dictionary.keys")
def dictionary_keys(dictionary: dict) -> list:
    return sorted(dictionary)


@ee_function("Dictionary.values")
def dictionary_values(dictionary: dict, keys: list | None) -> list:
    return [_value(dictionary, k, "Dictionary.values") for k in (sorted(dictionary) if keys is None else keys)]


@ee_function("Dictionary.size")
def dictionary_size(dictionary: dict) -> int:
    return len(dictionary)


@ee_function("Dictionary.set")
def dictionary_set(dictionary: dict, key: str, value: Any) -> dict:
    return {**dictionary, key: value}


@ee_function("Dictionary.combine")
def dictionary_combine(first: dict, second: dict, overwrite: bool) -> dict:
    merged = {**first, **second} if overwrite else {**second, **first}
    return {k: v for k, v in merged.items() if v is not None}  # documented: nulls are removed


@ee_function("Dictionary.map")
def dictionary_map(dictionary: dict, base_algorithm: Algorithm) -> dict:
    found = {k: base_algorithm(k, dictionary[k]) for k in sorted(dictionary)}
    return {k: v for k, v in found.items() if v is not None}


def _selected(dictionary: dict, selectors: list, ignore_missing: bool, function: str) -> list[str]:
    found: list[str] = []
    for selector in selectors:
        matches = [selector] if selector in dictionary else [k for k in sorted(dictionary) if re.fullmatch(selector, k)]
        if not matches and not ignore_missing:
            raise ServiceError(f"{function}: Dictionary does not contain key: '{selector}'.")
        found.extend(matches)
    return found


@ee_function("Dictionary.select")
def dictionary_select(dictionary: dict, selectors: list, ignore_missing: bool) -> dict:
    return {k: dictionary[k] for k in _selected(dictionary, selectors, ignore_missing, "Dictionary.select")}


@ee_function("Dictionary.remove")
def dictionary_remove(dictionary: dict, selectors: list, ignore_missing: bool) -> dict:
    gone = set(_selected(dictionary, selectors, ignore_missing, "Dictionary.remove"))
    return {k: v for k, v in dictionary.items() if k not in gone}


@ee_function("Dictionary.rename")
def dictionary_rename(dictionary: dict, from_: list, to: list, overwrite: bool) -> dict:
    if len(from_) != len(to):
        raise ServiceError("Dictionary.rename: the lists 'from' and 'to' must have the same length.")
    new = dict(zip(from_, to, strict=True))
    kept = {k: v for k, v in dictionary.items() if k not in new}
    renamed = {new[k]: _value(dictionary, k, "Dictionary.rename") for k in from_}
    if not overwrite and kept.keys() & renamed.keys():
        raise ServiceError(f"Dictionary.rename: Key already exists: {sorted(kept.keys() & renamed.keys())[0]!r}.")
    return {**kept, **renamed}


@ee_function("Dictionary.toImage")
def dictionary_image(dictionary: dict, names: list | None) -> Image:
    chosen = sorted(dictionary) if names is None else names
    return constant([_value(dictionary, k, "Dictionary.toImage") for k in chosen], chosen)


# --- objects ----------------------------------------------------------------------------------------------------------


@ee_function("IsEqual")
def is_equal(left: Any, right: Any) -> bool:
    return left == right


@ee_function("ObjectType")
def object_type(value: Any) -> str:
    return "Number" if is_number(value) else "Date" if isinstance(value, Date) else kind_of(value)
