"""Estimates what an extraction costs from each source, and chooses the cheapest available one.

Estimates for archives need their index and the headers of the tiles concerned; for Earth Engine, the polygons alone.
No pixel is read. Seconds are an estimate for a stated bandwidth and latency, for comparing sources.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.collection.catalogue import AEF_ID, SAMPLE_ID, datasets
from gee_polygons.errors import GeePolygonsError, UsageError
from gee_polygons.network.places import hide_query, local_path
from gee_polygons.network.request import NETWORK, Network
from gee_polygons.reduction.extents import both_extents
from gee_polygons.reduction.plan import Plan, ReducingSource, Source
from gee_polygons.site.inputs import as_sites
from gee_polygons.sources.cog.source import CogSource
from gee_polygons.sources.earthengine.transport import DEFAULT_CONCURRENT
from gee_polygons.sources.opening import SOURCE_SETTING, network_by_settings, open_source

__all__ = ["Offer", "choose_source", "compare_sources", "price_source"]

PUBLISHED: Final = ("source-coop", "mosaic", "earthengine")
DEFAULT_MBIT_S: Final = 100.0
DEFAULT_LATENCY_S: Final = 0.05
# bytes of pixels that one core decodes and reduces in a second: measured, see benchmarks/RESULTS.md
DECODED_PER_CORE_S: Final = 0.5e9
# shortest time of a computing request: an assumption, Google states none
EARTH_ENGINE_S: Final = 1.0
_HEADER_BYTES: Final = 96 * 2**10

_CANNOT: Final = {
    "mosaic": (
        "its pixels are nearest-resampled to degrees, up to one pixel from the tiles', and codes are averaged where "
        "tiles overlap: numbers differ a little from the other sources'"
    ),
    "earthengine": "takes compute quota; edge pixels are weighted in steps of 1/255 (means only, else exact)",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """Estimated cost of one source for given sites and years.

    Parameters
    ----------
    source : str
        Value for the argument ``source=``.
    available : bool
        Whether it can be read now.
    reason : str
        Why it isn't available, in one line; else empty.
    site_years : int
        Number of site-years for which it has tiles; for Earth Engine, of those within its years.
    asked : int
        Sites times years.
    blocks : int
        Blocks to decode, each once.
    requests, bytes : int
        Requests to send and bytes to fetch, tile headers included; for a local source, reads from disk.
    seconds : float
        Estimated duration: transfer at the stated bandwidth and latency, and computing.
    transfer_s : float
        The part of it for requests and bytes; 0 for a local source.
    notes : tuple of str
        Limitations, one line each.
    """

    source: str
    available: bool = True
    reason: str = ""
    site_years: int = 0
    asked: int = 0
    blocks: int = 0
    requests: int = 0
    bytes: int = 0
    seconds: float = float("inf")
    transfer_s: float = 0.0
    notes: tuple[str, ...] = ()
    opened: Source | None = None
    """The source itself, which keeps the headers that planning has read."""


def compare_sources(
    sites: Any,
    years: Sequence[int],
    *,
    sources: Sequence[Any] | str = "all",
    local: Sequence[Any] = (),
    bandwidth_mbit_s: float = DEFAULT_MBIT_S,
    latency_s: float = DEFAULT_LATENCY_S,
) -> list[Offer]:
    """Estimate the cost of each source for given sites and years.

    Parameters
    ----------
    sites : SiteCollection, Site or GeoDataFrame
        Polygons.
    years : sequence of int
        Years.
    sources : sequence of sources, or "all"
        As `open_source` takes them. ``"all"``: the open archive, the mosaic, Earth Engine, the setting
        ``GEE_POLYGONS_SOURCE`` if it is a path, and registered datasets of embeddings.
    local : sequence of paths
        Additional sources, such as the folder of a download.
    bandwidth_mbit_s, latency_s : float
        Bandwidth of your connection in megabits per second, and seconds from a request to its answer.

    Returns
    -------
    list of Offer
        The cheapest first, then those that lack some sites or years, then those that are not available. A source that
        can't be read raises no error: its `reason` states why.

    Raises
    ------
    UsageError
        For an impossible bandwidth or latency, or if there is no source.

    Examples
    --------
    >>> from gee_polygons.sources.sample import sample_sites
    >>> offer, *_ = compare_sources(sample_sites()[:2], [2023, 2024], sources=["sample"])
    >>> offer.source, offer.blocks, offer.requests
    ('sample', 8, 512)
    """
    request = _Request(as_sites(sites).polygons, tuple(sorted(set(years))), bandwidth_mbit_s, latency_s)
    return ranked([request.offer(spec) for spec in _candidates(sources, local)])


def price_source(
    sites: Any,
    years: Sequence[int],
    source: Any = None,
    *,
    bandwidth_mbit_s: float = DEFAULT_MBIT_S,
    latency_s: float = DEFAULT_LATENCY_S,
) -> Offer:
    """Estimate the cost of one source, as `compare_sources`; a source that can't be read raises its error."""
    opened = open_source(source)
    return _Request(as_sites(sites).polygons, tuple(sorted(set(years))), bandwidth_mbit_s, latency_s).price(opened)


