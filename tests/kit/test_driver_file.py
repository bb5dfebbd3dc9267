"""A driver's file: what it says is taken as it stands; what is wrong in it is one sentence, with the key and the remedy."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapspec.conformance import driver_init, machines, ref_draw
from snapspec.conformance.cli import main
from snapspec.conformance.draw import CONTENT
from snapspec.conformance.driver_file import LONGEST, NAME, DriverFile, ExpectedFailure, find, load
from snapspec.conformance.errors import CannotRun

FULL = """\
[driver]
subject = "plugin:{dir}/x.sock?snapshotter=native"
name = "mydriver"
version = "1.2"
capabilities = ["walk", "view", "read", "remove", "mounts", "stat", "update", "usage"]
[commands]
start = "./driver --listen {dir}/x.sock 'a b'"
stop = "./driver --stop"
kill = "./driver --kill"
[run]
levels = ["usage", "core"]
examples = 500
budget = "5m"
deadline = "20s"
jobs = 2
profile = "nightly"
database = "redis://127.0.0.1:6379/0"
[[expected]]
clause = "SNAP-REMOVE-3"
reason = '''
a name is free
  after the next collection'''
link = "https://example.org/1"
[[expected]]
clause = "SNAP-KEY-1"
reason = "another"
link = "http://example.org/2"
"""


def written(directory: Path, text: str) -> Path:
    path = directory / NAME
    path.write_text(text, encoding="utf-8")
    return path


def refused(directory: Path, text: str) -> str:
    """What is said of a file with that text, without the file's name."""
    path = written(directory, text)
    with pytest.raises(CannotRun) as error:
        load(path)
    said = str(error.value)
    assert said.startswith(f"{path}")
    assert "\n" not in said
    return said.removeprefix(f"{path}").lstrip(": ")


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    path = written(tmp_path, FULL)
    assert load(path) == DriverFile(
        path,
        "plugin:{dir}/x.sock?snapshotter=native",
        "mydriver",
        "1.2",
        ("view", "read", "remove", "mounts", "stat", "update", "usage", "walk"),
        "./driver --listen {dir}/x.sock 'a b'",
        "./driver --stop",
        "./driver --kill",
        ("core", "usage"),
        500,
        300.0,
        20.0,
        2,
        "nightly",
        "redis://127.0.0.1:6379/0",
        (
            ExpectedFailure("SNAP-REMOVE-3", "a name is free after the next collection", "https://example.org/1"),
            ExpectedFailure("SNAP-KEY-1", "another", "http://example.org/2"),
        ),
    )


def test_what_is_not_declared_is_left_out(tmp_path: Path) -> None:
    assert load(written(tmp_path, FULL)).without == (
        *("cleanup", "reopen", "collect", "nowhere", "cut", "parents"),
        *("devices", "links"),
    )
    assert load(written(tmp_path, '[driver]\nsubject = "refs:copy"\ncapabilities = ["get", "links"]')).without == tuple(
        name for name in (*ref_draw.OPTIONAL, *CONTENT) if name not in ("get", "links")
    )
    assert load(written(tmp_path, '[driver]\nsubject = "model:"\ncapabilities = []')).without == machines.OPTIONAL


