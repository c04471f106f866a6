"""Whether the stages of a module compute what it does: for its example, again, at other values, sizes and layouts."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from ir.capture.export.replaced.padding import without_fused_layers
from ir.errors import CompileError, InternalError
from ir.objects.signature import flatten
from passes.compilation.api import compile_model
from runtime import InputError, Pipeline
from tests.fuzz.generator import inputs_of
from tests.support.models.planning import slow_machine

SEARCH = 0.3  # seconds for a better cut

# Sums in another order: eager kernels choose it by the layout of their operands, and stages may get inputs that the
# caller passed with holes as dense ones.  Modules of nn.MultiheadAttention have a fused kernel that stages do not.
# So with inputs laid out as in the example, and without such modules, results must have the same bits; otherwise
# floating-point results may differ by this much of their largest element.  float64 may have been float32 before.
ORDER_OF_SUMS = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 5e-2}

# What rounding may come to in a model that amplifies it: allowed where the stages return, to the bit, what the model
# does without fused kernels for the same values laid out as in the example.  Integers, as those of argmax(), may then
# differ at will.
AMPLIFIED = 1e-2

# A step, as of long() or argmax(), makes any difference of rounding.  So an element may also be what the model makes of
# inputs that are moved by as much as rounding moves what it computes.
MOVED, MOVES = 4, 8  # distances between neighbouring numbers, and draws


@dataclass(frozen=True)
class Verdict:
    """What came of a module: "equal", "refused", "odd" (no module to try) or a fault; and why."""

    kind: str
    reason: str = ""
    refused_calls: tuple[str, ...] = ()  # calls at other sizes or layouts that the pipeline refused in words

    @property
    def found(self) -> bool:
        return self.kind not in ("equal", "refused", "odd")


class Fault(Exception):
    """A difference, or an error that is none in words."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason


@dataclass(frozen=True)
class Given:
    """A call: what it is, its arguments, and whether results must have the same bits."""

    what: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    exact: bool = True
    laid_out_otherwise: bool = False  # than the example


def check(file: Path, folder: Path) -> Verdict:
    """Compile a generated file to a folder, run it, and compare; again with fixed sizes where others are refused."""
    with loaded(file) as module, torch.random.fork_rng(), one_thread():
        verdict = attempt(module, folder)
        if verdict.kind != "refused" or module.dynamic_shapes is None:
            return verdict
        module.dynamic_shapes, module.sizes = None, module.sizes[:1]
        fixed = attempt(module, folder)
        return replace(fixed, refused_calls=(verdict.reason, *fixed.refused_calls))


