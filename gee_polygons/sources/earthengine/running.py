"""Requests in parallel: what is known isn't asked, what fails is halved, what is found is kept at once."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gee_polygons.sources.earthengine.batches import MOST_TILE_SCALE, Batch, SiteShapes, make_batches
from gee_polygons.sources.earthengine.cache import Cache
from gee_polygons.sources.earthengine.recipes import Recipe
from gee_polygons.sources.earthengine.session import service_identity
from gee_polygons.sources.earthengine.transport import Refusal, RequestFailedError, Service

log = logging.getLogger(__name__)

Pair = tuple[int, str]
Progress = bool | Callable[[int, int], object]

# refusals of one kind since the last answer, after which a few sites are asked alone: perhaps it isn't the sites
DOUBTFUL_AFTER: Final = {"passing": 3, "fatal": 3, "other": 12, "too_big": 12, "too_long": 12}
ASKED_ALONE: Final = 4


@dataclass(frozen=True)
class Trouble:
    """Site-periods that couldn't be had, and why."""

    pairs: tuple[Pair, ...]
    message: str


@dataclass
class Answers:
    """Values by site and period, and what is missing from them."""

    found: dict[Pair, list[Any]] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)


def known_and_missing(
    shapes: SiteShapes, recipe: Recipe, wanted: Sequence[Pair], cache: Cache
) -> tuple[dict[Pair, list[Any]], dict[int, list[str]], dict[Pair, bytes]]:
    """Return what the cache has, what has to be asked for, and the keys of all pairs."""
    service = service_identity()
    keys = {pair: shapes.key(recipe, *pair, service) for pair in wanted}
    held = cache.get(list(keys.values()))
    known: dict[Pair, list[Any]] = {}
    missing: dict[int, list[str]] = {}
    for pair, key in keys.items():
        if key in held:
            known[pair] = held[key]
        else:
            missing.setdefault(pair[0], []).append(pair[1])
    return known, missing, keys


def ask(
    service: Service,
    shapes: SiteShapes,
    recipe: Recipe,
    wanted: Sequence[Pair],
    *,
    cache: Cache,
    progress: Progress = False,
) -> Answers:
    """Get the values of site-periods, from the cache or from Earth Engine.

    Parameters
    ----------
    service : Service
        Who is asked.
    shapes : SiteShapes
        All sites.
    recipe : Recipe
        What is asked.
    wanted : sequence of (site, period)
        Of which.
    cache : Cache
        What is known already; every answer goes into it as it comes.
    progress : bool or callable
        A bar, or a function called with (site-periods done, in all).

    Returns
    -------
    Answers
    """
    if not recipe.text:
        cache = Cache(None)
    known, missing, keys = known_and_missing(shapes, recipe, wanted, cache)
    answers = Answers(found=known)
    batches = make_batches(shapes, recipe, missing)
    with reporter(progress, len(keys), len(known)) as advance:
        run = _Run(service, shapes, recipe, cache, keys, answers, advance)
        run.all(batches)
    return answers


