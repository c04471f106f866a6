"""What README and CONTRIBUTING say is so: their commands run, and the files and options they name exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
TARGETS = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """The lines of its shell blocks, without their comments."""
    lines = (line.partition("#")[0].strip() for block in blocks(page, "sh") for line in block.splitlines())
    return [line for line in lines if line]


def run(command: list[str], folder: Path) -> str:
    """Run a command as in the repository's root, but writing into another folder."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    named = re.findall(r"`make (\w+)", (ROOT / page).read_text())
    typed = [c.split()[1] for c in commands(page) if c.startswith("make ")]
    assert {*named, *typed} <= set(TARGETS)


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    linked = re.findall(r"\]\(([^)#:]+)\)", text)
    quoted = re.findall(r"`((?:ir|passes|codegen|runtime|tests|examples)/[\w./-]*)`", text)
    assert not [name for name in (*linked, *quoted) if not (ROOT / name).exists()]


def test_options_are_those_of_the_command(tmp_path: Path) -> None:
    table = re.findall(r"^\| (`-.*?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    told = {option for row in table for option in re.findall(r"--[a-z-]+", row)}
    offered = set(re.findall(r"(?<!\S)--[a-z-]+", run([sys.executable, "-m", "passes.compile", "--help"], tmp_path)))
    assert told == offered - {"--help"}


@pytest.mark.slow
def test_readme_runs_from_top_to_bottom(tmp_path: Path) -> None:
    """Its model file, its commands and its Python, one after another as a reader would, and what comes out."""
    text = (ROOT / "README.md").read_text()
    for language, block in re.findall(r"^```(sh|python|text)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        first = block.splitlines()[0]
        match language:
            case "python" if first.startswith("# ") and first.endswith(".py"):
                (tmp_path / first.removeprefix("# ")).write_text(block)
            case "python":
                run([sys.executable, "-W", "error", "-c", block], tmp_path)
            case "sh":
                for command in block.splitlines():
                    if command.startswith(".venv/bin/python "):
                        run([sys.executable, *command.split()[1:]], tmp_path)
            case "text" if first.endswith("/"):
                listed = {line.split()[0] for line in block.splitlines()[1:]}
                assert {file.name for file in (tmp_path / first).iterdir()} == listed


def test_code_to_copy_runs(tmp_path: Path) -> None:
    for block in blocks("CONTRIBUTING.md", "python"):
        run([sys.executable, "-W", "error", "-c", block], tmp_path)


def test_every_command_is_one_that_a_test_runs() -> None:
    known = ("make ", ".venv/bin/python -m passes.compile ", ".venv/bin/python -m pytest ")
    assert not [c for page in PAGES for c in commands(page) if not c.startswith(known)]
