"""Captured models as problems for the partitioner, kept under build/benchmarks because a capture takes minutes."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

from ir.capture import capture
from ir.machine.cluster import Cluster
from passes.cheap.mark_cheap import MarkCheap
from passes.cut.cut_problem import as_problem
from passes.defaults import default_passes
from passes.partitioners.problem import Device, Link, Problem
from passes.pipeline import PassPipeline
from tests.benchmarks.cuts.models import MODELS

ROOT = Path(__file__).resolve().parents[3]
KEPT = ROOT / "build" / "benchmarks"
SOURCES = (  # what decides what a program looks like
    "ir/capture/**/*.py",
    "ir/graph.py",
    "passes/annotate_cost.py",
    "passes/cheap/mark_cheap.py",
    "passes/cost_models/*.py",
    "passes/cut/cut_problem.py",
    "passes/fusing/attention/layouts.py",
    "passes/fusing/masks/*.py",
    "passes/fusing/share_heads.py",
    "passes/fusing/simplify_masks.py",
    "passes/group_shared.py",
    "passes/partitioners/problem/model.py",
    "passes/partitioners/problem/parts.py",
    "passes/propagate_shapes.py",
    "tests/benchmarks/cuts/models.py",
)


@dataclass(frozen=True)
class Program:
    """A model as the partitioner sees it, with the module that each node stands in."""

    name: str
    problem: Problem
    modules: tuple[str, ...]

    def onto(self, devices: int) -> Problem:
        """The problem for so many equal devices, with memory enough: the cut alone counts."""
        return replace(self.problem, devices=(Device(),) * devices)


def program(name: str) -> Program:
    """The model of that name: captured, or read if this very source captured it before."""
    kept = KEPT / f"{name}-{_fingerprint()}.pkl"
    if kept.exists():
        return pickle.loads(kept.read_bytes())
    found = _captured(name)
    KEPT.mkdir(parents=True, exist_ok=True)
    for stale in KEPT.glob(f"{name}-*.pkl"):
        stale.unlink()
    kept.write_bytes(pickle.dumps(found))
    return found


def _captured(name: str) -> Program:
    model, call = MODELS[name].make()
    cluster = MODELS[name].cluster(2)
    graph = capture(model, call.args, call.kwargs)
    for step in PassPipeline(default_passes()).until(MarkCheap.name).run(graph, cluster):
        graph = step.graph
    problem = replace(as_problem(graph, cluster), link=_only_link(cluster), links={})
    return Program(name, problem, tuple(node.where.module for node in graph.nodes))


def _only_link(cluster: Cluster) -> Link:
    (link,) = set(cluster.links.values())
    return Link(link.bandwidth, link.latency)


def _fingerprint() -> str:
    files = (file for pattern in SOURCES for file in sorted(ROOT.glob(pattern)))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
