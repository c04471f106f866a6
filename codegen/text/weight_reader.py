"""The part of a stage file that reads the stage's weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

NO_POOLS: Mapping[str, int] = MappingProxyType({})

_LOAD = '''
    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        list(ThreadPoolExecutor(11).map(lambda share: read_weights(stage, path, device, share), range(11)))
        return stage.eval()
'''.strip("\n")

_SHARED_LOAD = '''
    @classmethod
    def load(cls, path, device="cpu", held={}):
        """The stage with its weights on the device: those that another program's module has `held`, others read."""
        with torch.device("meta"):
            stage = cls()
        list(ThreadPoolExecutor(11).map(lambda share: read_weights(stage, path, device, share, held), range(11)))
        return stage.eval()
'''.strip("\n")


def load_method(*, shared: bool, rows: Mapping[str, int] = NO_POOLS) -> Sequence[str]:
    """The method that makes a stage from its weights, some of them `shared` with those of other programs.

    `rows` are the sizes of its pools, which it takes as well, with those of the plan.
    """
    text = _SHARED_LOAD if shared else _LOAD
    if rows:
        given = "".join(f", {name}={size}" for name, size in rows.items())
        text = text.replace("):\n", f"{given}):\n", 1).replace("cls()", f"cls({', '.join(rows)})")
        text = text.replace("each read into memory of its own on the device", "and with pools of these sizes")
        text = text.replace("The stage with its weights on the device:", "The stage with pools, and its weights:")
    return text.splitlines()


def reader(linked: bool, strided: bool, shared: bool, pooled: bool = False) -> Sequence[str]:
    """The function that reads the weights: copies of them, some with strides, or the checkpoint's own bytes.

    Where tensors are `shared` with modules of other programs, it takes these as they are.  Where some are `pooled`, no
    file has them, and they begin as zeros.
    Eleven threads share them: one alone reads slower than disks give and GPUs take, and layers that repeat seldom have
    eleven tensors, so that each thread gets some of the large ones.
    By ordinary reads: the pages of a memory map would count as this process's memory, and are aligned to 8
    bytes, where CPU kernels round differently than on memory of torch's own.
    """
    text = _LINKED if linked else _STRIDED if strided else _COPIED
    if pooled:
        stored = '{*table, *links["pieces"]}' if linked else "table"
        text = _LOOP.sub(_MAKE_POOL.replace("STORED", stored), text)
    if shared:
        text = _LOOP.sub(_TAKE_HELD, text).replace("device, share):", "device, share, held):")
    return text.splitlines()


def imports(linked: bool) -> list[str]:
    """The imports of the reader, besides torch and nn."""
    plain = ["import ctypes", "import json", *["import pathlib"] * linked]
    return [*plain, "from concurrent.futures import ThreadPoolExecutor"]


_COPIED = '''
def read_weights(stage, path, device, share):
    """Give a stage on the meta device every eleventh weight from a share on, by memory that GPUs copy from fast."""
    floats = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    room = torch.empty(1 << 22, dtype=torch.uint8, pin_memory=torch.device(device).type == "cuda")
    memory = memoryview((ctypes.c_byte * len(room)).from_address(room.data_ptr())).cast("B")
    with open(path, "rb") as file:
        table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        for name, empty in [*stage.named_parameters(), *stage.named_buffers()][share::11]:  # in torch's default dtype
            tensor = torch.empty(empty.shape, dtype=floats.get(table[name]["dtype"], empty.dtype), device=device)
            first, last = table[name]["data_offsets"]
            file.seek(start + first)
            for piece in tensor.view(-1).view(torch.uint8).split(len(room)):
                if last - first != tensor.nbytes or file.readinto(memory[: len(piece)]) != len(piece):
                    raise ValueError(f"{name} is not whole in {path}")
                piece.copy_(room[: len(piece)])
            torch.utils.swap_tensors(empty, torch.Tensor._make_subclass(type(empty), tensor, empty.requires_grad))
'''.strip()

_STRIDED = _COPIED.replace(
    "        start = file.tell()\n",
    """\
        start = file.tell()
        strides = json.loads(table["__metadata__"]["strides"])
""",
).replace(
    "            torch.utils.swap",
    """\
            if name in strides:
                spread = torch.empty_strided(tensor.shape, strides[name], dtype=tensor.dtype, device=device)
                tensor = spread.copy_(tensor)
            torch.utils.swap""",
)

_LINKED = '''
def read_weights(stage, path, device, share):
    """Give a stage on the meta device every eleventh weight from a share on, most from the checkpoint's files."""
    pinned = torch.device(device).type == "cuda"  # memory that a GPU copies from at full speed
    with open(path, "rb") as file:
        table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
    links = json.loads(table["__metadata__"]["links"])
    for name, empty in [*stage.named_parameters(), *stage.named_buffers()][share::11]:
        dtype = getattr(torch, links["dtypes"].get(name, ""), empty.dtype)  # modules take torch's default
        tensor = torch.empty(empty.shape, dtype=dtype, pin_memory=pinned)
        if name in links["pieces"]:
            for file, *piece in links["pieces"][name]:
                read_piece(name, tensor, pathlib.Path(path).parent / links["files"][file], *piece)
        else:
            read_piece(name, tensor, path, start + table[name]["data_offsets"][0])
        tensor = tensor.to(device)
        torch.utils.swap_tensors(empty, torch.Tensor._make_subclass(type(empty), tensor, empty.requires_grad))


def read_piece(name, tensor, path, first, dtype=None, shape=None, strides=None, corner=()):
    """Fill the box of a tensor that starts at a corner with bytes of a file; with neither, all of the tensor."""
    box = tensor[tuple(slice(a, a + n) for a, n in zip(corner, shape or ()))]
    dtype = getattr(torch, dtype) if dtype else tensor.dtype
    count = 1 + sum((n - 1) * step for n, step in zip(shape, strides)) if strides else box.numel()
    alike = not strides and dtype == box.dtype and box.is_contiguous()
    piece = box if alike else torch.empty(count, dtype=dtype)
    with open(path, "rb") as file:
        file.seek(first)
        memory = (ctypes.c_byte * piece.nbytes).from_address(piece.data_ptr())
        if file.readinto(memory) != piece.nbytes:
            raise ValueError(f"{path} is too short for {name}: it has changed")
    if piece is not box:
        box.copy_(piece.as_strided(shape, strides) if strides else piece.view(box.shape))
'''.strip()

_LOOP = re.compile(r"^( *)for name, empty in .*\n", re.MULTILINE)

_MAKE_POOL = r"""\g<0>\
\1    if name not in STORED:  # a pool
\1        torch.utils.swap_tensors(empty, torch.zeros(empty.shape, dtype=empty.dtype, device=device))
\1        continue
"""

_TAKE_HELD = r"""\g<0>\
\1    if name in held:
\1        same = held[name].detach()  # the same memory
\1        torch.utils.swap_tensors(empty, torch.Tensor._make_subclass(type(empty), same, empty.requires_grad))
\1        continue
"""
