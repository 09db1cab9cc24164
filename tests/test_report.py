"""The report: what is in the file. What a browser makes of it is in test_report_browser.py."""

from __future__ import annotations

import ast
import datetime
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from click.testing import CliRunner
from matplotlib import pyplot
from simulated_sites import simulate

from gee_polygons.alphaearth import BANDS
from gee_polygons.cli.main import main
from gee_polygons.errors import DataWarning, InputFileError, OutputError, UsageError
from gee_polygons.extract import extract_embeddings
from gee_polygons.recovery import Recovery
from gee_polygons.report import write_report, writing
from gee_polygons.report.language import Language, language_of
from gee_polygons.report.outlines import map_of
from gee_polygons.report.summary import _uncertainty
from gee_polygons.site import Site, SiteCollection
from gee_polygons.tables import write_table
from gee_polygons.visualize.plots.coloring import colours_of
from gee_polygons.visualize.plots.figure import GROUP_COLOURS

ASSETS = Path(writing.__file__).parent / "assets"
PICTURED = ["pasture-fast", "stalled"]


@pytest.fixture(scope="module")
def sample_table(sample_sites):
    return extract_embeddings(sample_sites, years=range(2018, 2025), source="sample")


@pytest.fixture(scope="module")
def page(sample_table, sample_sites, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(sample_table, path, sites=sample_sites, source="sample", pictures=PICTURED)


def small_table(n_sites=3, n_years=4):
    v = np.eye(64)[0] + np.random.default_rng(0).normal(size=(n_sites * n_years, 64)) * 0.01
    table = pd.DataFrame(v, columns=list(BANDS))
    ids, years = [f"s{i}" for i in range(n_sites)], range(2020, 2020 + n_years)
    return table.assign(site_id=np.repeat(ids, n_years), year=list(years) * n_sites)


# --- the file ---


def test_the_page_is_self_contained_and_says_where_it_comes_from(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:)[^"]+"', text) == []
    assert "Google and Google DeepMind" in text
    assert "Synthetic values" in text
    assert text.count("data:image/jpeg;base64,") == 6 * len(PICTURED)  # years with data
    assert page.stat().st_size < 1_000_000


def test_three_sites_without_anything_else(tmp_path):
    text = write_report(small_table(), tmp_path / "r.html").read_text(encoding="utf-8")
    assert '"hasRecovery":false' in text
    assert "NaN" not in text.split('id="data">')[1].split("</script>")[0]


def test_it_says_what_it_means_and_what_isn_t_known(page, tmp_path, sample_table, sample_sites):
    text = page.read_text(encoding="utf-8")
    assert "Recovering: <b>11 of 13 restoration sites</b>" in text
    assert "Only 2 reference sites: how they differ is hardly known" in text
    assert "1 restoration site with no data from before the start" in text
    failed = sample_table.copy()
    failed.loc[failed["site_id"].eq("hole") & failed["year"].ge(2023), [*BANDS, "Rbar"]] = np.nan
    failed.loc[failed["site_id"].eq("hole") & failed["year"].ge(2023), "status"] = "error"
    text = write_report(failed, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "2 site-years couldn't be read" in text
    assert "the rate of false alarms isn't guaranteed" in text
    text = write_report(small_table(), tmp_path / "s.html").read_text(encoding="utf-8")
    assert "No background was subtracted" in text
    assert "NaN" not in text


def test_a_site_takes_less_than_two_kilobytes(tmp_path):
    sim = simulate(ratio=1.0, n_sites=700)
    path = write_report(sim.table, tmp_path / "r.html", controls=sim.control_ids)
    assert path.stat().st_size < 1_700_000


def test_names_are_text_not_markup(tmp_path):
    table = small_table().replace({"site_id": {"s0": "<script>alert(1)</script>"}})
    text = write_report(table, tmp_path / "r.html", title="<b>").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<title>&lt;b&gt;</title>" in text


def test_wrong_calls_say_what_to_do(tmp_path, sample_table, sample_sites):
    path = tmp_path / "r.html"
    with pytest.raises(UsageError, match=r"must end in \.html"):
        write_report(small_table(), tmp_path / "r.pdf")
    with pytest.raises(OutputError, match="no folder"):
        write_report(small_table(), tmp_path / "no" / "r.html")
    with pytest.raises(UsageError, match="give --source"):
        write_report(sample_table, path, sites=sample_sites, pictures=["hole"])
    with pytest.raises(UsageError, match="'nobody'"):
        write_report(sample_table, path, sites=sample_sites, source="sample", pictures=["nobody"])
    with pytest.raises(UsageError, match="give --sites"):
        write_report(sample_table, path, references=["forest-reference-1"])
    path.touch()
    with pytest.raises(OutputError, match="exists already"):
        write_report(small_table(), path)


def test_the_command(tmp_path, sample_table, sample_sites):
    write_table(sample_table, tmp_path / "t.parquet", sites=sample_sites)
    sample_sites.to_geodataframe().to_file(tmp_path / "s.geojson", driver="GeoJSON")
    paths = {name: str(tmp_path / name) for name in ("t.parquet", "s.geojson", "r.html")}
    call = ["report", paths["t.parquet"], "--sites", paths["s.geojson"], "-o", paths["r.html"]]
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 0, done.output
    assert "20 sites" in done.output
    again = CliRunner().invoke(main, call)
    assert again.exit_code == 1
    assert "--overwrite" in again.output
    assert CliRunner().invoke(main, ["report", str(tmp_path / "none.parquet"), "-o", "x.html"]).exit_code == 2


def test_change_and_recovery_have_commands(tmp_path, sample_table, sample_sites):
    write_table(sample_table, tmp_path / "t.parquet", sites=sample_sites)
    sample_table[["site_id", "year", *BANDS]].to_csv(tmp_path / "plain.csv", index=False)  # from anywhere else
    sample_sites.to_geodataframe().to_file(tmp_path / "s.geojson", driver="GeoJSON")
    path = {name: str(tmp_path / name) for name in ("t.parquet", "plain.csv", "s.geojson", "c.csv", "y.csv", "r.csv")}
    run = CliRunner().invoke
    done = run(main, ["change", path["t.parquet"], "--sites", path["s.geojson"], "-o", path["c.csv"], "--yearly",
                      path["y.csv"]])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "14 persistent" in done.output  # one of them grows by 1.5 % a year
    assert len(pd.read_csv(path["y.csv"])) == len(sample_table)
    assert pd.read_csv(path["c.csv"]).set_index("site_id").loc["cleared", "start"] == 2021
    done = run(main, ["recovery", path["plain.csv"], "--sites", path["s.geojson"], "-o", path["r.csv"]])
    assert done.exit_code == 0, done.output
    assert "11 recovering" in done.output
    assert pd.read_csv(path["r.csv"]).set_index("site_id").loc["stalled", "group"] == "stalled"
    for call, words in (
        (["change", path["plain.csv"], "-o", path["c.csv"]], "--overwrite"),
        (["change", path["plain.csv"], "--controls", "nobody", "-o", str(tmp_path / "n.csv")], "'nobody' is not among"),
        (["change", path["plain.csv"], "--background", "controls", "-o", str(tmp_path / "n.csv")], "--controls"),
        (["recovery", path["plain.csv"], "-o", str(tmp_path / "n.csv")], "--sites"),
    ):
        done = run(main, call)
        assert done.exit_code in (1, 2)
        assert words in done.output
        assert len(done.output.strip().splitlines()) == 1
    assert not (tmp_path / "n.csv").exists()


# --- what the words and the data say ---


def data_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(text.split('id="data">')[1].split("</script>")[0])


def without(sites, *ids):
    return SiteCollection([site for site in sites if site.site_id not in ids])


def test_it_first_says_what_is_missing(tmp_path, sample_table, sample_sites):
    text = write_report(small_table(), tmp_path / "a.html").read_text(encoding="utf-8")
    assert "No recovery here</b>: no reference sites were named" in text
    assert "No map here</b>: no file of the sites" in text
    assert "AlphaEarth embeddings" not in text  # nothing says that it is
    text = write_report(small_table(n_years=2), tmp_path / "b.html").read_text(encoding="utf-8")
    assert "No change here</b>: no site has enough years" in text
    assert "changed more than the background" not in text
    few = without(sample_sites, "stalled", "hole")
    text = write_report(sample_table, tmp_path / "c.html", sites=few).read_text(encoding="utf-8")
    assert "2 sites of the table without a polygon" in text
    part = sample_table[~sample_table["site_id"].eq("hole")]
    text = write_report(part, tmp_path / "d.html", sites=sample_sites).read_text(encoding="utf-8")
    assert "1 site of the sites' file without a row" in text


def test_no_start_year_is_said(tmp_path, sample_table, sample_sites):
    bare = SiteCollection([replace(site, start_year=None) for site in sample_sites])
    text = write_report(sample_table, tmp_path / "r.html", sites=bare).read_text(encoding="utf-8")
    assert "No recovery here</b>: no site has a start year" in text


def test_groups_are_explained_by_their_rules(page):
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert "the rate is 4% a year or more" in text
    assert "its whole interval lying at 80% or above" in text
    assert "the site loses 4% a year or more" in text
    assert "the upper end of that interval is below 8%" in text
    assert "a site may be one without the other" in text
    assert "2 reference sites in the same year (100%): forest-reference-1, forest-reference-2" in text
    assert "At most about 10% of them should be false alarms" in text
    for jargon in ("--", "PC1", "Cosine"):
        assert jargon not in re.sub(r"<(style|script).*?</\1>", "", text).replace("<!--", "")


def test_nothing_is_drawn_far_beyond_the_data(page):
    sites = {s["id"]: s for s in data_of(page)["sites"]}
    assert "expected_years_to_80" not in sites["stalled"]
    assert sites["zone-seam-long"]["expected_years_to_80"] < 10


def test_an_interval_cut_at_an_end_isn_t_taken_for_certainty():
    shares = {"share": [1.0, 0.0, 0.5, 0.6], "share_low": [1.0, 0.0, 0.4, 0.4], "share_high": [1.0, 0.0, 0.6, 0.8]}
    found = Recovery(
        yearly=pd.DataFrame(), sites=pd.DataFrame(shares), reference=pd.DataFrame(), confidence=0.9, background=""
    )
    say = language_of("en")
    assert _uncertainty(found, say) == (
        "A site's share is typically uncertain by \u00b115 points (from the 2 of 4 sites whose interval reaches "
        "neither 0% nor 100%)."
    )
    assert "no single figure" in _uncertainty(replace(found, sites=found.sites.head(2)), say)


def test_roles_files_and_options_are_in_the_page(tmp_path, sample_table, sample_sites):
    files = {"table": "<t>.parquet"}
    paths = [tmp_path / name for name in ("a.html", "b.html")]
    for path in paths:
        write_report(sample_table, path, sites=sample_sites, level=0.2, files=files)
    text = paths[0].read_text(encoding="utf-8")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert "<dt>table</dt><dd>&lt;t&gt;.parquet</dd>" in text
    assert "<dt>false-discovery rate</dt><dd>0.2</dd>" in text
    roles = {s["id"]: s["role"] for s in data_of(paths[0])["sites"]}
    assert roles["forest-reference-1"] == "reference"
    assert roles["crop-control"] == "control"
    assert roles["stalled"] == "restoration"
    assert roles["outside"] == "control"
    assert roles["cleared"] == "other"  # of kind "clearing"


def test_one_far_site_doesn_t_ruin_the_map():
    def square(i, x):
        return Site(polygon=shapely.box(x, 0, x + 0.01, 0.01), site_id=str(i))

    sites = SiteCollection([*(square(i, i / 50) for i in range(8)), square("far", 40)])
    records = [{"id": str(site.site_id)} for site in sites]
    frame = map_of(records, sites)
    assert frame is not None
    assert frame["far"] == ["far"]
    assert "path" not in records[-1]
    near = [{"id": str(i)} for i in range(8)]
    assert map_of(near, sites)["box"] == frame["box"]
    even = SiteCollection([square(i, i) for i in range(9)])
    assert map_of([{"id": str(i)} for i in range(9)], even)["far"] == []


@pytest.mark.parametrize("name", [7, 2.5, pd.Timestamp("2024-05-01"), None, float("nan"), True])
def test_names_of_any_type_are_text(tmp_path, name):
    polygon = shapely.box(0, 0, 0.01, 0.01)
    sites = SiteCollection([Site(polygon=polygon, site_id=f"s{i}", properties={"name": name}) for i in range(3)])
    written = data_of(write_report(small_table(), tmp_path / "r.html", sites=sites))["sites"][0].get("name")
    assert written == (None if pd.isna(name) else str(name).removesuffix(" 00:00:00"))


def test_groups_have_the_same_colours_in_plots_and_on_the_page(page):
    colour_of = {"recovering": "#0072B2", "declining": "#B2182B"}
    assert colour_of.items() <= data_of(page)["groupColors"].items()
    _, ax = pyplot.subplots()
    assert colours_of(ax, pd.Series(["recovering", "declining"]), "group") == list(colour_of.values())
    pyplot.close()


# --- what an officer asks ---


def test_deuteranopes_tell_the_groups_apart():
    """Distances in CIELAB, as seen and without green cones (Machado et al., IEEE TVCG 15, 2009)."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    blind = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]])
    codes = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in GROUP_COLOURS.values()]
    linear = ((np.array(codes) + 0.055) / 1.055) ** 2.4
    for seen in (linear, np.clip(linear @ blind.T, 0, 1)):
        f = np.cbrt(seen @ xyz.T / [0.95047, 1, 1.08883])
        lab = np.column_stack([116 * f[:, 1], 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])])
        distances = np.linalg.norm(lab[:, None] - lab, axis=2)[np.triu_indices(len(lab), 1)]
        assert distances.min() > 25


def squares(**properties):
    """Sites of 1.1 km, one for each value of the properties."""
    n = len(next(iter(properties.values())))
    rows = [{key: values[i] for key, values in properties.items()} for i in range(n)]
    return SiteCollection(
        Site(polygon=shapely.box(i / 10, 0, i / 10 + 0.01, 0.01), site_id=f"s{i}", start_year=2022, properties=row)
        for i, row in enumerate(rows)
    )


def rows_of(html, css_class):
    table = html.split(f'<table class="{css_class}">')[1].split("</table>")[0]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("<tr>")[2:]]
    return [[re.sub(r"<[^>]+>", "", cell) for cell in row] for row in cells]


@pytest.mark.parametrize("language", ["en", "pt"])
def test_hectares_of_the_verdicts_add_up_with_the_sites_that_have_none(tmp_path, sample_table, sample_sites, language):
    bare = SiteCollection(
        [replace(s, start_year=None) if s.site_id in ("hole", "tile-edge") else s for s in sample_sites]
    )
    text = write_report(sample_table, tmp_path / "r.html", sites=bare, language=language).read_text(encoding="utf-8")
    *groups, total = rows_of(text, "verdicts")
    assert groups[-1][:2] == [{"en": "no verdict", "pt": "sem veredito"}[language], "2"]
    for column in (1, 2):
        assert sum(int(row[column]) for row in groups) == int(total[column])
    kinds = {site.site_id: site.properties["kind"] for site in sample_sites}
    areas = [site.area_ha for site in sample_sites if kinds[site.site_id] == "restoration"]
    assert int(total[1]) == len(areas)
    assert int(total[2]) == round(sum(areas))


def test_the_largest_of_those_that_decline_or_stall_are_visited_first(tmp_path):
    table, sites = declining_sites()
    data = data_of(write_report(table, tmp_path / "r.html", sites=sites))
    site_of = {site["id"]: site for site in data["sites"]}
    groups = [site_of[i]["group"] for i in data["visit"]]
    assert groups == ["stalled", "declining", "declining"]
    areas = [site_of[i]["area_ha"] for i in data["visit"]]
    assert areas == sorted(areas, reverse=True)
    polygon = sites[data["visit"][0]].polygon
    assert polygon.contains(shapely.Point(site_of[data["visit"][0]]["lon"], site_of[data["visit"][0]]["lat"]))


def declining_sites(n_references=5):
    """Two declining sites, one that stalls and is larger, one that recovers, and references."""
    years, rng = np.arange(2017, 2025), np.random.default_rng(0)
    slopes = [-0.09, -0.09, 0.0, 0.06]
    share = np.array([np.clip(0.6 + slope * np.maximum(years - 2018, 0), 0, 1) for slope in slopes])
    share = np.vstack([share, np.ones((n_references, len(years)))])[..., None]
    vectors = (1 - share) * np.eye(64)[0] + share * np.eye(64)[1]
    drift = rng.normal(size=(len(years), 64)) * 0.03
    vectors = vectors + drift + rng.normal(size=(len(share), 1, 64)) * 0.02 + rng.normal(size=vectors.shape) * 0.005
    table = pd.DataFrame(vectors.reshape(-1, 64), columns=list(BANDS))
    ids = [f"s{i}" for i in range(4)] + [f"r{i}" for i in range(n_references)]
    table = table.assign(site_id=np.repeat(ids, len(years)), year=np.tile(years, len(ids)))
    sides = [0.01, 0.012, 0.02, 0.01] + [0.01] * n_references
    return table, SiteCollection(
        Site(
            polygon=shapely.box(i / 10, 0, i / 10 + sides[i], sides[i]),
            site_id=site_id,
            start_year=2019 if i < 4 else None,
            properties={"kind": "restoration" if i < 4 else "reference"},
        )
        for i, site_id in enumerate(ids)
    )


def test_one_change_has_one_size(page):
    """The text's angle and year are a point of the chart."""
    data = data_of(page)
    sizes = [site for site in data["sites"] if "size_deg" in site]
    assert sizes
    for site in sizes:
        assert site["series"]["relative_deg"][data["years"].index(site["size_year"])] == site["size_deg"]


def test_similarity_stands_beside_every_share(page):
    for site in data_of(page)["sites"]:
        assert ("share" in site) <= ("similarity" in site and "similarity_start" in site)


@pytest.mark.parametrize(
    ("kinds", "counted"),
    [
        (["Restoration ", "restauração", "road", None], ["s0", "s1", "s3"]),
        (["planted", "natural", "", "Control"], ["s0", "s1", "s2"]),  # kinds of restoration, for all one knows
    ],
)
def test_kinds_that_aren_t_restoration_are_left_out(tmp_path, kinds, counted):
    sites = squares(kind=kinds)
    data = data_of(write_report(small_table(4), tmp_path / "r.html", sites=sites))
    assert [site["id"] for site in data["sites"] if site["role"] == "restoration"] == counted


def test_a_picture_that_can_t_be_read_says_why(tmp_path, sample_table, sample_sites):
    class Failing:
        name = "failing"

        def years(self):
            return [2018, 2024]

        def image(self, region, year, bands=None):
            raise InputFileError("the tile is gone")

    path = tmp_path / "r.html"
    with pytest.warns(DataWarning, match="the tile is gone"):
        write_report(sample_table, path, sites=sample_sites, source=Failing(), pictures=["stalled"])
    site = next(site for site in data_of(path)["sites"] if site["id"] == "stalled")
    assert "the tile is gone" in site["noPictures"]


def test_progress_and_date(tmp_path):
    steps = []
    path = write_report(
        small_table(), tmp_path / "r.html", progress=lambda *n: steps.append(n), date=datetime.date(2024, 3, 1)
    )
    assert steps[-1] == (4, 4)
    assert 'Written on <time datetime="2024-03-01">' in path.read_text(encoding="utf-8")


def test_more_sites_than_a_page_can_list(tmp_path, monkeypatch):
    table, sites = declining_sites()
    monkeypatch.setattr(writing, "_LISTED_BYTES", 4_200)
    with pytest.warns(DataWarning, match=r"can list 3 sites of 8 years, the table has 9: .* count all"):
        path = write_report(table, tmp_path / "r.html", sites=sites)
    data = data_of(path)
    assert sorted(site["id"] for site in data["sites"]) == sorted(data["visit"]) == ["s0", "s1", "s2"]
    text = path.read_text(encoding="utf-8")
    assert "One page can't list 9 sites" in text
    assert rows_of(text, "verdicts")[-1][:2] == ["all restoration sites", "4"]


class Recorder(dict):
    """A catalogue that notes the texts that were looked for."""

    def __init__(self):
        super().__init__()
        self.asked = set()

    def get(self, key, default=None):
        self.asked.add(key)
        return default


def test_portuguese_has_every_text(tmp_path, monkeypatch, sample_table, sample_sites):
    recorder = Recorder()
    monkeypatch.setattr(writing, "language_of", lambda code: Language(code="en", texts=recorder))
    write_report(sample_table, tmp_path / "a.html", sites=sample_sites)
    write_report(small_table(), tmp_path / "b.html")
    source = "".join(re.sub(r"'\s*\+\s*'", "", path.read_text(encoding="utf-8")) for path in ASSETS.glob("*.js"))
    literals = re.findall(r"\b(?:t|add)\(\s*'((?:[^'\\]|\\.)+)'", source)
    literals += re.findall(r": '((?:[A-Z,:])[^'\\]* [^'\\]*)',$", source, flags=re.MULTILINE)  # reasons, endings
    asked = recorder.asked | {ast.literal_eval(f"'{text}'") for text in literals}
    translated = language_of("pt").texts
    assert {text for text in asked if re.search("[a-z]{2}", text)} - set(translated) == set()
    for text, translation in translated.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", translation)), text
