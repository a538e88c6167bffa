"""The report in a real browser: headless Chromium reads the page on the committed result and an index over it."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import NO_BROWSER

from qsim.report import write, write_index
from qsim.studies.result import read_result

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "reports" / "variance-vs-batch" / "result.json"

pytestmark = pytest.mark.xdist_group("browser")  # one browser, on one worker of the tests

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--window-size=1200,900",
)  # fmt: skip
"""What a browser needs that may be started by root, in a container and without a network."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Start the system's Chromium with an empty profile, and end it."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip(NO_BROWSER)
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = Chrome(options=options, service=ChromeService(driver))
    try:
        yield started
    finally:
        started.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page on the committed result."""
    return write(read_result(COMMITTED), tmp_path_factory.mktemp("report"))["report.html"]


def opened(browser: Chrome, path: Path) -> Chrome:
    """Open a file as a reader would by a double click."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    browser.get(path.as_uri())
    from selenium.webdriver.support.ui import WebDriverWait

    # On a busy machine the page before may still be there.
    there = f"return document.readyState === 'complete' && location.href === {json.dumps(path.as_uri())}"
    WebDriverWait(browser, 30).until(lambda one: one.execute_script(there))
    return browser


def run(browser: Chrome, script: str) -> Any:
    """Return what a script returns."""
    return browser.execute_script(script)


def test_no_error_and_no_request(browser: Chrome, page: Path, tmp_path: Path) -> None:
    """The console stays empty, and nothing is asked for but the page itself; the same of an index over reports."""
    shutil.copytree(page.parent, tmp_path / "a")
    for path in (page, write_index(tmp_path)):
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        opened(browser, path)
        run(browser, "document.querySelectorAll('details').forEach(item => item.open = true)")
        assert browser.get_log("browser") == []
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        requests = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        # The browser's own first page may still be at it.
        asked = {it["request"]["url"] for it in requests if it["documentURL"] == path.as_uri()}
        assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
    link = run(browser, "return document.querySelector('td a').href")
    assert link == (tmp_path / "a" / "report.html").as_uri()


def test_every_figure_has_size_and_a_text_alternative(browser: Chrome, page: Path) -> None:
    """Each panel is drawn, within the page, and says to a screen reader what it shows."""
    panels = run(opened(browser, page), """
        return [...document.querySelectorAll("figure svg")].map(svg => {
            const box = svg.getBoundingClientRect();
            const words = svg.getAttribute("aria-labelledby").split(" ").map(id => document.getElementById(id).textContent);
            return [box.width, box.height, box.right <= innerWidth, svg.getAttribute("role"), ...words];
        })""")  # fmt: skip
    assert len(panels) == sum(len(figure.panels) for figure in read_result(COMMITTED).figures)
    for width, height, within, role, title, description in panels:
        assert width > 250
        assert height > 80
        assert (within, role) == (True, "img")
        assert len(title) > 10
        assert len(description) > 40


@pytest.mark.parametrize(("width", "columns"), [(1200, 2), (690, 1), (360, 1)])
def test_panels_stand_side_by_side_or_below_each_other(browser: Chrome, page: Path, width: int, columns: int) -> None:
    """Two panels share a row on a wide screen; on a narrow one each has a row of its own, and none is cut off."""
    screen = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        places = run(opened(browser, page), """
            return [...document.querySelector(".of2").querySelectorAll("svg")].map(svg => {
                const box = svg.getBoundingClientRect();
                return [box.left, box.right, box.top];
            })""")  # fmt: skip
        assert len({top for _, _, top in places}) == 3 - columns
        assert all(0 <= left < right <= width for left, right, _ in places)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_long_table_can_be_filtered(browser: Chrome, page: Path) -> None:
    """What is typed above a long table keeps the rows that hold every word, and says how many; sorting keeps them."""
    from selenium.webdriver.common.by import By

    opened(browser, page)
    run(browser, "document.getElementById('table-exact').open = true")
    texts = run(browser, "return [...document.querySelectorAll('#table-exact tbody tr')].map(row => row.textContent)")
    box = browser.find_element(By.CSS_SELECTOR, "#table-exact input")
    box.send_keys("INT4 bwd_grad")
    wanted = sum("int4" in text.lower() and "bwd_grad" in text for text in texts)
    assert 0 < wanted < len(texts)
    shown = "return [...document.querySelectorAll('#table-exact tbody tr')].filter(row => row.offsetHeight).length"
    assert run(browser, shown) == wanted
    assert run(browser, "return document.querySelector('#table-exact .filter').textContent").endswith(
        f"{wanted} of {len(texts)}"
    )
    browser.find_element(By.CSS_SELECTOR, "#table-exact th button").click()
    assert run(browser, shown) == wanted


