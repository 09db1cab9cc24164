"""From labelled places to classes or values: k-nearest neighbours, logistic and ridge regression, judged as used.

Neighbouring pixels are nearly copies of each other (cosine 0.99 at 10 m), so a random split tests on what it has seen.
Here folds are *places*: square blocks, or whole regions left out. Needs scikit-learn: ``pip install
'gee_polygons[probe]'``.

Sources: Roberts et al., *Cross-validation strategies for data with temporal, spatial, hierarchical, or phylogenetic
structure*, Ecography 40 (2017); Brodersen et al., *The balanced accuracy and its posterior distribution*, ICPR 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.errors import DependencyError, UsageError

MODELS: Final = {"classes": ("knn", "logistic"), "values": ("knn", "ridge")}
TASKS: Final = ("auto", *MODELS)
BLOCK_M: Final = 5_000.0
_NEIGHBOURS: Final = 5
_STRENGTH: Final = 1.0  # C of the ridge penalty, on vectors scaled to unit variance per band
_DRAWS: Final = 1_000
_INTERVAL: Final = (0.05, 0.95)
_DEFAULT: Final = {"classes": "logistic", "values": "ridge"}
_EARTH_M: Final = 111_320.0  # of a degree


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeResult:
    """How well held-out places were predicted.

    Parameters
    ----------
    model, split : str
        What was fitted, and how places were held out; the split stands in every line that is printed.
    balanced_accuracy, low, high : float
        Mean recall of the classes, and its 90 % interval: whole groups resampled, since points of a place aren't
        independent. With few groups (regions) it is a rough one.
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
        ``1 - sum (y - f)^2 / sum (y - mean y)^2`` over all held-out points, and its 90 % interval: whole groups
        resampled. Below 0: worse than the mean of all.
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
    """Give a number to each of the squares of `block_m` metres that points (degrees, EPSG:4326) lie in.

    Examples
    --------
    >>> spatial_blocks([0.0, 0.001, 1.0], [0.0, 0.001, 0.0], block_m=1_000).tolist()
    [0, 0, 1]
    """
    x, y = np.asarray(lon, np.float64), np.asarray(lat, np.float64)
    if not block_m > 0 or x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UsageError("blocks need finite lon and lat of the same length, and a side in metres")
    row = np.floor(y * _EARTH_M / block_m).astype(np.int64)
    # the width of a degree is that of the row's own latitude: squares stay squares
    middle = (row + 0.5) * block_m / _EARTH_M
    column = np.floor(x * _EARTH_M * np.cos(np.radians(middle)) / block_m).astype(np.int64)
    _, number = np.unique(np.column_stack([row, column]), axis=0, return_inverse=True)
    found: NDArray[np.int64] = number.ravel().astype(np.int64)
    return found


