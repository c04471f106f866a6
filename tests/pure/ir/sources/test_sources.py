"""A model file, and what it may say; what goes wrong is in tests/e2e/command/test_bad_input.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.fitting import check_weights
from ir.errors import SourceError
from ir.graph import Value
from ir.sizes import TensorType
from ir.sources import Reading, Source, read_source, unpickled
from ir.sources.meta import lost_values, parameters_on_meta, with_values
from ir.sources.model_file import read_model_file
from ir.sources.program import read_program_file
from ir.sources.unpickled import is_arithmetic
from tests.support.models.graphs import graph, linear, param

HEAD = "import torch\nfrom torch import nn\n"
Read = Callable[..., Source]
MODEL, INPUTS = "model = nn.Linear(2, 3)\n", "example_inputs = (torch.ones(1, 2),)\n"


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Write a model file and read it."""
    monkeypatch.chdir(tmp_path)

    def read(text: str, what: str = "") -> Source:
        Path("net.py").write_text(HEAD + text)
        return read_source(f"net.py{what}")

    return read


@pytest.mark.parametrize(
    "text",
    [
        MODEL,
        "def model():\n    return nn.Linear(2, 3)\n",
        "class model(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 3)\n",
        "model = lambda: nn.Linear(2, 3)\n",
    ],
)
def test_a_model_or_what_makes_one(text: str, read: Read) -> None:
    source = read(text + INPUTS)
    assert isinstance(source.model, nn.Linear)
    assert source.name == "net"
    assert set(source.weights) == {"weight", "bias"}
    assert source.dynamic_shapes is None


@pytest.mark.parametrize(
    ("text", "args", "kwargs"),
    [
        ("example_inputs = (1, 2)", (1, 2), {}),
        ("example_inputs = [1, 2]", (1, 2), {}),
        ("example_inputs = {'x': 1}", (), {"x": 1}),
        ("def example_inputs():\n    return {'x': 1}", (), {"x": 1}),
        ("def example_inputs():\n    return 1, 2", (1, 2), {}),
    ],
)
def test_inputs_or_what_makes_them(text: str, args: tuple[int, ...], kwargs: dict[str, int], read: Read) -> None:
    source = read(MODEL + text)
    assert (source.args, source.kwargs) == (args, kwargs)


def test_another_function_than_model(read: Read) -> None:
    source = read("def small():\n    return nn.Linear(2, 1)\n" + MODEL + INPUTS, what=":small")
    assert source.model.out_features == 1


def test_a_checkpoint_lies_beside_the_file(read: Read, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    save_file({"weight": torch.zeros(3, 2), "bias": torch.ones(3)}, tmp_path / "weights/model.safetensors")
    source = read(MODEL + INPUTS + "checkpoint = 'weights'\ndynamic_shapes = {'input': {0: 'batch'}}\n")
    assert torch.equal(source.weights["bias"], torch.ones(3))
    assert source.dynamic_shapes == {"input": {0: "batch"}}


@pytest.mark.parametrize(
    "text",
    ["from torch.utils.checkpoint import checkpoint", "import torch.utils.checkpoint as checkpoint"],
)
def test_what_a_file_imports_as_checkpoint_is_none(text: str, read: Read) -> None:
    assert set(read(f"{text}\n" + MODEL + INPUTS).weights) == {"weight", "bias"}


PARSING = """
from argparse import ArgumentParser
parser = ArgumentParser()
parser.add_argument("--width", type=int, {more})
model = lambda: nn.Linear(2, parser.parse_args().width)
"""


def test_a_file_that_parses_arguments_has_their_defaults(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["stagecut", "compile", "net.py", "--stages", "2"])
    assert read(PARSING.format(more="default=5") + INPUTS).model.out_features == 5
    with pytest.raises(SourceError, match="raised SystemExit: 2; a model file is imported: have what a script does"):
        read(PARSING.format(more="required=True") + INPUTS)
    assert sys.argv[0] == "stagecut"


def test_classes_of_the_file_can_be_found_by_their_module(read: Read) -> None:
    """As pickle, dataclasses and the runtime's containers need it."""
    source = read("class Net(nn.Linear):\n    pass\nmodel = lambda: Net(2, 3)\n" + INPUTS)
    module = sys.modules[type(source.model).__module__]
    assert module.Net is type(source.model)


def test_a_file_named_like_a_library_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("json.py").write_text(HEAD + MODEL + INPUTS)
    assert isinstance(read_source("json.py").model, nn.Linear)
    assert sys.modules["json"] is json


def test_a_checkpoint_reads_each_tensor_when_asked(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2), "b": torch.zeros(3, 4)}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint.open(tmp_path)
    assert sorted(checkpoint) == ["a", "b"]
    assert len(checkpoint) == 2
    assert checkpoint.tensors["b"].shape == (3, 4)
    assert torch.equal(checkpoint["a"], torch.ones(2))
    assert str(checkpoint) == str(tmp_path)


def test_a_tied_weight_may_be_stored_under_any_of_its_names() -> None:
    weight = param("embed.weight", "head.weight")
    x = Value("x", TensorType((2, 4), torch.float32))
    node = linear(x, weight, "y")
    tied = graph([x], [node], node.results)
    check_weights(tied, {"head.weight": torch.zeros(4, 4)})
    with pytest.raises(SourceError, match=r"hold no embed\.weight"):
        check_weights(tied, {"other.weight": torch.zeros(4, 4)})


