"""Signals, geometry, linear algebra and single steps of recurrent layers: where their rows lie."""

from __future__ import annotations

from collections.abc import Iterable

from passes.rows.axis import Found, Site, aligned, rank, require, wrapped
from passes.rows.shapes import moved


def searched(site: Site) -> Found:
    """`searchsorted`: places in one sorted sequence for all, or in one for each row."""
    sequence, values = site["sorted_sequence"], site["self"]
    if rank(sequence) == 1:
        require(site.axis(sequence) is None, "it computes over the rows")
        return site.axis(values)
    axis = aligned(site, [sequence, values], rank(values))
    require(axis is None or axis.dim < rank(values) - 1, "it computes over the rows")
    return axis


def distances(site: Site) -> Found:
    """`cdist`: of each point of one set to each of another; the rows are batches, or points of the first set."""
    one, other = site["x1"], site["x2"]
    axis, place = site.axis(one), rank(one) - 2
    if axis is not None and axis.dim == place:
        require(site.axis(other) is None, "it combines different rows")
        return axis.at(rank(site.result) - 2)
    axis = aligned(site, [one, other], rank(site.result))
    require(axis is None or axis.dim < rank(site.result) - 2, "it computes over the rows")
    return axis


def similar(site: Site) -> Found:
    """`cosine_similarity`: one number for the elements of two tensors along a dimension."""
    n = max(map(rank, site.call.operands))
    dim, axis = wrapped(site["dim"], n), aligned(site, site.call.operands, n)
    require(axis is None or axis.dim != dim, "it computes over the rows")
    return None if axis is None else axis.at(axis.dim - (dim < axis.dim))


def crossed(site: Site) -> Found:
    """The cross product of vectors along a dimension."""
    n, dim = rank(site.result), site["dim"]
    axis = aligned(site, site.call.operands, n)
    require(axis is None or (dim is not None and axis.dim != wrapped(dim, n)), "it computes over the rows")
    return axis


def on_diagonal(site: Site) -> Found:
    """`diagonal` of two dimensions, which becomes the last one."""
    axis, n = site.axis(site["self"]), rank(site["self"])
    dims = [wrapped(site[name], n) for name in ("dim1", "dim2")]
    require(axis is None or axis.dim not in dims, "it computes over the rows")
    return None if axis is None else axis.at(axis.dim - sum(d < axis.dim for d in dims))


def moved_to(site: Site) -> Found:
    """`movedim`: some dimensions take other places, the others follow in their order."""
    n = rank(site["self"])
    here, there = ([d] if isinstance(d, int) else d for d in (site["source"], site["destination"]))
    order = [d for d in range(n) if d not in [wrapped(h, n) for h in here]]
    for place, dim in sorted((wrapped(t, n), wrapped(h, n)) for h, t in zip(here, there, strict=True)):
        order.insert(place, dim)
    return moved(order, site.axis(site["self"]))


def sampled(site: Site) -> Found:
    """`grid_sample`, `affine_grid`: each sample of the first dimension by itself."""
    axes = [site.axis(v) for v in site.call.operands]
    require(all(axis is not None and axis.dim == 0 for axis in axes), "it computes over the rows")
    return axes[0]


def stepped(site: Site) -> Iterable[Found]:
    """A step of `LSTMCell`, `GRUCell` or `RNNCell` over `[batch, width]`."""
    given = [site["input"], *(site["hx"] if isinstance(site["hx"], (list, tuple)) else [site["hx"]])]
    first, *others = (site.axis(v) for v in given)
    require(all(axis == first for axis in others), "it combines different rows")
    require(first is None or (first.dim == 0 and rank(given[0]) == 2), "it computes over the rows")
    require(all(site.axis(v) is None for v in site.call.operands if v not in given), "its weights depend on the rows")
    return [first] * len(site.call.results)
