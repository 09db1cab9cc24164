"""Decides when requests are sent to a server: how many at once, after which silence once more, and when it was down.

All requests of a process to one server share what is known of it, as TCP's congestion control does for one connection:

* The number of requests under way grows with each answer, and is halved when many fail or find no answer in time. It
  is cut to what can arrive in a few seconds when requests take longer, so that on a slow line none waits for long.
* A server is silent for too long after the mean and four mean deviations of the silences before (RFC 6298).
* Where nothing was heard of a server since a failed request was sent, it is down: one request after the other tries it,
  with growing waits between them, until one is answered or the caller's patience ends, for all that wait.
"""

from __future__ import annotations

import bisect
import itertools
import math
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from gee_polygons.network.http import FailedError
from gee_polygons.progress import show_notice

if TYPE_CHECKING:
    from gee_polygons.network.request import Network

_FIRST_CONCURRENT: Final = 32
_MOST_CONCURRENT: Final = 512
_LEAST_CONCURRENT: Final = 2  # one receives while the other waits for its answer
_SECONDS_UNDER_WAY: Final = 4.0  # longer requests share the line with too many others
_LEAST_SILENCE_S: Final = 1.0  # lost packets are sent again within this
_MOST_FAULTS: Final = 0.35  # share of the last requests; more of them mean that there are too many at once
_SMOOTHING: Final = 1 / 16
_EPISODE_S: Final = 60.0  # failures further apart, without a request in between, are two outages
_NOTICE_AFTER_S: Final = 2.0
_MOST_VERSIONS: Final = 10_000

_numbers = itertools.count()


@dataclass(eq=False)
class Turn:
    """One request's place among those to a host: its settings, and its failures since it last made progress."""

    network: Network
    stop: threading.Event | None = None
    number: int = field(default_factory=lambda: next(_numbers))
    begun: float = field(default_factory=time.monotonic)
    failures: int = 0
    failing_since: float = math.inf
    silences: int = 0
    sent: float = 0.0
    not_before: float = 0.0
    admitted: threading.Event = field(default_factory=threading.Event)
    verdict: FailedError | None = None

    def check(self) -> None:
        """Raise an error if nobody needs the answer any more."""
        if self.begun < _interrupted_at:
            raise FailedError("interrupted", 1)
        if self.stop is not None and self.stop.is_set():
            raise FailedError("no longer needed", 1)

    def progressed(self) -> None:
        """Forget failures: bytes have arrived."""
        self.failures, self.failing_since, self.silences = 0, math.inf, 0


