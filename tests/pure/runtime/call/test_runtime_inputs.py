"""Inputs: what a call may be, and the message for each way in which it may not."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from runtime import InputError, ManifestError
from runtime.call.inputs import Inputs
from runtime.manifest.manifest import (
    CallSignature,
    CountedValue,
    DescribedPlaces,
    Parameter,
    ProgramEntry,
    RowProducts,
    Symbol,
)
from tests.support.artifacts.by_hand import tensor

IDS = tensor("input_ids", "batch", "seq", dtype="int64")
MASK = tensor("attention_mask", "batch", "seq", dtype="int64")
POSITION = "POSITIONAL_OR_KEYWORD"


def make(
    *parameters: tuple[str, Any] | tuple[str, Any, str],
    inputs: tuple[Any, ...] = (IDS, MASK),
    symbols: dict[str, Symbol] | None = None,
    guards: tuple[str, ...] = (),
    **asked: Any,
) -> Inputs:
    symbols = {"batch": Symbol(1, None, 2), "seq": Symbol(2, 16, 8)} if symbols is None else symbols
    entries = [[p[0], p[1]] for p in parameters]
    kinds = tuple(Parameter(p[0], p[2] if len(p) == 3 else POSITION) for p in parameters)
    signature = CallSignature(kinds, {"dict": entries}, {"slot": 0})
    return Inputs.parse(ProgramEntry("main", inputs, (), symbols, guards, signature, (), **asked))


TWO = (("input_ids", {"slot": 0}), ("attention_mask", {"slot": 1}), ("use_cache", {"value": False}))


def ids(batch: int = 2, seq: int = 8) -> torch.Tensor:
    return torch.zeros(batch, seq, dtype=torch.int64)


def test_tensors_and_sizes_are_found_by_position_and_by_name() -> None:
    x, mask = ids(), ids() + 1
    for bound in (make(*TWO).bind((x, mask), {}), make(*TWO).bind((x,), {"attention_mask": mask, "use_cache": False})):
        assert bound.tensors[0] is x
        assert bound.tensors[1] is mask
        assert bound.sizes == {"batch": 2, "seq": 8}
        assert bound.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"argument `input_ids` is missing: expected int64\[batch, seq\]"),
        ((ids(),), {}, r"argument `attention_mask` is missing: expected int64\[batch, seq\]"),
        ((ids(), ids(), False, 1), {}, r"too many positional arguments; the model takes \(input_ids, attention_mask,"),
        ((ids(), ids()), {"labels": ids()}, "unexpected keyword argument 'labels'; the model takes"),
        ((ids(),), {"input_ids": ids()}, "multiple values for argument 'input_ids'"),
        ((ids(), ids(), True), {}, "argument `use_cache` was captured as False and is fixed; got True"),
        ((torch.zeros(2, 8), ids()), {}, r"`input_ids`: expected int64\[batch, seq\], got float32\[2, 8\]"),
        ((torch.zeros(8).long(), ids()), {}, r"`input_ids`: expected int64\[batch, seq\], got int64\[8\]"),
        (([[1, 2]], ids()), {}, r"`input_ids`: expected int64\[batch, seq\], got a list of 1"),
        ((ids(), None), {}, r"`attention_mask`: expected int64\[batch, seq\], got None"),
        ((ids(2), ids(3)), {}, "`batch` is 2 in `input_ids` and 3 in `attention_mask`"),
        ((ids(2, 1), ids(2, 1)), {}, "`seq` is 1 in `input_ids`; expected at least 2"),
        ((ids(2, 17), ids(2, 17)), {}, "`seq` is 17 in `input_ids`; expected at most 16"),
        ((ids().to("meta"), ids()), {}, "got a tensor on the meta device, which holds no data"),
        ((ids().to_sparse(), ids()), {}, "got a tensor of layout torch.sparse_coo"),
    ],
)
def test_a_wrong_call_is_refused(args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(*TWO).bind(args, kwargs)


def test_values_are_counted() -> None:
    inputs = make(*TWO, counts=(CountedValue("input_ids", 7, "2*batch"), CountedValue("attention_mask", 1, "3")))
    x, mask = ids(), ids()
    x[:, 4:6], mask[0, :3] = 7, 1
    assert inputs.bind((x, mask), {}).tensors[0] is x
    with pytest.raises(InputError, match=r"`attention_mask` holds the value 1 16 times; the other inputs ask for 3$"):
        inputs.bind((x, mask * 0 + 1), {})
    x[0, 4] = 0
    asked = r"input `input_ids` holds the value 7 3 times; the other inputs ask for 2\*batch = 4, as batch is 2"
    with pytest.raises(InputError, match=asked):
        inputs.bind((x, mask), {})
    with pytest.raises(ManifestError, match="the manifest counts values of `labels`, which is not an input"):
        make(*TWO, counts=(CountedValue("labels", 7, "3"),))


def test_values_are_counted_for_each_image_that_is_no_padding() -> None:
    symbols = {"batch": Symbol(1, None, 2), "seq": Symbol(2, 16, 8), "images": Symbol(1, None, 2)}
    pixels = tensor("pixels", "batch", "images", 3, 2)
    arguments = ("input_ids", {"slot": 0}), ("pixels", {"slot": 1})
    said = CountedValue("input_ids", 7, "2", "pixels")
    inputs = make(*arguments, inputs=(IDS, pixels), symbols=symbols, counts=(said,))
    x, given = ids(), torch.zeros(2, 2, 3, 2)
    given[0, 1, 2, 1], given[1] = -1.0, 1.0
    x[:, 4:7] = 7
    assert inputs.bind((x, given), {}).tensors[1] is given
    given[1, 0] = 0
    asked = r"holds the value 7 6 times; of its images `pixels` has 2 that are not all zeros, in 2 places each"
    with pytest.raises(InputError, match=asked):
        inputs.bind((x, given), {})


def test_products_of_rows_are_added_up() -> None:
    grids, patches = tensor("grid", "images", 3, dtype="int64"), tensor("patches", "patches", 4)
    symbols = {"images": Symbol(1, None, 2), "patches": Symbol(1, None, 8)}
    arguments = ("patches", {"slot": 0}), ("grid", {"slot": 1})
    said = RowProducts("grid", (1, 2, 2), "patches")
    inputs = make(*arguments, inputs=(patches, grids), symbols=symbols, row_products=(said,))
    grid = torch.tensor([[1, 2, 4], [2, 2, 2]])
    assert inputs.bind((torch.zeros(16, 4), grid), {}).tensors[1] is grid
    with pytest.raises(InputError, match=r"`grid` describes 16 rows in all; the other inputs have patches = 20$"):
        inputs.bind((torch.zeros(20, 4), grid), {})
    for row in ([1, 3, 4], [0, 2, 2], [-1, -2, 4]):
        said_of_row = re.escape(f"`grid` holds {row}; expected multiples of [1, 2, 2]")
        with pytest.raises(InputError, match=said_of_row):
            inputs.bind((torch.zeros(16, 4), torch.tensor([[1, 2, 4], row])), {})
    for wrong in (replace(said, input="grids"), replace(said, multiples=(1, 2))):
        with pytest.raises(ManifestError, match=r"the manifest multiplies rows of \d numbers of `grids?`, which is no"):
            make(*arguments, inputs=(patches, grids), symbols=symbols, row_products=(wrong,))


def test_runs_are_described_by_rows() -> None:
    grids, symbols = tensor("grid", "images", 3, dtype="int64"), {"images": Symbol(1, None, 2)}
    symbols |= {"batch": Symbol(1, None, 2), "seq": Symbol(2, 16, 8)}
    arguments = *TWO, ("grid", {"slot": 2})
    said = DescribedPlaces("input_ids", 7, "attention_mask", "grid", (1, 2, 2))
    inputs = make(*arguments, inputs=(IDS, MASK, grids), symbols=symbols, described=(said,))
    x, mask, grid = ids(), ids() + 1, torch.tensor([[1, 4, 4], [2, 2, 2], [1, 2, 2]])
    x[0, 1:5], x[0, 6:8], x[1, 0] = 7, 7, 7
    assert inputs.bind((x, mask, False, grid), {}).tensors[0] is x
    x[0, 4], mask[0, 4] = 0, 0  # what the mask leaves out is not there
    x[0, 5] = 7
    asked = r"`input_ids` has runs of 7 that are \[6, 1\] long; `grid` describes \[4, 2, 1\]$"
    with pytest.raises(InputError, match=asked):
        inputs.bind((x, mask, False, grid), {})
    for wrong in (replace(said, input="labels"), replace(said, mask="grid"), replace(said, divisors=(1, 2))):
        with pytest.raises(ManifestError, match=r"the manifest describes places in `.*` by `grid`, which are no such"):
            make(*arguments, inputs=(IDS, MASK, grids), symbols=symbols, described=(wrong,))


def test_places_are_described_by_sizes() -> None:
    pixels, sizes = tensor("pixels", "images", "height", "width"), tensor("sizes", "images", 2, dtype="int64")
    symbols = {name: Symbol(1, None, 8) for name in ("images", "height", "width", "batch", "seq")}
    arguments = *TWO[:1], ("pixels", {"slot": 1}), ("sizes", {"slot": 2})
    said = DescribedPlaces("input_ids", 7, "", "sizes", (2, 2), runs=False, most=("height", "width"))
    inputs = make(*arguments, inputs=(IDS, pixels, sizes), symbols=symbols, described=(said,))
    x, given = ids(), torch.tensor([[4, 5], [2, 2]])
    x[0, [1, 2, 4]], x[1, :2] = 7, 7
    assert inputs.bind((x, torch.zeros(2, 4, 5), given), {}).tensors[2] is given
    x[1, 1] = 0
    with pytest.raises(InputError, match=r"`input_ids` holds the value 7 4 times; `sizes` describes 4 \+ 1$"):
        inputs.bind((x, torch.zeros(2, 4, 5), given), {})
    for row in ([1, 4], [4, 6]):
        within = r"`sizes` holds \[\d, \d\]; expected at least \[2, 2\] and at most \[4, 5\]"
        with pytest.raises(InputError, match=within):
            inputs.bind((x, torch.zeros(2, 4, 5), torch.tensor([[2, 2], row])), {})


def test_fixed_dimensions_are_checked() -> None:
    inputs = make(("x", {"slot": 0}), inputs=(tensor("x", "batch", 4),), symbols={"batch": Symbol(1, None, 2)})
    with pytest.raises(InputError, match=r"`x`: expected float32\[batch, 4\], got float32\[2, 5\]"):
        inputs.bind((torch.zeros(2, 5),), {})


def test_derived_dimensions_are_checked() -> None:
    pair = (tensor("x", "n"), tensor("y", "2*n + 1"))
    inputs = make(("x", {"slot": 0}), ("y", {"slot": 1}), inputs=pair, symbols={"n": Symbol(1, None, 2)})
    assert inputs.bind((torch.zeros(2), torch.zeros(5)), {}).sizes == {"n": 2}
    with pytest.raises(InputError, match=r"dimension 0 of `y` is 4; expected 2\*n \+ 1 = 5, as n is 2"):
        inputs.bind((torch.zeros(2), torch.zeros(4)), {})


def test_guards_are_checked() -> None:
    image = tensor("image", "height", "width")
    symbols = {"height": Symbol(1, None, 8), "width": Symbol(1, None, 8)}
    guards = ("height % 8 == 0", "max(height, width) <= math.floor(64.5)")
    inputs = make(("image", {"slot": 0}), inputs=(image,), symbols=symbols, guards=guards)
    assert inputs.bind((torch.zeros(16, 3),), {}).sizes == {"height": 16, "width": 3}
    with pytest.raises(InputError, match=r"height is 9; the model was captured for sizes with height % 8 == 0"):
        inputs.bind((torch.zeros(9, 3),), {})
    with pytest.raises(InputError, match=r"height is 8 and width is 65; .* max\(height, width\)"):
        inputs.bind((torch.zeros(8, 65),), {})


def test_integers_are_sizes() -> None:
    symbols = {"n": Symbol(1, 9, 2)}
    inputs = make(("x", {"slot": 0}), ("length", {"size": "n"}), inputs=(tensor("x", "2*n"),), symbols=symbols)
    assert inputs.bind((torch.zeros(6), 3), {}).sizes == {"n": 3}
    with pytest.raises(InputError, match=r"dimension 0 of `x` is 5; expected 2\*n = 6, as n is 3"):
        inputs.bind((torch.zeros(5), 3), {})
    with pytest.raises(InputError, match="argument `length`: expected the integer n, got True"):
        inputs.bind((torch.zeros(2), True), {})
    with pytest.raises(InputError, match="`n` is 10 in `length`; expected at most 9"):
        inputs.bind((torch.zeros(20), 10), {})
    with pytest.raises(InputError, match="no tensor given shows the size `n`"):
        inputs.bind((torch.zeros(6),), {})


def test_a_derived_integer_may_be_left_out() -> None:
    inputs = make(
        ("x", {"slot": 0}), ("n", {"size": "2*b"}), inputs=(tensor("x", "b"),), symbols={"b": Symbol(1, 9, 2)}
    )
    assert inputs.bind((torch.zeros(3),), {}).sizes == inputs.bind((torch.zeros(3), 6), {}).sizes
    with pytest.raises(InputError, match=r"`n` is 7; expected 2\*b = 6, as b is 3"):
        inputs.bind((torch.zeros(3), 7), {})


def test_variable_arguments() -> None:
    inputs = make(
        ("xs", {"tuple": [{"slot": 0}]}, "VAR_POSITIONAL"),
        ("flag", {"value": 1}, "KEYWORD_ONLY"),
        ("rest", {"dict": [["mask", {"slot": 1}]]}, "VAR_KEYWORD"),
    )
    assert len(inputs.bind((ids(),), {"mask": ids()}).tensors) == 2
    with pytest.raises(InputError, match="argument `xs`: expected a tuple of 1, got a tuple of 0"):
        inputs.bind((), {"mask": ids()})
    with pytest.raises(InputError, match="argument `rest` has no `mask`"):
        inputs.bind((ids(),), {})


def test_a_parameter_with_a_container_of_tensors_must_be_given() -> None:
    inputs = make(("past", {"list": [{"tuple": [{"slot": 0}, {"slot": 1}]}]}))
    with pytest.raises(InputError, match=r"argument `past` is missing: expected items with int64\[batch, seq\], int64"):
        inputs.bind((), {})
    with pytest.raises(InputError, match=r"argument `past.0.1`: expected int64\[batch, seq\], got None"):
        inputs.bind(([(ids(), None)],), {})


def test_inputs_by_name() -> None:
    inputs = make(*TWO)
    assert inputs.bind_named({"attention_mask": ids(), "input_ids": ids()}).sizes == {"batch": 2, "seq": 8}
    with pytest.raises(InputError, match="input `attention_mask` is missing; the model takes input_ids, attention"):
        inputs.bind_named({"input_ids": ids()})
    with pytest.raises(InputError, match="there is no input `labels`"):
        inputs.bind_named({"input_ids": ids(), "attention_mask": ids(), "labels": ids()})


def test_a_model_without_tensors() -> None:
    bound = make(inputs=(), symbols={}).bind((), {})
    assert bound.tensors == ()
    assert bound.device is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(guards=("batch %",)), "'batch %', which is no expression"),
        (dict(guards=("depth > 1",)), "'depth > 1', but 'depth' is not one of its symbols"),
        (dict(inputs=(IDS,)), r"the manifest holds a malformed tree .* \{'slot': 1\}"),
        (dict(inputs=(IDS, MASK, IDS)), "do not hold each of its inputs once"),
        (dict(inputs=(IDS, tensor("m", 2, dtype="float33"))), "input `m` has the unknown dtype 'float33'"),
    ],
)
def test_a_damaged_manifest_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        make(*TWO, **options)


def test_arguments_of_other_parameters_are_refused() -> None:
    signature = CallSignature((Parameter("x", POSITION),), {"dict": [["y", {"slot": 0}]]}, {"slot": 0})
    with pytest.raises(ManifestError, match="the manifest's arguments are not those of its parameters"):
        Inputs.parse(ProgramEntry("main", (tensor("x", 2),), (), {}, (), signature, ()))


def test_what_was_captured_otherwise_than_by_default_is_passed_again() -> None:
    signature = CallSignature((Parameter("n", POSITION, optional=False),), {"dict": [["n", {"value": 3}]]}, {})
    inputs = Inputs.parse(ProgramEntry("main", (), (), {}, (), signature, ()))
    with pytest.raises(InputError, match="argument `n` was captured as 3, which is not its default; pass it again"):
        inputs.bind((), {})


def test_parameters_that_are_no_signature_are_refused() -> None:
    with pytest.raises(ManifestError, match=r"the manifest's parameters are no signature \("):
        make(("input_ids", {"slot": 0}, "SIDEWAYS"), ("attention_mask", {"slot": 1}))
