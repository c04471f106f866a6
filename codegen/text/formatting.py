"""The layout of source by `ruff format`."""

from __future__ import annotations

import subprocess
from functools import cache

from ruff.__main__ import find_ruff_bin

from codegen.lines.line import LINE_LENGTH


def formatted(source: str) -> str:
    """The source as `ruff format` lays it out."""
    command = [_ruff(), "format", "--isolated", f"--line-length={LINE_LENGTH}", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def _ruff() -> str:
    """The program itself: to start it by `python -m ruff` takes six times as long."""
    return find_ruff_bin()
