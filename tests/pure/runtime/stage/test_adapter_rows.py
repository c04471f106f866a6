"""The adapters of rows, by name."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from runtime.call.adapter_rows import AdapterNames
from runtime.errors import InputError
from runtime.generation.options import text_options
from runtime.generation.scheduling.pages import prefixes_of
from runtime.manifest.manifest import CallSignature, Generation, Manifest, ProgramEntry, Tensor
from runtime.serving.arrays import Array
from runtime.serving.interface import Interface

NAMES = AdapterNames(("one", "two"))
X = torch.ones(3, 2)


def test_names_are_indices_of_rows() -> None:
    assert NAMES.given((X,), {})["adapter"].tolist() == [0, 0, 0]
    assert NAMES.given((), {"x": {"inside": X}, "adapter": "two"})["adapter"].tolist() == [2, 2, 2]
    assert NAMES.given((X,), {"adapter": ["two", None, "one"]})["adapter"].tolist() == [2, 0, 1]
    assert NAMES.given((X,), {"adapter": X}) == {"adapter": X}
    assert AdapterNames().given((X,), {"adapter": "a model's own argument"}) == {"adapter": "a model's own argument"}
    with pytest.raises(InputError, match="there is no adapter 'three'; there are one, two"):
        NAMES.given((X,), {"adapter": "three"})


def test_a_text_has_an_adapter_and_prefixes_of_its_own() -> None:
    generation = Generation(page=4, max_length=16, vocabulary=10)
    assert text_options(generation, 2, {"adapter": "two"}, NAMES).adapter == 2
    assert text_options(generation, 2, {}, NAMES).adapter == 0
    with pytest.raises(InputError, match=re.escape("there is no adapter 'two'; this artifact keeps none")):
        text_options(generation, 2, {"adapter": "two"})
    prefixes = [prefixes_of(range(8), 4, adapter=index) for index in (0, 1, 2)]
    assert len({prefix for of_one in prefixes for prefix in of_one}) == 6
    assert prefixes_of(range(8), 4, prefixes[1][:1], 1) == prefixes[1]


def test_a_request_that_names_no_adapter_has_none_in_each_row() -> None:
    inputs = (Tensor("ids", "int64", ("rows", 3)), Tensor("adapter", "int64", ("rows",)))
    program = ProgramEntry("main", inputs, (), {}, (), CallSignature((), {}, {}), (), {})
    plain, ids = Manifest("m", (program,), (), {}, {}), Array("int64", (2, 3), bytes(48))
    kept, chosen = Interface(replace(plain, adapters=("one",))), Array("int64", (2,), bytes([1, *[0] * 15]))
    kept.check(kept.given({"ids": ids}))
    assert kept.given({"ids": ids})["adapter"] == Array("int64", (2,), bytes(16))
    assert kept.given({"ids": ids, "adapter": chosen})["adapter"] == chosen
    assert Interface(plain).given({"ids": ids}) == {"ids": ids}
