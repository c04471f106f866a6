"""The problem of cutting a program into stages, a solution of it, and the value of a split.

Nodes are numbered in program order, and everything names a node by its number. A diamond of four
nodes whose two ends read one weight, over two equal devices of 2 KiB:

>>> from passes.partitioners import solve
>>> problem = Problem(
...     nodes=tuple(Node(time=(t,)) for t in (1.0, 2.0, 2.0, 1.0)),
...     values=(Value(0, (1, 2), bytes=8, held=8), Value(1, (3,), bytes=8, held=8), Value(2, (3,), bytes=8, held=8)),
...     weights=(Weight(bytes=512, readers=(0, 3)), Weight(bytes=1024, readers=(1,))),
...     devices=(Device(memory=2048),) * 2,
...     link=Link(bandwidth=80, latency=0.05),
...     every_device=True,
... )
>>> solution = solve(problem)
>>> solution.stage_of, solution.order, round(solution.value, 3)
({0: 0, 1: 0, 2: 1, 3: 1}, (0, 1), 3.3)
>>> evaluate(problem, solution.stage_of) == solution.value
True

The words:

- A `Node` has a time for each *kind* of device (`Device.kind`; inf: cannot run there) and the bytes it
  keeps. A cheap node is copied for free into every stage that reads it, and its values never travel.
- A `Value` has one producer; it is sent once and received once by each device that reads it.
- A `Weight` is held once by every device with one of its readers: sharing does not bind nodes to one device.
- A group binds nodes to one device. Without `several_stages` that is one stage.
- Stage s runs on device s mod the number of devices. `Solution.order` lists the stages in use as the
  pipeline runs through them; with equal devices that is 0, 1, 2, …
- The memory of a device: its weights, the bytes of its nodes, and for each of its stages `in_flight`
  times the peak of the values held while its nodes run in program order (see `memory`).
- On a device that is `node_by_node` each node is a call of its own, of which any number run at once; with `via_host` a
  stage has ended only when all that it sends is in the host's memory. Both matter to the latency alone.
- Not every split exists: `solve` raises `Infeasible`, with the facts; a problem that contradicts itself
  raises `InvalidProblem`, and `evaluate` raises `InvalidSplit` for a split that breaks a rule.

The files:

    parts       nodes, values, weights, devices, links
    objective   the quantity that a split should make small
    model       a problem, a solution
    published   the published JSON format of instances
    copies      nodes that are copied for free, dissolved into their readers
    evaluation  the value of a split from nothing else
    crossing    the values that cross in a split, and the modules that it parts
    memory      the peak of a stage's activations
    errors      what can be wrong with a problem or a split
"""

from __future__ import annotations

from passes.partitioners.problem.crossing import Crossing, crossing
from passes.partitioners.problem.errors import Infeasible, InvalidProblem, InvalidSplit
from passes.partitioners.problem.evaluation import evaluate
from passes.partitioners.problem.model import Load, Problem, Solution
from passes.partitioners.problem.objective import DEFAULT_OBJECTIVE, Objective
from passes.partitioners.problem.parts import Device, Link, Node, Value, Weight

__all__ = [
    "DEFAULT_OBJECTIVE",
    "Crossing",
    "Device",
    "Infeasible",
    "InvalidProblem",
    "InvalidSplit",
    "Link",
    "Load",
    "Node",
    "Objective",
    "Problem",
    "Solution",
    "Value",
    "Weight",
    "crossing",
    "evaluate",
]
