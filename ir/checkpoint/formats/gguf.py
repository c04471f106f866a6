"""GGUF files: tensors that the package `gguf` dequantizes, under the names that transformers has for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ir.checkpoint.tensors import BLOCK_ELEMENTS
from ir.errors import SourceError

SUFFIX = ".gguf"
CONVERT = (
    "transformers dequantizes it: AutoModelForCausalLM.from_pretrained(folder, gguf_file=name).save_pretrained(other); "
    "give that folder"
)
_DTYPES: Mapping[str, torch.dtype] = {"F16": torch.float16, "BF16": torch.bfloat16}  # others are read as float32
_KEEPING = ("TensorProcessor", "LlamaTensorProcessor", "Gemma2TensorProcessor", "NemotronTensorProcessor")
"""The classes by which transformers rearranges tensors of GGUF files that keep names and shapes."""
_WHOLE = ("GPT2TensorProcessor", "BloomTensorProcessor", "MambaTensorProcessor", "Lfm2TensorProcessor")
"""Those that change shapes or the order of elements: such tensors are read whole."""
_PERMUTED = (".attn_q.", ".attn_k.")  # in names of tensors whose rows change places


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
        return type(self.processor).__name__ in _KEEPING

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


def gguf_tensors(path: Path, model: nn.Module) -> dict[str, GgufTensor]:
    """The tensors of a file by the names that a model of transformers has for them, unread.

    Raises SourceError for a file that is not read.
    """
    library, transformers = gguf_package(path), import_module("transformers.modeling_gguf_pytorch_utils")
    try:
        reader = library.GGUFReader(path)
        architecture, parts = (transformers.read_field(reader, f) for f in ("general.architecture", "split.count"))
        config: Any = model.config
        processor = transformers.TENSOR_PROCESSORS.get(architecture[0], transformers.TensorProcessor)(config.to_dict())
        names = transformers.get_gguf_hf_weights_map(model, processor)
    except Exception as e:  # of the libraries
        raise SourceError(f"cannot read {path}: {type(e).__name__}: {e}") from e
    if parts and int(parts[0]) > 1:
        raise SourceError(f"{path} is one of {int(parts[0])} files; llama-gguf-split --merge makes one of them")
    if type(processor).__name__ not in (*_KEEPING, *_WHOLE):
        raise SourceError(f"{path} is of {architecture[0]}, whose tensors lie otherwise in GGUF: {CONVERT}")
    entries = {names[entry.name]: entry for entry in reader.tensors if entry.name in names}
    return {name: GgufTensor(entry, processor, library) for name, entry in entries.items()}


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file: a folder may have such a name, too."""
    return path.suffix == SUFFIX and path.is_file()


def gguf_package(path: Path) -> Any:
    """The package that reads GGUF files.  Raises SourceError where it is not installed."""
    try:
        return import_module("gguf")
    except ImportError as e:
        raise SourceError(f"{path} is a GGUF file, and {e.name} is not installed; pip install 'stagecut[gguf]'") from e
