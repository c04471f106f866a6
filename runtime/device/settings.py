"""torch's settings that change what stages compute, as the manifest records them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from runtime.caller import warn_caller
from runtime.device.kinds import DEVICE_KINDS

KEEPS_MODULES = "torch.set_default_dtype"  # recorded only where modules are kept whole
_PRECISIONS = {"none": "highest", "ieee": "highest", "tf32": "high", "bf16": "medium"}  # by torch's later names
_CUDNN = ("allow_tf32", "benchmark", "deterministic")


def torch_settings(keeps_modules: bool = True) -> dict[str, str]:
    """The settings of this process, each under the name of the function or flag that sets it.

    `keeps_modules`: whether modules are kept whole, whose code takes torch's default dtype; all others state dtypes.
    """
    default = {KEEPS_MODULES: str(torch.get_default_dtype())} if keeps_modules else {}
    return default | {
        "torch.set_float32_matmul_precision": _matmul_precision(),
        "torch.use_deterministic_algorithms": str(torch.are_deterministic_algorithms_enabled()),
        **{f"torch.backends.cudnn.{name}": str(getattr(torch.backends.cudnn, name)) for name in _CUDNN},
    }


def settings_now() -> tuple[object, ...]:
    """Those that decide what torch's compiler makes, and that take no time to ask for at each call."""
    return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), _matmul_precision()


def _matmul_precision() -> str:
    """That of float32 products, in the words of `torch.set_float32_matmul_precision`."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set by torch's later names, which this function does not know
        return _PRECISIONS[str(torch.backends.cuda.matmul.fp32_precision)]


def apply_settings(settings: Mapping[str, str]) -> None:
    """Give this process the settings that `torch_settings` returned in another.

    Those that it has already are left alone: setting one can import a compiler, which takes seconds.
    """
    here = torch_settings()
    for name, value in settings.items():
        if here.get(name) == value:
            continue
        match name.rpartition("."):
            case "torch", _, "set_default_dtype":
                torch.set_default_dtype(getattr(torch, value.removeprefix("torch.")))
            case "torch", _, "set_float32_matmul_precision":
                torch.set_float32_matmul_precision(value)
            case "torch", _, "use_deterministic_algorithms":
                torch.use_deterministic_algorithms(value == "True")
            case "torch.backends.cudnn", _, flag:
                setattr(torch.backends.cudnn, flag, value == "True")


def warn_of_other_settings(compiled: Mapping[str, str]) -> None:
    """Warn once of all settings that differ from those at the compilation."""
    here = torch_settings()
    differ = {name: value for name, value in compiled.items() if here.get(name, value) != value}
    other = [f"{name} is {here[name]} here and was {value}" for name, value in differ.items()]
    if other:
        warn_caller(f"results may differ from those when the model was compiled: {'; '.join(other)}")


def warn_of_autocast() -> None:
    """Warn where autocast is on in the thread that calls: stages run in others, without it."""
    if any(map(torch.is_autocast_enabled, DEVICE_KINDS)):
        warn_caller(
            "autocast is on, which stages do not follow; for stages that cast as it does, compile the model within it"
        )
