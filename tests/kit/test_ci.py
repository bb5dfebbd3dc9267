"""The files for CI: what they run is what the command takes, and their steps do what they say, run as in CI."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from snapspec.conformance.cli import _ACTIONS
from snapspec.conformance.driver_file import NAME
from snapspec.conformance.report.document import Verdict, load
from snapspec.conformance.words import parser

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "conformance" / "ci"
ACTION: dict[str, Any] = yaml.safe_load((PLACE / "action.yml").read_text("utf-8"))
GITLAB: dict[str, Any] = yaml.safe_load((PLACE / "gitlab.yml").read_text("utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")

#: Programs of the shell steps: what they are called with goes to the file `calls`.
RECORDER = '#!/bin/sh\nfor word in {name} "$@"; do printf "%s\\0" "$word"; done >> "$CALLS"; printf "\\n" >> "$CALLS"\n'
SNAPSPEC = '#!/bin/sh\nexec {python} -m snapspec.conformance "$@"\n'


def program(directory: Path, name: str, text: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(text)
    (directory / name).chmod(0o755)


@dataclass
class Job:
    """A job of GitHub's in the directory `here`: its shell steps are run as they are there, other steps are noted in `came`."""

    here: Path
    inputs: Mapping[str, str]
    status: int = 0
    said: str = ""

    def __post_init__(self) -> None:
        self.came: dict[str, dict[str, str]] = {}
        self.files = {name: self.here.parent / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "CALLS")}
        for file in self.files.values():
            file.touch()

    def run(self) -> Job:
        for step in STEPS:
            if not self._wanted(step.get("if", "success()")):
                continue
            if "uses" in step:
                self.came[step["name"]] = {key: self._filled(value) for key, value in step["with"].items()}
            elif step["name"] != "Install snapspec":
                self._shell(step)
        return self

    def _shell(self, step: dict[str, Any]) -> None:
        given = {name: self._filled(value) for name, value in step.get("env", {}).items()}
        environment = {
            **os.environ,
            **{name: str(file) for name, file in self.files.items()},
            "GITHUB_ACTION_PATH": str(PLACE),
            "PATH": f"{self.here.parent / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **given,
        }
        assert step["shell"] == "bash"
        run = subprocess.run([*BASH, step["run"]], cwd=self.here, env=environment, capture_output=True, text=True, check=False)
        self.said += run.stdout + run.stderr
        self.status = self.status or run.returncode

    def _wanted(self, condition: str) -> bool:
        text = condition.removeprefix("${{").removesuffix("}}").strip()
        for old, new in (("&&", " and "), ("||", " or "), ("always()", "True")):
            text = text.replace(old, new)
        text = text.replace("failure()", str(self.status != 0)).replace("success()", str(self.status == 0))
        text = re.sub(r"(?:inputs|steps)\.[\w.-]+", lambda name: repr(self._value(name[0])), text)
        return bool(eval(text))  # the text of our own file

    def _filled(self, value: str) -> str:
        return re.sub(r"\$\{\{ (\S+) \}\}", lambda name: self._value(name[1]), str(value))

    def _value(self, name: str) -> str:
        if name == "steps.check.outputs.artifact":
            return dict(line.split("=", 1) for line in self.files["GITHUB_OUTPUT"].read_text().splitlines()).get("artifact", "")
        assert name.startswith("inputs."), name
        key = name.removeprefix("inputs.")
        return self.inputs.get(key, ACTION["inputs"][key]["default"])

    def calls(self) -> list[list[str]]:
        """What the recording programs were called with."""
        return [line.rstrip("\0").split("\0") for line in self.files["CALLS"].read_text().splitlines()]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A driver's repository, with `snapspec` on the PATH beside it."""
    program(tmp_path / "bin", "snapspec", SNAPSPEC.format(python=shlex.quote(sys.executable)))
    (tmp_path / "repository").mkdir()
    return tmp_path / "repository"


def record(here: Path, *names: str) -> None:
    for name in names:
        program(here.parent / "bin", name, RECORDER.format(name=name))


def parsed(words: list[str]) -> Any:
    """What the command line gives; it raises where it is none."""
    assert words[0] == "snapspec"
    return parser(_ACTIONS).parse_args(words[1:])


