"""Places in the user's code where gradients end: detach(), no_grad regions, functions with a backward of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch import fx
from torch.autograd import grad_mode
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument
from torch.fx.experimental.proxy_tensor import PythonKeyTracer
from torch.utils._pytree import tree_leaves

from ir.capture.paths import in_torch, is_torch_file, short_path
from ir.graph import Call, Value
from ir.operators.facts import aten, aten_name

_KEY = "ends_gradients"


def ends_gradients(node: fx.Node) -> bool:
    """Whether the user's code lets no gradient through the results of a node: detach(), or any node under no_grad."""
    return bool((node.meta.get("custom") or {}).get(_KEY))


@dataclass
class GradMode:
    """The grad mode that the user's code asks for, if it is called with gradients on; exports run without gradients."""

    enabled: bool = True
    functions: dict[str, None] = field(default_factory=dict)  # autograd.Functions that were called, and where

    @property
    def notes(self) -> tuple[str, ...]:
        """A note for each autograd.Function, whose backward no stage has."""
        return tuple(f"gradients through {f} are those of its forward, not of its own backward" for f in self.functions)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside the context, the nodes that torch records learn whether gradients end there."""
        create = PythonKeyTracer.create_node

        def create_node(tracer: PythonKeyTracer, *args: Any, **kwargs: Any) -> fx.Node:
            node = create(tracer, *args, **kwargs)
            if not self.enabled or node.target is aten.detach.default:
                node.meta["custom"] = {**(node.meta.get("custom") or {}), _KEY: True}
            return node

        with ExitStack() as patches:
            patches.enter_context(patch.object(PythonKeyTracer, "create_node", create_node))
            patches.enter_context(self._applied())
            patches.enter_context(self._within(grad_mode.no_grad, lambda mode: False))
            patches.enter_context(self._within(grad_mode.enable_grad, lambda mode: True))
            patches.enter_context(self._within(grad_mode.inference_mode, lambda mode: self.enabled and not mode.mode))
            patches.enter_context(self._within(grad_mode.set_grad_enabled, lambda mode: mode.mode))
            patches.enter_context(self._set())
            yield

    def _within(self, mode: type, enabled: Callable[[Any], bool]) -> Any:
        """Follow a context manager: `enabled` says what its context asks for."""
        enter, leave = mode.__enter__, mode.__exit__  # type: ignore[attr-defined]
        outside: dict[int, bool] = {}

        def entered(entering: Any) -> Any:
            internal, before = _is_internal(sys._getframe(1)), vars(entering).get(_KEY, self.enabled)
            result = enter(entering)  # by set_grad_enabled, as if it were the user's
            self.enabled = before if internal else enabled(entering)
            outside[id(entering)] = before
            return result

        def left(leaving: Any, *error: Any) -> Any:
            before = self.enabled
            result, self.enabled = leave(leaving, *error), outside.pop(id(leaving), before)
            return result

        return patch.multiple(mode, __enter__=entered, __exit__=left)

    def _set(self) -> Any:
        """Follow `torch.set_grad_enabled(mode)`, which acts when it is called, be it the head of a `with` or not."""
        init, decorate = grad_mode.set_grad_enabled.__init__, grad_mode.set_grad_enabled.__call__

        def called(setting: Any, mode: bool) -> None:
            if _is_internal(sys._getframe(1)):
                init(setting, mode)
                return
            vars(setting)[_KEY] = self.enabled
            init(setting, mode)
            self.enabled = mode

        def decorating(setting: Any, function: Any) -> Any:
            self.enabled = vars(setting).get(_KEY, self.enabled)
            return decorate(setting, function)

        return patch.multiple(grad_mode.set_grad_enabled, __init__=called, __call__=decorating)

    def _applied(self) -> Any:
        """Note the autograd.Functions that are called, torch's own aside."""
        apply = vars(torch.autograd.Function)["apply"].__func__

        def applied(cls: type, *args: Any, **kwargs: Any) -> Any:
            caller = sys._getframe(1)
            if not is_torch_file(caller.f_code.co_filename):
                place = f"{short_path(caller.f_code.co_filename)}:{caller.f_lineno}"
                self.functions[f"{cls.__qualname__} (at {place})"] = None
            return apply(cls, *args, **kwargs)

        return patch.object(torch.autograd.Function, "apply", classmethod(applied))


def _is_internal(frame: FrameType) -> bool:
    """Whether a call comes from torch's compiler, which sets modes for its own ends, and sets them back."""
    return in_torch(frame.f_code.co_filename).startswith("_")


def detach_what_leaves(program: ExportedProgram) -> None:
    """Have code outside of no_grad regions read what they compute through detach(), where a gradient would enter."""
    names: dict[str, str] = {}
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            names |= _detach_in(module.graph)
            module.recompile()
    for spec in program.graph_signature.output_specs:
        if isinstance(spec.arg, TensorArgument):
            spec.arg = TensorArgument(names.get(spec.arg.name, spec.arg.name))


def _detach_in(graph: fx.Graph) -> dict[str, str]:
    """The names of the results that were detached, each with its new one."""
    carrying: set[fx.Node] = set()
    names: dict[str, str] = {}
    for node in list(graph.nodes):
        reached = node.op == "placeholder" or not carrying.isdisjoint(node.all_input_nodes)
        if node.op == "output" or not reached or not _is_real(node):
            continue
        carrying.add(node)
        outside = [user for user in node.users if not ends_gradients(user)]
        if not ends_gradients(node) or node.target is aten.detach.default or not outside:
            continue
        with graph.inserting_before(min(outside)):
            detached = graph.call_function(aten.detach.default, (node,))
        detached.meta = dict(node.meta)
        for user in outside:
            user.replace_input_with(node, detached)
        names |= {node.name: detached.name} if any(user.op == "output" for user in outside) else {}
    return names


def _is_real(node: fx.Node) -> bool:
    """Whether a node makes floating-point numbers, be it one tensor or several."""
    made = [v for v in tree_leaves(node.meta.get("val")) if isinstance(v, torch.Tensor)]
    return any(v.is_floating_point() or v.is_complex() for v in made)


@dataclass
class GradientFlow:
    """The values of a graph that gradients flow through, found as its nodes are made; none unless `followed`."""

    followed: bool = True
    carrying: set[Value] = field(default_factory=set)

    def start(self, value: Value, requires_grad: bool = True) -> None:
        """Note an input or a parameter."""
        if self.followed and requires_grad and _is_differentiable(value):
            self.carrying.add(value)

    def follow(self, call: Call) -> None:
        """Note the results of a call."""
        name = aten_name(call.op)
        only_shaped = name.startswith("new_") or name.endswith("_like")
        if call.op is not aten.detach.default and not only_shaped and not self.carrying.isdisjoint(call.operands):
            self.carrying.update(filter(_is_differentiable, call.results))


def _is_differentiable(value: Value) -> bool:
    return value.type.dtype.is_floating_point or value.type.dtype.is_complex
