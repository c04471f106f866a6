"""Rules of operators that move, copy or make elements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import sympy

from ir.graph import Value
from ir.sizes import Dim
from passes.rows.axis import Axis, Found, Holds, MixedError, Rule, Site, aligned, rank, require, wrapped


def same_place(site: Site) -> Found:
    """As in the first operand, whose shape the result has."""
    return site.axis(site.call.operands[0])


def reshaped(site: Site) -> Found:
    """The same elements in the same order, in another shape."""
    source = site.call.operands[0]
    axis = site.axis(source)
    if axis is None:
        return None
    before = prod(source.type.shape[: axis.dim]) * axis.before
    after = prod(source.type.shape[axis.dim + 1 :]) * axis.after
    new = site.result.type.shape
    for dim, size in enumerate(new):
        ahead = _quotient(before, prod(new[:dim]))
        behind = _quotient(after, prod(new[dim + 1 :]))
        if ahead is not None and behind is not None and _equal(size, ahead * site.size * behind):
            return replace(axis, dim=dim, before=ahead, after=behind)
    raise MixedError("the rows do not lie in one dimension of the new shape")


def _quotient(whole: Dim, part: Dim) -> Dim | None:
    """`whole / part` where that is a whole number for all sizes."""
    found = sympy.cancel(sympy.sympify(whole) / part)
    if sympy.fraction(found)[1] != 1:
        return None
    return int(found) if isinstance(found, sympy.Integer) else found


def _equal(a: Any, b: Any) -> bool:
    return sympy.expand(sympy.sympify(a) - b) == 0


def moved(order: Iterable[int], axis: Found) -> Found:
    """The result's dimensions are those of the operand in this order."""
    return None if axis is None else axis.at(list(order).index(axis.dim))


def permuted(site: Site) -> Found:
    return moved([wrapped(d, rank(site["self"])) for d in site["dims"]], site.axis(site["self"]))


def transposed(first: str = "dim0", second: str = "dim1") -> Rule:
    def rule(site: Site) -> Found:
        n = rank(site["self"])
        return moved(_swapped(n, wrapped(site[first], n), wrapped(site[second], n)), site.axis(site["self"]))

    return rule


def turned(site: Site) -> Found:
    """`x.T`, `x.mT`: the last two dimensions, or both."""
    n = rank(site["self"])
    return moved(_swapped(n, n - 2, n - 1) if n > 1 else range(n), site.axis(site["self"]))


def _swapped(n: int, a: int, b: int) -> list[int]:
    order = list(range(n))
    order[a], order[b] = order[b], order[a]
    return order


def unsqueezed(site: Site) -> Found:
    axis, new = site.axis(site["self"]), wrapped(site["dim"], rank(site.result))
    return None if axis is None else axis.at(axis.dim + (new <= axis.dim))


def squeezed(site: Site) -> Found:
    """Dimensions of size 1 go; that of the rows, whose number may change, stays."""
    source, axis = site["self"], site.axis(site["self"])
    if axis is None:
        return None
    dims = site.get("dim")
    asked = range(rank(source)) if dims is None else dims if isinstance(dims, (list, tuple)) else [dims]
    gone = {d for d in (wrapped(d, rank(source)) for d in asked) if source.type.shape[d] == 1}
    return axis.at(axis.dim - sum(d < axis.dim for d in gone))


def expanded(site: Site) -> Found:
    """Rows stay where they are, or one row becomes as many as there are."""
    axis = aligned(site, [site["self"]], rank(site.result))
    return axis or made(site)


def made(site: Site) -> Found:
    """Elements that are the same for each row, in a tensor with a dimension of as many."""
    dims = [i for i, size in enumerate(site.result.type.shape) if site.mentions(size)]
    if not dims:
        return None
    shape = site.result.type.shape
    behind = _quotient(shape[dims[0]], site.size)
    require(len(dims) == 1 and behind is not None and not site.mentions(behind), "its size is no multiple of the rows'")
    return Axis(dims[0], 1, behind if behind is not None else 1)


def filled(site: Site) -> Found:
    """A tensor made of a shape and a number."""
    numbers = [site.get(name) for name in ("fill_value", "value")]
    require(not any(map(site.mentions, numbers)), "it writes the number of rows into a tensor")
    return made(site)


