"""What is said where nothing was found, where there is no connection, and in which words: with real sources."""

import ast
import logging
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from click.testing import CliRunner
from mosaics import make
from rangeserver import serve

import gee_polygons
from gee_polygons import extract_embeddings, open_source
from gee_polygons.cli.main import main
from gee_polygons.cli.messages import in_options, shown_messages
from gee_polygons.errors import DataWarning
from gee_polygons.progress import report_stage, show_notice
from gee_polygons.sources.raster import RasterSource

PACKAGE = Path(gee_polygons.__file__).parent
# messages of these are about calls that the command line doesn't make
PYTHON_ONLY = (
    "change/rings", "collection/geometries", "collection/reading", "collection/tiles", "collection/torch",
    "datasets/alpha_embeddings", "network/request", "sources/earthengine/drawing", "sources/earthengine/exports",
    "sources/earthengine/tabulate", "visualize/pictures/render", "visualize/pictures/view", "visualize/interactive",
)  # fmt: skip
PYTHON_ONLY_MESSAGES = (
    "needs years=",
    "range(2018, 2025)",
    "method='server'",
    "leave grid= out",
    ".to_crs(4326)",
    "unexpected keyword",
    "a run with {}={}",
)


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def moved(sites, move):
    """The sites with other coordinates, as a GeoDataFrame."""
    frame = sites.to_geodataframe()
    return frame.set_geometry(shapely.transform(frame.geometry.to_numpy(), move), crs=4326)


def swapped(sites):
    return moved(sites, lambda xy: xy[:, ::-1])


@pytest.fixture(scope="module")
def raster(sample_sites):
    """A window of the sample archive as a single raster."""
    image = open_source("sample").image(sample_sites[0].region(buffer_m=100), 2024)
    return RasterSource(image.codes, grid=image.grid, year=2024)


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    """A mosaic of 2023 and 2024, and a site in it."""
    content, folder = make(), tmp_path_factory.mktemp("mosaic") / "m.zarr"
    content.write(folder)
    box = shapely.transform(
        shapely.box(10.3, 12.6, 40.2, 30.1),
        lambda xy: xy * (content.step, -content.step) + (content.west, content.north),
    )
    return open_source(str(folder)), gee_polygons.Site(polygon=box, site_id="a")


@pytest.mark.parametrize("kind", ["sample", "index", "raster", "mosaic"])
def test_sites_outside_a_source_are_said_with_both_extents(kind, sample_sites, sample_archive, raster, mosaic):
    sites, source = sample_sites[:1], {"sample": "sample", "index": str(sample_archive), "raster": raster}.get(kind)
    if kind == "mosaic":
        source, site = mosaic
        sites = gee_polygons.SiteCollection([site])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (extract_embeddings(sites, years=2024, source=source)["status"] == "ok").all()
    west, south, east, north = (f"{v:.3f}" for v in shapely.bounds(sites.polygons[0]))
    with pytest.warns(DataWarning) as caught:
        table = extract_embeddings(swapped(sites), years=2024, source=source)
    assert table.attrs["years_without_data"] == [2024]
    (said,) = [str(warning.message) for warning in caught]
    covers, here = said.split("; your sites are at ")
    assert here.startswith(f"longitude {south}..{north}, latitude {west}..{east}")
    assert here.endswith("; with longitude and latitude swapped they have data")
    found = [float(v) for v in re.findall(r"-?[0-9]+[.][0-9]{3}", covers)]
    x, y = (np.array(pair, float) for pair in ((west, east), (south, north)))
    assert found[0] <= x[0] < x[1] <= found[1], said
    assert found[2] <= y[0] < y[1] <= found[3], said
    with pytest.warns(DataWarning, match="no site has data: ") as caught:  # no hint where it wouldn't help
        extract_embeddings(moved(sites, lambda xy: xy + 3), years=2024, source=source)
    assert not any("swapped" in str(warning.message) for warning in caught)


