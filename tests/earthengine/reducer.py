"""Reducers: what they take, what they put out, and how the elementary ones are computed.

A reducer is a list of outputs, each computed by elementary statistics ("leaves") of numbered inputs. Leaves work on
arrays of shape (rows, inputs): a row is one band of a region, or one pixel of a stack of images.

Which are weighted. Documented as "(weighted)": mean, sum, frequencyHistogram. Documented as unweighted: count. Taken as
weighted: stdDev, variance, median, mode, percentile. Taken as unweighted: min, max, first, last and the others, which
have no use for a weight. `unweighted()` makes any of them unweighted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .errors import ServiceError, UnimplementedError
from .values import plain_number


@dataclass(frozen=True)
class Leaf:
    """An elementary statistic of one input."""

    kind: str
    weighted: bool


@dataclass(frozen=True)
class Output:
    """A named output: one statistic, or a list of them."""

    name: str | None
    sources: tuple[tuple[Leaf, int], ...]
    listed: bool = False


@dataclass(frozen=True)
class Reducer:
    n_inputs: int
    outputs: tuple[Output, ...]
    group_field: int | None = None  # of a grouped reducer: the input that holds the group
    group_name: str = "group"

    @property
    def names(self) -> list[str]:
        if self.group_field is not None:
            return ["groups"]
        return [o.name for o in self.outputs if o.name]


@dataclass(frozen=True)
class Inputs:
    """The records to reduce. All arrays are (inputs, records).

    `weights` are what weighted leaves use; `chosen` says which records unweighted leaves use.
    """

    values: np.ndarray
    weights: np.ndarray
    chosen: np.ndarray
    integer: tuple[bool, ...]


def single(name: str, kind: str, *, weighted: bool) -> Reducer:
    return Reducer(1, (Output(name, ((Leaf(kind, weighted), 0),)),))


def shifted(outputs: Sequence[Output], by: int) -> tuple[Output, ...]:
    return tuple(replace(o, sources=tuple((leaf, i + by) for leaf, i in o.sources)) for o in outputs)


def combined(first: Reducer, second: Reducer, prefix: str, *, shared: bool) -> Reducer:
    _ungrouped(first, second)
    if shared and first.n_inputs != second.n_inputs:
        raise ServiceError(
            f"Reducer.combine: with sharedInputs the reducers must have the same number of inputs, "
            f"found {first.n_inputs} and {second.n_inputs}."
        )
    others = tuple(replace(o, name=None if o.name is None else prefix + o.name) for o in second.outputs)
    outputs = first.outputs + (others if shared else shifted(others, first.n_inputs))
    names = [o.name for o in outputs if o.name]
    if len(set(names)) != len(names):
        repeated = next(n for n in names if names.count(n) > 1)
        raise ServiceError(f"Reducer.combine: Duplicate output name: '{repeated}'.")
    return Reducer(first.n_inputs if shared else first.n_inputs + second.n_inputs, outputs)


def repeated(reducer: Reducer, count: int) -> Reducer:
    _ungrouped(reducer)
    if any(o.listed for o in reducer.outputs):
        raise UnimplementedError("Reducer.repeat of a repeated reducer")
    copies = [shifted(reducer.outputs, i * reducer.n_inputs) for i in range(count)]
    outputs = tuple(
        Output(o.name, tuple(source for copy in copies for source in copy[k].sources), listed=True)
        for k, o in enumerate(reducer.outputs)
    )
    return Reducer(reducer.n_inputs * count, outputs)


def for_each(reducer: Reducer, names: Sequence[str]) -> Reducer:
    _ungrouped(reducer)
    outputs: list[Output] = []
    for i, name in enumerate(names):
        for output in shifted(reducer.outputs, i * reducer.n_inputs):
            outputs.append(replace(output, name=name if len(reducer.outputs) == 1 else f"{name}_{output.name}"))
    return Reducer(reducer.n_inputs * len(names), tuple(outputs))


def unweighted(reducer: Reducer) -> Reducer:
    outputs = tuple(
        replace(o, sources=tuple((replace(leaf, weighted=False), i) for leaf, i in o.sources)) for o in reducer.outputs
    )
    return replace(reducer, outputs=outputs)


def renamed(reducer: Reducer, names: Sequence[str | None]) -> Reducer:
    _ungrouped(reducer)
    if len(names) != len(reducer.outputs):
        raise ServiceError(
            f"Reducer.setOutputs: the reducer has {len(reducer.outputs)} outputs, found {len(names)} names."
        )
    outputs = (replace(o, name=n) for o, n in zip(reducer.outputs, names, strict=True) if n)
    return replace(reducer, outputs=tuple(outputs))


def _ungrouped(*reducers: Reducer) -> None:
    if any(r.group_field is not None for r in reducers):
        raise UnimplementedError("a grouped reducer inside another reducer")


def evaluate(reducer: Reducer, inputs: Inputs) -> dict[str, Any]:
    """Return the outputs by name, as plain values."""
    if reducer.group_field is not None:
        return {"groups": _groups(reducer, inputs)}
    found: dict[tuple[Leaf, int], Any] = {}
    wanted: dict[Leaf, set[int]] = {}
    for output in reducer.outputs:
        for leaf, i in output.sources:
            wanted.setdefault(leaf, set()).add(i)
    for leaf, rows in wanted.items():
        index = sorted(rows)
        weights = (inputs.weights if leaf.weighted else inputs.chosen)[index].astype(np.float64)
        results = plain_results(leaf.kind, inputs.values[index], weights, [inputs.integer[i] for i in index])
        found.update({(leaf, i): r for i, r in zip(index, results, strict=True)})
    return {
        output.name: [found[s] for s in output.sources] if output.listed else found[output.sources[0]]
        for output in reducer.outputs
        if output.name
    }


def evaluate_each(reducer: Reducer, inputs: Inputs) -> list[dict[str, Any]]:
    """Apply a reducer of one input to each input separately."""
    index = range(len(inputs.values))
    found: list[dict[str, Any]] = [{} for _ in index]
    for output in reducer.outputs:
        ((leaf, _),) = output.sources
        weights = (inputs.weights if leaf.weighted else inputs.chosen).astype(np.float64)
        for i, result in enumerate(plain_results(leaf.kind, inputs.values, weights, inputs.integer)):
            if output.name:
                found[i][output.name] = [result] if output.listed else result
    return found


def _groups(reducer: Reducer, inputs: Inputs) -> list[dict[str, Any]]:
    field = reducer.group_field
    assert field is not None
    present = inputs.weights[field] > 0
    others = [i for i in range(len(inputs.values)) if i != field]
    found = []
    for group in np.unique(inputs.values[field][present]):
        here = present & (inputs.values[field] == group)
        part = Inputs(
            inputs.values[others][:, here],
            inputs.weights[others][:, here],
            inputs.chosen[others][:, here] & inputs.chosen[field][here],
            tuple(inputs.integer[i] for i in others),
        )
        values = evaluate(replace(reducer, group_field=None), part)
        found.append({reducer.group_name: plain_number(float(group)), **values})
    return found


def plain_results(kind: str, values: np.ndarray, weights: np.ndarray, integer: Sequence[bool]) -> list[Any]:
    """Return one plain value per row; None where a row has no input."""
    if kind == "frequencyHistogram":
        return [_histogram(v, w) for v, w in zip(values, weights, strict=True)]
    results, exists = LEAVES[kind](values.astype(np.float64), weights)
    whole = kind in WHOLE
    keeps = kind in KEEPS_TYPE
    return [
        None if not ok else plain_number(float(r)) if whole or (keeps and is_int) else float(r)
        for r, ok, is_int in zip(results, exists, integer, strict=True)
    ]


Result = tuple[np.ndarray, np.ndarray]


def _mean(v: np.ndarray, w: np.ndarray) -> Result:
    total = w.sum(axis=1)
    some = total > 0
    return np.divide(_dot(v, w), total, out=np.zeros_like(total), where=some), some


def _dot(v: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.where(w > 0, v * w, 0.0).sum(axis=1)


def _sum(v: np.ndarray, w: np.ndarray) -> Result:
    return _dot(v, w), np.ones(len(v), bool)


def _count(v: np.ndarray, w: np.ndarray) -> Result:
    return (w > 0).sum(axis=1), np.ones(len(v), bool)


def _variance(v: np.ndarray, w: np.ndarray) -> Result:
    mean, some = _mean(v, w)
    return _mean((v - mean[:, None]) ** 2, w)[0], some


def _std(v: np.ndarray, w: np.ndarray) -> Result:
    variance, some = _variance(v, w)
    return np.sqrt(variance), some


def _sample_variance(v: np.ndarray, w: np.ndarray) -> Result:
    if not np.isin(w, (0.0, 1.0)).all():
        raise UnimplementedError("a sample variance with fractional weights")
    variance, _ = _variance(v, w)
    n = w.sum(axis=1)
    return variance * np.divide(n, n - 1, out=np.zeros_like(n), where=n > 1), n > 1


def _sample_std(v: np.ndarray, w: np.ndarray) -> Result:
    variance, some = _sample_variance(v, w)
    return np.sqrt(variance), some


def _extreme(choose: Callable[..., np.ndarray], fill: float) -> Callable[[np.ndarray, np.ndarray], Result]:
    def leaf(v: np.ndarray, w: np.ndarray) -> Result:
        some = (w > 0).any(axis=1)
        return choose(np.where(w > 0, v, fill), axis=1, initial=fill), some

    return leaf


def _end(step: int) -> Callable[[np.ndarray, np.ndarray], Result]:
    def leaf(v: np.ndarray, w: np.ndarray) -> Result:
        some = (w > 0).any(axis=1)
        if not v.shape[1]:
            return np.zeros(len(v)), some
        position = np.argmax((w > 0)[:, ::step], axis=1)
        return v[:, ::step][np.arange(len(v)), position], some

    return leaf


def _median(v: np.ndarray, w: np.ndarray) -> Result:
    """Return where half of the weight is reached; of two values that share the middle, the mean."""
    some = (w > 0).any(axis=1)
    if not v.shape[1]:
        return np.zeros(len(v)), some
    order = np.argsort(np.where(w > 0, v, np.inf), axis=1, kind="stable")
    values = np.take_along_axis(v, order, axis=1)
    reached = np.cumsum(np.take_along_axis(w, order, axis=1), axis=1)
    half = reached[:, -1:] / 2
    slack = 1e-12 * np.maximum(half, 1.0)
    rows = np.arange(len(v))
    lower = values[rows, np.argmax(reached >= half - slack, axis=1)]
    upper = values[rows, np.argmax(reached > half + slack, axis=1)]
    return (lower + upper) / 2, some


def _mode(v: np.ndarray, w: np.ndarray) -> Result:
    """Return the value of the greatest weight; of equal ones the smallest."""
    some = (w > 0).any(axis=1)
    best, heaviest = np.zeros(len(v)), np.zeros(len(v))
    for value in np.unique(v[w > 0]):
        weight = np.where(v == value, w, 0.0).sum(axis=1)
        better = weight > heaviest + 1e-12
        best[better], heaviest[better] = value, weight[better]
    return best, some


def _distinct(v: np.ndarray, w: np.ndarray) -> Result:
    return np.array([len(np.unique(a[b > 0])) for a, b in zip(v, w, strict=True)]), np.ones(len(v), bool)


def _all(v: np.ndarray, w: np.ndarray) -> Result:
    return np.where(w > 0, v != 0, True).all(axis=1).astype(float), (w > 0).any(axis=1)


def _any(v: np.ndarray, w: np.ndarray) -> Result:
    return np.where(w > 0, v != 0, False).any(axis=1).astype(float), (w > 0).any(axis=1)


def _histogram(values: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    present = weights > 0
    found = {}
    for value in np.unique(values[present]):
        weight = float(weights[present & (values == value)].sum())
        found[str(plain_number(float(value)))] = plain_number(weight)
    return found


LEAVES: dict[str, Callable[[np.ndarray, np.ndarray], Result]] = {
    "mean": _mean,
    "sum": _sum,
    "count": _count,
    "variance": _variance,
    "stdDev": _std,
    "sampleVariance": _sample_variance,
    "sampleStdDev": _sample_std,
    "min": _extreme(np.min, np.inf),
    "max": _extreme(np.max, -np.inf),
    "first": _end(1),
    "last": _end(-1),
    "median": _median,
    "mode": _mode,
    "countDistinct": _distinct,
    "all": _all,
    "any": _any,
}
WHOLE = {"count", "countDistinct", "all", "any"}
KEEPS_TYPE = {"min", "max", "first", "last", "mode"}
