"""Modules that are kept whole: their imports, the expressions that rebuild them, and their calls."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from codegen.spelling.literals import argument_source
from ir.graph import Call, Value, is_whole, opaque_of
from ir.objects.opaque import Opaque
from ir.objects.recipe import Bare, Called, Container, DictItems, Imported, Recipe
from ir.objects.signature import Slot

SUPPORT = '''
def rebuilt(cls, attributes):
    """An object of a class with these attributes, made without a call of the class."""
    made = cls.__new__(cls)
    if isinstance(made, nn.Module):
        nn.Module.__init__(made)
        for name, value in attributes.items():
            nn.Module.__setattr__(made, name, value)
    else:
        vars(made).update(attributes)
    return made


def tensors(result):
    """The tensors in what a module of the model returned."""
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
'''.strip()

PARAMETRIZED = '''
def parametrized(made):
    """A module whose tensors in `parametrizations` are properties, as register_parametrization makes them."""
    parametrize._inject_new_class(made)
    for name in made.parametrizations:
        parametrize._inject_property(made, name)
    return made
'''.strip()


@dataclass(frozen=True)
class OpaqueModules:
    """The modules that `calls` run as they are, and what a stage file needs for them."""

    calls: Sequence[Call]

    @cached_property
    def modules(self) -> Mapping[str, Opaque]:
        """The modules by path, each once however often it is called."""
        return {opaque_of(call).path: opaque_of(call) for call in self.calls if is_whole(call)}

    @cached_property
    def _aliases(self) -> Mapping[str, str]:
        """The alias of each imported Python module: its last name, where that is unique."""
        written = [r for o in self.modules.values() for r in (o.recipe, *o.call[0], *o.call[1].values())]
        names = dict.fromkeys(i.module for r in written for i in _imports(r))
        last = [name.rpartition(".")[2] for name in names]
        return {n: s if last.count(s) == 1 else n.replace(".", "_") for n, s in zip(names, last, strict=True)}

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that must be importable where the stage runs."""
        return tuple(sorted({name.partition(".")[0] for name in self._aliases} - {"torch", *sys.stdlib_module_names}))

    def imports(self) -> Iterator[str]:
        """Import statements, one a line."""
        if not self.modules:
            return
        if self._parametrized:
            yield "from torch.nn.utils import parametrize"
        yield "from torch.utils._pytree import tree_leaves"
        for name in self._aliases:
            package, _, last = name.rpartition(".")
            renamed = "" if self._aliases[name] == last else f" as {self._aliases[name]}"
            if name not in ("builtins", "torch"):
                yield f"from {package} import {last}{renamed}" if package else f"import {name}"

    def support(self) -> Iterator[str]:
        """The functions that a stage file needs for its modules."""
        yield from SUPPORT.splitlines()
        if self._parametrized:
            yield from ("", "", *PARAMETRIZED.splitlines())

    @property
    def _parametrized(self) -> bool:
        return any(map(_is_parametrized, (b for o in self.modules.values() for b in _modules(o.recipe))))

    def shared(self) -> Iterator[str]:
        """`mixtral_config = rebuilt(…)`: an assignment for each object that several modules may share."""
        for name, made in self._shared.values():
            yield f"{name} = {self._bare(made)}"

    def built(self, opaque: Opaque) -> str:
        """An expression that makes the module, without its tensors."""
        return self._write(opaque.recipe)

    def call_source(self, call: Call, callee: str, name_of: Callable[[Value], str]) -> str:
        """A call of the module at `callee`, whose results are the tensors in what the module returns."""
        opaque = opaque_of(call)
        given = [argument_source(a, name_of) for a in (*call.args[0], *call.args[2])]
        args, kwargs = opaque.call
        texts = [*(self._write(a, given) for a in args), *(f"{k}={self._write(v, given)}" for k, v in kwargs.items())]
        result = f"{callee}({', '.join(texts)})"
        return result if _is_flat(opaque) or not returns_container(call) else f"tensors({result})"

    def ties(self, fqns: Mapping[Value, str]) -> Mapping[str, str]:
        """Names of tensors in kept modules that are stored under another name."""
        own = {
            f"{opaque_of(call).path}.{name}": fqns[value]
            for call in self.calls
            if is_whole(call)
            for name, value in zip(opaque_of(call).weights, call.args[1], strict=True)
        }
        return {name: stored for name, stored in own.items() if name != stored}

    # ---- recipes as text

    @cached_property
    def _shared(self) -> Mapping[str, tuple[str, Bare]]:
        """Name and recipe of objects by their text: True equals 1 otherwise."""
        found = {repr(b): b for o in self.modules.values() for b in _objects(o.recipe)}
        used = Counter[str]()
        names: dict[str, tuple[str, Bare]] = {}
        for text, made in found.items():
            name = _snake(made.cls.name)
            used[name] += 1
            names[text] = (f"{name}_{used[name]}" if used[name] > 1 else name), made
        return names

    def _name(self, found: Imported) -> str:
        return found.name if found.module == "builtins" else f"{self._aliases[found.module]}.{found.name}"

    def _bare(self, made: Bare) -> str:
        attributes = ", ".join(f"{name!r}: {self._write(value)}" for name, value in made.attributes)
        text = f"rebuilt({self._name(made.cls)}, {{{attributes}}})"
        return f"parametrized({text})" if _is_parametrized(made) else text

    def _write(self, value: Recipe, slots: Sequence[str] = ()) -> str:
        write: Callable[[Any], str] = lambda v: self._write(v, slots)  # noqa: E731
        match value:
            case Slot():
                return slots[value.index]
            case Imported():
                return self._name(value)
            case Called():
                args = [*map(write, value.args), *(f"{k}={write(v)}" for k, v in value.kwargs)]
                return f"{self._name(value.function)}({', '.join(args)})"
            case Bare():
                return self._shared[repr(value)][0] if repr(value) in self._shared else self._bare(value)
            case Container():
                return _container(value, write)
            case DictItems():
                return f"{{{', '.join(f'{write(k)}: {write(v)}' for k, v in value.items)}}}"
            case float() if value != value or abs(value) == float("inf"):
                return f'float("{value}")'
        return repr(value)


