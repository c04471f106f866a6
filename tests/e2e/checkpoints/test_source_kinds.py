"""Each kind of source through the command line: what comes out runs, and what cannot be read is one clear message."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from torch import nn
from torch.utils._pytree import tree_leaves

from passes import auto_partition
from runtime import Pipeline
from tests.support.checking import assert_same
from tests.support.running.commands import Shell

ROOT = Path(__file__).resolve().parents[3]
QUICK = "--stages 2 --time-limit 5 --size-limit 0"
GPT2: dict[str, Any] = dict(
    n_embd=32, n_layer=2, n_head=2, n_positions=64, vocab_size=64, bos_token_id=1, eos_token_id=2
)
BERT: dict[str, Any] = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    vocab_size=64,
    max_position_embeddings=64,
)
T5: dict[str, Any] = dict(d_model=32, d_ff=64, d_kv=16, num_heads=2, num_layers=1, vocab_size=64)
MIXTRAL: dict[str, Any] = dict(BERT, num_key_value_heads=2, num_local_experts=4, head_dim=16)
VIT: dict[str, Any] = dict(
    image_size=16, patch_size=8, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell.open(tmp_path, monkeypatch, capsys)


def save(folder: Path, head: str, config: t.PreTrainedConfig, **options: Any) -> nn.Module:
    """A checkpoint folder with random weights."""
    torch.manual_seed(0)
    model = getattr(t, head)(config).eval()
    model.save_pretrained(folder, **options)
    return model


def tokens(batch: int, seq: int) -> torch.Tensor:
    return torch.randint(3, 64, (batch, seq))


def text(batch: int, seq: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(batch, seq, dtype=torch.int64)
    mask[0, seq // 2 + 1 :] = 0
    return {"input_ids": tokens(batch, seq), "attention_mask": mask}


Inputs = Callable[[int, int], dict[str, torch.Tensor]]
FOLDERS: dict[str, tuple[str, t.PreTrainedConfig, Inputs]] = {
    "a decoder": ("GPT2LMHeadModel", t.GPT2Config(**GPT2), text),
    "an encoder": ("BertForSequenceClassification", t.BertConfig(**BERT), text),
    "both": (
        "T5ForConditionalGeneration",
        t.T5Config(**dict[str, Any](T5, decoder_start_token_id=0)),
        lambda batch, seq: text(batch, seq) | {"decoder_input_ids": tokens(batch, seq + 2)},
    ),
    "experts": ("MixtralForCausalLM", t.MixtralConfig(**MIXTRAL), text),
    "images": (
        "ViTForImageClassification",
        t.ViTConfig(**VIT),
        lambda batch, _: {"pixel_values": torch.randn(batch, 3, 16, 16)},
    ),
    "images and text": (
        "CLIPModel",
        t.CLIPConfig(text_config=dict(BERT, eos_token_id=2), vision_config=VIT, projection_dim=16),
        lambda batch, seq: text(batch, seq) | {"pixel_values": torch.randn(batch + 1, 3, 16, 16)},
    ),
}


QUICKEST = ("a decoder", "images")


@pytest.mark.parametrize("what", [pytest.param(k, marks=() if k in QUICKEST else pytest.mark.slow) for k in FOLDERS])
def test_a_checkpoint_folder(what: str, shell: Shell) -> None:
    head, config, inputs = FOLDERS[what]
    model = save(shell.folder / "ck", head, config)
    ended = shell.run(f"ck -o out {QUICK} --verify")
    assert ended.status == 0, ended.err
    assert "in 3 calls; its weights are as its own library loads them\n" in ended.err
    check_runs(shell.folder / "out", model, [inputs(batch, seq) for batch, seq in ((2, 9), (3, 5), (1, 1))])


def check_runs(artifact: Path, model: nn.Module, calls: list[dict[str, Any]]) -> None:
    """The stages return what the model returns."""
    with Pipeline.load(artifact, devices=["cpu"]) as pipe:
        for call in calls:
            with torch.no_grad():
                want = model(**call, **({"use_cache": False} if hasattr(model.config, "use_cache") else {}))
            found = pipe(**call)
            assert type(found) is type(want)
            for a, b in zip(tensors(want), tensors(found), strict=True):
                torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)


def tensors(output: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def test_texts_of_one_length_need_no_mask(shell: Shell) -> None:
    model = save(shell.folder / "ck", "GPT2LMHeadModel", t.GPT2Config(**GPT2))
    ended = shell.run(f"ck -o out {QUICK} --no-padding --example input_ids=1x24")
    assert ended.status == 0
    assert "numbers for batch 1, seq 24\n" in ended.out
    code = (shell.folder / "out/stage_0.py").read_text()
    assert "is_causal=True" in code
    assert "attention_mask" not in code
    check_runs(shell.folder / "out", model, [{"input_ids": tokens(batch, seq)} for batch, seq in ((2, 9), (1, 1))])


@pytest.mark.slow
def test_weights_stay_where_they_are(shell: Shell) -> None:
    model = save(shell.folder / "ck", "GPT2LMHeadModel", t.GPT2Config(**GPT2), max_shard_size="50KB")
    assert shell.run(f"ck -o out {QUICK} --weights link --verify").status == 0
    check_runs(shell.folder / "out", model, [text(2, 9)])


def test_a_folder_without_weights_can_be_planned(shell: Shell) -> None:
    t.GPT2Config(**GPT2, architectures=["GPT2LMHeadModel"]).save_pretrained(shell.folder / "ck")
    ended = shell.run(f"ck -o out {QUICK} --weights none --dtype bfloat16")
    assert ended.status == 0, ended.err
    assert "note: use_cache is off: each call computes the whole sequence" in ended.err
    made_up = "which were made up: name yours with --workload batch=…,seq=… or --example"
    assert re.search(rf"^numbers for batch 4, seq \d+, {made_up}$", ended.out, re.MULTILINE)
    assert re.search(r"bfloat16\[batch, seq, 32\]", ended.out)
    assert not list((shell.folder / "out").glob("*.safetensors"))
    assert "ck" in shell.refused(f"ck -o other {QUICK}")


@pytest.mark.slow
def test_dtype_casts_the_weights_as_transformers_does(shell: Shell) -> None:
    save(shell.folder / "ck", "BertModel", t.BertConfig(**BERT, architectures=["BertModel"]))
    assert shell.run(f"ck -o out {QUICK} --dtype bfloat16").status == 0
    model = t.BertModel.from_pretrained(shell.folder / "ck", dtype=torch.bfloat16).eval()
    call: dict[str, Any] = {**text(2, 9)}
    with Pipeline.load(shell.folder / "out", devices=["cpu"]) as pipe, torch.no_grad():
        torch.testing.assert_close(
            pipe(**call).last_hidden_state, model(**call).last_hidden_state, rtol=0.02, atol=0.02
        )


def test_a_dtype_for_a_model_file(shell: Shell) -> None:
    ended = shell.run(f"model.py -o out {QUICK} --dtype bfloat16 --verify")
    assert ended.status == 0, ended.err
    assert "bfloat16[2, 64]" in ended.out


# ---- folders that cannot be read

CONFIG = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **GPT2}
BAD_FOLDERS = {
    "no configuration": ({"notes.txt": "hello"}, "ck is a folder without config.json"),
    "damaged": ({"config.json": "{'model"}, "cannot read ck/config.json: "),
    "no object": ({"config.json": "[1]"}, "ck/config.json holds a list, not the fields of a configuration"),
    "no type": ({"config.json": json.dumps({"hidden_size": 3})}, "ck/config.json names no model_type"),
    "an unknown type": ({"config.json": json.dumps(CONFIG | {"model_type": "gpt77"})}, "model_type 'gpt77'"),
    "a type that is no text": ({"config.json": json.dumps(CONFIG | {"model_type": ["gpt2"]})}, "model_type ['gpt2']"),
    "an unknown class": (
        {"config.json": json.dumps(CONFIG | {"architectures": ["GPT77Model"]})},
        "names the architecture GPT77Model, which transformers",
    ),
    "a wrong field": ({"config.json": json.dumps(CONFIG | {"n_layer": "many"})}, "ck/config.json"),
    "sizes that do not fit": (
        {"config.json": json.dumps(CONFIG | {"n_head": 5})},
        "cannot be built from ck/config.json",
    ),
    "code of its own": (
        {"config.json": json.dumps({"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine"}})},
        "Python code of its own, which is not run unasked: read it, then say --trust-remote-code",
    ),
    "a diffusers folder": (
        {"config.json": json.dumps({"_class_name": "OwnTransformer2DModel", "_diffusers_version": "0.36"})},
        "`OwnTransformer2DModel.from_config(...)` and names the folder as `checkpoint`",
    ),
    "inputs that cannot be made up": (
        {"config.json": json.dumps({"model_type": "time_series_transformer", "prediction_length": 4})},
        "give a model file that builds it, with `example_inputs`",
    ),
}


@pytest.mark.parametrize("what", BAD_FOLDERS)
def test_a_folder_that_cannot_be_read(what: str, shell: Shell) -> None:
    files, message = BAD_FOLDERS[what]
    shell.write({f"ck/{name}": content for name, content in files.items()})
    assert message in shell.refused(f"ck -o out {QUICK} --weights none")


REMOTE_CONFIG = """\
from transformers import PreTrainedConfig

