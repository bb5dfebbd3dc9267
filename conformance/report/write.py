"""Writes the files of a report: report.json, summary.md, report.html, and each finding's history."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import FORMAT
from snapspec.conformance.report.document import Found, Report, encode
from snapspec.conformance.report.markdown import summary
from snapspec.conformance.report.page import page

#: How the file of a finding is named.
_NAME = re.compile(r"\d+-[A-Za-z0-9_-]+\.json")


def write(report: Report, directory: Path) -> None:
    """Write everything into `directory`, which is made; each file is there whole or not at all.

    The findings of an earlier run are removed, and nothing else. Raises CannotRun, naming the remedy, where that cannot be.
    """
    findings = {f"findings/{file_name(found)}": found.history for found in report.findings if found.history}
    texts = {
        "report.json": _json(encode(report)),
        "summary.md": summary(report),
        "report.html": page(report),
        **{name: _json(history) for name, history in findings.items()},
    }
    try:
        (directory / "findings" if findings else directory).mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            _put(directory / name, text)
        for path in _of_earlier_runs(directory / "findings"):
            if f"findings/{path.name}" not in texts:
                path.unlink()
    except OSError as error:
        where = error.filename or directory
        raise CannotRun(f"cannot write the report, {where}: {error.strerror}; name another directory with --out") from None


def file_name(found: Found) -> str:
    """The name of the finding's file within `findings`."""
    return f"{found.number}-{re.sub('[^A-Za-z0-9_-]', '_', found.clause) or 'unknown'}.json"


def _json(document: object) -> str:
    return json.dumps(document, indent=1) + "\n"


def _put(path: Path, text: str) -> None:
    """The file as a whole: under another name first, so that nobody ever reads a part of it."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("x", encoding="utf-8") as file:
            file.write(text)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _of_earlier_runs(findings: Path) -> Iterator[Path]:
    """The files of findings that a run has written: by their names, and by what stands in them."""
    for path in sorted(findings.iterdir()) if findings.is_dir() else []:
        if _NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink() and _is_history(path):
            yield path


def _is_history(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT
