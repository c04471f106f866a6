"""Unpickling without running code: tensors and plain containers are made, objects of other classes are inert."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import torch._utils
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn.parameter import Parameter


class Inert:
    """An object of a class that is not loaded: it has the state that was pickled, and does nothing."""

    state: Any = None
    origin = ""  # the class, as the file names it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        made = super().__new__(cls)
        made.args = args
        return made

    def __setstate__(self, state: Any) -> None:
        match state:
            case (None | dict() as fields, dict() as slots):
                self.state = {**(fields or {}), **slots}
            case _:
                self.state = state

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return self

    def __str__(self) -> str:
        return self.origin

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...

    def add(self, item: Any) -> None: ...

    def field(self, name: str) -> Any:
        """A field of the pickled state; None where there is none."""
        return self.state.get(name) if isinstance(self.state, dict) else None


@cache
def _inert(module: str, name: str) -> type[Inert]:
    return type(name, (Inert,), {"origin": f"{module}.{name}"})


def _rebuilt(function: Any, cls: Any, args: tuple[Any, ...], state: Any) -> Any:
    """A tensor of a subclass: inert with its state where it is a wrapper, as a DTensor is; else a plain tensor."""
    made = function(*args)
    if isinstance(made, Inert):
        made.__setstate__(state)
    return made


def _parameter(data: Any, requires_grad: bool, hooks: Any, state: Any = None) -> Any:
    return data


def _of_device(data: Any, dtype: Any, device: Any, requires_grad: bool) -> Any:
    """A tensor of a device that torch reaches by way of the CPU, as XLA's."""
    return data


def _inner(owner: Any, name: str) -> Any:
    """A class in a class, or a member of an enumeration, which pickles of protocols before 4 name as an attribute."""
    return _inert(*f"{getattr(owner, 'origin', 'builtins')}.{name}".rpartition(".")[::2])


def _encoded(text: str, encoding: str) -> bytes:
    """Bytes, which pickles of protocols before 3 have as text."""
    return text.encode(encoding)


def _without_default(factory: Any = None, *items: Any) -> dict[Any, Any]:
    return dict(*items)


def _on_meta(name: str) -> Callable[..., torch.Tensor]:
    """A function of torch that makes a tensor over a storage, which is one without memory.

    A tensor on the meta device takes a fiftieth of the time of a fake one, whose device is all that it knows more.
    """
    function = getattr(torch._utils, name)

    def made(*args: Any) -> torch.Tensor:
        with unset_fake_temporarily():
            return function(*args)

    return made


_PLAIN: Mapping[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encoded,
    ("builtins", "getattr"): _inner,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): _without_default,
    **{("builtins", cls.__name__): cls for cls in (set, frozenset, dict, list, tuple, int, float, bool, str, complex)},
    **{("torch", cls.__name__): cls for cls in (torch.Size, torch.device, torch.UntypedStorage)},
    ("torch.storage", "UntypedStorage"): torch.UntypedStorage,
    ("torch.nn.parameter", "Parameter"): Parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _of_device,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,  # type: ignore[attr-defined]
    **{
        ("torch._utils", name): _on_meta(name)
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
    },
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): torch._utils._rebuild_meta_tensor_no_storage,
}
"""What an unpickler may call: containers, numbers, and what makes tensors."""


class InertUnpickler(pickle.Unpickler):
    """An unpickler that makes tensors and plain containers, and of anything else an `Inert`."""

    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # as Python 2 has it, and protocols before 3
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        return _PLAIN[module, name] if (module, name) in _PLAIN else _inert(module, name)