def test_the_subject_is_enough(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeff[driver]\nsubject = 'ref:overlay'\n")
    assert load(path) == DriverFile(path, "ref:overlay", "ref:overlay")
    assert load(path).without == ()


def test_only_the_directory_itself_is_looked_into(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    path = written(tmp_path, FULL)
    assert (find(tmp_path), find(below)) == (path, None)
    (below / NAME).symlink_to("nowhere")
    assert find(below) == below / NAME, "what is there and cannot be read is told, not passed over"


DRIVER = '[driver]\nsubject = "plugin:/x"\n'
EXPECTED = '[[expected]]\nclause = "SNAP-KEY-1"\nreason = "r"\nlink = "https://x.org"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # the file as a whole
        ("[driver\n", r"is not valid TOML: .*line 1.*; correct it"),
        ('[driver]\nsubject = "a"\nsubject = "b"\n', "is not valid TOML: .*line 3"),
        ("a = " + "[" * 100_000, "nested too deep"),
        ("a = " + "9" * 5000, "is not valid TOML"),
        ("a = 2000-13-01", "is not valid TOML"),
        ("", 'driver.subject is missing: write subject = "..."'),
        ("[drivr]\n", "drivr is no table of this file: write driver"),
        ('subject = "plugin:/x"\n', r"subject stands in no table: write it below \[driver\]"),
        ('["a\\nb"]\n', r"'a\\nb' is no table of this file: it takes driver, commands, run, expected"),
        ("driver = 3\n", r"driver is a number: write it as a table, \[driver\]"),
        ("[[driver]]\n", r"driver is a list: write it as a table, \[driver\]"),
        # driver
        ("[driver]\nsubjct = 'model:'\n", "driver.subjct is no key of this file: write subject"),
        ("[driver]\nsubject = ''\n", "driver.subject is empty: say something"),
        ("[driver]\nsubject = 3\n", "driver.subject is a number: write a text, in quotes"),
        ("[driver]\nsubject = 'overlay'\n", "driver.subject is wrong: 'overlay' names no subject: write one of ref:overlay"),
        ("[driver]\nsubject = 'ref:overlay?colour=red'\n", "driver.subject is wrong: .* it takes size, fs, plain"),
        ('[driver]\nsubject = "plugin:/x\\u0000"\n', "driver.subject holds a sign that cannot be shown"),
        (DRIVER + "name = ['x']\n", "driver.name is a list: write a text"),
        (DRIVER + "version = 1.2\n", "driver.version is a number: write a text, in quotes"),
        (DRIVER + "version = 2024-01-01\n", "driver.version is a date or time: write a text"),
        (DRIVER + "capabilities = 'view'\n", "driver.capabilities is a text: write a list of names of a capability"),
        (DRIVER + "capabilities = [1]\n", "driver.capabilities is a number: write a text"),
        (DRIVER + "capabilities = ['viw']\n", "driver.capabilities names 'viw', which is no capability: write view"),
        (DRIVER + "capabilities = ['prepare']\n", "'prepare', which is no capability"),
        (DRIVER + "capabilities = ['view', 'view']\n", "names 'view' twice: leave one out"),
        ("[driver]\nsubject = 'refs:model:'\ncapabilities = ['walk']\n", "which is no capability: it takes get, get_mutable"),
        # commands
        (DRIVER + "[commands]\nstrat = 'x'\n", "commands.strat is no key of this file: write start"),
        (DRIVER + '[commands]\nstart = "a \'b"\n', r"commands.start cannot be split into words \(No closing quotation\)"),
        (DRIVER + "[commands]\nstart = true\n", "commands.start is true or false: write a text"),
        (DRIVER + "[commands]\nstop = 'x'\n", "commands.stop ends what start begins: add start, or leave it out"),
        (DRIVER + "[commands]\nkill = 'x'\n", "commands.kill ends what start begins"),
        (DRIVER + "[commands]\nstart = 'x {dir}'\n", "commands.start and driver.subject name one new directory {dir}"),
        ("[driver]\nsubject = 'plugin:{dir}/s'\n[commands]\nstart = 'x'\n", "write it in both, or in neither"),
        ("[driver]\nsubject = 'model:'\n[commands]\nstart = 'x'\n", "the kit starts model: by itself: leave it out"),
        # run
        (DRIVER + "[run]\nlevels = 'core'\n", "run.levels is a text: write a list"),
        (DRIVER + "[run]\nlevels = []\n", "run.levels is empty: name some of core, content"),
        (DRIVER + "[run]\nlevels = ['usge']\n", "run.levels names 'usge', which is no level: write usage"),
        (DRIVER + "[run]\nexamples = 0\n", "run.examples is a number: write a whole number from 1 to"),
        (DRIVER + "[run]\nexamples = 1.5\n", "write a whole number"),
        (DRIVER + "[run]\nexamples = true\n", "run.examples is true or false: write a whole number"),
        (DRIVER + "[run]\njobs = '2'\n", "run.jobs is a text: write a whole number"),
        (DRIVER + f"[run]\njobs = 0x{'f' * 6000}\n", "write a whole number"),
        (DRIVER + "[run]\nbudget = 300\n", 'run.budget is a number: write a time in quotes, such as "5m"'),
        (DRIVER + "[run]\nbudget = 'soon'\n", "run.budget is 'soon', which is no time"),
        (DRIVER + f"[run]\nbudget = '{'9' * 400}'\n", "which is no time"),
        (DRIVER + "[run]\ndeadline = '0s'\n", "run.deadline is '0s', which is no time"),
        (DRIVER + "[run]\nprofile = 'nightlies'\n", "run.profile is 'nightlies', which is no profile: write nightly"),
        (DRIVER + "[run]\ndatabase = 'mysql://x'\n", "no database: write a directory, redis://HOST:PORT/DB or github:"),
        # expected failures
        (DRIVER + "[expected]\nclause = 'SNAP-KEY-1'\n", r"expected is a table: write each .*, \[\[expected\]\]"),
        (DRIVER.replace("[driver]", "expected = ['x']\n[driver]"), r"expected is a list: write each .*, \[\[expected\]\]"),
        (DRIVER + EXPECTED.replace("SNAP-KEY-1", "snap-KEY-1"), r"expected\[1\].clause is 'snap-KEY-1', .*: write SNAP-KEY-1"),
        (DRIVER + EXPECTED.replace("SNAP-KEY-1", "nothing"), "which is no clause of the spec: its ids are in spec.md"),
        (DRIVER + EXPECTED.replace("clause", "clauses"), r"expected\[1\].clauses is no key of this file: write clause"),
        (DRIVER + EXPECTED.replace('reason = "r"', ""), r'expected\[1\].reason is missing: write reason = "..."'),
        (DRIVER + EXPECTED.replace('"r"', '" \\n "'), r"expected\[1\].reason is empty: say something"),
        (DRIVER + EXPECTED + EXPECTED.replace('link = "https://x.org"', ""), r"expected\[2\].link is missing"),
        (DRIVER + EXPECTED.replace("https://x.org", "see the tracker"), r"expected\[1\].link is 'see the tracker', .* https://"),
        (DRIVER + EXPECTED.replace("https://x.org", "https://["), "which is no link"),
        (DRIVER + EXPECTED.replace("https://x.org", "https://"), "which is no link"),
        (DRIVER + EXPECTED.replace("https://x.org", "ftp://x.org"), "which is no link"),
        (DRIVER + EXPECTED + EXPECTED, r"expected\[2\].clause is SNAP-KEY-1, which is expected already"),
    ],
)
def test_what_is_wrong_is_told_with_the_remedy(text: str, said: str, tmp_path: Path) -> None:
    assert re.search(said, refused(tmp_path, text))


