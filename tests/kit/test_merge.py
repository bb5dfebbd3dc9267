"""Reports of shards as one: counts added, findings joined, verdicts made anew; what does not belong together is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from snapspec.conformance.cli import main
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import FORMAT, Finding, Step, encode_finding
from snapspec.conformance.report.document import Clause, Expected, Found, Level, Report, Row, Verdict, encode, load
from snapspec.conformance.report.merge import merge
from snapspec.conformance.report.verdicts import status
from snapspec.model import ops
from snapspec.model.replies import Mismatch, Returned

V = Verdict


def finding(clause: str, rows: int, at: str = "stat", level: str = "core", file: str = "") -> Found:
    return Found(1, level, clause, at, (), tuple(Row(str(n), "done") for n in range(rows)), file=file, again=f"replay {file} x")


def report(shard: str, *clauses: Clause, **more: object) -> Report:
    core = Level("core", V.PASSED, "", "overlay", 10, 300, 1, 2, 5.0, clauses, ("disturbed: 1", f"shard {shard}"))
    base = Report(
        "plugin:/x",
        V.PASSED,
        (core, Level("durable", V.NOT_RUN)),
        name="mine",
        version="1",
        profile="ci",
        shard=shard,
        command=f"snapspec check plugin:/x --shard {shard} --seed 0",
        began=f"2026-01-0{shard[0]}T00:00:00Z",
        seconds=float(shard[0]),
        versions={"kit": "1", "spec": "1", "kernel": f"6.{shard[0]}"},
        notes=("a note",),
    )
    return replace(base, **more)  # type: ignore[arg-type]  # the test says which


ONE = report("1/2", Clause("SNAP-KEY-1", V.PASSED, 3), Clause("SNAP-KEY-2", V.NOT_REACHED))
TWO = report("2/2", Clause("SNAP-KEY-1", V.PASSED, 4), Clause("SNAP-KEY-2", V.PASSED, 1), seed=0)


def test_the_parts_are_one_whole_in_any_order() -> None:
    for reports in permutations([ONE, TWO]):
        joined = merge(reports)
        core = joined.level("core")
        assert core is not None
        assert core.clauses == (Clause("SNAP-KEY-1", V.PASSED, 7), Clause("SNAP-KEY-2", V.PASSED, 1))
        assert (core.histories, core.calls, core.restarts, core.images, core.seconds) == (20, 600, 2, 4, 5.0)
        assert core.lines == ("disturbed: 1", "shard 1/2", "shard 2/2")
        assert (core.verdict, joined.level("durable"), joined.verdict) == (V.PASSED, Level("durable", V.NOT_RUN), V.PASSED)
        assert (joined.shard, joined.began, joined.seconds) == ("", "2026-01-01T00:00:00Z", 2.0)
        assert joined.command == "snapspec check plugin:/x --seed 0"
        assert joined.versions == {"kit": "1", "spec": "1", "kernel": "6.1, 6.2"}
        assert (joined.why, joined.notes) == ("", ("a note",))


def test_a_report_of_a_whole_run_is_given_back() -> None:
    whole = replace(ONE, shard="")
    assert merge([whole]) is whole


def test_a_missing_shard_makes_it_partial_and_is_named() -> None:
    joined = merge([replace(TWO, shard="2/4"), replace(ONE, shard="4/4")])
    assert joined.verdict is V.PARTIAL
    assert joined.why == "shards 1, 3 of 4 are missing: name the reports too"
    assert merge([TWO]).why == "shard 1 of 2 is missing: name the reports too"
    assert len(merge([replace(TWO, shard="2/999999999")]).why) < 200
    failed = report("1/2", Clause("SNAP-KEY-1", V.FAILED, 1), findings=(finding("SNAP-KEY-1", 2),))
    assert merge([failed]).verdict is V.FAILED


def test_findings_are_joined_and_numbered_anew() -> None:
    one = report(
        "1/2",
        Clause("SNAP-KEY-1", V.FAILED, 1),
        Clause("SNAP-KEY-2", V.FAILED, 1),
        findings=(
            finding("SNAP-KEY-1", 5, file="findings/1.json"),
            finding("SNAP-KEY-2", 3, level="durable", file="findings/2.json"),
        ),
    )
    two = report(
        "2/2",
        Clause("SNAP-KEY-1", V.FAILED, 2),
        Clause("SNAP-KEY-2", V.PASSED, 1),
        findings=(
            finding("SNAP-KEY-1", 4, file="findings/1.json"),
            finding("SNAP-KEY-1", 6, at="walk", file="findings/2.json"),
        ),
    )
    joined = merge([one, two])
    assert [(f.number, f.level, f.clause, f.at, len(f.rows)) for f in joined.findings] == [
        (1, "core", "SNAP-KEY-1", "stat", 4),
        (2, "core", "SNAP-KEY-1", "walk", 6),
        (3, "durable", "SNAP-KEY-2", "stat", 3),
    ]
    files = [f"findings/{f.number}-{f.clause}.json" for f in joined.findings]
    assert [f.file for f in joined.findings] == files, "as they are written"
    assert [f.again for f in joined.findings] == [f"replay {file} x" for file in files]
    assert [c.verdict for level in joined.levels for c in level.clauses] == [V.FAILED, V.FAILED]
    assert (joined.verdict, status(joined.verdict)) == (V.FAILED, 1)


def expecting(shard: str, verdict: Verdict, count: int) -> Report:
    """A shard whose file expects SNAP-KEY-1 to fail."""
    found = (replace(finding("SNAP-KEY-1", 2), verdict=V.EXPECTED, reason="r", link="l"),) if verdict is V.EXPECTED else ()
    one = Expected("SNAP-KEY-1", "r", "l", V.EXPECTED if found else V.SKIPPED)
    return report(shard, Clause("SNAP-KEY-1", verdict, count), findings=found, expected=(one,))


def test_a_failure_that_one_shard_has_shown_is_expected() -> None:
    joined = merge([expecting("1/2", V.PASSED, 2), expecting("2/2", V.EXPECTED, 1)])
    assert joined.expected == (Expected("SNAP-KEY-1", "r", "l", V.EXPECTED),)
    assert joined.levels[0].clauses == (Clause("SNAP-KEY-1", V.EXPECTED, 3, "r"),)
    assert [(f.verdict, f.reason, f.link) for f in joined.findings] == [(V.EXPECTED, "r", "l")]
    assert joined.verdict is V.PARTIAL


def test_a_failure_that_none_has_shown_fails_the_whole() -> None:
    passed = [expecting("1/2", V.PASSED, 2), expecting("2/2", V.PASSED, 1)]
    assert (merge(passed).expected[0].verdict, merge(passed).verdict) == (V.UNEXPECTED, V.UNEXPECTED)
    assert merge(passed[:1]).expected[0].verdict is V.SKIPPED, "the other shard may show it"
    assert merge(passed[:1]).verdict is V.PARTIAL


def test_an_unexpected_pass_of_a_shard_is_judged_anew() -> None:
    """A shard alone may take the failure for gone which another shows."""
    hasty = replace(expecting("1/2", V.UNEXPECTED, 2), expected=(Expected("SNAP-KEY-1", "r", "l", V.UNEXPECTED),))
    assert merge([hasty, expecting("2/2", V.EXPECTED, 1)]).verdict is V.PARTIAL


def test_what_matches_nothing_fails_the_whole_unless_the_runs_were_narrowed() -> None:
    for verdict, whole in ((V.UNEXPECTED, V.UNEXPECTED), (V.SKIPPED, V.PASSED)):
        stray = (Expected("REF-SIZE-1", "r", "l", verdict, "w"),)
        assert merge([replace(ONE, expected=stray), replace(TWO, expected=stray)]).verdict is whole


def test_what_is_known_of_one_part_only() -> None:
    skipped = report("1/2", Clause("SNAP-KEY-1", V.SKIPPED, why="no root"))
    reached = report("2/2", Clause("SNAP-KEY-1", V.PASSED, 2))
    assert merge([skipped, reached]).levels[0].clauses == (Clause("SNAP-KEY-1", V.PASSED, 2),)
    assert merge([skipped, report("2/2", Clause("SNAP-KEY-1", V.NOT_REACHED))]).verdict is V.NOT_REACHED
    not_at_all = replace(report("1/2"), levels=(Level("core", V.SKIPPED, "no root"),))
    assert merge([not_at_all, reached]).verdict is V.PARTIAL


def test_an_error_of_one_shard_leaves_the_whole_unknown() -> None:
    broken = replace(ONE, verdict=V.ERROR, why="the kit itself failed")
    joined = merge([broken, TWO])
    assert (joined.verdict, joined.why, status(joined.verdict)) == (V.ERROR, "the kit itself failed", 2)


def test_seeds_that_differ_are_noted() -> None:
    assert merge([ONE, replace(TWO, seed=7)]).notes == ("a note", "the shards were drawn with different seeds: 0, 7")


@pytest.mark.parametrize(
    ("reports", "said"),
    [
        ([], "name the report.json of each shard"),
        ([ONE, ONE], "shard 1/2 is there twice"),
        ([ONE, replace(TWO, shard="2/3")], "runs with 2, 3 shards: join those of one run"),
        ([ONE, replace(TWO, shard="")], "is of no shard: join those of runs with --shard I/N"),
        ([replace(ONE, shard="zero/2")], "is of no shard"),
        ([replace(ONE, shard="3/2")], "is of no shard"),
        ([ONE, replace(TWO, subject="model:")], "different subjects, 'plugin:/x' and 'model:'"),
        ([ONE, replace(TWO, version="2")], "different versions of the driver, '1' and '2'"),
        ([ONE, replace(TWO, profile="nightly")], "different profiles"),
        ([ONE, replace(TWO, versions={"kit": "2"})], "different versions of the kit"),
    ],
)
def test_what_does_not_belong_together_is_refused(reports: list[Report], said: str) -> None:
    with pytest.raises(CannotRun, match=said):
        merge(reports)


def test_the_command_joins_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / f"{number}.json") for number in (1, 2)]
    history = encode_finding(Finding((Step(ops.Stat("a"), Returned(None)),), (Mismatch("SNAP-KEY-1", "this", "that"),)))
    shown = replace(finding("SNAP-KEY-1", 2, file="findings/9-x.json"), history={"format": FORMAT, **history})
    failed = replace(TWO, findings=(shown,))
    failed = replace(failed, levels=(replace(TWO.levels[0], clauses=(Clause("SNAP-KEY-1", V.FAILED, 1),)),))
    for file, one in zip(files, (ONE, failed), strict=True):
        Path(file).write_text(json.dumps(encode(one)))
    out = tmp_path / "a" / "b"
    assert main(["report", *files, "--out", str(out)]) == 1
    assert load(out / "report.json") == merge([ONE, failed])
    said = capsys.readouterr().out
    assert "SNAP-KEY-1" in said
    assert said.splitlines()[-2] == f"  the report: {out / 'report.html'}"
    assert sorted(path.name for path in out.iterdir()) == ["findings", "report.html", "report.json", "summary.md"]
    assert [path.name for path in (out / "findings").iterdir()] == ["1-SNAP-KEY-1.json"]
    assert main(["report", files[0]]) == 2, "a clause was not reached, and one shard is missing"
    assert "shard 2 of 2 is missing" in capsys.readouterr().err
    assert main(["report", files[0], files[0]]) == 2
    assert "shard 1/2 is there twice" in capsys.readouterr().err
    assert main(["report", *files, "--out", files[0]]) == 2
    assert "name another directory with --" in capsys.readouterr().err
