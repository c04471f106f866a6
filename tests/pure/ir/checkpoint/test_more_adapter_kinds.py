"""Adapters of the kinds that peft has had for a shorter time, merged as their papers define them."""

from __future__ import annotations

from math import pi
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.adapters.kinds.elements import of_circulants
from ir.errors import SourceError
from tests.support.weights.adapter_folders import merged, random


def added(folder: Path, parts: dict[str, Tensor], kind: str, **settings: Any) -> Tensor:
    """What an adapter adds to the weight of the linear layer `q` [6, 4]."""
    before, after = merged(folder, {f"model.q.{name}": t for name, t in parts.items()}, kind, **settings)["q.weight"]
    return after - before


def near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def cayley(block: Tensor) -> Tensor:
    skew, one = (block - block.t()) / 2, torch.eye(len(block))
    return (one - skew) @ torch.linalg.inv(one + skew)


def test_boft_rotates_inputs_in_blocks_and_scales_outputs(tmp_path: Path) -> None:
    parts = {"model.q.boft_R": random(1, 2, 2, 2), "model.q.boft_s": random(6, 1)}
    parts |= {"model.conv.boft_R": random(1, 4, 4, 4), "model.conv.boft_s": random(1, 3)}
    found = merged(tmp_path, parts, "BOFT")
    assert found.keys() == {"q.weight", "conv.weight"}
    for name, (before, after) in found.items():
        blocks, scales = (parts[f"model.{name.removesuffix('.weight')}.boft_{x}"] for x in "Rs")
        turn = torch.block_diag(*map(cayley, blocks[0]))
        near(after, (scales.view(-1, 1) * (before.flatten(1) @ turn.t())).view(before.shape))


def test_boft_of_several_factors_orders_halves_of_blocks_anew(tmp_path: Path) -> None:
    """Input 1 and 2 change places before and after the second of its factors."""
    blocks = random(2, 2, 2, 2)
    parts = {"model.q.boft_R": blocks, "model.q.boft_s": torch.ones(6, 1)}
    before, after = merged(tmp_path, parts, "BOFT", boft_n_butterfly_factor=2)["q.weight"]
    first, second = (torch.block_diag(*map(cayley, factor)) for factor in blocks)
    swap = torch.eye(4)[[0, 2, 1, 3]]
    near(after, before @ (swap @ second @ swap.t() @ first).t())


def test_oft_rotates_the_rows_of_embeddings_the_other_way(tmp_path: Path) -> None:
    parts = {"model.embed.oft_embedding_R.weight": random(2, 1)}
    before, after = merged(tmp_path, parts, "OFT", use_cayley_neumann=False)["embed.weight"]
    blocks = [torch.tensor([[0.0, x], [-x, 0.0]]) for x in parts["model.embed.oft_embedding_R.weight"].flatten()]
    near(after, before @ torch.block_diag(*map(cayley, blocks)))


@pytest.mark.parametrize(("variant", "size"), [("road_1", 3), ("road_2", 6), ("road_4", 12)])
def test_road_rotates_pairs_of_outputs(variant: str, size: int, tmp_path: Path) -> None:
    parts = {"model.q.road_theta": random(size), "model.q.road_alpha": random(size)}
    found = merged(tmp_path, parts, "ROAD", variant=variant, group_size=2)
    angles, scales = parts.values()
    if variant == "road_1":
        angles, scales = angles.repeat_interleave(2), scales.repeat_interleave(2)
    if variant != "road_4":
        angles, scales = (t.view(3, 1, 2).expand(3, 2, 2).flatten() for t in (angles, scales))
    turn = torch.zeros(6, 6)
    for pair in range(3):
        (c0, c1, s0, s1), (a0, a1, b0, b1) = (t[4 * pair : 4 * pair + 4] for t in (angles, scales))
        block = torch.tensor([[a0 * c0.cos(), -b0 * s0.sin()], [b1 * s1.sin(), a1 * c1.cos()]])
        turn[2 * pair : 2 * pair + 2, 2 * pair : 2 * pair + 2] = block
    for before, after in found.values():
        near(after, turn @ before)
    assert found.keys() == {"q.weight", "q.bias"}
    with pytest.raises(SourceError, match=r"has the variant 'road_3', which RoAd has not; fetch it"):
        merged(tmp_path, parts, "ROAD", variant="road_3")


