"""Modules whose own code changes what a checkpoint's tensors become."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ir.checkpoint.checkpoint import Checkpoint
from ir.errors import SourceError
from ir.sources import read_source


class Turning(nn.Linear):
    """A hook turns the weight, which has another name in files."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.register_load_state_dict_pre_hook(self.turn)

    @staticmethod
    def turn(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        state[f"{prefix}weight"] = state.pop(f"{prefix}kernel").t() * 2


class Renaming(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Any:  # type: ignore[override]
        renamed = {"weight" if name == "kernel" else name: -tensor for name, tensor in state_dict.items()}
        return super().load_state_dict(renamed, strict)


class Growing(nn.Module):
    """A buffer of as many rows as the file has."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.zeros(0, 3))
        self.bias = nn.Parameter(torch.zeros(3))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:  # type: ignore[override]
        self.kernel = torch.zeros(state_dict[f"{prefix}kernel"].shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Versioned(nn.Linear):
    """Of two versions, the first with a weight that is turned; strictly, a state dict must say which one it is of."""

    _version = 2

    def __init__(self, strict: bool = True) -> None:
        super().__init__(3, 3)
        self.strict, self.norm = strict, nn.BatchNorm1d(3)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, metadata: Any, *rest: Any) -> None:  # type: ignore[override]
        version = metadata.get("version")
        if version is None and self.strict:
            raise ValueError("no version")
        if version in (None, 1) and "kernel" in state_dict:
            state_dict["weight"] = state_dict.pop("kernel").t()
        super()._load_from_state_dict(state_dict, prefix, metadata, *rest)


class Turned(nn.Linear):
    """In the first version, the weight of the same name was another one."""

    _version = 2

    def __init__(self) -> None:
        super().__init__(3, 3)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, metadata: Any, *rest: Any) -> None:  # type: ignore[override]
        if metadata.get("version", 1) < 2:
            state_dict[f"{prefix}weight"] = state_dict[f"{prefix}weight"].t()
        super()._load_from_state_dict(state_dict, prefix, metadata, *rest)


class Deriving(nn.Linear):
    """A hook makes a buffer, which is in no state dict, of the weight, or of nothing."""

    def __init__(self, of_weight: bool = True) -> None:
        super().__init__(3, 3)
        self.of_weight = of_weight
        self.register_buffer("sums", torch.zeros(1), persistent=False)
        self.register_load_state_dict_post_hook(self.derive)

    def derive(self, *_: Any) -> None:
        self.sums = self.weight.detach().sum(1) if self.of_weight else torch.full((3,), 7.0)


class Keeping(nn.Linear):
    """A hook makes an attribute."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.register_load_state_dict_post_hook(self.keep)

    def keep(self, *_: Any) -> None:
        self.sums = [self.weight.detach().sum(1)]


class Copying(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *_: Any) -> None:  # type: ignore[override]
        self.weight.data.copy_(state_dict[f"{prefix}weight"])


class Counting(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)

    def get_extra_state(self) -> Any:
        return 1

    def set_extra_state(self, state: Any) -> None: ...


class Failing(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *_: Any) -> None:  # type: ignore[override]
        raise KeyError("version")


KERNEL = torch.arange(9.0).view(3, 3)


def opened(folder: Path, **tensors: torch.Tensor) -> Checkpoint:
    torch.save({"bias": torch.ones(3), **tensors}, folder / "c.pt")
    return Checkpoint.open(folder / "c.pt")


@pytest.mark.parametrize("made", [Turning, Renaming, Growing])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_modules_own_code_loads(made: type[nn.Module], device: str, tmp_path: Path) -> None:
    module, loaded = made().to(device), made()
    before = dict(module.named_parameters())
    found = opened(tmp_path, kernel=KERNEL).for_model(module)
    loaded.load_state_dict({"bias": torch.ones(3), "kernel": KERNEL})
    assert set(found) == set(loaded.state_dict())
    assert all(torch.equal(found[name], tensor) for name, tensor in loaded.state_dict().items())
    assert all(before[name] is tensor for name, tensor in module.named_parameters())
    assert [t.shape for t in module.state_dict().values()] == [t.shape for t in loaded.state_dict().values()]


def test_a_module_is_told_its_own_version_first(tmp_path: Path) -> None:
    """Then none, as a file of safetensors says none."""
    norm = {f"norm.{name}": t for name, t in nn.BatchNorm1d(3).state_dict().items() if name != "num_batches_tracked"}
    module = Versioned().to("meta")
    own = module.norm.num_batches_tracked
    found = opened(tmp_path, weight=KERNEL, **norm).for_model(module)
    assert torch.equal(found["weight"], KERNEL)
    assert module.norm.num_batches_tracked is own
    found = opened(tmp_path, kernel=KERNEL, **norm).for_model(Versioned(strict=False))
    assert torch.equal(found["weight"], KERNEL.t())


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("prefix", ["", "0.", "module."])
def test_a_module_is_told_the_version_that_a_state_dict_says(version: int, prefix: str, tmp_path: Path) -> None:
    state: Any = Turned().state_dict(prefix=prefix)
    state[f"{prefix}weight"] = KERNEL
    state._metadata[prefix[:-1]]["version"] = version
    torch.save({"model": state}, tmp_path / "c.pt")
    found = Checkpoint.open(tmp_path / "c.pt").for_model(Turned())
    assert torch.equal(found["weight"], KERNEL if version == 2 else KERNEL.t())


def test_a_file_without_versions_whose_tensors_they_change_is_refused(tmp_path: Path) -> None:
    save_file({"weight": KERNEL, "bias": torch.ones(3)}, tmp_path / "c.safetensors")
    with pytest.raises(SourceError, match=r"does not say which version of Turned it is of, and tensors of each"):
        Checkpoint.open(tmp_path).for_model(Turned())


def test_a_buffer_that_is_made_of_no_weight_stays(tmp_path: Path) -> None:
    opened(tmp_path, weight=KERNEL).for_model(module := Deriving(of_weight=False))
    assert torch.equal(module.sums, torch.full((3,), 7.0))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Deriving, "how Deriving loads .*c.pt cannot be followed, as it makes sums of that, which no state dict has: "),
        (Keeping, "how Keeping loads .*c.pt cannot be followed, as it makes sums of that, which no state dict has: "),
        (Copying, "how Copying loads weight, bias cannot be followed, as it copies values: let `model` load"),
        (Counting, r"Counting has state of its own in checkpoints \(`set_extra_state`\), which is not read"),
        (Failing, r"Failing.load_state_dict cannot load .*c.pt: KeyError: 'version'"),
    ],
)
def test_code_that_cannot_be_followed(made: type[nn.Module], message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        opened(tmp_path, weight=KERNEL).for_model(made().to("meta"))


@pytest.mark.slow
def test_attention_of_diffusers_under_its_old_names(tmp_path: Path) -> None:
    diffusers: Any = import_module("diffusers")
    saved = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8)
    saved.save_pretrained(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {re.sub("to_q|to_k|to_v|to_out.0", lambda m: old[m[0]], n): t for n, t in saved.state_dict().items()}
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    weights = read_source(str(tmp_path)).weights
    assert all(torch.equal(weights[name], tensor) for name, tensor in saved.state_dict().items())
