"""The libraries that quantize checkpoints: how each names its tensors, and the scheme that its settings mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch

from ir.checkpoint.formats.json_text import parsed_json
from ir.checkpoint.quantized.four_bit_floats import BitsAndBytes4Bit, BitsAndBytes8Bit, Fp4, Mxfp4Experts
from ir.checkpoint.quantized.groups import Sources, Suffixes
from ir.checkpoint.quantized.packed import Awq, Gptq, ModelOptInt4, PackedRows, TorchaoInt4, TorchaoTiles
from ir.checkpoint.quantized.scaled import Scaled, Swizzled
from ir.checkpoint.quantized.scheme import Scheme
from ir.checkpoint.quantized.smoothed import Smoothed
from ir.checkpoint.tensors import Held
from ir.errors import SourceError

MethodSettings: TypeAlias = Mapping[str, Any]
"""The fields of a `quantization_config`."""

SAID_BY_HEADER = "._weight_header"
"""The ending of the name of what a file's header says of a weight, as bytes of JSON: torchao's shapes and orders."""

Kinds: TypeAlias = Mapping[Suffixes, Callable[[Sources], tuple[Scheme, Sources]]]

_ZEROS, _COLUMNS = {"zeros": "_zero_point"}, {"g_idx": "_g_idx"}
_SCALE_INV = Suffixes("_scale_inv", "", {"codes": "", "scale": "_scale_inv"})
_SHORT_SCALE = Suffixes(".scale", ".weight", {"codes": ".weight", "scale": ".scale"})
_SCALE = Suffixes("_scale", "", {"codes": "", "scale": "_scale"}, {**_ZEROS, "global_scale": "_scale_2"})
_LAYER = Suffixes(
    ".weight_scale",
    ".weight",
    {"codes": ".weight", "scale": ".weight_scale"},
    {
        "global_scale": ".weight_scale_2",
        "pre_scale": ".pre_quant_scale",
        "low_rank": ".svdquant_lora_a",
    },
)
_PACKED = Suffixes(
    "_packed",
    "",
    {"codes": "_packed", "scale": "_scale"},
    {**_ZEROS, **_COLUMNS, "shape": "_shape", "global_scale": "_global_scale"},
)
_SPARSE = Suffixes(".bitmask", ".weight", {"codes": ".compressed", "mask": ".bitmask"})
_BLOCKS = Suffixes("_blocks", "", {"codes": "_blocks", "scale": "_scales"})
_QWEIGHT = Suffixes(
    ".qweight", ".weight", {"codes": ".qweight", "zeros": ".qzeros", "scale": ".scales"}, {"g_idx": ".g_idx"}
)
_SCB = Suffixes(".SCB", ".weight", {"codes": ".weight", "scale": ".SCB"}, {"format": ".weight_format"})
_QDATA = Suffixes(
    "._weight_qdata",
    ".weight",
    {"codes": "._weight_qdata", "scale": "._weight_scale"},
    {
        "zeros": "._weight_zero_point",
        "pre_scale": "._weight_act_pre_scale",
        "global_scale": "._weight_per_tensor_scale",
        "said": SAID_BY_HEADER,
    },
)
_TILES, _SHUFFLED = (
    Suffixes(
        f"._weight_{scale}",
        ".weight",
        {"codes": "._weight_qdata", "scale": f"._weight_{scale}"},
        {"pre_scale": "._weight_act_pre_scale", "said": SAID_BY_HEADER},
    )
    for scale in ("scale_and_zero", "group_scale")
)
_NF4, _FP4 = (
    Suffixes(
        f".quant_state.bitsandbytes__{kind}",
        "",
        {"codes": "", "absmax": ".absmax", "table": ".quant_map", "state": f".quant_state.bitsandbytes__{kind}"},
        {"nested_absmax": ".nested_absmax", "nested_table": ".nested_quant_map"},
    )
    for kind in ("nf4", "fp4")
)


def kinds_of(method: str, settings: MethodSettings) -> Kinds | None:
    """The suffixes of a library, each with the function that makes a scheme of the tensors; None for an unknown method.

    Raises SourceError for a form of a known method that is not read.
    """
    known: Mapping[str, Callable[[MethodSettings], Kinds]] = {
        "fp8": _fine_grained,
        "fbgemm_fp8": lambda _: {_SCALE: _scaled},
        "modelopt": _modelopt,
        "compressed-tensors": _compressed_tensors,
        "gptq": _gptq,
        "awq": _awq,
        "auto-round": _auto_round,
        "mxfp4": lambda _: {_BLOCKS: lambda parts: (Mxfp4Experts(), parts)},
        "bitsandbytes": lambda _: {_SCB: _eight_bit, _NF4: _four_bit, _FP4: _four_bit},
        "torchao": lambda _: {_QDATA: _torchao, _TILES: _torchao_tiles, _SHUFFLED: _for_one_kernel},
    }
    return known[method](settings) if method in known else None


KNOWN = "fp8, fbgemm_fp8, modelopt, compressed-tensors, gptq, awq, auto-round, mxfp4, bitsandbytes and torchao"


def _scaled(parts: Sources, block: tuple[int, int] | None = None, wide: bool = True) -> tuple[Scheme, Sources]:
    """Codes and scales; integers that the scales say are two to a byte are FP4."""
    codes = parts["codes"]
    if "global_scale" in parts or (codes.dtype in (torch.int8, torch.uint8) and parts["scale"].dtype.itemsize == 1):
        return Fp4(), parts
    if codes.dtype.itemsize > 1:
        raise ValueError(f"{codes.dtype} in place of codes, as before the model is compressed")
    _check_blocks(codes.shape, parts["scale"].shape, block)
    return Scaled(block, wide), parts


def _check_blocks(codes: tuple[int, ...], scale: tuple[int, ...], block: tuple[int, int] | None) -> None:
    """Raise ValueError for scales that are neither those of blocks of this size nor of blocks that divide the codes."""
    sizes = (*(1,) * (len(codes) - 2), *(block or (0, 0))[-len(codes) :])
    for n, count, size in zip(codes, (*scale, *(1,) * len(codes)), sizes, strict=False):
        if count == 0 or (n % count if not size else count not in (1, n, -(-n // size))):
            raise ValueError(
                f"scales {list(scale)} of codes {list(codes)}" + (f" in blocks of {block}" if block else "")
            )


def fine_grained_block(settings: MethodSettings) -> tuple[int, int] | None:
    """The rows and columns of fp8's blocks: 128 where the settings name none, as in transformers; None for null."""
    return _block(settings.get("weight_block_size", (128, 128)))