def test_a_year_that_a_source_lacks_is_said_and_strict_fails(sample_sites, tmp_path):
    path = tmp_path / "sites.geojson"
    sample_sites[:2].to_geodataframe().to_file(path)
    args = ("extract", path, "--years", "2016-2018", "--source", "sample", "--overwrite", "-o", tmp_path / "t.csv")
    done = run(*args)
    assert done.exit_code == 0, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: no site has data in 2016-2017: the source sample covers longitude ")
    assert ", 2018-2024; your sites are at " in line
    assert "swapped" not in line
    assert run(*args, "--strict").exit_code == 1
    assert run(*(str(arg).replace("2016", "2018") for arg in args), "--strict").exit_code == 0


def test_no_connection_has_one_exit_status(tmp_path, sample_sites, monkeypatch):
    with serve(".") as server:
        url = server.url  # nobody answers there any more
    import gee_polygons.sources.opening as opening

    monkeypatch.setattr(opening, "NETWORK", replace(opening.NETWORK, give_up_after_s=0.2))
    path = tmp_path / "sites.geojson"
    sample_sites[:1].to_geodataframe().to_file(path)
    for source in (f"{url}/aef_index.parquet", f"{url}/x.csv", f"{url}/x_2024.tif", f"mosaic:{url}/m.zarr"):
        done = run("plan", path, "--years", "2024", "--source", source)
        assert done.exit_code == 1, done.output
        assert re.fullmatch(r"error: http.*: .*can't be read: .*no connection.*", done.stderr.strip())


# --- words


def messages():
    """Every text that is raised or warned of, with {} for what is filled in."""
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if name not in PYTHON_ONLY else ():
            if not isinstance(node, ast.Call):
                continue
            if ast.unparse(node.func).endswith(("Error", "warn", "warn_data", "warning", "Failure")):
                for part in [node.args[0]] if node.args else []:
                    for text in ast.walk(part):
                        if isinstance(text, ast.JoinedStr):
                            yield (
                                name,
                                "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in text.values),
                            )
                        elif isinstance(text, ast.Constant) and isinstance(text.value, str) and text is part:
                            yield name, text.value


def test_the_command_line_names_options_and_no_python():
    found = [(name, in_options(text)) for name, text in messages()]
    assert len(found) > 300
    python = re.compile(r"(?<![-\w])[a-z_]{2,}=(?!=)|\w\((?!s\))")
    wrong = [
        (name, text) for name, text in found
        if python.search(text) and not any(words in text for words in PYTHON_ONLY_MESSAGES)
    ]  # fmt: skip
    assert not wrong


def test_a_warning_is_one_line_once_whoever_gives_it(capsys):
    def warn(number):
        warnings.warn("two\n lines", DataWarning, stacklevel=1)
        logging.getLogger("gee_polygons.any").warning("two\n lines")
        if number == 0:
            warnings.warn("another", DataWarning, stacklevel=1)

    with shown_messages():
        for number in range(3):
            thread = threading.Thread(target=warn, args=(number,))
            thread.start()
            thread.join()
            warn(1)
    assert capsys.readouterr().err.splitlines() == ["warning: two lines", "warning: another"]


# --- progress


def test_each_stage_is_shown_and_its_time_goes_on(sample_sites, capsys):
    extract_embeddings(sample_sites[:2], years=2024, source="sample", progress=True)
    said = capsys.readouterr().err
    places = [said.index(title) for title in ("checking sites: ", "planning: ", "extract: ", "making the table: ")]
    assert places == sorted(places)
    with report_stage(True, "planning"):
        show_notice("compiling once, about 10 s")
        time.sleep(1.2)
    said = capsys.readouterr().err
    assert "planning: 00:00, compiling once, about 10 s" in said
    assert "planning: 00:01, compiling once, about 10 s" in said


def test_a_first_compilation_is_announced(tmp_path):
    code = (
        "from gee_polygons.progress import report_stage; from gee_polygons.zonal.compiled import compiled\n"
        "def double(x): return 2 * x\n"
        "with report_stage(True, 'planning'): compiled(double)(1)\n"
    )
    path = tmp_path / "code.py"
    path.write_text(code)
    for times in (1, 0):  # the second process finds it in the cache
        done = subprocess.run(
            [sys.executable, path], capture_output=True, text=True, check=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba")},
        )  # fmt: skip
        assert ("compiling once" in done.stderr) == bool(times), done.stderr
