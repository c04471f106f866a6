"""Folders whose graph is kept: found without their model as long as nothing changed that it depends on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from codegen.artifact.pytree_json import tree_json
from ir.capture import capture
from ir.capture.kept.store import find, keep
from ir.objects.signature import Slot, Tree
from ir.process.cache_folder import PLACE
from ir.sources import Source, kept
from ir.sources.kept import FileStamp, KeptSource, find_source, keep_source, key_of
from ir.text.printer import print_graph
from passes.compilation import given
from passes.compilation.given import read_given
from passes.compilation.programs import captured
from passes.options.options import Options

SIZES = {"batch": torch.export.Dim("batch")}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint folder for a library that nobody has imported, and all of whose code is still there."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if os.path.isabs(file) and not os.path.exists(file):  # other tests wrote it, and took it away
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv(PLACE, str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "LIBRARY", "sndhdr" if "sndhdr" not in sys.modules else "this")
    monkeypatch.setattr(kept, "in_library", lambda path: path.startswith(str(tmp_path / "site")))
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "site/one-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"layers": 2}')
    (tmp_path / "model/weights.bin").write_bytes(b"1234")
    return tmp_path / "model"


def another_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"layers": 3}')


def another_file(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{}")


def other_weights(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"12345")


def touched_weights(folder: Path) -> None:
    os.utime(folder / "weights.bin", ns=(1, 1))


def another_version(folder: Path) -> None:
    (folder.parent / "site/one-1.0.dist-info").rename(folder.parent / "site/one-1.1.dist-info")


def another_variable(folder: Path) -> None:
    os.environ["TRANSFORMERS_ATTENTION"] = "eager"


def another_dtype(folder: Path) -> None:
    torch.set_default_dtype(torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [another_config, another_file, other_weights, touched_weights, another_version, another_variable, another_dtype],
)
def test_a_folder_has_another_key_once_anything_changed(
    change: Callable[[Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRANSFORMERS_ATTENTION", raising=False)
    before = key_of(folder, ["terms"])
    assert before == key_of(folder, ["terms"]) != key_of(folder, ["others"])
    try:
        change(folder)
        assert key_of(folder, ["terms"]) not in ("", before)
    finally:
        torch.set_default_dtype(torch.float32)


def key(folder: Path, **options: Any) -> str:
    chosen = Options.of({"stages": 2, "out": "out", **options})
    return given._key(folder, (), None, chosen, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dtype", "float16"),
        ("example", {"input_ids": (1, 4096)}),
        ("fix", ["grid"]),
        ("dynamic_shapes", ["input_ids:0=batch"]),
        ("weights", "none"),
        ("padding", False),
        ("generate", True),
        ("max_length", 64),
        ("weights_prefix", "ema."),
        ("quantized", "dequantize"),
    ],
)
def test_an_option_of_reading_makes_another_key(option: str, value: Any, folder: Path) -> None:
    assert key(folder, **{option: value}) not in ("", key(folder))


def test_other_weights_in_another_place_make_another_key(folder: Path) -> None:
    """Those in place of the folder's own, files beside them, and what a link in the folder leads to."""
    place = folder.parent / "other"
    place.mkdir()
    (place / "rank_0.pt").write_bytes(b"1")
    seen = {key(folder, checkpoint=place), key(folder, checkpoint=place / "rank_0.pt")}
    (place / "rank_1.pt").write_bytes(b"1")
    seen |= {key(folder, checkpoint=place), key(folder, checkpoint=place / "rank_0.pt")}
    (folder / "unet").symlink_to(place)
    seen.add(key(folder))
    (place / "rank_0.pt").write_bytes(b"12")
    seen.add(key(folder))
    assert len(seen) == 6
    assert "" not in seen


def test_an_option_of_the_cut_does_not(folder: Path) -> None:
    assert key(folder, slack=0.0, stages=8, cut_at="between-modules", workload="batch=1,seq=4") == key(folder) != ""


