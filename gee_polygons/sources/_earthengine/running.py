"""Requests in parallel: what is known isn't asked, what fails is halved, what is found is kept at once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from gee_polygons.sources._earthengine.batches import Batch, SiteShapes, make_batches
from gee_polygons.sources._earthengine.cache import NoCache
from gee_polygons.sources._earthengine.recipes import Recipe
from gee_polygons.sources._earthengine.session import service_identity
from gee_polygons.sources._earthengine.transport import Refusal, RequestFailedError, Service, payload

__all__ = ["Answers", "Trouble", "ask", "known_and_missing"]

log = logging.getLogger(__name__)

Pair = tuple[int, str]
Progress = bool | Callable[[int, int], object]

HOPELESS_AFTER: Final = 12  # requests refused with one message and none answered: it isn't a site
GONE_AFTER: Final = 3  # requests given up after all attempts, and none answered


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
    shapes: SiteShapes, recipe: Recipe, wanted: Sequence[Pair], cache: NoCache
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
    cache: NoCache,
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
    cache : NoCache
        What is known already; every answer goes into it as it comes.
    progress : bool or callable
        A bar, or a function called with (site-periods done, in all).

    Returns
    -------
    Answers
    """
    known, missing, keys = known_and_missing(shapes, recipe, wanted, cache)
    answers = Answers(found=known)
    batches = make_batches(shapes, recipe, missing)
    with _reporter(progress, len(keys), len(known)) as advance:
        run = _Run(service, shapes, recipe, cache, keys, answers, advance)
        run.all(batches)
    return answers


@dataclass
class _Run:
    """One call of `ask` under way. Only the calling thread changes it."""

    service: Service
    shapes: SiteShapes
    recipe: Recipe
    cache: NoCache
    keys: dict[Pair, bytes]
    answers: Answers
    advance: Callable[[int], None]
    answered: int = 0
    refusals: Counter[str] = field(default_factory=Counter)

    def all(self, batches: Sequence[Batch]) -> None:
        """Work through batches and what they are halved into."""
        with ThreadPoolExecutor(self.service.max_concurrent, thread_name_prefix="earthengine") as pool:
            waiting: dict[Future[dict[Pair, list[Any]] | Refusal], Batch] = {}
            try:
                waiting.update((pool.submit(self._request, batch), batch) for batch in batches)
                while waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        batch, outcome = waiting.pop(future), future.result()
                        hopeless = isinstance(outcome, Refusal) and self._hopeless(outcome)
                        for again in self._settle(batch, outcome, hopeless):
                            waiting[pool.submit(self._request, again)] = again
                        if hopeless and isinstance(outcome, Refusal):
                            self._give_up(waiting, outcome)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _request(self, batch: Batch) -> dict[Pair, list[Any]] | Refusal:
        body = payload(batch.expression(self.shapes, self.recipe))
        try:
            features = self.service.features(body)
        except RequestFailedError as error:
            return error.refusal
        found = batch.read(features, self.recipe)
        nothing = [self.keys[pair] for pair, values in found.items() if self.recipe.is_nothing(values)]
        self.cache.put({self.keys[pair]: values for pair, values in found.items()}, nothing)
        return found

    def _settle(self, batch: Batch, outcome: dict[Pair, list[Any]] | Refusal, hopeless: bool) -> list[Batch]:
        """Take over what came, and return what has to be asked again, in smaller parts."""
        if not isinstance(outcome, Refusal):
            self.answered += 1
            self.answers.found.update(outcome)
            if silent := tuple(pair for pair in batch.pairs if pair not in outcome):
                self.answers.troubles.append(Trouble(silent, "the answer has no feature for it"))
            self.advance(len(batch.pairs))
            return []
        again = [] if hopeless else batch.halves()
        if not again and not hopeless and outcome.kind == "too_big":
            again = batch.gentler()
        if again:
            log.info("%s: %d site-periods are asked again in smaller parts", outcome.message, len(batch.pairs))
        else:
            self.answers.troubles.append(Trouble(tuple(batch.pairs), outcome.message))
            self.advance(len(batch.pairs))
        return again

    def _hopeless(self, refusal: Refusal) -> bool:
        """Whether a refusal concerns everything: then halving would only repeat it thousands of times."""
        self.refusals[refusal.message] += 1
        if refusal.kind == "fatal":
            return True
        if self.answered or refusal.kind == "too_big":
            return False
        limit = GONE_AFTER if refusal.kind == "passing" else HOPELESS_AFTER
        return self.refusals[refusal.message] >= limit

    def _give_up(self, waiting: dict[Future[Any], Batch], refusal: Refusal) -> None:
        for future in [f for f in waiting if f.cancel()]:
            pairs = waiting.pop(future).pairs
            self.answers.troubles.append(Trouble(tuple(pairs), refusal.message))
            self.advance(len(pairs))


@contextmanager
def _reporter(progress: Progress, total: int, known: int) -> Iterator[Callable[[int], None]]:
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
