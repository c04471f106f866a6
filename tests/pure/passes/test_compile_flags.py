"""Commands that cut a source first: what they hand on to the compiler, and to the command on its artifact."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from passes.cli import compile_flags, generating, serving


class Ran(Exception):
    """What would take the place of this process."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The flags for the compiler."""
    seen: list[list[str]] = []

    def prepared(source: str, flags: list[str]) -> Path:
        seen.append(flags)
        return Path("/cache/out")

    def execv(_: str, arguments: list[str]) -> None:
        raise Ran(*arguments[2:])

    monkeypatch.setattr(compile_flags, "prepared", prepared)
    monkeypatch.setattr(os, "execv", execv)
    return seen


def handed_on(command: Any, *arguments: str) -> tuple[str, ...]:
    with pytest.raises(Ran) as ran:
        command.main(list(arguments))
    return ran.value.args


def test_a_source_is_cut_for_texts_and_continued_with_the_other_flags(made: list[list[str]]) -> None:
    given = (
        "model.py",
        "a prompt",
        "--stages",
        "2",
        "--max-length",
        "64",
        "--top-k",
        "5",
        "--stop",
        "a",
        "--stop",
        "b",
    )
    ran = handed_on(generating, *given, "--processes", "--chat")
    assert made == [["--stages", "2", "--max-length", "64", "--generate"]]
    assert ran[:3] == ("generate", "/cache/out", "a prompt")
    assert sorted(ran[3:]) == sorted(["--top-k", "5", "--stop", "a", "--stop", "b", "--processes", "--chat"])


def test_a_server_has_the_name_of_its_source(made: list[list[str]]) -> None:
    ran = handed_on(serving, "folder/model.py", "--devices", "cpu,cpu", "--no-processes")
    assert made == [["--devices", "cpu,cpu"]]
    assert ran == ("serve", "/cache/out", "--devices", "cpu,cpu", "--no-processes", "--name", "model")
