"""LoRA adapters, merged as peft merges them; the folders that lead to a model."""

from __future__ import annotations

import copy
import json
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ir.checkpoint import tensors
from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.adapters.low_rank import Adapted
from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.fitting import check_linked
from ir.checkpoint.tensors import Held
from ir.errors import SourceError
from ir.sources import Reading, read_source
from ir.sources.folders import base_folder, model_folder


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.q = nn.Linear(4, 6)
        self.v = nn.Linear(4, 6, bias=False)
        self.conv = nn.Conv2d(2, 3, 2)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight


def saved(folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """A checkpoint of the model, and an adapter beside it, whose tensors are returned."""
    save_file({k: v for k, v in Model().state_dict().items() if k != "head.weight"}, folder / "model.safetensors")
    shapes = {
        "embed.lora_embedding_A": (2, 5),
        "embed.lora_embedding_B": (4, 2),
        "q.lora_A.weight": (2, 4),
        "q.lora_B.weight": (6, 2),
        "q.base_layer.bias": (6,),
        "v.lora_A.weight": (3, 4),
        "v.lora_B.weight": (6, 3),
        "conv.lora_A.weight": (2, 2, 2, 2),
        "conv.lora_B.weight": (3, 2, 1, 1),
    }
    adapter = {name: torch.randn(shape) for name, shape in shapes.items()}
    save_file({f"base_model.model.{name}": t for name, t in adapter.items()}, folder / "adapter_model.safetensors")
    rules = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "rank_pattern": {"v": 3}, "alpha_pattern": {"^x|q": 5}}
    (folder / "adapter_config.json").write_text(json.dumps({**rules, **settings}))
    return adapter


