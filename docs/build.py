"""The pages of this folder as HTML, with the entry points from their docstrings: `make docs` writes build/docs."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pdoc.doc
import pdoc.render
import typer.main

import stagecut
from passes.cli.handed_on import HANDED_ON
from passes.cli.main import app
from passes.options.options import Candidates, flags

HERE = Path(__file__).resolve().parent
PAGES = ("index", "command", "python", "generation", "serving", "artifact")
PAGES += ("add-a-pass", "add-a-cost", "add-a-partitioner", "add-an-objective", "add-a-device")


def build(out: Path) -> list[Path]:
    """Write each page to the folder `out`, and what the search box looks through.  Returns the pages."""
    out.mkdir(parents=True, exist_ok=True)
    pages = {name: _module(name) for name in PAGES}
    pdoc.render.configure(docformat="markdown", show_source=False, include_undocumented=False, template_directory=HERE)
    pdoc.render.env.globals["pages"] = [(name, _title(page.docstring)) for name, page in pages.items()]
    for name, page in pages.items():
        # The options' types are those of passes/options/options.py, shown as they stand there.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Error parsing type annotation")
            (out / f"{name}.html").write_text(pdoc.render.html_module(page, pages), encoding="utf-8")
    (out / "search.js").write_text(pdoc.render.search_index(pages), encoding="utf-8")
    return [out / f"{name}.html" for name in PAGES]


def _module(name: str) -> pdoc.doc.Module:
    """A page as pdoc takes it: a module whose docstring is the text, and that has what is documented below it."""
    module = ModuleType(name, _text(name))
    names = stagecut.__all__ if name == "python" else []
    vars(module).update({"__all__": names}, **{entry: getattr(stagecut, entry) for entry in names})
    return pdoc.doc.Module(module)


def _text(name: str) -> str:
    text = (HERE / f"{name}.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\(([\w-]+)\.md(#[\w-]+)?\)", r"](\1.html\2)", text)
    return re.sub(r"^<!-- options of (\w+) -->$", lambda found: options_of(found[1]), text, flags=re.MULTILINE)


def _title(text: str) -> str:
    return text.partition("\n")[0].removeprefix("# ")


def options_of(subcommand: str) -> str:
    """The options of a subcommand, from what its `--help` is made of."""
    if subcommand in HANDED_ON:
        return f"```text\n{HANDED_ON[subcommand].parser(f'stagecut {subcommand}').format_help().strip()}\n```"
    command = typer.main.get_command(app).commands[subcommand]  # type: ignore[attr-defined]
    groups: dict[str, list[typer.core.TyperOption]] = {}
    for option in command.params:
        if isinstance(option, typer.core.TyperOption) and option.name != "help":
            groups.setdefault(option.rich_help_panel or "", []).append(option)
    return "\n\n".join("\n".join(_group(name, options)) for name, options in groups.items())


def _group(name: str, options: Iterable[typer.core.TyperOption]) -> Iterator[str]:
    if name:
        yield f"### {name}\n"
        yield "| option | in Python | what it does |\n|---|---|---|"
    else:
        yield "| option | what it does |\n|---|---|"
    for option in options:
        value = f" {option.metavar}".replace("|", r"\|") if option.metavar else ""
        spelled = ", ".join(f"`{opt}`" for opt in sorted(option.opts, key=len, reverse=True))
        cells = [spelled.removesuffix("`") + f"{value}`", *([_in_python(str(option.name))] if name else [])]
        yield f"| {' | '.join(cells)} | {(option.help or '').replace('|', chr(92) + '|')} |"


def _in_python(name: str) -> str:
    """The keyword of a Python call, and what it is set to where the flag turns it off."""
    flag = (flags(Candidates) | flags())[name]
    return "" if flag.command_only else f"`{name}=False`" if flag.turns_off else f"`{name}`"


if __name__ == "__main__":
    print(f"open {build(Path(sys.argv[1]))[0]}")