def attempt(module: Any, folder: Path) -> Verdict:
    calls = list(calls_of(module))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            model = module.model()
            if any(isinstance(m, nn.MultiheadAttention) for m in model.modules()):
                calls = [replace(call, exact=False) for call in calls]
            expected = [expected_of(model, call) for call in calls]
            if isinstance(expected[0].returned, Exception):
                return Verdict("odd", f"the model itself fails: {expected[0].returned}")
            notes = compile_file(module, calls[0], folder)
            texts = [*notes, *(str(w.message) for w in said)]
            return Verdict("equal", refused_calls=tuple(compare(folder, calls, expected, texts)))
        except InternalError as e:
            return Verdict("a fault of ours", str(e))
        except CompileError as e:
            return Verdict("refused", reason_of(str(e)))
        except Fault as e:
            return Verdict(e.kind, e.reason)
        except Exception as e:
            return Verdict("a crash", f"{type(e).__name__}: {e}"[:500])


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread, so that sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def loaded(file: Path) -> Iterator[Any]:
    """The module of a Python file, under its name as long as it is needed."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[file.stem]


def calls_of(module: Any) -> Iterator[Given]:
    """The example twice, other values, other sizes, other layouts, and the example once more."""
    first, *others = module.sizes
    for what, sizes, seed in [
        ("the example", first, 0),
        ("the example again", first, 0),
        ("other values", first, 1),
        *((f"batch {batch}, seq {seq}", (batch, seq), 2) for batch, seq in others),
        ("the example after all", first, 0),
    ]:
        yield Given(what, *inputs_of(module, sizes, seed))
    for what, change in [("transposed inputs", transposed), ("inputs with holes", spread)]:
        args, kwargs = inputs_of(module, first, 3)
        kwargs = {n: change(a) for n, a in kwargs.items()}
        yield Given(what, tuple(map(change, args)), kwargs, exact=False, laid_out_otherwise=True)


def transposed(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def spread(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(2, -1)[..., ::2]


@dataclass(frozen=True)
class Expected:
    """What a model returns, or the error that it raises, and its arguments afterwards.

    `as_usual`: what it returns without fused kernels for the same values laid out as in the example, where that may be
    rounded otherwise; `moved`: what it returns for inputs that differ by as much as rounding.
    """

    returned: Any
    arguments: Any
    as_usual: Any = None
    moved: tuple[Any, ...] = ()


def expected_of(model: Any, call: Given) -> Expected:
    if call.exact:
        return Expected(*run(model, copied(call)))
    with without_fused_layers():
        as_usual, _ = run(deepcopy(model), tree_map(torch.Tensor.contiguous, copied(call)))
    moved = tuple(run(deepcopy(model), tree_map(nudged, copied(call)))[0] for _ in range(MOVES))
    return Expected(*run(model, copied(call)), as_usual, moved)


def nudged(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the same layout, each element moved by a few of the distances between neighbouring numbers."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.mul_(1 + MOVED * torch.finfo(tensor.dtype).eps * (2 * torch.rand(tensor.shape) - 1)).to(tensor.dtype)


def run(model: Any, arguments: Any) -> tuple[Any, Any]:
    """What a model returns, or the error that it raises, and the arguments that it leaves."""
    args, kwargs = arguments
    try:
        with torch.no_grad():
            return deepcopy(model(*args, **kwargs)), arguments
    except Exception as e:
        return e, arguments


def copied(call: Given) -> Any:
    """Copies of the arguments that are laid out as they are."""
    return deepcopy((call.args, call.kwargs))


def compile_file(module: Any, call: Given, folder: Path) -> Sequence[str]:
    """The notes of the compiler.  Raises Fault where it changes the model or its inputs."""
    model, (args, kwargs) = module.model(), copied(call)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plan = compile_model(
        model,
        args,
        kwargs,
        out=folder,
        cluster=slow_machine(module.stages),
        dynamic_shapes=module.dynamic_shapes,
        time_limit=SEARCH,
        size_limit=0.1,
        draw="stages",
        progress=False,
    )
    if any(not same_bits(before[name], tensor) for name, tensor in model.state_dict().items()):
        raise Fault("a changed model", "compiling changes the weights or buffers of the model")
    if not all(map(same_bits, leaves((call.args, call.kwargs)), leaves((args, kwargs)))):
        raise Fault("changed inputs", "compiling changes the example inputs")
    return plan.graph.notes


def compare(folder: Path, calls: Sequence[Given], expected: Sequence[Expected], said: Sequence[str]) -> Iterator[str]:
    """Run all calls and yield those that were refused in words.  Raises Fault at the first difference.

    The first call alone counts where the compiler said that the model keeps what stages do not, and other layouts do
    not where it said that results depend on them.  Where it fixed values of inputs, others may be refused.  None counts
    where it said that results depend on the order in which torch computes elements, or that forward computes something
    else while it is exported, as nn.MultiheadAttention does, whose fused kernel returns another layout.
    """
    if any(why in text for text in said for why in ("depends on their order", "forward computes something else")):
        return
    frozen = any(text.startswith("forward changes ") for text in said)
    by_layout = any("for the example's layout" in text for text in said)
    by_values = any(text.endswith("its values decide shapes") for text in said)
    with Pipeline.load(folder, devices=["cpu"]) as pipe:
        for call, wanted in [*zip(calls, expected, strict=True)][: 1 if frozen else None]:
            args, kwargs = copied(call)
            try:
                got = pipe(*args, **kwargs)
            except InputError as e:
                if call.what.startswith("the example") or (call.what == "other values" and not by_values):
                    raise Fault("a refused example", f"{call.what}: {e}") from e
                yield f"{call.what}: {reason_of(str(e))}"
                return  # a model with state goes on from a call that the stages have not seen
            except Exception as e:
                if isinstance(wanted.returned, Exception):
                    return
                raise Fault("a crash", f"{call.what}: {type(e).__name__}: {e}"[:500]) from e
            if isinstance(wanted.returned, Exception) or (call.laid_out_otherwise and by_layout):
                return
            same_results(call, wanted, got)
            same_inputs(call, wanted.arguments, (args, kwargs), said)
            scribble(got)


def same_results(call: Given, wanted: Expected, got: Any) -> None:
    (a, a_tree), (b, b_tree) = flatten(wanted.returned), flatten(got)
    if str(a_tree) != str(b_tree):
        raise Fault("other containers", f"{call.what}: {b_tree} in place of {a_tree}")
    usual = flatten(wanted.as_usual)[0]
    moved = [found for found, _ in map(flatten, wanted.moved) if len(found) == len(a)]
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        if not (difference := differs(x, y, call.exact)):
            continue
        rounded = len(usual) == len(a) and only_rounded(x, y, usual[i])
        if not rounded and not beyond_a_step(y, [x, *(found[i] for found in moved)]):
            raise Fault("a difference", f"{call.what}: result {i} {difference}")


def beyond_a_step(got: Any, found: Sequence[Any]) -> bool:
    """Whether each element of a result is one that the model makes of the inputs, or of moved ones."""
    alike = isinstance(got, torch.Tensor) and all(
        isinstance(x, torch.Tensor) and (x.shape, x.dtype) == (got.shape, got.dtype) for x in found
    )
    if len(found) == 1 or not alike:
        return False
    allowed = ORDER_OF_SUMS.get(got.dtype, 0.0) * max(map(largest, found))
    nearest = torch.stack([(x.double() - got.double()).abs() for x in found]).min(0).values
    return bool((nearest <= allowed).all())


def only_rounded(wanted: Any, got: Any, as_usual: Any) -> bool:
    """Whether a result has the bits that the model itself has in another layout, and is near."""
    if not isinstance(got, torch.Tensor) or differs(as_usual, got, exact=True):
        return False
    return not got.is_floating_point() or most_difference(wanted, got) <= AMPLIFIED * largest(wanted)


def same_inputs(call: Given, wanted: Any, got: Any, said: Sequence[str]) -> None:
    """Raise Fault where the caller's tensors are not as the model leaves them, and no warning says so."""
    before = leaves((call.args, call.kwargs))
    for i, (old, model, ours) in enumerate(zip(before, leaves(wanted), leaves(got), strict=True)):
        if not same_bits(old, ours) and not same_bits(model, ours):
            raise Fault("changed inputs", f"{call.what}: the pipeline changes tensor {i} of the caller")
        told = any("input" in text or "forward changes the memory" in text for text in said)
        if not same_bits(model, ours) and not told:
            raise Fault("unchanged inputs", f"{call.what}: the model changes input {i}, the stages do not, unsaid")


