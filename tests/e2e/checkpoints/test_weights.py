"""Weights on their way from a checkpoint to the stages: copied, linked, cast, tied, in pieces."""

from __future__ import annotations

import resource
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict_loader import load

from codegen.artifact import weights as writing
from codegen.artifact.export import write_checkpoint
from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.files import read_stage_weights
from ir.errors import OutputError, SourceError
from passes.cli.exporting import main
from passes.compilation.api import compile_model
from runtime import ManifestError, Pipeline
from runtime.manifest.manifest import Manifest

WIDTH = 16


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(4))).eval()


X = torch.arange(2.0 * WIDTH).reshape(2, WIDTH) / WIDTH


def saved(folder: Path, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """A checkpoint folder, of `model()` unless told otherwise."""
    folder.mkdir(exist_ok=True)
    save_file(model().state_dict() if tensors is None else tensors, folder / "model.safetensors")
    return folder


def cut(tmp_path: Path, net: nn.Module, args: Any = (X,), **options: Any) -> Path:
    options.setdefault("stages", 2)
    compile_model(net, args, out=tmp_path / "out", **options)
    return tmp_path / "out"


@pytest.mark.parametrize("weights", ["copy", "link"])
def test_stages_compute_what_the_checkpoint_says(tmp_path: Path, weights: str) -> None:
    other = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(4))).eval()
    out = cut(tmp_path, other, checkpoint=saved(tmp_path / "checkpoint"), weights=weights)
    with Pipeline.load(out) as pipe:
        assert torch.equal(pipe(X), model()(X))


def test_linked_stages_hold_no_weights_and_point_into_the_checkpoint(tmp_path: Path) -> None:
    out = cut(tmp_path, model(), checkpoint=saved(tmp_path / "checkpoint"), weights="link")
    assert not load_file(out / "stage_0.safetensors")
    (link,) = Manifest.read(out).links
    assert (link.path, link.stages) == ("../checkpoint/model.safetensors", (0, 1))
    assert link.nbytes == (tmp_path / "checkpoint" / "model.safetensors").stat().st_size


def test_a_linked_artifact_moves_with_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    cut(tmp_path / "here", model(), checkpoint=saved(tmp_path / "here" / "checkpoint"), weights="link")
    shutil.move(tmp_path / "here", tmp_path / "there")
    with Pipeline.load(tmp_path / "there" / "out") as pipe:
        assert torch.equal(pipe(X), model()(X))


def test_links_lead_past_symbolic_links_of_folders(tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "near").symlink_to(tmp_path / "far" / "away")
    out = cut(tmp_path / "near", model(), checkpoint=saved(tmp_path / "checkpoint"), weights="link")
    with Pipeline.load(out) as pipe:
        assert torch.equal(pipe(X), model()(X))


def test_a_checkpoint_that_went_or_changed_is_named(tmp_path: Path) -> None:
    out = cut(tmp_path, model(), checkpoint=saved(tmp_path / "checkpoint"), weights="link")
    saved(tmp_path / "checkpoint", {k: v + 1 for k, v in model().state_dict().items()})
    with pytest.raises(
        ManifestError, match=r"model.safetensors, where the weights of stage_0, stage_1 lie, has changed"
    ):
        Pipeline.load(out)
    shutil.rmtree(tmp_path / "checkpoint")
    with pytest.raises(ManifestError, match=r"model.safetensors is missing, where .* lie; put the checkpoint back"):
        Pipeline.load(out)


def test_links_need_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"--weights link points into a checkpoint's files, and this model's weights"):
        cut(tmp_path, model(), weights="link")


