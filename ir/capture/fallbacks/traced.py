"""Tracing by make_fx: operators are recorded after autograd, and so derivatives inside the model are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx import traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from ir.capture.diagnosis import NotExported, explain
from ir.capture.export.example import Example
from ir.capture.export.flat_model import Flat
from ir.capture.export.recording import Recording, quiet, recorded
from ir.capture.sizes.dynamic import widen
from ir.capture.source_lines.variables import watched_variables
from ir.capture.unregistered_state.restoring import as_they_were
from ir.objects.signature import names


def record_traced(example: Example) -> Recording:
    """Record a trace of make_fx, exported afterwards.  Raises CaptureError."""
    flat = Flat(example)
    try:
        with torch.no_grad(), quiet(), as_they_were(example.model), watched_variables():
            traced = _trace(flat, example)
    except Exception as e:
        raise explain(e, example.model, example.marks, names(example.arguments), ()) from e
    recording = recorded(_Traced(example.model, traced), example, lambda program: flat.seen.returns[-1], detaches=False)
    return recording.noted(flat.seen)


def _trace(flat: Flat, example: Example) -> fx.GraphModule:
    sizes_of = ShapeEnv(duck_shape=False)
    mode = FakeTensorMode(shape_env=sizes_of, allow_non_fake_inputs=True)

    def fake(tensor: torch.Tensor, dims: Mapping[int, Any]) -> torch.Tensor:
        sizes = [DimDynamic.DYNAMIC if d in dims else DimDynamic.STATIC for d in range(tensor.dim())]
        return mode.from_tensor(tensor.detach(), symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))

    tensors = [fake(t, d) for t, d in zip(widen(example.tensors, example.marks), example.marks, strict=True)]
    weights = {f"m.{name}": fake(t, {}) for name, t in _weights(example.model).items()}
    traced = make_fx(lambda w, t: functional_call(flat, w, (t,)), tracing_mode="symbolic", record_stack_traces=True)
    with _located(flat):
        program = traced(weights, tensors)
    if any(number.is_number for number in sizes_of.replacements.values()):
        raise NotExported("it reads a size that may change as a number")  # the trace holds that of the example
    return program


@contextmanager
def _located(model: nn.Module) -> Iterator[None]:
    """Record the module stack of each node inside the context."""
    stack: dict[str, tuple[str, type]] = {}

    def enter(path: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any) -> None:
            stack[path] = (path, type(module))
            traceback.current_meta["nn_module_stack"] = dict(stack)

        return note

    def leave(path: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            stack.pop(path)
            traceback.current_meta["nn_module_stack"] = dict(stack)

        return note

    with ExitStack() as hooks, traceback.preserve_node_meta():
        for path, module in model.named_modules():
            for handle in (
                module.register_forward_pre_hook(enter(path), prepend=True),
                module.register_forward_hook(leave(path)),
            ):
                hooks.callback(handle.remove)
        yield


class _Traced(nn.Module):
    """Runs a traced program with the weights of the model."""

    def __init__(self, model: nn.Module, traced: fx.GraphModule) -> None:
        super().__init__()
        self.m = model
        self._run = fx.Interpreter(traced).run  # an interpreter keeps the source lines of the nodes

    def forward(self, tensors: list[torch.Tensor]) -> list[Any]:
        with traceback.preserve_node_meta():
            return list(self._run(*_weights(self.m).values(), *tensors))


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
