"""Quantized weights of a model without its files: the stored tensors that the settings give each weight."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from math import prod
from typing import Any, TypeAlias

import torch
from torch import nn

from ir.checkpoint.quantized.four_bit_floats import BitsAndBytes4Bit, BitsAndBytes8Bit, Fp4, Mxfp4Experts
from ir.checkpoint.quantized.kept import KeptWeight, hold_stored
from ir.checkpoint.quantized.libraries.fp8 import fine_grained_block
from ir.checkpoint.quantized.libraries.gptq import auto_round_layout
from ir.checkpoint.quantized.libraries.scaled_codes import MethodSettings
from ir.checkpoint.quantized.packed import Awq, Gptq, Hqq, ModelOptInt4, PackedRows, TorchaoInt4
from ir.checkpoint.quantized.scaled import Scaled
from ir.checkpoint.quantized.scheme import Scheme

_Layout: TypeAlias = tuple[Scheme, Mapping[str, tuple[tuple[int, ...], torch.dtype]]]
"""A scheme, with shape and dtype of each stored tensor, the codes first."""

_FP8, _BYTE, _WORD, _WIDE = torch.float8_e4m3fn, torch.uint8, torch.int32, torch.float32


def hold_planned(model: nn.Module, method: str, settings: MethodSettings) -> int:
    """Have a model hold stored tensors for the weights that `settings` quantize; returns the number of these weights.

    Linear layers and experts [experts, rows, columns] are, but those that the settings leave out.
    """
    known: Mapping[str, Callable[[MethodSettings, int, int, torch.dtype], _Layout | None]] = {
        "fp8": _blocks,
        "fbgemm_fp8": lambda _, rows, columns, dtype: _scaled(_FP8, rows, columns, (rows, 1), _WIDE),
        "modelopt": _modelopt,
        "compressed-tensors": _compressed_tensors,
        "gptq": _gptq,
        "awq": _awq,
        "mxfp4": lambda _, rows, columns, dtype: _mxfp4(rows, columns),
        "bitsandbytes": _bitsandbytes,
        "torchao": _torchao,
        "quark": _quark,
        "hqq": _hqq,
    }
    if method == "auto-round":
        method, settings = auto_round_layout(settings)
    count = 0
    for module, attribute in list(_weights(model, method, settings)) if method in known else ():
        weight: Any = module._parameters[attribute]
        *experts, rows, columns = weight.shape
        layout = known[method](settings, rows, columns, weight.dtype)
        if layout is not None:
            scheme, tensors = layout
            names = tuple((what, attribute if what == "codes" else f"{attribute}_{what}") for what in tensors)
            parts = {what: torch.empty((*experts, *n), dtype=d, device="meta") for what, (n, d) in tensors.items()}
            hold_stored(module, attribute, KeptWeight(scheme, names, weight.dtype), parts)
            count += 1
    return count


def _weights(model: nn.Module, method: str, settings: MethodSettings) -> Iterator[tuple[nn.Module, str]]:
    """The modules with a quantized weight, and its name there."""
    keys = ("modules_to_not_convert", "ignore", "exclude_modules", "llm_int8_skip_modules", "exclude", "skip_modules")
    left_out = [str(key) for name in keys for key in settings.get(name) or ()] or [_head(model)]
    for path, module in model.named_modules():
        if any(_names(key, path) for key in left_out):
            continue
        if (
            isinstance(module, nn.Linear)
            and method != "mxfp4"
            and not (method in ("gptq", "awq") and path == _head(model))
        ):
            yield module, "weight"
        if path.rpartition(".")[2] == "experts":
            yield from ((module, name) for name, p in module.named_parameters(recurse=False) if p.ndim == 3)


def _head(model: Any) -> str:
    """The path of the layer that makes logits."""
    find = getattr(model, "get_output_embeddings", None)
    head = find() if find is not None else None
    return next((path for path, module in model.named_modules() if module is head), "lm_head")


def _names(key: str, path: str) -> bool:
    """Whether a key of the settings names a module: its path, the beginning or the end of it, or a pattern."""
    if key.startswith("re:"):
        return re.match(key.removeprefix("re:"), path) is not None
    return fnmatch(path, key) or path.startswith(f"{key}.") or path.endswith(f".{key}")


def _scaled(
    codes: torch.dtype, rows: int, columns: int, scale: tuple[int, ...], dtype: torch.dtype, wide: bool = True
) -> _Layout:
    return Scaled(wide=wide), {"codes": ((rows, columns), codes), "scale": (scale, dtype)}


def _blocks(settings: MethodSettings, rows: int, columns: int, dtype: torch.dtype) -> _Layout:
    block = fine_grained_block(settings)
    if block is None:
        return _scaled(_FP8, rows, columns, (), _WIDE)
    scale = (-(-rows // block[0]), -(-columns // block[1]))
    return Scaled(block), {"codes": ((rows, columns), _FP8), "scale": (scale, _WIDE)}


def _fp4(rows: int, columns: int, group: int, scale: torch.dtype, whole: bool) -> _Layout | None:
    if columns % group:
        return None
    more: dict[str, tuple[tuple[int, ...], torch.dtype]] = {"global_scale": ((), _WIDE)} if whole else {}
    return Fp4(), {"codes": ((rows, columns // 2), _BYTE), "scale": ((rows, columns // group), scale), **more}


def _modelopt(settings: MethodSettings, rows: int, columns: int, dtype: torch.dtype) -> _Layout | None:
    if settings.get("quant_algo") is None:  # the cache alone is quantized
        return None
    algorithm, groups = str(settings["quant_algo"]), _groups(settings, columns)
    if "NVFP4" in algorithm:
        return _fp4(rows, columns, int(settings.get("group_size") or 16), _FP8, whole=True)
    if "MXFP4" in algorithm:
        return _fp4(rows, columns, 32, _BYTE, whole=False)
    if algorithm in ("W4A16_AWQ", "W4A8_AWQ"):
        whole = {"global_scale": ((), _WIDE)} if algorithm == "W4A8_AWQ" else {}
        codes = {"codes": ((rows // 2, columns), _BYTE), "scale": ((rows, groups), dtype), **whole}
        return (ModelOptInt4(), codes) if groups and rows % 2 == 0 else None
    if algorithm.startswith("W8"):
        return _scaled(torch.int8, rows, columns, (rows, 1), _WIDE)
    return _scaled(_FP8, rows, columns, (), _WIDE)


def _compressed_tensors(settings: MethodSettings, rows: int, columns: int, dtype: torch.dtype) -> _Layout | None:
    group: Any = next(iter((settings.get("config_groups") or {}).values()), None) or {}
    weights, form = group.get("weights") or {}, str(group.get("format") or settings.get("format"))
    bits, size = int(weights.get("num_bits", 8)), int(weights.get("group_size") or 0)
    if form.endswith("fp4-pack-quantized"):
        return _fp4(rows, columns, size or 16, _FP8 if "nv" in form else _BYTE, whole="nv" in form)
    groups = columns // size if size > 0 else 1
    if form != "pack-quantized":
        by_channel = weights.get("strategy") != "tensor"
        codes = torch.int8 if weights.get("type") == "int" else _FP8
        return _scaled(codes, rows, columns, (rows, groups) if by_channel else (), dtype, wide=False)
    if not 2 <= bits <= 8 or columns % groups or columns * bits % 32:
        return None
    scale: dict[str, tuple[tuple[int, ...], torch.dtype]] = {"scale": ((rows, groups), dtype)}
    zeros = {} if weights.get("symmetric", True) else {"zeros": ((-(-rows * bits // 32), groups), _WORD)}
    return PackedRows(bits, columns), {"codes": ((rows, columns * bits // 32), _WORD), **scale, **zeros}


def _gptq(settings: MethodSettings, rows: int, columns: int, dtype: torch.dtype) -> _Layout | None:
    bits, groups = int(settings.get("bits", 4)), _groups(settings, columns)
    if not 2 <= bits <= 8 or rows * bits % 32 or columns * bits % 32 or not groups:
        return None
    tensors = {
        "codes": ((columns * bits // 32, rows), _WORD),
        "zeros": ((groups, rows * bits // 32), _WORD),
        "scale": ((groups, rows), torch.float16),
    }
    order = {"g_idx": ((columns,), _WORD)} if settings.get("desc_act") else {}
    return Gptq(bits), {**tensors, **order}


def _awq(settings: MethodSettings, rows: int, columns: int, dtype: torch.dtype) -> _Layout | None:
    groups = _groups(settings, columns)
    if rows % 8 or not groups:
        return None
    return Awq(), {
        "codes": ((columns, rows // 8), _WORD),
        "zeros": ((groups, rows // 8), _WORD),
        "scale": ((groups, rows), torch.float16),
    }


def _quark(settings: MethodSettings, rows: int, columns: int, dtype: torch.dtype) -> _Layout | None:
    spec: Any = (settings.get("global_quant_config") or {}).get("weight")
    kind = spec.get("dtype") if isinstance(spec, Mapping) else None
    if kind == "fp4":
        return _fp4(rows, columns, int(spec.get("group_size") or 32), _BYTE, whole=False)
    if kind in ("int4", "uint4"):
        layout = _awq({"group_size": spec.get("group_size")}, rows, columns, dtype)
        return layout and (Awq(kind == "int4"), layout[1])
    if kind not in ("fp8_e4m3", "int8"):
        return None
    scale = (rows,) if spec.get("qscheme") == "per_channel" else ()
    return _scaled(_FP8 if kind == "fp8_e4m3" else torch.int8, rows, columns, scale, _WIDE)


def _hqq(settings: MethodSettings, rows: int, columns: int, dtype: torch.dtype) -> _Layout | None:
    said: Any = (settings.get("quant_config") or {}).get("weight_quant_params") or {}
    bits, size, count = said.get("nbits"), said.get("group_size"), rows * columns
    if bits not in (1, 2, 4, 8) or not size or count % size or (count // size * bits) % 8 or size * bits % 8:
        return None
    groups = count // size
    across = said.get("axis", 1) == 0  # groups are columns
    codes = (size * bits // 8, groups) if across else (groups * bits // 8, size)
    scale = ((1, groups) if across else (groups, 1)), dtype
    return Hqq(bits, (rows, columns)), {"codes": (codes, _BYTE), "scale": scale, "zeros": scale}


def _groups(settings: MethodSettings, columns: int) -> int:
    """The number of groups of columns; 0 where they do not divide them."""
    size = int(settings.get("group_size") or settings.get("q_group_size") or 128)
    return 1 if size < 0 else 0 if columns % size else columns // size


def _torchao(settings: MethodSettings, rows: int, columns: int, dtype: torch.dtype) -> _Layout | None:
    kinds: Any = settings.get("quant_type")
    kind = (kinds.get("default") if isinstance(kinds, dict) else None) or {}
    if "Int4" not in str(kind.get("_type")):
        return _scaled(torch.int8, rows, columns, (rows, 1), dtype)
    groups = -(-columns // int((kind.get("_data") or {}).get("group_size", 128)))
    scale = (groups, rows), dtype
    return TorchaoInt4(), {"codes": ((rows, columns // 2), torch.int8), "scale": scale, "zeros": scale}


def _mxfp4(rows: int, columns: int) -> _Layout | None:
    if rows % 32:
        return None
    return Mxfp4Experts(), {"codes": ((columns, rows // 32, 16), _BYTE), "scale": ((columns, rows // 32), _BYTE)}


def _bitsandbytes(settings: MethodSettings, rows: int, columns: int, dtype: torch.dtype) -> _Layout | None:
    if not settings.get("load_in_4bit"):
        return BitsAndBytes8Bit(), {"codes": ((rows, columns), torch.int8), "scale": ((rows,), _WIDE)}
    if rows * columns % 64:
        return None
    nested = bool(settings.get("bnb_4bit_use_double_quant"))
    blocks = prod((rows, columns)) // 64
    scheme = BitsAndBytes4Bit((rows, columns), dtype, 64, 256 if nested else 0)
    coarse: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "nested_absmax": ((-(-blocks // 256),), _WIDE),
        "nested_table": ((256,), _WIDE),
    }
    return scheme, {
        "codes": ((rows * columns // 2, 1), _BYTE),
        "absmax": ((blocks,), _BYTE if nested else _WIDE),
        "table": ((16,), _WIDE),
        **(coarse if nested else {}),
    }
