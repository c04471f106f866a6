"""The fingerprint of a capture: a digest of all that it depends on.

That is the model (the classes of its modules and their code, what hangs on them, the types of its tensors, and the
values of those in memory), the example call (values of tensors apart: a graph holds those that it depends on), torch's
settings, and the versions of all code. What cannot be told from one run to the next, such as an object of an unknown
kind, has no fingerprint.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ir.capture.holdable import unheld
from ir.capture.paths import in_library
from ir.capture.unregistered_state.surroundings import MISSING, names_in_code, outer_variables
from ir.objects.zeros import is_large_zeros

READS = frozenset({"environ", "getenv", "open", "read_text", "read_bytes"})
"""Names in the user's code where it reads what no fingerprint has: the environment, and files."""
MOST_BYTES = 1 << 30  # of weights in memory, whose values are read

_PLAIN = (
    type(None),
    type(...),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    torch.dtype,
    torch.device,
    torch.layout,
    Path,
    slice,
    range,
)
_ROOT = Path(__file__).resolve().parents[3]
_DERIVED = {"_original_object_hash"}  # of a GenerationConfig: another in each process


class Untold(Exception):
    """Something whose content cannot be told from one run to the next."""


def fingerprint(model: nn.Module, call: Any) -> str | None:
    """The digest of a model and what it is called with, in hexadecimal; None where there is none."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers()) if not t.is_meta}
    if any(map(unheld, tensors.values())) or sum(t.nbytes for t in tensors.values()) > MOST_BYTES:
        return None
    if not READS.isdisjoint(names_in_code(model, libraries=False)):
        return None
    digest = Digest()
    try:
        digest.add(model)
        digest.add_variables(model)
        digest.values = False
        digest.add(call)
        digest.add_surroundings()
    except (Untold, RecursionError):
        return None
    return digest.text


def _settings() -> tuple[Any, ...]:
    return (
        torch.__version__,
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled(),
        _matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        sys.version,
    )


def _matmul_precision() -> str:
    """That of float32 products."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set by torch's later names, which this function does not know
        return str(torch.backends.cuda.matmul.fp32_precision)


