"""Reports the progress of long work: nothing, a tqdm bar, or calls of the user's function."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = bool | Callable[[int, int], object]
"""False: silent. True: a bar. A function: called with (units done, units in all)."""


@contextmanager
def report_progress(
    progress: Progress, total: int, *, unit: str, title: str, done: int = 0
) -> Iterator[Callable[[int], None]]:
    """Yield a function that is called with the number of units just finished; any thread may call it.

    Parameters
    ----------
    progress : bool or callable
        See `Progress`.
    total : int
        Units in all.
    unit, title : str
        Shown in the bar.
    done : int
        Units that were finished before.

    Examples
    --------
    >>> with report_progress(lambda done, total: print(done, "of", total), 3, unit="block", title="extract") as advance:
    ...     advance(1)
    ...     advance(2)
    1 of 3
    3 of 3
    """
    if not progress:
        yield lambda n: None
    elif callable(progress):
        lock = threading.Lock()

        def advance(n: int) -> None:
            nonlocal done
            with lock:
                done += n
                progress(done, total)

        yield advance
    else:
        from tqdm.auto import tqdm

        with tqdm(total=total, initial=done, unit=unit, desc=title) as bar:

            def update(n: int) -> None:
                bar.update(n)

            yield update