def test_hira_multiplies_the_weight_by_a_product(tmp_path: Path) -> None:
    parts = {"model.q.hira_A": random(2, 4), "model.q.hira_B": random(6, 2)}
    parts |= {"model.embed.hira_embedding_A": random(2, 5), "model.embed.hira_embedding_B": random(4, 2)}
    parts |= {"model.conv.hira_A": random(2, 4, 2, 2), "model.conv.hira_B": random(3, 2, 1, 1)}
    found = merged(tmp_path, parts, "HIRA", r=2)
    before, after = found["q.weight"]
    near(after, before * (1 + parts["model.q.hira_B"] @ parts["model.q.hira_A"]))
    before, after = found["embed.weight"]
    near(after, before * (1 + parts["model.embed.hira_embedding_B"] @ parts["model.embed.hira_embedding_A"]).t())
    before, after = found["conv.weight"]
    product = torch.einsum("or, rikl -> oikl", parts["model.conv.hira_B"][:, :, 0, 0], parts["model.conv.hira_A"])
    near(after, before * (1 + product))


def test_delora_has_a_bounded_product(tmp_path: Path) -> None:
    parts = {"delora_A": random(2, 4), "delora_B": random(6, 2), "delora_lambda": random(1), "delora_w_norm": random(4)}
    up, down = nn.functional.normalize(parts["delora_B"], dim=0), nn.functional.normalize(parts["delora_A"], dim=1)
    product = parts["delora_lambda"] / 2 * up @ down
    near(added(tmp_path, parts, "DELORA", r=2), product * parts["delora_w_norm"])
    del parts["delora_w_norm"]  # which peft then computes
    before, after = merged(tmp_path, {f"model.q.{n}": t for n, t in parts.items()}, "DELORA", r=2)["q.weight"]
    near(after - before, product * before.norm(dim=0))


@pytest.mark.parametrize("beside", [False, True])
def test_gralora_has_a_product_for_each_block(beside: bool, tmp_path: Path) -> None:
    parts = {"gralora_A": random(2, 2, 4), "gralora_B": random(2, 4, 3)}
    whole, rank = torch.zeros(6, 4), 6 if beside else 4
    for i in range(2):
        for j in range(2):  # outputs of part j have the j-th half of the ranks of inputs of part i
            down, up = parts["gralora_A"][i][:, 2 * j : 2 * j + 2], parts["gralora_B"][j][2 * i : 2 * i + 2]
            whole[3 * j : 3 * j + 3, 2 * i : 2 * i + 2] = (down @ up).t()
    if beside:
        parts |= {"gralora_A_general.weight": random(2, 4), "gralora_B_general.weight": random(6, 2)}
        whole += parts["gralora_B_general.weight"] @ parts["gralora_A_general.weight"]
    near(added(tmp_path, parts, "GRALORA", r=4, alpha=12, hybrid_r=2 * beside), whole * 12 / rank)