def test_tables_sort_by_a_click_and_by_the_keyboard(browser: Chrome, page: Path) -> None:
    """A click on a column's name sorts by its numbers, a second one the other way round; the Enter key does the same."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, page)
    tables = browser.find_elements(By.CSS_SELECTOR, "table.sortable")
    assert len(tables) >= 5
    run(browser, "document.getElementById('table-bias').open = true")
    values = "return [...document.querySelectorAll('#table-bias tbody tr')].map(row => row.cells[3].dataset.key)"
    before = [float(key) for key in run(browser, values)]
    button = browser.find_element(By.CSS_SELECTOR, "#table-bias th:nth-child(4) button")
    button.click()
    assert [float(key) for key in run(browser, values)] == sorted(before) != before
    button.send_keys(Keys.ENTER)
    assert [float(key) for key in run(browser, values)] == sorted(before, reverse=True)
    assert run(browser, "return document.querySelector('#table-bias th:nth-child(4)').ariaSort") == "descending"
    browser.find_element(By.CSS_SELECTOR, "#table-bias th:nth-child(1) button").click()
    names = run(
        browser, "return [...document.querySelectorAll('#table-bias tbody tr')].map(r => r.cells[0].textContent)"
    )
    assert names == sorted(
        names, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name.lower())]
    )


def test_verdicts_come_first_and_the_contents_lead_to_what_they_name(browser: Chrome, page: Path) -> None:
    """The contents stay in sight, the verdicts stand above the claims, and every link leads to a place on the page."""
    heights = run(opened(browser, page), """
        return ["nav", "#answer", "#verdicts", "#claims", "#faults", "#setup"].map(
            name => document.querySelector(name).getBoundingClientRect().top)""")  # fmt: skip
    assert heights == sorted(heights)
    missing = run(browser, """
        return [...document.querySelectorAll("a[href^='#']")].map(a => a.getAttribute("href").slice(1))
            .filter(id => !document.getElementById(id))""")  # fmt: skip
    assert missing == []
    assert run(browser, "return document.querySelectorAll('nav a').length") >= 5
    run(browser, "scrollTo(0, document.body.scrollHeight / 2)")
    assert run(browser, "return document.querySelector('nav').getBoundingClientRect().top") == 0
    run(browser, "location.hash = '#table-exact'")
    assert run(browser, "return document.getElementById('table-exact').open") is True


CONTRAST = """
    const parts = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const light = text => {
        const [r, g, b] = parts(text).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = node => {
        for (let at = node; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (colour !== "rgba(0, 0, 0, 0)") return colour;
        }
        return "rgb(255, 255, 255)";
    };
    return [
        "body", "p", "a", ".quiet", "dt", "figcaption", ".good", ".mark.good", ".mark.bad", "th", "td", "pre", "footer",
    ].map(name => {
        const node = document.querySelector(name);
        if (!node) return [name, 21];
        const pair = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
        return [name, (pair[0] + 0.05) / (pair[1] + 0.05)];
    })"""


HUES = (
    CONTRAST.partition("return [")[0]
    + """
    const root = getComputedStyle(document.documentElement), paper = light(getComputedStyle(document.body).backgroundColor);
    const probe = document.body.appendChild(document.createElement("i"));
    const found = [...Array(10).keys()].map(i => {
        probe.style.color = root.getPropertyValue(`--c${i}`);
        const pair = [light(getComputedStyle(probe).color), paper].sort((a, b) => b - a);
        return [i, (pair[0] + 0.05) / (pair[1] + 0.05)];
    });
    probe.remove();
    return found"""
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_in_light_and_in_dark(browser: Chrome, page: Path, scheme: str) -> None:
    """In either scheme words have a contrast of 4.5 and marks one of 3 to what is behind them (WCAG 2.2, 1.4.3 and 1.4.11)."""
    opened(browser, page)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    background = run(browser, "return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 28)"}[scheme]
    assert [(name, ratio) for name, ratio in run(browser, CONTRAST) if ratio < 4.5] == []
    drawn = run(
        browser,
        """
        const of = (name, what) => getComputedStyle(document.querySelector(name))[what];
        return [of(".qf text", "fill"), of("body", "color"), of(".qf .m", "fill"), of("body", "backgroundColor")]""",
    )
    assert drawn[0] == drawn[1]
    assert drawn[2] == drawn[3]
    faint = run(browser, HUES)
    assert [(name, ratio) for name, ratio in faint if ratio < 3] == []


def test_a_narrow_screen_does_not_scroll_sideways(browser: Chrome, page: Path) -> None:
    """On a telephone the page is as wide as the screen; what is wider scrolls within itself."""
    opened(browser, page)
    screen = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        assert run(browser, "return document.documentElement.scrollWidth") <= 360
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_prints_with_its_tables_open_and_on_white(browser: Chrome, page: Path) -> None:
    """On paper all is white, tables are open, their heads repeat, the long ones have ten rows, and ten pages are enough."""
    opened(browser, page)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    assert run(browser, "return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert run(browser, "return getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    repeated = "return [...document.querySelectorAll('thead')].map(head => getComputedStyle(head).display)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert set(run(browser, repeated)) == {"table-header-group"}  # printed again at the top of each page
    rows = "return [...document.querySelector('#table-exact tbody').rows].filter(row => row.offsetHeight).length"
    run(browser, "document.getElementById('table-exact').open = true")
    assert run(browser, rows) == 10
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF")
    assert run(browser, "return [...document.querySelectorAll('details')].every(item => item.open)") is True
    assert 5 < len(re.findall(rb"/Type\s*/Page\b", printed)) <= 10