# ---- without memory


class Tied(nn.Module):
    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        shared = nn.Parameter(torch.ones(3))
        self.first, self.second = shared, shared
        self.register_buffer("table", torch.arange(3.0) / 3, persistent=False)
        self.register_buffer("count", torch.tensor(7))


def test_parameters_on_meta_leave_buffers_and_ties_as_they_are() -> None:
    with parameters_on_meta():
        model = Tied()
    assert all(p.is_meta for p in model.parameters())
    assert len(list(model.parameters())) == 2
    assert model.head.weight is model.embed.weight
    assert model.first is model.second
    assert torch.equal(model.table, torch.arange(3.0) / 3)
    assert not nn.Linear(2, 2).weight.is_meta


def test_a_parameter_keeps_what_its_owner_wrote_on_it() -> None:
    param: Any = nn.Parameter(torch.ones(2), requires_grad=False)
    param.sharded = True
    with parameters_on_meta():
        model: Any = nn.Module()
        model.weight = param
    assert model.weight.sharded
    assert not model.weight.requires_grad


def test_values_that_are_computed_from_weights_are_lost() -> None:
    with parameters_on_meta():
        model: Any = nn.Sequential(nn.Linear(2, 2))
        model[0].register_buffer("norm", model[0].weight.detach().norm())
        model[0].scale = model[0].weight.detach() * 2
    assert lost_values(model) == ["0.norm", "0.scale"]


def test_values_come_and_go(tmp_path: Path) -> None:
    with parameters_on_meta():
        model = Tied()
    weights = {"embed.weight": torch.ones(5, 4), "first": torch.zeros(3), "count": torch.tensor(9)}
    save_file(weights, tmp_path / "model.safetensors")
    with with_values(model, Checkpoint.open(tmp_path)):
        assert model.head.weight is model.embed.weight
        assert torch.equal(model.head.weight, torch.ones(5, 4))
        assert torch.equal(model.second, torch.zeros(3))
        assert model.count == 9
    assert all(p.is_meta for p in model.parameters())
    assert model.count == 7


# ---- what a .pt2 may say of sizes


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s69', positive=True, integer=True))",
        "FloorDiv(Add(Symbol('s0', integer=True), Integer(-1)), Integer(8))",
        "Float('0.5', precision=53)",
        "Equality(Symbol('s0'), Integer(-3))",
        "true",
    ],
)
def test_sizes_that_are_arithmetic(text: str) -> None:
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('ls')",
        "S('__import__(1)')",
        "Symbol('s0').__class__",
        "eval('1')",
        "open('x')",
        "[x for x in (1,)]",
        "Integer(chr(3))",
        "lambda: 1",
        "Symbol(",
        "Symbol(S('x'))",
    ],
)
def test_sizes_that_are_not(text: str) -> None:
    assert not is_arithmetic(text)


class Wrapped(nn.Module):
    def forward(self, x: torch.Tensor) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=x + 1)  # type: ignore[arg-type]


def test_libraries_of_the_containers_in_a_program_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.export.save(torch.export.export(Wrapped(), (torch.ones(2),)), tmp_path / "a.pt2")
    imported: list[str] = []
    monkeypatch.setattr(unpickled, "import_module", imported.append)
    unpickled.import_containers(tmp_path / "a.pt2")
    assert imported == ["transformers.modeling_outputs"]

    def gone(name: str) -> None:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(unpickled, "import_module", gone)
    with pytest.raises(SourceError, match=r"takes or returns a transformers.*BaseModelOutput, whose library is not"):
        unpickled.import_containers(tmp_path / "a.pt2")


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (Reading(checkpoint=Path("c.pt")), "--checkpoint"),
        (Reading(adapters=(Path("a"),)), "--adapter"),
        (Reading(prefix="ema."), "--weights-prefix"),
        (Reading(variant="fp16"), "--variant"),
    ],
)
def test_options_of_a_checkpoint_are_not_passed_over(given: Reading, option: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf"is an exported program with weights of its own; leave {option} out"):
        read_program_file(tmp_path / "m.pt2", given)
    (tmp_path / "m.py").write_text("import torch\nmodel, example_inputs = torch.nn.ReLU(), (torch.ones(2),)\n")
    if given.checkpoint is None:
        with pytest.raises(SourceError, match=rf"has its weights in memory; {option} is for those of a `checkpoint`"):
            read_model_file(tmp_path / "m.py", given)


def test_an_archive_without_a_program_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "m.pt2")
    with pytest.raises(
        SourceError, match=r"m.pt2 is an archive without a program of torch.export; if it holds weights"
    ):
        read_program_file(tmp_path / "m.pt2", Reading())
    assert capfd.readouterr() == ("", "")  # torch would print where it failed


def test_a_checkpoint_that_is_no_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "import torch\nmodel, example_inputs, checkpoint = torch.nn.ReLU(), (torch.ones(2),), 3\n"
    )
    with pytest.raises(SourceError, match=r"`checkpoint` in .*m.py is a int; make it the path of the weights"):
        read_model_file(tmp_path / "m.py", Reading())