class Host:
    """What is known of a server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Turn] = []  # the oldest first
        self._under_way = 0
        self._allowed, self._was_halved, self._faults = float(_FIRST_CONCURRENT), False, 0.0
        self._cut_at = -math.inf
        self._silence = math.nan  # mean, and mean deviation
        self._deviation = 0.0
        self.heard = -math.inf
        """When bytes arrived last."""
        self._down_since, self._tries = math.inf, 0
        self._probe: Turn | None = None
        self._failed = -math.inf
        self._until = 0.0  # nothing is sent before
        self._versions: dict[str, tuple[Any, bool]] = {}  # of files, and whether two answers agreed

    @property
    def _is_down(self) -> bool:
        return self._down_since < math.inf

    def begin(self, turn: Turn) -> None:
        """Wait until a request may be sent.

        Raises
        ------
        FailedError
            If the server is down, and patience ends meanwhile.
        """
        with self._lock:
            idle = not self._waiting and not self._under_way
            if self._is_down and idle and time.monotonic() - self._failed > _EPISODE_S:
                self._down_since, self._tries, self._until = math.inf, 0, 0.0
            turn.admitted.clear()
            bisect.insort(self._waiting, turn, key=lambda other: other.number)
            self._admit()
        try:
            while not turn.admitted.wait(self._pause_s(turn)):
                turn.check()
                with self._lock:
                    self._admit()
                    self._notify(turn)
            if turn.verdict is not None:
                raise turn.verdict
        except BaseException:
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                elif turn.verdict is None:
                    self._release(turn)
            raise

    def _pause_s(self, turn: Turn) -> float:
        """Return when a waiting request is to be looked at again; those that end let others begin anyway."""
        left = max(self._until, 0.0 if self._is_down else turn.not_before) - time.monotonic()
        return min(left + 0.001, 1.0) if left > 0 else 1.0

    def end(self, turn: Turn) -> None:
        """Count a request as no longer under way."""
        with self._lock:
            self._release(turn)

    def answered(self) -> None:
        """Note that the server answers, whatever it says."""
        with self._lock:
            self.heard = time.monotonic()
            if self._is_down:
                self._down_since, self._tries, self._until, self._probe = math.inf, 0, 0.0, None
                self._admit()
            if self.heard >= self._until:
                show_notice("")

    def is_other_version(self, url: str, version: Any, *, begins: bool) -> bool:
        """Whether a file is another one than at its last beginning, if the server doesn't label each answer anew."""
        with self._lock:
            known, sure = self._versions.get(url, (None, False))
            if sure and known != version and not begins:
                return True
            if len(self._versions) >= _MOST_VERSIONS:
                self._versions.clear()
            self._versions[url] = version, known == version
            return False

    def limit_s(self, turn: Turn) -> float:
        """Return how long the server may be silent before the request is sent again."""
        usual = self._silence + 4 * self._deviation
        if math.isnan(usual):
            return turn.network.timeout_s
        return min(turn.network.timeout_s, max(_LEAST_SILENCE_S, usual) * 2.0 ** max(0, turn.silences - 1))

    def succeeded(self, turn: Turn, longest_silence_s: float) -> None:
        """Learn from a request that was answered in full."""
        with self._lock:
            now = time.monotonic()
            self._faults -= _SMOOTHING * self._faults
            took = now - turn.sent - longest_silence_s  # a server that takes long to answer isn't a slow line
            if took > _SECONDS_UNDER_WAY:
                if turn.sent > self._cut_at:  # not for those that were sent before
                    fitting = self._under_way * _SECONDS_UNDER_WAY / took
                    self._allowed = max(min(self._allowed, fitting), float(_LEAST_CONCURRENT))
                    self._cut_at = now
            elif self._under_way >= int(self._allowed):
                step = min(1.0, 8 / self._allowed) if self._was_halved else 1.0
                self._allowed = min(self._allowed + step, _MOST_CONCURRENT)
            if math.isnan(self._silence):
                self._silence, self._deviation = longest_silence_s, longest_silence_s / 2
            else:
                difference = longest_silence_s - self._silence
                self._silence += difference / 8
                self._deviation += (abs(difference) - self._deviation) / 4

    def failed(self, turn: Turn, failure: FailedError) -> None:
        """Learn from a request that failed for a reason that may pass; set when it is tried again.

        Raises
        ------
        FailedError
            If it isn't tried again.
        """
        network = turn.network
        with self._lock:
            now = time.monotonic()
            turn.failures += 1
            turn.silences += failure.silent
            turn.failing_since = min(turn.failing_since, now)
            self._failed = now
            self._faults += _SMOOTHING * (1 - self._faults)
            if self._faults > _MOST_FAULTS:
                self._halve()
                if failure.silent:
                    self._silence *= 2
            if self.heard < turn.sent:
                if not self._is_down:
                    self._down_since = now
                    self._halve()
                if turn.sent >= self._until:  # and not one of those that were under way when it went down
                    self._tries += 1
                    self._until = now + min(_wait_s(network, self._tries), self._left_s(turn, now))
            turn.not_before = now + min(_wait_s(network, turn.failures), self._left_s(turn, now))
            if failure.retry_after_s:  # as long as is asked for, but one last attempt is made in time
                self._until = max(self._until, now + min(failure.retry_after_s, self._left_s(turn, now)))
            hopeless = self._is_hopeless(turn, now)
            if hopeless and self._is_down:
                for other in [other for other in self._waiting if self._is_hopeless(other, now)]:
                    other.verdict = failure
                    self._waiting.remove(other)
                    other.admitted.set()
        if hopeless:
            raise failure

    def _is_hopeless(self, turn: Turn, now: float) -> bool:
        tries = max(turn.failures, self._tries if self._is_down else 0)
        return self._left_s(turn, now) <= 0 or (turn.network.attempts is not None and tries >= turn.network.attempts)

    def _left_s(self, turn: Turn, now: float) -> float:
        """Return how much longer a request is tried again; the last attempt is made at the end."""
        return max(0.0, min(turn.failing_since, self._down_since) + turn.network.give_up_after_s - now)

    def _halve(self) -> None:
        self._allowed, self._was_halved = max(self._allowed / 2, float(_LEAST_CONCURRENT)), True
        self._faults = 0.0

    def _release(self, turn: Turn) -> None:
        self._under_way -= 1
        if self._probe is turn:
            self._probe = None
        self._admit()

    def _admit(self) -> None:
        """Let requests be sent, as many as may be under way."""
        now = time.monotonic()
        while self._waiting and now >= self._until and not (self._is_down and self._probe):
            ready = (turn for turn in self._waiting if self._is_down or turn.not_before <= now)
            turn = min(ready, key=lambda turn: turn.failures) if self._is_down else next(ready, None)
            if turn is None or self._under_way >= int(self._allowed):
                return
            self._waiting.remove(turn)
            self._under_way += 1
            self._probe = turn if self._is_down else None
            turn.sent = now
            turn.admitted.set()

    def _notify(self, turn: Turn) -> None:
        """Show how long a server has been waited for."""
        now = time.monotonic()
        since = self._down_since if self._is_down else self._failed
        if (self._is_down or now < self._until) and self._waiting[:1] == [turn] and now - since > _NOTICE_AFTER_S:
            show_notice(f"waiting for the server, {now - since:.0f} s")


def _wait_s(network: Network, failures: int) -> float:
    longest = min(network.longest_wait_s, network.first_wait_s * 2.0 ** min(failures - 1, 60))
    return longest * random.uniform(0.5, 1.0)


_hosts: dict[str, Host] = {}
_hosts_lock = threading.Lock()
_interrupted_at = -math.inf


def host_of(url: str) -> Host:
    """Return what is known of a URL's server."""
    with _hosts_lock:
        return _hosts.setdefault(urlsplit(url).netloc.rpartition("@")[2], Host())


@contextmanager
def interruptible() -> Iterator[None]:
    """End the requests of this process's other threads when Ctrl-C is pressed in the block."""
    global _interrupted_at
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        _interrupted_at = time.monotonic()
        raise


def _forget() -> None:
    """Start afresh in a forked process, which lacks the threads that would go on."""
    global _hosts, _hosts_lock
    _hosts, _hosts_lock = {}, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
