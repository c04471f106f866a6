"""What the pages say is there: targets, files, links; and the code to copy from CONTRIBUTING runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """The lines of a page's shell blocks, without their comments."""
    lines = (line.partition("#")[0].strip() for block in blocks(page, "sh") for line in block.splitlines())
    return [line for line in lines if line]


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"`make (\w+)", (ROOT / page).read_text())
    typed = [command.split()[1] for command in commands(page) if command.startswith("make ")]
    assert not {*named, *typed} - set(targets)


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    linked = re.findall(r"\]\(([^)#:]+)\)", prose)
    quoted = re.findall(r"`((?:ir|passes|codegen|runtime|tests|examples)/[\w./-]*)`", prose)
    assert not [name for name in (*linked, *quoted) if not (ROOT / name).exists()]


RUN = ("make ", "stagecut ", ".venv/bin/torchrun ")
NOT_RUN = ("pip install ",)


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_those_that_tests_run(page: str) -> None:
    """`make` targets, checked above, and the command line, run by tests/e2e/test_readme.py."""
    assert not [c for c in commands(page) if not c.startswith((*RUN, *NOT_RUN))]


@pytest.mark.parametrize("block", blocks("CONTRIBUTING.md", "python"), ids=lambda block: block.partition(":")[0][3:])
def test_code_to_copy_runs(block: str, tmp_path: Path) -> None:
    file = tmp_path / "contributed.py"
    file.write_text(block)
    runpy.run_path(str(file))
