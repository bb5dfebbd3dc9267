"""Every clause that a subject owes is put to the test by a run of moderate length."""

from __future__ import annotations

import re
import subprocess

import pytest
from test_cli import snapspec
from verdicts import nothing_wrong

#: Clauses that come up by chance only, and may be missed in a run as short as this.
RARE = {"SNAP-CONTENT-3", "SNAP-CONTENT-4", "SNAP-USAGE-3", "SNAP-COMMIT-6", "DOOR-ORDER-3", "SNAP-WALK-4", "SNAP-WALK-3"}


def missed(run: subprocess.CompletedProcess[str]) -> set[str]:
    nothing_wrong(run)
    return {clause for found in re.findall(r"not put to the test at level \w+: (.*)", run.stdout) for clause in found.split(", ")}


@pytest.mark.root
def test_the_reference_is_held_to_all() -> None:
    assert missed(snapspec("check", "ref:overlay", "--examples", "80", "--seed", "1")) <= RARE


@pytest.mark.parametrize("options", ["", *(pytest.param(o, marks=pytest.mark.deep) for o in ("&rebase=ignored", "&cleanup=no"))])
def test_so_is_the_model_at_the_other_door(options: str) -> None:
    assert missed(snapspec("check", f"model:?door=metadata{options}", "--examples", "80", "--seed", "1")) <= RARE


@pytest.mark.root
@pytest.mark.deep
def test_a_long_run_misses_none() -> None:
    assert missed(snapspec("check", "ref:overlay", "--examples", "500", "--seed", "9")) == set()


@pytest.mark.root
@pytest.mark.deep
@pytest.mark.parametrize("subject", ["ref:overlay?fs=xfs", "ref:overlay?fs=btrfs", "ref:overlay?plain=yes", "ref:copy"])
def test_so_do_the_other_references_but_for_what_is_rare(subject: str) -> None:
    """A copy never refuses to rename a directory, which SNAP-CONTENT-4 permits."""
    assert missed(snapspec("check", subject, "--examples", "150", "--seed", "9")) <= RARE
