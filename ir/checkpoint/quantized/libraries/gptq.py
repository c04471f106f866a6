"""Weights of GPTQ, of AWQ, and of AutoRound, which packs them as one of these."""

from __future__ import annotations

from functools import partial

import torch

from ir.checkpoint.quantized.groups import Sources, Suffixes
from ir.checkpoint.quantized.libraries.layouts import StoredLayout, StoredTensors, group_count
from ir.checkpoint.quantized.libraries.packed_numbers import bits_that_fit, groups_of_columns
from ir.checkpoint.quantized.libraries.scaled_codes import Kinds, MethodSettings
from ir.checkpoint.quantized.packed import Awq, Gptq
from ir.checkpoint.quantized.scheme import Scheme
from ir.checkpoint.tensors import Held
from ir.errors import SourceError

_QWEIGHT = Suffixes(
    ".qweight", ".weight", {"codes": ".qweight", "zeros": ".qzeros", "scale": ".scales"}, {"g_idx": ".g_idx"}
)


def gptq_kinds(settings: MethodSettings) -> Kinds:
    """The kinds of GPTQ.  Raises SourceError for a form that is not read."""
    bits = int(settings.get("bits", 4))
    named = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    form = "marlin" if settings.get("is_marlin_format") else str(named)
    if not 2 <= bits <= 8 or form not in ("gptq", "gptq_v2"):
        raise SourceError(f"GPTQ of {bits} bits as {form} is not read; 2 to 8 bits as gptq or gptq_v2 are")
    return {_QWEIGHT: partial(_gptq_weight, bits, int(settings.get("group_size") or -1), form == "gptq")}


def _gptq_weight(bits: int, size: int, zeros_less_one: bool, parts: Sources) -> tuple[Scheme, Sources]:
    """Without the groups of the columns, where these are next to each other and divide the columns.

    Layers may have other bits than the settings say: GPTQModel's `dynamic`.
    """
    if parts["codes"].dtype != torch.int32:
        raise SourceError(
            f"layers in GPTQ that are packed into {str(parts['codes'].dtype).removeprefix('torch.')} are not read; "
            "save the model with pack_dtype=torch.int32"
        )
    named, bits = bits, bits_that_fit(parts["zeros"].shape[1], parts["scale"].shape[1], bits)
    if not bits:
        raise SourceError("layers in GPTQ are read if each has 2 to 8 bits; save the model so")
    if "g_idx" in parts and bits != named and not _fits(bits, *parts["codes"].shape[:1], *parts["g_idx"].shape):
        raise ValueError(f"zeros of {bits} bits, and codes of others")
    scheme, groups = Gptq(bits, zeros_less_one), parts["scale"].shape[0]
    columns = parts["codes"].shape[0] * 32 // bits
    if "g_idx" not in parts and size > 0 and columns != size * groups == size * -(-columns // size):
        return scheme, {**parts, "g_idx": Held((torch.arange(columns) // size).to(torch.int32))}
    if "g_idx" in parts:
        group = groups_of_columns(parts, groups)
        size = -(-len(group) // parts["scale"].shape[0])
        if torch.equal(group, torch.arange(len(group)) // size) and len(group) == size * parts["scale"].shape[0]:
            return scheme, {name: part for name, part in parts.items() if name != "g_idx"}
    return scheme, parts


def _fits(bits: int, words: int, columns: int) -> bool:
    """Whether so many words are filled by numbers of these bits, the last one partly, or the last 32 numbers."""
    return words in (-(-columns * bits // 32), -(-columns // 32) * bits)


def awq_kinds(settings: MethodSettings) -> Kinds:
    """The kinds of AWQ.  Raises SourceError for a form that is not read."""
    named = (settings.get(key) for key in ("version", "checkpoint_format", "format"))
    form = next((str(form).lower() for form in named if form and str(form).lower() != "gemm"), "gemm")
    if form != "gemm" or int(settings.get("bits", settings.get("w_bit", 4))) != 4:
        raise SourceError(f"AWQ in the format {form} is not read, of 4 bits in gemm it is; save the model so")
    return {_QWEIGHT: _awq_weight}


def _awq_weight(parts: Sources) -> tuple[Scheme, Sources]:
    if parts["codes"].dtype != torch.int32:
        raise SourceError(f"layers in AWQ are read if they are packed into int32, not {parts['codes'].dtype}")
    return Awq(), {name: part for name, part in parts.items() if name != "g_idx"}


def _packed_as(settings: MethodSettings) -> tuple[str, MethodSettings]:
    """The method in whose layout AutoRound packs weights, gptq or awq, and the settings that mean the same there.

    Raises SourceError for other layouts.
    """
    form, kind = str(settings.get("packing_format") or settings.get("backend")), settings.get("data_type") or "int"
    wide = int(settings.get("act_bits") or 16)
    if kind != "int" or wide <= 8:
        raise SourceError(
            f"AutoRound's weights of {kind}, or for activations of {wide} bits, are not read; export the "
            "model as int, for activations of 16 bits"
        )
    if "awq" in form:
        return "awq", {"bits": settings.get("bits", 4), "group_size": settings.get("group_size", 128)}
    zeros = "gptq" if "gptq" in form and "gptqmodel" not in form else "gptq_v2"
    return "gptq", {**settings, "checkpoint_format": zeros}


def auto_round_kinds(settings: MethodSettings) -> Kinds:
    """The kinds of AutoRound: those of the method in whose layout it packs weights."""
    method, same = _packed_as(settings)
    return awq_kinds(same) if method == "awq" else gptq_kinds(same)


def gptq_layout(settings: MethodSettings, weight: torch.Tensor) -> StoredLayout | None:
    """The stored tensors of a weight in GPTQ; None where bits or groups do not fit."""
    rows, columns = weight.shape[-2:]
    bits, groups = int(settings.get("bits", 4)), group_count(settings, columns)
    if not 2 <= bits <= 8 or rows * bits % 32 or columns * bits % 32 or not groups:
        return None
    order: StoredTensors = {"g_idx": ((columns,), torch.int32)} if settings.get("desc_act") else {}
    return Gptq(bits), {
        "codes": ((columns * bits // 32, rows), torch.int32),
        "zeros": ((groups, rows * bits // 32), torch.int32),
        "scale": ((groups, rows), torch.float16),
        **order,
    }


def awq_layout(settings: MethodSettings, weight: torch.Tensor) -> StoredLayout | None:
    """The stored tensors of a weight in AWQ; None where words or groups do not fit."""
    rows, columns = weight.shape[-2:]
    groups = group_count(settings, columns)
    if rows % 8 or not groups:
        return None
    return Awq(), {
        "codes": ((columns, rows // 8), torch.int32),
        "zeros": ((groups, rows // 8), torch.int32),
        "scale": ((groups, rows), torch.float16),
    }


def auto_round_layout(settings: MethodSettings, weight: torch.Tensor) -> StoredLayout | None:
    """The stored tensors of a weight of AutoRound."""
    method, same = _packed_as(settings)
    return awq_layout(same, weight) if method == "awq" else gptq_layout(same, weight)
