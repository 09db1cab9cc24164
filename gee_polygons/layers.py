"""Describes what can be extracted: layers of numbers and of classes, without importing `ee` or reading a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from gee_polygons.errors import UsageError
from gee_polygons.moved import with_old_members

__all__ = ["COMPOSITES", "CategoricalLayer", "ContinuousLayer"]

COMPOSITES: Final = ("mosaic", "mean", "median", "mode")
"""How several images of one place and period become one."""


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """What both kinds of layers have."""

    name: str
    collection_id: str
    scale_m: float
    first_year: int
    last_year: int | None = None
    description: str = ""
    attribution: str = ""
    composite: str = "mosaic"
    prepare: Callable[[Any], Any] | None = None
    related_ids: tuple[str, ...] = ()

    def _check(self, bands: tuple[str, ...]) -> None:
        if not bands or len(set(bands)) != len(bands):
            raise UsageError(f"layer {self.name!r}: bands must be named and unique, found {bands!r}")
        if not self.scale_m > 0:
            raise UsageError(f"layer {self.name!r}: scale_m must be positive, found {self.scale_m!r}")
        if self.composite not in COMPOSITES:
            names = ", ".join(COMPOSITES)
            raise UsageError(f"layer {self.name!r}: composite must be one of {names}, found {self.composite!r}")


@with_old_members
@dataclass(frozen=True, kw_only=True)
class ContinuousLayer(_Layer):
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
    composite : str
        How the images of a period become one: ``"mosaic"`` (one image per place and period: the last on top),
        ``"mean"`` or ``"median"``, pixel by pixel.
    prepare : callable, optional
        Makes this layer's bands of one image of the collection (an ``ee.Image``, to another): masks, scales, indices.
        A function of a module, so that a layer can be pickled. None: the bands are in the collection as they are.
    related_ids : tuple of str
        Other assets that `prepare` needs.

    Examples
    --------
    >>> ContinuousLayer(name="ndvi", collection_id="X/Y", bands=("NDVI",), scale_m=10, first_year=2017).n_bands
    1
    """

    bands: tuple[str, ...]

    def __post_init__(self) -> None:
        self._check(self.bands)

    @property
    def n_bands(self) -> int:
        """Number of bands."""
        return len(self.bands)


@with_old_members
@dataclass(frozen=True, kw_only=True)
class CategoricalLayer(_Layer):
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
    composite : str
        How the images of a period become one: ``"mode"`` (the commonest class, pixel by pixel) or ``"mosaic"``.
    prepare : callable, optional
        Makes the class band of one image of the collection; see `ContinuousLayer`.
    related_ids : tuple of str
        Other assets that `prepare` needs.

    Examples
    --------
    >>> layer = CategoricalLayer(name="lc", collection_id="X/Y", band="label", scale_m=10, first_year=2015,
    ...                          class_names={0: "water"}, palette={0: "#419bdf"})
    >>> layer.class_names[0]
    'water'
    """

    band: str
    class_names: Mapping[int, str] = field(default_factory=dict, hash=False)
    palette: Mapping[int, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        self._check((self.band,))
        # read-only copies: a layer is shared by everyone who imports it
        object.__setattr__(self, "class_names", MappingProxyType(dict(self.class_names)))
        object.__setattr__(self, "palette", MappingProxyType(dict(self.palette)))

    def __reduce__(self) -> tuple[Callable[[], CategoricalLayer], tuple[()]]:
        # a read-only mapping can't be pickled as it is
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        plain: dict[str, Any] = {k: dict(v) if isinstance(v, MappingProxyType) else v for k, v in values.items()}
        return partial(CategoricalLayer, **plain), ()

    @property
    def band_name(self) -> str:
        """What the class band is called in a year's image: the pattern without its year."""
        return self.band.replace("_{year}", "").replace("{year}", "")

    @property
    def is_image(self) -> bool:
        """Whether the asset is one image with a band per year, and not a collection of images."""
        return "{year}" in self.band

    def band_of(self, year: int) -> str:
        """Return the name of the band that holds a year's classes.

        Examples
        --------
        >>> layer = CategoricalLayer(name="lc", collection_id="X/Y", band="classification_{year}", scale_m=30,
        ...                          first_year=1985)
        >>> layer.band_of(2020)
        'classification_2020'
        """
        return self.band.replace("{year}", str(year))
