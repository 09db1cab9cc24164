"""Reduces blocks whose pixels must be unit vectors, and reads a block again where some of them can't be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gee_polygons.errors import ReadError
from gee_polygons.reduction.plan import Block, BlockRef
from gee_polygons.zonal.damage import NO_SUSPECTS, DamagedPixels, Suspects
from gee_polygons.zonal.reduce import Reduced

_MOST_READINGS: Final = 4
_MOST_LISTED: Final = 20  # blocks that a summary lists


@dataclass(frozen=True, kw_only=True)
class BlockDamage:
    """Pixels of one block that can't be unit vectors, although two readings of the block agree.

    Parameters
    ----------
    tile : str
        Path or URL of the tile.
    year : int
        Its year.
    index : tuple of int
        (block row, block column) in the file.
    wrong : int
        Pixels of wrong length. Their values count.
    incomplete : int
        Pixels that are nodata in some bands only. They are left out.
    n_checked : int
        Pixels that were looked at: those that a polygon touches, but for nodata.
    lengths : tuple of float
        Least, median and greatest length of the `wrong` pixels; NaN without any.
    """

    tile: str
    year: int
    index: tuple[int, int]
    wrong: int
    incomplete: int
    n_checked: int
    lengths: tuple[float, float, float]

    @classmethod
    def of(cls, ref: BlockRef, damage: DamagedPixels) -> BlockDamage:
        """Summarise the damaged pixels of a block."""
        lengths = damage.lengths[~np.isnan(damage.lengths)]
        least, median, greatest = np.quantile(lengths, [0, 0.5, 1]).tolist() if len(lengths) else [np.nan] * 3
        return cls(
            tile=ref.tile, year=ref.year, index=ref.index, wrong=len(lengths), incomplete=len(damage.incomplete),
            n_checked=damage.n_checked, lengths=(least, median, greatest),
        )  # fmt: skip

    def __str__(self) -> str:
        parts = []
        if self.wrong:
            least, median, greatest = self.lengths
            found = f"{self.wrong} of {self.n_checked} pixels have lengths {least:.3f}..{greatest:.3f}"
            parts.append(f"{found} and count as they are")
            if self.wrong > self.n_checked / 2:
                parts.append(
                    f"most of the block is off (median length {median:.3f}): check that its values are the "
                    "codes of v = sign(k) (k / 127.5)^2, in 64 bands"
                )
        if self.incomplete:
            parts.append(f"{self.incomplete} of {self.n_checked} pixels lack some of their bands and are left out")
        row, col = self.index
        return f"{self.tile}: block (row {row}, column {col}), {self.year}: {'; '.join(parts)}"


def describe_damage(damage: Sequence[BlockDamage]) -> str:
    """Return one line that says how many pixels of which blocks can't be unit vectors."""
    n_pixels = sum(block.wrong + block.incomplete for block in damage)
    listed = " | ".join(str(block) for block in damage[:_MOST_LISTED])
    more = f" | and {len(damage) - _MOST_LISTED} more blocks" if len(damage) > _MOST_LISTED else ""
    return f"{n_pixels} pixels in {len(damage)} blocks can't be unit vectors: {listed}{more}"


def reduce_checked(
    reduce: Callable[[Block, Suspects], Reduced], block: Block, fetch_again: Callable[[], Block]
) -> tuple[Reduced, DamagedPixels | None]:
    """Reduce a block, and where some of its pixels can't be unit vectors, read it again.

    A fault of the transfer doesn't happen twice: the block is fetched until a reading has no such pixel, or until two
    readings in a row agree, which means that the file has it so.

    Parameters
    ----------
    reduce : callable
        Reduces a reading of the block, given the suspect pixels of the reading before it.
    block : Block
        The first reading.
    fetch_again : callable
        Returns another reading, from the source itself.

    Returns
    -------
    reduced : Reduced
        What a reading without damaged pixels comes to, or one that was confirmed.
    damage : DamagedPixels or None
        Of a confirmed reading.

    Raises
    ------
    ReadError
        If each reading differs from the one before it.
    """
    reduced = reduce(block, NO_SUSPECTS)
    for _ in range(_MOST_READINGS):
        suspects = reduced.check.suspects() if reduced.check is not None else NO_SUSPECTS
        if not len(suspects):
            return reduced, None
        again = reduce(fetch_again(), suspects)
        if again.same_as(reduced):
            assert again.check is not None
            return again, again.check.damage()
        reduced = again
    ref = block.ref
    raise ReadError(
        f"{ref.tile}: block (row {ref.index[0]}, column {ref.index[1]}), all bands: damaged: each reading gives other "
        "bytes, with pixels that can't be unit vectors; check the connection or the disk, then try again",
        url=ref.tile,
        year=ref.year,
    )


def damage_error(ref: BlockRef, bands: Sequence[str], damage: DamagedPixels) -> ReadError:
    """Return the error for a block whose damage is confirmed, for those who don't want its values to count."""
    row, col = divmod(int(damage.positions[0]), ref.window.width)
    length = damage.lengths[0]
    found = "lacks some of its bands" if np.isnan(length) else f"has length {length:.3f}"
    return ReadError(
        f"{ref.tile}: block (row {ref.index[0]}, column {ref.index[1]}), band {bands[damage.band]} (most likely): "
        f"damaged: {len(damage.positions)} pixels can't be unit vectors: the first (row {row}, column {col}) {found}; "
        "a second reading gave the same, so the file holds them; on_damage='warn' lets them count",
        url=ref.tile,
        year=ref.year,
    )