def test_a_long_word_is_cut_in_the_error(tmp_path: Path) -> None:
    assert len(refused(tmp_path, f"{DRIVER}capabilities = ['{'x' * 100_000}']")) < 400
    assert len(refused(tmp_path, f"{DRIVER}{'y' * 100_000} = 1")) < 400


def test_a_file_that_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / NAME
    for make, said in (
        (lambda: None, "cannot read .* write one with snapspec init"),
        (lambda: path.write_bytes(b"\x7fELF\x02\xff\xfe"), "is not text in UTF-8"),
        (lambda: path.write_bytes(b"#" * (LONGEST + 1)), "is longer than 1 MiB"),
        (lambda: (path.unlink(), path.mkdir()), "is no file"),
        (lambda: (path.rmdir(), os.mkfifo(path)), "is no file"),
    ):
        make()
        with pytest.raises(CannotRun, match=said):
            load(path)
    with pytest.raises(CannotRun, match="is no path"):
        load(Path("a\0b"))


def test_a_long_list_is_read_in_no_time(tmp_path: Path) -> None:
    names = ", ".join(f"'x{number}'" for number in range(60_000))
    began = time.monotonic()
    assert "which is no capability" in refused(tmp_path, f"{DRIVER}capabilities = [{names}]")
    assert time.monotonic() - began < 5