def fit_probe(table: pd.DataFrame, labels: Sequence[Any] | str, *, model: str | None = None, task: str = "auto") -> Any:
    """Fit a probe to all labelled rows; a scikit-learn pipeline with ``predict`` for arrays of shape (n, 64).

    Parameters
    ----------
    table : DataFrame
        With ``A00``..``A63``.
    labels : str or sequence
        Column of the table, or one label per row; rows without label or data are left out. A Series is matched by its
        index, which is the table's or made of its site ids.
    model : {"logistic", "ridge", "knn"}, optional
        For classes: ridge-penalised logistic regression (default), classes weighted alike. For values: ridge regression
        (default). For both: the 5 nearest neighbours by cosine, weighted by their nearness.
    task : {"auto", "classes", "values"}
        What the labels are. ``"auto"``: floats are values, whole ones too, and all else is classes. Numbers of classes
        become floats where pandas has to note a gap: say ``"classes"`` then.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(np.eye(64)[[0, 0, 0, 1, 1, 1]], columns=list(BANDS))
    >>> fit_probe(table, list("aaabbb")).predict(np.eye(64)[[1]]).tolist()
    ['b']
    """
    x, y, _, task = _labelled(table, labels, task, model)
    return _pipeline(model, task).fit(x, y)


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
    """Judge a probe on places that it hasn't seen.

    Parameters
    ----------
    table : DataFrame
        With ``A00``..``A63``, and `lon` and `lat` (or `longitude` and `latitude`) unless `groups` is given.
    labels : str or sequence
        Column, or one label per row.
    model, task : str, optional
        See `fit_probe`.
    groups : str or sequence, optional
        What is held out together: a column such as ``"region"``. Default: square blocks of `block_m`.
    block_m : float
        Side of a block in metres.
    folds : int, optional
        Folds that whole groups are dealt to. None: one group at a time (leave one region out).
    random_split : bool
        Hold out points at random, ignoring places. Only for showing how much too good that looks: the result says so.
    seed : int
        Deals groups to folds.

    Returns
    -------
    ProbeResult for classes, ValueResult for values.

    Raises
    ------
    UsageError
        If places aren't known, or there are fewer than two classes or groups.
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
    x, y, kept, task = _labelled(table, labels, task, model)
    rng = np.random.default_rng(seed)
    if random_split:
        group = np.arange(len(y))
        fold, split = rng.permutation(len(y)) % (folds or 5), "RANDOM SPLIT (too optimistic: neighbours on both sides)"
    else:
        groups = _aligned(groups, table, "groups") if isinstance(groups, pd.Series) else groups
        names, split = _groups(table, groups, kept, block_m, folds)
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
        predicted[~train] = _pipeline(model, task).fit(x[train], y[train]).predict(x[~train])
    model = model or _DEFAULT[task]
    if task == "values":
        return _value_result(model, split, y, predicted, fold, group, table.index[kept], rng)
    return _result(model, split, y, predicted, fold, group, rng)


def _labelled(
    table: pd.DataFrame, labels: Any, task: str, model: str | None
) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.bool_], str]:
    """Return vectors, labels, which rows have both, and what the labels are."""
    units = normalize(band_matrix(table))
    if isinstance(labels, str):
        if labels not in table.columns:
            raise UsageError(f"the table has no column {labels!r} of labels")
        labels = table[labels]
    labels = _aligned(labels, table, "labels") if isinstance(labels, pd.Series) else labels
    y = pd.Series(list(labels) if not isinstance(labels, pd.Series | np.ndarray) else labels).reset_index(drop=True)
    if len(y) != len(table):
        raise UsageError(f"{len(table)} rows need as many labels, found {len(y)}")
    task = _task_of(y, task, model)
    if task == "values":
        values = pd.to_numeric(y, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        if (np.isnan(values) & y.notna()).any():
            raise UsageError(
                f"values are numbers, found {y[np.isnan(values) & y.notna()].iloc[0]!r}; or task='classes'"
            )
        kept: NDArray[np.bool_] = np.isfinite(units[:, 0]) & np.isfinite(values)
        if kept.sum() < _NEIGHBOURS + 1 or np.ptp(values[kept]) == 0:
            raise UsageError(f"values need more than {_NEIGHBOURS} rows with data, and not all the same value")
        return units[kept], values[kept], kept, task
    kept = np.isfinite(units[:, 0]) & y.notna().to_numpy()
    found = np.array([str(v) for v in y[kept]], dtype=object)
    if len(set(found)) < 2:
        raise UsageError(f"a probe tells classes apart: at least two are needed, found {sorted(set(found))}")
    return units[kept], found, kept, task


def _aligned(values: pd.Series[Any], table: pd.DataFrame, what: str) -> pd.Series[Any]:
    """Put a Series into the order of the table's rows: by its index, else by site ids."""
    if values.index.equals(table.index):
        return values
    if values.index.is_unique:
        if len(values) == len(table) and table.index.is_unique and table.index.isin(values.index).all():
            return values.loc[table.index]
        if "site_id" in table.columns:
            ids, known = table["site_id"].astype(str), values.set_axis(values.index.astype(str))
            if known.index.is_unique and known.index.isin(ids).all():
                return known.reindex(ids)
    raise UsageError(
        f"{what} are a Series whose index is neither the table's nor made of its site ids, so it isn't known which row "
        f"each belongs to; give it the table's index, or a list in the order of the rows"
    )


def _task_of(y: pd.Series[Any], task: str, model: str | None) -> str:
    if task not in TASKS:
        raise UsageError(f"task is one of {', '.join(TASKS)}, found {task!r}")
    if task == "auto":
        task = "values" if pd.api.types.is_float_dtype(y) else "classes"
        if model in ("ridge", "logistic"):
            task = "values" if model == "ridge" else "classes"
    if model is not None and model not in MODELS[task]:
        raise UsageError(f"model is one of {', '.join(MODELS[task])} for {task}, found {model!r}")
    return task