def choose_source(sites: Any, years: Sequence[int]) -> Offer:
    """Return the offer that ``source="auto"`` takes: the fastest of those with the most sites and years.

    Local sources are considered first; if one has everything, no request is made to others.

    Raises
    ------
    UsageError
        If no source is available.
    """
    request = _Request(as_sites(sites).polygons, tuple(sorted(set(years))))
    offers: list[Offer] = []
    for spec in sorted(_candidates("all", ()), key=_is_far):  # stable: nearest first
        offers.append(request.offer(spec))
        last = offers[-1]
        if not _is_far(spec) and last.available and last.site_years == last.asked:
            break
    best = ranked(offers)[0]
    if not best.available:
        raise UsageError("no source is available: " + "; ".join(f"{offer.source}: {offer.reason}" for offer in offers))
    if isinstance(best.opened, CogSource) and best.opened.network == _impatient_network():
        best.opened.network = network_by_settings()  # the usual time limits again
    log.info("source: %s, about %.1f s", best.source, best.seconds)
    for note in best.notes:
        log.warning("%s: %s", best.source, note)
    return best


def ranked(offers: Sequence[Offer]) -> list[Offer]:
    """Order offers: complete ones by time, then the incomplete, then the unavailable."""
    # Earth Engine's coverage isn't known before a request, so it doesn't define what complete means
    known = [offer.site_years for offer in offers if offer.available and offer.source != "earthengine"]
    most = max(known, default=0)
    return sorted(offers, key=lambda offer: (not offer.available, -min(offer.site_years, most), offer.seconds))


def _candidates(sources: Sequence[Any] | str, local: Sequence[Any]) -> list[Any]:
    """List the sources to consider, each once."""
    if sources in ("all", "auto"):
        setting = os.environ.get(SOURCE_SETTING, "")
        own = [entry for name, entry in datasets().items() if entry.embeddings and name not in (AEF_ID, SAMPLE_ID)]
        chosen: list[Any] = [*local, setting, *(entry.index for entry in own), *PUBLISHED]
        chosen = [spec for spec in chosen if spec not in ("", "all", "auto")]
    else:
        chosen = [*([sources] if isinstance(sources, str) else sources), *local]
    names = [spec if hasattr(spec, "plan") or hasattr(spec, "as_source") else os.fspath(spec) for spec in chosen]
    found: list[Any] = [spec for i, spec in enumerate(names) if not any(spec is o or spec == o for o in names[:i])]
    if not found:
        raise UsageError("no source was named; give some, or 'all'")
    return found


def _named(spec: Any) -> str:
    return hide_query(spec) if isinstance(spec, str) else str(getattr(spec, "archive", spec))


def _is_far(spec: Any) -> bool:
    if isinstance(spec, str):
        return spec in PUBLISHED or local_path(spec) is None
    return local_path(str(getattr(spec, "archive", ""))) is None


