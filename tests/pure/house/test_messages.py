"""Every error that a user may see has a test that quotes it: three words of the message that no other string has."""

from __future__ import annotations

import ast
import builtins
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.source_files import FILES, OURS, ROOT, syntax, without_collection

HERE = Path(__file__).resolve()
Phrase = tuple[str, ...]

UNSEEN = {
    "InternalError": "a fault of ours, not of the input",
    "VerifyError": "a fault of ours, not of the input",
    "AssertionError": "a fault of ours, not of the input",
    "InDoubt": "caught: layers are then exported in full",
    "_Untold": "caught: a check of sizes then cannot tell",
    "Unknown": "caught: a mask is then left as it is",
    "_Refused": "caught: the manifest then says why rows are not padded",
    "Unspeakable": "caught: the artifact then says why it cannot be cut again",
    "LookupError": "caught: the message that names the graph has it",
    "NoFit": "caught: the message that names the tensors of an adapter and the weight has it",
    "NoKernel": "caught: the function then runs as it is",
    "NotWhole": "caught: the module around it is kept whole in its place",
}
"""Classes of errors that no user sees, and why."""

UNREACHED = {
    ("runtime/processes/links/inlet.py", "an inlet receives"): "a fault of ours: ends of a link have one direction",
    ("runtime/processes/links/outlet.py", "an outlet sends"): "a fault of ours: ends of a link have one direction",
    ("runtime/processes/links/outlet.py", "the caller's end of a link sends"): "a fault of ours, as the two before",
}
"""Errors that no user sees, by file and the first literal of the message, and why."""


@dataclass(frozen=True)
class Message:
    """An error that is made in a file: its class and the literals of its message."""

    file: str
    line: int
    kind: str
    literals: tuple[str, ...]

    @property
    def phrases(self) -> set[Phrase]:
        return {phrase for literal in self.literals for phrase in phrases(literal)}


def phrases(text: str, most: int = 3) -> Iterator[Phrase]:
    """Each `most` words in a row of a text, or all of a shorter one; backslashes of patterns do not count."""
    return in_a_row(words := words_of(text), min(most, len(words)) or 1)


def words_of(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.replace("\\", ""))


def in_a_row(words: list[str], size: int) -> Iterator[Phrase]:
    return zip(*(words[i:] for i in range(size)), strict=False)


@dataclass(frozen=True)
class Text:
    """What a file says: its classes with their bases, its calls, and all its strings."""

    file: str
    classes: tuple[ast.ClassDef, ...]
    calls: tuple[ast.Call, ...]
    strings: tuple[str, ...]


@cache
def texts() -> tuple[Text, ...]:
    with without_collection():
        return tuple(map(text_of, (file for file in FILES if file.relative_to(ROOT).parts[0] in OURS)))


def text_of(file: Path) -> Text:
    nodes = list(ast.walk(syntax(file)))
    classes = tuple(n for n in nodes if isinstance(n, ast.ClassDef))
    calls = tuple(n for n in nodes if isinstance(n, ast.Call))
    return Text(file.relative_to(ROOT).as_posix(), classes, calls, tuple(strings(nodes)))


def strings(nodes: Iterable[ast.AST]) -> Iterator[str]:
    return (n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))


def error_classes() -> set[str]:
    """The names of our classes of errors and of Python's."""
    bases = {n.name: {ast.unparse(b).rpartition(".")[2] for b in n.bases} for text in texts() for n in text.classes}
    known = {n for n, c in vars(builtins).items() if isinstance(c, type) and issubclass(c, BaseException)}
    while found := {n for n in bases if n not in known and bases[n] & known}:
        known |= found
    return known


def kind_of(call: ast.Call) -> str:
    """The class of a call; that of a base class is `super`."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return "super" if name == "__init__" else name
        case _:
            return ""


def messages() -> Iterator[Message]:
    """Each place where an error is made with a message of its own."""
    known = error_classes() | {"super"}
    for text in texts():
        for call in (c for c in text.calls if kind_of(c) in known):
            given = [*call.args, *(k.value for k in call.keywords)]
            literals = tuple(strings(n for a in given for n in ast.walk(a)))
            if any(" " in s.strip() for s in literals):
                yield Message(text.file, call.lineno, kind_of(call), literals)


def quoted(found: Iterable[Message]) -> Iterator[Message]:
    """The messages of which a test has a phrase that no other string of ours has."""
    ours = Counter(p for text in texts() for s in text.strings for p in set(phrases(s)))
    tests = (file.read_text() for file in FILES if file.relative_to(ROOT).parts[0] == "tests" and file != HERE)
    whole = [words_of(re.sub(r"\b[rf]+(?=[\"'])", "", text)) for text in tests]
    said = {p for words in whole for size in (1, 2, 3) for p in in_a_row(words, size)}
    for message in found:
        own = {p for p in message.phrases if ours[p] == 1 and len(p) == 3}
        if (own or message.phrases) & said:
            yield message


def test_every_message_is_quoted_by_a_test() -> None:
    found = {m for m in messages() if m.kind not in UNSEEN}
    with without_collection():
        missing = {m for m in found - set(quoted(found)) if (m.file, m.literals[0]) not in UNREACHED}
    told = [f"{m.file}:{m.line}: {m.kind}: {' … '.join(m.literals)}" for m in missing]
    assert not told, "no test quotes\n" + "\n".join(sorted(told))


def test_what_no_user_sees_is_there() -> None:
    found = list(messages())
    assert set(UNREACHED) <= {(m.file, m.literals[0]) for m in found}
    assert set(UNSEEN) <= {m.kind for m in found} | error_classes()
