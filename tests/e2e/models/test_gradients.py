"""Stage files take gradients: every parameter gets the one that it gets in the uncut model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers import GPT2Config, GPT2LMHeadModel

from ir.capture import capture
from ir.graph import Call as GraphCall
from ir.operators.facts import aten
from passes.compilation.api import compile_model
from runtime.manifest.manifest import Manifest
from runtime.stage.loader import load_stages
from tests.support.checking import Call
from tests.support.models.model_cases import CASES
from tests.support.models.planning import slow_machine

NAMES = ("long skips", "a value read by three stages", "two outputs from different stages", "tied weights")


def check_gradients(model: nn.Module, call: Call, out: Path, stages: int, dynamic: Any = None) -> None:
    compile_model(model, call.args, call.kwargs, out=out, cluster=slow_machine(stages), dynamic_shapes=dynamic)
    loss_of(tree_leaves(model(*call.args, **call.kwargs))).backward()
    found: dict[nn.Parameter, Tensor] = {}
    for name, gradient in stage_gradients(
        out, [x for x in tree_leaves((call.args, call.kwargs)) if torch.is_tensor(x)]
    ):
        parameter = model.get_parameter(name)  # that of a tied weight by any of its names
        found[parameter] = found[parameter] + gradient if parameter in found else gradient
    assert found.keys() == {p for p in model.parameters() if p.grad is not None}
    for parameter, gradient in found.items():
        torch.testing.assert_close(gradient, parameter.grad)


def stage_gradients(out: Path, inputs: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The name and gradient of each parameter of each stage; one that several stages hold has a share in each."""
    manifest = Manifest.read(out)
    stages = load_stages(out, manifest, [torch.device("cpu")] * len(manifest.stages), strict=True)
    values = {tensor.name: x for tensor, x in zip(manifest.programs[0].inputs, inputs, strict=True)}
    outputs: dict[int, Tensor] = {}
    for (stage,) in (stage.programs for stage in stages):
        sent = stage.module(*(values[receive.tensor.name] for receive in stage.entry.receives))
        for send, tensor in zip(stage.entry.sends, sent, strict=True):
            values[send.tensor.name] = tensor
            outputs.update((i, tensor) for i in send.outputs)
    loss_of([outputs[i] for i in sorted(outputs)]).backward()
    for (stage,) in (stage.programs for stage in stages):
        for name, parameter in stage.module.named_parameters():
            if parameter.grad is not None:
                yield name, parameter.grad


def loss_of(outputs: list[Tensor]) -> Tensor:
    losses = [(i + 1) * x.float().square().mean() for i, x in enumerate(outputs) if x.requires_grad]
    return torch.stack(losses).sum()


@pytest.mark.parametrize("name", NAMES)
def test_of_small_models(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    check_gradients(case.build(), case.calls()[0], tmp_path / "out", case.stages)


@pytest.mark.slow
def test_of_gpt2(tmp_path: Path) -> None:
    heads: dict[str, Any] = {"n_embd": 16, "n_layer": 4, "n_head": 2}
    config = GPT2Config(vocab_size=50, n_positions=16, use_cache=False, bos_token_id=0, eos_token_id=1, **heads)
    ids, mask = torch.randint(50, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    model = GPT2LMHeadModel(config).eval()
    check_gradients(model, Call.of(input_ids=ids, attention_mask=mask), tmp_path / "out", stages=2)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Any:
        for layer in self.l:
            x = torch.tanh(layer(x))
        return x


class Detached(Layers):
    def forward(self, x: Tensor) -> Tensor:
        h = self.l[1](torch.tanh(self.l[0](x)))
        return self.l[3](torch.tanh(self.l[2](h.detach())))


class StraightThrough(Layers):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.l:
            x = layer(x)
            x = x + (x.round() - x).data
        return x


class Teacher(Layers):
    """No gradient reaches the second layer, nor the first through it; one does below enable_grad."""

    @torch.no_grad()
    def target(self, x: Tensor) -> Tensor:
        return self.l[1](x) * 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.l[0](x))
        with torch.set_grad_enabled(False):
            target = self.target(h).exp()
            with torch.enable_grad():
                h = h + self.l[2](target)
        return self.l[3](h), target


class UnderAutocast(Layers):
    """Torch inlines the region, and with it loses what it knew of its nodes."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            x = self.l[0](x)
            with torch.no_grad():
                y = self.l[1](x)
            x = self.l[2](x + (y - x).detach())
        return self.l[3](x.float() * y)


class Frozen(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.l[0].requires_grad_(False)
        self.l[2].weight.requires_grad_(False)
        self.norm = nn.BatchNorm1d(8).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


@pytest.mark.parametrize("model", [Detached, StraightThrough, Teacher, UnderAutocast, Frozen])
def test_gradients_end_where_they_do_in_the_model(model: type[nn.Module], tmp_path: Path) -> None:
    module = model().eval()
    check_gradients(module, Call.of(torch.randn(3, 8)), tmp_path / "out", stages=2)
    manifest = Manifest.read(tmp_path / "out")
    for stage in load_stages(tmp_path / "out", manifest, [torch.device("cpu")] * 2, strict=True):
        for name, parameter in stage.programs[0].module.named_parameters():
            assert parameter.requires_grad == module.get_parameter(name).requires_grad, name


def test_what_no_gradient_reaches_is_not_detached() -> None:
    class Positions(nn.Module):
        table: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.randn(8))

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                angles = torch.arange(x.shape[0])[:, None] * self.table
                scale = torch.zeros_like(x)
            return x * angles.cos().detach() + scale

    graph = capture(Positions(), (torch.randn(3, 8),))
    assert not [node for node in graph.nodes if isinstance(node, GraphCall) and node.op is aten.detach.default]


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


def test_a_backward_of_its_own_gets_a_note() -> None:
    class Reversing(Layers):
        def forward(self, x: Tensor) -> Tensor:
            return self.l[1](Reversed.apply(self.l[0](x)))

    [note] = capture(Reversing(), (torch.randn(3, 8),)).notes
    assert re.fullmatch(r"gradients through Reversed \(at .*test_gradients.py:\d+\) are those of its forward, .*", note)
