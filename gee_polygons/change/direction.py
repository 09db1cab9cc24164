"""Towards what did a site change? Shares of labelled prototypes in what it gained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.drift import Drift
from gee_polygons.change.series import Floats
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.embeddings.similarity import angular_distance_deg
from gee_polygons.errors import UsageError

_SWEEPS: Final = 200  # of coordinate descent: a handful of labels converge in a few tens
_SAME_DEG: Final = 20.0  # sites of one cover differ by so much: what is nearer to where the site was is what it was


def direction_shares(
    before: Floats, after: Floats, prototypes: Any, years: NDArray[np.int64], drift: Drift
) -> pd.DataFrame:
    """Explain ``after - before`` by ways to prototypes: least squares with weights that aren't negative.

    ``after - before = sum_k w_k (P_k - before)``; a label's share is ``w_k / sum w``. Rows of NaN stay NaN.
    """
    labels, vectors = prototype_vectors(prototypes, years, drift)
    n, k = len(before), len(labels)
    ways = vectors[None] - before[:, None]
    far = angular_distance_deg(vectors[None], before[:, None]) > _SAME_DEG
    ways = np.where(far[..., None], ways, 0.0)
    target = after - before
    gram, pull = np.einsum("nkb,nlb->nkl", ways, ways), np.einsum("nkb,nb->nk", ways, target)
    weight = np.zeros((n, k))
    for _ in range(_SWEEPS):
        for j in range(k):
            rest = pull[:, j] - np.einsum("nl,nl->n", gram[:, j], weight) + gram[:, j, j] * weight[:, j]
            own = gram[:, j, j]
            weight[:, j] = np.where(own > 0, np.maximum(rest, 0) / np.where(own > 0, own, 1.0), 0.0)
    total = weight.sum(axis=1, keepdims=True)
    shares = np.divide(weight, total, out=np.full((n, k), np.nan), where=total > 0)
    fitted = np.einsum("nk,nkb->nb", weight, ways)
    length = np.linalg.norm(fitted, axis=1) * np.linalg.norm(target, axis=1)
    cosine = np.divide(np.einsum("nb,nb->n", fitted, target), length, out=np.full(n, np.nan), where=length > 0)
    found = pd.DataFrame(shares, columns=[f"towards_{label}" for label in labels])
    return found.assign(towards_fit=cosine)


def prototype_vectors(prototypes: Any, years: NDArray[np.int64], drift: Drift) -> tuple[list[str], Floats]:
    """Return labels and their mean directions, with the drift taken off where the years are known."""
    parts: dict[str, list[Floats]] = {}
    if isinstance(prototypes, pd.DataFrame):
        if "label" not in prototypes.columns:
            raise UsageError("a table of prototypes needs a column 'label' beside the bands")
        units = normalize(band_matrix(prototypes))
        for i in np.flatnonzero(np.isfinite(units[:, 0])):
            label, vector = prototypes["label"].iloc[i], units[i]
            at: Any = np.flatnonzero(years == prototypes["year"].iloc[i]) if "year" in prototypes.columns else []
            if len(at):
                cube = np.full((1, len(years), N_BANDS), np.nan)
                cube[0, at[0]] = vector
                vector = drift.remove(cube)[0, at[0]]
            if not pd.isna(label):
                parts.setdefault(str(label), []).append(vector)
    elif isinstance(prototypes, Mapping):
        for label, given in prototypes.items():
            units = normalize(np.atleast_2d(np.asarray(given, np.float64)))
            if units.shape[1] != N_BANDS or not np.isfinite(units).all():
                raise UsageError(f"the prototype {label!r} isn't made of vectors of 64 numbers")
            parts[str(label)] = list(units)
    else:
        raise UsageError(f"prototypes are a table with 'label' or a mapping, found {type(prototypes).__name__}")
    if not parts:
        raise UsageError("no prototype has a label and data")
    if len(parts) < 2:
        raise UsageError(
            f"prototypes have one label only, {next(iter(parts))!r}, which all change would be towards; give two"
        )
    labels = sorted(parts)
    return labels, normalize(np.stack([np.mean(parts[label], axis=0) for label in labels]))
