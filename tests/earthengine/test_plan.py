"""`gee-polygons plan` and `extract` with Earth Engine."""

import ee
from click.testing import CliRunner

from gee_polygons.cli.main import main
from gee_polygons.tables import read_table

from .places import fields


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_plan_is_said_before_anything_is_sent(ee_server, tmp_path):
    path = tmp_path / "sites.geojson"
    fields(30).to_geodataframe().to_file(path, driver="GeoJSON")
    done = run("plan", path, "--years", "2019-2021", "--source", "earthengine")
    assert done.exit_code == 0, done.output
    assert "requests  2\n" in done.output
    assert "EECU-hours" in done.output
    assert "0 of 90 site-years" in done.output
    assert not [e for e in ee_server.log.entries() if e.method == "POST"]
    out = tmp_path / "t.parquet"
    done = run("extract", path, "--years", "2019-2021", "--source", "earthengine", "-o", out)
    assert done.exit_code == 0, done.output
    assert len(read_table(out)) == 90
    assert "90 of 90 site-years" in run("plan", path, "--years", "2019-2021", "--source", "earthengine").output


def test_without_credentials_one_line_says_what_to_do(tmp_path, monkeypatch):
    def none():
        raise ee.EEException("Please authorize access\nto your account")

    monkeypatch.setattr(ee.data, "get_persistent_credentials", none)
    path = tmp_path / "sites.geojson"
    fields(1).to_geodataframe().to_file(path, driver="GeoJSON")
    done = run("plan", path, "--years", "2020", "--source", "earthengine")
    assert done.exit_code == 1
    assert "run `earthengine authenticate` once, and set EE_PROJECT" in done.output


def test_beside_other_sources_it_has_an_offer_and_auto_takes_it_where_nothing_else_is(ee_server, monkeypatch):
    from rangeserver import serve

    from gee_polygons.costs import compare_sources
    from gee_polygons.extract import extract_embeddings

    with serve(".") as server:
        gone = f"{server.url}/gone/"
    mirrors = f"https://data.source.coop/={gone} s3://us-west-2.opendata.source.coop/={gone}"
    monkeypatch.setenv("GEE_POLYGONS_MIRROR", mirrors)
    offers = {offer.source: offer for offer in compare_sources(fields(30), [2019, 2020, 2021])}
    assert [name for name, offer in offers.items() if offer.available] == ["earthengine"]
    mine = offers["earthengine"]
    assert (mine.requests, mine.site_years, mine.asked) == (2, 90, 90)
    assert 0 < mine.seconds < 60
    assert any("EECU-hours" in note for note in mine.notes)
    assert not [e for e in ee_server.log.entries() if e.method == "POST"]
    table = extract_embeddings(fields(3), years=2020, source="auto")
    assert table.attrs["provenance"]["source"] == "earthengine"
    assert set(table["status"]) == {"ok"}