def _fine_grained(settings: MethodSettings) -> Kinds:
    block = fine_grained_block(settings)
    if block is None or "weight_block_size" in settings:
        scaled = partial(_scaled, block=block)
    else:
        scaled = partial(_in_blocks, [block], wide=True)
    return {_SCALE_INV: scaled, _SHORT_SCALE: scaled}


def _block(size: Any) -> tuple[int, int] | None:
    return (int(size[0]), int(size[1])) if size else None


_OF_MODELOPT = (
    "FP8",
    "FP8_PER_CHANNEL_PER_TOKEN",
    "FP8_PB_WO",
    "MXFP8",
    "W4A16_AWQ",
    "W4A8_AWQ",
    "W8A16",
    "W8A8_SQ_PER_CHANNEL",
    "NVFP4",
    "NVFP4_AWQ",
    "W4A16_NVFP4",
    "W4A8_MXFP4_FP8",
    "W4A8_NVFP4_FP8",
    "MIXED_PRECISION",
)
"""ModelOpt's algorithms whose weights are read."""


def _modelopt(settings: MethodSettings) -> Kinds:
    for algorithm in (settings, *(settings.get("quantized_layers") or {}).values()):
        if (name := str(algorithm.get("quant_algo"))) not in _OF_MODELOPT:
            raise SourceError(f"ModelOpt's {name} is not read; export the model as FP8 or NVFP4, or unquantized")
    return {_LAYER: _of_layer, _SCALE: _scaled}


def _of_layer(parts: Sources) -> tuple[Scheme, Sources]:
    """The weight of a layer of ModelOpt, whose inputs may be scaled."""
    if "low_rank" in parts:
        raise SourceError("ModelOpt's weights with a part of low rank are not read; export the model as NVFP4")
    two_to_a_byte = parts["codes"].dtype == torch.uint8 and parts["scale"].dtype.itemsize > 1
    scheme: Scheme = ModelOptInt4() if two_to_a_byte else _scaled(parts)[0]
    return _smoothed(scheme, parts)


def _smoothed(scheme: Scheme, parts: Sources) -> tuple[Scheme, Sources]:
    return (Smoothed(scheme) if "pre_scale" in parts else scheme), parts


