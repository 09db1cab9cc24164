"""Describes the direction of a change as shares of labelled prototype vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.numerics import Floats, nonnegative_least_squares
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.embeddings.similarity import angular_distance_deg
from gee_polygons.errors import UsageError

_SAME_COVER_DEG: Final = 20.0  # a prototype nearer than this to the site's first state is the cover that it had


def direction_shares(
    before: Floats, after: Floats, prototypes: Any, years: NDArray[np.int64], drift: Floats
) -> pd.DataFrame:
    """Explain ``after - before``, shape (sites, 64), as a non-negative mixture of the ways to prototypes.

    ``after - before = sum_k w_k (P_k - before)``, by least squares; a label's share is ``w_k / sum w``. Rows of NaN
    stay NaN. Columns: `towards_<label>`, and `towards_fit`, the cosine of the change and its explanation.
    """
    labels, vectors = prototype_vectors(prototypes, years, drift)
    n, k = len(before), len(labels)
    ways = vectors[None] - before[:, None]
    is_new = angular_distance_deg(vectors[None], before[:, None]) > _SAME_COVER_DEG
    ways = np.where(is_new[..., None], ways, 0.0)
    target = after - before
    weight = nonnegative_least_squares(np.einsum("nkb,nlb->nkl", ways, ways), np.einsum("nkb,nb->nk", ways, target))
    total = weight.sum(axis=1, keepdims=True)
    shares = np.divide(weight, total, out=np.full((n, k), np.nan), where=total > 0)
    fitted = np.einsum("nk,nkb->nb", weight, ways)
    length = np.linalg.norm(fitted, axis=1) * np.linalg.norm(target, axis=1)
    cosine = np.divide(np.einsum("nb,nb->n", fitted, target), length, out=np.full(n, np.nan), where=length > 0)
    found = pd.DataFrame(shares, columns=[f"towards_{label}" for label in labels])
    return found.assign(towards_fit=cosine)


def prototype_vectors(prototypes: Any, years: NDArray[np.int64], drift: Floats) -> tuple[list[str], Floats]:
    """Return sorted labels and their mean directions, shape (labels, 64), without drift (years, 64) where known."""
    parts: dict[str, list[Floats]] = {}
    if isinstance(prototypes, pd.DataFrame):
        if "label" not in prototypes.columns:
            raise UsageError("a table of prototypes needs a column 'label' beside the bands")
        units = normalize(band_matrix(prototypes))
        for i in np.flatnonzero(np.isfinite(units[:, 0]) & prototypes["label"].notna().to_numpy()):
            vector = units[i]
            if "year" in prototypes.columns and prototypes["year"].iloc[i] in years:
                year = int(np.searchsorted(years, prototypes["year"].iloc[i]))
                vector = normalize(vector - drift[year])
            parts.setdefault(str(prototypes["label"].iloc[i]), []).append(vector)
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
            f"prototypes have one label only, {next(iter(parts))!r}, so that all change would be towards it; give two"
        )
    labels = sorted(parts)
    return labels, normalize(np.stack([np.mean(parts[label], axis=0) for label in labels]))
