"""What is said of models, checkpoints and machines that cannot be read, where no other test asks for it."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from ir.capture import capture
from ir.capture.diagnosis import NotExported
from ir.capture.export.module_state import data_as_itself
from ir.capture.export.recording import _keep_values, record_strictly
from ir.capture.fallbacks.probe import ProbeRun, _run, fitted
from ir.capture.program.reader import _Reader
from ir.capture.program.result_types import Types
from ir.checkpoint.files import read_checkpoint
from ir.checkpoint.fitting import check_weights
from ir.checkpoint.formats.torch_archive import unpickled
from ir.checkpoint.quantized.libraries import bitsandbytes, compressed_tensors, torchao
from ir.decoding import Decoding
from ir.errors import CaptureError, PlanError, SourceError
from ir.machine.host import named_cluster
from ir.objects.recipe import recipe
from ir.sources import Reading, read_source
from ir.sources.decoder import own, translator
from ir.sources.decoder.caches.kept import cache_after
from ir.sources.decoder.terms import decoding_terms
from ir.sources.examples.described_images import DescribedImages
from ir.sources.examples.example_inputs import _Maker
from ir.sources.model_class import transformers_for
from ir.sources.unpickled import check_expressions

NONE = cast(Any, None)
X = torch.ones(2, 3)


# ---- capture


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.5)
        return x


class Shouting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("no")


def test_a_model_without_tensors_is_refused() -> None:
    with pytest.raises(CaptureError, match="there is no tensor among the example inputs"):
        capture(nn.Identity(), (3,))


def test_an_assignment_to_data_of_another_size_is_refused() -> None:
    with data_as_itself(), pytest.raises(NotExported, match=r"it assigns a tensor of another size or type to \.data"):
        torch.ones(2).data = X


def test_autocast_around_a_model_is_not_read_from_bytecode() -> None:
    with torch.autocast("cpu"), pytest.raises(NotExported, match="autocast around the model is not recorded"):
        record_strictly(NONE)


@pytest.mark.parametrize(
    ("module", "message"),
    [(Halved(), "it changes what it is given"), (Shouting(), "on made-up inputs it raises KeyError: 'no'")],
)
def test_a_module_that_cannot_be_kept_whole(module: nn.Module, message: str) -> None:
    arguments = cast(Any, SimpleNamespace(fill=lambda given: (tuple(given), {})))
    with pytest.raises(CaptureError, match=message):
        _run(module, {}, arguments, [X.clone()], [])


def test_results_that_depend_on_values() -> None:
    with pytest.raises(CaptureError, match="the type of its result 0 depends on values"):
        fitted([ProbeRun([], X, 0.0), ProbeRun([], X.long(), 0.0)], [])


def test_operators_that_stages_cannot_run() -> None:
    reader = object.__new__(_Reader)
    reader.modules, reader.inside = {}, cast(Any, None)
    with pytest.raises(NotExported, match="a slice object among the arguments of an operator"):
        reader.argument(slice(1))
    graph = torch.fx.Graph()
    with pytest.raises(NotExported, match="is not an operator that stages can run"):
        reader.read_call(graph.call_function(len, ((),)))
    with pytest.raises(NotExported, match=r"wrap runs functions, which cannot be cut into stages"):
        reader.read_region(graph.call_function(torch.ops.higher_order.wrap, ()))
    node = graph.placeholder("x")
    with pytest.raises(NotExported, match=r"it makes a sparse tensor \(sparse_coo\)"):
        Types(NONE).of_value(X.to_sparse(), node)


# ---- recipes of objects


def test_objects_that_cannot_be_written_down() -> None:
    hooked = nn.Linear(2, 2)
    hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(CaptureError, match=r"^model has hooks, which cannot be written down$"):
        recipe(hooked, "model")
    with pytest.raises(CaptureError, match=r"model is .*<lambda>' of .*, which cannot be imported by that name"):
        recipe(lambda: 3, "model")


# ---- checkpoints and their weights


def test_weights_without_values_are_refused() -> None:
    graph = capture(nn.Linear(3, 2), (X,))
    with pytest.raises(SourceError, match="the model's weights are on the meta device, without values; name a `check"):
        check_weights(graph, nn.Linear(3, 2, device="meta").state_dict())


def test_a_checkpoint_of_code_is_refused(tmp_path: Path) -> None:
    torch.save(SimpleNamespace(), tmp_path / "code.pt")
    with pytest.raises(SourceError, match="which is code and is not run; save its state dict"):
        read_checkpoint(tmp_path / "code.pt")
    with pytest.raises(SourceError, match=r"half.pt: it is damaged \(.*\); save its state dict as \.safetensors"):
        unpickled(tmp_path / "half.pt", BytesIO(b"\x80"))


def read(tensor: Tensor) -> Any:
    return SimpleNamespace(dtype=tensor.dtype, shape=tensor.shape, read=tensor.to)


@pytest.mark.parametrize(
    ("of", "parts", "message"),
    [
        (compressed_tensors._packed, {"codes": torch.zeros(2, 4).int()}, "packed weights have no `weight_shape`"),
        (
            compressed_tensors._packed,
            {"codes": torch.zeros(2, 40).int(), "shape": torch.tensor([2, 42])},
            "packed weights are read if they have 2 to 8 bits; save the model so",
        ),
        (bitsandbytes._eight_bit, {"format": torch.tensor(2)}, "bitsandbytes' weights in a GPU's order are not read"),
        (
            torchao._torchao,
            {"codes": torch.zeros(2), "scale": torch.zeros(2)},
            "torchao's weights are read if they are int4, int8 or float8",
        ),
        (
            torchao._for_one_kernel,
            {},
            "torchao's int4 weights that are shuffled for one kernel are not read; save",
        ),
    ],
)
def test_packed_weights_that_are_not_read(
    of: Callable[[Any], object], parts: Mapping[str, Tensor], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        of({name: read(tensor) for name, tensor in parts.items()})


def test_a_checkpoint_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SourceError, match=r"is a checkpoint of transformers, which is not installed .*pip install"):
        transformers_for(tmp_path)


# ---- model files and programs


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "example_inputs = 3",
            "`example_inputs` in .*model.py is a int; make it a tuple .positional arguments., a dict",
        ),
        ("example_inputs = (1,)\nvariants = []", "`variants` in .*model.py is a list; make it a dict from names to"),
    ],
)
def test_a_model_file_with_inputs_of_another_kind(more: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(f"from torch import nn\nmodel = nn.Linear(2, 2)\n{more}\n")
    with pytest.raises(SourceError, match=message):
        read_source(str(tmp_path / "model.py"), Reading())


def test_a_program_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    file.write_bytes(b"text")
    with pytest.raises(SourceError, match=r"is not what torch\.export\.save writes: "):
        read_source(str(file), Reading())
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.json", json.dumps({"expr_str": "__import__('os')"}))
    with pytest.raises(SourceError, match=re.escape("holds a size that is no arithmetic: __import__('os')")):
        check_expressions(file)


# ---- decoders and machines


class Step(nn.Module):
    """A decoder of one's own that returns the number of its rows."""

    pool: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pool", torch.zeros(4, 16, 2))

    def forward(self, input_ids: Tensor, lengths: Tensor, counts: Tensor, table: Tensor) -> Tensor:
        self.pool.add_(1)
        return torch.zeros(input_ids.shape[0], 8) + self.pool.sum()


