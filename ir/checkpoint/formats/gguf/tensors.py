"""The tensors of a GGUF file under the names that transformers has for them, dequantized by the package `gguf`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from math import prod
from typing import Any

import torch
from torch import nn

from ir.checkpoint.formats.gguf.file import GgufFile
from ir.checkpoint.formats.gguf.layers import FalconProcessor, JoinedExperts, TurnedExperts
from ir.checkpoint.formats.gguf.settings import OF_ROTATIONS
from ir.checkpoint.tensors import BLOCK_ELEMENTS, Tensorlike
from ir.errors import SourceError, in_one_line
from ir.text.names import listed_names

CONVERT = (
    "transformers dequantizes it: AutoModelForCausalLM.from_pretrained(folder, gguf_file=name).save_pretrained(other); "
    "give that folder"
)
_DTYPES: Mapping[str, torch.dtype] = {"F16": torch.float16, "BF16": torch.bfloat16}  # others are read as float32
_KEEPING = ("TensorProcessor", "LlamaTensorProcessor", "Gemma2TensorProcessor", "NemotronTensorProcessor")
"""The classes by which transformers rearranges tensors of GGUF files that keep names and shapes."""
_OF_EXPERTS = ("Qwen2MoeTensorProcessor", "MiniMaxM2TensorProcessor")
"""Those that keep all but the gate of a shared expert, and experts, which are joined here."""
_WHOLE = (
    "GPT2TensorProcessor",
    "BloomTensorProcessor",
    "MambaTensorProcessor",
    "Lfm2TensorProcessor",
    "FalconProcessor",
)
"""Those that change shapes or the order of elements: such tensors are read whole."""
_PERMUTED = (".attn_q.", ".attn_k.")  # in names of tensors whose rows change places
_EXPERTS = re.compile(r".*\.(\d+)\.mlp\.experts\.(gate_up_proj|down_proj)(_bias)?")
_EXPERT_LAYER = re.compile(r"(blk\.\d+\.ffn_)(gate|up|down)(_exps\.(?:weight|bias))")


@dataclass(frozen=True, eq=False)
class GgufTensor:
    """A tensor in a GGUF file, which is mapped into memory.

    `entry` is the package's own, `processor` what transformers applies to its elements once `library`, the package,
    has dequantized them.
    """

    entry: Any
    processor: Any
    library: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        stored = tuple(int(size) for size in reversed(self.entry.shape))
        like = torch.tensor(-1.0).expand(stored).numpy()  # without memory
        return stored if self._keeps_rows else self._processed(like).shape

    @property
    def _keeps_rows(self) -> bool:
        kind = type(self.processor).__name__
        return kind in _KEEPING or (kind in _OF_EXPERTS and "_shexp" not in self.entry.name)

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES.get(self.entry.tensor_type.name, torch.float32)

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        return self._dequantized(self.entry.data, dtype).view(self.shape)

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        rows = self.entry.data
        step = len(rows)
        if self._keeps_rows and not any(part in self.entry.name for part in _PERMUTED):
            step = max(1, BLOCK_ELEMENTS * len(rows) // max(prod(self.shape), 1))
        for first in range(0, len(rows), step):
            yield self._dequantized(rows[first : first + step], dtype).flatten()

    def _dequantized(self, rows: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(self._processed(self.library.dequantize(rows, self.entry.tensor_type)).copy()).to(dtype)

    def _processed(self, wide: Any) -> Any:
        return self.processor.process(wide, self.entry.name, parsed_parameters={"tensors": {}}).weights


def gguf_tensors(file: GgufFile, model: nn.Module) -> dict[str, Tensorlike]:
    """The tensors of a file by the names that a model of transformers has for them, unread.

    Raises SourceError for a file that is not read, and for tensors that the model has no place for.
    """
    transformers = import_module("transformers.modeling_gguf_pytorch_utils")
    config: Any = model.config
    processors = {**transformers.TENSOR_PROCESSORS, "falcon": FalconProcessor}
    try:
        processor = processors.get(file.architecture, transformers.TensorProcessor)(config.to_dict())
        names = transformers.get_gguf_hf_weights_map(model, processor, file.architecture)
    except Exception as e:  # of the libraries
        raise SourceError(f"cannot read {file.path}: {in_one_line(e)}") from e
    if type(processor).__name__ not in (*_KEEPING, *_OF_EXPERTS, *_WHOLE):
        raise SourceError(f"{file.path} is of {file.architecture}, whose tensors lie otherwise in GGUF: {CONVERT}")
    _require_read(file)
    tensors = {name: GgufTensor(entry, processor, file.library) for name, entry in file.entries.items()}
    found, taken = _experts(tensors, model)
    for name, tensor in tensors.items():
        if name not in taken and (hf_name := names.get(name) or names.get(name.removesuffix(".weight"))):
            found[hf_name] = tensor
            taken.add(name)
    if left := [name for name in tensors if name not in taken and name not in OF_ROTATIONS]:
        raise SourceError(
            f"{file.path} has {listed_names(left)}, which {type(model).__name__} has no place for: give the "
            "checkpoint that it was made of"
        )
    return found


def _experts(tensors: Mapping[str, Tensorlike], model: nn.Module) -> tuple[dict[str, Tensorlike], set[str]]:
    """The weights of experts by the model's names for them, and the names that their tensors have in the file."""
    found, taken = dict[str, Tensorlike](), set[str]()
    named = {(f"{m[1]}.{m[2]}{m[3] or ''}"): name for name in model.state_dict() if (m := _EXPERTS.fullmatch(name))}
    of_kind = getattr(model.config, "model_type", "") == "gpt_oss"  # whose experts' weights lie turned, gates in turn
    for name, tensor in tensors.items():
        if (m := _EXPERT_LAYER.fullmatch(name)) is None or m[2] == "up":
            continue
        end = "_bias" if m[3].endswith("bias") else ""
        hf_name = named.get(f"{m[1].split('.')[1]}.{'down_proj' if m[2] == 'down' else 'gate_up_proj'}{end}")
        if hf_name is None:
            continue
        turned = of_kind and not end
        if m[2] == "down":
            found[hf_name] = TurnedExperts(tensor) if turned else tensor
        elif (up := tensors.get(f"{m[1]}up{m[3]}")) is not None:
            found[hf_name] = JoinedExperts(tensor, up, of_kind, turned)
            taken.add(f"{m[1]}up{m[3]}")
        taken.add(name)
    return found, taken


def _require_read(file: GgufFile) -> None:
    """Raise SourceError for a form that the package does not dequantize."""
    kinds = {entry.tensor_type.name: entry for entry in file.entries.values()}
    for kind, entry in kinds.items():
        try:
            file.library.dequantize(entry.data[:1], entry.tensor_type)
        except Exception as e:  # of the library
            raise SourceError(
                f"{file.path} has {entry.name} as {kind}, which the package gguf does not dequantize ({e}); "
                "llama-quantize makes another form of it"
            ) from e
