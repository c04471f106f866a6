"""Files of training runs: read in place, without running code in them, or refused by name."""

from __future__ import annotations

import os
import pickle
import re
import tarfile
import zipfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._utils
from safetensors.torch import save_file
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._tensor import _rebuild_from_type_v2

from ir.capture import capture
from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.files import read_checkpoint
from ir.checkpoint.fitting import check_weights
from ir.errors import SourceError
from tests.support.weights.stored_layer import LAYER, WEIGHTS, assert_read


class Harmful:
    class Inner:
        pass

    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    "held",
    [
        {"state_dict": WEIGHTS, "hyper_parameters": {"a": Namespace(lr=1), "b": timedelta(1), "c": {Fraction(1, 2)}}},
        {"model": LAYER, "epoch": 3},
        {"weights": {name: nn.Parameter(t) for name, t in WEIGHTS.items()}, "harm": Harmful()},
        nn.ModuleDict({"net": LAYER}),
        {"model": LAYER, "of a class in a class": Harmful.Inner()},  # which is pickled as an attribute of that
    ],
)
def test_objects_in_a_file_are_inert(held: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(held, "c.ckpt")
    assert_read(tmp_path / "c.ckpt")
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"weight": torch.eye(2).to_sparse()}, "weight in .* is sparse; save it dense"),
        ({"weight": torch.ones(2, device="meta")}, "weight in .* has no values: it was saved on the meta device"),
        (torch.ones(2), "c.pt holds a tensor, not a table of tensors by name"),
        (timedelta(1), "holds a datetime.timedelta, which is code and is not run; save its state dict"),
    ],
)
def test_files_without_values_to_read(held: Any, message: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "c.pt")
    with pytest.raises(SourceError, match=message):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.npz", b"", r"c.npz is a file of numpy, which is not read: save its weights as .safetensors"),
        ("tf_model.h5", b"", r"tf_model.h5 is a file of Keras, which is not read"),
        (
            "c.safetensors",
            b"version https://git-lfs.github.com/spec/v1\n",
            r"is a pointer of git-lfs in place of the file",
        ),
        ("model.ckpt.index", b"", r" is a (file|checkpoint) of TensorFlow, which is not read: save its weights as"),
        ("model.pdparams", b"", r"model.pdparams is a file of PaddlePaddle, which is not read: save its weights as"),
        ("_CHECKPOINT_METADATA", b"{}", r" is (a file )?of Orbax, which is not read"),
        ("c.bin", b"<!doctype html>", r"c.bin is a web page, or other text, in place of the file; fetch that again"),
        ("c.pt", b"\x1f\x8b\x08", r"c.pt is compressed by gzip; unpack it: gunzip"),
        ("c.bin", b"BZh9", r"c.bin is compressed by bzip2; unpack it"),
        ("c.bin", b"\xfd7zXZ\x00", r"c.bin is compressed by xz; unpack it"),
        ("c.bin", b"\x28\xb5\x2f\xfd", r"c.bin is compressed by zstd; unpack it"),
        ("c.ckpt", b"\x89HDF\r\n", r"c.ckpt is a file of Keras, or another one of HDF5, which is not read"),
        ("c.bin", b"GGUF\x03", r"c.bin is a GGUF file; give it a name that ends with .gguf"),
        ("c.safetensors", b"PK\x03\x04", r"c.safetensors is a file of torch.save in spite of its name; let that end"),
        (
            "c.pth",
            pickle.dumps({"weight": 1}),
            r"c.pth: it is a pickle that torch.save did not write; save its tensors",
        ),
        (
            "run/step-10/.metadata",
            b"",
            r"run is the output of a training run; name a step in it, the newest is .*step-10$",
        ),
        (
            "run/checkpoints/checkpoint_11/model.safetensors",
            b"",
            r"run is the output of a training run; name a step in it, the newest is .*checkpoints/checkpoint_11$",
        ),
    ],
)
def test_what_torch_did_not_write_is_named(name: str, text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(text)
    (tmp_path / "run/step-9").mkdir(parents=True, exist_ok=True)
    (tmp_path / "run/step-9/.metadata").touch()
    paths = [tmp_path / "run"] if "run" in name else [tmp_path, tmp_path / name]
    for path in paths:
        with pytest.raises(SourceError, match=message):
            Checkpoint.open(path)


def test_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as packed:
        packed.write(tmp_path / "a", "weights/a")
    with pytest.raises(SourceError, match=r"c.pt is a zip archive that torch.save did not write: unpack it, and name"):
        Checkpoint.open(tmp_path / "c.pt")
    with tarfile.open(tmp_path / "c.pth", "w") as joined:
        joined.add(tmp_path / "a", "weights/a")
    with pytest.raises(SourceError, match=r"c.pth is a tar archive; unpack it: tar xf"):
        Checkpoint.open(tmp_path / "c.pth")


def test_a_folder_of_gguf_files_names_one(tmp_path: Path) -> None:
    """As people put them beside a model's config.json."""
    for name in ("config.json", "m-Q8_0.gguf", "m-Q4_K_M.gguf"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(SourceError, match=r"has its weights in GGUF: give a file of them, such as .*m-Q4_K_M.gguf$"):
        Checkpoint.open(tmp_path)


def test_an_openvino_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "openvino_model.bin").write_bytes(bytes(100))
    (tmp_path / "openvino_model.xml").write_text("<net/>")
    with pytest.raises(SourceError, match=r"openvino_model.bin is a file of OpenVINO, which is not read: give the"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("old", [False, True])
def test_tensors_are_made_without_torchs_fake_ones(old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of which takes half a millisecond, so that a file of 20,000 took twelve seconds."""
    torch.save({"w": torch.arange(6.0).view(2, 3).t()}, tmp_path / "c.pt", _use_new_zipfile_serialization=not old)
    monkeypatch.setattr(FakeTensorMode, "dispatch", None)
    found = read_checkpoint(tmp_path / "c.pt")[""]["w"]
    monkeypatch.undo()
    assert torch.equal(found.read(torch.float32), torch.arange(6.0).view(2, 3).t())


@pytest.mark.parametrize("held", [WEIGHTS, {"model": WEIGHTS, "args": Namespace(a=1)}, LAYER])
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
def test_files_of_old_versions_of_torch(held: Any, tmp_path: Path) -> None:
    torch.save(held, file := tmp_path / "c.bin", _use_new_zipfile_serialization=False)
    assert_read(file)
    whole = file.read_bytes()
    for size, why in (-4, "ValueError: a storage of .* elements ends at .*, the file at"), (200, ""), (20, "EOFError"):
        file.write_bytes(whole[:size])
        with pytest.raises(
            SourceError, match=rf"c.bin: it is damaged, or was not fetched whole; fetch it again \({why}"
        ):
            Checkpoint.open(file)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
def test_such_files_of_other_protocols(protocol: int, tmp_path: Path) -> None:
    torch.save(WEIGHTS, file := tmp_path / "c.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    assert_read(file)


def test_a_pickle_of_another_byte_order_or_with_views_is_refused(tmp_path: Path) -> None:
    torch.save(WEIGHTS, file := tmp_path / "c.bin", _use_new_zipfile_serialization=False)
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
    with pytest.raises(SourceError, match="it was written on a machine of another byte order"):
        Checkpoint.open(file)
    file.write_bytes(re.sub(rb"Nt(q.)Q", b"K\x01t\\1Q", whole))  # the last item of what names a storage
    with pytest.raises(SourceError, match="a view of a storage"):
        Checkpoint.open(file)


class Elsewhere:
    """A tensor of a device that torch does not have here."""

    def __init__(self, tensor: torch.Tensor, as_array: bool) -> None:
        self.tensor, self.as_array = tensor, as_array

    def __reduce__(self) -> Any:
        make = torch._utils._rebuild_device_tensor_from_numpy
        if not self.as_array:
            make = torch._utils._rebuild_device_tensor_from_cpu_tensor
        return make, (self.tensor.numpy() if self.as_array else self.tensor, self.tensor.dtype, "xla:0", False)


def repacked(folder: Path, kind: int = zipfile.ZIP_STORED, **changed: bytes) -> Path:
    """A file of torch.save whose archive another program has packed, the last of its files first."""
    torch.save(WEIGHTS, folder / "saved.pt")
    with zipfile.ZipFile(folder / "saved.pt") as old, zipfile.ZipFile(folder / "c.pt", "w", kind) as new:
        for name in reversed(old.namelist()):
            new.writestr(name, changed.get(name.rpartition("/")[2], old.read(name)))
    return folder / "c.pt"


def test_an_archive_that_was_packed_again_is_read_where_its_storages_are(tmp_path: Path) -> None:
    """torch reckons their places itself, which are others then."""
    assert_read(repacked(tmp_path))


def test_an_archive_whose_bytes_are_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"c.pt was packed anew, compressed; save its state dict again, with torch"):
        Checkpoint.open(repacked(tmp_path, zipfile.ZIP_DEFLATED))
    with pytest.raises(SourceError, match=r"c.pt has its bytes in the other order; save its state dict as .safe"):
        Checkpoint.open(repacked(tmp_path, byteorder=b"big"))


def test_tensors_of_other_devices(tmp_path: Path) -> None:
    torch.save({name: Elsewhere(tensor, False) for name, tensor in WEIGHTS.items()}, tmp_path / "c.pt")
    assert_read(tmp_path / "c.pt")
    torch.save({name: Elsewhere(tensor, True) for name, tensor in WEIGHTS.items()}, tmp_path / "c.pt")
    with pytest.raises(SourceError, match=r"weight in .*c.pt was saved from a device of another kind; move it"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("name", ["c.safetensors", "c.pt"])
def test_the_length_of_a_header_may_begin_like_another_file(name: str, tmp_path: Path) -> None:
    header = b'{"weight":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}'.ljust(ord("<"))
    (tmp_path / name).write_bytes(len(header).to_bytes(8, "little") + header + bytes([1, 2, 3]))
    assert Checkpoint.open(tmp_path / name)["weight"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", ["c.pt", "pytorch_model.bin"])
def test_safetensors_under_another_name(name: str, tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / name)
    assert_read(tmp_path)


def test_the_state_of_a_run_beside_a_file_of_accelerate(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "pytorch_model_fsdp.bin")
    for name in ("optimizer_1.bin", "scheduler.bin", "sampler_1.bin", "dl_state_dict.bin", "rng_state_0.pth"):
        torch.save({}, tmp_path / name)
    assert_read(tmp_path)


def test_a_universal_checkpoint_of_deepspeed_is_named(tmp_path: Path) -> None:
    (tmp_path / "latest_universal").write_text("step5")
    (tmp_path / "step5/zero/weight").mkdir(parents=True)
    torch.save(torch.ones(2), tmp_path / "step5/zero/weight/fp32.pt")
    with pytest.raises(SourceError, match="is a universal checkpoint of DeepSpeed, with a file for each weight; give"):
        Checkpoint.open(tmp_path)


def test_arrays_of_numpy_are_no_tensors(tmp_path: Path) -> None:
    torch.save({"model": {"weight": np.ones(2)}, "step": np.int64(1)}, tmp_path / "c.pt")
    with pytest.raises(SourceError, match=r"holds arrays of numpy, not tensors: torch.from_numpy makes them of these"):
        Checkpoint.open(tmp_path)
    torch.save({"model": WEIGHTS, "share": np.ones(2)}, tmp_path / "c.pt")
    assert_read(tmp_path / "c.pt")


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_a_program_is_no_table(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(LAYER), tmp_path / "c.pt")
    with pytest.raises(SourceError, match=r"it holds a program of TorchScript; save its state dict"):
        Checkpoint.open(tmp_path)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor.*:UserWarning")
def test_tensors_that_torch_quantized_are_not_read(tmp_path: Path) -> None:
    held = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    torch.save({"net": {"weight": held}}, tmp_path / "c.pt")
    message = r"net.weight in .* is quantized by torch.ao; save the model as it was before"
    with pytest.raises(SourceError, match=message):
        Checkpoint.open(tmp_path)


def test_an_exported_program_is_no_table(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(LAYER, (torch.ones(2, 3),)), tmp_path / "c.pt2")
    with pytest.raises(SourceError, match=r"program of torch.export; give it in place of the model, or save its state"):
        Checkpoint.open(tmp_path / "c.pt2")


class Wrapper(torch.Tensor):
    """A tensor that holds others, as those of torchao do."""

    @staticmethod
    def __new__(cls, **parts: Any) -> Wrapper:
        made = torch.Tensor._make_wrapper_subclass(cls, (5, 3))
        vars(made).update(parts)
        return made

    def __init__(self, **parts: Any) -> None: ...

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0]  # detach


def test_a_tensor_of_torchao_is_read_from_its_parts(tmp_path: Path) -> None:
    codes, scale = torch.randint(-9, 9, (5, 3), dtype=torch.int8), torch.rand(5, 1)
    held = {"weight": Wrapper(qdata=codes, scale=scale, act_quant_kwargs=None), "bias": WEIGHTS["bias"]}
    torch.save({f"net.{name}": t for name, t in held.items()}, tmp_path / "c.pt")
    found = Checkpoint.open(tmp_path / "c.pt").for_model(nn.ModuleDict({"net": nn.Linear(3, 5)}))
    assert torch.equal(found["net.weight"], codes * scale)


@pytest.mark.parametrize("parts", [{"qdata": torch.ones(2), "act_quant_kwargs": Fraction(1)}, {"impl": Fraction(1)}])
def test_a_tensor_of_another_class_is_named(parts: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"weight": Wrapper(**parts)}, tmp_path / "c.pt")
    with pytest.raises(SourceError, match=r"Wrapper, which is code and is not run; save the model dequantized, or as "):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("member", "damage", "message"),
    [
        ("c/data/0", lambda data: data[:-2], r"damaged \(ValueError: a storage of 60 bytes in 58\)"),
        ("c/data.pkl", lambda data: data.replace(b"storage", b"st\0rage"), r"damaged \(\w+: Unknown typename"),
        (
            "c/data.pkl",
            lambda data: data.replace(b"cpu", b"\xffpu"),
            r"damaged \(UnicodeDecodeError: 'utf-8' codec can't",
        ),
    ],
)
def test_an_archive_that_is_damaged(
    member: str, damage: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    torch.save({"weight": torch.ones(5, 3), "bias": torch.ones(5)}, tmp_path / "c.pt")
    with zipfile.ZipFile(tmp_path / "c.pt") as whole:
        held = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as archive:
        for name, data in held.items():
            archive.writestr(name, damage(data) if name == member else data)
    with pytest.raises(SourceError, match=rf"cannot read .*c.pt: it is {message}"):
        read_checkpoint(tmp_path / "c.pt")


def test_an_archive_whose_list_of_files_is_damaged(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(5, 3)}, tmp_path / "c.pt")
    data = (tmp_path / "c.pt").read_bytes()
    last = data.rindex(b"c/version")
    (tmp_path / "c.pt").write_bytes(data[:last] + b"\xff" + data[last + 1 :])
    with pytest.raises(SourceError, match=r"cannot read .*c.pt: it is damaged"):
        read_checkpoint(tmp_path / "c.pt")


def test_a_weight_that_others_make_is_named(tmp_path: Path) -> None:
    torch.save(nn.utils.parametrizations.weight_norm(nn.Linear(3, 5)).state_dict(), tmp_path / "c.pt")
    graph = capture(LAYER, (torch.ones(2, 3),))
    made_of = "parametrizations.weight.original0 and parametrizations.weight.original1: build the model so, or undo"
    with pytest.raises(SourceError, match=f"holds no weight; it makes weight of {made_of}"):
        check_weights(graph, Checkpoint.open(tmp_path).for_model(LAYER))
    torch.save({"_flat_param": torch.ones(20)}, tmp_path / "c.pt")
    with pytest.raises(
        SourceError, match="no weight, bias; FSDP has joined them in _flat_param: save the state dict with"
    ):
        check_weights(graph, Checkpoint.open(tmp_path).for_model(LAYER))
    torch.save({"model.base_layer.weight": torch.ones(5, 3)}, tmp_path / "c.pt")
    instead = r"; model\.base_layer\.weight is beside an adapter that is not merged: save what peft's merge_and_unload"
    with pytest.raises(SourceError, match=instead):
        check_weights(graph, Checkpoint(tmp_path, {}, tables=Checkpoint.open(tmp_path).tables))


@pytest.mark.parametrize("kind", [list, dict])
def test_what_holds_itself(kind: type[Any], tmp_path: Path) -> None:
    held = kind()
    held.append(held) if kind is list else held.update(me=held)
    torch.save({"weights": WEIGHTS, "settings": held}, tmp_path / "c.pt")
    found = Checkpoint.open(tmp_path).under("weights.")
    assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items())
    torch.save(held, tmp_path / "c.pt")
    if kind is list:
        with pytest.raises(SourceError, match=r"c.pt holds a list, not a table of tensors"):
            Checkpoint.open(tmp_path)
    else:
        assert not Checkpoint.open(tmp_path).tensors


@pytest.mark.parametrize(
    "held",
    [[WEIGHTS, {"epoch": 1}], (WEIGHTS, 5), defaultdict(dict, model=WEIGHTS), {"models": [{}, {"weights": WEIGHTS}]}],
    ids=["list", "tuple", "defaultdict", "a list inside"],
)
def test_tables_in_lists_and_other_dicts(held: Any, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "c.pt")
    assert_read(tmp_path / "c.pt")


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)


@pytest.mark.parametrize("around", [lambda held: held, lambda held: {"models": held, "optimizer": {"step": 1}}])
def test_a_dict_of_parts_is_one_model(around: Callable[[Any], Any], tmp_path: Path) -> None:
    model = Parts()
    torch.save(around({name: part.state_dict() for name, part in model.named_children()}), tmp_path / "c.pt")
    found = Checkpoint.open(tmp_path / "c.pt").for_model(Parts())
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (lambda held, other: {"models": held, "ema_models": other}, "under `models.` and `ema_models.`: say"),
        (lambda held, other: {**held, "ema": other}, "under no prefix and `ema.`: say --weights-prefix ema., or so"),
    ],
)
def test_parts_of_two_models_are_not_guessed(table: Callable[[Any, Any], Any], message: str, tmp_path: Path) -> None:
    held, other = ({name: part.state_dict() for name, part in Parts().named_children()} for _ in range(2))
    torch.save(table(held, other), tmp_path / "c.pt")
    with pytest.raises(SourceError, match=message):
        Checkpoint.open(tmp_path / "c.pt").for_model(Parts())
    torch.save(table(held, held), tmp_path / "c.pt")
    found = Checkpoint.open(tmp_path / "c.pt").for_model(Parts())
    assert torch.equal(found["two.bias"], held["two"]["bias"])


@pytest.mark.parametrize("change", [0.0, 1e-6])
def test_copies_of_equal_values_are_no_choice(change: float, tmp_path: Path) -> None:
    """Moving averages that a training has not begun to move, under a prefix, in a dict and in dicts of parts."""
    model = Parts()
    copy = {name: tensor + change for name, tensor in model.state_dict().items()}
    parts = {name: part.state_dict() for name, part in model.named_children()}
    moved = {name: {n: tensor + change for n, tensor in part.items()} for name, part in parts.items()}
    prefixed = {**{f"model.{n}": t for n, t in model.state_dict().items()}, **{f"ema.{n}": t for n, t in copy.items()}}
    for table, note in (
        (prefixed, "which the model has no place for"),
        ({"model": model.state_dict(), "ema": copy}, "has the same weights under `model.` and `ema.`"),
        ({"models": parts, "ema": moved}, "has the same weights under `ema.` and `models.`"),
    ):
        torch.save(table, tmp_path / "c.bin")
        both = Checkpoint.open(tmp_path / "c.bin")
        if change:
            with pytest.raises(SourceError, match="weights for the model under"):
                both.for_model(model)
            continue
        found = both.for_model(model)
        assert torch.equal(found["one.weight"], model.one.weight)
        assert [said for said in found.notes if note in said]


def test_a_prefix_goes_without_what_wrappers_put_there(tmp_path: Path) -> None:
    """Of two encoders in one module, as the message about both spells them."""
    others = {f"module.other.{name}": -tensor for name, tensor in WEIGHTS.items()}
    torch.save(
        {"state_dict": {**{f"module.mine.{name}": t for name, t in WEIGHTS.items()}, **others}}, tmp_path / "c.pt"
    )
    both = Checkpoint.open(tmp_path / "c.pt")
    with pytest.raises(SourceError, match=r"under `mine.` and `other.`: say --weights-prefix mine., or so"):
        both.for_model(nn.Linear(3, 5))
    for prefix, sign in (("mine.", 1), ("other.", -1), ("module.other.", -1)):
        assert torch.equal(both.under(prefix).for_model(nn.Linear(3, 5))["bias"], WEIGHTS["bias"] * sign)


def test_bytes_as_names_are_shown(tmp_path: Path) -> None:
    torch.save({name.encode(): tensor for name, tensor in WEIGHTS.items()}, tmp_path / "c.pt")
    assert {f"b'{name}'" for name in WEIGHTS} == set(Checkpoint.open(tmp_path / "c.pt").tensors)


def test_a_prefix_that_is_a_whole_name_leaves_none(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "c.pt")
    with pytest.raises(SourceError, match="holds no name that begins with weight: it has"):
        Checkpoint.open(tmp_path / "c.pt").under("weight")


class ShardedTensor:
    """Pickled as what a process of FSDP has of a parameter: as of a class of tensors, with a tuple for a state."""

    def __reduce__(self) -> Any:
        return _rebuild_from_type_v2, (
            torch._utils._rebuild_wrapper_subclass,
            type(self),
            (type(self),),
            ([],),
        )


def test_a_part_of_fsdp_is_named(tmp_path: Path) -> None:
    torch.save({"weight": ShardedTensor()}, tmp_path / "rank0.pt")
    with pytest.raises(SourceError, match=r"weight in .*rank0.pt is the part that one rank of FSDP has"):
        Checkpoint.open(tmp_path / "rank0.pt")
