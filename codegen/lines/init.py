"""The `__init__` of a class: the modules and weights that it holds, under the model's own names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch

from codegen.spelling import paths
from codegen.structure.program import Block, join
from codegen.text.source import Source
from ir.graph import Constant, Param, Value


@dataclass(frozen=True)
class Made:
    """An expression that makes a module, and the names of the tensors that this then has."""

    source: str
    names: frozenset[str]


@dataclass
class Holder:
    """A module by what it holds: tensors, what one expression makes, and others."""

    parts: dict[str, Holder] = field(default_factory=dict)  # of what an expression makes those that are added to it
    source: str = ""  # the expression
    there: bool = False  # a module in one that an expression makes
    tensor: bool = False
    bare: str = ""  # an expression that makes it and the modules in it without their tensors
    is_class: bool = False  # a class of the file, not a module in one
    sliced: bool = False  # a list of which a loop goes over a part

    @classmethod
    def of(
        cls,
        stored: Iterable[tuple[str, Value]],
        made: Mapping[str, Made],
        bare: Mapping[str, str],
        sliced: Iterable[str],
    ) -> Holder:
        """From the tensors by name, the modules that one expression makes, by path, and the lists that are sliced."""
        root = cls(is_class=True)
        for path in sliced:
            (root._at(path) if path else root).sliced = True
        for path, source in bare.items():
            root._at(path).bare = source
        maker = {join(path, name): path for path, module in made.items() for name in module.names}
        for name, value in stored:
            root._at(maker.get(name, name)).source = tensor_source(value)
            root._at(maker.get(name, name)).tensor = name not in maker
        for path, module in made.items():
            root._at(path).source = module.source
        for path, module in made.items():
            root._at(path)._find(module.names)
        return root

    def _find(self, names: Iterable[str]) -> None:
        """Note which of the modules in this one are there when it has tensors of these names."""
        for name in names:
            holder = self
            for part in name.split(".")[:-1]:
                if part not in holder.parts:
                    break
                holder = holder.parts[part]
                holder.there = True

    def _at(self, path: str) -> Holder:
        holder = self
        for part in path.split("."):
            holder = holder.parts.setdefault(part, Holder())
        return holder

    @property
    def numbers(self) -> tuple[int, ...]:
        """Those under which the parts of a list stand; none where this is no list."""
        if self.bare:
            return ()
        tensors = {part.tensor for part in self.parts.values()}
        listed = len(tensors) == 1 and all(name.isdigit() for name in self.parts)
        numbers = tuple(sorted(map(int, self.parts))) if listed else ()
        return () if tensors == {True} and numbers != tuple(range(len(numbers))) else numbers

    @property
    def base(self) -> str:
        """The class that a class of the file with these parts derives from."""
        if not self.numbers or any(part.tensor for part in self.parts.values()):
            return "nn.Module"
        whole = self.numbers == tuple(range(len(self.numbers)))
        open_ = self.added or (
            self.is_class and not all(part.made for part in self.parts.values())
        )  # else parts have types
        return "nn.ModuleList" if whole and not self.sliced and not open_ else "Numbered"  # its parts have no types

    @property
    def made(self) -> str:
        """One expression that makes it, or nothing."""
        if self.source or self.bare:
            return self.source
        if self.numbers and all(part.made for part in self.parts.values()):
            return self.listed
        return ""

    @property
    def added(self) -> bool:
        """Whether something is added to a module that an expression makes, to this one or one in it."""
        made = bool(self.source) and bool(self.parts)
        return made or (not self.bare and any(part.added for part in self.parts.values()))

    @property
    def listed(self) -> str:
        """A list with its parts, those that have no expression still empty."""
        kind = "nn.ParameterList" if any(part.tensor for part in self.parts.values()) else self.base
        return f"{kind}({self.content})"

    @property
    def empty(self) -> str:
        """A module that is filled later."""
        return self.listed if self.numbers else "nn.Module()"

    @property
    def content(self) -> str:
        """What a list is made from: `Layer() for _ in range(20)`."""
        parts = {n: self.parts[str(n)] for n in self.numbers}
        texts = {n: part.made or part.bare or part.empty for n, part in parts.items()}
        runs = [list(run) for _, run in groupby(self.numbers, key=texts.__getitem__)]
        if self.base != "Numbered":
            if len(runs) == 1 and len(texts) > 1:
                return f"{texts[0]} for _ in range({len(texts)})"
            items = (f"*({texts[r[0]]} for _ in range({len(r)}))" if len(r) > 2 else _items(r, texts) for r in runs)
            return f"[{', '.join(items)}]"
        if len(runs) == 1 and len(texts) > 1:
            return f"{{{_comprehension(runs[0], texts)}}}"
        entries = (f"**{{{_comprehension(r, texts)}}}" if len(r) > 2 else _entries(r, texts) for r in runs)
        return f"{{{', '.join(entries)}}}"


def declare_class(holder: Holder, src: Source) -> None:
    """The statements of `__init__`."""
    if holder.base == "nn.Module":
        src.line("super().__init__()")
        declare(holder, src, "self")
        return
    content = holder.content
    src.line(f"super().__init__({content if content[0] in '[{' else f'[{content}]'})")
    _declare_inner(holder, src, "self")


def declare(holder: Holder, src: Source, owner: str) -> None:
    """Statements that fill a module."""
    for name, part in holder.parts.items():
        reached = paths.attribute(owner, name)
        if part.bare:
            src.line(_assignment(owner, name, part.bare))
            _declare_tensors(part, src, reached)
            continue
        if not part.there:
            line = _assignment(owner, name, part.made or part.empty, part.tensor)
            typed = owner != "self" or (part.made and not part.added)
            src.line(line if typed else line.replace(" = ", ": Any = ", 1))
        _fill(part, src, reached)


def _fill(part: Holder, src: Source, reached: str) -> None:
    if part.numbers:
        _declare_inner(part, src, reached)
    else:
        declare(part, src, reached)


def _declare_tensors(holder: Holder, src: Source, owner: str) -> None:
    """The tensors in modules that are there."""
    for name, part in holder.parts.items():
        if part.tensor:
            src.line(_assignment(owner, name, part.source, tensor=True))
        else:
            _declare_tensors(part, src, paths.attribute(owner, name))


def _declare_inner(holder: Holder, src: Source, reached: str) -> None:
    """Fill those parts of a list that no expression makes."""
    for number in holder.numbers:
        inner = holder.parts[str(number)]
        if inner.bare:
            _declare_tensors(inner, src, f"{reached}[{number}]")
        elif not inner.made or inner.added:
            _fill(inner, src, f"{reached}[{number}]")


def _assignment(owner: str, name: str, source: str, tensor: bool = False) -> str:
    target = paths.own_load(tensor) if (owner, name) == ("self", "load") else paths.attribute(owner, name)
    if not target.startswith("getattr"):
        return f"{target} = {source}"
    how = "register_parameter" if tensor and source.startswith("nn.Parameter") else "add_module"
    if source.startswith("nn.Buffer"):
        return f'{owner}.register_buffer("{name}", {source})'
    return f'{owner}.{how}("{name}", {source})'


def _items(numbers: Sequence[int], texts: Mapping[int, str]) -> str:
    return ", ".join(texts[n] for n in numbers)


def _entries(numbers: Sequence[int], texts: Mapping[int, str]) -> str:
    return ", ".join(f"{n}: {texts[n]}" for n in numbers)


def _comprehension(numbers: Sequence[int], texts: Mapping[int, str]) -> str:
    first, last = numbers[0], numbers[-1]
    over = f"range({first}, {last + 1})" if list(numbers) == list(range(first, last + 1)) else str(tuple(numbers))
    return f"i: {texts[first]} for i in {over}"


def tensor_source(value: Value) -> str:
    """A parameter or buffer without values."""
    shape = ", ".join(map(str, value.type.shape)) or "()"
    dtype = "" if value.type.dtype == torch.float32 else f", dtype={value.type.dtype}"
    empty = f"torch.empty({shape}{dtype})"
    if isinstance(value, Param) and not value.buffer:
        fixed = "" if value.type.dtype.is_floating_point or value.type.dtype.is_complex else ", requires_grad=False"
        return f"nn.Parameter({empty}{fixed})"
    return f"nn.Buffer({empty}{', persistent=False' if isinstance(value, Constant) else ''})"


NUMBERED = """
class Numbered(nn.ModuleList):  # modules under the numbers that they have in the whole model
    def __init__(self, modules: dict[int, nn.Module]):
        super().__init__()
        for number, module in modules.items():
            self.add_module(str(number), module)

    def __getitem__(self, index) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(index.start, index.stop, index.step or 1)]
        return self._modules[str(index)]
""".strip()


def class_names(blocks: Sequence[Block], taken: Iterable[str]) -> dict[Block, str]:
    """A name for each class: that of the user's class, numbered where several differ."""
    names: dict[Block, str] = {}
    used = set(taken)
    for block in blocks:
        name, count = block.cls, 1
        while name in used:
            count += 1
            name = f"{block.cls}{count}"
        used.add(name)
        names[block] = name
    return names
