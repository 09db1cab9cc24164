"""The report: what is in the file, and what a real browser makes of it, at a desk and on a phone."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from simulated_sites import simulate

from gee_polygons.cli import main
from gee_polygons.embeddings.quantization import BANDS
from gee_polygons.errors import OutputError, UsageError
from gee_polygons.extract import extract_embeddings
from gee_polygons.report import write_report
from gee_polygons.tables import write_table

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
    assert text.count("data:image/jpeg;base64,") == len(PICTURED)
    assert page.stat().st_size < 1_000_000


def test_three_sites_without_anything_else(tmp_path):
    text = write_report(small_table(), tmp_path / "r.html").read_text(encoding="utf-8")
    assert '"hasRecovery":false' in text
    assert "NaN" not in text.split('id="data">')[1].split("</script>")[0]


def test_it_says_what_it_means_and_what_isn_t_known(page, tmp_path, sample_table, sample_sites):
    text = page.read_text(encoding="utf-8")
    assert "11 of 14 restoration sites are recovering" in text
    assert "2 reference sites can hardly tell how much such sites differ" in text
    assert "1 restoration site with no data from before the start" in text
    failed = sample_table.copy()
    failed.loc[failed["site_id"].eq("hole") & failed["year"].ge(2023), [*BANDS, "Rbar"]] = np.nan
    failed.loc[failed["site_id"].eq("hole") & failed["year"].ge(2023), "status"] = "error"
    text = write_report(failed, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "2 site-years couldn't be read" in text
    assert "No control sites were named" in text
    text = write_report(small_table(), tmp_path / "s.html").read_text(encoding="utf-8")
    assert "No background was taken off" in text
    assert "NaN" not in text


def test_three_thousand_sites_stay_small(tmp_path):
    sim = simulate(ratio=1.0, n_sites=2_900)
    path = write_report(sim.table, tmp_path / "r.html", controls=sim.control_ids)
    assert path.stat().st_size < 10_000_000


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
    assert "13 persistent" in done.output
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


# --- a browser ---


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no chromium and chromedriver here: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium isn't installed: pip install selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    profile = tmp_path_factory.mktemp("profile")
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-component-update", f"user-data-dir={profile}",
                 "disable-dev-shm-usage"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def look(browser, page, width, height, fragment=""):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get("about:blank")
    browser.get(f"{page.as_uri()}{fragment}")
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"


def first_column(browser):
    return browser.execute_script("return [...document.querySelectorAll('#rows tbody tr')].map(r=>r.dataset.id)")


def test_a_browser_sorts_filters_and_opens_a_site(browser, page):
    look(browser, page, 1280, 900)
    ids = first_column(browser)
    assert len(ids) == 20
    browser.find_element("css selector", "th[data-key=share] button").click()
    rising = first_column(browser)
    browser.find_element("css selector", "th[data-key=share] button").click()
    falling = first_column(browser)
    assert rising[0] == "stalled"
    assert falling[0] == "pasture-fast"
    assert falling[-1] == rising[-1]  # sites without a share stay last, both ways
    browser.find_element("id", "find").send_keys("pasture")
    assert all("pasture" in i for i in first_column(browser))
    assert "of 20 sites" in browser.find_element("id", "count").text
    browser.execute_script("$('find').value='';group.value='stalled';group.dispatchEvent(new Event('change'))")
    assert first_column(browser) == ["stalled"]
    for choice in ("pca", "change", "recovery"):
        browser.execute_script(f"$('colour').value='{choice}';$('colour').dispatchEvent(new Event('change'))")
        script = "return [...document.querySelectorAll('#map path[data-id]')].map(p=>p.getAttribute('fill'))"
        fills = browser.execute_script(script)
        assert len(set(fills)) > 2
    browser.find_element("css selector", "td button").click()
    dialog = browser.find_element("id", "site")
    assert dialog.is_displayed()
    assert "stalled" in dialog.text
    assert browser.execute_script("return document.querySelector('#body img').naturalWidth") > 500
    assert len(browser.find_elements("css selector", "#body svg.chart")) == 3
    browser.find_element("id", "close").click()
    assert not dialog.is_displayed()
    # by keyboard alone: a heading sorts, a site opens, Escape closes
    heading = browser.find_element("css selector", "th[data-key=id] button")
    heading.send_keys("\ue007")
    assert heading.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    browser.find_element("css selector", "td button").send_keys("\ue007")
    assert dialog.is_displayed()
    browser.switch_to.active_element.send_keys("\ue00c")
    assert not dialog.is_displayed()
    assert [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []


def test_it_reads_on_a_phone(browser, page):
    for fragment in ("", "#pasture-fast"):
        look(browser, page, 390, 844, fragment)
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= 390, "the page must not scroll sideways"
    inner = browser.execute_script("return [site.scrollWidth, site.clientWidth, site.open]")
    assert inner[2]
    assert inner[0] <= inner[1]
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
