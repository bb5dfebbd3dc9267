"""The languages of the adapters that are here, for tests that run in each."""

from __future__ import annotations

import subprocess

import pytest


def _perl_refused() -> str:
    try:
        ran = subprocess.run(["perl", "-MJSON::PP", "-e", "1"], capture_output=True, check=False)
    except OSError:
        return "needs perl: apt-get install perl"
    return "" if ran.returncode == 0 else "needs the core modules of perl: apt-get install perl"


_REFUSED = _perl_refused()
LANGUAGES = ["python", pytest.param("perl", marks=pytest.mark.skipif(_REFUSED != "", reason=_REFUSED or "it is here"))]
