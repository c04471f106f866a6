"""Pages: the targets, files, links and options that they name exist, their code runs, and `make docs` builds."""

from __future__ import annotations

import dataclasses
import inspect
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import typer.main

import stagecut
from docs.build import PAGES as REFERENCE
from docs.build import build, options_of
from passes.cli.main import app
from passes.options.kinds import Flag
from passes.options.options import flags
from runtime.manifest import manifest

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{name}.md" for name in REFERENCE))


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
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose)
    quoted = re.findall(r"`((?:ir|passes|codegen|runtime|tests|examples|docs)/[\w./-]*)`", prose)
    assert not [name for name in linked if not ((ROOT / page).parent / name).exists()]
    assert not [name for name in quoted if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_named_names_are_in_the_named_files(page: str) -> None:
    pairs = re.findall(r"`(\w+)` in `([\w/]+\.py)`", (ROOT / page).read_text())
    assert not [f"{name} in {file}" for name, file in pairs if not re.search(rf"\b{name}\b", (ROOT / file).read_text())]


RUN = ("make ", "stagecut ", ".venv/bin/torchrun ", "curl ")
NOT_RUN = ("pip install ",)


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_those_that_tests_run(page: str) -> None:
    """`make` targets, checked above, and the command line, run by tests/e2e/command/test_readme.py."""
    assert not [c for c in commands(page) if not c.startswith((*RUN, *NOT_RUN))]


CODE = [(page, block) for page in PAGES if page != "README.md" for block in blocks(page, "python")]


@pytest.mark.parametrize(("page", "block"), CODE, ids=lambda text: text.partition("\n")[0])
def test_code_to_copy_runs(page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "copied.py"
    file.write_text(block)
    runpy.run_path(str(file))


# ---- the reference


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {page.name: page.read_text() for page in build(tmp_path_factory.mktemp("docs"))}


def test_links_of_the_built_pages_lead_somewhere(html: dict[str, str]) -> None:
    link = re.compile(r'href="([\w-]+\.html)?#?([^":$]*)"')
    links = [(page, *found) for page, text in html.items() for found in link.findall(text)]
    assert len(links) > 100
    lost = [link for link in links if link[1] and link[1] not in html]
    lost += [link for link in links if link[2] and f'id="{link[2]}"' not in html.get(link[1] or link[0], "")]
    assert not lost


@pytest.mark.parametrize(("name", "flag"), flags().items())
def test_every_option_is_in_the_reference(name: str, flag: Flag, html: dict[str, str]) -> None:
    for spelled in flag.names or (f"--{name.replace('_', '-')}",):
        assert re.search(rf"<code>{spelled}[ <]", html["command.html"])
    assert flag.command_only or f"<code>{name}" in html["command.html"]


def test_every_subcommand_has_a_section_of_the_reference(html: dict[str, str]) -> None:
    sections = re.findall(r"^## stagecut (\w+)$", (ROOT / "docs/command.md").read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert "<!-- options of" not in html["command.html"]


@pytest.mark.parametrize("command", commands("docs/command.md"))
def test_examples_have_options_that_exist(command: str) -> None:
    known = options_of(command.split()[1])
    assert not [flag for flag in re.findall(r"(?<!\S)--?[a-z][a-z-]*", command) if flag not in known]


PUBLIC = [getattr(stagecut, name) for name in stagecut.__all__]
PUBLIC += [f for cls in PUBLIC if inspect.isclass(cls) for name, f in vars(cls).items() if not name.startswith("_")]


@pytest.mark.parametrize("entry", PUBLIC, ids=lambda entry: getattr(entry, "__name__", "property"))
def test_public_names_have_docstrings(entry: Any) -> None:
    assert inspect.getdoc(entry)


CONTRACT = [cls for cls in vars(manifest).values() if dataclasses.is_dataclass(cls)]


@pytest.mark.parametrize("cls", CONTRACT, ids=lambda cls: cls.__name__)
def test_the_contract_names_every_key(cls: Any) -> None:
    text = (ROOT / "docs/artifact.md").read_text()
    assert not [field.name for field in dataclasses.fields(cls) if f"`{field.name}`" not in text]
    assert f"the version of this format: {manifest.SCHEMA}." in text