class Digest:
    """A digest of objects that are added one after the other; an object met again is its number."""

    def __init__(self) -> None:
        self.hash = blake2b(digest_size=20)
        self.values = True  # whether those of tensors count
        self.met: dict[int, tuple[int, Any]] = {}  # by id, and kept alive, so that no id is used again
        self.libraries: set[str] = set()

    @property
    def text(self) -> str:
        """In hexadecimal."""
        return self.hash.hexdigest()

    def add(self, thing: Any) -> None:
        """Add an object.  Raises Untold for one whose content cannot be told from one run to the next."""
        if isinstance(thing, _PLAIN) or thing is MISSING:
            self._put(type(thing).__name__, thing)
            return
        if id(thing) in self.met:
            self._put("met", self.met[id(thing)][0])
            return
        self.met[id(thing)] = (len(self.met), thing)
        self._put(type(thing).__qualname__)
        self._add_new(thing)

    def _add_new(self, thing: Any) -> None:
        match thing:
            case torch.Tensor():
                self._add_tensor(thing)
            case Enum():
                self._put(thing.name)
            case Mapping():
                self._put(len(thing))
                for key, value in thing.items():
                    self.add(key)
                    self.add(value)
            case list() | tuple():
                self._put(len(thing))
                for item in thing:
                    self.add(item)
            case set() | frozenset():
                self.add(sorted(map(repr, thing)))
            case type():
                self._add_class(thing)
            case types.FunctionType() | types.MethodType() | types.BuiltinFunctionType() | partial():
                self._add_function(thing)
            case torch._ops.OpOverload() | torch._ops.OpOverloadPacket() | types.ModuleType():
                self._put(str(thing) if not isinstance(thing, types.ModuleType) else thing.__name__)
            case _:
                self._add_object(thing)

    def _add_object(self, thing: Any) -> None:
        self.add(type(thing))
        held = dict(getattr(thing, "__dict__", {}))
        for cls in type(thing).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            held |= {name: getattr(thing, name, None) for name in ((slots,) if isinstance(slots, str) else slots)}
        if not held and not hasattr(thing, "__dict__"):
            raise Untold(f"a {type(thing).__name__}")
        names = sorted(held)
        self._put(*names)
        for name in names:
            if name not in _DERIVED:
                self.add(held[name])

    def _add_tensor(self, tensor: torch.Tensor) -> None:
        known = type(tensor) in (torch.Tensor, nn.Parameter, nn.Buffer)
        if not known or tensor.layout is not torch.strided or tensor.is_nested:
            raise Untold(str(type(tensor)))
        self._put(tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.requires_grad, tensor.device.type)
        if self.values and is_large_zeros(tensor):
            self.add("zeros")
        elif self.values and not tensor.is_meta:
            dense = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            self.hash.update(dense.numpy().data if dense.numel() else b"")

    def _add_class(self, cls: type) -> None:
        """A class by its name, and by the functions and the plain values in it, which may have been replaced.

        So may properties: those that are methods of an object depend on it.
        """
        self._put(cls.__module__, cls.__qualname__)
        self.libraries.add(cls.__module__.partition(".")[0])
        if cls.__module__ in sys.builtin_module_names or _is_library(cls.__module__, "torch"):
            return
        home = sys.modules.get(cls.__module__)
        if home is None or not getattr(home, "__file__", None):
            raise Untold(f"{cls.__module__}.{cls.__qualname__}")
        for name, member in sorted(vars(cls).items()):
            if isinstance(member, types.FunctionType):
                self._put(name)
                self._add_code(member.__code__)
            elif isinstance(member, property) and isinstance(member.fget, types.MethodType):
                self.add((name, member.fget))
            elif isinstance(member, (*_PLAIN, list, tuple, dict)) and not name.startswith("__"):
                self.add((name, member))
        for base in cls.__bases__:
            self.add(base)

    def _add_function(self, function: Any) -> None:
        match function:
            case partial():
                self.add((function.func, function.args, function.keywords))
            case types.MethodType():
                self.add((function.__func__, function.__self__))
            case types.FunctionType():
                self._put(function.__module__, function.__qualname__)
                self._add_code(function.__code__)
                self.add((function.__defaults__, function.__kwdefaults__))
                for cell in function.__closure__ or ():
                    self.add(cell.cell_contents)
            case _:
                self._put(function.__module__, function.__qualname__)

    def _add_code(self, code: types.CodeType) -> None:
        self._put(code.co_name, code.co_code.hex(), code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._add_code(constant)
            else:
                self.add(constant)

    def add_variables(self, model: nn.Module) -> None:
        """The user's variables around a model's modules that its code reaches, as what a file held at the import."""
        for variable in outer_variables(model):
            if not variable.in_library:
                self._put(variable.name)
                self.add(variable.get())

    def add_surroundings(self) -> None:
        """Torch's settings, the versions of classes' libraries, the user's loaded modules, and the code of capture."""
        self.add(_settings())
        for name in sorted(self.libraries):
            self._put(name, _version(name))
        loaded = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
        own = {file for file in loaded if file.endswith(".py") and Path(file).is_absolute() and not in_library(file)}
        own -= {file for file in own if file.startswith(f"{_ROOT}/")}
        for file in sorted({*own, *map(str, (_ROOT / "ir").rglob("*.py"))}):
            with suppress(OSError):  # a module whose file is gone by now
                self.hash.update(Path(file).read_bytes())
            self._put(file)

    def _put(self, *parts: object) -> None:
        self.hash.update(repr(parts).encode())


def _is_library(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return str(getattr(sys.modules.get(library), "__version__", ""))
