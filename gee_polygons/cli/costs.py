"""The command `plan`: what an extraction would cost, from one source or from each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from gee_polygons.cli import shared

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
def plan(
    *,
    sites_file: shared.SitesFile,
    years: tuple[int, ...],
    source: str | None,
    local: tuple[str, ...],
    bandwidth: float,
    latency: float,
) -> None:
    """Estimate what an extraction would cost. Reads indexes and headers, no pixels.

    \b
    Example:
      gee-polygons plan sites.geojson --years 2018-2024 --source source-coop
      gee-polygons plan sites.geojson --years 2018-2024 --source all --local copy --bandwidth 50
    """
    from gee_polygons.costs import compare_sources, price_source

    if bandwidth <= 0 or latency < 0:
        raise click.UsageError(
            f"bandwidth is above 0 Mbit/s and latency 0 ms or more, found {bandwidth:g}, {latency:g}."
        )
    sites = sites_file.load()
    how: dict[str, Any] = {"bandwidth_mbit_s": bandwidth, "latency_s": latency / 1e3}
    if source in ("all", "auto"):
        _connect_if_configured()
        offers = compare_sources(sites, years, sources="all", local=local, **how)
        _say_each(offers, len(sites), years, bandwidth, latency)
        return
    if local:
        raise click.UsageError("--local goes with --source all; else give the path as --source.")
    from gee_polygons.sources.opening import open_source

    opened = open_source(source)
    if not hasattr(opened, "plan"):
        _say_service(opened, sites.polygons, years)
        return
    offer = price_source(sites, years, opened, **how)
    shared.print_facts(
        ("source", opened.name),
        ("archive", opened.archive),
        ("sites", f"{len(sites):,}"),
        ("years", _years_text(years)),
        ("blocks", f"{offer.blocks:,}"),
        ("requests", f"{offer.requests:,}"),
        ("MB", f"{offer.bytes / 1e6:,.1f}"),
        ("time", f"{_time(offer.seconds)}, at {bandwidth:g} Mbit/s and {latency:g} ms"),
        *(("note", note) for note in offer.notes),
    )


def _say_each(offers: Sequence[Offer], n_sites: int, years: Sequence[int], bandwidth: float, latency: float) -> None:
    click.echo(
        f"{n_sites:,} sites x {_years_text(years)}; time at {bandwidth:g} Mbit/s and {latency:g} ms, for comparison\n"
    )
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
        for note in offer.notes:
            click.echo(f"{offer.source}: {note}")
    for offer in offers:
        if not offer.available:
            click.echo(f"{offer.source}: not available: {offer.reason}")


def _say_service(source: Any, polygons: Any, years: Sequence[int]) -> None:
    cost = source.cost(polygons, years)
    shared.print_facts(
        ("source", source.name),
        ("archive", source.archive),
        ("sites", f"{len(polygons):,}"),
        ("years", _years_text(years)),
        ("known", f"{cost.known:,} of {cost.site_years:,} site-years are kept on this machine"),
        ("requests", f"{cost.requests:,}"),
        ("MB", f"{cost.bytes / 1e6:,.1f} to be sent"),
        ("compute", f"{cost.pixels:,} pixel-years, roughly {cost.eecu_hours:,.2f} EECU-hours"),
    )


def _connect_if_configured() -> None:
    """Start an Earth Engine session if the user has set EE_PROJECT; a failure is reported with the costs."""
    if not os.environ.get("EE_PROJECT"):
        return
    from gee_polygons.errors import GeePolygonsError
    from gee_polygons.sources.earthengine.session import connect

    try:
        connect()
    except GeePolygonsError as error:
        shared.say(f"earthengine: {error}")


def _years_text(years: Sequence[int]) -> str:
    whole = len(years) > 1 and list(years) == list(range(years[0], years[-1] + 1))
    return f"{years[0]}-{years[-1]}" if whole else ",".join(map(str, years))


def _time(seconds: float) -> str:
    """Format an estimated duration with the precision that it has."""
    if seconds < 1:
        return "below 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
