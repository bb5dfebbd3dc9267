"""What is written of mutation is true of the files as they are."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from governed import GOVERNED, VERDICTS, WITHIN, judged
from kit_run import CHECKS

ROOT = Path(__file__).resolve().parents[2]
README = Path(__file__).with_name("README.md")

ROWS = {path: checks for room in GOVERNED.values() for path, checks in room.items()}


def test_each_survivor_is_still_in_the_text_and_has_a_reason() -> None:
    """A line that has changed is to be run again, and its old verdict to go."""
    for path, before, after in judged():
        entry = judged()[path, before, after]
        assert path in ROWS
        assert before in map(str.strip, (ROOT / path).read_text().splitlines()), f"{path} no longer has {before!r}"
        assert after != before
        assert entry["verdict"] in VERDICTS
        assert len(entry["reason"]) > 10


def test_the_counts_in_the_readme_are_those_of_the_survivors() -> None:
    counts = Counter((path.partition("/")[0], entry["verdict"]) for (path, _, _), entry in judged().items())
    told = re.findall(r"^\| `(impl|model)` \| `(\w+)` \| (\d+) \|", README.read_text(), re.M)
    assert {(room, verdict): int(count) for room, verdict, count in told} == dict(counts)


def test_what_is_governed_is_there_and_has_checks() -> None:
    assert set(ROWS.values()) == set(CHECKS)
    for path in ROWS:
        text = (ROOT / path).read_text()
        assert all(f"def {function}(" in text for function in WITHIN.get(path, ()))
    for room in GOVERNED:
        assert all(path.startswith(f"{room}/") for path in GOVERNED[room])


@pytest.mark.deep
@pytest.mark.root
def test_a_wrong_line_is_noticed_in_a_copy_and_the_right_one_is_not(tmp_path: Path) -> None:
    pytest.importorskip("cosmic_ray", reason="the extra mutation is not installed")
    from run import _copy, _in_place, _kit, mutant_at, places_of

    copy = _copy(tmp_path / "copy")
    places = [place for place in places_of(ROOT, "impl/copy.py") if place.operator == "RemoveStatement"]
    mutant = next(
        m for place in places if (m := mutant_at(ROOT, place)) and m.before.startswith("copy_tree(self._layout.fs(above")
    )
    with _in_place(mutant, copy):
        found = _kit(copy, "copy")
    assert (found["how"], found["check"]) == ("finding", "ref:copy core")
    assert found["why"].startswith("SNAP-CONTENT-")
    assert _kit(copy, "copy")["how"] == "none"


def test_a_tree_that_is_not_the_one_installed_is_refused(tmp_path: Path) -> None:
    """The mutants are run, not what pip has installed."""
    script = tmp_path / "tests" / "mutation" / "kit_run.py"
    script.parent.mkdir(parents=True)
    script.write_text((ROOT / "tests" / "mutation" / "kit_run.py").read_text())
    done = subprocess.run([sys.executable, script, "copy"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "set PYTHONPATH to its build/farm" in done.stderr
