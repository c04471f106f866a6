"""Files that artifacts have beside their stages: those of several versions run in one process, compiled too."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import torch

from codegen.text.joined_files import joined_source
from ir.paged import attention
from ir.quantized_linear import linear
from runtime.stage.loader import import_file
from tests.support.artifacts.files_beside import as_in_an_artifact


def twice(folder: Path, source: ModuleType, old: str, new: str) -> list[ModuleType]:
    """The modules of two artifacts: one of this version, and one of another whose file has other words."""
    text = joined_source(source)
    assert text.count(old) == 1
    places = [folder / name / "helper.py" for name in ("ours", "other")]
    for place, own in zip(places, (text, text.replace(old, new)), strict=True):
        place.parent.mkdir()
        place.write_text(own)
    return [import_file(place) for place in places]


def test_quantized_layers_of_two_versions(tmp_path: Path) -> None:
    ours, other = twice(tmp_path, linear, "int[] step=[1, 1]", "int[] step=[1, 8]")
    x, codes, scale = torch.ones(2, 8), torch.ones(4, 8, dtype=torch.int8), torch.ones(4, 1)
    for module in (ours, other):
        compiled = torch.compile(module.quantized_linear, fullgraph=True, backend="eager")
        assert torch.equal(compiled(x, [codes], [scale], step=[1, 8]), torch.full((2, 4), 8.0))
    assert ours.PRODUCT != other.PRODUCT
    assert ours.PRODUCT == as_in_an_artifact(linear).PRODUCT  # of one version, artifacts share one


def test_attention_of_two_versions(tmp_path: Path) -> None:
    ours, other = twice(tmp_path, attention, "int window=0", "int window=2")
    pool = torch.ones(2, 4, 1, 8)
    given = torch.ones(1, 2, 1, 8), pool, pool, torch.tensor([[1]]), torch.tensor([[3]]), 1.0
    for module in (ours, other):
        compiled = torch.compile(module.paged_attention, fullgraph=True, backend="eager")
        assert torch.equal(compiled(*given), torch.ones(1, 2, 1, 8))
    assert ours.ATTENTION == attention.ATTENTION != other.ATTENTION