def returns_container(call: Call) -> bool:
    """Whether the module returns something else than one tensor."""
    return opaque_of(call).returns.spec.type is not None


def imported_modules(opaques: Iterable[Opaque]) -> list[str]:
    """The Python modules that stage files import for modules that are kept whole."""
    return list(dict.fromkeys(i.module for o in opaques for i in _imports(o.recipe)))


def _container(value: Container, write: Callable[[Any], str]) -> str:
    texts = ", ".join(map(write, value.items))
    match value.kind.__name__:
        case "list":
            return f"[{texts}]"
        case "tuple":
            return f"({texts}{',' if len(value.items) == 1 else ''})"
        case kind:
            return f"{kind}([{texts}])"


def _is_flat(opaque: Opaque) -> bool:
    """Whether the module returns a tuple or list of tensors alone."""
    spec, leaves = opaque.returns.spec, opaque.returns.leaves
    return spec.type in (tuple, list) and spec.num_children == len(leaves) and all(isinstance(x, Slot) for x in leaves)


def _parts(value: Recipe) -> tuple[Recipe, ...]:
    match value:
        case Called():
            return (value.function, *value.args, *(v for _, v in value.kwargs))
        case Bare():
            return (value.cls, *(v for _, v in value.attributes))
        case Container():
            return value.items
        case DictItems():
            return tuple(part for pair in value.items for part in pair)
    return ()


def _imports(value: Recipe) -> Iterator[Imported]:
    if isinstance(value, Imported):
        yield value
    for part in _parts(value):
        yield from _imports(part)


def _objects(value: Recipe) -> Iterator[Bare]:
    """The objects that are no modules, such as configurations; innermost first."""
    for part in _parts(value):
        yield from _objects(part)
    if isinstance(value, Bare) and not value.is_module:
        yield value


def _modules(value: Recipe) -> Iterator[Bare]:
    """The modules in a recipe."""
    for part in _parts(value):
        yield from _modules(part)
    if isinstance(value, Bare) and value.is_module:
        yield value


def _is_parametrized(made: Bare) -> bool:
    return made.is_module and "parametrizations" in dict(made.attributes)


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name.rpartition(".")[2]))