@dataclass(frozen=True)
class _Request:
    """Polygons and years, and the connection to estimate for."""

    polygons: NDArray[Any]
    years: tuple[int, ...]
    bandwidth_mbit_s: float = DEFAULT_MBIT_S
    latency_s: float = DEFAULT_LATENCY_S

    def __post_init__(self) -> None:
        if not self.bandwidth_mbit_s > 0 or not self.latency_s >= 0:
            raise UsageError(
                "bandwidth is above 0 Mbit/s and latency 0 s or more, found "
                f"{self.bandwidth_mbit_s} and {self.latency_s}"
            )

    def offer(self, spec: Any) -> Offer:
        """Estimate the cost of a source, or return why it isn't available."""
        try:
            return self.price(spec, _impatient_network())
        except GeePolygonsError as error:
            name = _named(spec)
            asked = len(self.polygons) * len(self.years)
            return Offer(source=name, available=False, asked=asked, reason=str(error).removeprefix(f"{name}: "))

    def price(self, spec: Any, network: Network | None = None) -> Offer:
        """Estimate the cost of a source."""
        opened = open_source(spec, network=network)
        offer = Offer(source=_named(spec), asked=len(self.polygons) * len(self.years), opened=opened)
        is_archive = not isinstance(opened, ReducingSource)
        offer = self._of_plan(offer, opened) if is_archive else self._of_service(offer, opened)
        lacking = sorted(set(self.years) - set(opened.years()))
        notes = [f"has no {', '.join(map(str, lacking))}"] if lacking else []
        if is_archive and offer.site_years < offer.asked:
            where = "" if offer.site_years else f": {both_extents(opened, self.polygons)}"
            notes.append(f"holds {offer.site_years:,} of {offer.asked:,} site-years whole{where}")
        own = getattr(opened, "caveats", None) or ([_CANNOT[opened.name]] if opened.name in _CANNOT else [])
        return replace(offer, notes=(*notes, *offer.notes, *own))

    def _of_plan(self, none: Offer, source: Any) -> Offer:
        plan = source.plan(self.polygons, self.years)
        served = _served(plan, source)
        if plan.failures:
            none = replace(
                none, notes=(f"{len(plan.failures)} of its tiles can't be opened: {plan.failures[0].message}",)
            )
        places = {ref.tile for job in plan.jobs for ref in job.reads}
        far = [place for place in places if local_path(place) is None]
        requests, n_bytes = plan.requests, plan.bytes
        if isinstance(source, CogSource) and far:  # neighbouring ranges are one request
            requests, n_bytes = source.cost_of(plan)
        headers = len(far) if isinstance(source, CogSource) and not source.index.has_headers else 0
        decoded = sum(ref.window.height * ref.window.width for job in plan.jobs for ref in job.reads) * N_BANDS
        working = decoded / (DECODED_PER_CORE_S * (os.cpu_count() or 1))
        transfer = self._seconds(requests, n_bytes, headers) if far else 0.0
        return replace(
            none, site_years=len(served), blocks=plan.blocks, requests=requests + headers,
            bytes=n_bytes + headers * _HEADER_BYTES,
            seconds=working + transfer, transfer_s=transfer,
        )  # fmt: skip

    def _of_service(self, none: Offer, source: Any) -> Offer:
        cost = source.cost(self.polygons, self.years)
        waves = -(-cost.requests // DEFAULT_CONCURRENT)
        computing = max(waves * EARTH_ENGINE_S, cost.eecu_hours * 3600 / DEFAULT_CONCURRENT)
        transfer = waves * self.latency_s + cost.bytes * 8e-6 / self.bandwidth_mbit_s
        years = set(source.years())
        hours = f"about {cost.eecu_hours:,.2f} EECU-hours" if cost.requests else "all of it is kept on this machine"
        return replace(
            none, site_years=len(self.polygons) * len(years & set(self.years)),
            requests=cost.requests, bytes=cost.bytes, seconds=computing + transfer, transfer_s=transfer,
            notes=(hours,),
        )  # fmt: skip

    def _seconds(self, requests: int, n_bytes: int, headers: int) -> float:
        """Estimate the duration: start-up latency, plus the larger of transfer time and request time."""
        if not requests:
            return 0.0
        waves = -(-requests // NETWORK.max_concurrent) + -(-headers // NETWORK.max_concurrent)
        return 2 * self.latency_s + max(
            waves * self.latency_s, (n_bytes + headers * _HEADER_BYTES) * 8e-6 / self.bandwidth_mbit_s
        )


def _impatient_network() -> Network:
    """Return network settings with short time limits, because other sources can be used instead."""
    return replace(network_by_settings(), attempts=3, timeout_s=20.0, give_up_after_s=20.0)


def _served(plan: Plan, source: Any) -> set[tuple[int, int]]:
    """Return the (polygon, year) pairs for which the source has at least one block and lacks none."""
    holds = getattr(source, "holds", None)
    found: set[tuple[int, int]] = set()
    lacking: set[tuple[int, int]] = set()
    for job in plan.jobs:
        for ref in job.reads:
            pieces = [plan.pieces[i] for i in job.pieces]
            pairs = {(piece.polygon, ref.year) for piece in pieces if ref.year not in piece.skip}
            (found if holds is None or holds(ref) else lacking).update(pairs)
    for failure in plan.failures:
        lacking.update((polygon, failure.year) for polygon in failure.polygons)
    return found - lacking
