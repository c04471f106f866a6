"""Interrupts of the command, as a terminal sends them: one line, and everything is as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE
from tests.support.running.commands import Shell

ROOT = Path(__file__).resolve().parents[3]
QUICK = "--stages 2 --time-limit 5 --size-limit 0"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell.open(tmp_path, monkeypatch, capsys)


INTERRUPTED = """
import os, signal
from codegen.artifact import weights
from stagecut import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
write = weights._write

def write_and_interrupt(*args):
    write(*args)
    os.kill(os.getpid(), signal.SIGINT)

weights._write = write_and_interrupt
main()
"""


@pytest.mark.slow
def test_an_interrupt_while_weights_are_written(shell: Shell) -> None:
    """A real signal, after the first tensor: 130 and one line, and everything is as it was."""
    before = shell.contents()
    command = [sys.executable, "-c", INTERRUPTED, "compile", "model.py", "-o", "out", *QUICK.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=shell.folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 130, done.stderr
    assert done.stderr.endswith("interrupted; nothing was written\n")
    assert shell.contents() == before


EARLY = """
import signal, sys
from importlib.abc import MetaPathFinder
from stagecut import main

class Interrupting(MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "NAME":
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
assert "NAME" not in sys.modules
sys.meta_path.insert(0, Interrupting())
main()
"""


@pytest.mark.parametrize("library", ["torch", "typer"])
def test_an_interrupt_while_a_library_is_imported(library: str, shell: Shell) -> None:
    """Which takes seconds: as likely a moment as any."""
    command = [sys.executable, "-c", EARLY.replace("NAME", library), "compile", "model.py", "-o", "out", *QUICK.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=shell.folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (130, "interrupted; nothing was written\n")
