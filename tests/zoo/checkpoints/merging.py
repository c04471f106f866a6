"""What adapters of each kind make of a weight [32, 32]: the new one, and their tensors for it."""

from __future__ import annotations

from math import pi

import torch

Parts = dict[str, torch.Tensor]

VECTORS = {"vblora_vector_bank": torch.linspace(-1, 1, 40).sin().view(5, 8)}
MATRICES = {
    "randlora_A": torch.linspace(-9, 9, 128).cos().view(4, 1, 32),
    "randlora_B": torch.linspace(-9, 9, 1024).sin().view(32, 8, 4),
}

NUMBERS = {"unilora_theta_d": torch.linspace(-1, 1, 5)}
MEANS = {
    "pvera_A": torch.linspace(-9, 9, 256).cos().view(8, 32),
    "pvera_B": torch.linspace(-9, 9, 128).sin().view(32, 4),
}


def dora(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    down, up, lengths = torch.randn(4, 32), torch.randn(32, 4), torch.rand(32)
    whole = weight + up @ down * 2.0
    parts = {"lora_A.weight": down, "lora_B.weight": up, "lora_magnitude_vector": lengths}
    return lengths[:, None] / whole.norm(dim=1, keepdim=True) * whole, parts


def adalora(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    down, up, values = torch.randn(4, 32), torch.randn(32, 4), torch.randn(4, 1)
    return weight + up @ (down * values) * (8 / (4 + 1e-5)), {"lora_A": down, "lora_B": up, "lora_E": values}


def loha(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    ups, downs = torch.randn(2, 32, 4), torch.randn(2, 4, 32)
    parts = {f"hada_w{i + 1}_{x}": m[i].clone() for x, m in (("a", ups), ("b", downs)) for i in range(2)}
    return weight + (ups @ downs).prod(0) * 2.0, parts


def lokr(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    one, other = torch.randn(4, 4), torch.randn(8, 8)
    return weight + torch.kron(one, other) * 2.0, {"lokr_w1": one, "lokr_w2": other}


def ia3(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    factors = torch.rand(32, 1)
    return weight * factors, {"ia3_l": factors}


def oft(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    angles = torch.randn(16, 1)
    blocks = []
    for angle in angles.flatten():
        skew = torch.tensor([[0.0, angle], [-angle, 0.0]])
        blocks.append(torch.linalg.inv(torch.eye(2) + skew) @ (torch.eye(2) - skew))
    return weight @ torch.block_diag(*blocks).t(), {"oft_R.weight": angles}


def boft(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    given, scales = torch.randn(1, 8, 4, 4), torch.rand(32, 1)
    one, skew = torch.eye(4), (given[0] - given[0].mT) / 2
    turn = torch.block_diag(*((one - skew) @ torch.linalg.inv(one + skew)))
    return weight @ turn.t() * scales, {"boft_R": given, "boft_s": scales}


def road(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    angles, scales = torch.randn(16), torch.rand(16)
    first, second = weight[::2], weight[1::2]
    cos, sin = (scales * angles.cos())[:, None], (scales * angles.sin())[:, None]
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], 1)
    return turned.view(32, 32), {"road_theta": angles, "road_alpha": scales}


def hira(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    down, up = torch.randn(4, 32), torch.randn(32, 4)
    return weight * (1 + up @ down), {"hira_A": down, "hira_B": up}


def delora(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    down, up, bound, lengths = torch.randn(4, 32), torch.randn(32, 4), torch.rand(1), weight.norm(dim=0)
    product = (up / up.norm(dim=0)) @ (down / down.norm(dim=1, keepdim=True)) * bound / 4
    parts = {"delora_A": down, "delora_B": up, "delora_lambda": bound, "delora_w_norm": lengths}
    return weight + product * lengths, parts


def gralora(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    downs, ups = torch.randn(2, 16, 4), torch.randn(2, 4, 16)
    blocks = [[ups[j][2 * i : 2 * i + 2].t() @ downs[i][:, 2 * j : 2 * j + 2].t() for i in (0, 1)] for j in (0, 1)]
    product = torch.cat([torch.cat(row, 1) for row in blocks])
    return weight + product * 2.0, {"gralora_A": downs, "gralora_B": ups}


def vblora(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    down, up = torch.randn(4, 4, 5), torch.randn(4, 4, 5)
    pieces = []
    for logits in (down, up):
        largest, places = logits.topk(2)
        pieces.append((largest.softmax(-1)[..., None] * VECTORS["vblora_vector_bank"][places]).sum(-2))
    product = pieces[1].mT.reshape(32, 4) @ pieces[0].reshape(4, 32)
    return weight + product, {"vblora_logits_A": down, "vblora_logits_B": up}


def randlora(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    values, factors = torch.randn(4, 8), torch.randn(8, 32)
    scaled = values[:, :, None] * MATRICES["randlora_A"] * factors
    product = MATRICES["randlora_B"].flatten(1) @ scaled.flatten(end_dim=1)
    return weight + product * 2.0, {"randlora_lambda": values, "randlora_gamma": factors}


def bdlora(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    down, up = torch.randn(4, 16), torch.randn(32, 4)
    product = up @ torch.block_diag(down[:2], down[2:])
    return weight + product * 2.0, {"lora_A.weight": down, "lora_B.weight": up}


def miss(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    block = torch.randn(4, 32)
    return weight + block.t().repeat(1, 8), {"miss_block": block}


def shira(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    places, values = torch.tensor([[1, 30, 7], [4, 2, 31]], dtype=torch.int32), torch.randn(3)
    weight[places[0].long(), places[1].long()] += values
    return weight, {"shira_indices": places, "shira_weight": values}


def fourierft(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    given = torch.randn(3)
    places = torch.randperm(1024, generator=torch.Generator().manual_seed(9))[:3].tolist()
    i, j = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    waves = [torch.cos(2 * pi * (i * (at // 32) + j * (at % 32)) / 32) / 1024 for at in places]
    added = sum(value * wave for value, wave in zip(given, waves, strict=True))
    return weight + added * 300, {"fourierft_spectrum": given}


def glora(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    factors, added = torch.randn(32, 1), torch.randn(32, 1)
    return weight + (weight * factors + added), {"glora_A.X": factors, "glora_B.X": added}


def osf(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    rows, sizes, columns = torch.randn(32, 8), torch.rand(8), torch.randn(8, 32)
    left, values, right = torch.linalg.svd(weight)
    small = (left[:, 24:] * values[24:]) @ right[24:]
    names = (f"osf_svd_params.{name}_low" for name in "USV")
    return weight + ((rows * sizes) @ columns - small), dict(zip(names, (rows, sizes, columns), strict=True))


def deft(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    columns, rows = torch.randn(32, 4) / 8, torch.randn(4, 32)
    return weight + columns @ (rows * 2.0 - columns.relu().t() @ weight), {"deft_P": columns, "deft_R": rows}


def peanut(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    down, up = torch.randn(4, 32), torch.randn(32, 4)
    return weight + ((weight.t() @ down.t()).relu() @ up.t()).t(), {"peanut_A.weight": down, "peanut_B.weight": up}


def waveft(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    given = torch.randn(3)
    places = torch.randperm(1024, generator=torch.Generator().manual_seed(9))[:3]
    added = torch.zeros(1024).index_put((places,), given * 2.0)
    return weight + added.view(32, 32), {"waveft_spectrum": given}


def supertuning(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    places, values = torch.tensor([3, 1000, 77], dtype=torch.int32), torch.randn(3)
    weight.view(-1)[places.long()] += values
    return weight, {"supertuning_indices": places, "supertuning_values": values}


def unilora(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    places = {"A": torch.randint(0, 5, (4, 32)), "B": torch.randint(0, 5, (32, 4))}
    scales = {side: torch.randn(at.shape) for side, at in places.items()}
    down, up = (NUMBERS["unilora_theta_d"][places[side]] * scales[side] for side in "AB")
    parts = {f"unilora_indices_{side}": at for side, at in places.items()}
    return weight + up @ down, parts | {f"unilora_scales_{side}": scale for side, scale in scales.items()}


def pvera(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    sizes, factors = torch.randn(32), torch.randn(8)
    product = (sizes[:, None] * MEANS["pvera_B"]) @ (factors[:4, None] * MEANS["pvera_A"][:4])
    return weight + product, {"pvera_lambda_b": sizes, "pvera_lambda_d": factors}


def c3a(weight: torch.Tensor) -> tuple[torch.Tensor, Parts]:
    kernel = torch.randn(2, 2, 16)
    rows = [torch.cat([torch.stack([k.roll(i) for i in range(16)]) for k in row], 1) for row in kernel]
    return weight + torch.cat(rows) / 32, {"c3a_kernel": kernel}
