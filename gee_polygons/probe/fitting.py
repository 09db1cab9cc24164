"""Fits simple models from embeddings to classes or values: k nearest neighbours, logistic and ridge regression.

Needs scikit-learn: ``pip install 'gee_polygons[probe]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.errors import DependencyError, UsageError

MODELS: Final = {"classes": ("logistic", "knn"), "values": ("ridge", "knn")}  # the first is the default
_TASKS: Final = ("auto", *MODELS)
NEIGHBOURS: Final = 5
_PENALTY: Final = 64.0  # of the ridge, on vectors scaled to unit variance per band: as many as there are bands


def fit_probe(table: pd.DataFrame, labels: Sequence[Any] | str, *, model: str | None = None, task: str = "auto") -> Any:
    """Fit a model to all labelled rows.

    Parameters
    ----------
    table : DataFrame
        With ``A00``..``A63``.
    labels : str or sequence
        Column of the table, or one label per row; rows without label or data are left out. A Series is matched by its
        index, which holds the table's index or its site ids.
    model : {"logistic", "ridge", "knn"}, optional
        For classes: ridge-penalised logistic regression (default), all classes with the same weight. For values: ridge
        regression (default). For both: the 5 nearest neighbours by cosine, weighted by inverse distance.
    task : {"auto", "classes", "values"}
        What the labels are. ``"auto"``: floats are values, also whole ones; everything else is classes. pandas turns
        integer class numbers with gaps into floats: give ``"classes"`` then.

    Returns
    -------
    scikit-learn estimator; its ``predict`` takes unit vectors, shape (n, 64).

    Raises
    ------
    UsageError
        If labels don't fit the table, or there are fewer than two classes, or fewer than six values.
    DependencyError
        Without scikit-learn.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> table = pd.DataFrame(np.eye(64)[[0, 0, 0, 1, 1, 1]], columns=list(BANDS))
    >>> fit_probe(table, list("aaabbb")).predict(np.eye(64)[[1]]).tolist()
    ['b']
    """
    x, y, _, task = labelled_rows(table, labels, task, model)
    return estimator(model, task).fit(x, y)


def labelled_rows(
    table: pd.DataFrame, labels: Any, task: str, model: str | None
) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.bool_], str]:
    """Return unit vectors and labels of the rows that have both, a mask of these rows, and the task."""
    units = normalize(band_matrix(table))
    if isinstance(labels, str):
        if labels not in table.columns:
            raise UsageError(f"the table has no column {labels!r} of labels")
        labels = table[labels]
    labels = in_row_order(labels, table, "labels")
    y = pd.Series(labels if isinstance(labels, pd.Series | np.ndarray) else list(labels)).reset_index(drop=True)
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
        if kept.sum() < NEIGHBOURS + 1 or np.ptp(values[kept]) == 0:
            raise UsageError(f"values need more than {NEIGHBOURS} rows with data, and not all the same value")
        return units[kept], values[kept], kept, task
    kept = np.isfinite(units[:, 0]) & y.notna().to_numpy()
    found = np.array([str(v) for v in y[kept]], dtype=object)
    if len(set(found)) < 2:
        raise UsageError(f"at least two classes are needed, found {sorted(set(found))}")
    return units[kept], found, kept, task


def in_row_order(values: Any, table: pd.DataFrame, what: str) -> Any:
    """Return a Series in the order of the table's rows, by index or by site ids; anything else as it is."""
    if not isinstance(values, pd.Series) or values.index.equals(table.index):
        return values
    if values.index.is_unique:
        if len(values) == len(table) and table.index.is_unique and table.index.isin(values.index).all():
            return values.loc[table.index]
        if "site_id" in table.columns:
            ids, known = table["site_id"].astype(str), values.set_axis(values.index.astype(str))
            if known.index.is_unique and known.index.isin(ids).all():
                return known.reindex(ids)
    raise UsageError(
        f"{what} are a Series whose index holds neither the table's index nor its site ids, so its values can't be "
        "matched to rows; give it the table's index, or a list in the order of the rows"
    )


def _task_of(y: pd.Series[Any], task: str, model: str | None) -> str:
    """Return the task, by default that of the model or of the labels' type; check that model and task agree."""
    if task not in _TASKS:
        raise UsageError(f"task is one of {', '.join(_TASKS)}, found {task!r}")
    if task == "auto":
        task = "values" if pd.api.types.is_float_dtype(y) else "classes"
        if model in ("ridge", "logistic"):
            task = "values" if model == "ridge" else "classes"
    if model is not None and model not in MODELS[task]:
        raise UsageError(f"model is one of {', '.join(sorted(MODELS[task]))} for {task}, found {model!r}")
    return task


def estimator(model: str | None, task: str) -> Any:
    """Return an estimator of scikit-learn that isn't fitted yet."""
    try:
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise DependencyError("a probe needs scikit-learn: pip install 'gee_polygons[probe]'") from error
    if model == "knn":
        # unit vectors have the same order by Euclidean distance and by cosine
        nearest = KNeighborsRegressor if task == "values" else KNeighborsClassifier
        return nearest(n_neighbors=NEIGHBOURS, weights="distance")
    if task == "values":
        return make_pipeline(StandardScaler(), Ridge(alpha=_PENALTY))
    return make_pipeline(StandardScaler(), LogisticRegression(C=1 / _PENALTY, class_weight="balanced", max_iter=2_000))