@dataclass
class _Run:
    """One call of `ask` under way. Only the calling thread changes it."""

    service: Service
    shapes: SiteShapes
    recipe: Recipe
    cache: Cache
    keys: dict[Pair, bytes]
    answers: Answers
    advance: Callable[[int], None]
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)  # since the last answer
    verdict: tuple[str, str] | None = None  # what everything is refused with

    def all(self, batches: Sequence[Batch]) -> None:
        """Work through batches and what they are halved into."""
        pool = ThreadPoolExecutor(self.service.max_concurrent, thread_name_prefix="earthengine")
        queue = deque(batches)
        waiting: dict[Future[dict[Pair, list[Any]] | Refusal], Batch] = {}
        try:
            while queue or waiting:
                while queue and len(waiting) < self.service.max_concurrent:
                    batch = queue.popleft()
                    waiting[pool.submit(self._request, batch)] = batch
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    batch, outcome = waiting.pop(future), future.result()
                    smaller: list[Batch] = []
                    if isinstance(outcome, Refusal):
                        smaller = self._smaller(batch, outcome)
                        if self._hopeless(outcome, bool(smaller), [batch, *waiting.values(), *queue]):
                            smaller = []
                            self._give_up(queue, outcome)
                    # small ones first: so it shows soon whether it is the size that is refused
                    queue.extendleft(reversed(self._settle(batch, outcome, smaller)))
        finally:
            # done by now, unless something was raised: Ctrl-C doesn't wait for answers that nobody wants
            pool.shutdown(wait=False, cancel_futures=True)

    def _request(self, batch: Batch) -> dict[Pair, list[Any]] | Refusal:
        try:
            features = self.service.features(batch.body(self.shapes, self.recipe))
        except RequestFailedError as error:
            return error.refusal
        found = batch.read(features, self.recipe)
        passing = [self.keys[pair] for pair, values in found.items() if not self.recipe.is_final(pair[1], values)]
        self.cache.put({self.keys[pair]: values for pair, values in found.items()}, passing)
        return found

    def _settle(self, batch: Batch, outcome: dict[Pair, list[Any]] | Refusal, smaller: list[Batch]) -> list[Batch]:
        """Take over what came, and return what is to be asked again."""
        if not isinstance(outcome, Refusal):
            self.refusals.clear()
            self.answers.found.update(outcome)
            if silent := tuple(pair for pair in batch.pairs if pair not in outcome):
                self.answers.troubles.append(Trouble(silent, "the answer has no feature for it"))
            self.advance(len(batch.pairs))
            return []
        if smaller:
            log.info("%s: %d site-periods are asked again in smaller parts", outcome.message, len(batch.pairs))
        else:
            self.answers.troubles.append(Trouble(tuple(batch.pairs), outcome.message))
            self.advance(len(batch.pairs))
        return smaller

    @staticmethod
    def _smaller(batch: Batch, refusal: Refusal) -> list[Batch]:
        if refusal.kind == "too_long" and len(batch.sites) == 1:
            return []  # fewer periods make no shorter outline
        return batch.halves() or (batch.gentler() if refusal.kind == "too_big" else [])

    def _hopeless(self, refusal: Refusal, divisible: bool, left: Sequence[Batch]) -> bool:
        """Whether a refusal concerns everything: then halving would only repeat it thousands of times."""
        key = _alike(refusal)
        if refusal.status == 401 or key == self.verdict:
            return True
        if refusal.kind in ("too_big", "too_long") and divisible:
            return False
        self.refusals[key] += 1
        return self.refusals[key] >= DOUBTFUL_AFTER[refusal.kind] and self._all_alike(refusal, left)

    def _all_alike(self, refusal: Refusal, left: Sequence[Batch]) -> bool:
        """Ask a few sites alone, far from one another: whether all are refused alike."""
        step = max(1, len(left) // ASKED_ALONE)
        for batch in left[::step][:ASKED_ALONE]:
            gentle = MOST_TILE_SCALE if refusal.kind == "too_big" else batch.tile_scale
            alone = replace(batch, sites=batch.sites[-1:], periods=batch.periods[-1:], tile_scale=gentle)
            outcome = self._request(alone)
            if not isinstance(outcome, Refusal) or _alike(outcome) != _alike(refusal):
                self.refusals.clear()
                return False
        self.verdict = _alike(refusal)
        return True

    def _give_up(self, queue: deque[Batch], refusal: Refusal) -> None:
        for batch in queue:
            self.answers.troubles.append(Trouble(tuple(batch.pairs), refusal.message))
            self.advance(len(batch.pairs))
        queue.clear()


def _alike(refusal: Refusal) -> tuple[str, str]:
    """Return what refusals have in common; those that pass may name another connection each time."""
    return refusal.kind, "" if refusal.kind == "passing" else refusal.message


@contextmanager
def reporter(progress: Progress, total: int, known: int) -> Iterator[Callable[[int], None]]:
    """Report finished site-periods: to nobody, to a bar, or to the caller's function."""
    done = known
    if callable(progress):

        def tell(n: int) -> None:
            nonlocal done
            done += n
            progress(done, total)

        yield tell
    elif progress:
        from tqdm.auto import tqdm

        with tqdm(total=total, initial=known, unit="site-period", desc="Earth Engine") as bar:

            def advance(n: int) -> None:
                bar.update(n)

            yield advance
    else:
        yield lambda n: None
