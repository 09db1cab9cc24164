"""Facts about the AlphaEarth Foundations annual embeddings, each stated once.

Source: Google's descriptions of the Earth Engine collection and of the Cloud Storage files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gee_polygons.errors import UsageError
from gee_polygons.layers import ContinuousLayer

N_BANDS: Final = 64
BANDS: Final[tuple[str, ...]] = tuple(f"A{i:02d}" for i in range(N_BANDS))
NODATA: Final = -128  # of the int8 codes, in all bands at once
FORMULA: Final = "v = sign(k) * (k / 127.5)^2 for int8 codes k in -127..127; -128 = nodata, masked before anything else"

EMBEDDING_YEARS: Final = range(2017, 2026)
"""Years published when this version was made. A missing year is data, not an error: a source may hold fewer."""

COLLECTION_ID: Final = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
SOURCE_COOP_INDEX: Final = "https://data.source.coop/tge-labs/aef/v1/annual/aef_index.parquet"

LICENCE: Final = "CC BY 4.0"
LICENCE_URL: Final = "https://creativecommons.org/licenses/by/4.0/"
PRODUCERS: Final = "The AlphaEarth Foundations Satellite Embedding dataset is produced by Google and Google DeepMind."
ATTRIBUTION: Final = f"{PRODUCERS} Licence: {LICENCE}."
SYNTHETIC_NOTE: Final = "Synthetic values, made by gee_polygons in the published layout; not AlphaEarth data."


def credit(*, synthetic: bool) -> str:
    """Return what every file of values must say about them."""
    return SYNTHETIC_NOTE if synthetic else ATTRIBUTION


def credit_of(table: Any) -> str:
    """Return the line that names the producers of a table's data, or says that they are synthetic.

    Examples
    --------
    >>> import pandas as pd
    >>> credit_of(pd.DataFrame(columns=["site_id", "A00"]))[-11:]
    ' CC BY 4.0.'
    """
    found = getattr(table, "attrs", {}).get("provenance", {})
    has_bands = any(str(name).partition("_")[0] in BANDS for name in getattr(table, "columns", ()))
    return str(found.get("note") or found.get("attribution") or (ATTRIBUTION if has_bands else ""))


ALPHA_EMBEDDINGS: Final = ContinuousLayer(
    name="alpha_embeddings",
    collection_id=COLLECTION_ID,
    bands=BANDS,
    scale_m=10.0,
    first_year=EMBEDDING_YEARS.start,
    last_year=EMBEDDING_YEARS.stop - 1,
    description="AlphaEarth Foundations annual satellite embeddings, 64 bands of unit vectors.",
    attribution=f"{PRODUCERS} ({LICENCE})",
)


def band_positions(bands: Sequence[str], known: Sequence[str], whose: str) -> list[int]:
    """Return where bands stand among the known ones; raise a `UsageError` for others.

    Examples
    --------
    >>> band_positions(["A02"], BANDS, "there are")
    [2]
    >>> band_positions(["B8"], ["B3", "B4"], "the image has")
    Traceback (most recent call last):
    gee_polygons.errors.UsageError: unknown band 'B8'; the image has B3, B4
    """
    if unknown := [band for band in bands if band not in known]:
        names = f"{known[0]}..{known[-1]}" if len(known) > 12 else ", ".join(known)
        raise UsageError(f"unknown band {unknown[0]!r}; {whose} {names}")
    return [known.index(band) for band in bands]


def checked_bands(bands: Sequence[str] | str | None) -> tuple[str, ...]:
    """Return band names, all 64 for None; raise a `UsageError` unless they are some of A00..A63, each once."""
    names = BANDS if bands is None else tuple([bands] if isinstance(bands, str) else bands)
    band_positions(names, BANDS, "there are")
    if not names or len(set(names)) != len(names):
        raise UsageError(f"bands are some of A00..A63, each once, found {list(names)}")
    return names
