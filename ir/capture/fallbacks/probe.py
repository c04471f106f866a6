"""Types of a module's results, found by running it on random inputs of several sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any
from unittest.mock import patch

import sympy
import torch
from torch import nn
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import flop_registry

from ir.capture.fallbacks.made_up import made_up
from ir.capture.sizes.dynamic import Marks
from ir.capture.unregistered_state.restoring import as_they_were
from ir.errors import CaptureError, in_one_line
from ir.objects.signature import Tree, flatten
from ir.sizes import TensorType

# Multiples of the example's sizes in the runs; no row is an affine function of another.
_MULTIPLES = ((1, 2, 3), (1, 3, 2), (1, 3, 4), (1, 4, 2), (1, 2, 5), (1, 5, 2))


class ChangesBuffer(CaptureError):
    """A module changes one of its buffers, and so do the modules around it."""


class _Fails(CaptureError):
    """A module raises on made-up inputs."""


def _of_floats(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: change(tensor) if tensor.is_floating_point() else tensor


# Values that branches tell apart: zeros, positive and negative ones, large and small.
_OTHER_WAYS = [
    _of_floats(f)
    for f in (torch.zeros_like, torch.abs, lambda t: -t.abs(), lambda t: t.abs() * 1000, lambda t: -t.abs() * 1000)
]


@dataclass(frozen=True)
class ProbeRun:
    """One run: the sizes of the inputs, what the module returned, and the flops that it did."""

    sizes: list[int]
    results: Any
    flops: float


def probe(
    module: nn.Module,
    held: Mapping[str, torch.Tensor],
    arguments: Tree,
    tensors: Sequence[torch.Tensor],
    sizes: Sequence[Any],
    marks: Marks,
) -> list[ProbeRun]:
    """Run a module at several sizes, and at those of the example with values that may take it other ways.

    `held` are its parameters and buffers; those on the meta device are replaced by small constants.  `tensors` and
    `sizes` may be symbolic, over the marked sizes of the model's inputs.
    Afterwards the module holds what it did.  Raises CaptureError where it fails, or changes an input or a buffer.
    """
    given = (*(d for t in tensors for d in t.shape), *sizes)
    symbols = [s for d in given if isinstance(d, torch.SymInt) for s in _symbols(d, marks)]
    points = [_scaled(symbols, run) for run in (0, 0, 1, 2)]

    def runs(least: int) -> Iterator[ProbeRun]:
        for seed, point in enumerate(points):
            types = [([_at(d, point) for d in t.shape], t.dtype) for t in tensors]
            made, at = made_up(arguments, types, seed, least), [_at(s, point) for s in sizes]
            yield _run(module, held, arguments, made, at)
            for change in _OTHER_WAYS if seed == 0 else ():
                yield from _run_if_it_can(module, held, arguments, list(map(change, made)), at)

    with _outside_of_export(), ThreadPoolExecutor(1) as apart:  # most of torch's tracing state is thread-local
        try:
            return apart.submit(lambda: list(runs(0))).result()
        except ChangesBuffer:
            raise
        except CaptureError:
            with suppress(CaptureError):  # 0 is no length, 1 and 2 may be
                return apart.submit(lambda: list(runs(1))).result()
            raise


@contextmanager
def _outside_of_export() -> Iterator[None]:
    """Suspend what an export in progress changes for all threads, so that modules run as they do in a stage."""
    eager_call = patch.object(nn.Module, "__call__", nn.Module._wrapped_call_impl)
    own_data = patch.object(torch.Tensor, "data", torch._C.TensorBase.data, create=True)
    flags = (patch.object(torch.compiler, f"_is_{name}_flag", False) for name in ("compiling", "exporting"))
    with ExitStack() as contexts:
        for context in (_disable_current_modes(), eager_call, own_data, *flags):
            contexts.enter_context(context)
        yield


def fitted(seen: Sequence[ProbeRun], inputs: Sequence[sympy.Symbol]) -> list[TensorType]:
    """The types of the results over the sizes of the inputs.  Raises CaptureError for a size that depends on values."""
    runs = [[x for x in flatten(run.results)[0] if isinstance(x, torch.Tensor)] for run in seen]
    known = dict(zip(inputs, zip(*(run.sizes for run in seen), strict=True), strict=True))
    types = []
    for i, same in enumerate(zip(*runs, strict=True)):
        if len({(t.dtype, t.dim()) for t in same}) > 1:
            raise CaptureError(f"the type of its result {i} depends on values")
        shapes = zip(*(t.shape for t in same), strict=True)
        types.append(TensorType(tuple(_fit(values, known) for values in shapes), same[0].dtype))
    return types


def _fit(found: tuple[int, ...], known: Mapping[sympy.Symbol, tuple[int, ...]]) -> Any:
    """A number, or an expression `a * size + b` or `a * size * size`, that fits the sizes `found` in the runs."""
    if len(set(found)) == 1:
        return found[0]
    terms = list(_terms(known))
    for expr, values in terms:
        if values == found:
            return expr
    for expr, values in terms:
        slope = _slope(values, found)
        offset = found[0] - slope * values[0] if slope else 0
        if slope and all(slope * v + offset == f for v, f in zip(values, found, strict=True)):
            return slope * expr + offset
    raise CaptureError("the size of a result depends on values, or on the sizes of its inputs in a way of its own")


def _terms(known: Mapping[sympy.Symbol, tuple[int, ...]]) -> Iterator[tuple[sympy.Expr, tuple[int, ...]]]:
    """Each size that differs between runs, and each product of two, with its value in each run."""
    distinct: dict[tuple[int, ...], sympy.Symbol] = {}
    for symbol, values in known.items():
        if len(set(values)) > 1:
            distinct.setdefault(values, symbol)
    changing = [(symbol, values) for values, symbol in distinct.items()]
    yield from changing
    for (a, left), (b, right) in combinations_with_replacement(changing, 2):
        yield a * b, tuple(x * y for x, y in zip(left, right, strict=True))


def _slope(values: tuple[int, ...], found: tuple[int, ...]) -> int:
    low, high = values.index(min(values)), values.index(max(values))
    whole, rest = divmod(found[high] - found[low], values[high] - values[low])
    return 0 if rest else whole


@dataclass(frozen=True)
class _Symbol:
    """A symbol of torch, the user's name of the size, and its value in the example."""

    symbol: sympy.Symbol
    mark: str
    hint: int


