"""Ids and properties with markup, quotes, formulas and control characters come through every output as text."""

from __future__ import annotations

import csv
import json
import math
import re

import pandas as pd
import pytest
import shapely
from click.testing import CliRunner
from PIL import Image

from gee_polygons.audit import audit
from gee_polygons.change import change
from gee_polygons.cli.main import main
from gee_polygons.extract import extract_embeddings
from gee_polygons.report import write_report
from gee_polygons.site import sites_from_geodataframe
from gee_polygons.tables import read_table, write_table
from gee_polygons.visualize.pictures.series import contact_sheet, export_timelapse

SCRIPT = "<script>alert(1)</script>"
IDS = [SCRIPT, "\"quoted\" & 'single'", "=1+1", "two\nlines", "$\\frac{1}$", "right\u202eleft", "-->", "</style>"]


@pytest.fixture(scope="module")
def hostile(sample_sites):
    frame = sample_sites[: len(IDS)].to_geodataframe()
    frame["site_id"] = IDS
    frame["name"] = IDS[::-1]
    frame["</td><b>"] = SCRIPT
    return sites_from_geodataframe(frame)


@pytest.fixture(scope="module")
def table(hostile):
    return extract_embeddings(hostile, years=range(2018, 2025), source="sample")


def test_pages_have_them_as_text(hostile, table, tmp_path):
    page = write_report(table, tmp_path / "r.html", sites=hostile, controls=IDS[-2:]).read_text(encoding="utf-8")
    assert SCRIPT not in page
    assert page.count("<script") == page.count("</script>")
    assert page.count("<style") == page.count("</style>")
    data = [json.loads(text) for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)]
    found = json.dumps(data)
    for site_id in IDS:
        assert json.dumps(site_id)[1:-1] in found
    for html in (hostile._repr_html_(), hostile[0]._repr_html_(), audit(table)._repr_html_()):
        assert SCRIPT not in html
        assert "</td><b>" not in html


def test_tables_have_them_bit_for_bit(table, tmp_path):
    for name in ("t.parquet", "t.csv"):
        write_table(table, tmp_path / name)
        assert read_table(tmp_path / name)["site_id"].tolist() == table["site_id"].tolist()
    write_table(table, tmp_path / "safe.csv", spreadsheet=True)
    cells = pd.read_csv(tmp_path / "safe.csv", dtype=str)["site_id"]
    assert not cells.str.startswith(("=", "+", "-", "@")).any()


def test_every_csv_of_a_command_can_be_safe_for_spreadsheets(hostile, table, tmp_path):
    """The matrix, the lists of change, and the list of refused rows; these had no such option, or didn't heed it."""
    table.to_parquet(tmp_path / "t.parquet")
    frame = hostile.to_geodataframe().assign(start_year=2020)
    frame.loc[len(frame) - 1, "geometry"] = shapely.Point(-48, -22)
    frame["site_id"] = frame["site_id"].replace(IDS[-1], "+refused")
    frame.to_file(tmp_path / "s.geojson")
    for name, command in {
        "e": ["extract", "s.geojson", "--years", "2023", "--source", "sample", "--skip-invalid", "--keep", "name"],
        "m": ["similarity", "t.parquet", "--by", "site", "--year", "2023"],
        "c": ["change", "t.parquet"],
        "r": ["recovery", "t.parquet", "--sites", "s.geojson", "--skip-invalid", "--references", IDS[2]],
    }.items():
        arguments = [str(tmp_path / a) if (tmp_path / a).is_file() else a for a in command]
        (tmp_path / name).mkdir()
        CliRunner().invoke(main, [*arguments, "--spreadsheet", "-o", str(tmp_path / name / f"{name}.csv")])
    written = sorted(tmp_path.rglob("*.csv"))
    names = "c.csv e.csv s.refused.csv m.csv r.csv s.refused.csv"
    assert [path.name for path in written] == names.split()
    for path in written:
        for row in csv.reader(path.read_text(encoding="utf-8").splitlines(keepends=True)):
            for cell in row:
                assert not cell.startswith(("=", "+", "-", "@")) or math.isfinite(float(cell)), (path.name, cell)


def test_pictures_are_drawn(hostile, tmp_path):
    contact_sheet(hostile, years=[2023], source="sample", path=tmp_path / "sheet.png")
    export_timelapse(hostile[4], years=[2022, 2023], source="sample", path=tmp_path / "a.gif")
    for name in ("sheet.png", "a.gif"):
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 50


def test_results_keep_them(table):
    assert change(table).sites["site_id"].tolist() == IDS