@pytest.mark.parametrize("weights", ["copy", "link"])
def test_weights_have_memory_of_their_own_aligned_as_torchs(tmp_path: Path, weights: str) -> None:
    """CPU kernels round differently on memory that is not aligned to 64 bytes."""
    odd = {"a.weight": torch.ones(3, 3), "a.bias": torch.ones(3), "b.weight": torch.ones(3, 3), "b.bias": torch.ones(3)}
    net = nn.Sequential(OrderedDict(a=nn.Linear(3, 3), b=nn.Linear(3, 3))).eval()
    out = cut(tmp_path, net, (torch.ones(2, 3),), checkpoint=saved(tmp_path / "checkpoint", odd), weights=weights)
    for stage in range(2):
        scope: dict[str, Any] = {}
        exec((out / f"stage_{stage}.py").read_text(), scope)
        loaded = scope[f"Stage{stage}"].load(out / f"stage_{stage}.safetensors")
        assert all(p.data_ptr() % 64 == 0 and p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("weights", ["copy", "link"])
def test_weights_are_cast_to_the_dtype_of_the_module(tmp_path: Path, weights: str) -> None:
    wide = {name: tensor.double() for name, tensor in model().state_dict().items()}
    out = cut(tmp_path, model(), checkpoint=saved(tmp_path / "checkpoint", wide), weights=weights)
    with Pipeline.load(out) as pipe:
        assert torch.equal(pipe(X), model()(X))


@pytest.mark.parametrize("weights", ["copy", "link"])
def test_experts_stored_one_by_one_are_merged(tmp_path: Path, weights: str) -> None:
    config = hf.MixtralConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    config._experts_implementation = "batched_mm"
    torch.manual_seed(0)
    net = hf.MixtralForCausalLM(config).eval()
    net.save_pretrained(tmp_path / "checkpoint", max_shard_size="30KB")
    assert "block_sparse_moe.experts.0.w1" in (tmp_path / "checkpoint" / "model.safetensors.index.json").read_text()
    ids = torch.arange(8).reshape(1, 8)
    again = hf.MixtralForCausalLM(config).eval()
    again.config.use_cache = net.config.use_cache = False
    out = cut(tmp_path, again, (ids,), checkpoint=tmp_path / "checkpoint", weights=weights)
    with Pipeline.load(out) as pipe, torch.no_grad():
        assert torch.equal(pipe(ids)["logits"], net(ids)["logits"])


@pytest.mark.parametrize("weights", ["copy", "link"])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_the_weights_of_all_stages_are_a_checkpoint_again(tmp_path: Path, weights: str) -> None:
    expected = {name: tensor.double() for name, tensor in model().state_dict().items()}
    out = cut(tmp_path, model(), checkpoint=saved(tmp_path / "checkpoint", expected), weights=weights)
    assert main([str(out), "-o", str(tmp_path / "whole")]) == main([str(out), "--to", "dcp", "-o", str(tmp_path / "d")])
    found = Checkpoint.open(tmp_path / "whole")
    assert found.dtype("0.weight") == torch.float32  # that of the stages
    again = {name: torch.zeros(tensor.shape) for name, tensor in expected.items()}
    load(again, checkpoint_id=tmp_path / "d")
    for name, tensor in model().state_dict().items():
        assert torch.equal(found[name], tensor)
        assert torch.equal(again[name], tensor)
    assert set(found) == set(expected)
    shutil.rmtree(tmp_path / "checkpoint")
    if weights == "link":
        with pytest.raises(SourceError, match=r"stage_0.safetensors links to .*model.safetensors, which is missing"):
            read_stage_weights(out / "stage_0.safetensors")
    (out / "stage_0.safetensors").unlink()
    with pytest.raises(SourceError, match=r"has no stage_0.safetensors: it is missing"):
        write_checkpoint(out, "dcp", tmp_path / "e")
    (tmp_path / "whole" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is a folder that stagecut did not write"):  # before weights are looked for
        write_checkpoint(out, "dcp", tmp_path / "whole")
    with pytest.raises(SourceError, match=r"is not an artifact folder: it has no manifest\.json"):
        write_checkpoint(tmp_path / "whole", "dcp", tmp_path / "e")


def test_a_stage_that_lacks_a_weight_is_no_checkpoint(tmp_path: Path) -> None:
    """Run or checked, it is refused, too."""
    out = cut(tmp_path, model())
    file = out / "stage_0.safetensors"
    stored = load_file(file)
    del stored["0.weight"]
    save_file(stored, file)
    with pytest.raises(SourceError, match=r"stage_0.safetensors lacks 0.weight: the artifact is damaged; compile"):
        write_checkpoint(out, "safetensors", tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize("weights", ["copy", "link"])
def test_a_pickled_checkpoint_is_read_in_place(tmp_path: Path, weights: str) -> None:
    whole = torch.randn(2, WIDTH, WIDTH)
    tensors = model().state_dict() | {"0.weight": whole[1], "1.weight": whole[0].t()}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    out = cut(tmp_path, model(), checkpoint=tmp_path, weights=weights)
    net = model()
    net.load_state_dict(tensors)
    with Pipeline.load(out) as pipe:
        assert torch.equal(pipe(X), net(X))


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = cut(tmp_path, model())
    before = {f.name: f.read_bytes() for f in out.iterdir()}

    def full(file: Any, digest: Any, data: Any) -> None:
        file.write(bytes(data)[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "_put", full)
    with pytest.raises(
        OutputError, match=r"cannot write the header to stage_0.safetensors: No space left on device; the"
    ):
        cut(tmp_path, model())
    assert {f.name: f.read_bytes() for f in out.iterdir()} == before
    assert [f.name for f in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("form", ["safetensors", "dcp"])
def test_a_checkpoint_that_a_disk_has_no_room_for(tmp_path: Path, form: str) -> None:
    out, limits = cut(tmp_path, model()), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, limits[1]))
        with pytest.raises(OutputError, match=r"cannot write .*: .*File too large"):
            write_checkpoint(out, form, tmp_path / "whole")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [f.name for f in tmp_path.iterdir()] == ["out"]


def test_what_is_stored_is_said_where_the_model_has_no_place_for_it(tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoint", model().state_dict() | {"head.weight": torch.zeros(3)})
    (note,) = Checkpoint.open(folder).for_model(model()).notes
    assert note == f"{folder} also holds head.weight, which the model has no place for"