WORDS = st.sampled_from(
    [
        *("driver", "commands", "run", "expected", "subject", "name", "version", "capabilities", "start", "stop", "kill"),
        *("levels", "examples", "budget", "deadline", "jobs", "profile", "database", "clause", "reason", "link"),
        *("plugin:/x", "plugin:{dir}/x", "model:", "a {dir}", "5m", "core", "view", "ci", "SNAP-KEY-1", "https://x.org/1"),
    ]
)
TEXTS = WORDS | st.text(max_size=8) | st.sampled_from(["refs:", "mutant:x", "exec:'", "ref:overlay?a", "https://[", "model:?%"])
SCALARS = (
    TEXTS.map(lambda text: driver_init._quoted(text.replace("\x7f", "")))
    | st.integers().map(str)
    | st.sampled_from(["true", "1.5", "nan", "2020-01-01", "07:32:00", "0xffff", "[]", "{}", "[[1], 'a']"])
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3).map(lambda items: f"[{', '.join(items)}]")
KEYS = (WORDS.filter(str.isalpha) | st.text(max_size=5)).map(lambda text: driver_init._quoted(text.replace("\x7f", "")))
HEADS = st.sampled_from(["[driver]", "[commands]", "[run]", "[[expected]]", "[driver.name]", "[x]"])
TABLES = st.tuples(HEADS, st.dictionaries(KEYS, VALUES, max_size=5))


@given(
    st.lists(TABLES, max_size=5).map(
        lambda tables: "\n".join("\n".join([head, *(f"{k} = {v}" for k, v in keys.items())]) for head, keys in tables)
    )
    | st.text()
)
def test_no_document_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever a TOML document holds, it is a driver's file or is refused in one sentence."""
    path = tmp_path_factory.getbasetemp() / "drawn.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    said = ""
    try:
        assert load(path).subject
    except CannotRun as error:
        said = str(error)
    assert "\n" not in said


# --- snapspec init


@pytest.mark.parametrize(
    ("subject", "named", "capabilities"),
    [
        ("", "plugin:/run/mydriver.sock", machines.OPTIONAL),
        ("containerd:/a b/c.sock?snapshotter=over\"l'ay", "containerd:/a b/c.sock?snapshotter=over\"l'ay", machines.OPTIONAL),
        ("exec:./é --x 'a\\b'?level=refs", "exec:./é --x 'a\\b'?level=refs", (*ref_draw.OPTIONAL, *CONTENT)),
        ("refs:overlay", "refs:overlay", (*ref_draw.OPTIONAL, *CONTENT)),
    ],
)
def test_what_init_writes_loads(subject: str, named: str, capabilities: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / NAME
    driver_init.write(path, subject)
    assert load(path) == DriverFile(path, named, named, capabilities=capabilities)
    assert load(path).without == ()


def test_what_stands_in_its_comments_is_right_too(tmp_path: Path) -> None:
    path = tmp_path / NAME
    text = re.sub(r"^# (\w+ = |\[\[)", r"\1", driver_init.text("plugin:{dir}/driver.sock"), flags=re.MULTILINE)
    loaded = load(written(tmp_path, text))
    unsaid = DriverFile(path, loaded.subject, loaded.name)
    same = [name for name in DriverFile.__slots__ if getattr(loaded, name) == getattr(unsaid, name)]
    assert same == ["path", "subject", "name"], "each of the others is shown"
    assert f"{loaded.expected[0].clause}" == "SNAP-REMOVE-3"


def test_init_at_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "plugin:/absent/x.sock"]) == 0
    assert load(tmp_path / NAME).subject == "plugin:/absent/x.sock"
    assert "run snapspec check" in capsys.readouterr().out
    before = (tmp_path / NAME).read_text()
    for arguments, said in (
        (["init"], "is there already: change it by hand"),
        (["init", "nothing", "--out", "other.toml"], "'nothing' names no subject"),
        (["init", "plugin:/a\nb", "--out", "other.toml"], "holds a sign that a driver's file cannot show"),
        (["init", "--out", "absent/x.toml"], "name a file in a directory that is there"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.splitlines()) == 1
    assert (tmp_path / NAME).read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
