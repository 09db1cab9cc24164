"""Scores models on embeddings by spatial cross-validation: whole blocks or regions are held out, with a buffer.

Neighbouring pixels are nearly the same (cosine 0.99 at 10 m), so that a random split tests on what was learnt. Points
on the two sides of a block's edge are neighbours too: points nearer than a buffer to what is held out aren't learnt.

Intervals are Student's t over the held-out groups, by the delete-one-group jackknife, on a scale on which figures are
nearly symmetric: the logit of an accuracy, log(1 - R2), log of an error. The folds' models learn from mostly the same
points, so that their errors have a part in common that differences between groups don't show: the variance is
multiplied by ``1 + c k / (k - 1)`` for k folds. Nadeau & Bengio have c = 1, which holds for values; for accuracies,
which an error of the model changes near the classes' boundaries only, c = 3/4 does. `benchmarks/bench_probe.py`
measures how often the intervals hold the truth.

Sources: Roberts et al., *Cross-validation strategies for data with temporal, spatial, hierarchical, or phylogenetic
structure*, Ecography 40 (2017); Brodersen et al., *The balanced accuracy and its posterior distribution*, ICPR 2010;
Nadeau & Bengio, *Inference for the generalization error*, Machine Learning 52 (2003); Ploton et al., *Spatial
validation reveals poor predictive performance of large-scale ecological mapping models*, Nature Comm. 11 (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from gee_polygons.change.numerics import student_t
from gee_polygons.errors import UsageError
from gee_polygons.probe.fitting import MODELS, NEIGHBOURS, estimator, in_row_order, labelled_rows

BLOCK_M: Final = 5_000.0
FEWEST_GROUPS: Final = 5  # fewer don't show how much groups differ
_CONFIDENCE: Final = 0.9
_LEAST_KEPT: Final = 0.5  # share of the points outside a fold that a default buffer leaves to learn from
_DEGREE_M: Final = 111_320.0
_TINY: Final = 1e-9
_SHARED: Final = {"classes": 0.75, "values": 1.0}  # of the models' errors: c in the module's docstring

Places = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeResult:
    """How well the classes of held-out places were predicted.

    Parameters
    ----------
    model, split : str
        The model, and how places were held out; both are part of the printed line.
    n_groups : int
        Blocks or groups that were held out.
    buffer_m : float
        Points nearer than this to a held-out point weren't learnt from.
    balanced_accuracy, low, high : float
        Mean recall of the classes, and its 90 % confidence interval (Student's t over groups, since points of a place
        aren't independent). The interval is NaN with fewer than five groups.
    confusion : DataFrame
        Points by true (rows) and predicted class (columns).
    recall : Series
        By class.
    folds : DataFrame
        `fold`, `n`, `balanced_accuracy` over the classes that the fold has.
    """

    model: str
    split: str
    n_groups: int
    buffer_m: float
    balanced_accuracy: float
    low: float
    high: float
    confusion: pd.DataFrame
    recall: pd.Series[Any]
    folds: pd.DataFrame

    def __str__(self) -> str:
        interval = _interval_text(self.low, self.high, self.n_groups)
        return f"{self.model}, {self.split}: balanced accuracy {self.balanced_accuracy:.3f} ({interval})"


@dataclass(frozen=True, kw_only=True, eq=False)
class ValueResult:
    """How well values of held-out places were predicted.

    Parameters
    ----------
    model, split, n_groups, buffer_m
        As in `ProbeResult`.
    r2, r2_low, r2_high : float
        ``1 - sum (y - f)^2 / sum (y - mean y)^2`` over all held-out points, and its 90 % confidence
        interval as in `ProbeResult`. Below 0: worse than predicting the mean.
    mae, mae_low, mae_high : float
        Mean absolute error, in the values' unit, and its interval.
    predicted : DataFrame
        `true`, `predicted`, `fold`: one row per labelled row of the table, with its index.
    folds : DataFrame
        `fold`, `n`, `r2` (about the fold's own mean), `mae`.
    """

    model: str
    split: str
    n_groups: int
    buffer_m: float
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
            f"{self.model}, {self.split}: R2 {self.r2:.3f} "
            f"({_interval_text(self.r2_low, self.r2_high, self.n_groups)}), mean absolute error {self.mae:.4g}"
            + ("" if np.isnan(self.mae_low) else f" ({self.mae_low:.4g} to {self.mae_high:.4g})")
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
    buffer_m: float | None = None,
    folds: int | None = 20,
    random_split: bool = False,
    seed: int = 0,
) -> ProbeResult | ValueResult:
    """Score a model on places that it wasn't fitted to.

    Parameters
    ----------
    table : DataFrame
        With ``A00``..``A63``, and `lon` and `lat` (or `longitude` and `latitude`, or `geometry` in degrees) unless
        `groups` is given: what ``extract_embeddings(..., keep=["kind"])`` returns, or a file of it read again.
    labels : str or sequence
        Column, or one label per row.
    model, task : str, optional
        See `fit_probe`.
    groups : str or sequence, optional
        Rows with the same value are held out together: a column such as ``"region"``. Default: square blocks of
        `block_m`.
    block_m : float
        Side of a block in metres. It should be the distance at which the model is going to be used; see
        `compare_block_sizes`.
    buffer_m : float, optional
        Points nearer than this to a held-out point aren't learnt from; needs `lon` and `lat`. Default: for blocks
        their side, halved until each fold leaves half of the points outside it, and all their classes, to learn from;
        for `groups`, 0. The printed result says what it was.
    folds : int, optional
        Number of folds that whole groups are distributed over: many, so that buffers leave most of the land to learn
        from. None: one group at a time (leave one region out).
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
        If places aren't known, labels don't fit the table, or there are fewer than two classes or groups; if a fold
        or a given buffer leaves too little to learn from.
    DependencyError
        Without scikit-learn.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(np.eye(64)[[0, 1] * 60], columns=list(BANDS)).assign(field=np.repeat(range(6), 20))
    >>> print(cross_validate(table, ["a", "b"] * 60, groups="field", folds=None))
    logistic, leave one field out, no buffer: balanced accuracy 1.000 (90 % interval 0.879 to 1.000)
    """
    if folds is not None and (not isinstance(folds, int | np.integer) or folds < 2):
        raise UsageError(f"folds are 2 or more, or None for one group at a time; found {folds!r}")
    if buffer_m is not None and not (np.isfinite(buffer_m) and buffer_m >= 0):
        raise UsageError(f"buffer_m is a length in metres, found {buffer_m!r}")
    x, y, kept, task = labelled_rows(table, labels, task, model)
    rng = np.random.default_rng(seed)
    if random_split:
        group, buffer_m, distances = np.arange(len(y)), 0.0, {}
        fold, split = rng.permutation(len(y)) % (folds or 5), "RANDOM SPLIT (too optimistic: neighbours on both sides)"
    else:
        places = _places(table, kept)
        names, split = _groups(table, in_row_order(groups, table, "groups"), kept, block_m, folds, places)
        found, group = np.unique(names, return_inverse=True)
        if len(found) < 2:
            raise UsageError("all points lie in one group: nothing can be held out; give smaller blocks or groups=")
        dealt = np.arange(len(found)) if folds is None else rng.permutation(len(found)) % min(folds, len(found))
        fold = dealt[group]
        asked = (0.0 if groups is not None else block_m) if buffer_m is None else buffer_m
        distances = _distances_to_folds(places, fold) if asked else {}
        buffer_m = asked if buffer_m is not None else _affordable(asked, distances, y, fold, task)
        split += f", buffers of {buffer_m:g} m" if buffer_m else ", no buffer"
    predicted = np.empty(len(y), dtype=y.dtype)
    for f in np.unique(fold):
        train = distances[f] >= buffer_m if buffer_m else fold != f
        if len(set(y[train])) < 2 or train.sum() <= NEIGHBOURS:
            raise UsageError(
                f"a fold leaves {train.sum()} points of {len(set(y[train]))} classes or values to learn from; give "
                "smaller buffers, more folds, or other groups"
            )
        predicted[fold == f] = estimator(model, task).fit(x[train], y[train]).predict(x[fold == f])
    how = {"model": model or MODELS[task][0], "split": split, "buffer_m": float(buffer_m)}
    if task == "values":
        return _value_result(how, y, predicted, fold, group, table.index[kept])
    return _class_result(how, y, predicted, fold, group)


def compare_block_sizes(
    table: pd.DataFrame,
    labels: Sequence[Any] | str,
    block_sizes_m: Sequence[float] = (500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0),
    **options: Any,
) -> pd.DataFrame:
    """Score a model with blocks of several sizes, beside a random split: how much the score depends on distance.

    Parameters
    ----------
    table, labels
        As in `cross_validate`.
    block_sizes_m : sequence of float
        Sides of blocks in metres; sizes with fewer than five blocks are left out.
    **options
        Further options of `cross_validate`.

    Returns
    -------
    DataFrame, a row per split, the random one first: `block_m` (0 for the random split), `buffer_m`, `n_groups`, and
    the figure with its 90 % interval: `balanced_accuracy`, `low`, `high`, or `r2`, `r2_low`, `r2_high`. A figure that
    still falls at the largest size is too optimistic for places further away.

    Raises
    ------
    UsageError
        As `cross_validate`.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(np.eye(64)[[0, 1] * 60], columns=list(BANDS)).assign(lon=np.arange(120) * 1e-3, lat=0.0)
    >>> compare_block_sizes(table, ["a", "b"] * 60)[["block_m", "n_groups", "balanced_accuracy"]].values.tolist()
    [[0.0, 120.0, 1.0], [500.0, 27.0, 1.0], [1000.0, 14.0, 1.0], [2000.0, 7.0, 1.0]]
    """
    results = {0.0: cross_validate(table, labels, random_split=True, **options)}
    kept = labelled_rows(table, labels, options.get("task", "auto"), options.get("model"))[2]
    for size in sorted(block_sizes_m):
        places = _places(table, kept)
        if places is None or len(np.unique(spatial_blocks(*places, size))) >= FEWEST_GROUPS:
            results[float(size)] = cross_validate(table, labels, block_m=size, **options)
    names = ("balanced_accuracy", "low", "high", "r2", "r2_low", "r2_high")
    rows = [
        {"block_m": size, "buffer_m": found.buffer_m, "n_groups": found.n_groups}
        | {name: getattr(found, name) for name in names if hasattr(found, name)}
        for size, found in results.items()
    ]
    return pd.DataFrame(rows)


def _groups(
    table: pd.DataFrame, groups: Any, kept: NDArray[np.bool_], block_m: float, folds: int | None, places: Places | None
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
    if places is None:
        raise UsageError(
            "places aren't known: give columns lon and lat (extract with keep=), or groups=; random_split=True ignores "
            "places, and the result says so"
        )
    return spatial_blocks(*places, block_m), f"blocks of {block_m:g} m"


def _places(table: pd.DataFrame, kept: NDArray[np.bool_]) -> Places | None:
    """Return longitudes and latitudes of the rows that are kept; None without such columns."""
    for lon, lat in (("lon", "lat"), ("longitude", "latitude")):
        if lon in table.columns and lat in table.columns:
            return table.loc[kept, lon].to_numpy(np.float64), table.loc[kept, lat].to_numpy(np.float64)
    if "geometry" in table.columns:
        centers = shapely.centroid(table.loc[kept, "geometry"].to_numpy())
        return shapely.get_x(centers), shapely.get_y(centers)
    return None


def _distances_to_folds(places: Places | None, fold: NDArray[np.int64]) -> dict[int, NDArray[np.float64]]:
    """Return for each fold the distance of every point to the nearest point of the fold, in metres; -1 inside it."""
    if places is None or not np.isfinite(places).all():
        raise UsageError("a buffer needs finite places: give columns lon and lat, or buffer_m=0")
    from sklearn.neighbors import KDTree

    x, y = np.radians(places)
    globe = np.column_stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)]) * np.degrees(_DEGREE_M)
    found = {}
    for f in np.unique(fold).tolist():
        distance = np.full(len(fold), -1.0)
        distance[fold != f] = KDTree(globe[fold == f]).query(globe[fold != f])[0][:, 0]
        found[f] = distance
    return found


def _affordable(
    buffer_m: float, distances: dict[int, NDArray[np.float64]], y: Any, fold: NDArray[np.int64], task: str
) -> float:
    """Halve a buffer until each fold leaves half of the points outside it, and all their classes, to learn from."""
    for f, distance in distances.items():
        outside = fold != f
        while (distance >= buffer_m).sum() < _LEAST_KEPT * outside.sum() or (
            task == "classes" and len(set(y[distance >= buffer_m])) < len(set(y[outside]))
        ):
            buffer_m = buffer_m / 2 if buffer_m > 1 else 0.0
    return buffer_m


def _class_result(how: dict[str, Any], y: Any, predicted: Any, fold: Any, group: Any) -> ProbeResult:
    """Summarise predicted classes by confusion matrices, of each fold and of each group."""
    classes = sorted(set(y))
    column = {name: i for i, name in enumerate(classes)}
    true, guess = (np.array([column[v] for v in values]) for values in (y, predicted))
    names, k = np.unique(fold), len(classes)
    by_fold, by_group = (np.zeros((int(part.max()) + 1, k, k)) for part in (fold, group))
    np.add.at(by_fold, (fold, true, guess), 1)
    np.add.at(by_group, (group, true, guess), 1)
    by_fold = by_fold[names]
    whole = by_fold.sum(axis=0)
    # points alone make an accuracy uncertain, also where none is wrong: Agresti & Coull's centre and its variance
    n = k / np.mean(1 / whole.sum(axis=1))

    def centered(m: NDArray[np.float64]) -> float:
        return float((n * _balanced_accuracy(m) + 1) / (n + 2))

    least = 1 / (n * centered(whole) * (1 - centered(whole)))
    accuracy = _balanced_accuracy(whole)
    shared = _SHARED["classes"] * len(names) / (len(names) - 1)
    low, high = _interval(by_group, centered, _logit, _from_logit, shared, least)
    confusion = pd.DataFrame(whole.astype(int), index=classes, columns=classes)
    return ProbeResult(
        **how,
        n_groups=len(by_group),
        balanced_accuracy=accuracy,
        low=min(low, accuracy),
        high=max(high, accuracy),
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


def _value_result(how: dict[str, Any], y: Any, predicted: Any, fold: Any, group: Any, index: Any) -> ValueResult:
    """Summarise predicted values by sums of each group and fold, from which both figures follow."""
    parts = np.column_stack([np.ones(len(y)), y, y * y, (y - predicted) ** 2, np.abs(y - predicted)])
    sums = np.zeros((int(group.max()) + 1, parts.shape[1]))
    np.add.at(sums, group, parts)
    shared = _SHARED["values"] * (k := len(np.unique(fold))) / (k - 1)
    r2_low, r2_high = _interval(sums, lambda s: 1 - _r2_and_mae(s)[0], np.log, np.exp, shared)
    mae_low, mae_high = _interval(sums, lambda s: _r2_and_mae(s)[1], np.log, np.exp, shared)
    r2, mae = _r2_and_mae(sums.sum(axis=0))
    rows = [
        {"fold": f, "n": int((fold == f).sum())}
        | dict(zip(("r2", "mae"), _r2_and_mae(parts[fold == f].sum(axis=0)), strict=True))
        for f in np.unique(fold)
    ]
    return ValueResult(
        **how,
        n_groups=len(sums),
        r2=r2,
        r2_low=1 - r2_high,
        r2_high=1 - r2_low,
        mae=mae,
        mae_low=mae_low,
        mae_high=mae_high,
        predicted=pd.DataFrame({"true": y, "predicted": predicted, "fold": fold}, index=index),
        folds=pd.DataFrame(rows),
    )


def _r2_and_mae(sums: NDArray[np.float64]) -> tuple[float, float]:
    """Return R2 and mean absolute error from the sums of 1, y, y^2, squared errors and absolute errors."""
    n, total, square, errors, absolute = (float(v) for v in sums)
    spread = square - total * total / n
    return (1 - errors / spread if spread > 1e-12 else float("nan")), absolute / n


def _interval(
    by_group: NDArray[Any],
    figure: Callable[[Any], float],
    scale: Callable[[Any], Any],
    back: Callable[[Any], Any],
    shared: float,
    least_variance: float = 0.0,
) -> tuple[float, float]:
    """Return the 90 % interval of a figure that follows from sums over groups, shape (groups, ...); NaN if too few."""
    n, total = len(by_group), by_group.sum(axis=0)
    if n < FEWEST_GROUPS:
        return float("nan"), float("nan")
    without_one = scale(np.maximum([figure(total - own) for own in by_group], _TINY))
    # the jackknife's variance of a mean; then the part that models fitted to the same points have in common
    variance = max((n - 1) * float(np.nanvar(without_one)), least_variance) * (1 + shared)
    half = student_t(n - 1.0, _CONFIDENCE) * np.sqrt(variance)
    low, high = back(scale(max(figure(total), _TINY)) + np.array([-half, half]))
    return float(low), float(high)


def _interval_text(low: float, high: float, n_groups: int) -> str:
    if n_groups < FEWEST_GROUPS:
        return f"no interval: {n_groups} groups, {FEWEST_GROUPS} are needed"
    return f"90 % interval {low:.3f} to {high:.3f}"


def _logit(p: Any) -> Any:
    return np.log(p / (1 - p))


def _from_logit(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def _balanced_accuracy(confusion: NDArray[np.float64]) -> float:
    """Return the mean recall of the classes that occur; rows of the confusion matrix are true classes."""
    count = confusion.sum(axis=1)
    seen = count > 0
    return float(np.mean(np.diag(confusion)[seen] / count[seen]))
