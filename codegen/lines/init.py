"""The lines of an `__init__`: declarations of what a class holds, under the model's own names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import torch

from codegen.lines.line import Bind, Line, Store
from codegen.lines.modules import (
    Constructed,
    Existing,
    Member,
    ModuleSequence,
    PlainModule,
    Rebuilt,
    StoredTensor,
    TensorSequence,
    numbered,
    parts_in,
)
from codegen.lines.scopes.scope import SELF
from codegen.spelling.expressions import Attribute, Expression, Invocation, Subscript, Variable, Verbatim, is_plain
from codegen.spelling.paths import own_load
from codegen.spelling.torch_modules import FROZEN
from ir.graph import Constant, Param, State, Value

NUMBERED = "Numbered"  # the class for modules under numbers that nn.ModuleList cannot have
_DICT = "nn.ModuleDict"


def base_class(root: PlainModule | ModuleSequence) -> str:
    """The class that one with these parts derives from."""
    return _kind(root, is_class=True) if isinstance(root, ModuleSequence) else "nn.Module"


def init_lines(root: PlainModule | ModuleSequence) -> Iterator[Line]:
    """The statements of `__init__`."""
    content: tuple[Expression, ...] = ()
    if isinstance(root, ModuleSequence):
        text = _content(root, is_class=True)
        content = (Verbatim(text if text[0] in "[{" else f"[{text}]"),)
    yield Bind((), (Invocation(Attribute(Invocation(Variable("super")), "__init__"), content),))
    yield from _filled(root, SELF)


def helpers(root: PlainModule | ModuleSequence) -> frozenset[str]:
    """The classes of the file's own that the class needs: `NUMBERED` as its base or for a list in it, `FROZEN`."""
    sequence = base_class(root) == NUMBERED or any(
        isinstance(p, ModuleSequence) and p is not root and _kind(p) == NUMBERED for p in parts_in(root)
    )
    frozen = any(p.source.startswith(FROZEN) for p in parts_in(root) if isinstance(p, Constructed))
    return frozenset([NUMBERED] * sequence + [FROZEN] * frozen)


# ---- statements


def _filled(part: Member, reached: Expression) -> Iterator[Line]:
    """Statements that add to a module what the expression that makes it lacks."""
    match part:
        case ModuleSequence(parts, keyed=keyed):
            for number, inner in parts.items():
                item = Subscript(reached, str(number) if keyed else number)
                if isinstance(inner, Rebuilt):
                    yield from _tensors(inner, item)
                elif not _expression(inner) or _has_added(inner):
                    yield from _filled(inner, item)
        case Constructed(added=parts) | Existing(parts) | PlainModule(parts):
            listed = bool(numbered(parts))
            for name, inner in parts.items():
                yield from _declared(reached, name, inner)
                yield from _filled(inner, Subscript(reached, int(name)) if listed else Attribute(reached, name))
        case Rebuilt():
            yield from _tensors(part, reached)
        case StoredTensor() | TensorSequence():
            pass


def _declared(owner: Expression, name: str, part: Member) -> Iterator[Line]:
    """The statement that makes a part, unless it is there."""
    match part:
        case Existing():
            pass
        case Rebuilt(source):
            yield _assignment(owner, name, Verbatim(source))
        case StoredTensor():
            yield _assignment(owner, name, Verbatim(tensor_source(part.value)), part)
        case _:
            untyped = owner == SELF and (not _expression(part) or _has_added(part))
            yield _assignment(owner, name, Verbatim(_expression(part) or _empty(part)), untyped=untyped)


def _tensors(module: Rebuilt, owner: Expression) -> Iterator[Line]:
    """The tensors of a module that is kept whole."""
    for path, tensor in module.tensors.items():
        *modules, name = path.split(".")
        reached = owner
        for inner in modules:
            reached = Attribute(reached, inner)
        yield _assignment(reached, name, Verbatim(tensor_source(tensor.value)), tensor)


def _assignment(
    owner: Expression, name: str, value: Expression, tensor: StoredTensor | None = None, untyped: bool = False
) -> Line:
    """`owner.name = value`, by a call where the name is none for Python."""
    if (owner, name) == (SELF, "load"):
        return Store(own_load(tensor is not None), value, untyped)
    if is_plain(name):
        return Store(Attribute(owner, name), value, untyped)
    method = "add_module" if tensor is None else "register_parameter" if tensor.is_parameter else "register_buffer"
    return Bind((), (Invocation(Attribute(owner, method), (Verbatim(f'"{name}"'), value)),))


# ---- expressions


