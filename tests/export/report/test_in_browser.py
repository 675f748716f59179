"""The page in a real browser: it sorts, filters, opens what a link names, and prints all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_reports as made
import pytest
from browser import chromium

from export.report.html import write_html
from fx_passes.plan import Choice, Plan

SITES = [made.finding(f"conv_{i}", taps=(3 + i,), groups=2 + i) for i in range(12)]
REFUSED = [made.finding(f"other_{i}", groups=40 - i, reason=f"group {i} differs") for i in range(3)]
NAMES = "[...document.querySelectorAll('#site-table tbody tr:not([hidden]) th')].map(one => one.textContent)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The browser of all tests."""
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """A report of 15 sites in a window, whose requests and errors are collected."""
    file = tmp_path / "report.html"
    write_html(made.report(SITES, REFUSED, speed=made.timing(1.7)), file)
    with browser.new_context(viewport={"width": 1200, "height": 900}) as context:
        page = context.new_page()
        page.wrong, page.asked = [], []
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda said: page.wrong.append(said.text))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(file.as_uri())
        yield page
        assert page.wrong == []
        assert {url.partition(":")[0] for url in page.asked} <= {"file", "data"}


def test_it_sorts(page: Any) -> None:
    """By numbers as numbers, by names as people count, up and down; a reader hears the order."""
    head = page.get_by_role("columnheader", name="groups")
    page.get_by_role("button", name="groups").click()
    assert head.get_attribute("aria-sort") == "ascending"
    names = page.evaluate(NAMES)
    assert names == [f"conv_{i}" for i in range(12)] + ["other_2", "other_1", "other_0"]
    page.get_by_role("button", name="groups").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert page.evaluate(NAMES) == names[::-1]
    page.get_by_role("button", name="site", exact=True).click()
    assert head.get_attribute("aria-sort") == "none"
    assert page.evaluate(NAMES)[:3] == ["conv_0", "conv_1", "conv_2"]
    assert page.evaluate(NAMES)[10:12] == ["conv_10", "conv_11"]
    page.get_by_role("button", name="error / bound").click()
    smallest_first = [f"conv_{i}" for i in reversed(range(12))]
    assert page.evaluate(NAMES) == [*smallest_first, "other_0", "other_1", "other_2"]


def test_it_sorts_by_keyboard(page: Any) -> None:
    """Tab and Enter do what a click does, and the focus stays."""
    page.get_by_role("button", name="groups").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.evaluate(NAMES)[0] == "other_0"
    assert page.evaluate("document.activeElement.textContent") == "groups"


def test_it_filters(page: Any) -> None:
    """By words in any column and by the result; the number of rows is announced."""
    count = page.get_by_role("status")
    page.get_by_role("searchbox", name="Filter").fill("DIFFERS other")
    assert page.evaluate(NAMES) == ["other_0", "other_1", "other_2"]
    assert count.inner_text() == "3 of 15 sites"
    page.get_by_role("searchbox", name="Filter").fill("conv_1 ")
    assert page.evaluate(NAMES) == ["conv_1", "conv_10", "conv_11"]
    page.get_by_role("searchbox", name="Filter").fill("")
    page.get_by_role("combobox", name="Result").select_option("refused")
    assert page.evaluate(NAMES) == ["other_0", "other_1", "other_2"]
    page.get_by_role("button", name="groups").click()
    assert page.evaluate(NAMES) == ["other_2", "other_1", "other_0"]
    page.keyboard.press("Enter")
    assert page.url.endswith("report.html")


def test_a_link_opens_its_kind(page: Any) -> None:
    """The number of a row leads to the closed section, opens it, and puts the focus there; again as well."""
    section = page.locator("#kind-9")
    for _ in range(2):
        assert section.get_attribute("open") is None
        page.get_by_role("link", name="Kind 9 of site conv_8").click()
        page.locator("#kind-9 > summary:focus").wait_for(timeout=10_000)
        assert section.get_attribute("open") is not None
        section.evaluate("one => { one.open = false; }")


def test_pictures_of_closed_kinds_are_drawn_in_the_table(page: Any) -> None:
    """A row shows the kernel of its kind, though the section of the kind is closed."""
    box = "document.querySelectorAll('.mini')[11].querySelector('use').getBBox().height"
    assert page.evaluate(box) > 10


def test_all_is_printed(page: Any) -> None:
    """Closed sections open for the printer, and the paper is white in a dark browser too."""
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 25, 31)"
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert page.evaluate("[...document.querySelectorAll('details.kind')].every(one => one.open)")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_narrow_window_scrolls_in_the_tables_only(page: Any) -> None:
    """At 400 pixels the page itself has no horizontal scroll bar."""
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 400


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(page: Any, scheme: str) -> None:
    """Every text stands out from what is behind it by 4.5 to 1 (WCAG 2.2, level AA)."""
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate(CONTRAST) == []


CONTRAST = """() => {
  const light = (c) => { const [r, g, b] = c.map(v => v / 255).map(v => v <= .03928 ? v / 12.92
    : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const parse = (s) => s.match(/[\\d.]+/g).map(Number);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c.slice(0, 3); }
    return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), svg = e instanceof SVGElement;
    const a = light(parse(svg ? style.fill : style.color).slice(0, 3)), b = light(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.push([e.outerHTML.slice(0, 80), ratio]);
  }
  return found;
}"""


def test_218_sites_are_few_elements(browser: Any, tmp_path: Path) -> None:
    """What a browser lays out grows by a few dozen elements with a site, so that the page of a vocoder opens
    in a moment."""
    taps = ((12,), (11, 11), (5, 5, 5))
    sites = [made.finding(f"layers.{i}.conv", taps=taps[i % 3]) for i in range(218)]
    plan = Plan({one.id: Choice(f"key{i % 60}", made.WAY) for i, one in enumerate(sites)})
    file = tmp_path / "many.html"
    write_html(made.report(sites, plan=plan, speed=made.timing(1.4)), file)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(file.as_uri())
        assert page.evaluate("document.querySelectorAll('#site-table tbody tr').length") == 218
        assert page.evaluate("document.querySelectorAll('*').length") < 40 * 218
