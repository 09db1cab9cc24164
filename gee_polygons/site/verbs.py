"""What a site and a collection of sites have in common: they can be extracted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from gee_polygons.layers import CategoricalLayer, ContinuousLayer


class Extractable:
    """Methods of `Site` and `SiteCollection`."""

    __slots__ = ()

    def extract_continuous(
        self,
        layer: ContinuousLayer,
        *,
        start_date: str,
        end_date: str,
        reducer: str = "mean",
        frequency: str = "yearly",
        source: Any = None,
        on_error: str = "raise",
        progress: bool | Callable[..., Any] = False,
    ) -> pd.DataFrame:
        """Extract a layer, all sites at once: see `gee_polygons.extract.extract_continuous`.

        Parameters
        ----------
        layer : ContinuousLayer
            Such as `gee_polygons.datasets.alpha_embeddings.ALPHA_EMBEDDINGS`.
        start_date, end_date : str
            ``"2018-01-01"`` and ``"2024-12-31"`` for the years 2018 to 2024; both days count.
        reducer : {"mean", "median", "min", "max", "stdDev"}
            Of a site's pixels.
        frequency : {"yearly", "monthly", "all"}
            One row per year, month, or date with an image; embeddings have no months.
        source : str, path or Source, optional
            Where pixels come from: see `gee_polygons.open_source`.
        on_error : {"raise", "collect"}
            What failed raises, or is listed in ``attrs["errors"]``.
        progress : bool or callable
            Show a bar, or be told.

        Returns
        -------
        DataFrame
            ``site_id``, ``year`` and one column per band; years without data have no row.
        """
        from gee_polygons.extract import extract_continuous

        return extract_continuous(
            self, layer, start_date=start_date, end_date=end_date, reducer=reducer, frequency=frequency, source=source,
            on_error=on_error, progress=progress,
        )  # fmt: skip

    def extract_categorical(
        self,
        layer: CategoricalLayer,
        *,
        start_date: str,
        end_date: str,
        source: Any = None,
        on_error: str = "raise",
        progress: bool | Callable[..., Any] = False,
    ) -> pd.DataFrame:
        """Measure how much of each site each class covers: see `gee_polygons.extract.extract_categorical`."""
        from gee_polygons.extract import extract_categorical

        return extract_categorical(
            self, layer, start_date=start_date, end_date=end_date, source=source, on_error=on_error, progress=progress
        )