@pytest.mark.parametrize("rooted", [False, True])
def test_the_product_is_added_with_the_scale_of_its_module(
    rooted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = saved(tmp_path, use_rslora=rooted)
    opened = Checkpoint.open(tmp_path)
    found = opened.adapted_by(Adapter.open(tmp_path)).for_model(Model())
    by = sqrt if rooted else float
    product = a["conv.lora_B.weight"].flatten(1) @ a["conv.lora_A.weight"].flatten(1)
    expected = {
        "embed.weight": (a["embed.lora_embedding_B"] @ a["embed.lora_embedding_A"]).t() * (8 / by(2)),
        "q.weight": a["q.lora_B.weight"] @ a["q.lora_A.weight"] * (5 / by(2)),
        "v.weight": a["v.lora_B.weight"] @ a["v.lora_A.weight"] * (8 / by(3)),
        "conv.weight": product.view(3, 2, 2, 2) * (8 / by(2)),
    }
    monkeypatch.setattr(tensors, "BLOCK_ELEMENTS", 7)  # blocks begin and end within rows
    for name, delta in expected.items():
        assert torch.equal(found[name], opened[name] + delta)
        assert torch.allclose(torch.cat([*found.tensors[name].blocks(torch.float32)]), found[name].flatten())
    assert torch.equal(found["q.bias"], a["q.base_layer.bias"])
    assert found.notes == (
        f"the LORA adapter in {tmp_path} is merged into 5 weights",
        f"the LORA adapter in {tmp_path} was trained on embed.weight, which is head.weight, too, and not changed "
        "there: they are two weights from here on",
    )
    check_linked(found)  # stages hold the merged ones and read the others from the checkpoint


def test_a_tied_weight_is_adapted_where_it_was_trained(tmp_path: Path) -> None:
    """As peft computes with the adapter; where it merges, it changes both, and warns of that."""
    saved(tmp_path)
    held = Checkpoint.open(tmp_path)
    merged = Adapter.open(tmp_path).merged(Model(), held.tensors)
    assert isinstance(merged["embed.weight"], Adapted)
    assert merged["head.weight"] is held.tensors["embed.weight"]


def test_a_head_is_adapted_of_which_the_checkpoint_has_the_embeddings(tmp_path: Path) -> None:
    saved(tmp_path)
    factors = {"lora_A.weight": torch.randn(2, 4), "lora_B.weight": torch.randn(5, 2)}
    tensors = {f"base_model.model.head.{name}": tensor for name, tensor in factors.items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    held = Checkpoint.open(tmp_path)
    merged = Adapter.open(tmp_path).merged(Model(), held.tensors)
    assert merged["embed.weight"] is held.tensors["embed.weight"]
    product = factors["lora_B.weight"] @ factors["lora_A.weight"] * 4.0
    torch.testing.assert_close(merged["head.weight"].read(torch.float32), held["embed.weight"] + product)


def test_single_tokens_are_trained_under_all_names(tmp_path: Path) -> None:
    saved(tmp_path, trainable_token_indices=[3])
    rows = {"base_model.model.embed.token_adapter.trainable_tokens_delta": torch.ones(1, 4)}
    save_file(rows, tmp_path / "adapter_model.safetensors")
    adapter, held = Adapter.open(tmp_path), Checkpoint.open(tmp_path).tensors
    both = {**held, "head.weight": held["embed.weight"]}
    merged = adapter.merged(Model(), both)
    assert merged["head.weight"] is merged["embed.weight"]
    assert adapter.shared(Model(), both) == ""


def test_what_is_replaced_is_not_read(tmp_path: Path) -> None:
    """With `bias="all"`, peft saves the biases of modules that it also saves whole."""
    saved(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.head.original_module.bias": torch.ones(5)}, file)
    assert "head.bias" not in Adapter.open(tmp_path).merged(Model(), Checkpoint.open(tmp_path).tensors)


def test_a_bias_that_the_model_lacks_is_named(tmp_path: Path) -> None:
    saved(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.v.lora_B.bias": torch.ones(6)}, file)
    with pytest.raises(SourceError, match=r"adapts v\.bias, which the model has no weight for: no weights hold it"):
        Adapter.open(tmp_path).merged(Model(), Checkpoint.open(tmp_path).tensors)


def test_a_weight_that_is_adapted_under_two_names_is_adapted_once(tmp_path: Path) -> None:
    """With `ensure_weight_tying`, peft saves the same product for each name of a tied weight."""
    a = saved(tmp_path, ensure_weight_tying=True)
    both = {
        "head.lora_A.weight": a["embed.lora_embedding_B"].t().contiguous(),
        "head.lora_B.weight": a["embed.lora_embedding_A"].t().contiguous(),
    }
    file = tmp_path / "adapter_model.safetensors"
    save_file({f"base_model.model.{name}": tensor for name, tensor in {**a, **both}.items()}, file)
    held = Checkpoint.open(tmp_path)
    adapter = Adapter.open(tmp_path)
    merged = adapter.merged(Model(), held.tensors)["embed.weight"]
    product = (a["embed.lora_embedding_B"] @ a["embed.lora_embedding_A"]).t() * 4.0
    torch.testing.assert_close(merged.read(torch.float32), held["embed.weight"] + product)
    assert adapter.shared(Model(), held.tensors) == ""


@pytest.mark.parametrize("from_adapter", [False, True])
def test_a_head_of_other_values_is_not_adapted_with_the_embeddings(tmp_path: Path, from_adapter: bool) -> None:
    """peft adapts what transformers loads: two weights, of which the adapter may replace one."""
    saved(tmp_path)
    head, held = torch.randn(5, 4), Checkpoint.open(tmp_path)
    whole = {"base_model.model.head.weight": head}
    if from_adapter:
        file = tmp_path / "adapter_model.safetensors"
        save_file({**load_file(file), **whole}, file)
    tensors = {**held.tensors, **({} if from_adapter else {"head.weight": Held(head)})}
    adapter = Adapter.open(tmp_path)
    merged = adapter.merged(Model(), tensors)
    assert isinstance(merged["embed.weight"], Adapted)
    assert torch.equal(merged["head.weight"].read(torch.float32), head)
    assert adapter.shared(Model(), tensors) == ""


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(SourceError, match=r"adapter_model.safetensors is a file; give the folder that an adapter was"):
        Adapter.open(tmp_path / "adapter_model.safetensors")


def test_an_adapter_in_a_dict_is_read_and_one_without_tensors_refused(tmp_path: Path) -> None:
    """It changed nothing before, without a word but the number of weights."""
    saved(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    torch.save({"state_dict": load_file(file), "epoch": 3}, tmp_path / "adapter_model.bin")
    file.unlink()
    assert len(Adapter.open(tmp_path).tensors) == 9
    torch.save({"epoch": 3}, tmp_path / "adapter_model.bin")
    with pytest.raises(SourceError, match=r"adapter_model.bin holds no tensors; fetch it again, or save the adapter"):
        Adapter.open(tmp_path)
    two = {"model": {"a": torch.ones(1)}, "ema": {"a": torch.ones(1)}}
    torch.save(two, tmp_path / "adapter_model.bin")
    with pytest.raises(SourceError, match=r"adapter_model.bin has 2 dicts of tensors in place of an adapter's one; s"):
        Adapter.open(tmp_path)


def test_settings_that_are_nested_too_deep_are_not_read(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[" * 100_000)
    with pytest.raises(SourceError, match=r"cannot read .*: its lists are nested too deep; an adapter's folder has it"):
        Adapter.open(tmp_path)


def test_a_folder_of_adapters_names_one(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    saved(tmp_path / "one")
    with pytest.raises(SourceError, match=r"has adapters in folders of their own; name one, such as .*one$"):
        Adapter.open(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"init_lora_weights": "pissa_niter_4"},
            r"has a LoRA \(pissa_niter_4: its first values are taken out of the base's weights\) adapter",
        ),
        ({"use_qalora": True}, "has a QALoRA adapter, which is not merged: merge it into the weights first: peft"),
        ({"peft_type": "PSOFT"}, "has a PSOFT adapter"),
        (
            {"peft_type": "PROMPT_TUNING"},
            "has a PROMPT_TUNING adapter, which is not merged: no weights hold it; give a mod",
        ),
    ],
)
def test_kinds_that_are_not_merged_are_named(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    saved(tmp_path, **settings)
    with pytest.raises(SourceError, match=message):
        Adapter.open(tmp_path)


@pytest.mark.parametrize(
    "settings", [{"lora_alpha": None}, {"r": 0}, {"rank_pattern": {"[": 3}}, {"alpha_pattern": [1]}]
)
def test_settings_that_give_no_scale_are_named(settings: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path, **{"rank_pattern": None, "alpha_pattern": None, **settings})
    with pytest.raises(
        SourceError, match=r"adapter_config.json gives \w+ no scale \(r, lora_alpha and their patterns\)"
    ):
        Adapter.open(tmp_path).merged(Model(), Checkpoint.open(tmp_path).tensors)


def test_matrices_without_a_product_are_named(tmp_path: Path) -> None:
    tensors = saved(tmp_path) | {"q.lora_A.weight": torch.ones(3, 4)}
    named = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, tmp_path / "adapter_model.safetensors")
    with pytest.raises(
        SourceError, match=r"adapts q.weight by matrices of \[6, 2\] and \[3, 4\], which have no product"
    ):
        Adapter.open(tmp_path).merged(Model(), Checkpoint.open(tmp_path).tensors)


def test_convolutions_in_groups_are_not_merged(tmp_path: Path) -> None:
    """Each of their outputs has a part of the inputs, and the product all of them."""
    saved(tmp_path)
    model = Model()
    model.conv = nn.Conv2d(2, 4, 2, groups=2)
    with pytest.raises(
        SourceError, match=r"adapts conv.weight, a convolution in groups, which is not merged: no weights"
    ):
        Adapter.open(tmp_path).merged(model, {**Checkpoint.open(tmp_path).tensors})


def test_an_adapter_of_another_model(tmp_path: Path) -> None:
    saved(tmp_path)
    adapter, held = Adapter.open(tmp_path), Checkpoint.open(tmp_path)
    with pytest.raises(SourceError, match=r"adapts conv, embed, q, which the model lacks"):
        adapter.merged(nn.Linear(4, 6), held.tensors)
    wide = Model()
    wide.v = nn.Linear(4, 7, bias=False)
    with pytest.raises(SourceError, match=r"adapts v.weight of \[6, 4\]; it is \[7, 4\]"):
        adapter.merged(wide, {**held.tensors, "v.weight": tensors.Held(wide.v.weight)})
    with pytest.raises(SourceError, match=r"adapts conv.weight, which the model has no weight for"):
        adapter.merged(Model(), {})
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"has adapter_config.json and no adapter_model.safetensors or"):
        Adapter.open(tmp_path)


def test_an_adapter_of_weights_in_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import torch\nmodel, example_inputs = torch.nn.ReLU(), (torch.ones(2),)\n")
    with pytest.raises(SourceError, match=r"has its weights in memory; --adapter is for those of a"):
        read_source(str(tmp_path / "model.py"), Reading(adapters=(tmp_path,)))
    with pytest.raises(SourceError, match=r"cannot read .*; an adapter's folder has it, as peft saves it"):
        Adapter.open(tmp_path)


def test_the_base_of_an_adapter_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, beside = tmp_path / "adapter", tmp_path / "base"
    for folder in (adapter, beside):
        folder.mkdir()
    (beside / "config.json").write_text("{}")
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "../base"}')
    assert base_folder(adapter).samefile(beside)
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "us/base"}')
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(SourceError, match=r"has an adapter of us/base, which is not here; .* MODEL --adapter "):
        base_folder(adapter)
    old, new = (tmp_path / f"hub/models--us--base/snapshots/{name}" for name in ("b0", "a1"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (tmp_path / "hub/models--us--base/refs").mkdir()
    (tmp_path / "hub/models--us--base/refs/main").write_text("a1")
    assert base_folder(adapter) == new
    assert model_folder(tmp_path / "hub/models--us--base") == new
    (adapter / "config.json").write_text("{}")
    assert base_folder(adapter) == adapter


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["checkpoint-90/config.json", "checkpoint-500/config.json"], "training run; .* newest is .*checkpoint-500"),
        (
            ["checkpoint-90/adapter_config.json", "checkpoint-500/adapter_config.json"],
            "training run; .* newest is .*checkpoint-500$",
        ),
        (["models--a--b/snapshots/0/config.json"], "is the cache of the Hugging Face hub; .* such as .*models--a--b$"),
        (["first/adapter_config.json"], "has models or adapters in folders of their own; name one, such as .*first$"),
        (["a-Q4_K_M.gguf", "a-Q8_0.gguf"], "has several GGUF files; name one, such as "),
        (["open_clip_config.json", "open_clip_model.safetensors"], "is a checkpoint of open_clip without a model_cfg"),
        (
            ["manifest.json", "stage_0.py", "stage_0.safetensors"],
            "is an artifact, so it is cut already: stagecut recut cuts it otherwise; or give",
        ),
        (["model.safetensors"], "has weights without config.json; give a model file .* --checkpoint "),
        (["notes.txt"], "is a folder without config.json"),
    ],
)
def test_a_folder_that_is_no_model_is_named(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(SourceError, match=message):
        model_folder(tmp_path)


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"target_modules": ["q", "v"]}, ""),
        ({"target_modules": ["q", "v", "conv", "head"]}, "head"),
        ({"target_modules": ["q", "head"], "exclude_modules": ["head"]}, ""),
        ({"target_modules": ["q", "head"], "modules_to_save": ["head"]}, "head"),
        ({"target_modules": "h.*|q"}, "head"),
        ({"target_modules": [], "target_parameters": ["head.weight", "q.weight"]}, "head.weight"),
        ({"target_modules": ["q"], "layers_to_transform": [1]}, ""),
    ],
)
def test_layers_that_an_adapter_lacks_are_noted(settings: dict[str, Any], left: str, tmp_path: Path) -> None:
    saved(tmp_path, **settings)
    found = Checkpoint.open(tmp_path).adapted_by(Adapter.open(tmp_path)).for_model(Model())
    noted = (
        f"the LORA adapter in {tmp_path} has no tensors for {left}, which its settings name: they are as in the base"
    )
    assert [note for note in found.notes if "has no tensors for" in note] == ([noted] if left else [])


