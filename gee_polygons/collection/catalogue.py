"""Lists the datasets that a collection can be built of: where the index of each is, and what its tiles hold."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from gee_polygons.alphaearth import BANDS, NODATA, SOURCE_COOP_INDEX, credit
from gee_polygons.errors import InputFileError, UsageError
from gee_polygons.sources.cog.header import AEF, Content
from gee_polygons.sources.sample.archive import sample_archive_path
from gee_polygons.store.atomic import replacing
from gee_polygons.store.cache import cache_folder

AEF_ID: Final = "aef/v1-annual"
SAMPLE_ID: Final = "gee-polygons/sample"


# the annotations of `Dataset` -> what `isinstance` takes
_TYPES: Final[Mapping[str, Any]] = {
    "str": str,
    "bool": bool,
    "tuple[str, ...]": tuple,
    "float | None": int | float | None,
    "Mapping[str, str]": Mapping,
}


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One entry of the catalogue.

    Parameters
    ----------
    id : str
        Its name.
    title : str
        One line of description.
    index : str
        Path or URL of its list of tiles: Parquet, STAC GeoParquet, CSV or GeoPackage.
    bands : tuple of str
        Band names, one for each sample of a file; empty: each asset of an item is a band of that name.
    dtype : str
        NumPy's name of the pixels' type; empty: as in each file.
    nodata : float, optional
        Value of pixels without data, where files don't say.
    annual : bool
        Whether there is one image a year; others are identified by their day.
    column_map : mapping of str to str
        Names in the list -> names of this package.
    href_column : str
        Column with paths or URLs; empty: the usual ones.
    url_rewrite : mapping of str to str
        URL prefixes of the list -> those to read from.
    licence, attribution : str
        Of the data.

    Examples
    --------
    >>> dataset("aef/v1-annual").bands[:2]
    ('A00', 'A01')
    """

    id: str
    title: str = ""
    index: str = field(default="", repr=False)  # a URL of it may be signed
    bands: tuple[str, ...] = ()
    dtype: str = ""
    nodata: float | None = None
    annual: bool = True
    column_map: Mapping[str, str] = field(default_factory=dict)
    href_column: str = ""
    url_rewrite: Mapping[str, str] = field(default_factory=dict, repr=False)
    licence: str = ""
    attribution: str = ""

    @property
    def embeddings(self) -> bool:
        """Whether its tiles hold AlphaEarth codes."""
        return self.bands == BANDS and self.dtype == "int8"

    @property
    def content(self) -> Content:
        """Bands, type and nodata value of its tiles, as the reader of headers expects them."""
        return AEF if self.embeddings else Content(self.bands or None, self.dtype or None, self.nodata)

    def as_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON, of the fields that aren't empty; `from_dict` reads it."""
        return {key: value for key, value in asdict(self).items() if value not in ("", {}, (), None)}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Dataset:
        """Return the dataset that `as_dict` described.

        Raises
        ------
        TypeError
            For a key that a dataset doesn't have, or a value of another type.
        """
        made = cls(**{"id": "", **found, "bands": tuple(found.get("bands", ()))})
        for item in fields(cls):
            value = getattr(made, item.name)
            if not isinstance(value, _TYPES[str(item.type)]):
                raise TypeError(f"{item.name} is {value!r}")
        np.dtype(made.dtype or "int8")  # raises TypeError for a name that NumPy doesn't know
        return made


def _built_in() -> dict[str, Dataset]:
    codes: dict[str, Any] = {"bands": BANDS, "dtype": "int8", "nodata": float(NODATA)}
    return {
        AEF_ID: Dataset(
            id=AEF_ID,
            title="AlphaEarth Foundations annual embeddings, the open COG archive, global, no account",
            index=SOURCE_COOP_INDEX,
            licence="CC BY 4.0",
            attribution=credit(synthetic=False),
            **codes,
        ),
        SAMPLE_ID: Dataset(
            id=SAMPLE_ID,
            title="a small synthetic archive in the same layout; built on first use",
            attribution=credit(synthetic=True),
            **codes,
        ),
    }


def datasets() -> dict[str, Dataset]:
    """Return the catalogue: built-in datasets, then those registered here.

    Examples
    --------
    >>> list(datasets())[:2]
    ['aef/v1-annual', 'gee-polygons/sample']
    """
    return {**_built_in(), **_registered()}


def dataset(name: str) -> Dataset:
    """Return one dataset.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    known = datasets()
    if name not in known:
        raise UsageError(f"unknown dataset {name!r}; there are {', '.join(known)}; see register()")
    found = known[name]
    if name == SAMPLE_ID:
        return Dataset.from_dict(
            {**found.as_dict(), "index": str(sample_archive_path() / "v1" / "annual" / "aef_index.parquet")}
        )
    return found


def register(entry: Dataset) -> Dataset:
    """Add a dataset of your own, or replace it: kept in the cache folder.

    Parameters
    ----------
    entry : Dataset
        With an `index` that exists.

    Returns
    -------
    Dataset
        With an absolute path.

    Raises
    ------
    UsageError
        For a name of a built-in one.
    InputFileError
        If its index is a path and isn't there.
    """
    if not entry.id or entry.id in _built_in():
        raise UsageError(f"{entry.id!r} can't be registered: choose a name of your own")
    index = entry.index
    if "://" not in index:
        if not Path(index).is_file():
            raise InputFileError(f"{index or 'index'}: no such index; name the list of tiles")
        index = os.path.abspath(index)  # noqa: PTH100 - a link stays the link it is
    known = _registered()
    known[entry.id] = Dataset.from_dict({**entry.as_dict(), "index": index})
    with replacing(_file()) as part:
        part.write_text(json.dumps({key: value.as_dict() for key, value in known.items()}, indent=1) + "\n", "utf-8")
    return known[entry.id]


def _file() -> Path:
    return cache_folder() / "datasets.json"


def _registered() -> dict[str, Dataset]:
    try:
        text = _file().read_text("utf-8")
    except OSError:
        return {}
    try:
        return {key: Dataset.from_dict(value) for key, value in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputFileError(f"{_file()}: not a catalogue of datasets: {error}; correct or remove it") from error
