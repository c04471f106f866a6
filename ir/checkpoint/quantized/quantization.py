"""The quantization that a checkpoint folder names, and its tensors with the weights dequantized."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from ir.checkpoint.files import header_notes
from ir.checkpoint.formats.json_text import json_file
from ir.checkpoint.names import renamed_for
from ir.checkpoint.quantized.dequantized import Dequantized
from ir.checkpoint.quantized.groups import GroupedWeight, grouped, reading_weight
from ir.checkpoint.quantized.libraries.methods import KNOWN, QUANTIZATION_METHODS
from ir.checkpoint.quantized.libraries.scaled_codes import MethodSettings
from ir.checkpoint.quantized.libraries.torchao import SAID_BY_HEADER
from ir.checkpoint.quantized.transposed import Transposed, lies_across
from ir.checkpoint.tensors import Held, Stored, Tensorlike
from ir.errors import SourceError, in_one_line

_OF_ACTIVATIONS = (
    ".input_scale",
    "_input_scale",
    ".output_scale",
    ".activation_scale",
    ".input_zero_point",
    ".output_zero_point",
    ".input_global_scale",
    ".input_scale_ub",
    ".k_scale",
    ".v_scale",
    ".q_scale",
)
"""Endings of names of tensors that quantize activations, which stages do not."""

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
"""The dtypes of codes that are numbers, but for a scale."""


@dataclass(frozen=True)
class Quantization:
    """The method by which weights are quantized, and its settings."""

    method: str
    settings: MethodSettings

    def weights(self, tensors: Mapping[str, Tensorlike]) -> list[GroupedWeight]:
        """The quantized weights of a table.

        Raises SourceError that names the method, or the form of it, that is not read.
        """
        if self.method not in QUANTIZATION_METHODS:
            raise SourceError(
                f"weights quantized by {self.method} are not read, those of {KNOWN} are; "
                "save the model dequantized, or plan without its weights: --weights none"
            )
        with reading_settings(self.method):
            kinds = QUANTIZATION_METHODS[self.method].kinds(self.settings)
        said = _said_by_headers(tensors) if self.method == "torchao" else {}
        return list(grouped({**tensors, **said}, kinds))

    def dequantized(
        self,
        tensors: Mapping[str, Tensorlike],
        dtype: torch.dtype,
        layers: Mapping[str, nn.Module] = MappingProxyType({}),
    ) -> dict[str, Tensorlike]:
        """The table with each quantized weight in place of its stored tensors, and without those of activations.

        `layers` are the model's, by the names that it has for their weights.
        """
        weights = self.weights(tensors)
        taken = {name for weight in weights for name in weight.names.values()}
        rest = {n: t for n, t in tensors.items() if n not in taken and not n.endswith(_OF_ACTIVATIONS)}
        if lost := [name for name, tensor in rest.items() if name.endswith(".weight") and tensor.dtype in _FP8]:
            raise SourceError(
                f"{lost[0]} is {str(rest[lost[0]].dtype).removeprefix('torch.')} without the scale that "
                f"{self.method} has beside it; fetch the files again, or save the model anew"
            )
        found = {weight.name: Dequantized(weight.scheme, weight.parts, dtype) for weight in weights}
        for name, weight in found.items():
            with reading_weight(name):
                assert weight.shape is not None  # the formula is run without values
        for stored, name in renamed_for(layers, found).items() if QUANTIZATION_METHODS[self.method].own_layers else ():
            if name in layers and lies_across(layers[name]):
                found[stored] = replace(found[stored], scheme=Transposed(found[stored].scheme))
        return rest | found

    def of_activations(self, tensors: Mapping[str, Tensorlike]) -> bool:
        """Whether activations are quantized, too, as settings or stored scales say.  Raises SourceError."""
        with reading_settings(self.method):
            groups = (self.settings.get("config_groups") or {}).values()
            named = self.settings.get("activation_scheme") or any(group.get("input_activations") for group in groups)
        method = QUANTIZATION_METHODS.get(self.method)
        named = named or (method is not None and method.activations)
        named = named or "DynamicActivation" in str(self.settings.get("quant_type"))  # in the names of torchao's kinds
        return bool(named) or any(name.endswith(_OF_ACTIVATIONS) for name in tensors)


@contextmanager
def reading_settings(method: str) -> Iterator[None]:
    """Raise SourceError for settings of a method that are of another kind than those that it has."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError) as e:
        raise SourceError(
            f"the settings of {method} are not as it writes them ({in_one_line(e)}); fetch config.json again, "
            "or save the model anew"
        ) from e


