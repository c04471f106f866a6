"""Variables outside of a model's modules that its code reaches: globals, class attributes, defaults, closures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import nn

from ir.capture.paths import in_library, is_torch_file
from ir.capture.unregistered_state.held import is_leaf, is_object, items_in

HOOKS = ("_forward_hooks", "_forward_pre_hooks")  # tables of a module, of functions that may change what it returns
_PLAIN = (bool, int, float, complex, str, bytes, type(None))  # the types of most values
_MOST = 1000  # items of a container that is looked into


class _Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()


class OuterVariable(NamedTuple):
    """A variable of a class, of a function, of a module, among a function's defaults, or in the cell of a closure."""

    name: str
    owner: Any
    key: Any = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OuterVariable) and self.owner is other.owner and self.key == other.key

    def __hash__(self) -> int:
        return hash((id(self.owner), self.key))

    def get(self) -> Any:
        """The value of the variable; `MISSING` where there is no such variable."""
        match self.owner:
            case dict() as names:
                return names.get(self.key, MISSING)
            case tuple() as defaults:
                return defaults[self.key]
            case CellType() as cell:
                return _content(cell)
            case owner:
                return vars(owner).get(self.key, MISSING)

    @property
    def in_library(self) -> bool:
        """Whether the module or the class that has the variable is a library's."""
        match self.owner:
            case dict() as names:
                return in_library(names.get("__file__") or "")
            case type() as cls:
                return in_library(_file(cls))
        return False

    def put(self, value: Any) -> None:
        """Hold another value, or with `MISSING` none."""
        match self.owner:
            case _ if self.get() is value:
                pass
            case dict() as names if value is MISSING:
                del names[self.key]
            case dict() as names:
                names[self.key] = value
            case CellType() as cell:
                cell.cell_contents = value
            case owner if value is MISSING:
                delattr(owner, self.key)
            case owner:
                setattr(owner, self.key, value)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return MISSING


def outer_variables(model: nn.Module) -> list[OuterVariable]:
    """The variables that hold numbers, tensors, containers or objects, or nothing yet."""
    found = _reached(model, set())
    return [variable for variable in dict.fromkeys(found) if _may_change(variable.get())]


def names_in_code(model: nn.Module, libraries: bool = True) -> set[str]:
    """The names that the code of a model's modules reads, attributes among them, and that of functions it calls.

    Without `libraries` the code in these is left out.
    """
    seen: set[Any] = set()
    _reached(model, seen)
    codes = (function.__code__ for function in seen if isinstance(function, FunctionType))
    return set().union(*(_names(code) for code in codes if libraries or not in_library(code.co_filename)))


def _reached(model: nn.Module, seen: set[Any]) -> list[OuterVariable]:
    """The variables that the code of a model reaches; its classes and functions are put into `seen`."""
    found: list[OuterVariable] = []
    for module in model.modules():
        for cls in type(module).__mro__:
            if cls not in seen and not is_torch_file(_file(cls)):
                seen.add(cls)
                found += _of_class(cls, seen)
        hooks = [h for table in HOOKS for h in vars(module).get(table, {}).values()]
        for name, value in (*vars(module).items(), *((getattr(h, "__name__", ""), h) for h in hooks)):
            if isinstance(value, FunctionType):
                found += _of_function(name, value, seen)
    return found


def _of_class(cls: type, seen: set[Any]) -> Iterator[OuterVariable]:
    for name, member in list(vars(cls).items()):
        function = getattr(member, "__func__", member)
        if isinstance(function, FunctionType):
            yield from _of_function(f"{cls.__name__}.{name}", function, seen)
        elif not name.startswith(("__", "_abc_")):
            yield OuterVariable(f"{cls.__name__}.{name}", cls, name)


def _of_function(name: str, function: FunctionType, seen: set[Any]) -> Iterator[OuterVariable]:
    """The variables that a function of the user's has and reads, and those of functions that it calls by name."""
    if function in seen or is_torch_file(function.__code__.co_filename):
        return
    seen.add(function)
    yield from (OuterVariable(f"{name}.{key}", function, key) for key in vars(function))
    defaults = function.__defaults__ or ()
    yield from (OuterVariable(f"the default of an argument of {name}", defaults, i) for i in range(len(defaults)))
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for key, cell in cells:
        if isinstance(called := _content(cell), FunctionType):
            yield from _of_function(key, called, seen)
        else:
            yield OuterVariable(key, cell)
    yield from _of_names(function.__globals__, _sorted_names(function), seen, set())


def _of_names(
    names: dict[str, Any], read: tuple[str, ...], seen: set[Any], modules: set[int]
) -> Iterator[OuterVariable]:
    """The variables of a module, in its `names`, that a function reads, and those of the user's modules in it."""
    for key in read:
        called = names.get(key, MISSING)
        if isinstance(called, ModuleType):  # of each function others may be read
            if id(called) not in modules and not in_library(getattr(called, "__file__", None) or "<built in>"):
                modules.add(id(called))
                inside = vars(called)
                yield from _of_names(inside, tuple(k for k in read if k in inside), seen, modules)
        elif (place := (id(names), key)) not in seen:  # most names are read by many functions
            seen.add(place)
            if isinstance(called, FunctionType):
                yield from _of_function(key, called, seen)
            elif _may_change(called):
                yield OuterVariable(key, names, key)


def _sorted_names(function: FunctionType) -> tuple[str, ...]:
    """The names in a function's code, kept for the next look at it: a model is looked at before and after each call."""
    code, names = _NAMES.get(function, (None, ()))
    if code is not function.__code__:
        names = tuple(sorted(_names(function.__code__)))
        _NAMES[function] = function.__code__, names
    return names


_NAMES: WeakKeyDictionary[FunctionType, tuple[CodeType | None, tuple[str, ...]]] = WeakKeyDictionary()


def _names(code: CodeType) -> set[str]:
    """The names that code reads or assigns outside of itself, and those of functions that are defined in it."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def _may_change(value: Any) -> bool:
    """Whether a value is looked at: not what libraries make, nor large containers."""
    if value is MISSING or type(value) in _PLAIN:
        return True
    if isinstance(value, (type, FunctionType, BuiltinFunctionType, ModuleType)):
        return False
    if is_object(value):
        return not in_library(_file(type(value)))
    inside = items_in(value)
    return is_leaf(value) or (inside is not None and len(inside) <= _MOST)


def _file(cls: type) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or "<built in>"


def held_outside(model: nn.Module) -> dict[OuterVariable, Any]:
    return {variable: variable.get() for variable in outer_variables(model)}
