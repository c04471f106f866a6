"""The source of a kernel in Triton for a formula: each operator in float32, rounded where torch rounds."""

from dataclasses import dataclass
from math import isfinite

import torch

from ir.fused.recorded import BY_COLUMN, FLOATS, NoKernel, TensorAt
from ir.fused.row_sums import LOADED, is_known_row, sum_lines, threads_of_row

EXPRESSIONS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "rsub": "{1} - {0}",
    "mul": "{0} * {1}",
    "div": "tl.math.div_rn({0}, {1})",
    "neg": "{0} * -1.0",  # Triton's own is 0 - x, which of 0 is 0
    "square": "{0} * {0}",
    "rsqrt": 'tl.inline_asm_elementwise("rsqrt.approx.f32 $0, $1;", "=f,f", [{0}], tl.float32, True, 1)',
    "sqrt": "tl.sqrt_rn({0})",
    "reciprocal": "tl.math.div_rn(1.0, {0})",
    "exp": "libdevice.exp({0})",
    "sigmoid": "tl.math.div_rn(1.0, 1.0 + libdevice.exp(-{0}))",
    "silu": "tl.math.div_rn({0}, 1.0 + libdevice.exp(-{0}))",
    "relu": "tl.where({0} <= 0, 0.0, {0})",
    "gelu": "0.5 * {0} * (1.0 + libdevice.tanh(0.7978845608028654 * libdevice.fma_rn(0.044715, {0} * {0} * {0}, {0})))",
    "to": "{0}",
}
"""Each has the bits of torch's kernel for GPUs; `python -m tests.benchmarks.gpu.fused bits` compares them."""

COLUMNS_AT_ONCE = 1024  # columns that a program has at once
NUMBERS_AT_ONCE = 2048  # numbers that a program has at once, of several rows
MOST_PLACES = 1 << 31  # numbers of a tensor, which have places of 32 bits


@dataclass(frozen=True)
class RowLayout:
    """The results in memory, as rows of `columns` numbers; rows are counted by several dimensions.

    `strides` has those of each input along these dimensions, `across` the ones along the columns: 0 or 1.
    """

    sizes: tuple[int, ...]
    columns: int
    strides: tuple[tuple[int, ...], ...]
    across: tuple[int, ...]


@dataclass(frozen=True)
class KernelSource:
    """The source of a kernel, its warps, and for one call: the programs, and the numbers behind the tensors."""

    source: str
    warps: int
    programs: int
    numbers: tuple[int, ...]


def kernel_for(formula, tensors):
    """The kernel of a formula for arguments like `tensors`.  Raises NoKernel where there is none."""
    by_column = any(step.name in BY_COLUMN for step in formula.steps)
    return _Source(formula, tensors, laid_out(formula, tensors, by_column), by_column).kernel()


def laid_out(formula, tensors, by_column):
    """The layout of the results and the inputs.  Raises NoKernel where results have gaps, or columns are not dense."""
    shape, stride = formula.shape, formula.stride
    order = sorted((d for d in range(len(shape)) if shape[d] > 1), key=lambda d: (-stride[d], d))
    if by_column and (not order or order[-1] != len(shape) - 1):
        raise NoKernel("the last dimension is not the innermost in memory")
    order = order or [len(shape) - 1]
    dense = 1
    for d in reversed(order):
        if stride[d] != dense:
            raise NoKernel("results have gaps")
        dense *= shape[d]
    if not 0 < dense < MOST_PLACES:
        raise NoKernel("there are no numbers, or too many")
    steps = [_expanded(t, shape, by_column) for t in tensors]
    *outer, last = [(shape[d], *(step[d] for step in steps)) for d in order]
    merged = []
    for dim in outer:
        _append(merged, dim)
    if not by_column and merged and _fit(merged[-1], last):
        _append(merged, last)
        last = merged.pop()
    sizes, *strides = zip(*merged, strict=True) if merged else [()] * (len(tensors) + 1)
    if any(a not in (0, 1) for a in last[1:]):
        raise NoKernel("the columns of an argument do not lie one after the other")
    return RowLayout(tuple(sizes), last[0], tuple(map(tuple, strides)), last[1:])


def _expanded(tensor, shape, by_column):
    """The strides of an input along the dimensions of the results; its columns may be a part of theirs."""
    short = len(shape) - tensor.dim()
    sizes, strides = (1,) * short + tuple(tensor.shape), (0,) * short + tensor.stride()
    whole = zip(sizes[:-1], shape[:-1], strict=False) if by_column else zip(sizes, shape, strict=False)
    if short < 0 or any(size not in (1, full) for size, full in whole):
        raise NoKernel("an argument is larger than the results")
    if sum((n - 1) * s for n, s in zip(sizes, strides, strict=True)) >= MOST_PLACES:
        raise NoKernel("an argument has too many numbers")
    return tuple(0 if size == 1 else stride for size, stride in zip(sizes, strides, strict=True))


def _fit(outer, inner):
    """Whether two dimensions are one in memory, for the results and all inputs."""
    return all(a == b * inner[0] for a, b in zip(outer[1:], inner[1:], strict=True))


