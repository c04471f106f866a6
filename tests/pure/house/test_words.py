"""Docstrings say the noun first; a name means one thing in the house."""

from __future__ import annotations

import ast
import re

from tests.support.source_files import FILES, OURS, ROOT, defined, statements, syntax

SOURCES = [file for file in FILES if file.relative_to(ROOT).parts[0].removesuffix(".py") in OURS]
QUESTIONS = re.compile(r"(What|Which|Where|How|Who|Whose|Whether|When|Why)\b")

# Names that two folders define for different things, each with its reason.
TWO_MEANINGS = {
    **dict.fromkeys(["Device", "Link", "Node", "Value"], "a partitioning problem's own, numbers without torch"),
    "Microbatching": "the manifest's, which imports nothing of ir",
    "MediaPlaces": "the manifest's, too",
    "main": "what `python -m` runs",
    "parser": "the flags of what `python -m` runs",
    "constexpr": "Triton's, in each file that stage files import",
}


def test_a_module_docstring_opens_with_what_the_module_is() -> None:
    texts = {str(file.relative_to(ROOT)): ast.get_docstring(syntax(file)) or "" for file in SOURCES}
    assert not [name for name, text in texts.items() if not text or QUESTIONS.match(text)]


def test_a_docstring_of_a_class_or_function_opens_with_a_noun_or_a_verb() -> None:
    """ "Whether …" may stay: a predicate answers it."""
    opens_with_a_question = []
    for file in SOURCES:
        documented = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        for node in (n for n in statements(file) if isinstance(n, documented)):
            question = QUESTIONS.match(ast.get_docstring(node) or "")
            if question and question[0] != "Whether":
                opens_with_a_question.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not opens_with_a_question


def test_constants_stand_in_backticks_in_docstrings() -> None:
    constants = {name for file in SOURCES for name in defined(file) if name.isupper() and len(name) > 2}
    constants = (constants | {"OUT", "SOURCE", "RECEIVES", "SENDS"}) - {"CPU", "GPU", "AND", "XOR"}  # words as well
    bare = []
    for file in SOURCES:
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        for node in (n for n in statements(file) if isinstance(n, documented)):
            text = ast.get_docstring(node) or ""
            prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))  # without examples
            words = set(re.findall(r"\b[A-Z][A-Z_]+\b", re.sub(r"`[^`]*`", "", prose)))
            bare += [f"{file.relative_to(ROOT)}: {word}" for word in words & constants]
    assert not bare


def test_a_public_name_is_defined_once_in_the_house() -> None:
    homes: dict[str, set[str]] = {}
    for file in SOURCES:
        for name in defined(file):
            homes.setdefault(name, set()).add(str(file.relative_to(ROOT)))
    twice = {name: files for name, files in homes.items() if len(files) > 1}
    assert {name: files for name, files in twice.items() if name not in TWO_MEANINGS} == {}
    assert twice.keys() >= TWO_MEANINGS.keys()
