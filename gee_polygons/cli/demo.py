"""Runs the demonstration of `gee-polygons demo` and `make demo`: from nothing to a table, pictures and a report.

It runs on the synthetic sample archive, so it needs no account and no network. `run_demo` yields each step as it
is done; printing is left to the command line.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gee_polygons.cli.shared import near
from gee_polygons.errors import OutputError

if TYPE_CHECKING:
    from gee_polygons.reduction.plan import Source
    from gee_polygons.site import Site

DEMO_SITE: Final = "hole"  # the sample site that is pictured: pasture around an old grove, which turns into forest
YEARS: Final = range(2018, 2025)
REPORT_SITES: Final = ("cleared", "stalled")  # pictured in the report; each takes half a second
STRIP_DPI: Final = 170  # at 18 cm; with JPEG, below 150 kB
GIF_DPI: Final = 110
GIF_FRAME_MS: Final = 700
REGION_BUFFER_M: Final = 200.0  # land shown around the site
CHECKOUT_SITES: Final = Path(__file__).parents[2] / "data" / "sample_sites.geojson"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A finished step of the demonstration.

    Parameters
    ----------
    title : str
        What was done.
    seconds : float
        How long it took.
    paths : tuple of Path
        What it wrote.
    """

    title: str
    seconds: float
    paths: tuple[Path, ...] = ()


def run_demo(out: str | Path, *, progress: bool | Callable[..., Any] = False) -> Iterator[Step]:
    """Build the sample archive, extract all its sites for all years, write the table, three pictures and the report.

    Parameters
    ----------
    out : str or Path
        Folder to write into; created if need be. Files of a former demonstration are replaced.
    progress : bool or callable
        Passed on to the long steps.

    Yields
    ------
    Step
        In the order they are done.

    Raises
    ------
    OutputError
        If `out` can't be written.
    """
    from gee_polygons.embeddings.similarity import similarity_matrix
    from gee_polygons.extract import extract_embeddings
    from gee_polygons.report import write_report
    from gee_polygons.site import load_sites
    from gee_polygons.sources.opening import open_source
    from gee_polygons.sources.sample.archive import build_sample_archive
    from gee_polygons.sources.sample.scene import write_sample_sites
    from gee_polygons.tables import check_output, write_table
    from gee_polygons.visualize import plot_similarity_matrix, save_plot

    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"can't create the folder {out}: {error.strerror or error}") from error
    check_output(out / "embeddings.parquet", overwrite=True)
    clock = _Clock()

    index = build_sample_archive(out / "sample", years=YEARS, progress=progress)
    yield clock.step("built the sample archive (synthetic)", index)

    # a checkout has the file; an installed package writes it
    sites_path = CHECKOUT_SITES if CHECKOUT_SITES.is_file() else write_sample_sites(out / CHECKOUT_SITES.name)
    sites = load_sites(sites_path)
    yield clock.step(f"loaded {len(sites)} sites", sites_path)

    table = extract_embeddings(sites, years=YEARS, source=str(index), progress=progress)
    yield clock.step(f"extracted {len(table)} rows ({len(sites)} sites x {len(YEARS)} years)")

    paths = [
        write_table(table, out / name, sites=sites, overwrite=True) for name in ("embeddings.parquet", "embeddings.csv")
    ]
    yield clock.step("wrote the table", *paths)

    source = open_source(str(index))
    yield clock.step(f"drew the site '{DEMO_SITE}', year by year", *_pictures(sites[DEMO_SITE], source, out))

    matrix = similarity_matrix(table[table["site_id"] == DEMO_SITE])
    ax = plot_similarity_matrix(matrix, title=f"{DEMO_SITE}: cosine between years")
    yield clock.step(f"compared the years of the site '{DEMO_SITE}'", save_plot(ax, out / "similarity.png"))

    page = write_report(
        table, out / "report.html", sites=sites, source=source, pictures=REPORT_SITES, overwrite=True, progress=progress
    )
    yield clock.step("wrote the report: what changed, what recovered", page)


def next_steps(out: Path, sites: Path) -> list[str]:
    """Return three commands that go on from here, as one types them in this folder."""
    command = Path(sys.executable).with_name("gee-polygons")
    name = "gee-polygons" if shutil.which("gee-polygons") or not command.is_file() else str(near(command))
    index = near(out / "sample" / "v1" / "annual")
    table = near(out / "mine.parquet")
    return [
        f"{name} extract {near(sites)} --years 2018-2024 --source {index} -o {table}",
        f"{name} report {table} --sites {near(sites)} --source {index} -o {near(out / 'mine.html')}",
        f"{name} render {near(sites)} --site stalled --years 2018-2024 --source {index}",
    ]


def _pictures(site: Site, source: Source, out: Path) -> tuple[Path, Path, Path]:
    from gee_polygons.visualize import SimilarityColors, export_timelapse, export_timestrip

    common: dict[str, Any] = {"years": YEARS, "source": source, "buffer_m": REGION_BUFFER_M}
    grove = site.polygon.interiors[0].centroid
    first = source.image(site.region(buffer_m=REGION_BUFFER_M), YEARS[0])
    likeness = SimilarityColors.to_point(
        first, grove.x, grove.y, min=0.2, label="cosine to the old grove in the middle"
    )
    strip = export_timestrip(site, out / "strip.jpg", vis_params=likeness, dpi=STRIP_DPI, **common)
    film = export_timelapse(site, out / "years.gif", dpi=GIF_DPI, duration_ms=GIF_FRAME_MS, **common)
    return strip, film, film.with_suffix(".pca.json")  # one basis for all years: a change of colour is a change


class _Clock:
    """Time since the last step."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def step(self, title: str, *paths: Path) -> Step:
        now = time.perf_counter()
        done = Step(title=title, seconds=now - self._last, paths=paths)
        # the caller may print between two steps: that isn't counted, since the next step starts when it resumes
        self._last = now
        return done
