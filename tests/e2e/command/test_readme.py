"""README, followed by a reader who types all of it."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from passes.cli.main import app
from tests.support.running.commands import Shell
from tests.support.running.forked_jobs import agent, end_of
from tests.support.running.serving import serving

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()


def torchrun(*arguments: str, folder: Path) -> None:
    """Processes as from the repository's root, but reading and writing in another folder."""
    command = [sys.executable, "-m", "torch.distributed.run", *arguments]
    with agent(folder, command, cwd=folder) as process:
        ended = end_of(process, folder)
    assert ended.status == 0, f"{' '.join(arguments)}\n{ended.out}\n{ended.err}"


def ask(artifact: Path, url: str, body: str) -> Any:
    """The answer of a server, which is started for the question."""
    with serving(artifact) as server:
        server.wait()
        answer = server.http.post(url.removeprefix("http://127.0.0.1:8000"), content=body)
    assert answer.status_code == 200
    return answer.json()


def test_its_options_are_some_of_the_command() -> None:
    rows = re.findall(r"^\| (`-.*?) \|", README, re.MULTILINE)
    told = {option for row in rows for option in re.findall(r"--[a-z-]+", row)}
    help = CliRunner().invoke(app, ["compile", "--help"], env={"COLUMNS": "200"}).output
    assert len(told) > 10
    assert told < set(re.findall(r"(?<!\S)--[a-z-]+", help))


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its model file, its commands, its Python, and the listing of what comes out.

    Commands and Python run in this process, where torch is imported once; test_command.py starts the command.
    """
    shell, printed, served = Shell.open(tmp_path, monkeypatch, capsys), "", None
    monkeypatch.setenv("COLUMNS", "200")
    for language, block in re.findall(r"^```(sh|python|text)\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        first, *rest = block.splitlines()
        match language:
            case "python" if file := re.fullmatch(r"# (\w+\.py)", first):
                (tmp_path / file[1]).write_text(block)
            case "python":
                exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
            case "sh":
                for command in (first, *rest):
                    match shlex.split(command, comments=True):
                        case ["stagecut", "serve", artifact, *_]:
                            served = tmp_path / artifact
                        case ["curl", _, url, "--json", body] if served is not None:
                            answer = ask(served, url, body)
                            [choice], written = answer["choices"], answer["usage"]["completion_tokens"]
                            if choice["finish_reason"] == "stop":  # weights and tokens are drawn: it may end by itself
                                assert 1 <= written <= 16
                            else:
                                assert (choice["finish_reason"], written) == ("length", 16)
                        case ["stagecut", *arguments]:
                            ended = shell.type_in(*arguments)
                            assert ended.status == 0, ended.err
                            printed = ended.out
                        case [".venv/bin/torchrun", *arguments]:
                            torchrun(*arguments, folder=tmp_path)
            case "text" if first.startswith(" stage"):
                table = [row.split() for row in (first, *rest[:-3]) if row.strip(" ─")]
                assert table == [row.split() for row in printed.splitlines() if row.split() in table]
            case "text" if first.endswith("/"):
                assert {file.name for file in (tmp_path / first).iterdir()} == {line.split()[0] for line in rest}
