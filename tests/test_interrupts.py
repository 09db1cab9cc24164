"""Ctrl-C and SIGTERM stop the work, wherever they arrive."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from gee_polygons.progress import heeding_interrupts

LOST = """
import os, signal, sys, time
from gee_polygons.progress import heeding_interrupts

class Destructor:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(0.05)

began = time.monotonic()
try:
    with heeding_interrupts(signal.SIGTERM):
        Destructor()  # Python ignores what is raised in it
        print("lost", flush=True)
        time.sleep(30)
except KeyboardInterrupt:
    print("stopped" if time.monotonic() - began < 10 else "late")
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_that_python_loses_is_raised_again(name):
    """Of 250 runs of `extract` with Ctrl-C at a random moment, 2 went on: numba was loading compiled code."""
    done = subprocess.run([sys.executable, "-c", LOST, name], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:3] == ["lost", "stopped", "True True"]


def test_an_interrupt_in_compiled_code_is_an_interrupt():
    """numba's dispatcher raised a SystemError: "returned a result with an exception set"."""
    with pytest.raises(KeyboardInterrupt), heeding_interrupts():
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()
    with pytest.raises(SystemError), heeding_interrupts():
        raise SystemError("something else")


def test_the_callers_handlers_stay():
    caught = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        with heeding_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught == [signal.SIGINT]
    failed = []

    def elsewhere():  # where no handler can be set
        try:
            with heeding_interrupts(signal.SIGTERM):
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not failed
