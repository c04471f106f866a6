"""Operators from outside torch: the Python module that registers them, its file and its library."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

import torch
from torch._library.custom_ops import OPDEFS
from torch._ops import OpOverload

_WITH_TORCH = {"aten", "prim", "prims", "_prims", "quantized", "_quantized", "quantized_decomposed"}
_WITH_TORCH |= {"mkldnn", "mkldnn_prepacked", "onednn", "c10d", "_c10d_functional", "c10d_functional"}
_WITH_TORCH |= {"_c10d_functional_autograd", "c10d_functional_autograd", "higher_order", "inductor"}
_WITH_TORCH |= {"rngprims", "debugprims", "profiler", "sparse", "static_runtime", "symm_mem", "xnnpack"}
_WITH_TORCH |= {"prepacked", "torch_attn", "_dtensor", "fsdp", "streams", "export", "onnx", "stagecut"}


@dataclass(frozen=True)
class Registration:
    """The origin of an operator."""

    operator: str  # "torchvision::nms"
    module: str  # whose import registers the operator; "" if that is not known
    own: str = ""  # the module as this process has it, where no installed library holds it
    library: str = ""  # the distribution that holds the module, as pip calls it; "" if none does
    version: str = ""  # of the library


def comes_with_torch(op: OpOverload) -> bool:
    """Whether `import torch` alone registers an operator."""
    return op.namespace in _WITH_TORCH


@cache
def registration_of(op: OpOverload) -> Registration:
    """The place where an operator from outside torch is registered."""
    name = op._schema.name
    module = _module(name, op.namespace)
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    if module == "__main__":  # run as a script; as a module it must not do again what it did
        return Registration(name, Path(file).stem, module) if _is_guarded(file) else Registration(name, "")
    top = module.partition(".")[0]
    library = next(iter(packages_distributions().get(top, ())), "")
    if library:
        return Registration(name, module, "", library, version(library))
    return Registration(name, module, module)


def _module(name: str, namespace: str) -> str:
    """The module that registered an operator: torch knows the file, or else the namespace is that of a package."""
    if name in OPDEFS:
        return OPDEFS[name]._init_fn.__module__
    places = re.findall(r"registered at (/\S+\.py):\d+", torch._C._dispatch_dump(name))
    by_file = {getattr(m, "__file__", None): key for key, m in list(sys.modules.items()) if key != "__mp_main__"}
    found = next((by_file[p] for p in places if p in by_file and not by_file[p].startswith("torch.")), "")
    return found or (namespace if namespace in sys.modules else "")


def _is_guarded(file: str) -> bool:
    """Whether a script does its work below `if __name__ == "__main__":`."""
    tests = (s.test for s in ast.parse(Path(file).read_text()).body if isinstance(s, ast.If)) if file else ()
    return any(isinstance(n, ast.Name) and n.id == "__name__" for test in tests for n in ast.walk(test))
