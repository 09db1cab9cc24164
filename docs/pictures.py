"""Runs the README, and makes its pictures from what that wrote; `make pictures`.

The report's picture is taken by a headless Chromium, and left as it is where there is none. `run_readme` is also what
the tests run. `write_labels` made data/sample_labels.geojson.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTHS = (920, 560)  # pixels in the README: of a strip, and of anything else
REPORT = (1040, 1240)  # width and height of the report's picture


def blocks() -> list[tuple[str, str]]:
    """Return the blocks of code, with their language, of the README and of the page for users of version 0.0.4."""
    text = "".join((ROOT / n).read_text(encoding="utf-8") for n in ("README.md", "docs/coming_from_0.0.4.md"))
    return re.findall(r"^```(python|sh)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def run_readme() -> None:
    """Run all Python and all commands of the README in the current folder, in order, as one session."""
    names: dict[str, object] = {"__name__": "readme"}
    with earth_engine():
        for language, block in blocks():
            if language == "python":
                exec(compile(block, "README.md", "exec"), names)
                continue
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("gee-polygons"):
                    run_command(line)


def run_command(line: str) -> None:
    """Run a command line, of which what follows a `#` is a comment."""
    from click.testing import CliRunner

    from gee_polygons.cli.main import main

    done = CliRunner().invoke(main, line.split("#")[0].split()[1:])
    assert done.exit_code == 0, f"{line}: {done.output} {done.exception!r}"


@contextlib.contextmanager
def earth_engine() -> Any:
    """Have the README's `connect` speak to the server that the tests use."""
    sys.path.append(str(ROOT / "nbs"))
    servers: list[Any] = []

    def connect(project: str) -> None:
        from earth_engine import session

        servers.append(session("local", layers=True))

    try:
        with mock.patch("gee_polygons.sources.earthengine.connect", connect):
            yield
    finally:
        sys.path.remove(str(ROOT / "nbs"))
        for server in servers:
            from earthengine.client import disconnect

            disconnect()
            server.stop()


def on_the_page(path: Path) -> Image.Image:
    """Return a picture as wide as the README shows it."""
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
    width = WIDTHS[rgb.height > 0.4 * rgb.width]
    return rgb.resize((width, round(rgb.height * width / rgb.width)), Image.Resampling.LANCZOS)


def pairs(outputs: Path) -> list[tuple[Path, Path]]:
    """Return the README's pictures, each with the file that its code wrote."""
    shown = re.findall(r"\]\(docs/images/([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    return [(IMAGES / name, made) for name in shown for made in outputs.glob(f"{Path(name).stem}.*[gp]")]


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture small: JPEG, or PNG with 256 colours."""
    if path.suffix == ".png":
        picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    else:
        picture.save(path, quality=88)


def photograph(page: Path, path: Path) -> None:
    """Take a picture of the top of a page."""
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not binary or not driver:
        print("no chromium and chromedriver here: the report's picture stays as it is")
        return
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        size = {"width": REPORT[0], "height": REPORT[1], "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page.resolve().as_uri())
        shot = path.with_suffix(".shot.png")
        browser.get_screenshot_as_file(str(shot))
        with Image.open(shot) as picture:
            save(picture.convert("RGB"), path)
        shot.unlink()
    finally:
        browser.quit()


def write_labels(path: Path, n: int = 240) -> None:
    """Write plots of 50 m of the sample's land with the cover of 2022, one label in ten of them wrong."""
    import geopandas
    import shapely

    from gee_polygons.sources.sample import LAND_COVER, truth_label
    from gee_polygons.zonal.grid import Window

    window, rng = Window(row=-752698, col=80356, height=320, width=436), np.random.default_rng(1)
    land = truth_label("EPSG:32722", window, 2022)
    row, col = rng.integers(5, window.height - 5, 4 * n), rng.integers(5, window.width - 5, 4 * n)
    around = np.stack([land[row + i, col + j] for i in (-3, 2) for j in (-3, 2)])
    kept = np.flatnonzero((around == around[0]).all(axis=0) & (around[0] < 4))[:n]  # of one cover; no water, no town
    cover = np.array(LAND_COVER)[around[0, kept]]
    cover = np.where(rng.random(n) < 0.1, rng.choice(["pasture", "crop", "mature forest"], n), cover)
    x, y = 10.0 * (window.col + col[kept]), -10.0 * (window.row + row[kept])
    squares = geopandas.GeoSeries(shapely.box(x - 25, y - 25, x + 25, y + 25), crs="EPSG:32722").to_crs("EPSG:4326")
    lines = ",\n".join(
        json.dumps({
            "type": "Feature",
            "properties": {"site_id": f"plot-{i + 1}", "cover": str(cover[i])},
            "geometry": shapely.geometry.mapping(shapely.set_precision(square, 1e-7)),
        })
        for i, square in enumerate(squares)
    )  # fmt: skip
    path.write_text(f'{{"type": "FeatureCollection", "name": "sample_labels", "features": [\n{lines}\n]}}\n', "utf-8")


def main() -> None:
    """Run the demonstration and the README in a folder of their own, and keep the pictures."""
    from gee_polygons.cli.demo import run_demo

    desk = Path(tempfile.mkdtemp())
    (desk / "outputs").mkdir()
    shutil.copytree(ROOT / "data", desk / "data")
    os.chdir(desk)
    for step in run_demo(desk / "demo"):
        print(step.title)
    shutil.copy(desk / "demo" / "strip.jpg", IMAGES / "strip.jpg")
    photograph(desk / "demo" / "report.html", IMAGES / "report.png")
    run_readme()
    for shown, made in pairs(desk / "outputs"):
        save(on_the_page(made), shown)
        print(f"{shown.relative_to(ROOT)}: {shown.stat().st_size / 1e3:.0f} kB, from {made.name}")


if __name__ == "__main__":
    write_labels(ROOT / "data" / "sample_labels.geojson") if sys.argv[1:] == ["labels"] else main()