def _expression(part: Member) -> str:
    """One expression that makes a part; "" where that takes several statements."""
    match part:
        case StoredTensor(value):
            return tensor_source(value)
        case Constructed(source):
            return source
        case ModuleSequence(parts):
            return _listed(part) if all(map(_expression, parts.values())) else ""
        case TensorSequence(parts):
            return f"nn.ParameterList({_list({n: tensor_source(t.value) for n, t in parts.items()})})"
    return ""


def _empty(part: Member) -> str:
    """A module that is filled later."""
    return _listed(part) if isinstance(part, ModuleSequence) else "nn.Module()"


def _has_added(part: Member) -> bool:
    """Whether something is added to a module that an expression makes, be it this one or one in it."""
    match part:
        case Constructed(added=added):
            return bool(added)
        case Existing(parts) | PlainModule(parts) | ModuleSequence(parts):
            return any(map(_has_added, parts.values()))
    return False


def _kind(part: ModuleSequence, is_class: bool = False) -> str:
    """The class of a list, or the one that it derives from.  nn.ModuleList says that its parts are plain modules."""
    if part.keyed:
        return _DICT
    complete = list(part.parts) == list(range(len(part.parts)))
    opened = _has_added(part) or (is_class and not all(map(_expression, part.parts.values())))
    return "nn.ModuleList" if complete and not part.sliced and not opened else NUMBERED


def _listed(part: ModuleSequence) -> str:
    """A list with its parts, those that have no expression still empty."""
    return f"{_kind(part)}({_content(part)})"


def _content(part: ModuleSequence, is_class: bool = False) -> str:
    """The argument of a list's constructor: `Layer() for _ in range(20)`."""
    texts, kind = {n: _made_or_empty(inner) for n, inner in part.parts.items()}, _kind(part, is_class)
    if kind not in (NUMBERED, _DICT):
        return _list(texts)
    runs, key = _runs(texts), "str(i)" if kind == _DICT else "i"
    if len(runs) == 1 and len(texts) > 1:
        return f"{{{_comprehension(key, runs[0], texts)}}}"
    quote = '"' if kind == _DICT else ""
    entries = (f"**{{{_comprehension(key, r, texts)}}}" if len(r) > 2 else _entries(r, texts, quote) for r in runs)
    return f"{{{', '.join(entries)}}}"


def _made_or_empty(part: Member) -> str:
    return part.source if isinstance(part, Rebuilt) else _expression(part) or _empty(part)


def _list(texts: Mapping[int, str]) -> str:
    runs = _runs(texts)
    if len(runs) == 1 and len(texts) > 1:
        return f"{texts[0]} for _ in range({len(texts)})"
    items = (f"*({texts[r[0]]} for _ in range({len(r)}))" if len(r) > 2 else _items(r, texts) for r in runs)
    return f"[{', '.join(items)}]"


def _runs(texts: Mapping[int, str]) -> list[list[int]]:
    """Neighbours with the same text."""
    return [list(run) for _, run in groupby(texts, key=texts.__getitem__)]


def _items(numbers: Sequence[int], texts: Mapping[int, str]) -> str:
    return ", ".join(texts[n] for n in numbers)


def _entries(numbers: Sequence[int], texts: Mapping[int, str], quote: str) -> str:
    return ", ".join(f"{quote}{n}{quote}: {texts[n]}" for n in numbers)


def _comprehension(key: str, numbers: Sequence[int], texts: Mapping[int, str]) -> str:
    first, last = numbers[0], numbers[-1]
    over = f"range({first}, {last + 1})" if list(numbers) == list(range(first, last + 1)) else str(tuple(numbers))
    return f"{key}: {texts[first]} for i in {over}"


def tensor_source(value: Value) -> str:
    """A parameter or buffer without values."""
    shape = ", ".join(map(str, value.type.shape)) or "()"
    dtype = "" if value.type.dtype == torch.float32 else f", dtype={value.type.dtype}"
    if isinstance(value, State) and value.zeros:
        pool = ", ".join((value.rows, *map(str, value.type.shape[1:])))
        return f"nn.Buffer(torch.zeros({pool}, dtype={value.type.dtype}), persistent=False)"
    empty = f"torch.empty({shape}{dtype})"
    if StoredTensor(value).is_parameter:
        real = value.type.dtype.is_floating_point or value.type.dtype.is_complex
        fixed = "" if real and not (isinstance(value, Param) and value.frozen) else ", requires_grad=False"
        return f"nn.Parameter({empty}{fixed})"
    return f"nn.Buffer({empty}{', persistent=False' if isinstance(value, Constant) else ''})"
