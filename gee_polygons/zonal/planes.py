"""What a block offers to the reducers: its parts, decoded on demand into one buffer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray


class PlaneSource(Protocol):
    """What a block offers here: its parts, decoded on demand."""

    @property
    def n_parts(self) -> int:
        """Number of compressed parts."""
        ...

    def part_bands(self, part: int) -> Sequence[int]:
        """Bands held by a part."""
        ...

    def decode(self, part: int, scratch: NDArray[Any] | None = None) -> NDArray[Any]:
        """Decode a part."""
        ...


@dataclass
class Scratch:
    """The buffer that parts are decoded into, again and again."""

    array: NDArray[Any] | None = None


def planes(block: PlaneSource, scratch: Scratch | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (position among the bands asked for, plane) of a block, decoding each part once."""
    scratch = scratch or Scratch()
    for part in range(block.n_parts):
        scratch.array = block.decode(part, scratch.array)
        yield from zip(block.part_bands(part), scratch.array, strict=True)
