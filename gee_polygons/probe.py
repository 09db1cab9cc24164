"""From labelled places to classes: k-nearest neighbours and logistic regression, judged as they will be used.

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

from gee_polygons.embeddings._inputs import band_matrix
from gee_polygons.embeddings.directional import normalize
from gee_polygons.errors import DependencyError, UsageError

__all__ = ["ProbeResult", "cross_validate", "fit_probe", "spatial_blocks"]

MODELS: Final = ("knn", "logistic")
BLOCK_M: Final = 5_000.0
_NEIGHBOURS: Final = 5
_STRENGTH: Final = 1.0  # C of the ridge penalty, on vectors scaled to unit variance per band
_DRAWS: Final = 1_000
_EARTH_M: Final = 111_320.0  # of a degree


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeResult:
    """How well held-out places were predicted.

    Parameters
    ----------
    model, split : str
        What was fitted, and how places were held out; the split stands in every line that is printed.
    balanced_accuracy, low, high : float
        Mean recall of the classes, and its 90 % interval: whole folds resampled, since points of a place aren't
        independent.
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


def fit_probe(table: pd.DataFrame, labels: Sequence[Any] | str, *, model: str = "logistic") -> Any:
    """Fit a probe to all labelled rows; a scikit-learn pipeline with ``predict`` for arrays of shape (n, 64).

    Parameters
    ----------
    table : DataFrame
        With ``A00``..``A63``.
    labels : str or sequence
        Column of the table, or one label per row; rows without label or data are left out.
    model : {"logistic", "knn"}
        Ridge-penalised logistic regression, classes weighted alike; or the 5 nearest neighbours by cosine.

    Examples
    --------
    >>> from gee_polygons.embeddings.quantization import BANDS
    >>> table = pd.DataFrame(np.eye(64)[[0, 0, 0, 1, 1, 1]], columns=list(BANDS))
    >>> fit_probe(table, list("aaabbb")).predict(np.eye(64)[[1]]).tolist()
    ['b']
    """
    x, y, _ = _labelled(table, labels)
    return _pipeline(model).fit(x, y)


def cross_validate(
    table: pd.DataFrame,
    labels: Sequence[Any] | str,
    *,
    model: str = "logistic",
    groups: Sequence[Any] | str | None = None,
    block_m: float = BLOCK_M,
    folds: int | None = 5,
    random_split: bool = False,
    seed: int = 0,
) -> ProbeResult:
    """Judge a probe on places that it hasn't seen.

    Parameters
    ----------
    table : DataFrame
        With ``A00``..``A63``, and `lon` and `lat` (or `longitude` and `latitude`) unless `groups` is given.
    labels : str or sequence
        Column, or one label per row.
    model : {"logistic", "knn"}
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
    ProbeResult

    Raises
    ------
    UsageError
        If places aren't known, or there are fewer than two classes or groups.
    DependencyError
        Without scikit-learn.

    Examples
    --------
    >>> from gee_polygons.embeddings.quantization import BANDS
    >>> table = pd.DataFrame(np.eye(64)[[0, 1] * 6], columns=list(BANDS)).assign(field=np.repeat(range(6), 2))
    >>> print(cross_validate(table, ["a", "b"] * 6, groups="field", folds=None))
    logistic, leave one field out: balanced accuracy 1.000 (90 % interval 1.000 to 1.000)
    """
    x, y, kept = _labelled(table, labels)
    rng = np.random.default_rng(seed)
    if random_split:
        fold, split = rng.permutation(len(y)) % (folds or 5), "RANDOM SPLIT (too optimistic: neighbours on both sides)"
    else:
        group, split = _groups(table[kept], groups, kept, block_m, folds)
        names, code = np.unique(group, return_inverse=True)
        if len(names) < 2:
            raise UsageError("all points lie in one group: nothing can be held out; give smaller blocks or groups=")
        dealt = np.arange(len(names)) if folds is None else rng.permutation(len(names)) % min(folds, len(names))
        fold = dealt[code]
    predicted = np.empty(len(y), dtype=object)
    for f in np.unique(fold):
        train = fold != f
        if len(set(y[train])) < 2:
            raise UsageError("a fold leaves fewer than two classes to learn from; use fewer or other groups")
        predicted[~train] = _pipeline(model).fit(x[train], y[train]).predict(x[~train])
    return _result(model, split, y, predicted, fold, rng)


def _labelled(table: pd.DataFrame, labels: Any) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.bool_]]:
    units = normalize(band_matrix(table))
    if isinstance(labels, str):
        if labels not in table.columns:
            raise UsageError(f"the table has no column {labels!r} of labels")
        labels = table[labels]
    y = np.asarray(labels, dtype=object)
    if len(y) != len(table):
        raise UsageError(f"{len(table)} rows need as many labels, found {len(y)}")
    kept: NDArray[np.bool_] = np.isfinite(units[:, 0]) & ~pd.isna(y)
    y = np.array([str(v) for v in y[kept]], dtype=object)
    if len(set(y)) < 2:
        raise UsageError(f"a probe tells classes apart: at least two are needed, found {sorted(set(y))}")
    return units[kept], y, kept


def _groups(
    table: pd.DataFrame, groups: Any, kept: NDArray[np.bool_], block_m: float, folds: int | None
) -> tuple[NDArray[Any], str]:
    if groups is not None:
        name = groups if isinstance(groups, str) else "group"
        if isinstance(groups, str) and groups not in table.columns:
            raise UsageError(f"the table has no column {groups!r} of groups")
        values = table[groups] if isinstance(groups, str) else np.asarray(groups, dtype=object)[kept]
        how = f"leave one {name} out" if folds is None else f"whole {name}s held out"
        return np.asarray(values).astype(str), how
    for lon, lat in (("lon", "lat"), ("longitude", "latitude")):
        if lon in table.columns and lat in table.columns:
            return spatial_blocks(table[lon].to_numpy(), table[lat].to_numpy(), block_m), f"blocks of {block_m:g} m"
    raise UsageError(
        "places aren't known: give columns lon and lat, or groups=; a random split is reported only by "
        "random_split=True, and says so"
    )


def _pipeline(model: str) -> Any:
    if model not in MODELS:
        raise UsageError(f"model is one of {', '.join(MODELS)}, found {model!r}")
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise DependencyError("a probe needs scikit-learn: pip install 'gee_polygons[probe]'") from error
    if model == "knn":
        # of unit vectors the Euclidean order is that of the cosine
        return KNeighborsClassifier(n_neighbors=_NEIGHBOURS, weights="distance")
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=_STRENGTH / 64, class_weight="balanced", max_iter=2_000)
    )


def _result(model: str, split: str, y: Any, predicted: Any, fold: Any, rng: np.random.Generator) -> ProbeResult:
    classes = sorted(set(y))
    place = {name: i for i, name in enumerate(classes)}
    true, said = (np.array([place[v] for v in values]) for values in (y, predicted))
    k, names = len(classes), np.unique(fold)
    each = np.zeros((len(names), k, k))
    for i, f in enumerate(names):
        np.add.at(each[i], (true[fold == f], said[fold == f]), 1)
    drawn = rng.integers(0, len(names), size=(_DRAWS, len(names)))
    low, high = np.quantile([_balanced(each[d].sum(axis=0)) for d in drawn], [0.05, 0.95])
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


def _balanced(confusion: NDArray[np.float64]) -> float:
    count = confusion.sum(axis=1)
    seen = count > 0
    return float(np.mean(np.diag(confusion)[seen] / count[seen]))
