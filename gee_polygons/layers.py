"""Layers: pure descriptions of what can be extracted. Nothing here imports `ee` or reads a byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gee_polygons.errors import UsageError

__all__ = ["CategoricalLayer", "ContinuousLayer"]


@dataclass(frozen=True, kw_only=True)
class ContinuousLayer:
    """A layer of numbers: one or more bands that can be averaged.

    Parameters
    ----------
    name : str
        Short name, used in messages and file names.
    collection_id : str
        Earth Engine asset id of the image collection.
    bands : tuple of str
        Band names, in order.
    scale_m : float
        Native pixel size in metres.
    first_year, last_year : int
        Years covered; `last_year` is None for a collection that goes on.
    description : str
        One sentence.
    attribution : str
        What must be printed with results.

    Examples
    --------
    >>> ContinuousLayer(name="ndvi", collection_id="X/Y", bands=("NDVI",), scale_m=10, first_year=2017).n_bands
    1
    """

    name: str
    collection_id: str
    bands: tuple[str, ...]
    scale_m: float
    first_year: int
    last_year: int | None = None
    description: str = ""
    attribution: str = ""

    def __post_init__(self) -> None:
        _check(self.name, self.scale_m, self.bands)

    @property
    def n_bands(self) -> int:
        """Number of bands."""
        return len(self.bands)


@dataclass(frozen=True, kw_only=True)
class CategoricalLayer:
    """A layer of classes: one band of integers, each with a name and a colour.

    Parameters
    ----------
    name : str
        Short name, used in messages and file names.
    collection_id : str
        Earth Engine asset id of the image or image collection.
    band : str
        The band that holds the class; with one band per year, a pattern such as ``"classification_{year}"``.
    scale_m : float
        Native pixel size in metres.
    first_year : int
        First year covered.
    last_year : int or None
        Last year covered; None for a collection that goes on.
    class_names : mapping of int to str
        Class number to name.
    palette : mapping of int to str
        Class number to ``#rrggbb``.
    description, attribution : str
        One sentence each.

    Examples
    --------
    >>> layer = CategoricalLayer(name="lc", collection_id="X/Y", band="label", scale_m=10, first_year=2015,
    ...                          class_names={0: "water"}, palette={0: "#419bdf"})
    >>> layer.class_names[0]
    'water'
    """

    name: str
    collection_id: str
    band: str
    scale_m: float
    first_year: int
    last_year: int | None = None
    class_names: Mapping[int, str] = field(default_factory=dict)
    palette: Mapping[int, str] = field(default_factory=dict)
    description: str = ""
    attribution: str = ""

    def __post_init__(self) -> None:
        _check(self.name, self.scale_m, (self.band,))
        # read-only copies: a layer is shared by everyone who imports it
        object.__setattr__(self, "class_names", MappingProxyType(dict(self.class_names)))
        object.__setattr__(self, "palette", MappingProxyType(dict(self.palette)))


def _check(name: str, scale_m: float, bands: tuple[str, ...]) -> None:
    if not bands or len(set(bands)) != len(bands):
        raise UsageError(f"layer {name!r}: bands must be named and unique, found {bands!r}")
    if not scale_m > 0:
        raise UsageError(f"layer {name!r}: scale_m must be positive, found {scale_m!r}")
