"""Scores models on embeddings by spatial cross-validation: whole blocks or regions are held out.

Neighbouring pixels are nearly the same (cosine 0.99 at 10 m), so that a random split tests on what was learnt.

Sources: Roberts et al., *Cross-validation strategies for data with temporal, spatial, hierarchical, or phylogenetic
structure*, Ecography 40 (2017); Brodersen et al., *The balanced accuracy and its posterior distribution*, ICPR 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.errors import UsageError
from gee_polygons.probe.fitting import MODELS, estimator, in_row_order, labelled_rows

BLOCK_M: Final = 5_000.0
_DRAWS: Final = 1_000
_INTERVAL: Final = (0.05, 0.95)
_DEGREE_M: Final = 111_320.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeResult:
    """How well the classes of held-out places were predicted.

    Parameters
    ----------
    model, split : str
        The model, and how places were held out; both are part of the printed line.
    balanced_accuracy, low, high : float
        Mean recall of the classes, and its 90 % confidence interval: whole groups are resampled, since points of a
        place aren't independent. With few groups (regions) it is rough.
    confusion : DataFrame
        Points by true (rows) and predicted class (columns).
    recall : Series
        By class.
    folds : DataFrame
        `fold`, `n`, `balanced_accuracy` over the classes that the fold has.
    """

    model: str
    split: str
    balanced_accuracy: float
    low: float
    high: float
    confusion: pd.DataFrame
    recall: pd.Series[Any]
    folds: pd.DataFrame

    def __str__(self) -> str:
        return (
            f"{self.model}, {self.split}: balanced accuracy {self.balanced_accuracy:.3f} "
            f"(90 % interval {self.low:.3f} to {self.high:.3f})"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ValueResult:
    """How well values of held-out places were predicted.

    Parameters
    ----------
    model, split : str
        As in `ProbeResult`.
    r2, r2_low, r2_high : float
        ``1 - sum (y - f)^2 / sum (y - mean y)^2`` over all held-out points, and its 90 % confidence
        interval: whole groups are resampled. Below 0: worse than predicting the mean.
    mae, mae_low, mae_high : float
        Mean absolute error, in the values' unit, and its interval.
    predicted : DataFrame
        `true`, `predicted`, `fold`: one row per labelled row of the table, with its index.
    folds : DataFrame
        `fold`, `n`, `r2` (about the fold's own mean), `mae`.
    """

    model: str
    split: str
    r2: float
    r2_low: float
    r2_high: float
    mae: float
    mae_low: float
    mae_high: float
    predicted: pd.DataFrame
    folds: pd.DataFrame

    def __str__(self) -> str:
        return (
            f"{self.model}, {self.split}: R2 {self.r2:.3f} (90 % interval {self.r2_low:.3f} to {self.r2_high:.3f}), "
            f"mean absolute error {self.mae:.4g} ({self.mae_low:.4g} to {self.mae_high:.4g})"
        )


def spatial_blocks(
    lon: Sequence[float] | NDArray[Any], lat: Sequence[float] | NDArray[Any], block_m: float = BLOCK_M
) -> NDArray[np.int64]:
    """Return the number of the square block that each point lies in.

    Parameters
    ----------
    lon, lat : sequence of float
        Degrees, EPSG:4326.
    block_m : float
        Side of a block in metres.

    Returns
    -------
    int64 array, shape (points,): numbers from 0.

    Raises
    ------
    UsageError
        If coordinates are missing or differ in number, or the side isn't positive.

    Examples
    --------
    >>> spatial_blocks([0.0, 0.001, 1.0], [0.0, 0.001, 0.0], block_m=1_000).tolist()
    [0, 0, 1]
    """
    x, y = np.asarray(lon, np.float64), np.asarray(lat, np.float64)
    if not block_m > 0 or x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UsageError("blocks need finite lon and lat of the same length, and a side in metres")
    row = np.floor(y * _DEGREE_M / block_m).astype(np.int64)
    # the width of a degree is taken at the middle latitude of the row, so that blocks are square
    middle = (row + 0.5) * block_m / _DEGREE_M
    column = np.floor(x * _DEGREE_M * np.cos(np.radians(middle)) / block_m).astype(np.int64)
    _, number = np.unique(np.column_stack([row, column]), axis=0, return_inverse=True)
    return number.ravel().astype(np.int64)


def cross_validate(
    table: pd.DataFrame,
    labels: Sequence[Any] | str,
    *,
    model: str | None = None,
    task: str = "auto",
    groups: Sequence[Any] | str | None = None,
    block_m: float = BLOCK_M,
    folds: int | None = 5,
    random_split: bool = False,
    seed: int = 0,
) -> ProbeResult | ValueResult:
    """Score a model on places that it wasn't fitted to.

    Parameters
    ----------
    table : DataFrame
        With ``A00``..``A63``, and `lon` and `lat` (or `longitude` and `latitude`) unless `groups` is given.
    labels : str or sequence
        Column, or one label per row.
    model, task : str, optional
        See `fit_probe`.
    groups : str or sequence, optional
        Rows with the same value are held out together: a column such as ``"region"``. Default: square blocks of
        `block_m`.
    block_m : float
        Side of a block in metres.
    folds : int, optional
        Number of folds that whole groups are distributed over. None: one group at a time (leave one region out).
    random_split : bool
        Hold out points at random, ignoring places: only to show how much too optimistic that is. The result says so.
    seed : int
        Of the distribution of groups to folds.

    Returns
    -------
    ProbeResult for classes, ValueResult for values.

    Raises
    ------
    UsageError
        If places aren't known, labels don't fit the table, or there are fewer than two classes or groups.
    DependencyError
        Without scikit-learn.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(np.eye(64)[[0, 1] * 6], columns=list(BANDS)).assign(field=np.repeat(range(6), 2))
    >>> print(cross_validate(table, ["a", "b"] * 6, groups="field", folds=None))
    logistic, leave one field out: balanced accuracy 1.000 (90 % interval 1.000 to 1.000)
    """
    if folds is not None and (not isinstance(folds, int | np.integer) or folds < 2):
        raise UsageError(f"folds are 2 or more, or None for one group at a time; found {folds!r}")
    x, y, kept, task = labelled_rows(table, labels, task, model)
    rng = np.random.default_rng(seed)
    if random_split:
        group = np.arange(len(y))
        fold, split = rng.permutation(len(y)) % (folds or 5), "RANDOM SPLIT (too optimistic: neighbours on both sides)"
    else:
        names, split = _groups(table, in_row_order(groups, table, "groups"), kept, block_m, folds)
        found, group = np.unique(names, return_inverse=True)
        if len(found) < 2:
            raise UsageError("all points lie in one group: nothing can be held out; give smaller blocks or groups=")
        dealt = np.arange(len(found)) if folds is None else rng.permutation(len(found)) % min(folds, len(found))
        fold = dealt[group]
    predicted = np.empty(len(y), dtype=y.dtype)
    for f in np.unique(fold):
        train = fold != f
        if task == "classes" and len(set(y[train])) < 2:
            raise UsageError("a fold leaves fewer than two classes to learn from; use fewer or other groups")
        predicted[~train] = estimator(model, task).fit(x[train], y[train]).predict(x[~train])
    model = model or MODELS[task][0]
    if task == "values":
        return _value_result(model, split, y, predicted, fold, group, table.index[kept], rng)
    return _class_result(model, split, y, predicted, fold, group, rng)


def _groups(
    table: pd.DataFrame, groups: Any, kept: NDArray[np.bool_], block_m: float, folds: int | None
) -> tuple[NDArray[Any], str]:
    """Return the group of each row that is kept, and in words how groups are held out."""
    if groups is not None:
        name = groups if isinstance(groups, str) else "group"
        if isinstance(groups, str) and groups not in table.columns:
            raise UsageError(f"the table has no column {groups!r} of groups")
        values = table[groups] if isinstance(groups, str) else np.asarray(groups, dtype=object)
        if len(values) != len(table):
            raise UsageError(f"{len(table)} rows need as many groups, found {len(values)}")
        words = f"leave one {name} out" if folds is None else f"whole {name}s held out"
        return np.asarray(values)[kept].astype(str), words
    for lon, lat in (("lon", "lat"), ("longitude", "latitude")):
        if lon in table.columns and lat in table.columns:
            places = table.loc[kept, lon].to_numpy(), table.loc[kept, lat].to_numpy()
            return spatial_blocks(*places, block_m), f"blocks of {block_m:g} m"
    raise UsageError(
        "places aren't known: give columns lon and lat, or groups=; random_split=True ignores places, and the result "
        "says so"
    )


def _class_result(
    model: str, split: str, y: Any, predicted: Any, fold: Any, group: Any, rng: np.random.Generator
) -> ProbeResult:
    """Summarise predicted classes by confusion matrices, of each fold and of each group."""
    classes = sorted(set(y))
    column = {name: i for i, name in enumerate(classes)}
    true, guess = (np.array([column[v] for v in values]) for values in (y, predicted))
    names, k = np.unique(fold), len(classes)
    by_fold, by_group = (np.zeros((int(part.max()) + 1, k, k)) for part in (fold, group))
    np.add.at(by_fold, (fold, true, guess), 1)
    np.add.at(by_group, (group, true, guess), 1)
    low, high = _interval(by_group, _balanced_accuracy, rng)
    by_fold = by_fold[names]
    whole = by_fold.sum(axis=0)
    confusion = pd.DataFrame(whole.astype(int), index=classes, columns=classes)
    return ProbeResult(
        model=model,
        split=split,
        balanced_accuracy=_balanced_accuracy(whole),
        low=float(low),
        high=float(high),
        confusion=confusion.rename_axis(index="true", columns="predicted"),
        recall=pd.Series(np.diag(whole) / np.maximum(whole.sum(axis=1), 1), classes),
        folds=pd.DataFrame(
            {
                "fold": names,
                "n": by_fold.sum(axis=(1, 2)).astype(int),
                "balanced_accuracy": [_balanced_accuracy(m) for m in by_fold],
            }
        ),
    )


def _value_result(
    model: str, split: str, y: Any, predicted: Any, fold: Any, group: Any, index: Any, rng: np.random.Generator
) -> ValueResult:
    """Summarise predicted values by sums of each group and fold, from which both figures follow."""
    parts = np.column_stack([np.ones(len(y)), y, y * y, (y - predicted) ** 2, np.abs(y - predicted)])
    sums = np.zeros((int(group.max()) + 1, parts.shape[1]))
    np.add.at(sums, group, parts)
    low, high = _interval(sums, _r2_and_mae, rng)
    r2, mae = _r2_and_mae(sums.sum(axis=0))
    rows = [
        {"fold": f, "n": int((fold == f).sum())}
        | dict(zip(("r2", "mae"), _r2_and_mae(parts[fold == f].sum(axis=0)), strict=True))
        for f in np.unique(fold)
    ]
    return ValueResult(
        model=model,
        split=split,
        r2=r2,
        r2_low=float(low[0]),
        r2_high=float(high[0]),
        mae=mae,
        mae_low=float(low[1]),
        mae_high=float(high[1]),
        predicted=pd.DataFrame({"true": y, "predicted": predicted, "fold": fold}, index=index),
        folds=pd.DataFrame(rows),
    )


def _r2_and_mae(sums: NDArray[np.float64]) -> tuple[float, float]:
    """Return R2 and mean absolute error from the sums of 1, y, y^2, squared errors and absolute errors."""
    n, total, square, errors, absolute = (float(v) for v in sums)
    spread = square - total * total / n
    return (1 - errors / spread if spread > 1e-12 else float("nan")), absolute / n


def _interval(by_group: NDArray[Any], figure: Callable[[Any], Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return the ends of the confidence interval of figures that follow from sums over groups, shape (groups, ...)."""
    n = len(by_group)
    drawn = [figure(by_group[rows].sum(axis=0)) for rows in rng.integers(0, n, size=(_DRAWS, n))]
    found: NDArray[Any] = np.nanquantile(drawn, _INTERVAL, axis=0)
    return found


def _balanced_accuracy(confusion: NDArray[np.float64]) -> float:
    """Return the mean recall of the classes that occur; rows of the confusion matrix are true classes."""
    count = confusion.sum(axis=1)
    seen = count > 0
    return float(np.mean(np.diag(confusion)[seen] / count[seen]))
