"""Trains probes that can be saved as JSON, loads them, and predicts the classes or values of sites."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, N_BANDS
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.embeddings.quantization import codes_to_vectors, vectors_to_codes
from gee_polygons.errors import InputFileError
from gee_polygons.probe.fitting import MODELS, NEIGHBOURS, estimator, labelled_rows
from gee_polygons.probe.validation import cross_validate
from gee_polygons.store.atomic import check_new_file, replacing
from gee_polygons.version import package_version

FORMAT: Final = "gee_polygons probe 1"
_UNLIKE: Final = 0.99  # quantile of the training vectors' own distances, beyond which a site is unlike all of them
_ROWS: Final = 4_096  # that are compared with the training vectors at a time
_NUMBERS: Final = {"coefficients": 2, "intercept": 1, "mean": 1, "scale": 1, "codes": 2}  # and their dimensions


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A fitted model that can be saved.

    Parameters
    ----------
    kind : {"logistic", "ridge", "knn"}
        The model: see `fit_probe`.
    target : str
        What it predicts.
    classes : tuple of str
        Names of the classes; empty for values.
    coefficients, intercept : lists
        Of the vectors after scaling, a row per class (logistic, softmax) or one (ridge); empty for knn.
    mean, scale : lists of 64 numbers
        Scaling: ``(unit vector - mean) / scale``; empty for knn.
    codes : list of lists of 64 int
        Unit vectors of the labelled rows as codes: knn's training vectors; of every kind, what sites are like.
    labels : list
        Of these rows.
    unlike_beyond_deg : float
        99 % of the training vectors are nearer than this to another one.
    scores : dict
        Of spatial cross-validation.
    provenance : dict
        Of the table.
    """

    kind: str
    target: str
    classes: tuple[str, ...]
    coefficients: list[list[float]]
    intercept: list[float]
    mean: list[float]
    scale: list[float]
    codes: list[list[int]]
    labels: list[Any]
    unlike_beyond_deg: float
    scores: dict[str, Any]
    provenance: dict[str, Any]

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the probe as JSON, whole or not at all."""
        path = Path(path)
        check_new_file(path, overwrite)
        content = {"format": FORMAT, "package_version": package_version(), "bands": list(BANDS), **asdict(self)}
        lines = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in content.items()]
        with replacing(path) as part:
            part.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        return path


def train_probe(
    table: pd.DataFrame, labels: Sequence[Any] | str, *, model: str | None = None, task: str = "auto",
    target: str | None = None, **validation: Any,
) -> Probe:  # fmt: skip
    """Fit a probe to all labelled rows, and score it by spatial cross-validation.

    Parameters
    ----------
    table, labels, model, task
        See `fit_probe`.
    target : str, optional
        Name of what is predicted. Default: the column of the labels.
    **validation
        Options of `cross_validate`, such as ``groups`` or ``block_m``.

    Returns
    -------
    Probe

    Raises
    ------
    UsageError
        As `fit_probe` and `cross_validate`.

    Examples
    --------
    >>> table = pd.DataFrame(np.eye(64)[[0, 1] * 60], columns=list(BANDS)).assign(field=np.repeat(range(6), 20))
    >>> probe = train_probe(table, ["a", "b"] * 60, target="crop", groups="field")
    >>> predict_sites(probe, table[:2])[["crop", "is_unlike"]].values.tolist()
    [['a', False], ['b', False]]
    """
    scores = cross_validate(table, labels, model=model, task=task, **validation)
    units, y, _, task = labelled_rows(table, labels, task, model)
    kind = model or MODELS[task][0]
    codes = vectors_to_codes(units)
    linear: dict[str, Any] = {"coefficients": [], "intercept": [], "mean": [], "scale": []}
    if kind != "knn":
        scaler, fitted = (step for _, step in estimator(kind, task).fit(units, y).steps)
        weights, offsets = np.atleast_2d(fitted.coef_), np.atleast_1d(fitted.intercept_)
        if kind == "logistic" and len(weights) == 1:  # two classes: the first one's score is 0
            weights, offsets = np.vstack([np.zeros_like(weights), weights]), np.append(0.0, offsets)
        linear = {
            "coefficients": weights.tolist(), "intercept": offsets.tolist(), "mean": scaler.mean_.tolist(),
            "scale": scaler.scale_.tolist(),
        }  # fmt: skip
    own, _ = _nearest(_units(codes), _units(codes), 2)
    found = {name: value for name, value in vars(scores).items() if isinstance(value, str | int | float)}
    return Probe(
        kind=kind, target=target or (labels if isinstance(labels, str) else "label"),
        classes=tuple(sorted(set(y))) if task == "classes" else (), **linear, codes=codes.tolist(), labels=y.tolist(),
        unlike_beyond_deg=float(np.quantile(own[:, 1], _UNLIKE)),
        scores={name: None if value != value else value for name, value in found.items()} | {"summary": str(scores)},
        provenance=dict(table.attrs.get("provenance", {})),
    )  # fmt: skip


def load_probe(path: str | Path) -> Probe:
    """Read a probe that `Probe.save` wrote.

    Raises
    ------
    InputFileError
        If the file is missing or is anything else; nothing in it is executed.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputFileError(f"can't read the probe {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputFileError(f"{path} is no probe: not JSON; a probe is what `gee-polygons probe` writes") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("bands") != list(BANDS):
        raise InputFileError(f"{path} is no probe: its format isn't {FORMAT!r} for {BANDS[0]}..{BANDS[-1]}")
    try:
        probe = Probe(**{name: content[name] for name in Probe.__dataclass_fields__})
        numbers = {name: np.array(getattr(probe, name), np.float64) for name in _NUMBERS}
        sizes = {name: array.shape for name, array in numbers.items()}
        n_rows = 0 if probe.kind == "knn" else max(len(probe.classes), 1)
        used = {"coefficients": (n_rows, N_BANDS), "intercept": (n_rows,), "mean": (N_BANDS,), "scale": (N_BANDS,)}
        right = sizes["codes"] == (len(probe.labels), N_BANDS) and len(probe.labels) > 1
        right &= np.abs(numbers["codes"]).max() <= 127 and probe.kind in ("logistic", "ridge", "knn")
        right &= all(np.isfinite(array).all() for array in numbers.values()) and probe.unlike_beyond_deg >= 0
        right &= probe.kind == "knn" or all(sizes[name] == shape for name, shape in used.items())
        right &= not probe.classes or set(probe.labels) <= set(probe.classes)
    except (KeyError, TypeError, ValueError) as error:
        raise InputFileError(f"{path} is a damaged probe: {error}") from error
    if not right:
        raise InputFileError(f"{path} is a damaged probe: its numbers don't fit {probe.kind!r}")
    return probe


def predict_sites(probe: Probe, table: pd.DataFrame) -> pd.DataFrame:
    """Predict the class or value of each row of a table.

    Parameters
    ----------
    probe : Probe
        From `train_probe` or `load_probe`.
    table : DataFrame
        With ``A00``..``A63``; `site_id` and `year` are kept.

    Returns
    -------
    DataFrame
        A row per row of the table: `site_id`, `year`, the target; for classes `probability` and ``p_CLASS`` of each;
        `distance_deg`, the angle to the nearest training vector, and `is_unlike`: True for a row further from all
        training vectors than 99 % of those are from each other, which the model says little about. Rows without data
        have none of them.

    Raises
    ------
    UsageError
        If bands are missing.
    """
    units = normalize(band_matrix(table))
    there = np.atleast_1d(np.isfinite(units).all(axis=1))
    x = units[there]
    distance, near = _nearest(x, _units(np.array(probe.codes, np.int8)), min(NEIGHBOURS, len(probe.labels)))
    found = table[[name for name in ("site_id", "year") if name in table.columns]].copy()
    chords = 2 * np.sin(np.radians(distance) / 2)
    weights = np.where((chords < 1e-7).any(axis=1, keepdims=True), chords < 1e-7, 1 / np.maximum(chords, 1e-7))
    weights /= weights.sum(axis=1, keepdims=True)
    scores = np.zeros((len(x), 1))
    if probe.kind != "knn":
        scaled = (x - np.array(probe.mean)) / np.array(probe.scale)
        scores = scaled @ np.array(probe.coefficients).T + np.array(probe.intercept)
    if probe.classes:
        if probe.kind == "knn":
            numbers = np.array([probe.classes.index(label) for label in probe.labels])[near]
            shares = np.stack([(weights * (numbers == i)).sum(axis=1) for i in range(len(probe.classes))], axis=1)
        else:
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
        values: Any = np.array(probe.classes, object)[shares.argmax(axis=1)]
        columns = {probe.target: values, "probability": shares.max(axis=1)}
        columns |= {f"p_{name}": shares[:, i] for i, name in enumerate(probe.classes)}
    else:
        near_values = np.array(probe.labels, np.float64)[near]
        columns = {probe.target: scores[:, 0] if probe.kind == "ridge" else (weights * near_values).sum(axis=1)}
    columns["distance_deg"] = distance[:, 0]
    predicted = pd.DataFrame(columns, index=np.flatnonzero(there)).reindex(range(len(table))).set_axis(table.index)
    unlike = (predicted["distance_deg"] > probe.unlike_beyond_deg).astype("boolean").mask(~there)
    return pd.concat([found, predicted, unlike.rename("is_unlike")], axis=1)


def _units(codes: NDArray[np.int8]) -> NDArray[np.float64]:
    return normalize(codes_to_vectors(codes, np.float64))


def _nearest(x: NDArray[Any], others: NDArray[Any], k: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the angles in degrees to the k nearest of other unit vectors, ascending, and their numbers."""
    angles, numbers = np.zeros((len(x), k)), np.zeros((len(x), k), np.intp)
    for start in range(0, len(x), _ROWS):
        cosine = np.clip(x[start : start + _ROWS] @ others.T, -1, 1)
        order = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        order = np.take_along_axis(order, np.argsort(-np.take_along_axis(cosine, order, 1), axis=1), 1)
        # of near vectors the chord is the more exact
        chords = np.linalg.norm(x[start : start + _ROWS, None] - others[order], axis=2)
        angles[start : start + _ROWS] = np.degrees(2 * np.arcsin(np.clip(chords / 2, 0, 1)))
        numbers[start : start + _ROWS] = order
    return angles, numbers
