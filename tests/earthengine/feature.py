"""Features and collections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import ServiceError
from .geometry import Geometry, everywhere
from .image import Image


@dataclass(frozen=True, eq=False)
class Feature:
    """A geometry (or none) and properties. Its id is the property system:index."""

    geometry: Geometry | None
    properties: dict[str, Any]

    @property
    def index(self) -> str | None:
        return self.properties.get("system:index")

    def with_properties(self, properties: dict[str, Any]) -> Feature:
        return replace(self, properties=properties)


@dataclass(frozen=True, eq=False)
class Collection:
    """Elements in order: features, images or collections."""

    elements: tuple[Any, ...]
    id: str | None = None
    properties: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(elements: Iterable[Any], asset: str | None = None) -> Collection:
        """Number the elements 0, 1, 2, ... as collections made of lists are; features keep an index of their own."""
        return Collection(
            tuple(
                e if isinstance(e, Feature) and e.index is not None else indexed(e, str(i))
                for i, e in enumerate(elements)
            ),
            asset,
        )

    def with_elements(self, elements: Iterable[Any]) -> Collection:
        return replace(self, elements=tuple(elements))

    def with_properties(self, properties: dict[str, Any]) -> Collection:
        return replace(self, properties=properties)

    @property
    def index(self) -> str | None:
        return self.properties.get("system:index")

    @property
    def is_images(self) -> bool:
        return bool(self.elements) and all(isinstance(e, Image) for e in self.elements)

    def images(self, function: str) -> list[Image]:
        for element in self.elements:
            if not isinstance(element, Image):
                raise ServiceError(f"{function}: expected a collection of images, found a {type(element).__name__}.")
        return list(self.elements)


Element = Image | Feature | Collection


def indexed(element: Element, index: str) -> Element:
    return element.with_properties({**element.properties, "system:index": index})


def geometry_of(element: Element) -> Geometry | None:
    """Return a feature's geometry or an image's footprint; without bounds it is the whole world."""
    if isinstance(element, Feature):
        return element.geometry
    if isinstance(element, Image):
        return element.footprint if element.footprint is not None else everywhere()
    return None
