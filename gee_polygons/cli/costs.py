"""The command `plan`: what an extraction would cost, from one source or from each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import click

from gee_polygons.cli import shared
from gee_polygons.cli.messages import in_options

if TYPE_CHECKING:
    from gee_polygons.costs import Offer


@click.command(epilog=shared.SITES_HELP, short_help="Estimate what an extraction would cost.")
@shared.with_sites
@shared.years_option
@click.option(
    "--source",
    callback=shared.parse_source,
    metavar="SOURCE",
    help="A name or a path that `gee-polygons sources` lists; `all` compares them.  [default: as for extract]",
)
@click.option(
    "--local",
    multiple=True,
    metavar="PATH",
    help="With --source all: also compare this archive. Repeatable.",
)
@click.option("--bandwidth", type=float, default=100.0, show_default=True, metavar="MBIT/S", help="Your bandwidth.")
@click.option(
    "--latency", type=float, default=50.0, show_default=True, metavar="MS", help="Time from a request to its response."
)
@shared.json_option
def plan(
    *,
    sites_file: shared.SitesFile,
    years: tuple[int, ...],
    source: str | None,
    local: tuple[str, ...],
    bandwidth: float,
    latency: float,
    as_json: bool,
) -> None:
    """Estimate what an extraction would cost. Reads indexes and headers, no pixels.

    \b
    Example:
      gee-polygons plan sites.geojson --years 2018-2024 --source source-coop
      gee-polygons plan sites.geojson --years 2018-2024 --source all --local copy --bandwidth 50
    """
    from gee_polygons.costs import compare_sources, price_source
    from gee_polygons.periods import years_text
    from gee_polygons.sources.earthengine.session import sign_in_status
    from gee_polygons.sources.earthengine.source import EarthEngineSource

    if bandwidth <= 0 or latency < 0:
        raise click.UsageError(
            f"bandwidth is above 0 Mbit/s and latency 0 ms or more, found {bandwidth:g}, {latency:g}."
        )
    sites = sites_file.load()
    how: dict[str, Any] = {"bandwidth_mbit_s": bandwidth, "latency_s": latency / 1e3}
    if source in ("all", "auto"):
        no_session = _connect_if_configured()
        offers = compare_sources(sites, years, sources="all", local=local, **how)
        if no_session:
            offers = [replace(o, reason=no_session) if o.source == "earthengine" else o for o in offers]
        if as_json:
            _print_json(offers, len(sites), years, bandwidth, latency)
        else:
            _say_each(offers, len(sites), years_text(years), bandwidth, latency)
        return
    if local:
        raise click.UsageError("--local goes with --source all; else give the path as --source.")
    from gee_polygons.sources.opening import open_source

    opened = open_source(source)
    offer = price_source(sites, years, opened, **how)
    if as_json:
        _print_json([replace(offer, source=opened.name)], len(sites), years, bandwidth, latency)
        return
    connection = f"{bandwidth:g} Mbit/s and {latency:g} ms"
    parts = f"{_time(offer.transfer_s)} of it for requests and bytes at {connection}"
    facts: list[tuple[str, object]] = [
        ("source", opened.name),
        ("archive", opened.archive),
        ("sites", f"{len(sites):,}"),
        ("years", years_text(years)),
        ("blocks", f"{offer.blocks:,}"),
        ("requests", f"{offer.requests:,}"),
        ("MB", f"{offer.bytes / 1e6:,.1f}"),
        ("time", f"{_time(offer.seconds)}, {parts if offer.transfer_s else 'without a network'}"),
        *(("note", note) for note in offer.notes),
    ]
    if isinstance(opened, EarthEngineSource):
        cost = opened.cost(sites.polygons, years)
        facts[4:5] = [
            ("account", sign_in_status()),
            ("known", f"{cost.known:,} of {cost.site_years:,} site-years are kept on this machine"),
            ("pixels", f"{cost.pixels:,} pixel-years"),
        ]
    shared.print_facts(*facts)


def _print_json(offers: Sequence[Offer], n_sites: int, years: Sequence[int], bandwidth: float, latency: float) -> None:
    names = [field.name for field in fields(offers[0]) if field.name != "opened"]
    listed = [{name: getattr(offer, name) for name in names} for offer in offers]
    for one in listed:
        one["seconds"] = one["seconds"] if one["available"] else None
    how = {"sites": n_sites, "years": years, "bandwidth_mbit_s": bandwidth, "latency_ms": latency}
    shared.print_json({**how, "sources": listed})


def _say_each(offers: Sequence[Offer], n_sites: int, years: str, bandwidth: float, latency: float) -> None:
    click.echo(f"{n_sites:,} sites x {years}; time at {bandwidth:g} Mbit/s and {latency:g} ms, for comparison\n")
    there = [offer for offer in offers if offer.available]
    rows = [("", "source", "site-years", "blocks", "requests", "MB", "time")]
    rows += [
        (
            "*" if i == 0 else "", offer.source, f"{offer.site_years:,}", f"{offer.blocks:,}" if offer.blocks else "-",
            f"{offer.requests:,}", f"{offer.bytes / 1e6:,.1f}", _time(offer.seconds),
        )
        for i, offer in enumerate(there)
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows if there else ():
        left = " ".join(f"{cell:<{width}}" for cell, width in zip(row[:2], widths, strict=False))
        right = "  ".join(f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True))
        click.echo(f"{left}  {right}")
    if there:
        click.echo("\n* what --source auto takes")
    for offer in there:
        for note in ("read without a network", *offer.notes) if not offer.transfer_s else offer.notes:
            click.echo(f"{offer.source}: {note}")
    for offer in offers:
        if not offer.available:
            click.echo(f"{offer.source}: not available: {offer.reason}")


def _connect_if_configured() -> str:
    """Start an Earth Engine session if the user has set EE_PROJECT; return why there is none, or an empty text."""
    import ee

    from gee_polygons.errors import GeePolygonsError
    from gee_polygons.sources.earthengine.session import connect, sign_in_status

    if not os.environ.get("EE_PROJECT"):
        status = sign_in_status()
        more = "; set EE_PROJECT to have it compared" if "project " in status and "no project" not in status else ""
        return "" if ee.data.is_initialized() else status + (more if status.startswith("signed in") else "")
    try:
        connect()
    except GeePolygonsError as error:
        return in_options(str(error))
    return ""


def _time(seconds: float) -> str:
    """Format an estimated duration with the precision that it has."""
    if seconds < 1:
        return "below 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
