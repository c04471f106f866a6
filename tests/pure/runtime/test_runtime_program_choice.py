"""Which of several programs a call runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from runtime import InputError
from runtime.call.programs import Programs
from runtime.manifest.manifest import CallSignature, Manifest, Parameter, ProgramEntry, Symbol, Tensor


def program(name: str, *, mode: Any = None, high: int | None = None) -> ProgramEntry:
    """A program that takes `x` of shape [rows, 4], with at most `high` rows, and the fixed value `mode`."""
    parameters = tuple(Parameter(p, "POSITIONAL_OR_KEYWORD", optional=False) for p in ("x", "mode"))
    arguments = {"dict": [["x", {"slot": 0}], ["mode", {"value": mode}]]}
    x, y = (Tensor(n, "float32", ("rows", 4)) for n in "xy")
    signature = CallSignature(parameters, arguments, {"slot": 0})
    return ProgramEntry(name, (x,), (y,), {"rows": Symbol(1, high, 2)}, (), signature, ())


def programs(*entries: ProgramEntry) -> Programs:
    return Programs.parse(Manifest("model", entries, (), {}, {}))


def x(rows: int = 2) -> torch.Tensor:
    return torch.zeros(rows, 4)


def test_the_first_program_that_a_call_fits_runs_it() -> None:
    found = programs(program("short", high=4), program("long", high=64))
    assert [found.bind((x(rows), None), {}).program for rows in (1, 4, 5, 64)] == [0, 0, 1, 1]
    assert [found.bind_named({"x": x(rows)}).program for rows in (4, 5)] == [0, 1]
    assert found.program_of(found.bind((x(5), None), {})).entry.name == "long"


def test_a_call_of_one_program_is_refused_in_its_words() -> None:
    with pytest.raises(InputError, match=r"^`rows` is 5 in `x`; expected at most 4$"):
        programs(program("main", high=4)).bind((x(5), None), {})


def test_a_call_that_fits_none_is_refused_in_the_words_of_all() -> None:
    found = programs(program("plain"), program("fast", mode="fast", high=4))
    assert found.bind((x(), "fast"), {}).program == 1
    with pytest.raises(InputError) as raised:
        found.bind((x(5), "fast"), {})
    assert str(raised.value) == (
        "none of the 2 programs takes this call:\n"
        "  plain: argument `mode` was captured as None and is fixed; got 'fast'\n"
        "  fast: `rows` is 5 in `x`; expected at most 4"
    )


def test_tensors_alone_that_fit_two_programs_are_refused() -> None:
    found = programs(program("plain"), program("fast", mode="fast", high=4))
    assert found.bind_named({"x": x(5)}).program == 0
    with pytest.raises(InputError, match="the programs plain and fast both take these tensors; they differ in other"):
        found.bind_named({"x": x(4)})
