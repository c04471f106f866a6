"""Partitioners: cut a weighted DAG into pipeline stages, as well as can be proven. No torch in here.

From a problem to its solution, one idea a file:

    problem     the words, and how to state one            (parts, model, published, errors behind it)
    copies      nodes that are copied for free are dissolved into their readers
    evaluation  the value of a split from nothing else     (memory: the peak of its activations)
    condense    what no boundary can part is one unit      (core: the units as arrays)
    search      a good cut at once: a dynamic program (chain) over the prefixes of several orders (orders),
                for which the cost of every interval is swept (sweep) on every seat of the pipeline (seats)
    ring        the same where the first and the last stage share a device
    relaxed     a simpler problem that is never harder: what bounds are proven about
    contract    fuse units that some best split keeps together
    exact       search all ideals that could beat the cut  (ideals, pairs, advance)
    integer     an integer program where there are too many ideals
    assignment  the whole problem as an integer program, where the relaxation is not enough
    thrift      among equal cuts, one that moves less
    shortage    what to say when nothing fits
"""

from passes.partitioners.solve import solve

__all__ = ["solve"]
