"""Bad checkpoints get one message that names file and tensor, and status 2, and leave everything as it was."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

from tests.support.running.commands import MODEL, Shell

ROOT = Path(__file__).resolve().parents[3]
FILE, INDEX = "weights/model.safetensors", "weights/model.safetensors.index.json"
TWO_TO_A_BYTE = torch.ones(64, 32, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
GOOD = {f"{i}.{n}": torch.ones(s) for i in range(4) for n, s in [("weight", (64, 64)), ("bias", (64,))]}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """With a good checkpoint, and an artifact of an earlier run in `out`, which no refused command may touch."""
    shell = Shell.open(tmp_path, monkeypatch, capsys)
    shell.write_artifact("out")
    shell.write({"model.py": MODEL + NAMED, "weights/config.json": "{}"})
    save_file(GOOD, FILE)
    return shell


WAYS = ("copy", "link")
NAMED = "checkpoint = 'weights'\n"


def refused(shell: Shell, *ways: str) -> str:
    """The one line that the command says, whatever is to become of the weights, or for these `ways` to have them."""
    said = [shell.refused(f"model.py -o out --stages 2 --weights {w}").split("error: ") for w in ways or WAYS]
    assert all(len(parts) == 2 for parts in said)
    assert len({parts[-1] for parts in said}) == 1
    return said[0][-1]


def test_the_good_one_is_good(shell: Shell) -> None:
    for weights in ("copy", "link"):
        assert shell.run(f"model.py -o out --stages 2 --weights {weights} --verify").status == 0


def header(change: Callable[[dict[str, Any]], Any]) -> None:
    """Write the file again with another header."""
    data = Path(FILE).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:end])
    change(table)
    text = json.dumps(table).encode()
    Path(FILE).write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def truncate(size: int) -> None:
    os.truncate(FILE, os.path.getsize(FILE) + size if size < 0 else size)


def bad_header() -> None:
    data = bytearray(Path(FILE).read_bytes())
    data[20] = 0
    Path(FILE).write_bytes(data)


def shards(place: dict[str, str]) -> None:
    index(json.dumps({"weight_map": place}))


def index(text: str) -> None:
    Path(FILE).rename("weights/a.safetensors")
    Path(INDEX).write_text(text)


def pickled(value: Any) -> None:
    Path(FILE).unlink()
    torch.save(value, "weights/pytorch_model.bin")


def truncated_pickle() -> None:
    pickled(GOOD)
    os.truncate("weights/pytorch_model.bin", 5000)


DAMAGED = "it is damaged, or was not fetched whole; fetch it again"
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "truncated": (lambda: truncate(-5), f"cannot read {FILE}: {DAMAGED} (3.weight ends at byte "),
    "empty": (lambda: truncate(0), f"cannot read {FILE}: {DAMAGED} (a header of 0 bytes in a file of 0)"),
    "a header cut off": (lambda: truncate(300), f"cannot read {FILE}: {DAMAGED} (a header of "),
    "no table": (bad_header, f"cannot read {FILE}: {DAMAGED} (its header is not a table of tensors)"),
    "a header nested too deep": (
        lambda: Path(FILE).write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000),
        f"cannot read {FILE}: {DAMAGED} (its header is not a table of tensors)",
    ),
    "a size without end": (
        lambda: header(lambda table: table["0.weight"].update(shape=[float("inf")])),
        f"cannot read {FILE}: {DAMAGED} (its header is not a table of tensors)",
    ),
    "an index that names itself": (
        lambda: shards(dict.fromkeys(GOOD, "model.safetensors.index.json")),
        "model.safetensors.index.json places 0.weight in model.safetensors.index.json, which holds no weights; fetch",
    ),
    "too few bytes": (
        lambda: header(lambda t: t["2.bias"].update(shape=[65])),
        f"cannot read {FILE}: {DAMAGED} (2.bias: F32 [65] in bytes ",
    ),
    "bytes of two tensors": (
        lambda: header(lambda t: t["2.bias"].update(data_offsets=t["3.bias"]["data_offsets"])),
        f"cannot read {FILE}: {DAMAGED} (2.bias and 3.bias have bytes in common)",
    ),
    "a link to nothing": (
        lambda: (os.remove(FILE), os.symlink("gone", FILE)),
        f"{FILE} is a link to gone, which is not here; fetch that",
    ),
    "a shard that is no name": (
        lambda: index('{"weight_map": {"1.weight": 3}}'),
        "model.safetensors.index.json places 1.weight in weights/3, which is missing; fetch it",
    ),
    "an unknown dtype": (
        lambda: header(lambda t: t["2.bias"].update(dtype="F4")),
        f"2.bias in {FILE} is of dtype F4, which torch cannot hold; convert the checkpoint",
    ),
    "a quantized weight": (
        lambda: save_file(GOOD | {"1.weight": torch.ones(64, 64).to(torch.float8_e4m3fn)}, FILE),
        "1.weight is float8_e4m3fn in weights and float32 in the model: quantized weights cannot be read; convert",
    ),
    "a quantized weight without its settings": (
        lambda: save_file(
            GOOD | {"1.weight": torch.ones(64, 64).to(torch.float8_e4m3fn), "1.weight_scale": torch.ones(1)}, FILE
        ),
        "1.weight is float8_e4m3fn in weights: 1.weight_scale scales it, and no settings are beside it: fetch the conf",
    ),
    "packed weights without their settings": (
        lambda: save_file({k.replace("1.weight", "1.qweight"): t for k, t in GOOD.items()}, FILE),
        "the checkpoint weights holds no 1.weight; 1.qweight is of a weight quantized by GPTQ or AWQ, and no settings",
    ),
    "weights that are two to a byte": (
        lambda: (os.remove(FILE), torch.save(GOOD | {"1.weight": TWO_TO_A_BYTE}, "weights/pytorch_model.bin")),
        "1.weight is float4_e2m1fn_x2 in weights and float32 in the model: quantized weights cannot be read",
    ),
    "another shape": (
        lambda: save_file(GOOD | {"1.weight": torch.ones(64, 32)}, FILE),
        "1.weight is [64, 32] in weights and float32[64, 64] in the model",
    ),
    "a tensor less": (
        lambda: save_file({k: v for k, v in GOOD.items() if not k.startswith("3.")}, FILE),
        "the checkpoint weights holds no 3.weight, 3.bias",
    ),
    "a shard less": (
        lambda: shards(dict.fromkeys(GOOD, "a.safetensors") | {"2.bias": "b.safetensors"}),
        "model.safetensors.index.json places 2.bias in weights/b.safetensors, which is missing; fetch it",
    ),
    "a tensor less in a shard": (
        lambda: shards(dict.fromkeys([*GOOD, "4.bias"], "a.safetensors")),
        "model.safetensors.index.json places 4.bias in weights/a.safetensors, which does not hold it",
    ),
    "an index of nothing": (lambda: index("[]"), f"cannot read {INDEX}: {DAMAGED} (TypeError: "),
    "an index cut off": (lambda: index("{"), f"cannot read {INDEX}: {DAMAGED} (JSONDecodeError: "),
    "pickled code": (
        lambda: pickled(Path("x")),
        "weights/pytorch_model.bin holds a pathlib.PosixPath, which is code and is not run; save its state dict",
    ),
    "a pickle cut off": (truncated_pickle, f"cannot read weights/pytorch_model.bin: {DAMAGED}; or save it again, as"),
    "no table in a pickle": (
        lambda: pickled([torch.ones(2)]),
        "weights/pytorch_model.bin holds a list, not a table of tensors by name",
    ),
    "no weights": (lambda: Path(FILE).unlink(), "the folder weights is not a checkpoint: it has no model.safetensors,"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_checkpoint(what: str, shell: Shell) -> None:
    damage, message = BAD[what]
    damage()
    assert message in refused(shell)


def test_a_file_that_cannot_be_read(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("weights").rename("../elsewhere")
    Path("weights").mkdir()
    Path(FILE).symlink_to("/proc/self/mem")  # whose first bytes nobody can read
    monkeypatch.setattr(Shell, "contents", lambda self: os.listdir("out"))
    assert f"cannot read {FILE}: Input/output error" in refused(shell)


TRANSFORMER = """\
import torch
import transformers as hf

