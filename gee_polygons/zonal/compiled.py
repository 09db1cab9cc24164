"""Compiles functions with numba, and keeps what was compiled on disk where that is possible."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import numba

from gee_polygons.progress import show_notice

_COMPILING: Final = "compiling once, about 10 s"


def compiled(function: Any) -> Any:
    """Compile a function at its first call, without Python's global lock.

    Without a folder that can be written (a read-only installation and no home), with a full disk or a damaged cache, a
    function is compiled anew in each process; numba raises an error there.
    """
    try:
        dispatcher: Any = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # "no locator available": no folder to write to
        return numba.njit(nogil=True)(function)
    cache = dispatcher._cache
    load, save = cache.load_overload, cache.save_overload

    def load_if_possible(*arguments: Any) -> Any:
        try:
            found = load(*arguments)
        except Exception:  # of a damaged file, any
            with suppress(OSError):
                cache.flush()
            found = None
        if found is None:
            show_notice(_COMPILING)
        return found

    def save_if_possible(*arguments: Any) -> None:
        show_notice("")
        try:
            save(*arguments)
        except Exception:
            cache.disable()

    cache.load_overload, cache.save_overload = load_if_possible, save_if_possible
    return dispatcher
