"""Decodes a block band by band."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray


class PlaneSource(Protocol):
    """A block of pixels in compressed parts, each of which holds one band or several."""

    @property
    def n_parts(self) -> int:
        """Number of compressed parts."""

    def part_bands(self, part: int) -> Sequence[int]:
        """Positions, among the requested bands, of those that a part holds."""

    def decode(self, part: int, scratch: NDArray[Any] | None = None) -> NDArray[Any]:
        """Decode one part to planes: int8 codes or float vectors, shape (bands of the part, pixels + PADDING).

        Pixels are in the block's stored order. `scratch` is an array that a former call returned; it is written
        again where it fits.
        """


@dataclass
class Scratch:
    """The array that one part after the other is decoded into."""

    array: NDArray[Any] | None = None


def planes(
    block: PlaneSource, scratch: Scratch | None = None, parts: Iterable[int] | None = None
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (position among the requested bands, plane) of a block, or of some parts of it.

    A plane is overwritten by the next part's.
    """
    scratch = scratch or Scratch()
    for part in range(block.n_parts) if parts is None else parts:
        scratch.array = block.decode(part, scratch.array)
        yield from zip(block.part_bands(part), scratch.array, strict=True)