def test_what_cannot_be_told_has_no_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code in the folder, a library that may have been changed in memory, calls of Python objects."""
    assert key(folder, trust_remote_code=True) == key(folder, cache=False) == key(folder / "none") == ""
    assert given._key(folder, (), None, Options.of({"stages": 2, "out": "out"}), {"wide": ((), {})}) == ""
    assert given._key(nn.ReLU(), (), None, Options.of({"stages": 2, "out": "out"}), None) == ""
    with monkeypatch.context() as patch:
        patch.setattr(kept, "MOST_ENTRIES", 1)
        assert key_of(folder, []) == ""
    monkeypatch.setattr(kept, "LIBRARY", "torch")
    assert key_of(folder, []) == ""


def source(key: str) -> Source:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    shapes = {"input": {0: SIZES["batch"]}}
    return Source("model", model, (torch.randn(3, 4),), {}, shapes, {}, notes=("use_cache is off",), key=key)


def test_a_kept_folder_comes_with_its_graph_and_no_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "_made", lambda *_: source(""))
    options = Options.of({"stages": 2, "out": "out"})
    first, was_kept = captured(read_given(folder, (), None, options), cache=True)
    assert not was_kept
    monkeypatch.delattr(given, "_made")
    known = read_given(folder, (), None, options)
    again, was_kept = captured(known, cache=True)
    assert was_kept
    assert print_graph(again) == print_graph(first)
    assert (known.name, known.all_notes, list(known.model.parameters())) == ("model", ("use_cache is off",), [])
    (x,) = known.example(again.signature)  # with which padding is tried
    assert x.shape == (3, 4)


def test_verify_makes_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "_made", lambda *_: source(""))
    captured(read_given(folder, (), None, Options.of({"stages": 2, "out": "out"})), cache=True)
    assert read_given(folder, (), None, Options.of({"stages": 2, "out": "out", "verify": True})).kept is None


def test_code_that_was_loaded_must_be_as_it_was(tmp_path: Path, folder: Path) -> None:
    made = source(key_of(folder, []))
    keep_source(made, capture(made.model, made.args, {}), ())
    known = find(made.key, KeptSource)
    assert known is not None
    assert FileStamp.of(kept.__file__) in known.code
    assert find_source(made.key) is not None
    (tmp_path / "code.py").write_text("x = 1")
    stamp = FileStamp.of(tmp_path / "code.py")
    keep(made.key, replace(known, code=(*known.code, stamp)))
    assert find_source(made.key) is not None
    (tmp_path / "code.py").write_text("x = 12")
    assert find_source(made.key) is None


def test_warnings_of_a_kept_folder_are_given_again(folder: Path) -> None:
    made = source(key_of(folder, []))
    keep_source(made, capture(made.model, made.args, {}), ("forward changes a buffer",))
    with pytest.warns(UserWarning, match="forward changes a buffer"):
        find_source(made.key)


class Grown(dict[str, Any]):
    """A container of a library: its objects are made by keyword."""


def test_a_container_whose_class_is_not_imported_keeps_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("grown_library")
    monkeypatch.setattr(Grown, "__module__", "grown_library")
    monkeypatch.setitem(sys.modules, "grown_library", library)
    library.Grown = Grown  # type: ignore[attr-defined]
    leaf = pytree.treespec_leaf()
    tree = Tree(pytree.TreeSpec(Grown, ["logits", "rest"], [leaf, leaf]), (Slot(0), Slot(1)))
    keep("tree", tree)
    here = find("tree", Tree)
    assert here is not None
    assert here.spec.type is Grown
    monkeypatch.delitem(sys.modules, "grown_library")
    elsewhere = find("tree", Tree)
    assert elsewhere is not None
    assert elsewhere.spec.type is not Grown
    assert tree_json(elsewhere) == tree_json(tree) == tree_json(here)