def test_layers_that_settings_number_are_those_that_an_adapter_has(tmp_path: Path) -> None:
    model = nn.ModuleDict({"h": nn.ModuleList(nn.ModuleDict({"q": nn.Linear(4, 4)}) for _ in range(3))})
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    parts = {f"base_model.model.h.1.q.lora_{part}.weight": torch.ones(shape) for part, shape in _ONES.items()}
    save_file(parts, tmp_path / "adapter_model.safetensors")
    for numbers, pattern, left in (
        ([1], None, ""),
        (1, "h", ""),
        ([1, 2], ["h"], "h.2.q"),
        (None, None, "h.0.q, h.2.q"),
    ):
        rules = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q"]}
        numbered = {"layers_to_transform": numbers, "layers_pattern": pattern}
        (tmp_path / "adapter_config.json").write_text(json.dumps(rules | numbered))
        for kept in (False, True):
            adapter = Adapter.open(tmp_path, kept)
            notes = Checkpoint.open(tmp_path).adapted_by(adapter).for_model(copy.deepcopy(model)).notes
            assert [note.split("tensors for ")[1] for note in notes if "no tensors for" in note] == (
                [f"{left}, which its settings name: they are as in the base"] if left else []
            )


_ONES = {"A": (2, 4), "B": (4, 2)}
