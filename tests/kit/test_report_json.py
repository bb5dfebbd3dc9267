"""report.json: its schema holds for every report, it comes back as it was, and what is damaged is refused in one sentence."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import sample

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.report import document
from snapspec.conformance.report.document import (
    Arrow,
    Bar,
    Box,
    Clause,
    Expected,
    Found,
    Gap,
    Level,
    Picture,
    Report,
    Row,
    Verdict,
    decode,
    encode,
    load,
)

SCHEMA: dict[str, Any] = json.loads(Path(document.__file__).with_name("schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

texts = st.text(max_size=5)
lines = st.lists(texts, max_size=2).map(tuple)
counts = st.integers(0, 1 << 40)
times = st.floats(0, 1e6)
verdicts = st.sampled_from(Verdict)


def several(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(of, max_size=2).map(tuple)


boxes = st.builds(Box, texts, st.sampled_from(["active", "view", "committed", "mutable", "immutable", "handle"]), lines)
arrows = st.builds(Arrow, texts, texts, st.sampled_from(["parent", "pair", "holds"]))
bars = st.builds(Bar, counts, texts, texts, counts, st.none() | counts, texts, st.sampled_from(["", "broken"]))
rows = st.builds(Row, texts, texts, texts, st.sampled_from(["", "broken", "aside"]))
founds = st.builds(
    Found,
    *(counts, texts, texts, texts, several(st.builds(Gap, texts, texts, texts)), several(rows), lines, several(bars)),
    several(st.builds(Picture, texts, several(boxes), several(arrows))),
    *(counts, times, verdicts, texts, texts, lines, lines, texts, texts),
    st.dictionaries(texts, st.none() | texts | st.lists(counts), max_size=2),
)
clauses = st.builds(Clause, texts, verdicts, counts, texts)
levels = st.builds(Level, texts, verdicts, texts, texts, counts, counts, counts, counts, times, several(clauses), lines)
reports = st.builds(
    Report,
    *(texts, verdicts, several(levels), several(founds), several(st.builds(Expected, texts, texts, texts, verdicts, texts))),
    *(texts, texts, texts, counts, texts, texts, texts, times, st.dictionaries(texts, texts, max_size=2), texts, lines),
)


def as_file(report: Report) -> Any:
    return json.loads(json.dumps(encode(report)))


@settings(max_examples=30)
@given(reports)
def test_every_report_is_as_the_schema_says_and_comes_back(report: Report) -> None:
    assert VALIDATOR.is_valid(as_file(report))
    assert decode(as_file(report)) == report


def test_a_report_of_real_findings_is_as_the_schema_says() -> None:
    written = as_file(sample())
    assert [error.message for error in VALIDATOR.iter_errors(written)] == []
    assert as_file(decode(written)) == written


def test_the_schema_knows_every_field_and_no_other() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"].keys() == {"format", *(f.name for f in fields(Report))}
    values = (Arrow, Bar, Box, Clause, Expected, Found, Gap, Level, Picture, Row)
    known = {value.__name__: {f.name for f in fields(value)} for value in values}
    assert {name: set(of["properties"]) for name, of in SCHEMA["$defs"].items() if "properties" in of} == known
    assert SCHEMA["$defs"]["Verdict"]["enum"] == list(Verdict)


def every_place(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all that is in a document, but for what is any object by its form."""
    if isinstance(value, dict) and path[-1:] != ("history",):
        return [path, *(p for key, item in value.items() for p in every_place(item, (*path, key)))]
    if isinstance(value, list):
        return [path, *(p for at, item in enumerate(value) for p in every_place(item, (*path, at)))]
    return [path]


PLACES = [path for path in every_place(as_file(sample())) if path]


@settings(max_examples=30)
@given(st.sampled_from(PLACES), st.sampled_from([None, True, [["x"]], {"x": {}}, 1.5]))
def test_a_report_with_something_else_anywhere_is_refused(path: tuple[Any, ...], instead: Any) -> None:
    damaged = as_file(sample())
    place = damaged
    for key in path[:-1]:
        place = place[key]
    before, place[path[-1]] = place[path[-1]], instead
    if VALIDATOR.is_valid(damaged):
        return  # a time may be 1.5, an end of a bar None
    assert before != instead
    with pytest.raises(CannotRun, match=r"^[^\n]*: give a report.json that snapspec check has written$"):
        decode(damaged)


@pytest.mark.parametrize("missing", ["subject", "verdict", "levels"])
def test_a_report_without_what_it_is_about_is_refused(missing: str) -> None:
    damaged = as_file(sample())
    del damaged[missing]
    with pytest.raises(CannotRun, match=f"no field '{missing}'"):
        decode(damaged)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "x"}', "[" * 100_000, "\udcff", '{"format": "snapspec report 1"}'])
def test_a_file_that_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CannotRun) as refused:
        load(file)
    assert "that snapspec check has written" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"No such file or directory; name a report\.json"):
        load(tmp_path / "report.json")
