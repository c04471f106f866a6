"""The layout of source by `ruff format`."""

from __future__ import annotations

import subprocess
import sys

from codegen.lines.line import LINE_LENGTH


def formatted(source: str) -> str:
    """The source as `ruff format` lays it out."""
    command = [sys.executable, "-m", "ruff", "format", "--isolated", f"--line-length={LINE_LENGTH}", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
