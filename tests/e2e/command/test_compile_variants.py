"""Variants by value in one artifact: compiled by the command and from Python, each bit for bit the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from safetensors import safe_open
from torch import nn

from passes.compilation.api import compile_model
from runtime import InputError, Pipeline
from runtime.manifest.manifest import Manifest
from tests.support.running.commands import Shell


class Patches(nn.Module):
    """Patches of several images, whose numbers `grid` says."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project, self.head = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        images = self.project(x).split(grid.prod(1).tolist())
        return self.head(torch.stack([image.mean(0) for image in images]))


def example_inputs(grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(int(grid.prod(1).sum()), 4), grid


GRIDS = ([[1, 2], [2, 2]], [[3, 2], [1, 1], [1, 1]])
MODEL = """
import torch
from {here} import Patches, example_inputs as inputs
model = Patches().eval()
def example_inputs(grid=torch.tensor([[1, 2], [2, 2]])):
    return inputs(grid)
"""


def check(pipe: Pipeline) -> None:
    model = Patches().eval()
    for grid in GRIDS:
        for _ in range(2):
            call = example_inputs(torch.tensor(grid))
            assert torch.equal(pipe(*call), model(*call))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell.open(tmp_path, monkeypatch, capsys)


def test_values_given_to_the_command_become_programs(shell: Shell) -> None:
    shell.write({"patches.py": MODEL.format(here=__name__)})
    ended = shell.run("patches.py -o out --stages 2 --fix grid --fix grid=3x2,1x1,1x1 --draw stages --verify")
    assert "bit for bit, in 3 calls; grid_3x2_1x1_1x1: the stages return what the uncut model returns" in ended.err
    out = shell.folder / "out"
    assert {"stage_0.py", "stage_0_grid_3x2_1x1_1x1.py"} < {path.name for path in out.iterdir()}
    held = []
    for i in range(2):
        with safe_open(out / f"stage_{i}.safetensors", "pt") as weights:
            held += weights.keys()
    assert sorted(held) == sorted(Patches().state_dict())
    with Pipeline.load(out, devices=["cpu"]) as pipe:
        check(pipe)
        with pytest.raises(InputError, match=r"none of the 2 programs takes this call:\n  grid_1x2_2x2: .*\n  grid_"):
            pipe(*example_inputs(torch.tensor([[5, 1]])))


IMAGE, START, END = 3, 6, 7


@pytest.mark.slow
def test_counts_of_images_become_programs(tmp_path: Path) -> None:
    """Llava with one, two or three images, as variants that Python is given."""
    eye = {"model_type": "clip_vision_model", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    eye |= {"num_attention_heads": 2, "image_size": 8, "patch_size": 4, "projection_dim": 8}
    words = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 32}
    ids = {"num_attention_heads": 2, "use_cache": False}
    config = t.LlavaConfig(vision_config=eye, text_config=words | ids, image_token_id=IMAGE, image_seq_length=4)
    model = t.LlavaForConditionalGeneration(config).eval()
    one, two, three = (text_with_pictures(count) for count in (1, 2, 3))
    options: dict[str, Any] = {"stages": 2, "progress": False, "draw": "stages", "time_limit": 1, "size_limit": 0}
    plan = compile_model(
        model, kwargs=one, out=tmp_path / "out", variants={"two": two, "three": ((), three)}, **options
    )
    assert plan.programs == ("main", "two", "three")
    assert [p.name for p in Manifest.read(tmp_path / "out").programs] == ["main", "two", "three"]
    with Pipeline.load(tmp_path / "out", devices=["cpu"]) as pipe, torch.no_grad():
        for call in (three, one, two, text_with_pictures(3)):
            assert torch.equal(pipe(**call).logits, model(**call).logits)
        with pytest.raises(InputError, match="none of the 3 programs takes this call"):
            pipe(**text_with_pictures(4))


def text_with_pictures(count: int) -> dict[str, torch.Tensor]:
    """Text before pictures of four tokens each."""
    ids = torch.cat([torch.randint(8, 32, (5,)), *[torch.tensor([*[IMAGE] * 4, END])] * count])[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(count, 3, 8, 8)}


GRIDS_OF_IMAGES = ([[1, 4, 4]], [[1, 4, 8], [1, 2, 2]])


@pytest.mark.slow
def test_grids_of_images_get_inputs_that_go_with_them(shell: Shell) -> None:
    """Qwen2-VL, called as its processor and `generate` do, with texts of any length."""
    vision = {"depth": 1, "num_heads": 2, "patch_size": 4, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
    words = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words |= {"num_key_value_heads": 2, "vocab_size": 32, "use_cache": False, "max_position_embeddings": 64}
    words["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    ids = dict[str, Any](image_token_id=IMAGE, vision_start_token_id=START, vision_end_token_id=END, video_token_id=5)
    model = t.Qwen2VLForConditionalGeneration(t.Qwen2VLConfig(text_config=words, vision_config=vision, **ids)).eval()
    model.save_pretrained(shell.folder / "vl")
    fixed = "--fix image_grid_thw=1x4x4 --fix image_grid_thw=1x4x8,1x2x2"
    ended = shell.run(f"vl -o out --stages 2 {fixed} --draw stages --time-limit 1 --size-limit 0")
    assert ended.status == 0, ended.err
    with Pipeline.load(shell.folder / "out", devices=["cpu"]) as pipe:
        for grid in map(torch.tensor, GRIDS_OF_IMAGES):
            call, kinds = text_with_images(grid)
            with torch.no_grad():
                wanted = model(**call, mm_token_type_ids=kinds, use_cache=False).logits
            places, _ = model.model.get_rope_index(call["input_ids"], image_grid_thw=grid, mm_token_type_ids=kinds)
            assert torch.equal(pipe(**call, position_ids=places).logits, wanted)


def text_with_images(grid: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Text around images, and the kind of each token."""
    images = [torch.tensor([START, *[IMAGE] * (int(n) // 4), END]) for n in grid.prod(1)]
    ids = torch.cat([torch.randint(8, 32, (5,)), *images, torch.randint(8, 32, (9,))])[None]
    pixels = torch.randn(int(grid.prod(1).sum()), 3 * 2 * 4 * 4)
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels, "image_grid_thw": grid}
    return call, (ids == IMAGE).int()