def like(site: Site) -> Found:
    return axis.without_numbers() if (axis := site.axis(site["self"])) else filled(site)


def counted(site: Site) -> Found:
    """`arange(rows)` numbers them, `arange(2 * rows)` the places; one over anything else knows nothing of them."""
    given = [site.get("start"), site.get("end"), site.get("step")]
    if not any(map(site.mentions, given)):
        return None
    each = _quotient(given[1], site.size)
    whole = each is not None and not site.mentions(each)
    require(given[0] in (None, 0) and given[2] in (None, 1) and whole, "it counts over the rows")
    return Axis(0, holds=Holds.ROWS) if each == 1 else Axis(0, after=each or 1, holds=Holds.OWN)


def selected(site: Site) -> Found:
    """One element along a dimension, which goes."""
    axis, dim = site.axis(site["self"]), wrapped(site["dim"], rank(site["self"]))
    if axis is None:
        return None
    require(dim != axis.dim, "it takes one row out of all")
    return axis.at(axis.dim - (dim < axis.dim))


def sliced(site: Site) -> Found:
    source, axis = site["self"], site.axis(site["self"])
    if axis is not None and wrapped(site["dim"], rank(source)) == axis.dim:
        require(source.type == site.result.type, "it takes some rows out of all")
    return axis


def pieces(site: Site) -> Iterable[Found]:
    """`split`, `chunk`: consecutive pieces along a dimension."""
    source, axis = site["self"], site.axis(site["self"])
    if axis is None or wrapped(site["dim"], rank(source)) != axis.dim:
        return [axis] * len(site.call.results)
    return list(_pieces(site, axis))


def _pieces(site: Site, axis: Axis) -> Iterator[Found]:
    """Of `cat([x, x])` the two halves."""
    for result in site.call.results:
        before = _quotient(result.type.shape[axis.dim], site.size * axis.after)
        require(before is not None and not site.mentions(before), "it takes some rows out of all")
        yield replace(axis, before=before or 1)


def unbound(site: Site) -> Iterable[Found]:
    return [selected(site)] * len(site.call.results)


def concatenated(site: Site) -> Found:
    tensors: Sequence[Value] = site["tensors"]
    dim, axes = wrapped(site["dim"], rank(tensors[0])), [site.axis(t) for t in tensors]
    axis = next((a for a in axes if a is not None), None)
    if axis is None:
        return None
    if dim == axis.dim:
        require(
            all(a is not None and (a.dim, a.after) == (dim, axis.after) for a in axes),
            "it puts something else beside the rows",
        )
        return replace(axis, before=sum(a.before for a in axes if a is not None)).without_numbers()
    require(all(a is None or a == axis for a in axes) and None not in axes, "it combines different rows")
    return axis


def stacked(site: Site) -> Found:
    axes = {site.axis(t) for t in site["tensors"]}
    require(len(axes) == 1, "it combines different rows")
    axis, new = axes.pop(), wrapped(site["dim"], rank(site.result))
    return None if axis is None else axis.at(axis.dim + (new <= axis.dim))


def tiled(site: Site) -> Found:
    """`x.repeat(2, 1)`: each dimension so many times."""
    source, times = site["self"], site["repeats"]
    axis = site.axis(source)
    if axis is None:
        return made(site)
    dim = axis.dim + len(times) - rank(source)
    require(not any(map(site.mentions, times)), "it repeats each row for every row")
    tiled = replace(axis, dim=dim, before=axis.before * times[dim])
    return tiled if times[dim] == 1 else tiled.without_numbers()


def interleaved(site: Site) -> Found:
    """`x.repeat_interleave(2, dim)`: each element so many times."""
    source, axis = site["self"], site.axis(site["self"])
    require(site["dim"] is not None or axis is None, "it lays the rows end to end")
    if axis is None:
        return None
    same = wrapped(site["dim"], rank(source)) != axis.dim
    return axis if same else replace(axis, after=axis.after * site["repeats"])


def padded(site: Site) -> Found:
    source, axis = site["self"], site.axis(site["self"])
    if axis is not None:
        touched = range(rank(source) - len(site["pad"]) // 2, rank(source))
        require(axis.dim not in touched or source.type.shape[axis.dim] == site.result.type.shape[axis.dim], "it pads")
    return axis
