"""The page in Chromium: loads nothing, fits a telephone, can be read and reached in both themes, and prints.

Needs ``apt-get install chromium chromium-driver`` and ``pip install '.[browser]'``.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace

import pytest

from stemcodecs_pipelines.compare.page.write import write_page
from stemcodecs_pipelines.compare.report import Recommendation
from tests.pipelines.compare.made_up import made_up_report
from tests.pipelines.compare.page_elements import contrast

pytestmark = pytest.mark.browser

THEMES = ("light", "dark")
WIDTHS = (375, 1280)
A4_INNER = 673
"""Width in pixels of what is printed on A4 within margins of 16 mm."""


@pytest.fixture(scope="module")
def driver():
    pytest.importorskip("selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no chromium with its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Addresses of an ordinary page, and of one whose names are long and hostile."""
    folder = tmp_path_factory.mktemp("pages")
    report = made_up_report()
    write_page(report, folder / "ordinary.html")
    long = "<img src=http://example.org/x.png onerror=console.error(1)>" + "a_very_long_name" * 8
    named = [replace(row, name=f"{row.name} {long}", note=f"{row.note} {long}") for row in report.rows]
    advice = Recommendation(advice=(f"`{long}`", long), findings=(long,))
    write_page(
        replace(report, source=f"/{long}.h5", rows=named, recommendation=advice, command=long * 3, dataset=long),
        folder / "hostile.html",
    )
    return {path.stem: path.as_uri() for path in folder.iterdir()}


def show(driver, address, *, width=1280, theme="light", media="screen"):
    """Open a page as a screen of some width and theme, or paper, would show it."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    driver.get(address)


@pytest.mark.parametrize("name", ["ordinary", "hostile"])
def test_loads_nothing_and_has_nothing_to_say_to_the_console(driver, pages, name):
    for kind in ("performance", "browser"):
        driver.get_log(kind)
    show(driver, pages[name])
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert pages[name] in asked
    assert [url[:80] for url in asked if url != pages[name] and not url.startswith("data:")] == []
    assert driver.get_log("browser") == []


def test_every_picture_is_drawn(driver, pages):
    show(driver, pages["ordinary"])
    sizes = driver.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth])")
    assert len(sizes) > 20
    assert all(complete and natural > 0 and shown > 0 for complete, natural, shown in sizes)


@pytest.mark.parametrize("width", [320, *WIDTHS])
@pytest.mark.parametrize("name", ["ordinary", "hostile"])
def test_page_is_not_wider_than_its_window(driver, pages, name, width):
    show(driver, pages[name], width=width)
    assert driver.execute_script("return document.documentElement.scrollWidth") == width
    # Nothing but what scrolls by itself goes beyond the edge.
    beyond = driver.execute_script(
        """return [...document.body.querySelectorAll("*")].filter(e => !e.closest(".scroll, pre, .skip, svg")
             && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200))"""
    )
    assert beyond == []


def test_text_is_large_enough_on_a_telephone(driver, pages):
    """Type in plots shrinks with them: it stays above nine pixels."""
    show(driver, pages["ordinary"], width=375)
    sizes = driver.execute_script(
        """return [...document.querySelectorAll("svg.plot text")].map(t =>
             parseFloat(getComputedStyle(t).fontSize) * Math.abs(t.getScreenCTM().a || t.getScreenCTM().b))"""
    )
    assert len(sizes) > 50
    assert min(sizes) >= 9


COLOURS = """
const solid = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$/.test(c)) return c; }
  return "none"; };
const out = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || !e.getClientRects().length) continue;
  const style = getComputedStyle(e);
  out.push([e.closest("svg") ? style.fill : style.color, solid(e), walk.currentNode.data.trim().slice(0, 40)]);
}
return out;
"""


def rgb(colour):
    parts = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert parts, colour
    return tuple(int(part) for part in parts.groups())


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_text_stands_out_in_both_themes(driver, pages, theme, width):
    show(driver, pages["ordinary"], theme=theme, width=width)
    found = driver.execute_script(COLOURS)
    assert len(found) > 300
    papers = {rgb(paper) for _, paper, _ in found}
    assert (max(papers)[0] < 80) == (theme == "dark"), papers
    weak = {(text, colour, paper) for colour, paper, text in found if contrast(rgb(colour), rgb(paper)) < 4.5}
    assert weak == set()


def focused(driver):
    return driver.execute_script(
        """const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
           return {tag: e.tagName, name: e.getAttribute("href") || e.getAttribute("aria-labelledby")
                   || e.getAttribute("aria-label"), outline: s.outlineStyle !== "none" && parseFloat(s.outlineWidth),
                   seen: r.right > 0 && r.bottom > 0 && r.left < innerWidth && r.top < innerHeight}"""
    )


def test_everything_is_reached_by_keyboard_and_seen_to_be(driver, pages):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(driver, pages["ordinary"], width=375)
    order = []
    for _ in range(20):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        here = focused(driver)
        if here["tag"] == "BODY":
            break
        assert here["outline"] >= 2, here
        assert here["seen"], here
        order.append(here["name"])
    sections = ["recommendation", "sizes", "speed", "loss", "data", "reconstruction", "measured"]
    tables = [f"{name}-caption" for name in ("methods", "left-out", "losses")]
    assert order == ["#main", *(f"#{name}" for name in sections), *tables, "Command"]


def test_table_is_scrolled_by_keyboard_and_the_names_of_methods_stay(driver, pages):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(driver, pages["ordinary"], width=375)
    driver.execute_script("document.querySelector('.scroll').focus()")
    ActionChains(driver).send_keys(*[Keys.ARROW_RIGHT] * 8).perform()
    place = """const r = document.querySelector(".scroll"), t = r.querySelector('tbody th[scope="row"]');
               return [r.scrollLeft, t.getBoundingClientRect().left - r.getBoundingClientRect().left]"""
    deadline = 50
    while (scrolled := driver.execute_script(place))[0] < 60 and deadline:
        deadline -= 1
    assert scrolled[0] >= 60
    assert abs(scrolled[1]) <= 1


def test_skip_link_leads_to_the_recommendation(driver, pages):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(driver, pages["ordinary"])
    ActionChains(driver).send_keys(Keys.TAB).send_keys(Keys.ENTER).perform()
    assert driver.execute_script("return document.activeElement.id") == "main"


def test_what_a_screen_reader_is_told(driver, pages):
    """The tree that assistive technology gets: names of regions, tables with heads, pictures with words."""
    show(driver, pages["ordinary"])
    nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    told = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    roles = [role for role, _ in told]
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert roles.count(landmark) == 1, landmark
    assert roles.count("table") == 3
    assert ("columnheader", "Ratio") in told
    assert ("rowheader", "pixel_histogram") in told
    assert ("region", "Recommendation") in told
    unnamed = [role for role, name in told if role in {"image", "link", "region", "table", "list"} and not name]
    assert [role for role in unnamed if role != "list"] == []


@pytest.mark.parametrize("name", ["ordinary", "hostile"])
def test_paper_is_white_and_holds_the_tables(driver, pages, name):
    show(driver, pages[name], theme="dark", media="print", width=A4_INNER)
    assert driver.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert driver.execute_script("return getComputedStyle(document.querySelector('nav')).display") == "none"
    if name == "ordinary":
        wide = driver.execute_script(
            "return [...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)"
        )
        assert max(wide) <= 0
    pdf = driver.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    data = base64.b64decode(pdf["data"])
    assert data.startswith(b"%PDF")
    pages_printed = len(re.findall(rb"/Type\s*/Page\b(?!s)", data))
    assert 4 <= pages_printed <= 30