def _groups(
    table: pd.DataFrame, groups: Any, kept: NDArray[np.bool_], block_m: float, folds: int | None
) -> tuple[NDArray[Any], str]:
    if groups is not None:
        name = groups if isinstance(groups, str) else "group"
        if isinstance(groups, str) and groups not in table.columns:
            raise UsageError(f"the table has no column {groups!r} of groups")
        values = table[groups] if isinstance(groups, str) else np.asarray(groups, dtype=object)
        if len(values) != len(table):
            raise UsageError(f"{len(table)} rows need as many groups, found {len(values)}")
        values = np.asarray(values)[kept]
        how = f"leave one {name} out" if folds is None else f"whole {name}s held out"
        return np.asarray(values).astype(str), how
    for lon, lat in (("lon", "lat"), ("longitude", "latitude")):
        if lon in table.columns and lat in table.columns:
            places = table.loc[kept, lon].to_numpy(), table.loc[kept, lat].to_numpy()
            return spatial_blocks(*places, block_m), f"blocks of {block_m:g} m"
    raise UsageError(
        "places aren't known: give columns lon and lat, or groups=; a random split is reported only by "
        "random_split=True, and says so"
    )


def _pipeline(model: str | None, task: str) -> Any:
    try:
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise DependencyError("a probe needs scikit-learn: pip install 'gee_polygons[probe]'") from error
    if model == "knn":
        # of unit vectors the Euclidean order is that of the cosine
        nearest = KNeighborsRegressor if task == "values" else KNeighborsClassifier
        return nearest(n_neighbors=_NEIGHBOURS, weights="distance")
    if task == "values":
        return make_pipeline(StandardScaler(), Ridge(alpha=64 / _STRENGTH))
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=_STRENGTH / 64, class_weight="balanced", max_iter=2_000)
    )


def _result(
    model: str, split: str, y: Any, predicted: Any, fold: Any, group: Any, rng: np.random.Generator
) -> ProbeResult:
    classes = sorted(set(y))
    place = {name: i for i, name in enumerate(classes)}
    true, said = (np.array([place[v] for v in values]) for values in (y, predicted))
    k, names = len(classes), np.unique(fold)
    each, of_group = (np.zeros((int(part.max()) + 1, k, k)) for part in (fold, group))
    np.add.at(each, (fold, true, said), 1)
    np.add.at(of_group, (group, true, said), 1)
    low, high = np.quantile([_balanced(of_group[d].sum(axis=0)) for d in _resamples(group, rng)], _INTERVAL)
    each = each[names]
    whole = each.sum(axis=0)
    confusion = pd.DataFrame(whole.astype(int), index=classes, columns=classes).rename_axis("true").T
    confusion = confusion.rename_axis("predicted").T
    return ProbeResult(
        model=model,
        split=split,
        balanced_accuracy=_balanced(whole),
        low=float(low),
        high=float(high),
        confusion=confusion,
        recall=pd.Series(np.diag(whole) / np.maximum(whole.sum(axis=1), 1), classes),
        folds=pd.DataFrame(
            {"fold": names, "n": each.sum(axis=(1, 2)).astype(int), "balanced_accuracy": [_balanced(m) for m in each]}
        ),
    )


def _value_result(
    model: str, split: str, y: Any, predicted: Any, fold: Any, group: Any, index: Any, rng: np.random.Generator
) -> ValueResult:
    """Pool held-out predictions; groups are resampled by their sums, from which both figures follow."""
    n_groups = int(group.max()) + 1
    parts = np.column_stack([np.ones(len(y)), y, y * y, (y - predicted) ** 2, np.abs(y - predicted)])
    sums = np.zeros((n_groups, parts.shape[1]))
    np.add.at(sums, group, parts)
    drawn = np.array([_figures(sums[d].sum(axis=0)) for d in _resamples(group, rng)])
    low, high = np.nanquantile(drawn, _INTERVAL, axis=0)
    r2, mae = _figures(sums.sum(axis=0))
    rows = [
        {"fold": f, "n": int((fold == f).sum())}
        | dict(zip(("r2", "mae"), _figures(parts[fold == f].sum(axis=0)), strict=True))
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


def _figures(sums: NDArray[np.float64]) -> tuple[float, float]:
    """Return R2 and mean absolute error from count, sum, sum of squares, squared errors, absolute errors."""
    n, total, square, errors, absolute = (float(v) for v in sums)
    spread = square - total * total / n
    return (1 - errors / spread if spread > 1e-12 else float("nan")), absolute / n


def _resamples(group: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    n = int(group.max()) + 1
    found: NDArray[np.int64] = rng.integers(0, n, size=(_DRAWS, n))
    return found


def _balanced(confusion: NDArray[np.float64]) -> float:
    count = confusion.sum(axis=1)
    seen = count > 0
    return float(np.mean(np.diag(confusion)[seen] / count[seen]))