class MineConfig(PreTrainedConfig):
    model_type = "mine"

    def __init__(self, width=8, **options):
        super().__init__(**options)
        self.width, self.vocab_size = width, 16
"""
REMOTE_MODEL = """\
from torch import nn
from transformers import PreTrainedModel
from .settings import MineConfig

class Mine(PreTrainedModel):
    config_class = MineConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.Sequential(*(nn.Linear(config.width, config.width) for _ in range(4)))
        self.post_init()

    def forward(self, input_ids):
        return self.layers(self.embed(input_ids))
"""


def test_code_in_the_folder_runs_where_it_is_trusted(shell: Shell) -> None:
    code = {"AutoConfig": "settings.MineConfig", "AutoModel": "mine.Mine"}
    config = {"model_type": "mine", "architectures": ["Mine"], "auto_map": code, "width": 4}
    shell.write({"ck/config.json": json.dumps(config), "ck/settings.py": REMOTE_CONFIG, "ck/mine.py": REMOTE_MODEL})
    shell.refused(f"ck -o out {QUICK} --weights none")
    ended = shell.run(f"ck -o out {QUICK} --weights none --trust-remote-code")
    assert ended.status == 0, ended.err
    assert "float32[batch, seq, 4]" in ended.out


def test_code_in_the_folder_that_lacks_the_class_is_named(shell: Shell) -> None:
    code = {"AutoConfig": "settings.MineConfig", "AutoModel": "mine.Other"}
    config = {"model_type": "mine", "architectures": ["Other"], "auto_map": code, "width": 4}
    shell.write({"ck/config.json": json.dumps(config), "ck/settings.py": REMOTE_CONFIG, "ck/mine.py": REMOTE_MODEL})
    said = shell.refused(f"ck -o out {QUICK} --weights none --trust-remote-code")
    assert "the code in ck does not give Other: " in said


# ---- one call


def test_auto_partition_of_a_folder(tmp_path: Path) -> None:
    model = save(tmp_path / "ck", "GPT2LMHeadModel", t.GPT2Config(**GPT2))
    call: dict[str, Any] = {**text(2, 9)}
    with auto_partition(tmp_path / "ck", devices=2) as pipe, torch.no_grad():
        assert len(pipe.manifest.stages) == 2
        torch.testing.assert_close(pipe(**call).logits, model(**call).logits)
        folder = pipe.folder
        assert folder.exists()
    assert not folder.exists()


def test_auto_partition_of_a_module(tmp_path: Path) -> None:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4))).eval()
    x = torch.randn(2, 8)
    with auto_partition(model, (x,), devices=["cpu", "cpu"], out=tmp_path / "out") as pipe, torch.no_grad():
        assert_same(model(x), pipe(x))
    assert (tmp_path / "out" / "manifest.json").exists()


FILE = """\
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4))).eval()
example_inputs = (torch.randn(2, 8),)

def build():
    return model
"""


@pytest.mark.parametrize("source", ["model.py", "model.py:build", "model.pt2"])
def test_auto_partition_of_a_file(source: str, shell: Shell) -> None:
    shell.write({"model.py": FILE})
    scope: dict[str, Any] = {}
    exec(FILE, scope)
    torch.export.save(torch.export.export(scope["model"], scope["example_inputs"]), shell.folder / "model.pt2")
    x = torch.randn(2, 8)
    with auto_partition(source, devices=2) as pipe, torch.no_grad():
        assert len(pipe.manifest.stages) == 2
        assert_same(scope["model"](x), pipe(x))


def test_auto_partition_leaves_nothing_behind_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(Exception, match=r"there is no cuda:99 on this host"):
        auto_partition(nn.Linear(2, 2), (torch.ones(1, 2),), devices=["cuda:99"])
    with pytest.raises(Exception, match=r"says itself how it is called"):
        auto_partition("model.py", (torch.ones(1, 2),), devices=2)
    assert not list(tmp_path.iterdir())
