"""The report in a real headless browser: at a desk, on a phone, on paper, by keyboard, with odd names, many sites."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from gee_polygons.alphaearth import BANDS
from gee_polygons.extract import extract_embeddings
from gee_polygons.report import write_report

PICTURED = ["pasture-fast", "stalled"]
ODD = ["100%", "constructor", "toString", "a/b#c?d e", "x" * 130, "<b>bold</b>"]


def plain_table(ids, years=range(2020, 2024)):
    v = np.eye(64)[0] + np.random.default_rng(0).normal(size=(len(ids) * len(years), 64)) * 0.01
    table = pd.DataFrame(v, columns=list(BANDS))
    return table.assign(site_id=np.repeat(np.array(ids, dtype=object), len(years)), year=list(years) * len(ids))


@pytest.fixture(scope="module")
def page(sample_sites, tmp_path_factory):
    table = extract_embeddings(sample_sites, years=range(2018, 2025), source="sample")
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(table, path, sites=sample_sites, source="sample", pictures=PICTURED)


@pytest.fixture(scope="module")
def odd_page(tmp_path_factory):
    return write_report(plain_table(ODD), tmp_path_factory.mktemp("odd") / "report.html")


@pytest.fixture(scope="module")
def long_page(tmp_path_factory):
    ids = [f"site {i}" for i in range(250)]
    return write_report(plain_table(ids, range(2021, 2024)), tmp_path_factory.mktemp("long") / "report.html")


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
    assert ids[:2] == ["stalled", "pasture-slow"]  # what needs a look comes first
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
    browser.execute_script("byId('find').value='';group.value='stalled';group.dispatchEvent(new Event('change'))")
    assert first_column(browser) == ["stalled"]
    for choice in ("pca", "change", "share", "group"):
        browser.execute_script(f"byId('colour').value='{choice}';byId('colour').dispatchEvent(new Event('change'))")
        script = "return [...document.querySelectorAll('#map path[data-id]')].map(p=>p.getAttribute('fill'))"
        fills = browser.execute_script(script)
        assert len(set(fills)) > 2
    browser.find_element("css selector", "td button").click()
    dialog = browser.find_element("id", "site")
    assert dialog.is_displayed()
    assert "stalled" in dialog.text
    assert browser.execute_script("return document.querySelector('#body img').naturalWidth") == 220
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
    assert browser.execute_script("return document.querySelector('#body img').clientHeight") >= 100
    assert texts(browser, "#body > .pair:first-child figcaption") == ["before: 2018", "after: 2024"]
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def ask(browser, script, *args):
    return browser.execute_script(f"return {script}", *args)


def texts(browser, css):
    return ask(browser, "[...document.querySelectorAll(arguments[0])].map(e=>e.textContent)", css)


def choose(browser, field, value):
    browser.execute_script(
        f"byId('{field}').value=arguments[0];byId('{field}').dispatchEvent(new Event('change'))", value
    )


def on_paper(browser, width=717):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 1046, "deviceScaleFactor": 1, "mobile": False}
    )


@pytest.fixture
def paper(browser):
    yield browser
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_map_shows_what_declines_and_who_is_who(browser, page):
    look(browser, page, 1280, 900)
    fill = "document.querySelector(`#map path[data-id='${arguments[0]}']`).getAttribute('fill')"
    assert ask(browser, fill, "stalled") == "#E69F00"
    assert ask(browser, fill, "cleared") == "#fff"  # its kind says that it isn't restoration
    assert ask(browser, fill, "pasture-fast") == "#0072B2"
    legend = browser.find_element("id", "legend").text
    for name in ("stalled", "no evidence", "reference site", "control site"):
        assert name in legend
    stroke = "getComputedStyle(document.querySelector(`#map path[data-id='${arguments[0]}']`)).stroke"
    strokes = {ask(browser, stroke, i) for i in ("forest-reference-1", "crop-control", "stalled")}
    assert len(strokes) == 3
    choose(browser, "colour", "share")
    assert ask(browser, fill, "stalled") != ask(browser, fill, "forest-reference-1")


def test_the_map_zooms_by_button_and_back(browser, page):
    look(browser, page, 390, 844)
    assert ask(browser, "document.querySelector('#map svg').clientHeight") >= 240
    assert ask(browser, "document.querySelector('#map svg').getAttribute('aria-hidden')") == "true"
    whole = ask(browser, "view")
    browser.execute_script("byId('in').click()")
    near = ask(browser, "view")
    assert near[2] == whole[2] / 2
    assert ask(browser, "document.querySelector('#map text').textContent").endswith("m")
    assert ask(browser, "getComputedStyle(document.querySelector('#map text')).fill") != "none"
    browser.execute_script("byId('out').click()")
    assert ask(browser, "view") == whole
    assert ask(browser, "byId('out').disabled")


def test_who_needs_a_visit_stands_above_the_list_with_links_to_maps(browser, page):
    look(browser, page, 390, 844)
    [text] = texts(browser, "#visit li")
    for words in ("stalled", "14.0 ha", "similarity to the references", "before: 2018"):
        assert words in text
    phone, web = ask(browser, "[...document.querySelectorAll('#visit a')].map(e=>e.href)")
    assert phone.startswith("geo:-22.35045,-48.03012?q=")
    assert web.startswith("https://www.openstreetmap.org/?mlat=-22.35045&mlon=-48.03012#map=")


def test_roles_can_be_seen_and_filtered(browser, page):
    look(browser, page, 1280, 900)
    assert "control" in texts(browser, "tr[data-id=crop-control] .role")
    choose(browser, "role", "reference")
    assert first_column(browser) == ["forest-reference-1", "forest-reference-2"]
    choose(browser, "group", "stalled")
    assert first_column(browser) == [None]
    assert "No site matches" in browser.find_element("id", "rows").text
    assert browser.find_element("id", "count").text == "no site matches"


def test_recovery_sorts_by_need_not_by_alphabet(browser, page):
    look(browser, page, 1280, 900)
    head = browser.find_element("css selector", "th[data-key=group] button")
    head.click()
    groups = ask(browser, "matchingSites().map(s=>s.group)")
    named = [g for g in groups if g]
    assert named == sorted(named, key=["recovering", "no evidence", "stalled"].index)
    assert groups[-1] is None


def test_experts_get_more_columns(browser, page):
    look(browser, page, 1280, 900)
    seen = "[...document.querySelectorAll('#rows th')].filter(e=>e.offsetWidth).map(e=>e.dataset.key)"
    assert "Rbar" not in ask(browser, seen)
    browser.find_element("id", "expert").click()
    assert {"q", "Rbar", "valid_fraction", "size_deg", "effective_pixels", "rank"} <= set(ask(browser, seen))


@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_the_table_fits_and_so_does_its_band(browser, page, width):
    look(browser, page, width, 800)
    assert ask(browser, "byId('rows').offsetWidth <= byId('rows').parentNode.clientWidth")
    assert ask(browser, "document.querySelector('tr[data-id=stalled] .band').offsetWidth") > 20


def test_bands_beyond_an_end_say_so(browser, page):
    look(browser, page, 1280, 900)
    assert ask(browser, "shareText(1,1,1)") == "99% or more"
    assert ask(browser, "shareText(0,0,0)") == "1% or less"
    assert ask(browser, "shareText(.9,.8,1)") == "90% (80% to 100%)"
    assert ask(browser, "shareCell({share:1,share_low:1,share_high:1}).textContent") == "\u226599%"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("[percent(.126), percent(null), decimals(1.26, 1), orDash(null)]", ["13%", "\u2013", "1.3", "\u2013"]),
        ("[signedPercent(.174), signedPercent(-.02)]", ["+17.4%", "\u22122.0%"]),
        ("[count(1, 'site'), count(1234, 'site')]", ["1 site", "1,234 sites"]),
        ("[hectares(.04), hectares(21)]", ["<0.1", "21.0"]),
        ("[rateText(.0002), rateText(.034), rateText(.12)]", ["<0.1%", "3.4%", "12%"]),
        ("[viridis(0), viridis(1), viridis(7)]", ["rgb(68,1,84)", "rgb(253,231,37)", "rgb(253,231,37)"]),
        ("consecutiveRuns([2018, 2019, 2021, 2022], [0, 1, 2, 3])", [[0, 1], [2, 3]]),
        ("[2, 10, null].map(v => ({n: v})).sort((a, b) => compareSites(a, b, 'n', true)).map(s => s.n)", [10, 2, None]),
        ("['site 10', 'site 9'].map(id => ({id})).sort((a, b) => compareSites(a, b, 'id'))[0].id", "site 9"),
        ("[plainText('São João'), plainText('ÁGUA')]", ["sao joao", "agua"]),
        ("compareSites({group: 'recovering'}, {group: 'declining'}, 'group') > 0", True),
    ],
)
def test_functions_of_the_script(browser, page, call, expected):
    look(browser, page, 1280, 900)
    assert ask(browser, call) == expected


def test_a_sheet_fits_a_small_desk(browser, page):
    look(browser, page, 1024, 768, "#pasture-fast")
    assert ask(browser, "[...document.querySelectorAll('#body .scroll')].every(e=>e.scrollWidth<=e.clientWidth)")
    assert ask(browser, "byId('site').scrollWidth<=byId('site').clientWidth")


def test_a_year_without_data_breaks_the_band(browser, page):
    look(browser, page, 1280, 900, "#pasture-fast")
    assert len(browser.find_elements("css selector", "#body svg.chart path.run")) == 2
    assert len(browser.find_elements("css selector", "#body svg.chart .gap")) == 3  # share, and both distances


def test_a_sheet_says_why_to_be_careful(browser, page):
    look(browser, page, 1280, 900)
    odd = "cautions({off_way_deg:50,n_pixels:4.2,Rbar:.5,valid_fraction:.4}).map(e=>e.textContent).join(' ')"
    said = ask(browser, odd)
    for words in ("something else", "about 4 pixels", "Mixed", "Only 40%"):
        assert words in said
    assert ask(browser, "cautions({off_way_deg:10,n_pixels:2000,Rbar:.95,valid_fraction:1}).length") == 0
    browser.execute_script("openSite(siteById.get('stalled'))")
    text = browser.find_element("id", "body").text
    assert "would reach" not in text
    assert "Where this comes from" in text
    assert "Synthetic values" in text


def test_back_closes_a_site_and_typed_names_open_it(browser, page):
    look(browser, page, 1280, 900)
    opened = "byId('site').open"
    browser.find_element("css selector", "td button").click()
    assert ask(browser, opened)
    browser.back()
    wait(browser, f"!{opened}")
    assert ask(browser, "document.documentElement.dataset.ready") == "yes"  # still this page
    browser.forward()
    wait(browser, opened)
    browser.find_element("id", "close").click()
    wait(browser, "location.hash===''")
    browser.execute_script("location.hash='#stalled'")
    wait(browser, opened)
    assert "stalled" in browser.find_element("id", "title").text
    browser.find_element("id", "close").click()
    wait(browser, "location.hash===''")


def wait(browser, script):
    script = f"const done=arguments[0],t=setInterval(()=>{{if({script}){{clearInterval(t);done(true);}}}},20)"
    assert browser.execute_async_script(script)


@pytest.mark.parametrize("name", ODD)
def test_odd_names_open(browser, odd_page, name):
    look(browser, odd_page, 390, 844)
    assert ask(browser, "document.documentElement.scrollWidth") <= 390
    browser.execute_script("openSite(siteById.get(arguments[0]))", name)
    assert ask(browser, "byId('title').textContent") == name
    assert ask(browser, "document.querySelector('.head').offsetHeight") < 120
    fragment = ask(browser, "location.hash")
    look(browser, odd_page, 390, 844, fragment)
    assert ask(browser, "byId('title').textContent") == name
    inner = ask(browser, "[site.scrollWidth, site.clientWidth]")
    assert inner[0] <= inner[1]
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def test_what_is_typed_needs_no_encoding(browser, odd_page):
    look(browser, odd_page, 1280, 900, "#100%")
    assert ask(browser, "byId('title').textContent") == "100%"
    look(browser, odd_page, 1280, 900, "#nobody")
    assert not ask(browser, "byId('site').open")


def test_many_sites_come_a_hundred_at_a_time(browser, long_page):
    look(browser, long_page, 390, 844)
    assert len(first_column(browser)) == 100
    assert ask(browser, "document.documentElement.scrollHeight") < 12_000
    browser.execute_script("byId('more').click()")
    assert len(first_column(browser)) == 200
    browser.find_element("id", "find").send_keys("site 249")
    assert first_column(browser) == ["site 249"]
    assert not browser.find_element("id", "more").is_displayed()


def test_paper_says_what_it_holds(paper, long_page, page):
    look(paper, long_page, 1280, 900)
    on_paper(paper)
    assert paper.find_element("id", "printed").text == "The first 100 of 250 sites."
    paper.execute_script("byId('find').value='site 24';restartList()")
    printed = paper.find_element("id", "printed").text
    assert printed == "11 of 11 sites that match (of 250); only: name with \u201csite 24\u201d."
    look(paper, page, 1280, 900)
    on_paper(paper)
    assert ask(paper, "byId('rows').scrollWidth<=document.querySelector('.scroll').clientWidth")
    paper.execute_script("byId('expert').click()")
    assert ask(paper, "byId('rows').scrollWidth<=document.querySelector('.scroll').clientWidth")
    size = "parseFloat(getComputedStyle(document.querySelector(arguments[0])).fontSize)"
    assert ask(paper, size, "td .band") <= ask(paper, size, "td.n")


def test_a_sheet_on_paper_keeps_title_note_and_origin(paper, page):
    look(paper, page, 1280, 900, "#pasture-fast")
    on_paper(paper)
    text = paper.find_element("css selector", "body").text
    for words in ("Did it work?", "Synthetic values", "pasture-fast", "Google DeepMind", "gee_polygons sample"):
        assert words in text
    assert "crop-to-forest" not in text
    assert ask(paper, "[...document.querySelectorAll('#sheet .scroll')].every(e=>e.scrollWidth<=e.clientWidth)")
    assert text.count("Year by year") == text.count("before: 2018") == 1


def test_contrast_and_names_for_screen_readers(browser, page):
    look(browser, page, 1280, 900, "#pasture-fast")
    script = """(()=>{const lum=c=>{
      const p=c.match(/\\d+/g).map(v=>{v/=255;return v<=.03928?v/12.92:((v+.055)/1.055)**2.4});
      return .2126*p[0]+.7152*p[1]+.0722*p[2]};let worst=99;
      for(let i=0;i<=200;i++){const t=i/200,l=lum(viridis(t)),ink=t>.43?0:1;
        worst=Math.min(worst,(Math.max(l,ink)+.05)/(Math.min(l,ink)+.05));}return worst;})()"""
    assert ask(browser, script) >= 4.5
    assert all(ask(browser, "[...document.querySelectorAll('svg[role=img]')].map(e=>e.getAttribute('aria-label'))"))
    assert ask(browser, "byId('count').getAttribute('aria-live')") == "polite"
    assert ask(browser, "document.querySelector('#list .scroll').tabIndex") == 0