config = hf.Qwen2Config(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, use_cache=False)
model = hf.Qwen2ForCausalLM(config).eval()
example_inputs = {"input_ids": torch.arange(8).reshape(1, 8)}
checkpoint = "weights"
"""


@pytest.fixture
def transformer(shell: Shell) -> dict[str, torch.Tensor]:
    """The tensors that a transformers model saves; a model file beside them."""
    shell.write({"model.py": TRANSFORMER})
    scope: dict[str, Any] = {}
    exec(TRANSFORMER, scope)
    scope["model"].save_pretrained("weights")
    return {n: t.clone() for n, t in scope["model"].state_dict().items() if n != "lm_head.weight"}


def test_a_transformers_model_of_another_size(shell: Shell, transformer: dict[str, torch.Tensor]) -> None:
    save_file(transformer | {"model.norm.weight": torch.ones(31)}, FILE)
    assert "model.norm.weight is [31] in weights and [32] in the model; is config.json its own?" in refused(
        shell, "link"
    )


def test_names_that_a_transformers_checkpoint_lacks(shell: Shell, transformer: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor for name, tensor in transformer.items() if ".1.mlp" not in name}, FILE)
    some = "model.layers.1.mlp.gate_proj.weight, model.layers.1.mlp.up_proj.weight, model.layers.1.mlp.down_proj.weight"
    assert f"the checkpoint weights holds no {some}" in refused(shell, "link")


def test_one_weight_of_two_values(shell: Shell, transformer: dict[str, torch.Tensor]) -> None:
    save_file(transformer | {"lm_head.weight": torch.ones(96, 32)}, FILE)
    error = refused(shell, "copy")
    assert "model.embed_tokens.weight and lm_head.weight are one weight in the model and differ in weights" in error


def test_a_base_model_without_the_head(shell: Shell) -> None:
    config = hf.BertConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    hf.BertModel(config).save_pretrained("weights")
    head = TRANSFORMER.replace("Qwen2ForCausalLM", "BertForTokenClassification").replace("Qwen2Config", "BertConfig")
    shell.write({"model.py": head.replace("num_hidden_layers=2", "num_hidden_layers=1")})
    assert "the checkpoint weights holds no classifier.weight, classifier.bias" in refused(shell, "copy")


def test_a_disk_that_is_full(shell: Shell) -> None:
    """A real write that fails midway: no file may grow beyond 20 KB, less than a stage's weights."""
    before = shell.contents()
    command = [sys.executable, "-m", "passes.compile", "model.py", "-o", "out", "--stages", "2"]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        capture_output=True,
        text=True,
    )
    message = "weight to stage_0.safetensors: File too large; the file needs 33,280 bytes"
    assert message in done.stderr
    assert (done.returncode, done.stdout) == (2, "")
    assert shell.contents() == before
