"""Kinds of devices: all that the runtime needs to know of them and torch does not tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class DeviceKind:
    """One kind of device, by the name that torch has for it.  The defaults do for any accelerator."""

    name: str
    group: str = ""  # the class in torch.distributed of a direct link between two hosts; without it, by the host
    graph: str = ""  # the class of graphs, of which each launches all kernels of a stage; without it, one by one
    variables: tuple[tuple[str, str], ...] = ()  # name and value, in the environment of a job of several processes
    process_variables: tuple[tuple[str, str], ...] = ()  # in that of a process that this one starts for stages
    delay: Callable[[float], None] = lambda seconds: None  # queues a kernel that does nothing for so many seconds
    ipc: Callable[[], tuple[str, str]] | None = None  # prefix of the functions, and library, that share memory
    packs_linear: bool = False  # whether stage/linear/packed_linear.py makes the layers of a decoder faster
    blocks_linear: bool = False  # whether stage/linear/column_blocks.py makes any linear layers faster
    merges_linear: bool = False  # whether stage/linear/merged_linear.py does
    launches_early: Callable[[torch.device], bool] = lambda device: False  # kernels that wait for those before them
    decoding: tuple[tuple[str, object], ...] = ()  # options of torch.compile for steps of few rows, which read weights
    traffic: tuple[int, ...] = (*(1 << i for i in range(20, 29)), 1 << 31)  # bytes; the last is far beyond any cache


def _delay_cuda(seconds: float) -> None:
    torch.cuda._sleep(int(seconds * 2e9))  # cycles, of some 2 GHz


def _cuda_runtime() -> tuple[str, str]:
    if torch.version.hip:
        return "hip", "libamdhip64.so"
    return "cuda", f"libcudart.so.{(torch.version.cuda or '').partition('.')[0]}"


def _is_hopper(device: torch.device) -> bool:
    """Whether it is a GPU of NVIDIA of that generation or later."""
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)


_CPU = DeviceKind("cpu", packs_linear=True, blocks_linear=True, traffic=(*(1 << i for i in range(16, 25)), 24 << 20))
_CUDA = DeviceKind(
    "cuda",
    group="ProcessGroupNCCL",
    graph="CUDAGraph",
    variables=(
        # Loading a kernel at its first use waits for all kernels that run, and a transfer runs until its peer joins.
        ("CUDA_MODULE_LOADING", "EAGER"),
        # The warning advises a communicator for each link, which every link has.
        ("TORCH_NCCL_SHOW_EAGER_INIT_P2P_SERIALIZATION_WARNING", "false"),
    ),
    # A stage computes on one stream and copies on others.  The driver makes eight queues, all of a host's one by one.
    process_variables=(("CUDA_DEVICE_MAX_CONNECTIONS", "2"),),
    delay=_delay_cuda,
    ipc=_cuda_runtime,
    merges_linear=True,
    launches_early=_is_hopper,
    # A product with one row becomes a sum that is fused with what is before and behind it, in blocks found by trying.
    decoding=(("coordinate_descent_tuning", True),),
)
DEVICE_KINDS = {kind.name: kind for kind in (_CPU, _CUDA)}


def kind_of(device: torch.device) -> DeviceKind:
    """The kind of a device; one with the defaults for a kind that is not in the table."""
    return DEVICE_KINDS.get(device.type, DeviceKind(device.type))


def model_name(device: torch.device) -> str:
    """The name of the hardware, as its driver gives it; "CPU" for the CPU."""
    return "CPU" if device.type == "cpu" else torch.get_device_module(device).get_device_properties(device).name


def total_memory(device: torch.device) -> int:
    """Bytes of an accelerator's memory."""
    return torch.get_device_module(device).get_device_properties(device).total_memory
