"""LoRA adapters beside the weights: rows choose one, or none."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.func import functional_call

from ir.capture.model import capture
from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.adapters.kept import adapter_names, adapter_stacks
from ir.checkpoint.checkpoint import Checkpoint
from ir.errors import CaptureError, SourceError
from ir.sources.adapter_choice import require_choice, with_adapter_choice
from ir.sources.source import Source, Variant


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.v, self.embed = nn.Linear(4, 6), nn.Linear(6, 4, bias=False), nn.Embedding(5, 4)

    def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        return self.v(self.q(x).relu())


def base(folder: Path) -> Checkpoint:
    torch.manual_seed(0)
    save_file(Layers().state_dict(), folder / "model.safetensors")
    return Checkpoint.open(folder / "model.safetensors")


def adapter(folder: Path, seed: int, rank: int, *layers: str) -> Adapter:
    """An adapter of these layers, to be kept."""
    folder.mkdir()
    made = torch.Generator().manual_seed(seed)
    shapes = {"q": (4, 6), "v": (6, 4), "embed": (5, 4)}
    named: dict[str, torch.Tensor] = {}
    for layer in layers:
        kind, (width, out) = ("lora_embedding_{}" if layer == "embed" else "lora_{}.weight"), shapes[layer]
        named[f"base_model.model.{layer}.{kind.format('A')}"] = torch.randn(rank, width, generator=made)
        named[f"base_model.model.{layer}.{kind.format('B')}"] = torch.randn(out, rank, generator=made)
    save_file(named, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 6 * seed}))
    return replace(Adapter.open(folder), kept=True)


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4), (3, 2, 2, 4)])
def test_each_row_has_what_its_adapter_adds(tmp_path: Path, shape: tuple[int, ...]) -> None:
    held = base(tmp_path)
    one, two = adapter(tmp_path / "one", 1, 2, "q"), adapter(tmp_path / "two", 2, 3, "q", "v")
    model, x = Layers(), torch.randn(shape)
    kept = held.adapted_by(one, two).for_model(model)
    assert adapter_names(model) == ("one", "two")
    assert kept.notes == ("each row chooses an adapter, or none: one, two",)
    assert list(inspect.signature(model.forward).parameters) == ["x", "adapter", "_"]
    with torch.no_grad():
        rows = functional_call(model, dict(kept), (x,), {"adapter": torch.tensor([2, 0, 1])})
        plain = functional_call(model, dict(kept), (x,))
    for row, chosen in ((0, [two]), (1, []), (2, [one])):
        merged = held.adapted_by(*(replace(a, kept=False) for a in chosen)).for_model(Layers())
        with torch.no_grad():
            whole = functional_call(Layers(), dict(merged), (x,))
        torch.testing.assert_close(rows[row], whole[row], rtol=1e-4, atol=1e-4)
    assert torch.equal(rows[1], plain[1])


def test_an_adapter_is_added_if_it_has_the_matrices_alone(tmp_path: Path) -> None:
    kept = {"q.lora_down": (2, 3, 4), "q.lora_up": (2, 6, 3), "q.lora_scale": (2,)}
    one = adapter(tmp_path / "one", 1, 2, "q")
    stacks = adapter_stacks(one, kept)
    assert {name: tuple(stack.shape) for name, stack in stacks.items()} == {name: kept[name][1:] for name in kept}
    longer = {**one.tensors, "q.lora_magnitude_vector": one.tensors["q.lora_B.weight"]}
    with pytest.raises(SourceError, match=r"has other tensors than LoRA's \(q: lora_magnitude_vector\): without --ada"):
        adapter_stacks(replace(one, tensors=longer), kept)
    whole = {**one.tensors, "q.weight": one.tensors["q.lora_B.weight"]}
    with pytest.raises(SourceError, match=r"has other tensors than LoRA's \(q.weight\): without --adapter keep"):
        adapter_stacks(replace(one, tensors=whole), kept)


def test_half_precision_has_its_adapters_in_float32(tmp_path: Path) -> None:
    model = Layers().to(torch.bfloat16)
    kept = base(tmp_path).adapted_by(adapter(tmp_path / "one", 1, 2, "q")).for_model(model)
    assert model.q.lora_up.dtype == torch.float32
    assert list(kept["q.lora_up"].shape) == [2, 6, 2]
    assert kept["q.lora_scale"].tolist() == [0, 3]
    for name in ("q.lora_up", "q.lora_down", "q.lora_scale"):
        whole = torch.cat([*kept.tensors[name].blocks(torch.float32)])
        assert torch.equal(whole, kept[name].flatten())


class Joined(Layers):
    """The rows of `x` `[batch, seq, width]` are joined, as in layers of OPT."""

    def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        return self.v(self.q(x).relu().flatten(0, 1)).view(x.shape)


@pytest.mark.parametrize("shapes", [None, {"x": {0: "batch", 1: "seq"}}])
def test_a_layer_whose_rows_are_joined_is_named(tmp_path: Path, shapes: Any) -> None:
    held, model, x = base(tmp_path), Joined(), torch.randn(3, 2, 4)
    held.adapted_by(adapter(tmp_path / "one", 1, 2, "q", "v")).for_model(model)
    source = with_adapter_choice(Source("m", model, (x,), {}, shapes, {}))
    with pytest.raises(CaptureError, match=r"^v is called with rows that the model has joined .* leave out --adapter"):
        capture(model, source.args, source.kwargs, dynamic_shapes=source.dynamic_shapes)
    alone = capture(model, (x[:1],), {"adapter": torch.tensor([1])})  # all of whose rows have one adapter
    assert [value.name for value in alone.inputs] == ["x", "adapter"]


def test_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    held, one = base(tmp_path), adapter(tmp_path / "one", 1, 2, "q")
    with pytest.raises(SourceError, match=r"two adapters are kept under the name one: rename the folder"):
        held.adapted_by(one, one).for_model(Layers())
    words = adapter(tmp_path / "words", 1, 2, "embed")
    with pytest.raises(SourceError, match=r"changes embed.weight not as LoRA of a linear layer does: without"):
        held.adapted_by(words).for_model(Layers())
    model = Layers()
    held.adapted_by(one).for_model(model)
    source = Source("m", model, (torch.ones(3, 4),), {}, {"x": {0: "rows"}}, {})
    found = with_adapter_choice(source)
    assert (found.kwargs["adapter"].tolist(), found.dynamic_shapes) == (
        [0, 1, 0],
        {"x": {0: "rows"}, "adapter": {0: "rows"}},
    )
    with pytest.raises(SourceError, match=r"variants go without --adapter keep"):
        with_adapter_choice(replace(source, variants=(Variant("wide", (), {}),)))
    chosen = replace(found, variants=(Variant("named", (), {"adapter": torch.ones(3)}),))
    assert require_choice(chosen) is chosen
    with pytest.raises(
        SourceError, match=r"variant wide chooses no adapter: give its call `adapter`, the index of one"
    ):
        require_choice(replace(chosen, variants=(*chosen.variants, Variant("wide", (), {}))))


class Repeated(nn.Module):
    """A layer under two paths."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(4, 4)
        self.again = self.q

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.q(x))


def test_a_layer_under_two_paths_has_its_adapters_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, tensors = Repeated(), {f"q.{n}": t for n, t in Repeated().q.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "one").mkdir()
    factors = {"again.lora_A.weight": torch.ones(2, 4), "again.lora_B.weight": torch.ones(4, 2)}
    save_file({f"base_model.model.{n}": t for n, t in factors.items()}, tmp_path / "one/adapter_model.safetensors")
    (tmp_path / "one/adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    held = Checkpoint.open(tmp_path / "model.safetensors")
    kept = held.adapted_by(replace(Adapter.open(tmp_path / "one"), kept=True)).for_model(model)
    x, weight = torch.ones(1, 4), tensors["q.weight"] + 2.0
    wanted = (x @ weight.T + tensors["q.bias"]) @ weight.T + tensors["q.bias"]
    torch.testing.assert_close(functional_call(model, dict(kept), (x,), {"adapter": torch.tensor([1])}), wanted)
