"""Arguments of diffusers' models whose calls are not known, found by trying."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ir.errors import SourceError
from ir.sources import Reading, read_source
from ir.sources.libraries.diffusers_derived import derived_call
from ir.sources.meta import parameters_on_meta


class Denoiser(nn.Module):
    """A model of videos, or of patches one after the other, with texts, a mask and a table beside its weights."""

    def __init__(self, layers: int = 3, looking: bool = False, **config: Any) -> None:
        super().__init__()
        self.config = {"in_channels": 4, "text_dim": 6, "text_len": 12, "guidance_embeds": True, **config}
        self.embed = nn.Linear(4, 8)
        self.text = nn.Linear(6, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(layers))
        self.register_buffer("table", torch.ones(8))
        self.looking = looking

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor,
        guidance: torch.Tensor | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        block_states: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> torch.Tensor:
        assert num_frames is not None
        assert height is not None
        assert width is not None
        assert guidance is not None
        assert hidden_states.shape[1] == num_frames * height * width
        rows = int(encoder_attention_mask.sum()) if self.looking else 1
        text = (self.text(encoder_hidden_states) * encoder_attention_mask[..., None]).mean(1, keepdim=True)
        x = self.embed(hidden_states) * self.table + text + (timestep + guidance)[:, None, None]
        for layer in self.layers:
            x = layer(x) * rows
        return x


@pytest.mark.parametrize("looking", [False, True])
def test_shapes_with_which_forward_runs(looking: bool) -> None:
    with parameters_on_meta():
        model = Denoiser(looking=looking)
    before = dict(model.state_dict(keep_vars=True))
    call = derived_call(model)
    shapes = {name: tuple(x.shape) if isinstance(x, torch.Tensor) else x for name, x in call.inputs.items()}
    assert shapes == {
        "hidden_states": (2, 64, 4),
        "timestep": (2,),
        "encoder_hidden_states": (2, 77, 6),
        "encoder_attention_mask": (2, 77),
        "guidance": (2,),
        "num_frames": 2,
        "height": 4,
        "width": 8,
    }
    assert call.dynamic["hidden_states"] == {0: "batch", 1: "patches"}  # type: ignore[index]
    assert call.dynamic["encoder_hidden_states"] == {0: "batch", 1: "tokens"}  # type: ignore[index]
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is tensor for name, tensor in before.items())
    assert len(model.layers) == 3


class Video3D(nn.Module):
    config = {"in_channels": 3, "sample_size": 100}  # noqa: RUF012 - as diffusers has it

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 3, 1)

    def forward(self, sample: torch.Tensor, sample_posterior: bool = False) -> torch.Tensor:
        return self.conv(sample)


def test_videos_come_before_pictures() -> None:
    call = derived_call(Video3D())
    assert call.inputs["sample"].shape == (2, 3, 5, 64, 64)
    assert call.dynamic == {"sample": {0: "batch", 2: "frames", 3: "height", 4: "width"}}


class Unknown(Video3D):
    def forward(self, sample: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self.conv(sample)[indices]


def test_what_is_not_found_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="what Unknown takes as indices is not known"):
        derived_call(Unknown())
    with pytest.raises(SourceError, match=r"no shapes that were tried for hidden_states, .* fit Denoiser"):
        derived_call(Denoiser(text_dim=5))
    Unknown.from_config = classmethod(lambda cls, _: cls())  # type: ignore[attr-defined]
    Unknown.load_config = classmethod(lambda cls, _: None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "diffusers", SimpleNamespace(Unknown=Unknown, Schedule=dict))
    settings = {"_class_name": "Unknown", "_diffusers_version": "0.36"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file(Unknown().state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(
        SourceError, match="indices is not known; give a model file that makes the model and its inputs"
    ):
        read_source(str(tmp_path), Reading())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "_class_name": "Schedule"}))
    with pytest.raises(SourceError, match="is a diffusers checkpoint, whose inputs are not known"):
        read_source(str(tmp_path), Reading())
