"""Ids and properties with markup, quotes, formulas and control characters come through every output as text."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from PIL import Image

from gee_polygons.audit import audit
from gee_polygons.change import change
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


def test_pictures_are_drawn(hostile, tmp_path):
    contact_sheet(hostile, years=[2023], source="sample", path=tmp_path / "sheet.png")
    export_timelapse(hostile[4], years=[2022, 2023], source="sample", path=tmp_path / "a.gif")
    for name in ("sheet.png", "a.gif"):
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 50


def test_results_keep_them(table):
    assert change(table).sites["site_id"].tolist() == IDS
