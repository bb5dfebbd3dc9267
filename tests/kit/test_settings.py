"""What a check is to do: the command line over the driver's file over the defaults, and what does not go together."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from snapspec.conformance.driver_file import NAME
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.options import LEVELS
from snapspec.conformance.report.build import families_of
from snapspec.conformance.run import shared
from snapspec.conformance.session import DEADLINE
from snapspec.conformance.settings import EXAMPLES, NIGHTLY, SEQUENTIAL, Settings, searches, settings
from snapspec.conformance.words import parser

FILE = """\
[driver]
subject = "model:"
name = "mine"
version = "1.2"
capabilities = ["view", "read", "remove", "mounts", "stat", "update", "usage", "walk", "cleanup", "reopen", "devices", "links"]
[run]
levels = ["core", "concurrent"]
examples = 70
budget = "8m"
deadline = "7s"
jobs = 3
profile = "ci"
database = "findings"
[[expected]]
clause = "SNAP-KEY-1"
reason = "known"
link = "https://example.org/1"
"""

START = "plugin:{dir}/x.sock"


def chosen(directory: Path, *words: str, file: str = "") -> Settings:
    """What `snapspec check` is to do with these words in a directory with that driver's file, if any."""
    if file:
        (directory / NAME).write_text(file)
    return settings(parser(defaultdict(lambda: print)).parse_args(["check", *words]), directory)


def refused(directory: Path, *words: str, file: str = "") -> str:
    with pytest.raises(CannotRun) as error:
        chosen(directory, *words, file=file)
    return str(error.value)


# --- the command line over the file over the defaults


def test_by_default(tmp_path: Path) -> None:
    made = chosen(tmp_path, "model:")
    assert (made.subject, made.name, made.version, made.levels) == ("model:", "model:", "", SEQUENTIAL)
    assert (made.examples, made.budget, made.deadline, made.without, made.profile) == (EXAMPLES, 0.0, DEADLINE, (), "")
    assert (made.shard, made.database, made.expected, made.narrowed, made.first, made.out) == ((1, 1), "", (), False, False, None)
    assert made.jobs in (1, 2)


def test_the_file_of_the_directory_says_the_rest(tmp_path: Path) -> None:
    made = chosen(tmp_path, file=FILE)
    assert (made.subject, made.name, made.version, made.levels) == ("model:", "mine", "1.2", ("core", "concurrent"))
    assert (made.examples, made.budget, made.deadline, made.jobs, made.profile) == (70, 480.0, 7.0, 3, "ci")
    assert (made.seed, made.database) == (0, "findings")
    assert set(made.without) == {"collect", "nowhere", "parents", "cut"}
    assert [one.clause for one in made.expected] == ["SNAP-KEY-1"]
    assert not made.narrowed


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (("--level", "usage"), "levels", ("usage",)),
        (("--examples", "3"), "examples", 3),
        (("--budget", "1m"), "budget", 60.0),
        (("--deadline", "3s"), "deadline", 3.0),
        (("--jobs", "1"), "jobs", 1),
        (("--profile", "nightly"), "profile", "nightly"),
        (("--seed", "9"), "seed", 9),
        (("--without", "walk,view"), "without", ("walk", "view")),
        (("--database", "elsewhere"), "database", "elsewhere"),
        (("--shard", "2/3"), "shard", (2, 3)),
        (("--first",), "first", True),
        (("--out", "there"), "out", Path("there")),
    ],
)
def test_the_command_line_counts_for_more(words: tuple[str, ...], name: str, value: object, tmp_path: Path) -> None:
    before = chosen(tmp_path, file=FILE)
    made = chosen(tmp_path, *words, file=FILE)
    assert getattr(made, name) == value != getattr(before, name)
    same = {each: getattr(before, each) for each in Settings.__slots__ if each not in (name, "seed", "narrowed")}
    assert {each: getattr(made, each) for each in same} == same


def test_a_subject_of_the_command_line_is_another_driver_unless_the_file_is_named_too(tmp_path: Path) -> None:
    assert chosen(tmp_path, "ref:copy", file=FILE).expected == ()
    made = chosen(tmp_path, "ref:copy", "--file", str(tmp_path / NAME), file=FILE)
    assert (made.subject, made.name, len(made.expected)) == ("ref:copy", "mine", 1)


def test_without_a_subject_and_a_file_there_is_nothing_to_check(tmp_path: Path) -> None:
    assert "snapspec init" in refused(tmp_path)


# --- levels


def test_all_levels_are_those_that_fit_and_the_others_are_skipped_and_say_why(tmp_path: Path) -> None:
    made = chosen(tmp_path, "model:", "--level", "all")
    skipped = dict(made.skipped)
    assert made.levels == tuple(level for level in LEVELS if level not in skipped)
    assert set(skipped) == {"faults", "durable"}
    assert all(why and "\n" not in why for why in skipped.values())
    assert set(chosen(tmp_path, "ref:copy", "--level", "all").levels) == set(LEVELS)


def test_a_driver_may_be_held_to_refs_which_is_a_search_of_refs_over_it(tmp_path: Path) -> None:
    made = chosen(tmp_path, "model:", "--level", "refs,core")
    assert made.levels == ("core", "refs")
    assert [(search.levels, search.plan.subject) for search in searches(made)] == [
        (("core",), "model:"),
        (("refs",), "refs:model:"),
    ]