def _compressed_tensors(settings: MethodSettings) -> Kinds:
    blocks = [_block((group.get("weights") or {}).get("block_structure")) for group in _groups(settings)]
    scaled = partial(_in_blocks, [block for block in dict.fromkeys(blocks) if block])
    if any(group.get("format") == "mxfp6-pack-quantized" for group in (*_groups(settings), settings)):
        raise SourceError("the format mxfp6-pack-quantized is not read; save the model as mxfp8-quantized")
    if any(group.get("format") == "marlin-24" for group in (*_groups(settings), settings)):
        raise SourceError("the format marlin-24 is not read; save the model as pack-quantized")
    if (settings.get("transform_config") or {}).get("config_groups"):
        raise SourceError("weights between rotations (`transform_config`) are not read; save the model dequantized")
    bits = {int((group.get("weights") or {}).get("num_bits") or 4) for group in _groups(settings)}
    packed = partial(_packed, named=bits.pop() if len(bits) == 1 else 4)
    return {_PACKED: packed, _SCALE: scaled, _SPARSE: _without_zeros}


def _in_blocks(blocks: Sequence[tuple[int, int]], parts: Sources, wide: bool = False) -> tuple[Scheme, Sources]:
    """Codes and scales, one for each block of a size that goes with their shapes."""
    (rows, columns), counts = parts["codes"].shape[-2:], parts["scale"].shape[-2:]
    fitting = {
        (min(rows, down), min(columns, across)): (down, across)
        for down, across in blocks
        if counts == (-(-rows // down), -(-columns // across))
    }
    if len(fitting) > 1:
        listed = " and ".join(f"{down} x {across}" for down, across in fitting.values())
        raise SourceError(f"blocks of {listed} go with one weight alike; save the model dequantized")
    return _scaled(parts, block=next(iter(fitting.values()), None), wide=wide)


def _without_zeros(parts: Sources) -> tuple[Scheme, Sources]:
    raise SourceError("weights without their zeros (sparse-bitmask) are not read; save the model dense")


def _groups(settings: MethodSettings) -> list[Mapping[str, Any]]:
    return [group for group in (settings.get("config_groups") or {}).values() if isinstance(group, Mapping)]


def _packed(parts: Sources, named: int = 4) -> tuple[Scheme, Sources]:
    """Integers of the bits that go with the shapes, of these the `named` ones; and FP4, which is in bytes."""
    codes = parts["codes"]
    tensors = {name: part for name, part in parts.items() if name not in ("shape", "g_idx")}
    if codes.dtype == torch.uint8:
        return Fp4(divided=True), tensors
    if "shape" not in parts:
        raise SourceError("packed weights have no `weight_shape`")
    columns = int(parts["shape"].read(torch.int64)[-1])
    bits = _bits(codes.shape[-1], columns, named)
    if not bits:
        raise SourceError("packed weights are read if they have 2 to 8 bits; save the model so")
    if "g_idx" in parts and int(parts["g_idx"].read(torch.int64).min()) >= 0:
        _groups_of_columns(parts, parts["scale"].shape[-1])
        tensors["g_idx"] = parts["g_idx"]
    return PackedRows(bits, columns), tensors


def _groups_of_columns(parts: Sources, count: int) -> torch.Tensor:
    """The group of each column.  Raises ValueError for one beyond the `count` that have scales."""
    group = parts["g_idx"].read(torch.int64)
    if len(group) and not 0 <= int(group.min()) <= int(group.max()) < count:
        raise ValueError(f"g_idx names group {int(group.max())} of {count}")
    return group


def _bits(words: int, count: int, first: int = 4) -> int:
    """The bits of a number, of which so many are packed into words of 32, the last one filled up; 0 for more than 8.

    `first` is taken where several fit.
    """
    return next((bits for bits in (first, 4, 8, 2, 3, 5, 6, 7) if -(-count * bits // 32) == words), 0)


def _gptq(settings: MethodSettings) -> Kinds:
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
    bits = _bits(parts["zeros"].shape[1], parts["scale"].shape[1], bits)
    if not bits:
        raise SourceError("layers in GPTQ are read if each has 2 to 8 bits; save the model so")
    scheme, groups = Gptq(bits, zeros_less_one), parts["scale"].shape[0]
    columns = parts["codes"].shape[0] * 32 // bits
    if "g_idx" not in parts and size > 0 and columns != size * groups == size * -(-columns // size):
        return scheme, {**parts, "g_idx": Held((torch.arange(columns) // size).to(torch.int32))}
    if "g_idx" in parts:
        group = _groups_of_columns(parts, groups)
        size = -(-len(group) // parts["scale"].shape[0])
        if torch.equal(group, torch.arange(len(group)) // size) and len(group) == size * parts["scale"].shape[0]:
            return scheme, {name: part for name, part in parts.items() if name != "g_idx"}
    return scheme, parts


def _awq(settings: MethodSettings) -> Kinds:
    form = str(settings.get("version") or settings.get("format") or "gemm").lower()
    if form != "gemm" or int(settings.get("bits", settings.get("w_bit", 4))) != 4:
        raise SourceError(f"AWQ in the format {form} is not read, of 4 bits in gemm it is; save the model so")
    return {_QWEIGHT: lambda parts: (Awq(), {name: part for name, part in parts.items() if name != "g_idx"})}


def auto_round_layout(settings: MethodSettings) -> tuple[str, MethodSettings]:
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


def _auto_round(settings: MethodSettings) -> Kinds:
    method, same = auto_round_layout(settings)
    return _awq(same) if method == "awq" else _gptq(same)


def _eight_bit(parts: Sources) -> tuple[Scheme, Sources]:
    if "format" in parts and int(parts["format"].read(torch.int64)):
        raise SourceError("bitsandbytes' weights in a GPU's order are not read; save the model with a newer version")
    return BitsAndBytes8Bit(), {name: parts[name] for name in ("codes", "scale")}


def _four_bit(parts: Sources) -> tuple[Scheme, Sources]:
    state = parsed_json(bytes(parts["state"].read(torch.uint8).tolist()))
    scheme = BitsAndBytes4Bit(
        shape=tuple(state["shape"]),
        dtype=getattr(torch, state["dtype"]),
        block=int(state["blocksize"]),
        nested_block=int(state.get("nested_blocksize", 0)),
        offset=float(state.get("nested_offset", 0.0)),
    )
    return scheme, {name: part for name, part in parts.items() if name != "state"}


def _torchao(parts: Sources) -> tuple[Scheme, Sources]:
    codes, scale = parts["codes"], parts["scale"]
    said, parts = _said(parts), {name: part for name, part in parts.items() if name != "said"}
    if scale.dtype.itemsize == 1:
        return _torchao_blocks(said, parts), parts
    if codes.dtype not in (torch.int8, torch.float8_e4m3fn):
        raise SourceError("torchao's weights are read if they are int4, int8 or float8 alone; save the model so")
    if "zeros" in parts and parts["zeros"].dtype.is_floating_point and codes.dtype == torch.int8:
        return _smoothed(TorchaoInt4(), parts)
    return _smoothed(Scaled(wide=False), parts)


def _torchao_blocks(said: Mapping[str, Any], parts: Sources) -> Scheme:
    """The scheme of weights with scales of a byte, MX and NVFP4, which may lie in the order of a kernel."""
    if "is_swizzled_scales" not in said:
        raise SourceError(
            "torchao's weights with scales of a byte are read where the header of their file says the order of these; "
            "save the model with save_pretrained"
        )
    codes = parts["codes"]
    inner: Scheme = Fp4() if codes.dtype == torch.uint8 else Scaled(wide=False)
    if not said["is_swizzled_scales"]:
        return inner
    if len(codes.shape) != inner.dims:
        raise SourceError("torchao's weights of experts with swizzled scales are not read; save the model dequantized")
    columns = codes.shape[1] * (2 if codes.dtype == torch.uint8 else 1)
    (block,) = _numbers(said, "block_size", 1)
    return Swizzled(inner, -(-columns // block))


def _said(parts: Sources) -> Mapping[str, Any]:
    """The attributes of a weight that a file's header says; empty where it says none."""
    try:
        found = parsed_json(bytes(parts["said"].read(torch.uint8).tolist()))["_data"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _numbers(said: Mapping[str, Any], name: str, count: int) -> Sequence[int]:
    """The last numbers of an attribute of a weight.  Raises SourceError where the header does not say so many."""
    found = said.get(name)
    numbers: list[Any] = found if isinstance(found, list) else [found]
    if len(numbers) < count or not all(isinstance(number, int) and number > 0 for number in numbers):
        raise SourceError(f"the header of a file says {name}={found} of a weight of torchao's; save the model anew")
    return numbers[-count:]


def _torchao_tiles(parts: Sources) -> tuple[Scheme, Sources]:
    tiles, strips, _, words = parts["codes"].shape[-4:]
    said = _said(parts)
    rows, columns = _numbers(said, "shape", 2) if "shape" in said else (8 * tiles, 32 * strips * words)
    scheme = TorchaoTiles(columns, row_count=0 if rows == 8 * tiles else rows)
    return _smoothed(scheme, {name: part for name, part in parts.items() if name != "said"})


def _for_one_kernel(parts: Sources) -> tuple[Scheme, Sources]:
    raise SourceError(
        "torchao's int4 weights that are shuffled for one kernel are not read; save the model with "
        'Int4WeightOnlyConfig(int4_packing_format="plain")'
    )