def leaves(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in flatten(tree)[0] if isinstance(leaf, torch.Tensor)]


def scribble(result: Any) -> None:
    """Change what was returned, which is the caller's: nothing later may show it."""
    for leaf in leaves(result):
        if not any(step == 0 and size > 1 for step, size in zip(leaf.stride(), leaf.shape, strict=True)):
            leaf.logical_not_() if leaf.dtype == torch.bool else leaf.add_(1)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def differs(a: Any, b: Any, exact: bool) -> str:
    """How two leaves differ; empty where they do not."""
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return "" if type(a) is type(b) and a == b else f"is {b!r} in place of {a!r}"
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return f"is {b.dtype} {list(b.shape)} in place of {a.dtype} {list(a.shape)}"
    if same_bits(a, b):
        return ""
    most = most_difference(a, b)
    allowed = 0.0 if exact else ORDER_OF_SUMS.get(a.dtype, 0.0) * largest(a)
    return "" if most <= allowed else f"({a.dtype}) differs by {most:.3g}"


def most_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()


def largest(tensor: torch.Tensor) -> float:
    return max(1.0, tensor.double().abs().max().item())


def reason_of(message: str) -> str:
    """A message without its names and numbers, so that alike ones are counted together."""
    text = re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"", "…", message.partition("\n")[0])
    return re.sub(r"\d+", "N", text)[:110]