def _said_by_headers(tensors: Mapping[str, Tensorlike]) -> dict[str, Held]:
    """The notes on weights in the headers of files, as bytes, by the names of tensors that would hold them."""
    files = {piece.file for tensor in tensors.values() if isinstance(tensor, Stored) for piece in tensor.pieces}
    notes = [note for file in files if file.suffix == ".safetensors" for note in header_notes(file).items()]
    return {
        name.removesuffix(".weight") + SAID_BY_HEADER: Held(torch.tensor(list(said.encode()), dtype=torch.uint8))
        for name, said in notes
        if name.endswith(".weight")
    }


def quantization_of(path: Path) -> Quantization | None:
    """The quantization of a checkpoint's folder, or of the folder of its file; None if it names none.

    It is in `config.json`, or in a file of its own beside that.  Raises SourceError where one cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    config = _json(folder / "config.json")
    text = config.get("text_config") or {}
    if isinstance(packed := config.get("quantization"), dict) and "group_size" in packed:
        return Quantization("mlx", packed)  # which has a quantization_config, too, without its name
    for found in (config.get("quantization_config"), config.get("compression_config"), text.get("quantization_config")):
        if isinstance(found, dict):
            return _quantization(found)
    if found := _json(folder / "hf_quant_config.json").get("quantization"):
        return Quantization("modelopt", found)
    if found := _json(folder / "quantize_config.json"):
        return _quantization({"quant_method": "awq" if "w_bit" in found else "gptq", **found})
    return None


def quantization_by_names(tables: Iterable[Mapping[str, Tensorlike]]) -> Quantization | None:
    """The quantization that names of tensors show where no settings are beside them, as in a state dict; else None."""
    endings = {
        ending
        for table in tables
        for name, tensor in table.items()
        for ending in _BY_NAMES
        if name.endswith(ending) and _beside_codes(name, tensor, ending, table)
    }
    return next((Quantization(method, {}) for ending, method in _BY_NAMES.items() if ending in endings), None)


def _beside_codes(name: str, tensor: Tensorlike, ending: str, table: Mapping[str, Tensorlike]) -> bool:
    """Whether a tensor of such a name is codes or their scales, and no weight that a user has given the name."""
    if ending == ".SCB":
        weight = table.get(f"{name.removesuffix(ending)}.weight")
        return weight is not None and weight.dtype not in _PLAIN
    return ending not in _OF_CODES or tensor.dtype not in _PLAIN


_BY_NAMES = {
    "_weight_qdata": "torchao",
    ".quant_state.bitsandbytes__nf4": "bitsandbytes",
    ".quant_state.bitsandbytes__fp4": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".W_q": "hqq",
    "._data": "quanto",
}
"""The methods whose tensors have names that end so."""

_OF_CODES = (".W_q", "._data")
"""Those that people give weights of their own, too, which are no codes."""

_PLAIN = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _quantization(found: Mapping[str, Any]) -> Quantization:
    method = found.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in found else "compressed-tensors")
    name = str(method).lower().replace("_", "-").replace("fbgemm-fp8", "fbgemm_fp8").removeprefix("intel/")
    return Quantization(name, found)


def _json(file: Path) -> dict[str, Any]:
    found = json_file(file) if file.is_file() else {}
    return found if isinstance(found, dict) else {}
