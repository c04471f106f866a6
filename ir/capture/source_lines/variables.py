"""The variables that the user's functions hold tensors in, read off their frames while torch records the model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import PythonKeyTracer, get_proxy_slot

from ir.capture.paths import is_own_file, is_torch_file

_KEY = "variables"
_UNSEEN: tuple[int, tuple[str, ...]] = (-1, ())


def variables_of(node: fx.Node) -> tuple[str, ...]:
    """The variable that holds a node's result in each call that led to it, outermost first; "" where none does.

    The first ones are of the calls of modules, as in `Where.frames`, the last one of a function that the innermost
    module calls.
    """
    return _seen(node)[1]


def inherits_variables(node: fx.Node) -> bool:
    """Whether a later node has the variables: torch decomposed the recorded one, and the last node is its result."""
    later = node.next
    while later.op == "call_function" and later.meta.get("val") is None:  # an assertion about this one
        later = later.next
    return _seen(node) != _UNSEEN and _seen(later)[0] == _seen(node)[0]


def _seen(node: fx.Node) -> tuple[int, tuple[str, ...]]:
    return (node.meta.get("custom") or {}).get(_KEY, _UNSEEN)


@contextmanager
def watched_variables() -> Iterator[None]:
    """While this lasts, nodes that torch records learn which variables of the user's hold their results."""
    watch = _Watch()
    create = PythonKeyTracer.create_node

    def create_node(tracer: PythonKeyTracer, *args: Any, **kwargs: Any) -> fx.Node:
        node = create(tracer, *args, **kwargs)
        watch.after(node, tracer)
        return node

    with patch.object(PythonKeyTracer, "create_node", create_node):
        yield


@dataclass(frozen=True, eq=False)
class _Running:
    """A call of a function of the user's: how many modules are being called in it, and whether it is one's forward."""

    frame: FrameType
    number: int
    modules: int
    forward: bool


@dataclass
class _Watch:
    """Reads the frames of the user's functions at each node: what they were given since the node before."""

    stack: list[_Running] = field(default_factory=list)  # at the last node: a call that ended since keeps its variables
    places: dict[fx.Node, dict[int, int]] = field(default_factory=dict)  # of the calls that led to a node, by number
    read_at: dict[int, int] = field(default_factory=dict)  # the instruction at which a call was last read
    numbers: Iterator[int] = field(default_factory=count)

    def after(self, node: fx.Node, tracer: PythonKeyTracer) -> None:
        before, (self.stack, modules) = self.stack, self._calls()
        for running in dict.fromkeys((*reversed(before), *reversed(self.stack))):
            self._read(running, tracer)
        self.read_at = {r.number: self.read_at[r.number] for r in self.stack}
        if node.op == "call_function" and _seen(node) == _UNSEEN:
            inner = [r for r in self.stack if r.forward or r.modules == modules]
            self.places[node] = {r.number: r.modules - r.forward for r in inner}
            _keep(node, next(self.numbers), ("",) * (modules + 1))

    def _calls(self) -> tuple[list[_Running], int]:
        """The calls of the user's functions, outermost first, and how many modules are being called."""
        known = {id(r.frame): r for r in self.stack}
        running: list[_Running] = []
        modules = 0
        for frame in _frames():
            forward = _is_forward(frame)
            modules += forward
            if not is_torch_file(frame.f_code.co_filename):
                running.append(known.get(id(frame)) or _Running(frame, next(self.numbers), modules, forward))
        return running, modules

    def _read(self, running: _Running, tracer: PythonKeyTracer) -> None:
        """Note the tensors that a call's variables hold, where a node made them within it."""
        if self.read_at.get(running.number) == running.frame.f_lasti:
            return
        self.read_at[running.number] = running.frame.f_lasti
        for name, held in running.frame.f_locals.items():
            slot = get_proxy_slot(held, tracer, None) if isinstance(held, torch.Tensor) and name != "_" else None
            if slot is not None and running.number in self.places.get(slot.proxy.node, ()):
                node, place = slot.proxy.node, self.places[slot.proxy.node][running.number]
                number, names = _seen(node)
                if not names[place]:
                    _keep(node, number, (*names[:place], name, *names[place + 1 :]))


def _frames() -> list[FrameType]:
    """The calls of modules and of the user's functions, outermost first; none where the model does not run.

    None of our own frames is among them: one that refers to itself would keep all that they hold alive.
    """
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file, forward = frame.f_code.co_filename, _is_forward(frame)
        if forward and is_own_file(file):
            return found[::-1]
        if forward or not is_torch_file(file):
            found.append(frame)
        frame = frame.f_back
    return []


def _is_forward(frame: FrameType) -> bool:
    """Whether a call is that of a module, whatever its code calls itself."""
    code = frame.f_code
    if code.co_name != "forward" or not code.co_argcount:
        return False
    return code.co_varnames[0] == "self" or isinstance(frame.f_locals.get(code.co_varnames[0]), nn.Module)


def _keep(node: fx.Node, number: int, names: tuple[str, ...]) -> None:
    node.meta["custom"] = {**(node.meta.get("custom") or {}), _KEY: (number, names)}
