"""The Open Inference Protocol: what is read, what is answered, what is refused in one sentence."""

from __future__ import annotations

import json
import math
import struct
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import InputError
from runtime.manifest.manifest import Manifest, ProgramEntry, Tensor
from runtime.serving.arrays import Array, values_of
from runtime.serving.interface import Interface
from runtime.serving.protocols.oip import answer, metadata, read_request


def request(*inputs: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"inputs": inputs, **fields}).encode()


def x(data: Any = (1, 2), shape: Any = (2,), datatype: str = "INT64", **fields: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape, "data": data, **fields}


def test_nested_and_flat_lists_are_the_same_tensor() -> None:
    flat = read_request(request(x([1, 2, 3, 4], [2, 2])), None)
    nested = read_request(request(x([[1, 2], [3, 4]], [2, 2])), None)
    assert flat.arrays == nested.arrays == {"x": Array("int64", (2, 2), struct.pack("<4q", 1, 2, 3, 4))}


def test_tensors_may_follow_as_bytes() -> None:
    head = json.dumps(
        {
            "id": "7",
            "inputs": [
                {"name": "x", "datatype": "FP16", "shape": [2], "parameters": {"binary_data_size": 4}},
                {"name": "y", "datatype": "BOOL", "shape": [1], "parameters": {"binary_data_size": 1}},
            ],
            "outputs": [{"name": "a", "parameters": {"binary_data": True}}, {"name": "b"}],
            "parameters": {"timeout": 500000},
        }
    ).encode()
    asked = read_request(head + b"abcd\1", str(len(head)))
    assert {name: bytes(array.data) for name, array in asked.arrays.items()} == {"x": b"abcd", "y": b"\1"}
    assert (asked.id, asked.wanted, asked.seconds) == ("7", {"a": True, "b": False}, 0.5)
    made = {"b": Array("float32", (1,), struct.pack("<f", 0.5)), "a": Array("int8", (2,), b"\1\2")}
    body, length = answer("m", asked, made)
    assert length is not None
    assert body[length:] == b"\1\2"
    table = json.loads(body[:length])
    assert [entry["name"] for entry in table["outputs"]] == ["a", "b"]
    assert table["outputs"][1]["data"] == [0.5]


@given(st.lists(st.floats(width=32)))
def test_bfloat16_is_rounded_as_torch_does(numbers: list[float]) -> None:
    numbers = [n for n in numbers if math.isfinite(n)]
    array = read_request(request(x(numbers, [len(numbers)], "BF16")), None).arrays["x"]
    assert values_of(array) == torch.tensor(numbers, dtype=torch.float32).bfloat16().tolist()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the request is no JSON"),
        (b"[]", "the request is []; it must be an object"),
        (b"[" * 100_000, "the request is no JSON"),
        (b"{}", "the request has no list `inputs`"),
        (request(x(), x()), "input `x` is there twice"),
        (request({"name": "x"}), "input `x` has no text `datatype`"),
        (request(x(datatype="BYTES")), "input `x`: unknown datatype 'BYTES'; there are BOOL, "),
        (request(x(shape=[3])), "input `x` has 2 values; shape [3] asks for 3"),
        (request(x(shape=[-1])), "a size of `x` is -1; it must be a whole number"),
        (request(x([1.5, 2])), "input `x`: 1.5 is no INT64"),
        (request(x([True, False])), "input `x`: true is no INT64"),
        (request(x(["a", "b"])), 'input `x`: "a" is no INT64'),
        (request(x([1, 300], datatype="UINT8")), "input `x`: a value is out of the range of UINT8"),
        (request(x([1, 1e300], datatype="FP32")), "input `x`: a value is out of the range of FP32"),
        (
            b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [NaN]}]}',
            "the request holds NaN, which is no JSON; send the tensor as bytes",
        ),
        (request(x([1, [[[2]]]], [2]) | {"data": json.loads("[" * 40 + "]" * 40)}), "lists in lists, deeper than 32"),
        (request(x(parameters={"binary_data_size": 16})), "INT64 of shape [2]: 16 bytes, not 0"),
        (request(x(parameters={"shared_memory_region": "r"})), "shared memory is not supported"),
        (request(x(), outputs=[{"name": "y", "parameters": {"classification": 3}}]), "`classification` is not"),
        (
            request(x(), outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]),
            "`shared_memory_region` of an output is not supported",
        ),
        (request(x(), parameters=[]), "`parameters` is []; it must be an object"),
        (request(x(), outputs=5), "the request has no list `outputs`"),
        (request(x(shape=["2"])), 'a size of `x` is "2"; it must be a whole number'),
        (request(x([[1, 2], [3, 4], [5, 6]], [2, 3])), "lists of the sizes [3, 2], and `shape` says [2, 3]"),
        (request(x([[1, 2], [3]], [1, 3])), "lists of the sizes [2], and `shape` says [1, 3]"),
        (
            b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [-1e999]}]}',
            "out of the range of FP32",
        ),
        (b'{"inputs": [%s]}' % (b"9" * 5000), "a whole number of thousands of digits"),
        (b'{"inputs": [{"name": "\\uD800"}]}', "half of a surrogate pair"),
        ('{"inputs": []}'.encode("utf-16"), "the request is no JSON"),
    ],
)
def test_bad_requests_are_refused_in_one_sentence(body: bytes, message: str) -> None:
    with pytest.raises(InputError) as refused:
        read_request(body, None)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("length", "message"),
    [("99999", "says 99999"), ("-1", "a whole number"), ("9" * 5000, "a whole number"), ("2", "no list")],
)
def test_a_wrong_length_of_the_json_is_refused(length: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_request(b"{}" if length == "2" else request(x()), length)


def test_bytes_behind_the_last_tensor_are_refused() -> None:
    body = request(x())
    with pytest.raises(InputError, match="4 bytes follow the last tensor"):
        read_request(body + b"more", str(len(body)))


def test_outputs_that_json_cannot_hold_are_said() -> None:
    asked = read_request(request(x()), None)
    with pytest.raises(ValueError, match="NaN or an infinity, which JSON cannot"):
        answer("m", asked, {"y": Array("float32", (1,), struct.pack("<f", math.nan))})
    with pytest.raises(InputError, match="there is no output `z`; the model returns y"):
        answer("m", read_request(request(x(), outputs=[{"name": "z"}]), None), {"y": Array("int8", (1,), b"\1")})


def test_complex_numbers_are_pairs_of_real_ones() -> None:
    spectrum, signature = (Tensor("y", "complex64", ("batch", 3)),), cast("Any", None)
    program = ProgramEntry("main", spectrum, spectrum, {}, (), signature, ())
    interface = Interface(Manifest("m", (program,), (), {}, {}))
    told = metadata(interface, "m")["outputs"][0]
    assert (told["datatype"], told["shape"]) == ("FP32", [-1, 3, 2])
    assert told["parameters"] == {"sizes": "batch, 3, 2", "part": "y[:, -1]", "complex": True}
    pairs = Array("float32", (1, 3, 2), struct.pack("<6f", *range(6)))
    numbers = interface.given({"y": pairs})
    interface.check(numbers)
    assert numbers == {"y": Array("complex64", (1, 3), pairs.data)}
    body, _ = answer("m", read_request(request(x()), None), numbers)
    [output] = json.loads(body)["outputs"]
    assert (output["datatype"], output["shape"], output["data"]) == ("FP32", [1, 3, 2], [*range(6)])
