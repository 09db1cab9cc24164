"""Describes the direction of a change as shares of labelled prototype vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, N_BANDS
from gee_polygons.change.numerics import Floats, nonnegative_least_squares
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.inputs import band_matrix
from gee_polygons.embeddings.similarity import angular_distance_deg
from gee_polygons.errors import UsageError

_SAME_COVER_DEG: Final = 20.0  # a prototype nearer than this to the site's first state is the cover that it had


def direction_shares(
    before: Floats, moved: Floats, prototypes: Any, years: NDArray[np.int64], drift: Floats
) -> pd.DataFrame:
    """Explain movements from `before`, both of shape (sites, 64), as a non-negative mixture of the ways to prototypes.

    ``moved = sum_k w_k (P_k - before)``, by least squares; a label's share is ``w_k / sum w``. Columns:
    `towards_<label>`, and `towards_fit`, the cosine of the movement and its explanation.
    """
    labels, vectors = prototype_vectors(prototypes, years, drift)
    is_new = angular_distance_deg(vectors[None], before[:, None]) > _SAME_COVER_DEG
    ways = np.where(is_new[..., None], vectors[None] - before[:, None], 0.0)
    weight = nonnegative_least_squares(np.einsum("nkb,nlb->nkl", ways, ways), np.einsum("nkb,nb->nk", ways, moved))
    fitted = np.einsum("nk,nkb->nb", weight, ways)
    with np.errstate(invalid="ignore"):  # nothing explained: NaN
        shares = weight / weight.sum(axis=1, keepdims=True)
    found = pd.DataFrame(shares, columns=[f"towards_{label}" for label in labels])
    return found.assign(towards_fit=np.sum(normalize(fitted) * normalize(moved), axis=1))


def prototype_vectors(prototypes: Any, years: NDArray[np.int64], drift: Floats) -> tuple[list[str], Floats]:
    """Return sorted labels and their mean directions, shape (labels, 64), without drift (years, 64) where known."""
    table = prototypes
    if isinstance(prototypes, Mapping) and prototypes:
        parts = {str(label): np.atleast_2d(np.asarray(given, np.float64)) for label, given in prototypes.items()}
        for label, vectors in parts.items():
            if vectors.shape[1] != N_BANDS or not np.isfinite(vectors).all():
                raise UsageError(f"the prototype {label!r} isn't made of vectors of 64 numbers")
        table = pd.concat([pd.DataFrame(own, columns=list(BANDS)).assign(label=label) for label, own in parts.items()])
    if not isinstance(table, pd.DataFrame) or "label" not in table.columns:
        raise UsageError(f"prototypes are a table with 'label' or a filled mapping, found {type(prototypes).__name__}")
    table = table[table["label"].notna()]
    units = normalize(band_matrix(table))
    if "year" in table.columns:  # of other years, the row of zeros
        units = normalize(
            units - np.vstack([drift, np.zeros(N_BANDS)])[pd.Index(years).get_indexer(pd.Index(table["year"]))]
        )
    means = pd.DataFrame(units).groupby(table["label"].astype(str).to_numpy()).mean().dropna()
    if len(means) < 2:
        raise UsageError(
            f"prototypes need two labels with data, or all change would be towards one, found {list(means.index)}"
        )
    return list(means.index), normalize(means.to_numpy())
