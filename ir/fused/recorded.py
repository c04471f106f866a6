"""The operators that a function of pointwise operators runs, recorded from a run."""

from dataclasses import dataclass
from math import isfinite

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ir.fused.row_sums import LOADED


@dataclass(frozen=True)
class RecordedStep:
    """One operator: its name here, its operands, and the type of its result.

    An operand is a number, or the place of a tensor: those of the inputs come first, then those of the steps.
    """

    name: str
    operands: tuple[object, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int = 0  # of a slice


@dataclass(frozen=True)
class TensorAt:
    """The place of a tensor among the inputs of a function and the results of its steps."""

    index: int


@dataclass(frozen=True)
class FunctionSteps:
    """The steps of a function, the places of what it returns, and the shapes and strides of that."""

    inputs: int
    steps: tuple[RecordedStep, ...]
    returned: tuple[int, ...]
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def with_rows(self, last, count):
        """The same for more rows in the outermost dimension, from behind, which in these is of two."""

        def longer(shape):
            at = len(shape) - last
            return (*shape[:at], count, *shape[at + 1 :]) if at >= 0 and shape[at] == 2 else shape

        steps = tuple(RecordedStep(s.name, s.operands, longer(s.shape), s.dtype, s.start) for s in self.steps)
        return FunctionSteps(self.inputs, steps, self.returned, longer(self.shape), self.stride)


class NoKernel(Exception):
    """The reason why a function has no kernel for its arguments."""


FLOATS = {torch.float32: "tl.float32", torch.bfloat16: "tl.bfloat16", torch.float16: "tl.float16"}
POINTWISE = {
    "add.Tensor": "add",
    "sub.Tensor": "sub",
    "rsub.Scalar": "rsub",
    "mul.Tensor": "mul",
    "div.Tensor": "div",
    "neg.default": "neg",
    "pow.Tensor_Scalar": "square",
    "rsqrt.default": "rsqrt",
    "sqrt.default": "sqrt",
    "reciprocal.default": "reciprocal",
    "exp.default": "exp",
    "sigmoid.default": "sigmoid",
    "silu.default": "silu",
    "relu.default": "relu",
    "gelu.default": "gelu",
    "_to_copy.default": "to",
}


MOST_RUN = 1 << 22  # numbers of an argument of which all rows run to record what a function does
BY_COLUMN = ("cat", "slice", "mean")  # operators for which the last dimension stays one of its own


def steps_of(function, tensors):
    """The formula of a function for arguments like `tensors`.  Raises NoKernel where it has none.

    By a run on these: one on the meta device has torch import its compiler first, for a second of the host's time.
    Of large ones two rows run, as a run keeps all that it makes in memory.
    """
    cut = _outermost(tensors)
    if cut is not None:
        last, count = cut
        formula = _run(function, [t.narrow(-last, 0, 2) if _has(t, last) else t for t in tensors])
        rows = formula.stride[-last] if len(formula.shape) >= last and formula.shape[-last] == 2 else 0
        if all(rows >= stride for size, stride in zip(formula.shape, formula.stride, strict=True) if size > 1):
            return formula.with_rows(last, count)
    return _run(function, tensors)


def _outermost(tensors):
    """The dimension, from behind, of the rows that lie farthest apart, and their number; None if all run as well."""
    largest = max(tensors, key=torch.numel)
    if largest.numel() <= MOST_RUN:
        return None
    _, dim = max((stride, d) for d, stride in enumerate(largest.stride()) if largest.shape[d] > 1)
    last, count = largest.dim() - dim, largest.shape[dim]
    is_cut = last > 1 and count > 2 and all(t.shape[-last] == count for t in tensors if _has(t, last))
    return (last, count) if is_cut else None


def _has(tensor, last):
    """Whether a tensor has more than one row in a dimension, from behind."""
    return tensor.dim() >= last and tensor.shape[-last] > 1


def _run(function, tensors):
    """The formula of a function, by a run on `tensors`."""
    with torch.inference_mode(False), torch.no_grad():  # in inference mode, operators are not taken apart
        each = [_beside(t) for t in tensors]
        with _Recorder(each) as recorder:
            made = function(*each)
    made = made if isinstance(made, tuple) else (made,)
    kinds = {(tuple(t.shape), t.stride()) for t in made}
    if len(kinds) > 1:
        raise NoKernel("its results differ in their shapes or strides")
    ((shape, stride),) = kinds
    returned = tuple(recorder.place(t).index for t in made)
    if min(returned) < len(tensors):
        raise NoKernel("it returns an argument")
    return FunctionSteps(len(tensors), tuple(recorder.steps), returned, shape, stride)


def _beside(tensor):
    """A tensor of its own over the same memory: one may be two arguments, and one of inference mode stays of it."""
    made = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return made.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


class _Recorder(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls):
        return False  # or torch would import its compiler, for a second, to have it leave this class alone

    def __init__(self, tensors):
        super().__init__()
        self.alive = []  # so that no id is used again
        self.count, self.places, self.steps = 0, {}, []
        for tensor in tensors:
            self.add(tensor)

    def add(self, tensor):
        if tensor.dtype not in FLOATS or not tensor.dim():
            raise NoKernel(f"a tensor is {tensor.dtype} of {tensor.dim()} dimensions")
        self.known_as(tensor, TensorAt(self.count))
        self.count += 1

    def known_as(self, tensor, place):
        self.alive.append(tensor)
        self.places[id(tensor)] = place

    def place(self, tensor):
        return self.places[id(tensor)]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = str(func).removeprefix("aten.")
        if name in ("alias.default", "detach.default"):
            self.known_as(out, self.place(args[0]))
            return out
        step = self.step(name, args, kwargs or {}, out)
        self.add(out)
        self.steps.append(step)
        return out

    def step(self, name, args, kwargs, out):
        first, *others = args
        if name == "cat.default":
            tensors, dim = first, others[0] if others else kwargs.get("dim", 0)
            return self.along_columns("cat", tensors, dim, out)
        if name == "slice.Tensor":
            dim, start, _, by = (*others, *(0, None, None, 1)[len(others) :])
            if by != 1:
                raise NoKernel("a slice takes steps")
            start = start or 0
            return self.along_columns("slice", [first], dim, out, max(start + first.shape[-1] * (start < 0), 0))
        if name == "mean.dim":
            dims, keepdim = [d % first.dim() for d in others[0]], others[1:] == [True]
            if dims != [first.dim() - 1] or not keepdim or kwargs or first.dtype != torch.float32:
                raise NoKernel("a mean is not that of rows of float32")
            if first.stride(-1) != 1:
                raise NoKernel("a mean is of numbers that do not lie one after the other")
            if any(n > 1 and s % LOADED for n, s in zip(first.shape, first.stride()[:-1], strict=False)):
                raise NoKernel("a mean is of rows of which torch loads the first numbers apart")
            return self.result("mean", [first], out)
        if name not in POINTWISE:
            raise NoKernel(f"it runs {name}")
        return self.result(POINTWISE[name], self.pointwise(name, args, kwargs), out)

    def pointwise(self, name, args, kwargs):
        """The operands of a pointwise operator."""
        first, *others = args
        if name == "_to_copy.default":
            if kwargs.keys() - {"dtype"}:
                raise NoKernel("a cast changes more than the dtype")
            return [first]
        if name == "gelu.default":
            if kwargs != {"approximate": "tanh"}:
                raise NoKernel("torch's gelu has other bits")
            return [first]
        if name == "pow.Tensor_Scalar":
            if others != [2]:
                raise NoKernel("a power is no square")
            return [first]
        if kwargs or (name == "rsub.Scalar" and len(others) > 1):
            raise NoKernel(f"{name} has options")
        return [first, *others]

    def along_columns(self, name, tensors, dim, out, start=0):
        if dim % out.dim() != out.dim() - 1 or any(t.dtype != out.dtype for t in tensors):
            raise NoKernel(f"a {name} is not along the last dimension, or casts")
        return self.result(name, tensors, out, start)

    def result(self, name, operands, out, start=0):
        for number in operands:
            if not isinstance(number, torch.Tensor) and not isfinite(number):
                raise NoKernel("a number is not finite")
        places = tuple(self.place(a) if isinstance(a, torch.Tensor) else float(a) for a in operands)
        return RecordedStep(name, places, tuple(out.shape), out.dtype, start)
