"""The tutorial as a program: its blocks of code, put together as its reader does, and its commands with what they print."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

#: A fenced block: its language, and its lines.
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: What stands for text that is cut, or differs from run to run.
CUT = "…"


@dataclass(frozen=True)
class Shown:
    """A command of the tutorial, what it shows as printed, and the driver as it then is."""

    words: tuple[str, ...]
    printed: str
    driver: str

    @property
    def finding(self) -> str:
        """The clause that it shows to be broken, or "conforms", or "cannot run"."""
        found = re.search(r"DIVERGES from (\S+),", self.printed)
        return found[1] if found else "conforms" if "CONFORMS" in self.printed else "cannot run"

    @property
    def status(self) -> int:
        """The exit status that goes with what it prints."""
        return {"conforms": 0, "cannot run": 2}.get(self.finding, 1)


@dataclass
class _Module:
    """A module that grows by blocks of code: imports come first, and what has the name of something replaces it."""

    imports: list[str] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)

    def take(self, code: str) -> None:
        """A block: what is indented belongs to the class."""
        inside = code.startswith(" ")
        code = textwrap.dedent(code)
        for node in ast.parse(code).body:
            text = ast.get_source_segment(code, node)
            assert text is not None
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.imports.append(text)
            elif isinstance(node, ast.ClassDef) and node.name == "Driver":
                self.methods = {}
            elif inside:
                assert isinstance(node, ast.FunctionDef), f"only methods stand in the class: {text}"
                self.methods[node.name] = text
            else:
                self.parts[node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else text] = text

    @property
    def text(self) -> str:
        """The whole module."""
        body = "\n\n".join(self.methods.values()) or "pass"
        return "\n".join([*self.imports, "", *self.parts.values(), "", "class Driver:", textwrap.indent(body, "    "), ""])


def shown(text: str) -> Iterator[Shown]:
    """The commands of the tutorial, in order, each with the driver that its reader then has."""
    module = _Module()
    for language, body in _BLOCK.findall(text):
        if language == "python":
            module.take(body)
        elif language == "console":
            command, _, printed = body.partition("\n")
            name, *words = command.removeprefix("$ ").split()
            assert name == "snapspec", command
            yield Shown(tuple(words), printed, module.text)


def pattern(printed: str) -> str:
    """The regular expression of what may be printed: a line that is cut stands for any lines, a cut in a line for any text."""
    lines = (r"(?:.*\n)*?" if line.strip() == CUT else _line(line) for line in printed.splitlines())
    return "".join(lines)


def _line(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.split(CUT)) + " *\n"
