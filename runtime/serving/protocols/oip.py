"""The Open Inference Protocol, version 2: requests and answers as JSON, with tensors in it or as bytes behind it.

https://github.com/kserve/open-inference-protocol, and Triton's extension for binary tensors, which KServe has, too.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from runtime.errors import InputError
from runtime.manifest.manifest import Tensor
from runtime.options import is_whole_number
from runtime.serving.arrays import REAL_PARTS, Array, in_real_numbers, nbytes_of, packed, values_of
from runtime.serving.interface import Interface

# The protocol's names of dtypes, by torch's.
DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "bfloat16": "BF16", "float32": "FP32",
    "float64": "FP64",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in DATATYPES.items()}
_DEEPEST = 32  # lists in lists: a tensor has fewer dimensions
HEADER_LENGTH = "inference-header-content-length"


@dataclass(frozen=True)
class Asked:
    """A request: its id, its inputs, and the outputs that it wants."""

    id: str
    arrays: dict[str, Array]
    wanted: dict[str, bool]  # an output, or a part as `logits[:, -1]` -> whether as bytes; empty: all
    binary: bool  # whether outputs that are not named come as bytes
    seconds: float | None  # that it waits

    def as_bytes(self, name: str) -> bool:
        return self.wanted.get(name, self.binary)


def metadata(interface: Interface, name: str) -> dict[str, Any]:
    """The answer to `GET /v2/models/NAME`: -1 for a size that may change; of outputs, how a part is asked for.

    Complex numbers, which the protocol does not have, are pairs of real ones.
    """
    return {
        "name": name,
        "versions": ["1"],
        "platform": "stagecut",
        "inputs": [_described(tensor) for tensor in interface.inputs],
        "outputs": [_described(tensor, part=len(tensor.shape) > 1) for tensor in interface.outputs],
    }


def _described(tensor: Tensor, part: bool = False) -> dict[str, Any]:
    dtype, dims = tensor.dtype, tensor.shape
    if dtype in REAL_PARTS:
        dtype, dims = REAL_PARTS[dtype], (*dims, 2)
    shape = [dim if isinstance(dim, int) else -1 for dim in dims]
    told: dict[str, Any] = {"sizes": ", ".join(map(str, dims))} if -1 in shape else {}
    told |= {"part": f"{tensor.name}[:, -1]"} if part else {}
    told |= {"complex": True} if tensor.dtype in REAL_PARTS else {}
    described = {"name": tensor.name, "datatype": DATATYPES.get(dtype, dtype), "shape": shape}
    return {**described, "parameters": told} if told else described


def read_request(body: bytes, header_length: str | None) -> Asked:
    """The request in a body, whose first `header_length` bytes are JSON where tensors follow as bytes.

    Raises InputError.
    """
    length = _length_told(header_length) if header_length is not None else len(body)
    if length > len(body):
        raise InputError(f"the body has {len(body)} bytes, and the header {HEADER_LENGTH} says {length}")
    return read_table(read_json(body[:length]), memoryview(body)[length:])


def _length_told(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise InputError(f"the header {HEADER_LENGTH} is {json.dumps(text)[:40]}; it must be a whole number")
    return int(text)


def read_table(value: Any, tail: bytes | memoryview = b"") -> Asked:
    """The request in JSON that is read already, and the bytes that follow it.  Raises InputError."""
    table, binary, arrays = _table(value, "the request"), memoryview(tail), {}
    for entry in _list(table, "inputs", "the request"):
        name, array, used = _input(entry, binary)
        if name in arrays:
            raise InputError(f"input `{name}` is there twice")
        arrays[name], binary = array, binary[used:]
    if binary:
        raise InputError(f"{len(binary)} bytes follow the last tensor")
    parameters = _table(table.get("parameters", {}), "`parameters`")
    all_binary = bool(parameters.get("binary_data_output", False))
    wanted = read_outputs(table, all_binary)
    timeout = parameters.get("timeout")
    seconds = None if timeout is None else _whole(timeout, "`timeout`, in microseconds,") / 1e6
    return Asked(str(table.get("id", "")), arrays, wanted, all_binary, seconds)


def read_outputs(table: Mapping[str, Any], binary: bool = False) -> dict[str, bool]:
    """The outputs, or parts of them, that a request asks for, and whether each as bytes.  Raises InputError."""
    wanted = {}
    for entry in _list(table, "outputs", "the request") if table.get("outputs") is not None else ():
        output = _table(entry, "an entry of `outputs`")
        given = _table(output.get("parameters", {}), "`parameters` of an output")
        if "classification" in given:
            raise InputError("`classification` is not supported; ask for the output itself")
        if "shared_memory_region" in given:
            raise InputError("`shared_memory_region` of an output is not supported; take the tensor")
        wanted[_text(output, "name", "an output")] = bool(given.get("binary_data", binary))
    return wanted


def _input(entry: Any, binary: memoryview) -> tuple[str, Array, int]:
    """Name and array of an input, and how many bytes it took of those behind the JSON."""
    table = _table(entry, "an entry of `inputs`")
    name = _text(table, "name", "an input")
    datatype = _text(table, "datatype", f"input `{name}`")
    if datatype not in _DTYPES:
        raise InputError(f"input `{name}`: unknown datatype {datatype!r}; there are {', '.join(_DTYPES)}")
    dtype, shape = _DTYPES[datatype], tuple(_whole(n, f"a size of `{name}`") for n in _list(table, "shape", name))
    parameters = _table(table.get("parameters", {}), f"`parameters` of input `{name}`")
    if "shared_memory_region" in parameters:
        raise InputError(f"input `{name}`: shared memory is not supported; send the tensor")
    size = nbytes_of(dtype, shape)
    if (given := parameters.get("binary_data_size")) is not None:
        given = _whole(given, f"`binary_data_size` of input `{name}`")
        if given != size or len(binary) < size:
            there = min(given, len(binary))
            raise InputError(f"input `{name}` is {datatype} of shape {list(shape)}: {size} bytes, not {there}")
        return name, Array(dtype, shape, binary[:size]), size
    data = _list(table, "data", f"input `{name}`")
    values = list(_flat(data))
    if data and isinstance(data[0], list) and (nested := _nested(data)) != shape:
        raise InputError(f"input `{name}` has lists of the sizes {[*nested]}, and `shape` says {[*shape]}")
    if len(values) != math.prod(shape):
        raise InputError(f"input `{name}` has {len(values)} values; shape {list(shape)} asks for {math.prod(shape)}")
    return name, Array(dtype, shape, _packed(name, dtype, values)), 0


def _flat(values: Sequence[Any], depth: int = 0) -> Iterator[Any]:
    """The numbers of a list, or of lists in it."""
    if not any(isinstance(value, list) for value in values):
        return iter(values)
    if depth == _DEEPEST:
        raise InputError(f"`data` has lists in lists, deeper than {_DEEPEST}")
    return chain.from_iterable(_flat(value, depth + 1) if isinstance(value, list) else (value,) for value in values)


def _nested(data: Sequence[Any]) -> tuple[int, ...]:
    """The sizes of lists in lists, as deep as all of a level are alike."""
    if not data or not isinstance(data[0], list):
        return (len(data),)
    first, *others = (_nested(part) if isinstance(part, list) else () for part in data)
    return (len(data), *(first if all(other == first for other in others) else ()))


def _packed(name: str, dtype: str, values: list[Any]) -> bytes:
    kinds = bool if dtype == "bool" else int if "int" in dtype else (int, float)
    if math.inf in values or -math.inf in values:  # as which Python reads 1e999
        raise InputError(f"input `{name}`: a value is out of the range of {DATATYPES[dtype]}")
    for value in values:
        if not isinstance(value, kinds) or (isinstance(value, bool) and dtype != "bool"):
            raise InputError(f"input `{name}`: {json.dumps(value)[:40]} is no {DATATYPES[dtype]}")
    try:
        return packed(dtype, values)
    except (struct.error, OverflowError):
        raise InputError(f"input `{name}`: a value is out of the range of {DATATYPES[dtype]}") from None


def answer(name: str, asked: Asked, outputs: Mapping[str, Array]) -> tuple[bytes, int | None]:
    """The body of an answer, and how many of its bytes are JSON; None if all are.

    Raises InputError for an output that the model has not, ValueError for one that JSON cannot hold.
    """
    for wanted in asked.wanted:
        if wanted not in outputs:
            raise InputError(f"there is no output `{wanted}`; the model returns {', '.join(outputs)}")
    chosen = asked.wanted or dict.fromkeys(outputs)
    entries, binary = [], []
    for output in chosen:
        array = in_real_numbers(outputs[output])
        entry: dict[str, Any] = {"name": output, "datatype": DATATYPES[array.dtype], "shape": list(array.shape)}
        if asked.as_bytes(output):
            entry["parameters"] = {"binary_data_size": len(array.data)}
            binary.append(array.data)
        else:
            entry["data"] = values_of(array)
        entries.append(entry)
    table = {"model_name": name, "model_version": "1", "outputs": entries}
    if asked.id:
        table["id"] = asked.id
    try:
        head = json.dumps(table, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise ValueError("an output holds NaN or an infinity, which JSON cannot; ask for binary_data") from None
    return b"".join((head, *binary)), len(head) if binary else None


# ---- JSON that is what it must be


def read_json(text: bytes) -> Any:
    """The JSON of a body.  Raises InputError."""

    def refuse(constant: str) -> None:
        raise InputError(f"the request holds {constant}, which is no JSON; send the tensor as bytes")

    try:
        value = json.loads(text.decode("utf-8-sig"), parse_constant=refuse)
        if b"\\ud" in text.lower():  # half of a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except InputError:
        raise
    except UnicodeEncodeError:
        raise InputError("the request holds half of a surrogate pair, which is no text") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InputError(f"the request is no JSON: {e}") from None
    except ValueError:
        raise InputError("the request holds a whole number of thousands of digits") from None


def _table(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{what} is {json.dumps(value)[:40]}; it must be an object")
    return value


def _list(table: Mapping[str, Any], key: str, whose: str) -> list[Any]:
    if not isinstance(value := table.get(key), list):
        raise InputError(f"{whose} has no list `{key}`")
    return value


def _text(table: Mapping[str, Any], key: str, whose: str) -> str:
    if not isinstance(value := table.get(key), str):
        raise InputError(f"{whose} has no text `{key}`")
    return value


def _whole(value: Any, what: str) -> int:
    """A whole number that is not negative."""
    if not is_whole_number(value) or value < 0:
        raise InputError(f"{what} is {json.dumps(value)[:40]}; it must be a whole number")
    return value
