"""Module path and source line of an exported node."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from torch import fx

from ir.capture.paths import clean, is_step_file, is_torch_file, short_path
from ir.capture.source_lines.statements import statement_at
from ir.location import Frame, Where

_FRAME = re.compile(r'^ *File "([^"]+)", line (\d+), in [^\n]+(?:\n {4,}(?! *File ")([^\n]*))?', re.MULTILINE)


def where_of(node: fx.Node) -> Where:
    """Module path without the wrapper's prefix, and the innermost source line that is not torch's own."""
    trace = node.meta.get("stack_trace") or ""
    stack = node.meta.get("nn_module_stack") or {}
    return Where(module_path(node), *_source_line(trace), _frames(trace, tuple(path for path, _ in stack.values())))


def module_path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return clean(list(stack.values())[-1][0]) if stack else ""


def module_classes(node: fx.Node) -> dict[str, str]:
    """Class name by module path, for the modules around a node."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    return {clean(path): _class_name(cls) for path, cls in stack.values() if path and not path.startswith("_empty_nn")}


@lru_cache(maxsize=4096)
def _source_line(trace: str) -> tuple[str, int, str]:
    frames = [f for f in _FRAME.findall(trace) if not is_torch_file(f[0])]
    if not frames:
        return "", 0, ""
    file, line, code = frames[-1]
    return short_path(file), int(line), code.strip()


@lru_cache(maxsize=4096)
def _frames(trace: str, paths: tuple[str, ...]) -> tuple[Frame, ...]:
    """The calls of modules, each with its line; without lines where torch's stack trace does not match them."""
    modules = [clean(path) for path in paths if path]  # without the wrapper
    calls = [(file, int(line)) for file, line, _ in _FRAME.findall(trace)][1:]
    if len(calls) > len(modules) and is_step_file(calls[0][0]):  # which calls the model's own forward
        calls = calls[1:]
    if len(calls) != len(modules):
        return tuple(map(Frame, modules))
    return tuple(_frame(module, *call) for module, call in zip(modules, calls, strict=True))


@lru_cache(maxsize=65536)
def _frame(module: str, file: str, line: int) -> Frame:
    if is_torch_file(file):
        return Frame(module)
    s = statement_at(file, line)
    return Frame(module, short_path(file), s.line, s.parameters, s.copies)


def _class_name(cls: Any) -> str:
    return (cls if isinstance(cls, str) else cls.__qualname__).rpartition(".")[2]