# --- the action


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        ({}, {"subject": "", "file": None, "level": (), "profile": "ci", "shard": (1, 1), "out": Path("snapspec-report")}),
        ({"subject": "plugin:/a b/x.sock?x=$(y)&z", "profile": "nightly"}, {"subject": "plugin:/a b/x.sock?x=$(y)&z"}),
        ({"file": "sub/my file.toml", "level": "core,durable"}, {"file": Path("sub/my file.toml"), "level": ("core", "durable")}),
        ({"shard": "2/8", "out": "a b"}, {"shard": (2, 8), "out": Path("a b")}),
    ],
)
def test_the_action_says_what_the_command_takes(inputs: dict[str, str], wanted: dict[str, object], here: Path) -> None:
    record(here, "snapspec")
    job = Job(here, inputs).run()
    assert job.status == 0, job.said
    (words,) = job.calls()
    given = vars(parsed(words))
    assert {key: given[key] for key in wanted} == wanted


def test_every_input_is_used_and_described() -> None:
    text = (PLACE / "action.yml").read_text("utf-8")
    for name, told in ACTION["inputs"].items():
        assert f"${{{{ inputs.{name} }}}}" in text
        assert told["description"]
    runs = "\n".join(step["run"] for step in STEPS if "run" in step)
    assert "${{" not in runs, "what a user writes would be run as a command"


def test_it_installs_the_checkout_that_it_stands_in() -> None:
    (step,) = [step for step in STEPS if step["name"] == "Install snapspec"]
    assert step["run"] == 'python -m pip install --quiet "$GITHUB_ACTION_PATH/../.."'
    assert (PLACE / ".." / ".." / "pyproject.toml").exists()


def test_where_it_is_not_root_it_becomes_so_and_gives_the_report_back(here: Path) -> None:
    record(here, "snapspec")
    program(here.parent / "bin", "id", "#!/bin/sh\necho 1000\n")
    program(
        here.parent / "bin",
        "sudo",
        RECORDER.format(name="sudo") + 'case "$1" in -E) shift; exec "$@";; -n|chown) ;; *) exit 9;; esac\n',
    )
    (here / "snapspec-report").mkdir()
    job = Job(here, {}).run()
    assert job.status == 0, job.said
    asked, became, called, gave = job.calls()
    assert asked == ["sudo", "-n", "true"]
    assert became[:3] == ["sudo", "-E", "env"]
    assert any(word.startswith(f"PATH={here.parent / 'bin'}:") for word in became)
    assert called[0] == "snapspec"
    assert gave == ["sudo", "chown", "-R", "1000:1000", "snapspec-report"]


def test_the_status_is_that_of_the_check_and_the_report_is_kept(here: Path) -> None:
    for status, kept in ((0, False), (1, True), (2, True)):
        text = f"mkdir -p snapspec-report; echo one > snapspec-report/summary.md; exit {status}"
        program(here.parent / "bin", "snapspec", f"#!/bin/sh\n{text}\n")
        job = Job(here, {}).run()
        assert job.status == status
        assert ("Keep the report" in job.came) is kept
        assert job.came["Publish the results as JUnit"]["path"] == "snapspec-report/junit.xml"
    assert job.files["GITHUB_STEP_SUMMARY"].read_text() == "one\n" * 3


def test_the_artifacts_of_shards_are_kept_under_names_of_their_own(here: Path) -> None:
    record(here, "snapspec")
    job = Job(here, {"shard": "2/8"}).run()
    assert [job.came[name]["name"] for name in ("Keep the report", "Publish the results as JUnit")] == [
        "snapspec-report-2",
        "snapspec-report-2-junit",
    ]


# --- GitLab