def test_a_manager_of_refs_is_held_to_refs(tmp_path: Path) -> None:
    assert chosen(tmp_path, "refs:model:").levels == ("refs",)
    made = chosen(tmp_path, "refs:model:", "--level", "all")
    assert made.levels == ("faults", "refs")
    assert {"core", "content", "usage", "labels", "concurrent", "durable"} == set(dict(made.skipped))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("model:", "--level", "faults"), "level faults"),
        (("model:", "--level", "durable"), "level durable"),
        (("refs:model:", "--level", "concurrent"), "at level refs already"),
        (("ref:copy", "--power"), "add --level durable"),
        (("ref:copy", "--kill"), "add --level durable"),
        (("model:", "--start", "./driver"), "leave --start out"),
        (("model:", "--without", "prepare"), "cannot be left out: what can is view"),
        (("model:", "--level", "core,nothing"), "'nothing' is no level"),
        (("model:", "--shard", "3/2"), "write 2/8"),
        (("model:", "--shard", "0/2"), "write 2/8"),
        (("model:", "--profile", "weekly"), "weekly"),
        (("model:", "--examples", "0"), "no number of at least 1"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    sentence = refused(tmp_path, *words)
    assert said in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_has_families_and_none_twice(level: str, tmp_path: Path) -> None:
    families = families_of(level, chosen(tmp_path, "ref:copy", "--level", "all"))
    assert families
    assert len(set(families)) == len(families)


# --- profiles, narrowing, shards, plans


def test_profile_ci_draws_the_same_each_time_and_nightly_others_and_more(tmp_path: Path) -> None:
    assert [chosen(tmp_path, "model:", "--profile", "ci").seed for _ in range(2)] == [0, 0]
    assert chosen(tmp_path, "model:", "--profile", "ci").examples == EXAMPLES
    nightly = [chosen(tmp_path, "model:", "--profile", "nightly") for _ in range(2)]
    assert [made.examples for made in nightly] == [NIGHTLY] * 2
    assert nightly[0].seed != nightly[1].seed
    assert chosen(tmp_path, "model:", "--profile", "nightly", "--examples", "3", "--seed", "0").seed == 0
    assert chosen(tmp_path, "model:", "--profile", "nightly", "--examples", "3").examples == 3


@pytest.mark.parametrize(
    ("words", "narrowed"),
    [((), False), (("--level", "core"), True), (("--level", "core,concurrent,usage"), False), (("--without", "walk"), True)],
)
def test_it_is_noted_where_the_command_line_leaves_out_what_the_file_names(
    words: tuple[str, ...], narrowed: bool, tmp_path: Path
) -> None:
    assert chosen(tmp_path, *words, file=FILE).narrowed is narrowed


def test_without_levels_in_the_file_the_default_ones_are_meant(tmp_path: Path) -> None:
    file = FILE.replace('levels = ["core", "concurrent"]\n', "")
    assert not chosen(tmp_path, file=file).narrowed
    assert chosen(tmp_path, "--level", "core", file=file).narrowed


@pytest.mark.parametrize("examples", [1, 7, 8, 100])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_shards_of_a_check_are_the_whole_and_draw_apart(examples: int, count: int, tmp_path: Path) -> None:
    words = ("model:", "--examples", str(examples), "--seed", "5")
    parts = [searches(chosen(tmp_path, *words, "--shard", f"{n}/{count}"))[0].plan for n in range(1, count + 1)]
    assert sum(part.examples for part in parts) == examples
    assert max(part.examples for part in parts) - min(part.examples for part in parts) <= 1
    assert len({part.seed for part in parts}) == count
    assert parts[0].seed == 5
    processes = [process for part in parts for process in shared(part, 2)]
    assert sum(process.examples for process in processes) == examples


def test_the_time_is_divided_among_the_searches(tmp_path: Path) -> None:
    made = searches(chosen(tmp_path, "model:", "--level", "core,usage,concurrent,refs", "--budget", "30s"))
    assert [search.levels for search in made] == [("core", "usage"), ("concurrent",), ("refs",)]
    assert [search.plan.budget for search in made] == [10.0] * 3
    assert len({search.name for search in made}) == 3


def test_the_command_that_is_told_does_the_same_again(tmp_path: Path) -> None:
    words = (
        "model:",
        "--level",
        "core,refs",
        "--examples",
        "9",
        "--budget",
        "90s",
        "--without",
        "walk",
        "--seed",
        "4",
        "--shard",
        "2/3",
    )
    made = chosen(tmp_path, *words)
    command, *again = made.command.split()
    assert command == "snapspec"
    assert again[0] == "check"
    assert chosen(tmp_path, *again[1:]) == made


def test_one_driver_of_one_socket_is_called_by_one_process(tmp_path: Path) -> None:
    one = chosen(tmp_path, "plugin:/run/x.sock", "--start", "true --listen /run/x.sock", "--jobs", "4")
    each = chosen(tmp_path, START, "--start", "true --listen {dir}/x.sock", "--jobs", "4")
    assert (one.jobs, each.jobs) == (1, 4)
    assert chosen(tmp_path, "model:", "--examples", "2", "--jobs", "4").jobs == 2
