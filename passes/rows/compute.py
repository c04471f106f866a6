"""Rules of operators that compute: elementwise, along a dimension, products, layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ir.graph import Value
from passes.rows.axis import Found, Rule, Site, aligned, rank, require, wrapped


def elementwise(site: Site) -> Found:
    """Each element of the result is made of those that broadcasting puts in its place."""
    flat = [x for x in (*site.call.args, *site.call.kwargs.values()) if not isinstance(x, Value)]
    require(not any(map(site.mentions, flat)), "it computes with the number of rows")
    return aligned(site, site.call.operands, rank(site.result))


def along(*names: str) -> Rule:
    """Mixes elements along one dimension, or some, and keeps the shape: softmax, cumsum, sort."""

    def rule(site: Site) -> Iterable[Found]:
        axis = site.axis(site["self"])
        if axis is not None:
            require(axis.dim not in _dims(site, names), "it computes over the rows")
        return [axis] * len(site.call.results)

    return rule


def reduced(site: Site) -> Iterable[Found]:
    """One element takes the place of all along some dimensions, or of all that there are."""
    axis = site.axis(site.call.operands[0])
    if axis is None:
        return [None] * len(site.call.results)
    dims = _dims(site, ("dim", "dims", "axis"))
    require(axis.dim not in dims, "it computes over the rows")
    kept = bool(site.get("keepdim"))
    return [axis if kept else axis.at(axis.dim - sum(d < axis.dim for d in dims))] * len(site.call.results)


def _dims(site: Site, names: Sequence[str]) -> list[int]:
    n = rank(site.call.operands[0])
    given: Any = next((site[name] for name in names if name in site.call.arguments), None)
    if given is None or given == []:
        return list(range(n))
    return [wrapped(d, n) for d in (given if isinstance(given, (list, tuple)) else [given])]


def inner(count: int) -> Rule:
    """Mixes elements of the last `count` dimensions alone: convolution in space, pooling, normalisation."""

    def rule(site: Site) -> Iterable[Found]:
        source = site.call.operands[0]
        axis = site.axis(source)
        if axis is not None:
            require(axis.dim < rank(source) - count, "it computes over the rows")
            _require_plain_weights(site, [v for v in site.call.operands if v is not source])
        return [axis] + [None if axis is None else axis] * (len(site.call.results) - 1)

    return rule


def _require_plain_weights(site: Site, values: Iterable[Value]) -> None:
    require(all(site.axis(v) is None for v in values), "its weights depend on the rows")


def normalised(site: Site) -> Found:
    """`layer_norm`, `rms_norm`: over the last dimensions."""
    axis = site.axis(site["input"])
    if axis is not None:
        require(axis.dim < rank(site["input"]) - len(site["normalized_shape"]), "it normalises over the rows")
        _require_plain_weights(site, [v for v in site.call.operands if v is not site["input"]])
    return axis


def by_channel(site: Site) -> Iterable[Found]:
    """`batch_norm` with the statistics that it has; with those of the batch it mixes rows."""
    axis = site.axis(site["input"])
    if axis is not None:
        training = next((site[n] for n in ("training", "train", "use_input_stats") if n in site.call.arguments), True)
        require(not training, "it normalises over the rows")
        require(axis.dim != 1, "it normalises over the rows")
        _require_plain_weights(site, [v for v in site.call.operands if v is not site["input"]])
    return [axis] + [None] * (len(site.call.results) - 1)


def first_dimension(site: Site) -> Found:
    """Each sample of the first dimension by itself: `group_norm`, `instance_norm`, convolutions."""
    source = site.call.operands[0]
    axis = site.axis(source)
    if axis is not None:
        require(axis.dim == 0, "it computes over the rows")
        _require_plain_weights(site, [v for v in site.call.operands if v is not source])
    return axis


def convolved(site: Site) -> Found:
    require(rank(site["input"]) == rank(site["weight"]) or site.axis(site["input"]) is None, "it convolves the rows")
    return first_dimension(site)


def linear(site: Site) -> Found:
    axis = site.axis(site["input"])
    if axis is not None:
        require(axis.dim < rank(site["input"]) - 1, "it sums over the rows")
    _require_plain_weights(site, [v for v in site.call.operands if v is not site["input"]])
    return axis


def product(left: str, right: str, added: str = "") -> Rule:
    """A matrix product, with something added to it where that has a name."""

    def rule(site: Site) -> Found:
        axis = _product(site, site[left], site[right])
        extra = site[added] if added else None
        if not isinstance(extra, Value):
            return axis
        known = {**site.known, **({} if axis is None else {site.result: axis})}
        return aligned(replace(site, known=known), [site.result, extra], rank(site.result))

    return rule


def _product(site: Site, a: Value, b: Value) -> Found:
    n = rank(site.result)
    first, second = site.axis(a), site.axis(b)
    if rank(a) == 1 or rank(b) == 1:
        require(second is None and (first is None or first.dim < rank(a) - 1), "it sums over the rows")
        return first
    require(first is None or first.dim != rank(a) - 1, "it sums over the rows")
    require(second is None or second.dim != rank(b) - 2, "it sums over the rows")
    if first is not None and first.dim == rank(a) - 2:
        require(second is None, "it multiplies rows with rows")
        return first.at(n - 2)
    if second is not None and second.dim == rank(b) - 1:
        require(first is None, "it multiplies rows with rows")
        return second.at(n - 1)
    return aligned(site, [a, b], n)


def einsum(site: Site) -> Found:
    """Rows have one letter, which stands in the result."""
    terms, _, out = site["equation"].replace(" ", "").partition("->")
    require("." not in terms and out, "its rows cannot be followed through `...`")
    letters = {}
    for term, x in zip(terms.split(","), site["tensors"], strict=True):
        axis = site.axis(x)
        if axis is not None:
            letters[term[axis.dim]] = replace(axis, dim=0)
    require(len(letters) <= 1, "it multiplies rows with rows")
    for letter, axis in letters.items():
        every = all(
            letter not in term or ((found := site.axis(x)) is not None and replace(found, dim=0) == axis)
            for term, x in zip(terms.split(","), site["tensors"], strict=True)
        )
        require(every and out.count(letter) == 1, "it sums over the rows")
        return axis.at(out.index(letter))
    return None


def attention(site: Site) -> Iterable[Found]:
    """`softmax(query keyᵀ + mask) value`: rows in the dimensions before the last two."""
    tensors = [site["query"], site["key"], site["value"]]
    mask = site.get("attn_mask")
    axis = aligned(site, [*tensors, *([mask] if isinstance(mask, Value) else [])], rank(site.result))
    if axis is not None:
        require(axis.dim < rank(site.result) - 2, "it attends over the rows")
    return [axis] + [None] * (len(site.call.results) - 1)


def recurrent(site: Site) -> Iterable[Found]:
    """`lstm`, `gru`: rows in the first dimension or the second; in the state always in the second."""
    if "batch_sizes" in site.call.arguments:
        require(all(site.axis(v) is None for v in site.call.operands), "its rows are packed")
        return [None] * len(site.call.results)
    place = 0 if site["batch_first"] else 1
    axis = site.axis(site["input"])
    states = site["hx"] if isinstance(site["hx"], (list, tuple)) else [site["hx"]]
    if axis is None:
        require(all(site.axis(h) is None for h in states), "its first state depends on the rows")
        return [None] * len(site.call.results)
    require(axis.dim == place and rank(site["input"]) == 3, "it computes over the rows")
    for h in states:
        found = site.axis(h)
        require(found is not None and found.dim == 1, "its first state is the same for any rows")
    return [axis, *[axis.at(1)] * (len(site.call.results) - 1)]


def gated(site: Site) -> Found:
    """`glu` halves a dimension."""
    axis = site.axis(site["self"])
    if axis is not None:
        require(axis.dim != wrapped(site["dim"], rank(site["self"])), "it takes some rows out of all")
    return axis
