"""The libraries that quantize checkpoints: how each names its tensors, and the scheme that its settings mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ir.checkpoint.quantized.four_bit_floats import Mxfp4Experts
from ir.checkpoint.quantized.groups import Suffixes
from ir.checkpoint.quantized.libraries.bitsandbytes import bitsandbytes_kinds
from ir.checkpoint.quantized.libraries.compressed_tensors import compressed_kinds
from ir.checkpoint.quantized.libraries.fp8 import fp8_kinds
from ir.checkpoint.quantized.libraries.gptq import auto_round_kinds, awq_kinds, gptq_kinds
from ir.checkpoint.quantized.libraries.hqq import hqq_kinds
from ir.checkpoint.quantized.libraries.modelopt import modelopt_kinds
from ir.checkpoint.quantized.libraries.quark import quark_kinds
from ir.checkpoint.quantized.libraries.scaled_codes import SCALE, Kinds, MethodSettings, scaled_codes
from ir.checkpoint.quantized.libraries.torchao import torchao_kinds

_BLOCKS = Suffixes("_blocks", "", {"codes": "_blocks", "scale": "_scales"})


_OF_METHODS: Mapping[str, Callable[[MethodSettings], Kinds]] = {
    "fp8": fp8_kinds,
    "fbgemm_fp8": lambda _: {SCALE: scaled_codes},
    "modelopt": modelopt_kinds,
    "compressed-tensors": compressed_kinds,
    "gptq": gptq_kinds,
    "awq": awq_kinds,
    "auto-round": auto_round_kinds,
    "mxfp4": lambda _: {_BLOCKS: lambda parts: (Mxfp4Experts(), parts)},
    "bitsandbytes": bitsandbytes_kinds,
    "torchao": torchao_kinds,
    "quark": quark_kinds,
    "hqq": hqq_kinds,
}

KNOWN = " and ".join(", ".join(_OF_METHODS).rsplit(", ", 1))  # "fp8, …, quark and hqq"


def kinds_of(method: str, settings: MethodSettings) -> Kinds | None:
    """The suffixes of a library, each with the function that makes a scheme of the tensors; None for an unknown method.

    Raises SourceError for a form of a known method that is not read.
    """
    return _OF_METHODS[method](settings) if method in _OF_METHODS else None
