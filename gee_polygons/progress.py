"""Reports the progress of long work (nothing, a tqdm bar, or calls of the user's function), and lets Ctrl-C stop it."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeAlias

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

            with _shown(bar):
                yield update


_bars: list[Any] = []
_TICK_S: Final = 1.0


@contextmanager
def report_stage(progress: Progress, title: str) -> Iterator[None]:
    """Show the title and the seconds of work whose length isn't known, such as planning, until it is done.

    Parameters
    ----------
    progress : bool or callable
        See `Progress`; a function isn't called, because nothing is counted.
    title : str
        What is being done.
    """
    if progress is not True:
        yield
        return
    from tqdm.auto import tqdm

    with tqdm(desc=title, bar_format="{desc}: {elapsed}{postfix}", leave=False) as bar, _shown(bar):
        yield


@contextmanager
def _shown(bar: Any) -> Iterator[None]:
    """Let a bar show notices, and draw it each second, so that its time goes on while nothing is finished."""
    done = threading.Event()

    def tick() -> None:
        while not done.wait(_TICK_S):
            bar.refresh()

    _bars.append(bar)
    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield
    finally:
        done.set()
        ticking.join()
        _bars.remove(bar)


def show_notice(text: str) -> None:
    """Show a text beside the bars of this process, such as what they wait for; an empty one removes it."""
    for bar in list(_bars):
        if bar.postfix != text and (bar.postfix or text):
            bar.set_postfix_str(text)


_INSIST_EVERY_S: Final = 1.0


@contextmanager
def heeding_interrupts(*also: signal.Signals) -> Iterator[None]:
    """Raise `KeyboardInterrupt` for Ctrl-C, and again each second until the block has been left.

    Once isn't enough: Python ignores exceptions in destructors and in callbacks of C code, such as the one by which
    numba loads what it has compiled, and compiled code may turn them into a `SystemError` or a `TypeError`.

    Parameters
    ----------
    *also : Signals
        Other signals that stop the block, such as ``SIGTERM``. A handler of the caller's own for Ctrl-C stays.
    """
    left = threading.Event()
    started: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not started:
            started.append(number)
            _thread.start_new_thread(insist, (number,))  # `threading` takes locks, which this thread may hold
        raise KeyboardInterrupt

    def insist(number: int) -> None:
        while not left.wait(_INSIST_EVERY_S):
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(main.ident or 0, number)  # to this thread, so that what it waits for ends
            else:
                signal.raise_signal(number)

    before: dict[int, Any] = {}
    main = threading.main_thread()
    if threading.current_thread() is main:  # no other thread gets signals
        own = [signal.SIGINT] if signal.getsignal(signal.SIGINT) is signal.default_int_handler else []
        before = {number: signal.signal(number, interrupt) for number in (*own, *also)}
    try:
        yield
    except Exception as error:
        if started or isinstance(error.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        left.set()
        for number, handler in before.items():
            signal.signal(number, handler)