def gitlab(job: str, here: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script of a job, as a runner runs it: one line after another in one shell."""
    given = {**os.environ, **GITLAB[job]["variables"], "PATH": f"{here.parent / 'bin'}:{os.environ['PATH']}", **variables}
    given |= {"CALLS": str(here.parent / "CALLS"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [*BASH, "\n".join(GITLAB[job]["script"])], cwd=here, env=given, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("variables", "subject", "shard"),
    [
        ({}, "", (1, 1)),
        ({"SNAPSPEC_SUBJECT": "plugin:/a b?c&d", "CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "4"}, "plugin:/a b?c&d", (3, 4)),
    ],
)
def test_the_template_says_what_the_command_takes(
    variables: dict[str, str], subject: str, shard: tuple[int, int], here: Path
) -> None:
    record(here, "snapspec", "python")
    ran = gitlab(".snapspec", here, **variables)
    assert ran.returncode == 0, ran.stderr
    installed, words = [line.rstrip("\0").split("\0") for line in (here.parent / "CALLS").read_text().splitlines()]
    assert installed == ["python", "-m", "pip", "install", "--quiet", "snapspec"]
    given = parsed(words)
    assert (given.subject, given.profile, given.shard) == (subject, "ci", shard)
    assert given.out == Path(f"snapspec-report/{shard[0]}")
    assert GITLAB[".snapspec"]["artifacts"]["reports"]["junit"] == "snapspec-report/*/junit.xml"


def in_comment() -> str:
    """The example at the head of the template."""
    lines = (PLACE / "gitlab.yml").read_text("utf-8").splitlines()
    return "\n".join(line.removeprefix("#   ") for line in lines if line.startswith("#   "))


def in_readme() -> list[str]:
    section = (ROOT / "README.md").read_text("utf-8").partition("\n### In CI\n")[2].partition("\n##")[0]
    return re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)


def test_the_examples_are_ten_lines_of_what_is_there() -> None:
    github, other = in_readme()
    for text in (github, other, in_comment()):
        assert len(text.splitlines()) <= 10
    step = yaml.safe_load(github)["jobs"]["snapspec"]["steps"][-1]
    assert step["uses"].partition("@")[0] == "OWNER/snapspec/conformance/ci"
    assert set(step["with"]) <= set(ACTION["inputs"])
    for text in (other, in_comment()):
        example = yaml.safe_load(text)
        assert (ROOT / example["include"][0]["file"]).resolve() == PLACE / "gitlab.yml"
        job = example["snapspec"]
        assert set(job["variables"]) <= set(GITLAB[job["extends"]]["variables"])


# --- real runs


def driver(here: Path, subject: str, level: str) -> None:
    (here / NAME).write_text(f'[driver]\nsubject = "{subject}"\n[run]\nlevels = ["{level}"]\nexamples = 20\njobs = 1\n')


@pytest.mark.deep
def test_a_driver_that_is_right_passes(here: Path) -> None:
    driver(here, "model:", "core")
    job = Job(here, {}).run()
    assert job.status == 0, job.said
    assert "model:" in job.files["GITHUB_STEP_SUMMARY"].read_text()
    assert "Keep the report" not in job.came
    assert "<testsuite" in (here / job.came["Publish the results as JUnit"]["path"]).read_text()
    assert load(here / "snapspec-report" / "report.json").seed == 0


@pytest.mark.deep
@pytest.mark.root
def test_a_driver_that_is_wrong_fails_and_its_report_is_kept(here: Path) -> None:
    driver(here, "mutant:s05", "core")
    job = Job(here, {}).run()
    assert job.status == 1, job.said
    kept = here / job.came["Keep the report"]["path"]
    assert load(kept / "report.json").findings
    assert {path.name for path in kept.iterdir()} == {"report.json", "report.html", "junit.xml", "summary.md", "findings"}
    assert list((kept / "findings").iterdir())


@pytest.mark.deep
def test_shards_are_joined(here: Path) -> None:
    driver(here, "model:", "core")
    record(here, "python")
    for number in ("1", "2"):
        ran = gitlab(".snapspec", here, CI_NODE_INDEX=number, CI_NODE_TOTAL="2")
        assert ran.returncode == 0, ran.stdout + ran.stderr
    ran = gitlab(".snapspec-join", here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    joined, one = (load(here / "snapspec-report" / name / "report.json") for name in ("all", "1"))
    assert (joined.verdict, joined.shard, one.shard) == (Verdict.PASSED, "", "1/2")
    assert joined.levels[0].histories > one.levels[0].histories
