"""The files of a report: each whole, none of somebody else's touched, and one sentence where they cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import removed, sample

from snapspec.conformance import history
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.report import write as writing
from snapspec.conformance.report.document import load
from snapspec.conformance.report.write import write


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_a_report_is_written_and_read_again(tmp_path: Path) -> None:
    report = sample()
    write(report, tmp_path / "new" / "report")
    written = tmp_path / "new" / "report"
    assert names(written) == {"report.json", "summary.md", "report.html", *(found.file for found in report.findings)}
    assert load(written / "report.json").levels == report.levels
    assert history.load(written / report.findings[0].file) == removed()


def test_what_an_earlier_run_has_found_goes_and_nothing_else(tmp_path: Path) -> None:
    write(sample(), tmp_path)
    findings = tmp_path / "findings"
    (findings / "8-notes.json").write_text("mine")
    (findings / "9-SNAP-KEY-1.json").write_text('{"format": "another"}')
    (findings / "SNAP-KEY-1.json").write_text(json.dumps({"format": history.FORMAT}))
    (findings / "10-SNAP-KEY-1.json").symlink_to(findings / "1-SNAP-REMOVE-2.json")
    (findings / "11-SNAP-KEY-1.json").mkdir()
    (tmp_path / "1-SNAP-KEY-1.json").write_text(json.dumps({"format": history.FORMAT}))
    write(replace(sample(), findings=sample().findings[1:2]), tmp_path)
    assert names(tmp_path) == {
        *("report.json", "summary.md", "report.html", sample().findings[1].file, "1-SNAP-KEY-1.json"),
        *("findings/8-notes.json", "findings/9-SNAP-KEY-1.json", "findings/SNAP-KEY-1.json"),
    }
    assert (findings / "10-SNAP-KEY-1.json").is_symlink()
    assert (findings / "11-SNAP-KEY-1.json").is_dir()
    write(replace(sample(), findings=()), tmp_path)
    assert sample().findings[1].file not in names(tmp_path)


def test_a_clause_is_no_path(tmp_path: Path) -> None:
    found = replace(sample().findings[0], clause="../../x")
    write(replace(sample(), findings=(found,)), tmp_path / "a")
    assert names(tmp_path) == {"a/report.json", "a/summary.md", "a/report.html", "a/findings/1-______x.json"}


def test_a_file_in_the_way_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CannotRun, match=r"^cannot write the report, [^\n]*file[^\n]*; name another directory with --out$"):
        write(sample(), tmp_path / "file")
    (tmp_path / "report" / "report.html").mkdir(parents=True)
    with pytest.raises(CannotRun, match=r"report\.html"):
        write(sample(), tmp_path / "report")
    assert not [name for name in names(tmp_path / "report") if name.startswith(".")], "nothing half done is left"


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(sample(), tmp_path)
    before = (tmp_path / "report.html").read_text()
    monkeypatch.setattr(writing, "page", lambda report: "new and \udcff")  # cannot be written
    with pytest.raises(UnicodeEncodeError):
        write(sample(), tmp_path)
    assert (tmp_path / "report.html").read_text() == before
    assert not [name for name in names(tmp_path) if name.startswith(".")]