def test_a_decoder_of_ones_own_that_is_refused() -> None:
    with pytest.raises(SourceError, match=r"how long may a text of Step be. say --max-length, or give it an attribute"):
        own.own_step(Step(), None, None)
    with pytest.raises(SourceError, match="Step returns other logits for a text in chunks, beside others, than alone"):
        own.own_step(Step(), 32, None)


def test_a_decoder_that_takes_more_than_tokens() -> None:
    model = cast(Any, Shouting())
    model.config = SimpleNamespace(_experts_implementation=None, sub_configs={})
    with pytest.raises(SourceError, match="Shouting does not run on tokens alone, which --generate asks for: "):
        cache_after(model, {}, {})
    with pytest.raises(SourceError, match="--max-length 9 is more than the 8 positions that the model has"):
        decoding_terms(NONE, 9, None, 8)


def test_a_translator_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SimpleNamespace(config=None, main_input_name="input_ids", get_input_embeddings=lambda: nn.Embedding(8, 2))
    monkeypatch.setattr(translator, "cache_after", lambda *_: None)
    with pytest.raises(SourceError, match="SimpleNamespace keeps no keys and values of its source in a cache"):
        translator._kept(model, X, {})

    class Failing:
        step = SimpleNamespace(get_buffer=None)
        terms = SimpleNamespace(pools=(), source_pools=())

        def difference(self, *_: object) -> float:
            raise IndexError("no layer")

    terms = Decoding(page=4, max_length=8, vocabulary=8)
    for name, value in {
        "most_positions": 8,
        "decoding_terms": terms,
        "_example_source": X,
        "_begin": (0,),
        "random_weights": {},
        "_kept": ((), ((), 0)),
        "_made": Failing(),
        "Agreement": Failing(),
        "_random_sources": (),
        "uncached": None,
    }.items():
        monkeypatch.setattr(translator, name, lambda *_, value=value, **__: value)
    with pytest.raises(SourceError) as refused:
        translator.translator_step(model, model, 8, None)
    why = "SimpleNamespace cannot continue texts with a cache: its code fails (IndexError: no layer)"
    assert str(refused.value) == why


def test_images_that_a_text_has_no_room_for() -> None:
    maker = cast(Any, SimpleNamespace(texts=4, longest=8))
    images = DescribedImages("[[1, 4, 4]]", {}, [torch.full((16,), 5)])
    with pytest.raises(SourceError, match=r"images of \[\[1, 4, 4\]\] take more than the 8 places of the model"):
        list(_Maker.text_around(maker, 5, images))


def test_machines_without_devices() -> None:
    with pytest.raises(PlanError, match="there must be one device at least"):
        named_cluster([])


def test_a_constant_without_a_value_is_no_export() -> None:
    with FakeTensorMode():
        program = SimpleNamespace(constants={"count": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="a fake tensor in the exported program: count"):
        _keep_values(cast(Any, program))