def _append(merged, dim):
    """Add a dimension, as one with that before it if they fit."""
    if merged and _fit(merged[-1], dim):
        outer = merged.pop()
        dim = (outer[0] * dim[0], *dim[1:])
    merged.append(dim)


class _Source:
    """The lines of a kernel.

    Values of rows, `[rows, 1]`, are made in the `head`, once for all columns; those of columns in a loop over them.
    """

    def __init__(self, formula, tensors, layout, by_column):
        self.formula, self.tensors, self.layout, self.by_column = formula, tensors, layout, by_column
        self.flat = flat = not layout.sizes and not by_column
        self.rows = 1
        for size in layout.sizes:
            self.rows *= size
        means = any(step.name == "mean" for step in formula.steps)
        self.chunk = COLUMNS_AT_ONCE if flat else min(COLUMNS_AT_ONCE, 1 << (layout.columns - 1).bit_length())
        self.tall = 1 if flat or means else max(NUMBERS_AT_ONCE // self.chunk, 1)
        self.warps = 1 if means else 4
        self.head, self.known, self.numbers = [], {}, {}
        self.of_rows = self._of_rows()

    def kernel(self):
        """The kernel, with its source and the numbers of this call."""
        if not self.of_rows.isdisjoint(self.formula.returned):
            raise NoKernel("a result is the same in all columns")
        body, columns = [], self.layout.columns
        place = self._multiple("size", columns) if self.flat else str(columns)
        within = "at" if self.flat else "col"
        whole = not self.flat and columns % self.chunk == 0
        there = f"{within} < {place}" if self.flat else "inside" if whole else f"inside & ({within} < {place})"
        known = {}
        for i, index in enumerate(self.formula.returned):
            value = self._of_column(index, body, known, within, there, 0)
            dtype = FLOATS[self._dtype(index)]
            at = within if self.flat else f"row * {columns} + {within}"
            body.append(f"tl.store(out{i} + {at}, {value}.to({dtype}), {there})")
        lines = list(self._flat_lines(body) if self.flat else self._tile_lines(body))
        tensors = [f"p{i}" for i in range(self.formula.inputs)] + [f"out{i}" for i in range(len(self.formula.returned))]
        head = f"def fused({', '.join([*tensors, *self.numbers])}):"
        source = "\n    ".join([head, *lines]) + "\n"
        programs = -(-columns // self.chunk) if self.flat else -(-self.rows // self.tall)
        return KernelSource(source, self.warps, programs, tuple(self.numbers.values()))

    def _flat_lines(self, body):
        yield f"at = tl.program_id(0) * {self.chunk} + tl.arange(0, {self.chunk})"
        yield from self.head
        yield from body

    def _tile_lines(self, body):
        columns, chunk = self.layout.columns, self.chunk
        yield f"row = tl.program_id(0) * {self.tall} + tl.arange(0, {self.tall})[:, None]"
        yield f"inside = row < {self._number('rows', self.rows)}"
        yield from self._places()
        yield from self.head
        if columns <= chunk:
            yield f"col = tl.arange(0, {chunk})[None, :]"
            yield from body
            return
        yield f"for start in range(0, {columns}, {chunk}):"
        yield f"    col = start + tl.arange(0, {chunk})[None, :]"
        yield from (f"    {line}" for line in body)

    def _places(self):
        """The place of each row in the inputs, by its place along each dimension."""
        sizes, last = self.layout.sizes, len(self.layout.sizes) - 1
        rest = "row"
        for d in range(last, 0, -1):
            size = self._number(f"size{d}", sizes[d])
            yield f"i{d} = {rest} % {size}"
            yield f"rest{d} = {rest} // {size}"
            rest = f"rest{d}"
        if sizes:
            yield f"i0 = {rest}"
        for i, strides in enumerate(self.layout.strides):
            terms = [f"i{d} * {self._multiple(f'stride{i}_{d}', n)}" for d, n in enumerate(strides) if n]
            yield f"at{i} = {' + '.join(terms) or 'row * 0'}"

    def _number(self, name, value):
        """An argument of the kernel."""
        self.numbers[name] = value
        return name

    def _multiple(self, name, value):
        """The same, known to the kernel as a multiple of 16 if it is one, so that it loads many bytes at once."""
        return f"({self._number(f'{name}_16', value // 16)} * 16)" if value % 16 == 0 else self._number(name, value)

    # ---- values

    def _of_rows(self):
        """The places of the values that are the same in all columns."""
        found = {i for i, across in enumerate(self.layout.across) if not across}
        for index, step in enumerate(self.formula.steps, self.formula.inputs):
            read = [a.index for a in step.operands if isinstance(a, TensorAt)]
            some = self.by_column and step.name not in BY_COLUMN
            if some and any(i not in found and self._shape(i)[-1] != step.shape[-1] for i in read):
                raise NoKernel("one of several columns is broadcast to others")
            if step.name == "mean" or (step.name not in BY_COLUMN and found.issuperset(read)):
                found.add(index)
        return found

    def _dtype(self, index):
        inputs = self.formula.inputs
        return self.tensors[index].dtype if index < inputs else self.formula.steps[index - inputs].dtype

    def _step(self, index):
        return self.formula.steps[index - self.formula.inputs]

    def _of_row(self, index):
        """The name of a value of rows, whose lines are in the head."""
        if index not in self.known:
            name = self.known[index] = f"r{index}"
            if index < self.formula.inputs:
                at, mask = ("", "") if self.flat else (f" + at{index}", ", inside")
                self.head.append(f"{name} = tl.load(p{index}{at}{mask}).to(tl.float32)")
            elif self._step(index).name == "mean":
                self._mean(name, self._step(index))
            else:
                read = [self._of_row(a.index) if isinstance(a, TensorAt) else a for a in self._step(index).operands]
                self.head += self._applied(name, self._step(index), read)
        return self.known[index]

    def _mean(self, name, step):
        """A loop over the columns that adds them up in torch's order."""
        columns = self.layout.columns
        wide, high = threads_of_row(self.rows, columns) if is_known_row(columns) else (0, 0)
        (place,) = step.operands
        share = torch.tensor(float(self.rows)) / torch.tensor(float(self.rows * columns))  # as torch rounds it
        if not wide or self._shape(place.index)[-1] != columns or share.item() != _rounded(1 / columns):
            raise NoKernel("the order in which torch adds up these rows is not known")
        at_once, body = LOADED * wide * high, []
        there = "inside" if columns % at_once == 0 else f"inside & (col < {columns})"
        value = self._of_column(place.index, body, {}, "col", there, 0)
        more = value if columns % at_once == 0 else f"tl.where(col < {columns}, {value}, 0.0)"
        self.head.append(f"{name} = tl.zeros([{self.tall}, {at_once}], tl.float32)")
        self.head.append(f"for start in range(0, {columns}, {at_once}):")
        self.head.append(f"    col = start + tl.arange(0, {at_once})[None, :]")
        self.head += [f"    {line}" for line in [*body, f"{name} += {more}"]]
        self.head += sum_lines(name, self.tall, wide, high)
        self.head.append(f"{name} *= {_float(1 / columns)}")

    def _shape(self, index):
        inputs = self.formula.inputs
        return tuple(self.tensors[index].shape) if index < inputs else self.formula.steps[index - inputs].shape

    def _of_column(self, index, body, known, within, there, shift):
        """The name of a value at the column `within + shift`, whose lines are in the `body`; `there`: of what is."""
        if index in self.of_rows:
            return self._of_row(index)
        key = index, there, shift
        if key in known:
            return known[key]
        name = known[key] = f"v{len(known)}"
        at = f"{within} + {shift}" if shift > 0 else f"{within} - {-shift}" if shift else within
        if index < self.formula.inputs:
            start = "" if self.flat else f"at{index} + "
            body.append(f"{name} = tl.load(p{index} + {start}{at}, {there}).to(tl.float32)")
            return name
        step = self._step(index)
        if step.name == "slice":
            known[key] = self._of_column(step.operands[0].index, body, known, within, there, shift + step.start)
            return known[key]
        if step.name == "cat":
            self._joined(name, step, body, known, within, there, shift)
            return name
        read = [
            self._of_column(a.index, body, known, within, there, shift) if isinstance(a, TensorAt) else a
            for a in step.operands
        ]
        body += self._applied(name, step, read)
        return name

    def _joined(self, name, step, body, known, within, there, shift):
        """The lines of tensors side by side."""
        starts, end = [], 0
        for place in step.operands:
            starts.append(end)
            end += self._shape(place.index)[-1]
        parts = []
        for i, (place, start) in enumerate(zip(step.operands, starts, strict=True)):
            low = [f"({within} >= {start - shift})"] * (i > 0)
            high = [f"({within} < {starts[i + 1] - shift})"] if i + 1 < len(starts) else []
            mask = " & ".join([there, *low, *high])
            parts.append(self._of_column(place.index, body, known, within, mask, shift - start))
        joined = parts[-1]
        for part, start in zip(parts[-2::-1], starts[:0:-1], strict=True):
            joined = f"tl.where({within} < {start - shift}, {part}, {joined})"
        body.append(f"{name} = {joined}")

    def _applied(self, name, step, read):
        """The lines of a pointwise operator."""
        if step.name == "div" and not isinstance(step.operands[1], TensorAt):
            text = f"{read[0]} * {_float(1 / (_rounded(read[1]) or float('nan')))}"  # as torch divides by a number
        else:
            text = EXPRESSIONS[step.name].format(*(_float(a) if isinstance(a, float) else a for a in read))
        yield f"{name} = {text}"
        if step.dtype != torch.float32 and step.name != "neg":
            yield f"{name} = {name}.to({FLOATS[step.dtype]}).to(tl.float32)"


def _rounded(number):
    return torch.tensor(number, dtype=torch.float32).item()


def _float(number):
    """A number as the kernel's source has it: the nearest in float32.  Raises NoKernel for one that is not finite."""
    if not isfinite(_rounded(number)):
        raise NoKernel("a number is too large")
    return repr(_rounded(number))
