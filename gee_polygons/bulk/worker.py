"""The program of a worker process: reads numbers of chunks from its input, writes their receipts to its output."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import traceback


def main() -> None:
    """Do chunks until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, prints to standard error
    asked = sys.stdin.buffer
    folder, source = pickle.load(asked)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    from gee_polygons.bulk.work import do_chunk
    from gee_polygons.errors import GeePolygonsError

    while True:
        try:
            number = pickle.load(asked)
        except EOFError:
            return
        try:
            outcome: object = do_chunk(folder, number, source, 1)
        except Exception as error:
            outcome = error
            if not isinstance(error, GeePolygonsError):  # a bug: pickled, it would lose its traceback
                error.add_note(traceback.format_exc())
        try:
            answers.write(_pickled(outcome))
            answers.flush()
        except BrokenPipeError:
            os._exit(1)  # nobody listens any more


def _end_with_parent(parent: int) -> None:
    """End this process soon after the one that started it was killed: the next run must not meet its files."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _pickled(outcome: object) -> bytes:
    try:
        return pickle.dumps(outcome)
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(outcome).__name__}: {outcome}"))
