"""Rules of operators that sort the rows, compute on them in that order and put them back, as mixtures of experts do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ir.graph import Value
from passes.rows.axis import Axis, Found, Holds, MixedError, Rule, Site, rank, require, wrapped
from passes.rows.compute import along
from passes.rows.shapes import like, same_place


def sorted_rows(site: Site) -> Iterable[Found]:
    """`sort`, `argsort`: along the rows of a tensor of one dimension, an order of them; a second sort inverts it."""
    axis = site.axis(site["self"])
    if axis is None or rank(site["self"]) != 1:
        return _with_natural(along("dim")(site))
    places = site.call.results[-1]
    if axis.holds is Holds.ORDER and axis.each == 1:
        require(len(site.call.results) == 1 and not site.get("descending"), "it sorts an order of the rows")
        return [replace(axis, holds=Holds.INVERSE, natural=True)]
    require(axis.order is None and not axis.numbers, "it computes over the rows")
    keys = None if site.get("descending") else site["self"]
    values = replace(axis, order=places, natural=axis.natural and keys is not None)
    return [*[values] * (len(site.call.results) - 1), replace(values, holds=Holds.ORDER, keys=keys, natural=True)]


def _with_natural(axes: Any) -> list[Found]:
    """The axes of values and of indices, which are 0 or more."""
    *values, places = axes
    return [*values, places and replace(places, natural=True)]


def chosen_first(site: Site) -> Iterable[Found]:
    """`topk`: values and their indices."""
    return _with_natural(along("dim")(site))


def divided(site: Site) -> Found:
    """`order // 2`: the place of what stands twice in a row."""
    axis, by = _axis(site, "self", "it computes with row numbers"), site["other"]
    whole = isinstance(by, int) and by > 0 and site.get("rounding_mode") in (None, "floor", "trunc")
    require(axis.holds is Holds.ORDER and whole, "it computes with row numbers")
    return replace(axis, each=axis.each * by)


def read(site: Site) -> Found:
    """`x[order]` puts rows in an order, `x[inverse]` puts them back."""
    [index], across = _only(site), "it reads across the rows"
    place = _axis_of(site, index, across)
    if not place.numbers:  # of what has no rows, by what is sorted
        require(site.axis(site["self"]) is None, across)
        return replace(place, natural=False)
    axis = _axis(site, "self", across)
    require(axis.dim == 0 and not axis.numbers, across)
    base = replace(place.without_numbers(), natural=axis.natural and site["self"] is place.keys)
    if place.holds is Holds.INVERSE:
        require(axis.order is place.order, "it reads at the places of another order")
        return replace(base, order=None)
    require(place.holds is Holds.ORDER and axis.order is None and _covers(axis, place), across)
    return base


def put(site: Site) -> Found:
    """`inverse[order] = arange(n)`, or `x[order] = sorted`: all of the tensor is written."""
    [index], across = _only(site), "it writes across the rows"
    place, given = _axis_of(site, index, across), _axis(site, "values", across)
    whole = place.holds is Holds.ORDER and place.each == 1 and not site.get("accumulate")
    written = site["values"].type.shape[0] == site["self"].type.shape[0]
    require(whole and written and given.dim == 0 and rank(site["values"]) == rank(site["self"]), across)
    base = Axis(0, place.before, place.after)
    if given.order is place.order and not given.numbers:
        return base
    require(given.order is None and (given.holds is Holds.OWN or (given.holds is Holds.ROWS and given.plain)), across)
    return replace(base, order=place.order, holds=Holds.INVERSE)


def summed(site: Site) -> Found:
    """`index_add(0, order // 2, x)`: sums of what stands in an order, each of one row."""
    across = "it writes across the rows"
    axis, place, given = (_axis(site, name, across) for name in ("self", "index", "source"))
    require(wrapped(site["dim"], rank(site["self"])) == axis.dim == 0, across)
    require(axis.order is None and not axis.numbers, across)
    require(place.holds is Holds.ORDER and given.order is place.order and not given.numbers, across)
    require(_covers(axis, place), across)
    return axis


def _covers(axis: Axis, place: Axis) -> bool:
    """Whether the rows of a tensor are those of the places in an order of them."""
    return (axis.before, axis.after * place.each) == (place.before, place.after)


def _only(site: Site) -> list[Value]:
    """The one index of a tensor, of one dimension."""
    indices: Any = site["indices"]
    require(len(indices) == 1 and rank(indices[0]) == 1, "it reads or writes across the rows")
    return list(indices)


def _axis(site: Site, name: str, why: str) -> Axis:
    return _axis_of(site, site[name], why)


def _axis_of(site: Site, value: Any, why: str) -> Axis:
    """The axis of a value.  Raises MixedError where it has none."""
    if (axis := site.axis(value)) is None:
        raise MixedError(why)
    return axis


def counted_keys(site: Site) -> Found:
    """`histc` of keys that lie in rising order and are 0 or more: with them the ends of groups are known."""
    axis = _axis(site, "self", "it computes over the rows")
    known = axis.order is not None and axis.natural and not axis.numbers
    require(known and site["min"] <= 0 < site["max"] == site["bins"] - 1, "it computes over the rows")
    return replace(axis, holds=Holds.COUNTS)


def added_up(site: Site) -> Found | Iterable[Found]:
    """`cumsum` of the numbers of keys."""
    axis = site.axis(site["self"])
    if axis is None or axis.holds is not Holds.COUNTS:
        return along("dim")(site)
    return replace(axis, holds=Holds.ENDS)


def product_by_group(site: Site) -> Found:
    """A product of each row with the matrix of its group, which is that of its own key."""
    why = "its groups depend on the rows"
    axis, ends = _axis(site, "self", why), _axis(site, "offs", why)
    require(ends.holds is Holds.ENDS and axis.order is ends.order and axis.dim == 0 and not axis.numbers, why)
    others = [v for v in site.call.operands if v not in (site["self"], site["offs"])]
    require(rank(site["self"]) == 2 and rank(site["mat2"]) == 3 and all(site.axis(v) is None for v in others), why)
    return axis


def unmoved(site: Site) -> Found:
    """`view` and the like, where rows keep their places."""
    axis = same_place(site)
    kept = axis is None or site.call.operands[0].type.shape[: axis.dim + 1] == site.result.type.shape[: axis.dim + 1]
    require(kept, "it moves rows that are sorted")
    return axis


def is_about_order(operands: Iterable[Value], known: Mapping[Value, Axis]) -> bool:
    """Whether a tensor is sorted by rows, or says where they lie otherwise than by their numbers."""
    axes = (known[v] for v in operands if v in known)
    return any(axis.order is not None or axis.holds not in (Holds.ELEMENTS, Holds.ROWS) for axis in axes)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("sort", "argsort"), sorted_rows),
    **dict.fromkeys(("floor_divide", "div", "divide"), divided),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten"), unmoved),
    **dict.fromkeys(("grouped_mm", "_grouped_mm"), product_by_group),
    **dict.fromkeys(("empty_like", "zeros_like"), like),
    "index": read,
    "index_put": put,
    "index_add": summed,
    "histc": counted_keys,
    "cumsum": added_up,
}
"""Rules for what is sorted, or says where rows lie."""

AS_USUAL = {"alias", "detach", "contiguous", "clone", "to", "_to_copy", "unsqueeze"}
AS_USUAL |= {"softmax", "linear", "layer_norm", "rms_norm", "split", "split_with_sizes", "chunk", "select", "slice"}
AS_USUAL |= {"squeeze", "transpose", "permute", "unbind"}
"""Operators whose usual rules hold for sorted rows, as those of elementwise ones do."""

NATURAL = {"alias", "detach", "contiguous", "clone", "to", "_to_copy", "view", "reshape", "_unsafe_view", "flatten"}
NATURAL |= {"unsqueeze", "squeeze", "select", "slice", "transpose", "permute", "sort", "argsort", "topk", "index"}
"""Operators of whose results it is known whether they are 0 or more."""
