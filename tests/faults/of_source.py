"""Faults of a stage file: each changes its lines."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from random import Random


def _forward(lines: list[str]) -> list[int]:
    """The first lines of the statements in `forward` of the stage, of those that are one line."""
    stage = [node for node in ast.parse("".join(lines)).body if isinstance(node, ast.ClassDef)][-1]
    (forward,) = (f for f in stage.body if isinstance(f, ast.FunctionDef) and f.name == "forward")
    return [s.lineno - 1 for s in forward.body if s.lineno == s.end_lineno and not isinstance(s, (ast.Delete, ast.For))]


def _cut_line(lines: list[str], random: Random) -> list[str]:
    at = random.choice(_forward(lines))
    return lines[:at] + lines[at + 1 :]


def _blank_line(lines: list[str], random: Random) -> list[str]:
    """A line of `forward` that is taken out without moving the others."""
    at = random.choice(_forward(lines))
    return [*lines[:at], "\n", *lines[at + 1 :]]


def _insert_line(lines: list[str], random: Random) -> list[str]:
    at = random.choice(_forward(lines))
    return [*lines[:at], random.choice(["        noise = torch.zeros(1)\n", lines[at]]), *lines[at:]]


def _extend_line(lines: list[str], random: Random) -> list[str]:
    """A further operator in a line of `forward`."""
    at = random.choice([i for i in _forward(lines) if " = " in lines[i] and "shape" not in lines[i]])
    left, _, right = lines[at].partition(" = ")
    return [*lines[:at], f"{left} = torch.relu({right.strip()})\n", *lines[at + 1 :]]


def _reverse_return(lines: list[str], random: Random) -> list[str]:
    at = _forward(lines)[-1]
    inner = lines[at].strip().removeprefix("return (").rstrip(",)")
    given = [name.strip() for name in inner.split(",")]
    changed = random.choice([given[::-1], given[:-1], [*given, given[0]]])
    return [*lines[:at], f"        return ({', '.join(changed)}{',' * bool(changed)})\n", *lines[at + 1 :]]


def _rename_argument(lines: list[str], random: Random) -> list[str]:
    at = max(i for i, line in enumerate(lines) if line.startswith("    def forward(self, "))
    names = lines[at].partition("self, ")[2].rstrip("):\n").split(", ")
    old = random.choice(names)
    return [*lines[:at], lines[at].replace(f" {old}", f" {old}_2"), *lines[at + 1 :]]


_ROW = re.compile(r"(    |RECEIVES = \{|SENDS = \{)\"\w+\": .*torch\.")  # of a table, which may be one line


def _retype_table(lines: list[str], random: Random) -> list[str]:
    at = random.choice([i for i, line in enumerate(lines) if _ROW.match(line)])
    changed = random.choice(
        [
            lines[at].replace("torch.", "torch.u"),
            lines[at].replace("(", "(5, ", 1),
            "",
            lines[at].replace('"', '"x', 1),
        ]
    )
    return [*lines[:at], changed, *lines[at + 1 :]]


def _break_syntax(lines: list[str], random: Random) -> list[str]:
    at = random.choice(_forward(lines))
    return [*lines[:at], lines[at].replace("(", "((", 1).replace("=", "= =", 1), *lines[at + 1 :]]


def _rename_class(lines: list[str], random: Random) -> list[str]:
    return [line.replace("class Stage", "class Part") for line in lines]


def _other_number(lines: list[str], random: Random) -> list[str]:
    """Another number in a line of `forward`, which only the hash tells."""
    at = random.choice(_forward(lines))
    return [*lines[:at], lines[at].replace("0", "1").replace("[2", "[3").replace(" = ", " =  "), *lines[at + 1 :]]


def _comment(lines: list[str], random: Random) -> list[str]:
    return [*lines, random.choice(["# by hand\n", "torch.set_grad_enabled(False)\n", "\n"])]


SOURCE_FAULTS: dict[str, Callable[[list[str], Random], list[str]]] = {
    "a line is cut": _cut_line,
    "a line is blank": _blank_line,
    "a line more": _insert_line,
    "an operator more": _extend_line,
    "other results": _reverse_return,
    "an argument is renamed": _rename_argument,
    "a table is changed": _retype_table,
    "no Python": _break_syntax,
    "a class is renamed": _rename_class,
    "another number": _other_number,
    "a comment": _comment,
}
ONLY_BY_HASH = {"another number", "a comment"}
"""What no second place in the manifest says."""