@pytest.mark.parametrize("largest", [False, True])
def test_vblora_mixes_shared_vectors(largest: bool, tmp_path: Path) -> None:
    bank, logits = random(5, 2), {"vblora_logits_A": random(3, 2, 5), "vblora_logits_B": random(3, 3, 5)}
    mixed = dict[str, Tensor]()
    parts = {"base_model.vblora_vector_bank": bank} if not largest else {}
    for name, given in logits.items():
        values, places = given.topk(2)
        weights = values.softmax(-1)
        mixed[name] = weights[..., :1] * bank[places[..., 0]] + weights[..., 1:] * bank[places[..., 1]]
        few = {f"{name}_topk_indices": places.to(torch.uint8), f"{name}_topk_weights": weights[..., :1].contiguous()}
        parts |= {f"model.q.{n}": t for n, t in (few if largest else {name: given}).items()}
    parts = {n.removeprefix("base_model."): t for n, t in parts.items()} | {"vblora_vector_bank": bank}
    down = mixed["vblora_logits_A"].flatten(1)
    up = torch.cat([*mixed["vblora_logits_B"].mT])
    before, after = merged(tmp_path, parts, "VBLORA", topk=2)["q.weight"]
    near(after - before, up @ down)
    if largest:
        parts["model.q.vblora_logits_A_topk_indices"][0] = 5
        with pytest.raises(SourceError, match=r"q.weight by vblora_logits_A_topk_indices 5, of 5 there are; is it its"):
            merged(tmp_path, parts, "VBLORA", topk=2)


@pytest.mark.parametrize("layer", ["q", "head", "across"])
def test_randlora_sums_scaled_random_matrices(layer: str, tmp_path: Path) -> None:
    outputs = 5 if layer == "head" else 6
    own = {"randlora_lambda": random(3, 2), "randlora_gamma": random(2, 4)}
    shared = {"randlora_A": random(3, 2, 4), "randlora_B": random(6, 2, 3)}
    parts = {f"model.{layer}.{name}": t for name, t in own.items()} | shared
    before, after = merged(tmp_path, parts, "RANDLORA", r=3, randlora_alpha=6)[f"{layer}.weight"]
    fixed = shared["randlora_B"][:outputs].flatten(1)
    scaled = own["randlora_lambda"][:, :, None] * shared["randlora_A"] * own["randlora_gamma"]
    product = 2 * fixed @ scaled.flatten(end_dim=1)
    near(after - before, product.t() if layer == "across" else product)
    with pytest.raises(SourceError, match=r"lacks the random matrices randlora_A and randlora_B, which peft makes"):
        merged(tmp_path, {name: t for name, t in parts.items() if name not in shared}, "RANDLORA", r=3)


@pytest.mark.parametrize("side", ["A", "B"])
def test_bdlora_has_a_factor_of_blocks(side: str, tmp_path: Path) -> None:
    shapes = {"A": ((2, 2), (6, 2)), "B": ((2, 4), (6, 1))}[side]
    parts = {f"lora_{x}.weight": random(*shape) for x, shape in zip("AB", shapes, strict=True)}
    down, up = parts.values()
    if side == "A":
        down = torch.block_diag(down[:1], down[1:])
    else:
        up = torch.block_diag(up[:3], up[3:])
    use = {"target_modules_bd_a": ["x", "q"] if side == "A" else [], "target_modules_bd_b": ["q"], "nblocks": 2}
    near(added(tmp_path, parts, "LORA", r=2, lora_alpha=6, use_bdlora=use), up @ down * 3)
    with pytest.raises(SourceError, match=r"does not say into how many blocks BD-LoRA divides; fetch it"):
        added(tmp_path, parts, "LORA", r=2, lora_alpha=6, use_bdlora=True)


def test_c3a_has_blocks_that_are_circulant(tmp_path: Path) -> None:
    kernel = random(3, 2, 2)
    block = [torch.cat([torch.stack([k, k.flip(0)]) for k in row], dim=1) for row in kernel]
    near(added(tmp_path, {"c3a_kernel": kernel}, "C3A"), torch.cat(block) / 4)
    row = random(4)
    rolled = torch.stack([row.roll(i) for i in range(4)])
    near(of_circulants(torch.zeros(4, 4), {"c3a_kernel": row.view(1, 1, 4)}), rolled / 4)


