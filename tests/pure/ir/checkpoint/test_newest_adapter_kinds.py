"""Adapters of the newest kinds of peft, merged as their papers define them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ir.checkpoint.adapters.kinds.known import KINDS
from ir.checkpoint.adapters.layer import LayerAdapter
from ir.checkpoint.tensors import Held
from ir.errors import SourceError
from tests.support.weights.adapter_folders import merged, random


def changed(folder: Path, parts: dict[str, Tensor], kind: str, **settings: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """The tensors of the linear layer `q` [6, 4], as they were and as they are."""
    named = {name if name.startswith("base_model.") else f"model.q.{name}": t for name, t in parts.items()}
    return merged(folder, {name.removeprefix("base_model."): t for name, t in named.items()}, kind, **settings)


def near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_glora_scales_and_moves_weight_and_bias(tmp_path: Path) -> None:
    parts = {f"glora_{name}.Xd": random(6, 2) for name in "AB"} | {f"glora_{name}.Xu": random(2, 4) for name in "AB"}
    parts |= {"glora_C.Xd": random(4, 2), "glora_C.Xu": random(2, 1), "glora_D.X": random(1), "glora_E.X": random(6)}
    found = changed(tmp_path, parts, "GLORA", r=2)
    factors, added, across = (parts[f"glora_{name}.Xd"] @ parts[f"glora_{name}.Xu"] for name in "ABC")
    before, after = found["q.weight"]
    near(after, before * (1 + factors) + added)
    bias, moved = found["q.bias"]
    near(moved, bias * (1 + parts["glora_D.X"]) + parts["glora_E.X"] + (before @ across)[:, 0])


def test_glora_has_numbers_in_place_of_products(tmp_path: Path) -> None:
    zeros = {f"glora_{name}.zeros": torch.zeros(6) for name in "CDE"}
    parts = {"glora_A.X": random(6, 1), "glora_B.X": random(1), **zeros}
    ((name, (before, after)),) = changed(tmp_path, parts, "GLORA").items()
    assert name == "q.weight"
    near(after, before * (1 + parts["glora_A.X"]) + parts["glora_B.X"])


def test_osf_replaces_the_smaller_singular_values(tmp_path: Path) -> None:
    parts = {f"osf_svd_params.{n}_low": random(*s) for n, s in (("U", (6, 3)), ("S", (3,)), ("V", (3, 4)))}
    before, after = changed(tmp_path, parts, "OSF")["q.weight"]
    left, values, right = torch.linalg.svd(before, full_matrices=False)
    rows, sizes, columns = parts.values()
    near(after, values[0] * torch.outer(left[:, 0], right[0]) + rows @ sizes.diag() @ columns)


@pytest.mark.parametrize("method", ["relu", "qr"])
@pytest.mark.parametrize("alone", [False, True])
def test_deft_replaces_what_a_projection_takes_out(method: str, alone: bool, tmp_path: Path) -> None:
    parts = {"deft_P": random(6, 2)} | ({} if alone else {"deft_R": random(2, 4)})
    given = {"decomposition_method": method, "alpha": 6, "para": alone}
    before, after = changed(tmp_path, parts, "DEFT", **given)["q.weight"]
    left = torch.linalg.qr(parts["deft_P"])[0] if method == "qr" else parts["deft_P"]
    right = left if method == "qr" else left.clamp(min=0)
    near(after, (torch.eye(6) - left @ right.t()) @ before + (0 if alone else 3 * left @ parts["deft_R"]))
    with pytest.raises(SourceError, match=r"has the decomposition 'svd', which DEFT has not; fetch it"):
        changed(tmp_path, parts, "DEFT", decomposition_method="svd")


def test_peanut_adds_what_a_network_makes_of_the_weight(tmp_path: Path) -> None:
    named = ("encoders.0", "encoders.1", "decoders.0", "decoders.1")
    parts = {"peanut_A.weight": random(2, 6), "peanut_B.weight": random(6, 2)}
    parts |= {f"peanut_{name}.weight": random(2, 2) for name in named}
    before, after = changed(tmp_path, parts, "PEANUT", act_fn="tanh", scaling=0.5)["q.weight"]
    enc0, enc1, dec0, dec1 = (parts[f"peanut_{name}.weight"] for name in named)
    for column in range(4):
        first = torch.tanh(parts["peanut_A.weight"] @ before[:, column])
        second = torch.tanh(enc0 @ first)
        inner = torch.tanh(dec0 @ torch.tanh(enc1 @ second)) + second
        outer = torch.tanh(dec1 @ inner) + first
        near(after[:, column], before[:, column] + parts["peanut_B.weight"] @ outer / 2)
    with pytest.raises(SourceError, match=r"has PEANuT with the activation sin, which is not merged: merge it into"):
        changed(tmp_path, parts, "PEANUT", act_fn="sin")


def haar(values: Tensor, places: list[int], rows: int, columns: int) -> Tensor:
    """What coefficients in quarters add up to: each spreads over two by two elements, in one of four patterns."""
    half, side = -(-rows // 2), -(-columns // 2)
    whole = torch.zeros(2 * half, 2 * side)
    for value, place in zip(values, places, strict=True):
        i, j = divmod(place, columns)
        down, across = (1.0, -1.0 if j >= side else 1.0), (1.0, -1.0 if i >= half else 1.0)
        row, column = 2 * (i % half), 2 * (j % side)
        whole[row : row + 2, column : column + 2] += value * torch.outer(torch.tensor(down), torch.tensor(across)) / 2
    return whole[:rows, :columns]


@pytest.mark.parametrize(("layer", "rows"), [("q", 6), ("head", 5)])
def test_waveft_adds_wavelets_of_few_coefficients(layer: str, rows: int, tmp_path: Path) -> None:
    given, name = random(5), f"model.{layer}.waveft_spectrum"
    places = torch.randperm(4 * rows, generator=torch.Generator().manual_seed(3))[:5].tolist()
    direct = torch.zeros(4 * rows)
    direct[places] = given
    settings = {"n_frequency": 5, "scaling": 4, "random_loc_seed": 3}
    for use, expected in ((False, direct.view(rows, 4)), (True, haar(given, places, rows, 4))):
        before, after = merged(tmp_path, {name: given}, "WAVEFT", use_idwt=use, **settings)[f"{layer}.weight"]
        near(after - before, expected * 4)
    with pytest.raises(SourceError, match=r"has WaveFT with the wavelets sym4, which is merged with db1 alone: merge"):
        merged(tmp_path, {name: given}, "WAVEFT", wavelet_family="sym4", **settings)
    with pytest.raises(SourceError, match=r"has 5 coefficients of wavelets for \w+; its settings say 7"):
        merged(tmp_path, {name: given}, "WAVEFT", n_frequency=7)


@pytest.mark.parametrize("beside", [False, True])
def test_super_changes_elements_of_the_flat_weight(beside: bool, tmp_path: Path) -> None:
    places, values = torch.tensor([3, 23, 8], dtype=torch.int32), random(3)
    parts = {"supertuning_values": values, "supertuning_indices": places}
    if beside:
        parts |= {"supertuning_lora_A.weight": random(2, 4), "supertuning_lora_B.weight": random(6, 2)}
    before, after = changed(tmp_path, parts, "SUPERTUNING", r=2 if beside else None, lora_alpha=6)["q.weight"]
    expected = before.flatten()
    expected[places.long()] += values
    product = parts["supertuning_lora_B.weight"] @ parts["supertuning_lora_A.weight"] * 3 if beside else 0
    near(after, expected.view(6, 4) + product)
    with pytest.raises(SourceError, match=r"does not say which elements of q.weight it changes: save it with save_pre"):
        changed(tmp_path, {"supertuning_values": values}, "SUPERTUNING")
    with pytest.raises(SourceError, match=r"changes q.weight by supertuning_indices 24, of 24 there are"):
        changed(tmp_path, {**parts, "supertuning_indices": places + 1}, "SUPERTUNING", r=2)


def test_places_in_large_weights_are_read_as_integers(tmp_path: Path) -> None:
    """A float32 cannot tell numbers above 2^24."""
    place = 2**24 + 1
    formula = KINDS["SUPERTUNING"].changes
    parts = {"supertuning_values": Held(torch.ones(1)), "supertuning_indices": Held(torch.tensor([place]))}
    layer = nn.Linear(2**23 + 1, 2, device="meta")
    ((_, change),) = formula(LayerAdapter(tmp_path, {}, "q", layer, parts))
    found = change(Held(torch.zeros(2, 2**23 + 1))).read(torch.float32)
    assert found.nonzero().tolist() == [[1, place - 2**23 - 1]]


def test_unilora_has_factors_of_shared_numbers(tmp_path: Path) -> None:
    shared = random(7)
    places = {"A": torch.tensor([[0, 6, 3, 3], [1, 2, 5, 4]]), "B": torch.randint(0, 7, (6, 2))}
    scales = {"A": random(2, 4), "B": random(6, 2)}
    parts = {f"unilora_indices_{side}": t for side, t in places.items()}
    parts |= {f"unilora_scales_{side}": t for side, t in scales.items()} | {"base_model.unilora_theta_d": shared}
    before, after = changed(tmp_path, parts, "UNILORA", r=2)["q.weight"]
    down, up = (shared[places[side]] * scales[side] for side in "AB")
    near(after - before, up @ down)
    with pytest.raises(SourceError, match=r"has unilora_theta_d for all layers, and nothing that says which layers: s"):
        changed(tmp_path, {"base_model.unilora_theta_d": shared}, "UNILORA", r=2)
    del parts["unilora_scales_A"]
    with pytest.raises(SourceError, match=r"does not say which numbers q has: save the adapter with save_indices"):
        changed(tmp_path, parts, "UNILORA", r=2)


def test_pvera_is_vera_by_the_means(tmp_path: Path) -> None:
    parts = {"pvera_lambda_b": random(6), "pvera_lambda_d": random(4)}
    parts |= {"base_model.pvera_A": random(4, 5), "base_model.pvera_B": random(7, 2)}
    before, after = changed(tmp_path, parts, "PVERA", r=2)["q.weight"]
    sizes, factors, down, up = parts.values()
    near(after - before, sizes[:, None] * up[:6] @ (factors[:2, None] * down[:2, :4]))
    with pytest.raises(SourceError, match=r"has PVeRA that draws weights at each call \(sample_at_inference\): no wei"):
        changed(tmp_path, parts, "PVERA", r=2, sample_at_inference=True)


@pytest.mark.parametrize(
    ("kind", "parts", "settings"),
    [
        ("GLORA", {"glora_A.X": (1, 6), "glora_B.X": (1,)}, {}),
        ("GLORA", {"glora_D.X": (4,), "glora_E.X": (1,)}, {}),
        ("OSF", {"osf_svd_params.U_low": (6, 5), "osf_svd_params.S_low": (5,), "osf_svd_params.V_low": (5, 4)}, {}),
        ("DEFT", {"deft_P": (6, 2), "deft_R": (1, 4)}, {}),
        ("PEANUT", {"peanut_A.weight": (2, 5), "peanut_B.weight": (6, 2)}, {}),
        ("PEANUT", {"peanut_A.weight": (2, 6), "peanut_B.weight": (1, 2)}, {}),
        ("OSF", {"osf_svd_params.U_low": (6, 3), "osf_svd_params.S_low": (1,), "osf_svd_params.V_low": (3, 4)}, {}),
        (
            "PEANUT",
            {"peanut_A": (2, 6), "peanut_B": (6, 2), "peanut_encoders.0": (2, 2), "peanut_decoders.0": (1, 2)},
            {},
        ),
        ("PVERA", {"pvera_lambda_b": (1,), "pvera_lambda_d": (4,), "base_model.pvera_A": (4, 5)}, {}),
        ("GLORA", {"glora_A.X": (1,), "glora_B.Xu": (2, 4)}, {}),
        ("DEFT", {"deft_P": (6, 2)}, {}),
        (
            "PEANUT",
            {"peanut_A": (2, 6), "peanut_B": (6, 2), "peanut_decoders.0": (2, 2)},
            {},
        ),
        ("WAVEFT", {"waveft_spectrum": (25,)}, {"n_frequency": 25, "use_idwt": False}),
        ("PVERA", {"pvera_lambda_b": (6,), "pvera_lambda_d": (2,), "base_model.pvera_A": (4, 5)}, {}),
    ],
)
def test_parts_of_the_newest_kinds_that_do_not_fit(
    kind: str, parts: dict[str, tuple[int, ...]], settings: dict[str, Any], tmp_path: Path
) -> None:
    given = {name: random(*shape) for name, shape in parts.items()}
    given |= {"base_model.pvera_B": random(7, 2)} if kind == "PVERA" else {}
    with pytest.raises(SourceError, match=r"adapts q\.\w+ of \[.*, which do not fit it; fetch it again"):
        changed(tmp_path, given, kind, **settings)


def test_half_a_product_beside_places_does_not_fit(tmp_path: Path) -> None:
    parts = {"supertuning_values": random(1), "supertuning_indices": torch.tensor([3])}
    with pytest.raises(SourceError, match=r"adapts q\.weight of \[.*, which do not fit it; fetch it again"):
        changed(tmp_path, {**parts, "supertuning_lora_B.weight": random(6, 2)}, "SUPERTUNING")


def test_what_layers_share_is_in_floats(tmp_path: Path) -> None:
    parts = {"pvera_lambda_b": random(6), "pvera_lambda_d": random(4), "base_model.pvera_B": random(7, 2)}
    with pytest.raises(SourceError, match=r"has base_model\.pvera_A in complex64, and adapters are trained in floats"):
        changed(tmp_path, {**parts, "base_model.pvera_A": torch.ones(4, 5, dtype=torch.complex64)}, "PVERA", r=2)


def test_kinds_that_change_weights_by_inputs_have_no_merge(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has a LILY adapter, which is not merged: no weights hold it; give a model"):
        changed(tmp_path, {"lily_A.weight": random(2, 4)}, "LILY")
