"""Several faults in one driver, as `snapspec check` tells of them: all in one run, each with the shortest history of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_run import command

from snapspec.conformance.report.document import Report, Verdict, load

pytestmark = pytest.mark.deep


def checked(subject: str, out: Path, *words: str) -> Report:
    run = command("check", subject, "--out", str(out), *words)
    assert run.returncode == 1, run.stdout + run.stderr
    report = load(out / "report.json")
    for found in report.findings:
        assert f"{found.clause} at {found.at}" in run.stdout
        again = command("replay", str(out / found.file), subject, "--deadline", "2s")
        assert again.returncode == 1, again.stdout + again.stderr
        assert f"[{found.clause}]" in again.stdout
    return report


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_one_check_names_three_faults(seed: str, tmp_path: Path) -> None:
    report = checked("py:three:three", tmp_path, "--examples", "60", "--seed", seed)
    assert {found.clause for found in report.findings} == {"SNAP-REMOVE-1", "SNAP-USAGE-2", "SNAP-LABEL-1"}
    assert {found.level for found in report.findings} == {"core", "usage", "labels"}
    assert all(len(found.rows) <= 3 for found in report.findings)
    assert all(found.after == () for found in report.findings)
    levels = {level.name: level.verdict for level in report.levels}
    assert [levels[name] for name in ("core", "usage", "labels")] == [Verdict.FAILED] * 3
    assert levels["content"] in (Verdict.PASSED, Verdict.NOT_REACHED)


def test_a_call_that_hangs_is_left_out_afterwards_and_hides_no_other_fault(tmp_path: Path) -> None:
    report = checked("py:three:hangs", tmp_path, "--examples", "40", "--seed", "1", "--deadline", "4s")
    found = {one.clause: one for one in report.findings}
    assert set(found) == {"SNAP-LIVE-1", "SNAP-MOUNTS-3", "SNAP-LABEL-1"}
    assert found["SNAP-LIVE-1"].verdict is Verdict.HANG
    assert [row.call for row in found["SNAP-LIVE-1"].rows] == ["cleanup()"]
    core, content = (report.level(name) for name in ("core", "content"))
    assert core is not None
    assert content is not None
    assert "not called any more once one had not answered: cleanup" in core.why
    assert (content.verdict, content.why) == (Verdict.PARTIAL, core.why)
    assert {one.id: one.verdict for one in core.clauses}["SNAP-LIVE-1"] is Verdict.HANG