def test_fourierft_has_the_transform_of_few_coefficients(tmp_path: Path) -> None:
    given = random(3)
    places = torch.randperm(24, generator=torch.Generator().manual_seed(5))[:3]
    i, j = torch.meshgrid(torch.arange(6), torch.arange(4), indexing="ij")
    whole = torch.zeros(6, 4)
    for value, place in zip(given, places.tolist(), strict=True):
        whole += value * torch.cos(2 * pi * (i * (place // 4) / 6 + j * (place % 4) / 4)) / 24
    near(
        added(tmp_path, {"fourierft_spectrum": given}, "FOURIERFT", n_frequency=3, scaling=7, random_loc_seed=5),
        whole * 7,
    )


def test_shira_changes_single_elements(tmp_path: Path) -> None:
    places, values = torch.tensor([[0, 5, 2], [3, 0, 2]], dtype=torch.int32), random(3)
    parts = {"shira_weight": values, "shira_indices": places}
    whole = torch.zeros(6, 4)
    whole[places[0].long(), places[1].long()] = values
    near(added(tmp_path, parts, "SHIRA"), whole)
    parts["shira_indices"][1, 0] = 4
    with pytest.raises(SourceError, match=r"changes q.weight by shira_indices 4, of 4 there are; is it its base\?"):
        added(tmp_path, parts, "SHIRA")


def test_miss_repeats_a_block(tmp_path: Path) -> None:
    block = random(3, 6)  # of 3 columns, where the weight has 4
    near(added(tmp_path, {"miss_block": block}, "MISS", r=3), torch.cat([block.t(), block.t()], 1)[:, :4])
    mini = random(2, 3)
    expected = torch.cat([torch.cat([mini.t()] * 2, 1)] * 2)
    near(added(tmp_path, {"miss_block": mini}, "MISS", r=2, init_weights="mini", mini_r=3), expected)
    both = random(3, 2, 2)
    before, after = merged(tmp_path, {"model.q.miss_block": both}, "MISS", r=2, init_weights="bat")["q.weight"]
    for i in range(3):
        for j in range(2):
            at = slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2)
            near(after[at] - before[at], before[at] @ both[i] + both[i])


def test_beft_adds_to_biases(tmp_path: Path) -> None:
    bias = random(1, 6)
    ((name, (before, after)),) = merged(tmp_path, {"model.q.beft_bias": bias}, "BEFT").items()
    assert name == "q.bias"
    near(after, before + bias[0])


@pytest.mark.parametrize(
    ("kind", "parts", "settings"),
    [
        ("BOFT", {"boft_R": (1, 3, 2, 2), "boft_s": (6, 1)}, {}),
        ("BOFT", {"boft_R": (1, 2), "boft_s": (6, 1)}, {}),
        ("ROAD", {"road_theta": (3,), "road_alpha": (1,)}, {"group_size": 2}),
        ("HIRA", {"hira_A": (2, 1), "hira_B": (6, 2)}, {}),
        ("DELORA", {"delora_A": (2, 4), "delora_B": (1, 2), "delora_lambda": (1,), "delora_w_norm": (4,)}, {"r": 2}),
        ("GRALORA", {"gralora_A": (2, 2, 4), "gralora_B": (1, 4, 3)}, {"r": 4}),
        ("VBLORA", {"vblora_logits_A": (3, 2, 5), "vblora_logits_B": (3, 3, 5)}, {}),
        ("MISS", {"miss_block": (3, 1)}, {"r": 3}),
        ("MISS", {"miss_block": (0, 6)}, {"r": 0}),
        ("MISS", {"miss_block": (1, 2, 2)}, {"r": 2, "init_weights": "bat"}),
        ("C3A", {"c3a_kernel": (1, 2, 2)}, {}),
        ("FOURIERFT", {"fourierft_spectrum": (25,)}, {"n_frequency": 25}),
        ("SHIRA", {"shira_weight": (3,)}, {}),
        ("BEFT", {"beft_bias": (1,)}, {}),
        ("LORA", {"lora_A": (2, 4), "lora_B": (1, 2)}, {"r": 2, "use_bdlora": {"nblocks": 2}}),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    kind: str, parts: dict[str, tuple[int, ...]], settings: dict[str, Any], tmp_path: Path
) -> None:
    """None is repeated to fit."""
    with pytest.raises(SourceError, match=r"adapts q\.\w+ of \[.*, which do not fit it; fetch it again"):
        added(tmp_path, {name: random(*shape) for name, shape in parts.items()}, kind, **settings)


@pytest.mark.parametrize(
    ("kind", "part", "settings"),
    [
        ("FOURIERFT", "fourierft_spectrum", {"scaling": "x"}),
        ("FOURIERFT", "fourierft_spectrum", {"random_loc_seed": 0.5}),
        ("MISS", "miss_block", {"init_weights": "mini", "mini_r": 0, "r": 2}),
        ("VBLORA", "vblora_logits_A", {"topk": None}),
        ("ROAD", "road_theta", {"group_size": [2]}),
        ("GRALORA", "gralora_A", {"alpha": "x", "r": 6}),
        ("GRALORA", "gralora_A", {"hybrid_r": -1, "r": 6}),
    ],
)
def test_settings_that_are_no_numbers_are_named(kind: str, part: str, settings: dict[str, Any], tmp_path: Path) -> None:
    key = next(iter(settings)) if kind != "MISS" else "mini_r"
    settings = {"n_frequency": 36, **settings}
    with pytest.raises(SourceError, match=rf"adapter_config.json has {key} .*, which is no number for that; fetch it"):
        added(tmp_path, {part: random(2, 3, 6)}, kind, **settings)


@pytest.mark.parametrize(
    ("kind", "parts", "settings", "said"),
    [
        ("BOFT", {"boft_R": (2, 2, 2, 2)}, {}, r"rotates q 2 times; its settings say 1: fetch both again"),
        ("BOFT", {"boft_R": (0, 2, 2, 2)}, {}, r"rotates q 0 times; its settings say 1: fetch both again"),
        ("FOURIERFT", {"fourierft_spectrum": (3,)}, {"n_frequency": 4}, "has 3 coefficients for q; its settings say 4"),
        ("GRALORA", {"gralora_A": (2, 2, 4)}, {"r": 4, "hybrid_r": 2}, "LoRA of rank 0 beside GraLoRA for q; its"),
        ("MISS", {"miss_block": (2, 6)}, {"r": 3}, "has factors of rank 2 for q; its settings say 3"),
        ("DELORA", {"delora_A": (2, 4)}, {"r": 3}, "has factors of rank 2 for q; its settings say 3"),
        ("DELORA", {"delora_A": (2, 4)}, {"rank_pattern": [3]}, "gives q no scale"),
        ("RANDLORA", {"randlora_lambda": (2, 4)}, {"rank_pattern": {"(": 3}}, "gives q no scale"),
    ],
)
def test_other_numbers_than_the_settings_say_are_named(
    kind: str, parts: dict[str, tuple[int, ...]], settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    given = {name: random(*shape) for name, shape in parts.items()}
    given |= {f"randlora_{x}": random(2, 2, 4) for x in "AB"} if kind == "RANDLORA" else {}
    with pytest.raises(SourceError, match=said):
        added(tmp_path, given, kind, **settings)


def test_every_kind_is_recognized_by_the_names_of_its_tensors(tmp_path: Path) -> None:
    """So a tensor of one is never taken for one that replaces the model's."""
    merged(tmp_path, {"model.q.ia3_l": random(6, 1)}, "IA3")
    adapter = Adapter.open(tmp_path)
    for name in ("q.hira_embedding_A", "q.boft_R", "q.vblora_logits_A_topk_weights", "q.gralora_A_general.weight"):
        layers, whole = Adapter(tmp_path, adapter.settings, {name: adapter.tensors["q.ia3_l"]}).by_layer(["q.weight"])
        assert [layer.path for layer in layers] == ["q"], name
        assert not whole
