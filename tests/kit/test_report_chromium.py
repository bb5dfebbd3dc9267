"""report.html in a real browser: it opens in silence, everything unfolds by keyboard, can be read, and is all there on paper."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser
import pypdf
import pytest
from report_samples import sample

from snapspec.conformance.report.page import page

pytestmark = [
    pytest.mark.skipif(bool(browser.NO_CHROMIUM), reason=browser.NO_CHROMIUM),
    pytest.mark.xdist_group("chromium"),
]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """One browser for all tests."""
    with browser.started(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the sample."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(sample()), encoding="utf-8")
    return path


#: Each picture: how large it is, what it is called and how it is told, and whether all its texts are within it.
PICTURES = """[...document.querySelectorAll("svg.picture, svg.lanes")].map((svg) => {
  const box = svg.getBoundingClientRect();
  const inside = [...svg.querySelectorAll("text")].every((text) => text.getBoundingClientRect().right <= box.right + 8);
  const words = (name) => svg.querySelector(name).textContent;
  return {kind: svg.classList[0], width: box.width, height: box.height, title: words("title"), told: words("desc"), inside};
})"""

UNFOLD = "document.querySelectorAll('details').forEach((element) => { element.open = true; })"


def test_it_opens_without_an_error_or_a_request(chromium: browser.Browser, file: Path) -> None:
    chromium.look()
    chromium.open(file)
    chromium.value(UNFOLD)
    chromium.value("document.getElementById('unfold').click()")
    assert chromium.errors == []
    assert chromium.urls == [file.as_uri()]
    assert chromium.value("document.title") == "failed: a driver against the snapspec"


def test_the_browser_of_these_tests_hears_an_error_and_a_request(chromium: browser.Browser, tmp_path: Path) -> None:
    """Else silence would prove nothing."""
    loud = tmp_path / "loud.html"
    loud.write_text("<script>console.log('x')</script><img src='other.png'>")
    chromium.open(loud)
    assert chromium.errors
    assert (tmp_path / "other.png").as_uri() in chromium.urls


def test_every_finding_is_reached_and_unfolded_by_keyboard(chromium: browser.Browser, file: Path) -> None:
    chromium.look()
    chromium.open(file)
    chromium.key("Tab")
    assert chromium.value("document.activeElement.className") == "skip", "the first stop skips what comes before"
    assert chromium.value("document.activeElement.getBoundingClientRect().left >= 0"), "and is seen then"
    unfolded = []
    for _ in range(150):
        chromium.key("Tab")
        at = chromium.value(
            "document.activeElement.matches('details.finding > summary') ? document.activeElement.parentElement.id : ''"
        )
        if at:
            assert chromium.value("getComputedStyle(document.activeElement).outlineStyle") == "solid", "it is seen where one is"
            chromium.key("Enter", "\r")
            assert chromium.value(f"document.getElementById('{at}').open")
            unfolded.append(at)
        if len(unfolded) == len(sample().findings):
            break
    assert unfolded == [f"finding-{found.number}" for found in sample().findings]


def test_the_pictures_are_there(chromium: browser.Browser, file: Path) -> None:
    chromium.look()
    chromium.open(file)
    chromium.value(UNFOLD)
    sizes: list[dict[str, Any]] = chromium.value(PICTURES)
    drawn = [picture for found in sample().findings for picture in found.pictures if picture.boxes]
    assert [size["title"] for size in sizes if size["kind"] == "picture"] == [picture.title for picture in drawn]
    assert sum(size["kind"] == "lanes" for size in sizes) == 2
    assert all(size["width"] > 40 and size["height"] > 40 and size["told"] and size["inside"] for size in sizes)
    boxes = chromium.value("document.querySelectorAll('.picture .box').length")
    assert boxes == sum(len(picture.boxes) for picture in drawn)
    assert chromium.value("document.querySelectorAll('.strip.broken').length") == 2


#: The contrast of each text with what is behind it, the worst first.
CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read(chromium: browser.Browser, file: Path, dark: bool) -> None:
    chromium.look(dark=dark)
    chromium.open(file)
    chromium.value(UNFOLD)
    background = chromium.value("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 23, 27)") is dark
    found = chromium.value(CONTRAST)
    assert len(found) > 300
    assert found[0][0] >= 4.5, found[:5]


@pytest.mark.parametrize("width", [380, 800])
def test_nothing_is_wider_than_the_window(chromium: browser.Browser, file: Path, width: int) -> None:
    chromium.look(width=width)
    chromium.open(file)
    chromium.value(UNFOLD)
    assert chromium.value("document.documentElement.scrollWidth") <= width
    beyond = chromium.value(
        f"[...document.body.querySelectorAll('*')].filter((e) => !e.closest('.scroll, .symbols, .skip, .unseen') && "
        f"e.checkVisibility() && e.getBoundingClientRect().right > {width} + 0.5).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert beyond == []


def test_the_printed_page_holds_every_finding_and_every_clause(chromium: browser.Browser, tmp_path: Path) -> None:
    some = replace(sample(), levels=sample().levels[:2], expected=(), versions={})  # fewer pages are read sooner
    file = tmp_path / "report.html"
    file.write_text(page(some), encoding="utf-8")
    chromium.look(width=718)
    chromium.open(file)
    text = "".join("".join(sheet.extract_text().split()) for sheet in pypdf.PdfReader(io.BytesIO(chromium.pdf())).pages)
    for found in sample().findings:
        for row in found.rows:
            assert "".join(row.call.split()) in text
        for picture in found.pictures:
            assert "".join(picture.title.split())[:40] in text
        assert "".join(found.again.split()) in text
    for level in some.levels:
        assert all(clause.id in text for clause in level.clauses)


def test_no_table_is_cut_off_on_paper(chromium: browser.Browser, file: Path) -> None:
    chromium.look(width=718)
    chromium.open(file)
    chromium.send("Emulation.setEmulatedMedia", media="print")
    beyond = chromium.value(
        "[...document.querySelectorAll('table, svg.picture, svg.lanes, pre')].filter((e) => "
        "e.getBoundingClientRect().right > 718.5).map((e) => e.outerHTML.slice(0, 200))"
    )
    folded = chromium.value("[...document.querySelectorAll('details > *')].filter((e) => !e.checkVisibility()).length")
    chromium.send("Emulation.setEmulatedMedia", media="")
    assert beyond == []
    assert folded == 0


def test_what_is_shown_can_be_narrowed(chromium: browser.Browser, file: Path) -> None:
    chromium.look()
    chromium.open(file)
    shown = "[...document.querySelectorAll('details.finding')].filter((e) => !e.hidden).map((e) => e.id)"
    typed = "(() => {{ const e = document.getElementById('filter-{}'); e.value = '{}'; e.dispatchEvent(new Event('{}')); }})()"
    chromium.value(typed.format("text", "prune PARENT", "input"))
    assert chromium.value(shown) == ["finding-6"]
    chromium.value(typed.format("text", "", "input"))
    chromium.value(typed.format("verdict", "expected-failure", "change"))
    assert chromium.value(shown) == ["finding-2"]
    rows = chromium.value(
        "[...document.querySelectorAll('.clauses tbody tr')].filter((e) => !e.hidden).map((e) => e.dataset.verdict)"
    )
    assert set(rows) == {"expected-failure"}
    chromium.value(typed.format("text", "no such words", "input"))
    assert chromium.value("[...document.querySelectorAll('.none-left')].every((e) => !e.hidden)")


def test_without_scripts_all_is_there_but_the_filter(chromium: browser.Browser, file: Path) -> None:
    chromium.look()
    chromium.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(file)
        chromium.send("DOM.enable")
        root = chromium.send("DOM.getDocument", depth=1)["root"]["nodeId"]
        there = {name: len(chromium.send("DOM.querySelectorAll", nodeId=root, selector=name)["nodeIds"]) for name in SELECTORS}
    finally:
        chromium.send("Emulation.setScriptExecutionDisabled", value=False)
    assert there == {"details.finding > summary": len(sample().findings), "#filter[hidden]": 1, "#unfold[hidden]": 1}


SELECTORS = ("details.finding > summary", "#filter[hidden]", "#unfold[hidden]")