def _symbols(size: torch.SymInt, marks: Marks) -> Iterator[_Symbol]:
    env = size.node.shape_env
    for symbol in size.node.expr.free_symbols:
        if symbol not in env.backed_var_to_val:
            raise CaptureError("the size of what it is given depends on the values of a tensor")
        source = re.search(r"\[(\d+)\]\.size\(\)\[(\d+)\]", str(env.var_to_sources[symbol][0].name))
        mark = marks[int(source[1])][int(source[2])].name if source else str(symbol)
        yield _Symbol(symbol, mark, int(env.backed_var_to_val[symbol]))


def _scaled(symbols: Sequence[_Symbol], run: int) -> dict[Any, Any]:
    """The sizes in a run: multiples of the example's, which keep divisibility."""
    marks = sorted({s.mark for s in symbols})
    times = {mark: _MULTIPLES[i % len(_MULTIPLES)][run] for i, mark in enumerate(marks)}
    return {s.symbol: sympy.Integer(s.hint * times[s.mark]) for s in symbols}


def _at(size: Any, point: Mapping[Any, Any]) -> int:
    return int(size.node.expr.xreplace(point)) if isinstance(size, torch.SymInt) else int(size)


def _run(
    module: nn.Module,
    held: Mapping[str, torch.Tensor],
    arguments: Tree,
    made: Sequence[torch.Tensor],
    sizes: list[int],
) -> ProbeRun:
    weights = {n: _in_memory(t) if isinstance(t, nn.Parameter) else t.clone() for n, t in held.items()}
    args, kwargs = arguments.fill([*made, *sizes])
    inputs, buffers = _versions(made), _versions(weights.values())
    with torch.no_grad(), torch.random.fork_rng([]), as_they_were(module), _Flops() as counter:
        try:
            results = functional_call(module, weights, args, kwargs)
        except Exception as e:
            raise _Fails(f"on made-up inputs it raises {in_one_line(e)}") from e
    if _versions(weights.values()) != buffers:
        raise ChangesBuffer("it changes a buffer")
    if _versions(made) != inputs:
        raise CaptureError("it changes what it is given")
    return ProbeRun([*(d for t in made for d in t.shape), *sizes], results, counter.total)


def _versions(tensors: Iterable[torch.Tensor]) -> list[int]:
    return [t._version for t in tensors]


def _run_if_it_can(module: nn.Module, *given: Any) -> Iterator[ProbeRun]:
    with suppress(_Fails):
        yield _run(module, *given)


def _in_memory(tensor: torch.Tensor) -> torch.Tensor:
    if not (tensor.is_meta or isinstance(tensor, FakeTensor)):
        return tensor
    return torch.full([1] * tensor.dim(), 0.01, dtype=tensor.dtype).expand(tensor.shape)


class _Flops(TorchDispatchMode):
    """A flop counter for modules that take derivatives inside, where torch's own fails, or have control flow."""

    total = 0
    supports_higher_order_operators = True

    @classmethod
    def is_infra_mode(cls) -> bool:
        """True, or torch.compile, which runs loops and branches, would refuse to run under it."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        is_region = isinstance(func, HigherOrderOperator)
        counted = flop_registry.get(func if is_region else func._overloadpacket)
        if counted is None and is_region:
            return func(*(self._counting(a) if callable(a) else a for a in args), **named)
        if counted is None and func.namespace != "prim":
            with self:  # in the body of a loop or branch, operators come as they are called
                parts = func.decompose(*args, **named)
            return func(*args, **named) if parts is NotImplemented else parts
        out = func(*args, **named)
        self.total += counted(*args, **named, out_val=out) if counted else 0
        return out

    def _counting(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """The body of a loop or branch, whose operators are counted in each turn."""

        def run(*args: Any) -> Any:
            with self:
                return body(*args)

        return run
