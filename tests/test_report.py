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
