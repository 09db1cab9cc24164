"""Implementations of the documented functions, by subject. Importing this package registers them."""

from . import (  # noqa: F401
    basics,
    composites,
    dates,
    drawing,
    elements,
    expressions,
    filters,
    geometries,
    image_bands,
    image_math,
    lists,
    reducing,
)
