"""Runs the requests of an extraction in parallel, from the cache where it can, splitting those that fail."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gee_polygons.progress import Progress, report_progress
from gee_polygons.sources.earthengine.batches import MAX_TILE_SCALE, Batch, SiteShapes, make_batches
from gee_polygons.sources.earthengine.cache import Cache
from gee_polygons.sources.earthengine.reductions import Reduction
from gee_polygons.sources.earthengine.session import service_identity
from gee_polygons.sources.earthengine.transport import Refusal, RequestFailedError, Service

log = logging.getLogger(__name__)

Pair = tuple[int, str]  # position of a site, and a period
Values = list[Any]
TITLE: Final = "Earth Engine"  # of progress bars

# failures of one kind in a row, after which a few single sites are tried: perhaps every request will fail
PROBE_AFTER: Final = {"transient": 3, "fatal": 3, "other": 12, "too_big": 12, "too_long": 12}
PROBES: Final = 4


@dataclass(frozen=True)
class FailedPairs:
    """Site-periods without values, and why."""

    pairs: tuple[Pair, ...]
    message: str


@dataclass
class Answers:
    """Values by site and period, and the site-periods that failed."""

    found: dict[Pair, Values] = field(default_factory=dict)
    failed: list[FailedPairs] = field(default_factory=list)


def known_and_missing(
    shapes: SiteShapes, reduction: Reduction, wanted: Sequence[Pair], cache: Cache
) -> tuple[dict[Pair, Values], dict[int, list[str]], dict[Pair, bytes]]:
    """Return values from the cache, the periods that each site lacks there, and the cache keys of all pairs."""
    service = service_identity()
    keys = {pair: shapes.key(reduction, *pair, service) for pair in wanted}
    cached = cache.get(list(keys.values()))
    known = {pair: cached[key] for pair, key in keys.items() if key in cached}
    missing: dict[int, list[str]] = {}
    for site, period in keys:
        if (site, period) not in known:
            missing.setdefault(site, []).append(period)
    return known, missing, keys


def compute(
    service: Service, shapes: SiteShapes, reduction: Reduction, wanted: Sequence[Pair], *, cache: Cache,
    progress: Progress = False,
) -> Answers:  # fmt: skip
    """Return the values of site-periods, from the cache or from Earth Engine.

    Parameters
    ----------
    service : Service
        Sends the requests.
    shapes : SiteShapes
        All sites.
    reduction : Reduction
        The values to compute.
    wanted : sequence of (site, period)
        Site-periods to compute them for.
    cache : Cache
        Read first; every answer is written to it as it comes.
    progress : bool or callable
        A bar, or a function called with (site-periods done, in all).
    """
    if not reduction.text:
        cache = Cache(None)
    known, missing, keys = known_and_missing(shapes, reduction, wanted, cache)
    answers = Answers(found=known)
    with report_progress(progress, len(keys), unit="site-period", title=TITLE, done=len(known)) as advance:
        _Run(service, shapes, reduction, cache, keys, answers, advance).all(make_batches(shapes, reduction, missing))
    return answers


@dataclass
class _Run:
    """The state of one call of `compute`; only the calling thread changes it."""

    service: Service
    shapes: SiteShapes
    reduction: Reduction
    cache: Cache
    keys: dict[Pair, bytes]
    answers: Answers
    advance: Callable[[int], None]
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)  # by cause, since the last answer
    common_cause: tuple[str, str] | None = None  # that every request fails for

    def all(self, batches: Sequence[Batch]) -> None:
        """Run batches and the parts that they are split into."""
        pool = ThreadPoolExecutor(self.service.max_concurrent, thread_name_prefix="earthengine")
        queue = deque(batches)
        running: dict[Future[dict[Pair, Values] | Refusal], Batch] = {}
        try:
            while queue or running:
                while queue and len(running) < self.service.max_concurrent:
                    batch = queue.popleft()
                    running[pool.submit(self._request, batch)] = batch
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    batch, outcome = running.pop(future), future.result()
                    if not isinstance(outcome, Refusal):
                        self._accept(batch, outcome)
                        continue
                    parts = self._split(batch, outcome)
                    if self._fails_for_all(outcome, bool(parts), [batch, *running.values(), *queue]):
                        self._give_up([batch, *queue], outcome)
                        queue.clear()
                    elif parts:
                        log.info("%s: %d site-periods are sent again in parts", outcome.message, len(batch.pairs))
                        # before the others: so it shows soon whether the size was the cause
                        queue.extendleft(reversed(parts))
                    else:
                        self._give_up([batch], outcome)
        finally:
            # idle by now, unless something was raised: Ctrl-C doesn't wait for answers that nobody needs
            pool.shutdown(wait=False, cancel_futures=True)

    def _request(self, batch: Batch) -> dict[Pair, Values] | Refusal:
        try:
            features = self.service.features(batch.body(self.shapes, self.reduction))
        except RequestFailedError as error:
            return error.refusal
        found = batch.read(features, self.reduction)
        expiring = [self.keys[pair] for pair, values in found.items() if not self.reduction.is_final(pair[1], values)]
        self.cache.put({self.keys[pair]: values for pair, values in found.items()}, expiring)
        return found

    def _accept(self, batch: Batch, found: dict[Pair, Values]) -> None:
        self.failures.clear()
        self.answers.found.update(found)
        if absent := tuple(pair for pair in batch.pairs if pair not in found):
            self.answers.failed.append(FailedPairs(absent, "the answer has no feature for it"))
        self.advance(len(batch.pairs))

    def _give_up(self, batches: Sequence[Batch], refusal: Refusal) -> None:
        for batch in batches:
            self.answers.failed.append(FailedPairs(tuple(batch.pairs), refusal.message))
            self.advance(len(batch.pairs))

    @staticmethod
    def _split(batch: Batch, refusal: Refusal) -> list[Batch]:
        """Return what to send instead of a batch that failed; nothing if no part can do better."""
        if refusal.kind == "too_long" and len(batch.sites) == 1:
            return []  # fewer periods make the outline no shorter
        return batch.halves() or (batch.with_smaller_tiles() if refusal.kind == "too_big" else [])

    def _fails_for_all(self, refusal: Refusal, divisible: bool, left: Sequence[Batch]) -> bool:
        """Whether every request will fail for this reason: splitting would repeat it thousands of times."""
        cause = _cause(refusal)
        if refusal.status == 401 or cause == self.common_cause:
            return True
        if refusal.kind in ("too_big", "too_long") and divisible:
            return False
        self.failures[cause] += 1
        return self.failures[cause] >= PROBE_AFTER[refusal.kind] and self._probes_fail(refusal, left)

    def _probes_fail(self, refusal: Refusal, left: Sequence[Batch]) -> bool:
        """Request a few single site-periods, far apart; return whether all fail for the same cause."""
        step = max(1, len(left) // PROBES)
        for batch in left[::step][:PROBES]:
            tile_scale = MAX_TILE_SCALE if refusal.kind == "too_big" else batch.tile_scale
            single = replace(batch, sites=batch.sites[-1:], periods=batch.periods[-1:], tile_scale=tile_scale)
            outcome = self._request(single)
            if not isinstance(outcome, Refusal) or _cause(outcome) != _cause(refusal):
                self.failures.clear()
                return False
        self.common_cause = _cause(refusal)
        return True


def _cause(refusal: Refusal) -> tuple[str, str]:
    """Return a key that failures for the same cause share; messages of transient ones may name a connection."""
    return refusal.kind, "" if refusal.kind == "transient" else refusal.message
