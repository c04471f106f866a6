"""Stage files take gradients: every parameter gets the one that it gets in the uncut model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers import GPT2Config, GPT2LMHeadModel

from passes.api import compile_model
from runtime.manifest import Manifest
from runtime.stage.loader import load_stages
from tests.support.checking import Call
from tests.support.models import CASES
from tests.support.planning import slow_machine

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
    assert found.keys() == set(model.parameters())
    for parameter, gradient in found.items():
        torch.testing.assert_close(gradient, parameter.grad)


def stage_gradients(out: Path, inputs: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The name and gradient of each parameter of each stage; one that several stages hold has a share in each."""
    manifest = Manifest.read(out)
    stages = load_stages(out, manifest, [torch.device("cpu")] * len(manifest.stages), strict=True)
    values = {tensor.name: x for tensor, x in zip(manifest.inputs, inputs, strict=True)}
    outputs: dict[int, Tensor] = {}
    for stage in stages:
        sent = stage.module(*(values[receive.tensor.name] for receive in stage.table.receives))
        for send, tensor in zip(stage.table.sends, sent, strict=True):
            values[send.tensor.name] = tensor
            outputs |= dict.fromkeys(send.outputs, tensor)
    loss_of([outputs[i] for i in sorted(outputs)]).backward()
    for stage in stages:
        for name, parameter in stage.module.named_parameters():
            assert parameter.grad is not None, name
            yield name, parameter.grad


def loss_of(outputs: list[Tensor]) -> Tensor:
    return torch.stack([(i + 1) * output.float().square().mean() for i, output in enumerate(outputs)]).sum()


@pytest.mark.parametrize("name", NAMES)
def test_of_small_models(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    check_gradients(case.build(), case.calls()[0], tmp_path / "out", case.stages)


@pytest.mark.slow
def test_of_gpt2(tmp_path: Path) -> None:
    heads = {"n_embd": 16, "n_layer": 4, "n_head": 2}
    config = GPT2Config(vocab_size=50, n_positions=16, use_cache=False, bos_token_id=0, eos_token_id=1, **heads)
    ids, mask = torch.randint(50, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    model = GPT2LMHeadModel(config).eval()
    check_gradients(model, Call.of(input_ids=ids, attention_mask=mask), tmp_path / "out", stages=2)
