"""report.html and summary.md as texts: whole, in order, and safe from whatever a driver says."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import HOSTILE, sample
from test_report_json import reports

from snapspec.conformance.clauses import clauses
from snapspec.conformance.report.document import Report, Verdict
from snapspec.conformance.report.markdown import FINDINGS, code, plain, summary
from snapspec.conformance.report.page import headline, page
from snapspec.conformance.report.plain import MOST, differing, duration, visible

#: Elements that have no end.
VOID = {"meta", "link", "input", "br"}


class Outline(HTMLParser):
    """The elements of a page: `wrong` holds what does not close, `headings` their levels, `ids` and `links` the anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.counts: dict[str, int] = {}
        self.feed(text)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.attributes.update(name for name, _ in attrs)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name == "href"]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"/{tag}")


def outline(report: Report) -> Outline:
    return Outline(page(report))


def test_the_page_is_whole_and_has_everything_in_order() -> None:
    there = outline(sample())
    assert not there.wrong
    assert there.headings[0] == 1
    assert there.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(there.headings, there.headings[1:], strict=False))
    assert len(there.ids) == len(set(there.ids))
    assert {link[1:] for link in there.links if link.startswith("#")} <= set(there.ids)
    assert there.counts["main"] == there.counts["nav"] == there.counts["header"] == there.counts["footer"] == 1
    assert there.counts["caption"] == there.counts["table"]


def test_nothing_in_the_page_runs_or_leads_anywhere_but_what_the_kit_wrote() -> None:
    text = page(sample())
    there = Outline(text)
    assert there.counts["script"] == 1
    assert "img" not in there.counts
    assert not [name for name in there.attributes if name.startswith("on") or name in ("style", "src")]
    assert [link for link in there.links if not link.startswith("#")] == ["data:,", "https://example.org/issues/1"]
    assert "default-src 'none'" in unescape(text)
    assert "unsafe" not in text


def test_what_is_hostile_stands_there_as_text() -> None:
    text = page(sample())
    assert "&lt;/script&gt;&lt;/code&gt;&lt;img src=x onerror=alert(1)&gt;\\x1b[31m\\u202egnp\\x00\\ud800" in text
    assert f"({len(HOSTILE) - MOST} characters more)" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    text.encode("utf-8")


@settings(max_examples=20)
@given(reports)
def test_any_report_gives_a_whole_page_and_a_summary(report: Report) -> None:
    there = outline(report)
    assert not there.wrong
    assert there.counts["h1"] == 1
    assert summary(report).startswith("# ")


def test_each_level_each_verdict_and_each_clause_is_in_the_page() -> None:
    text, report = page(sample()), sample()
    for level in report.levels:
        for clause in level.clauses:
            assert f'<th scope="row">{clause.id}</th>' in text
    for verdict in Verdict:
        assert f'id="v-{verdict.value.replace(" ", "-")}"' in text, "each has a shape"
    assert "The empty key never names a snapshot" in text
    assert "SNAP-KEY-2" in clauses()


def test_a_report_without_findings_says_so() -> None:
    good = replace(sample(), findings=(), verdict=Verdict.PASSED, expected=())
    text = page(good)
    assert "<p>None.</p>" in text
    assert "nothing found that the spec does not allow" in headline(good)
    assert "Findings</a>" not in text
    assert "## " not in summary(good).split("## The run")[0]


# --- summary.md


def test_the_summary_tells_findings_with_their_histories_and_how_to_repeat_them() -> None:
    text = summary(sample())
    assert text.startswith("# ❌ failed: a driver 1.2\n")
    assert "   4  remove('b') -> done    <- breaks SNAP-REMOVE-2\n" in text
    assert "- SNAP-REMOVE-2: allowed `FailedPrecondition`, came `success`\n" in text
    assert "```sh\nsnapspec replay 1.json 'py:broken:x'\n```" in text
    assert "longest legal order" in text
    assert "<https://example.org/issues/1>" in text
    assert "seed 7" in text


def test_nothing_hostile_ends_a_block_or_a_cell_of_the_summary() -> None:
    text = summary(sample())
    fences = [line for line in text.split("\n") if re.fullmatch("`{3,}[a-z]*", line)]
    assert len(fences) % 2 == 0
    for opening, closing in zip(fences[::2], fences[1::2], strict=True):
        assert re.sub("[a-z]", "", opening) == closing
    rows = [line for line in text.split("\n") if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7, 4}
    outside = re.sub(r"^(`{3,})[a-z]*\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"(`+).*?\1", "", outside.replace("\\`", ""))
    assert "javascript" in prose
    assert not re.search(r"(?<!\\)(<img|\]\(|@me|\*\*b)", prose)


def test_the_summary_of_very_many_findings_fits_a_page() -> None:
    one = sample().findings[1]
    text = summary(replace(sample(), findings=tuple(replace(one, number=n) for n in range(200))))
    assert f"{200 - FINDINGS} more are in report.html." in text
    assert len(text.encode()) < 1 << 20


@given(st.text())
def test_a_text_within_a_line_is_one_line_and_ends_where_it_is_to(text: str) -> None:
    assert "\n" not in plain(text) + code(text)
    shown = code(text)
    if shown:
        ticks = re.match("`+", shown)
        assert ticks is not None
        assert not [run for run in re.findall("`+", shown[len(ticks[0]) : -len(ticks[0])]) if len(run) == len(ticks[0])]


# --- texts


@given(st.text(st.characters(), max_size=30))
def test_what_is_shown_can_be_seen(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert (
        all(character.isprintable() or character in "\n\t" or character.isspace() for character in shown)
        or not text.isprintable()
    )
    if text.isascii() and text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    "unseen", ["\x00", "\x1b", "\x7f", "\x85", "\u200b", "\u202e", "\u2066", "\ufeff", "\udcff", "\U000e0041"]
)
def test_what_cannot_be_seen_is_spelled(unseen: str) -> None:
    assert visible(f"a{unseen}b") == f"a{ascii(unseen)[1:-1]}b"


def test_the_part_that_differs_is_told() -> None:
    one, other = differing("labels {'c': '3'}, kind active", "labels {}, kind active")
    assert "".join(text for text, _ in one) == "labels {'c': '3'}, kind active"
    assert [text for text, differs in one if differs] == ["'c': '3'"]
    assert not [text for text, differs in other if differs]
    assert differing("success", "NotFound: nothing") == ([("success", True)], [("NotFound: nothing", True)])


@given(st.text(), st.text())
def test_the_pieces_are_the_text(one: str, other: str) -> None:
    first, second = differing(one, other)
    assert ("".join(text for text, _ in first), "".join(text for text, _ in second)) == (one, other)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (185, "3 min 5 s"), (7441, "2 h 4 min"), (59.7, "1 min 0 s")],
)
def test_a_time_in_words(seconds: float, told: str) -> None:
    assert duration(seconds) == told
