"""Adapters of peft's kinds other than plain LoRA, merged as their papers define them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file
from torch import Tensor, nn

from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.adapters.kinds.products import of_kronecker
from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.tensors import Held
from ir.errors import SourceError
from tests.support.weights.adapter_folders import LayersToAdapt, merged, random

LORA: dict[str, Any] = {"r": 2, "lora_alpha": 6}


def test_rows_of_dora_have_the_lengths_that_were_trained(tmp_path: Path) -> None:
    parts = {
        "model.q.lora_A.weight": random(2, 4),
        "model.q.lora_B.weight": random(6, 2),
        "model.q.lora_magnitude_vector": random(6),
        "model.across.lora_A.weight": random(2, 4),
        "model.across.lora_B.weight": random(6, 2),
        "model.across.lora_magnitude_vector": random(6),
        "model.conv.lora_A.weight": random(2, 4, 2, 2),
        "model.conv.lora_B.weight": random(3, 2, 1, 1),
        "model.conv.lora_magnitude_vector": random(1, 3, 1, 1),
        "model.embed.lora_embedding_A": random(2, 5),
        "model.embed.lora_embedding_B": random(4, 2),
        "model.embed.lora_magnitude_vector": random(4),
    }
    found = merged(tmp_path, parts, "LORA", use_dora=True, **LORA)
    assert found.keys() == {"q.weight", "across.weight", "conv.weight", "embed.weight"}
    for name, (before, after) in found.items():
        stem = f"model.{name.removesuffix('.weight')}.lora_"
        turned = name in ("across.weight", "embed.weight")
        down, up = (parts.get(f"{stem}{x}.weight", parts.get(f"{stem}embedding_{x}")) for x in "AB")
        assert down is not None
        assert up is not None
        rows = before.t() if turned else before.flatten(1)
        whole = rows + 3.0 * (up.flatten(1) @ down.flatten(1))
        expected = nn.functional.normalize(whole, dim=1) * parts[f"{stem}magnitude_vector"].view(-1, 1)
        torch.testing.assert_close(after, expected.t() if turned else expected.view(before.shape))


def test_dora_without_its_lengths_is_named(tmp_path: Path) -> None:
    parts = {"model.q.lora_A.weight": random(2, 4), "model.q.lora_B.weight": random(6, 2)}
    with pytest.raises(SourceError, match=r"q.weight of \[6, 4\] by lora_A .*, lora_B .*, which do not fit it"):
        merged(tmp_path, parts, "LORA", use_dora=True, **LORA)


def test_a_factor_without_the_other_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has one factor alone for q.weight \(lora_A\); fetch it again"):
        merged(tmp_path, {"model.q.lora_A.weight": random(2, 4)}, "LORA", **LORA)


def test_another_rank_than_that_of_the_settings_is_named(tmp_path: Path) -> None:
    parts = {"model.q.lora_A.weight": random(3, 4), "model.q.lora_B.weight": random(6, 3)}
    with pytest.raises(SourceError, match=r"has factors of rank 3 for q; its settings say 2: fetch both again"):
        merged(tmp_path, parts, "LORA", **LORA)
    with pytest.raises(SourceError, match=r"has factors of rank 3 for q; its settings say 2: fetch both again"):
        merged(tmp_path, {**parts, "model.q.lora_magnitude_vector": random(6)}, "LORA", **LORA)
    assert merged(tmp_path, parts, "LORA", **LORA, rank_pattern={"q": 3}).keys() == {"q.weight"}


def test_a_table_with_tokens_more_is_named(tmp_path: Path) -> None:
    size = r"replaces embed.weight of \[5, 4\] by one of \[7, 4\]: give the base the size .*embeddings\(7\) does"
    with pytest.raises(SourceError, match=size):
        merged(tmp_path, {"model.embed.weight": random(7, 4)}, "LORA", **LORA)


def test_a_norm_of_another_size_is_that_of_another_model(tmp_path: Path) -> None:
    for shape in ((7,), (), (4, 1)):
        with pytest.raises(SourceError, match=r"norm.weight of \[4\] by one of .*: it is the adapter of another model"):
            merged(tmp_path, {"model.norm.weight": random(*shape)}, "LORA", **LORA)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float8_e4m3fn, torch.bfloat16])
def test_factors_are_multiplied_in_float32_whatever_floats_they_are_stored_in(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    parts = {"model.q.lora_A.weight": random(2, 4).to(dtype), "model.q.lora_B.weight": random(6, 2)}
    before, after = merged(tmp_path, parts, "LORA", **LORA)["q.weight"]
    product = parts["model.q.lora_B.weight"] @ parts["model.q.lora_A.weight"].float()
    torch.testing.assert_close(after, before + 3 * product)
    wide = {name: Held(t.double()) for name, t in LayersToAdapt().state_dict().items()}
    found = Adapter.open(tmp_path).merged(LayersToAdapt(), wide)["q.weight"].read(torch.float64)
    twice = parts["model.q.lora_B.weight"].double() @ parts["model.q.lora_A.weight"].double()
    assert torch.equal(found, wide["q.weight"].tensor + 3 * twice)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_factors_that_are_no_floats_are_named(dtype: torch.dtype, tmp_path: Path) -> None:
    parts = {"model.q.lora_A.weight": random(2, 4), "model.q.lora_B.weight": random(6, 2).to(dtype)}
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(SourceError, match=rf"has q.lora_B.weight in {kind}, and adapters are trained in floats; save"):
        merged(tmp_path, parts, "LORA", **LORA)


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        (7, "7 is no list of names"),
        ([7], r"\[7\] is no list of names"),
        ({"a": 1}, "{'a': 1} is no list of names"),
        ("(", r"'\(' is no regular expression \(missing \)"),
    ],
)
@pytest.mark.parametrize("key", ["feedforward_modules", "target_parameters", "target_modules"])
def test_settings_that_name_no_modules_are_named(key: str, named: Any, fault: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf"adapter_config.json names no modules by {key}: {fault}.*; fetch it, or"):
        merged(tmp_path, {"model.q.ia3_l": random(6, 1)}, "IA3", **{key: named})


def test_the_bias_of_lora_is_scaled_and_added(tmp_path: Path) -> None:
    names = {"lora_A.weight": (2, 4), "lora_B.weight": (6, 2), "lora_B.bias": (6,)}
    parts = {f"model.q.{name}": random(*shape) for name, shape in names.items()}
    found = merged(tmp_path, parts, "LORA", lora_bias=True, **LORA)
    before, after = found["q.bias"]
    torch.testing.assert_close(after, before + 3 * parts["model.q.lora_B.bias"])
    assert found.keys() == {"q.bias", "q.weight"}


@pytest.mark.parametrize("kind", ["LORA", "TRAINABLE_TOKENS"])
def test_the_rows_of_single_tokens_are_replaced(kind: str, tmp_path: Path) -> None:
    inner, key = ("token_adapter.", "trainable_token_indices") if kind == "LORA" else ("", "token_indices")
    given: Any = {"embed": [3, 1], "head": [4]} if kind == "LORA" else [3, 1]
    rows = {f"model.embed.{inner}trainable_tokens_delta": random(2, 4)}
    rows |= {f"model.head.{inner}trainable_tokens_delta": random(1, 4)} if kind == "LORA" else {}
    found = merged(tmp_path, rows, kind, **{key: given})
    before, after = found["embed.weight"]
    assert torch.equal(after[[3, 1]], rows[f"model.embed.{inner}trainable_tokens_delta"])
    assert torch.equal(after[[0, 2, 4]], before[[0, 2, 4]])
    if kind == "LORA":
        assert torch.equal(found["head.weight"][1][4:], rows[f"model.head.{inner}trainable_tokens_delta"])
    with pytest.raises(SourceError, match=r"does not say which 2 tokens of embed were trained; fetch it"):
        merged(tmp_path, rows, kind)
    with pytest.raises(SourceError, match=r"was trained on token 5, and embed.weight has 5; is it its base\?"):
        merged(tmp_path, rows, kind, **{key: [3, 5]})


def test_parameters_are_adapted_one_around_the_other(tmp_path: Path) -> None:
    parts = {
        "model.experts.base_layer.lora_A.weight": random(4, 4),  # of `up`, the first parameter of the layer
        "model.experts.base_layer.lora_B.weight": random(6, 4),
        "model.experts.lora_A.weight": random(4, 3),  # of `down`
        "model.experts.lora_B.weight": random(4, 4),
        "model.turned.lora_A.weight": random(4, 4),
        "model.turned.lora_B.weight": random(6, 4),
    }
    targets = ["experts.down", "experts.up", "turned.up"]
    found = merged(tmp_path, parts, "LORA", target_parameters=targets, **LORA)
    assert found.keys() == {"experts.up", "experts.down", "turned.up"}
    places = {"experts.up": "experts.base_layer", "experts.down": "experts", "turned.up": "turned"}
    for name, (before, after) in found.items():
        down, up = (parts[f"model.{places[name]}.lora_{x}.weight"] for x in "AB")
        product = torch.einsum("ore,eri->eoi", up.view(-1, 2, 2), down.view(2, 2, -1)) * 3
        torch.testing.assert_close(after, before + (product.mT if name == "turned.up" else product))
    small = {**parts, "model.turned.lora_B.weight": random(5, 4)}
    with pytest.raises(SourceError, match=r"adapts turned.up of \[2, 4, 5\]; it is \[2, 4, 6\]"):
        merged(tmp_path, small, "LORA", target_parameters=targets, **LORA)


def test_adalora_divides_by_the_rank_at_the_beginning(tmp_path: Path) -> None:
    parts = {"model.q.lora_A": random(2, 4), "model.q.lora_B": random(6, 2), "model.q.lora_E": random(2, 1)}
    before, after = merged(tmp_path, parts, "ADALORA", init_r=4, lora_alpha=8)["q.weight"]
    product = parts["model.q.lora_B"] @ torch.diag(parts["model.q.lora_E"].flatten()) @ parts["model.q.lora_A"]
    torch.testing.assert_close(after, before + 2 * product, rtol=1e-4, atol=1e-5)
    with pytest.raises(SourceError, match=r"gives no scale \(init_r, lora_alpha\); fetch it"):
        merged(tmp_path, parts, "ADALORA", init_r=None)


def test_loha_multiplies_two_products(tmp_path: Path) -> None:
    shapes = {"w1_a": (6, 2), "w1_b": (2, 4), "w2_a": (6, 2), "w2_b": (2, 4)}
    parts = {f"model.q.hada_{name}": random(*shape) for name, shape in shapes.items()}
    cores = {"t1": (2, 2, 2, 2), "t2": (2, 2, 2, 2), "w1_a": (2, 3), "w1_b": (2, 4), "w2_a": (2, 3), "w2_b": (2, 4)}
    parts |= {f"model.conv.hada_{name}": random(*shape) for name, shape in cores.items()}
    found = merged(tmp_path, parts, "LOHA", r=2, alpha=4)
    one, other = (parts[f"model.q.hada_w{i}_a"] @ parts[f"model.q.hada_w{i}_b"] for i in (1, 2))
    torch.testing.assert_close(found["q.weight"][1], found["q.weight"][0] + 2 * one * other)
    wide = 1.0
    for i in (1, 2):
        core, up, down = (parts[f"model.conv.hada_{name}"] for name in (f"t{i}", f"w{i}_a", f"w{i}_b"))
        wide = wide * (up.t() @ core.permute(2, 3, 0, 1) @ down).permute(2, 3, 0, 1)
    torch.testing.assert_close(found["conv.weight"][1], found["conv.weight"][0] + 2 * wide)
    lacking = {name: part for name, part in parts.items() if name != "model.q.hada_w2_b"}
    with pytest.raises(SourceError, match=r"adapts q.weight of .* by hada_w1_a .*, which do not fit it; fetch"):
        merged(tmp_path, lacking, "LOHA", r=2, alpha=4)


def test_lokr_has_a_kronecker_product(tmp_path: Path) -> None:
    parts = {"model.q.lokr_w1": random(3, 2), "model.q.lokr_w2_a": random(2, 1), "model.q.lokr_w2_b": random(1, 2)}
    parts |= {"model.conv.lokr_w1": random(3, 2), "model.conv.lokr_w2": random(1, 2, 2, 2)}
    found = merged(tmp_path, parts, "LOKR", r=1, alpha=2)
    inner = parts["model.q.lokr_w2_a"] @ parts["model.q.lokr_w2_b"]
    before, after = found["q.weight"]
    for i in range(3):
        for j in range(2):
            block = slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2)
            torch.testing.assert_close(after[block], before[block] + 2 * parts["model.q.lokr_w1"][i, j] * inner)
    before, after = found["conv.weight"]
    wide = torch.einsum("oi,pjkl->opijkl", parts["model.conv.lokr_w1"], parts["model.conv.lokr_w2"])
    torch.testing.assert_close(after, before + 2 * wide.reshape(before.shape))


def test_lokr_of_a_convolution_over_a_line_is_as_peft_merges_it() -> None:
    """Its formula places the elements of the first matrix by the last dimensions, as torch.kron does."""
    one, other, weight = random(3, 2), random(2, 2, 1), torch.zeros(2, 6, 2)
    found = of_kronecker(weight, {"lokr_w1": one, "lokr_w2": other}, scale=2.0)
    torch.testing.assert_close(found, torch.stack([2.0 * torch.kron(one, part) for part in other]))


def test_the_product_for_an_embedding_is_rounded_before_it_is_added(tmp_path: Path) -> None:
    """So peft merges it into half precision; other products are added as they are."""
    parts = {"model.embed.lora_embedding_A": random(2, 5), "model.embed.lora_embedding_B": random(4, 2)}
    parts |= {"model.q.lora_A.weight": random(2, 4), "model.q.lora_B.weight": random(6, 2)}
    merged(tmp_path, parts, "LORA", **LORA)
    held = {name: Held(tensor.bfloat16()) for name, tensor in LayersToAdapt().state_dict().items()}
    found = {name: t.read(torch.bfloat16) for name, t in Adapter.open(tmp_path).merged(LayersToAdapt(), held).items()}
    table = 3.0 * (parts["model.embed.lora_embedding_B"] @ parts["model.embed.lora_embedding_A"]).t()
    assert torch.equal(found["embed.weight"], held["embed.weight"].read(torch.bfloat16) + table.bfloat16())
    product = 3.0 * (parts["model.q.lora_B.weight"] @ parts["model.q.lora_A.weight"])
    assert torch.equal(found["q.weight"], (held["q.weight"].read(torch.bfloat16) + product).bfloat16())


@pytest.mark.parametrize(
    ("kind", "parts", "settings"),
    [
        ("LORA", {"conv.lora_A.weight": (2, 4, 2, 2), "conv.lora_B.weight": (3, 2, 2, 1)}, LORA),
        ("LORA", {"q.lora_A.weight": (), "q.lora_B.weight": (6, 2)}, LORA),
        ("LORA", {"q.lora_A.weight": (), "q.lora_B.weight": (6, 2), "q.lora_magnitude_vector": (6,)}, LORA),
        ("OFT", {"q.oft_R.weight": (2, 5)}, {"use_cayley_neumann": False}),
        ("OFT", {"q.oft_R.weight": (1, 1)}, {"use_cayley_neumann": False}),
        ("HRA", {"q.hra_u": ()}, {"r": 1}),
        ("HRA", {"q.hra_u": (4, 1)}, {"r": 2}),
        ("IA3", {"q.ia3_l": (1,)}, {}),
        ("LORA", {"q.lora_A.weight": (2, 4), "q.lora_B.weight": (6, 2), "q.lora_B.bias": ()}, LORA),
        ("ADALORA", {"q.lora_A": (2, 4), "q.lora_B": (6, 2), "q.lora_E": ()}, {"init_r": 2}),
        ("ADALORA", {"q.lora_A": (), "q.lora_B": (6, 2), "q.lora_E": (2, 1)}, {"init_r": 2}),
        ("TRAINABLE_TOKENS", {"embed.trainable_tokens_delta": ()}, {"token_indices": [1]}),
    ],
)
def test_parts_of_odd_shapes_are_refused(
    kind: str, parts: dict[str, tuple[int, ...]], settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"which have no product|has factors of rank 1|which do not fit it"):
        merged(tmp_path, {f"model.{name}": random(*shape) for name, shape in parts.items()}, kind, **settings)


def test_ia3_scales_outputs_or_inputs(tmp_path: Path) -> None:
    parts = {"model.q.ia3_l": random(6, 1), "model.across.ia3_l": random(1, 4), "model.conv.ia3_l": random(1, 3, 1, 1)}
    found = merged(tmp_path, parts, "IA3", feedforward_modules=["across"], fan_in_fan_out=True)
    factors = {name: parts[f"model.{name}.ia3_l"].flatten() for name in ("q", "across", "conv")}
    assert found.keys() == {"q.weight", "q.bias", "across.weight", "conv.weight", "conv.bias"}
    torch.testing.assert_close(found["q.weight"][1], torch.diag(factors["q"]) @ found["q.weight"][0])
    torch.testing.assert_close(found["q.bias"][1], factors["q"] * found["q.bias"][0])
    torch.testing.assert_close(found["across.weight"][1], torch.diag(factors["across"]) @ found["across.weight"][0])
    torch.testing.assert_close(found["conv.weight"][1][1], factors["conv"][1] * found["conv.weight"][0][1])
    torch.testing.assert_close(found["conv.bias"][1], factors["conv"] * found["conv.bias"][0])


def test_vera_takes_a_part_of_the_random_matrices(tmp_path: Path) -> None:
    own = {"model.q.vera_lambda_b": random(6), "model.q.vera_lambda_d": random(2)}
    both = {"vera_A": random(2, 9), "vera_B": random(8, 2)}
    before, after = merged(tmp_path, {**own, **both}, "VERA", r=2)["q.weight"]
    up = torch.diag(own["model.q.vera_lambda_b"]) @ both["vera_B"][:6]
    down = torch.diag(own["model.q.vera_lambda_d"]) @ both["vera_A"][:, :4]
    torch.testing.assert_close(after, before + up @ down)
    with pytest.raises(
        SourceError, match=r"lacks the random matrices vera_A and vera_B, which peft makes anew without"
    ):
        merged(tmp_path, own, "VERA", r=2)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_hra_reflects_the_inputs(orthogonal: bool, tmp_path: Path) -> None:
    normals = random(4, 2)
    before, after = merged(tmp_path, {"model.q.hra_u": normals}, "HRA", r=2, apply_GS=orthogonal)["q.weight"]
    planes = torch.linalg.qr(normals)[0] if orthogonal else nn.functional.normalize(normals, dim=0)
    expected = before
    for plane in planes.t():
        expected = expected @ (torch.eye(4) - 2 * torch.outer(plane, plane))
    torch.testing.assert_close(after, expected)


@pytest.mark.parametrize("settings", [{"use_cayley_neumann": False}, {"peft_version": "0.18.0"}])
def test_oft_rotates_the_inputs_in_blocks(settings: dict[str, Any], tmp_path: Path) -> None:
    small = 0.01 if settings.get("peft_version") else 0.5
    parts = {"model.q.oft_R.weight": random(2, 1) * small, "model.across.oft_R.weight": random(1, 1) * small}
    found = merged(tmp_path, {name: t for name, t in parts.items() if "across" not in name}, "OFT", **settings)
    found |= merged(
        tmp_path, {name: t for name, t in parts.items() if "across" in name}, "OFT", block_share=True, **settings
    )
    way = 1 if settings.get("peft_version") else -1  # the exact transform rotates the other way, in peft too

    def rotation(s: Tensor) -> Tensor:
        skew = torch.tensor([[0.0, s.item()], [-s.item(), 0.0]]) * way
        return torch.linalg.inv(torch.eye(2) - skew) @ (torch.eye(2) + skew)

    whole = torch.block_diag(*map(rotation, parts["model.q.oft_R.weight"]))
    torch.testing.assert_close(found["q.weight"][1], (whole @ found["q.weight"][0].t()).t())
    shared = torch.block_diag(*[rotation(parts["model.across.oft_R.weight"])] * 2)
    torch.testing.assert_close(found["across.weight"][1], shared @ found["across.weight"][0])


def test_oft_may_be_limited_and_was_another_before(tmp_path: Path) -> None:
    parts = {"model.q.oft_R.weight": random(2, 1)}
    for of_old in ({}, {"peft_version": "0.17.1"}, {"peft_version": None}):
        with pytest.raises(SourceError, match=r"has an OFT adapter of peft before 0.18, where the series that rotates"):
            merged(tmp_path, parts, "OFT", **of_old)
    with pytest.raises(SourceError, match=r"does not say how many terms of the series rotate; fetch it"):
        merged(tmp_path, parts, "OFT", num_cayley_neumann_terms="five", peft_version="0.21.2")
    before, after = merged(tmp_path, parts, "OFT", coft=True, eps=1e-3, peft_version="0.21.2")["q.weight"]
    assert 0 < (after - before).norm() < 3e-3 * before.norm()
    _, free = merged(tmp_path, parts, "OFT", peft_version="0.21.2")["q.weight"]
    assert (free - before).norm() > 0.1 * before.norm()


def test_norms_are_replaced(tmp_path: Path) -> None:
    parts = {f"model.norm.ln_tuning_layers.{name}": random(4) for name in ("weight", "bias")}
    found = merged(tmp_path, parts, "LN_TUNING")
    assert {name: after.tolist() for name, (_, after) in found.items()} == {
        f"norm.{name}": parts[f"model.norm.ln_tuning_layers.{name}"].tolist() for name in ("weight", "bias")
    }


def test_single_experts_are_adapted_before_they_are_joined(tmp_path: Path) -> None:
    """As adapters have them that were trained while transformers held each expert's layers apart."""
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 6, "num_attention_heads": 2, "vocab_size": 5}
    config = hf.MixtralConfig(**sizes, num_key_value_heads=2, num_hidden_layers=1, num_local_experts=2)
    model = hf.MixtralForCausalLM(config)
    model.save_pretrained(tmp_path)
    experts = "model.layers.0.block_sparse_moe.experts"
    names = (f"{experts}.0.w1", f"{experts}.1.w2", "model.layers.0.self_attn.q_proj")
    held = Checkpoint.open(tmp_path)
    parts, whole = dict[str, Tensor](), {name: held[name] for name in held}
    for name in names:
        rows, columns = held.tensors[f"{name}.weight"].shape
        down, up = random(2, columns), random(rows, 2)
        parts |= {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
        whole[f"{name}.weight"] = whole[f"{name}.weight"] + up @ down * 3.0
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **LORA}))
    save_file(parts, tmp_path / "adapter_model.safetensors")
    found = held.adapted_by(Adapter.open(tmp_path)).for_model(model)
    assert found.notes == (f"the LORA adapter in {tmp_path} is merged into 3 weights",)
    save_file(whole, tmp_path / "whole.safetensors")
    expected = Checkpoint.open(tmp_path / "whole.safetensors").for_model(model)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    named = {"target_modules": ["q_proj", "v_proj"], "target_parameters": ["experts.gate_up_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **LORA, **named}))
    (_, lacking) = held.adapted_by(Adapter.open(tmp_path)).for_model(model).notes
    assert "has no tensors for model.layers.0.self_attn.v_proj, which its settings name" in lacking
    headless = hf.MixtralModel(config)
    head = {"lora_A": random(2, 8), "lora_B": random(5, 2)}
    save_file({f"lm_head.{name}.weight": t for name, t in head.items()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(SourceError, match=r"adapts lm_head.weight, which the model lacks; is it its base"):
        held.adapted_by(Adapter.open(tmp_path)).for_model(headless)
