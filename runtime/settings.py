"""torch's settings that change what stages compute, as the manifest records them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch


def torch_settings() -> dict[str, str]:
    """The settings of this process, each under the name of the function that sets it."""
    return {
        "torch.set_float32_matmul_precision": torch.get_float32_matmul_precision(),
        "torch.use_deterministic_algorithms": str(torch.are_deterministic_algorithms_enabled()),
    }


def warn_of_other_settings(compiled: Mapping[str, str]) -> None:
    """Warn once of all settings that differ from those at the compilation."""
    here = torch_settings()
    differ = {name: value for name, value in compiled.items() if here.get(name, value) != value}
    other = [f"{name} is {here[name]} here and was {value}" for name, value in differ.items()]
    if other:
        warnings.warn(f"results may differ from those when the model was compiled: {'; '.join(other)}", stacklevel=3)
