"""An export in which layers that are alike are recorded once a kind."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch import fx, nn
from torch._C import DisableTorchFunction
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import PythonKeyTracer, get_proxy_slot
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten

from ir.capture.paths import clean, is_inside, is_own_file
from ir.capture.program.gradients import ends_gradients
from ir.capture.program.in_place.mutation import memory_of, mutates, written_by
from ir.capture.program.in_place.stores import is_store
from ir.capture.repeats.again import AGAIN, with_results
from ir.capture.repeats.alike import FEWEST, Alike
from ir.capture.repeats.call_recorder import CallRecorder, InDoubt
from ir.capture.repeats.kept import kept_in
from ir.capture.repeats.replay import Replay
from ir.capture.repeats.template import Template
from ir.objects.containers import Opening, opening_of

_ROOT = "_export_root."  # torch.export's own module around the one that it is given


@dataclass(frozen=True)
class Created:
    """A node that torch recorded, its name, and the name that torch had wished for."""

    graph: fx.Graph
    name: str
    wish: str
    placeholder: bool
    item: tuple[str, Any] | None  # of one of several results: the node that makes them, and its place


@dataclass(frozen=True, eq=False)
class Recorded:
    """A template and its place in an export: the nodes created within it, and those of its tensors."""

    template: Template
    path: str
    start: int
    end: int
    external: tuple[str, ...]  # "" for one that no node makes
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Repeated:
    """A call of a layer for which the operator stands, and the nodes that were created for that."""

    number: int
    recorded: Recorded
    path: str
    start: int
    end: int


@dataclass(eq=False)
class _Kind:
    path: str  # of the first
    calls: int = 0
    wishes: list[str] | None = None  # for names, of the last call that was recorded in full
    template: int = 0  # the call that is one; 0: none
    recorded: Recorded | None = None
    refused: str = ""

    @property
    def is_repeated(self) -> bool:
        return 0 < self.template < self.calls


@dataclass
class LayersOnce:
    """The calls of layers while a model runs; `doubt` is the group for which something is in doubt, and why.

    The template of a kind is the first call that creates the same nodes as the one before it and finds all types in
    torch's caches, as earlier calls create more nodes or fewer; or the one that `given` says, for each kind in the
    order in which they are met.  `unkept`: whether it is known that nothing keeps what these make.
    """

    members: Mapping[int, Alike]
    given: Sequence[int] | None = None
    unkept: bool = False
    created: list[Created] = field(default_factory=list)
    repeated: list[Repeated] = field(default_factory=list)
    doubt: tuple[int, str] | None = None
    refused: dict[str, str] = field(default_factory=dict)  # by the path of a layer: why its kind is recorded in full
    _nodes: list[fx.Node] = field(default_factory=list)
    _tracer: PythonKeyTracer | None = None
    _kinds: dict[Any, _Kind] = field(default_factory=dict)
    _by_path: dict[str, Template] = field(default_factory=dict)
    _paths: dict[int, set[str]] = field(default_factory=dict)  # of each member, by id of its attributes
    _inside: bool = False

    def begin(self) -> None:
        """Forget the calls of an earlier run of the model."""
        self._kinds.clear()
        self.repeated.clear()
        self.refused.clear()

    @contextmanager
    def watched(self, model: nn.Module) -> Iterator[None]:
        """Watch the calls of the members inside the context."""
        classes = {type(m) for m in model.modules() if id(vars(m)) in self.members}
        for path, m in model.named_modules(remove_duplicate=False):
            self._paths.setdefault(id(vars(m)), set()).add(path)
        create = PythonKeyTracer.create_node

        def create_node(tracer: PythonKeyTracer, *args: Any, **kwargs: Any) -> fx.Node:
            node = create(tracer, *args, **kwargs)
            wish = kwargs.get("name", args[4] if len(args) > 4 else None)
            self._tracer = tracer
            self._nodes.append(node)
            wish = wish or node.graph._target_to_str(node.target)
            item: Any = (node.all_input_nodes[0].name, node.args[1]) if node.target is operator.getitem else None
            self.created.append(Created(node.graph, node.name, wish, node.op == "placeholder", item))
            return node

        with ExitStack() as contexts:
            contexts.enter_context(patch.object(PythonKeyTracer, "create_node", create_node))
            contexts.enter_context(with_results(lambda path: self._by_path[path].results))
            for cls in classes:
                contexts.enter_context(patch.object(cls, "forward", self._wrapped(cls.forward)))
            yield

    def _wrapped(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def call_layer(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            member = self.members.get(id(vars(module)))
            if member is None or self._inside:
                return forward(module, *args, **kwargs)
            self._inside = True
            try:
                return self._call(member, functools.partial(forward, module, *args, **kwargs))
            except InDoubt as e:
                self.doubt = member.group, f"{member.path}: {e}"
                raise
            finally:
                self._inside = False

        return call_layer

    def _call(self, member: Alike, forward: functools.partial[Any]) -> Any:
        kind = self._kinds.setdefault(
            (member.group, member.attributes, _types(_arguments(forward)), _site()), _Kind(member.path)
        )
        kind.calls += 1
        if kind.recorded is not None:
            return self._repeat(kind.recorded, member, forward)
        number = list(self._kinds.values()).index(kind)
        if kind.refused or (
            kind.calls == 1 if self.given is None else self.given[number : number + 1] != (kind.calls,)
        ):
            start, result = len(self._nodes), forward()
            kind.wishes = self._wishes(start)
            return result
        return self._record(kind, member, forward)

    @property
    def templates(self) -> tuple[int, ...]:
        """The call of each kind that is its template; 0 for none."""
        return tuple(kind.template for kind in self._kinds.values())

    @property
    def reasons(self) -> dict[str, str]:
        """The reasons for which layers are recorded in full, by the path of one of each kind."""
        unlike = [k.path for k in self._kinds.values() if k.calls >= FEWEST and not (k.is_repeated or k.refused)]
        found = self.refused | dict.fromkeys(unlike, "no two in a row are recorded alike")
        groups: dict[int, list[_Kind]] = {}
        for (group, *_), kind in self._kinds.items():
            groups.setdefault(group, []).append(kind)
        for kinds in groups.values():
            settled = any(k.is_repeated or k.refused or k.path in found for k in kinds)
            if not settled and sum(k.calls for k in kinds) >= FEWEST:
                found[kinds[0].path] = f"they are of {len(kinds)} kinds"
        return found

    def _record(self, kind: _Kind, member: Alike, forward: functools.partial[Any]) -> Any:
        start, path, recorder = len(self._nodes), self._path(member), CallRecorder(self._nodes)
        misses = FakeTensorMode.cache_info().misses
        with recorder:
            result = forward()
        wishes, kind.wishes = kind.wishes, self._wishes(start)
        if why := self._refusal(path, forward, self._since(start), recorder):
            kind.refused = self.refused[member.path] = why
            return result
        settled = wishes == kind.wishes and misses == FakeTensorMode.cache_info().misses
        if self.given is None and not settled:
            return result
        before = {i: self._node(recorder.tensors[i]) for i in recorder.external}
        try:
            stores = self._stores(self._since(start), [recorder.tensors[i] for i in recorder.external])
            if not stores.keys() <= {before[i] for i in recorder.stored}:
                raise InDoubt("it changes a tensor that it is given")
            template = Template.of(recorder, result, kept_in(_arguments(forward)), self.unkept)
        except InDoubt as e:
            kind.refused = self.refused[member.path] = str(e)
            return result
        external = tuple(stores.get(name, name) for name in before.values())
        outputs = tuple(self._node(recorder.tensors[i]) for i in (*template.outputs, *template.stored))
        kind.recorded = Recorded(template, path, start, len(self._nodes), external, outputs)
        self._by_path[path], kind.template = template, kind.calls
        return result

    def _refusal(
        self, path: str, forward: functools.partial[Any], nodes: Sequence[fx.Node], recorder: CallRecorder
    ) -> str:
        """The reason for which a call cannot be a template; empty if it can."""
        if not self._is_called(path, forward):
            return "its forward is called, not the module"
        if (other := next((p for p in map(_place, nodes) if not is_inside(p, path)), None)) is not None:
            return f"it calls {other}, which is no part of it"
        own = _own_tensor(nodes, recorder.of_numbers)
        return "" if own is None else f"it has {own.target}"

    def _repeat(self, recorded: Recorded, member: Alike, forward: functools.partial[Any]) -> Any:
        replay, template, path = Replay(recorded.template), recorded.template, self._path(member)
        if not self._is_called(path, forward):
            raise InDoubt("its forward is called, not the module")
        before = _guards(recorded.template)
        with _disable_current_modes(), replay:
            result = forward()
        given, start, number = replay.given, len(self._nodes), len(self.repeated)
        if _guards(recorded.template) != before:
            raise InDoubt("it asks more of the sizes than those like it")
        with DisableTorchFunction():  # what watches functions is for the model's own
            made = AGAIN(given, recorded.path, number)
        outputs, stored = made[: len(template.outputs)], made[len(template.outputs) :]
        for before, after in zip(replay.stored, stored, strict=True):
            before.copy_(after)
        self.repeated.append(Repeated(number, recorded, path, start, len(self._nodes)))
        returned = replay.returned(result, outputs, kept_in(_arguments(forward)))
        del result, replay, given
        template.require_unkept()
        return returned

    def _path(self, member: Alike) -> str:
        """The path by which a module is called."""
        stack = list(getattr(self._tracer, "module_stack", {}).values())
        return clean(stack[-1][0].removeprefix(_ROOT)) if stack else member.path

    def _is_called(self, path: str, forward: functools.partial[Any]) -> bool:
        """Whether torch knows that the module itself is called, whose calls it counts by their paths."""
        return path in self._paths[id(vars(forward.args[0]))]

    def _node(self, tensor: torch.Tensor) -> str:
        with DisableTorchFunction():
            slot = None if self._tracer is None else get_proxy_slot(tensor, self._tracer, None)
        return "" if slot is None else slot.proxy.node.name

    def _since(self, start: int) -> list[fx.Node]:
        """The nodes created since, without those inside of functions that higher-order operators run."""
        return [node for node in self._nodes[start:] if node.graph is getattr(self._tracer, "graph", None)]

    def _wishes(self, start: int) -> list[str]:
        """The names that torch had wished for; functions are numbered by modules."""
        wishes = {
            id(node): created.wish for node, created in zip(self._nodes[start:], self.created[start:], strict=True)
        }
        nodes = [node for node in self._since(start) if not _is_function(node)]
        return ["" if node.op == "get_attr" else wishes[id(node)] for node in nodes]  # tensors are numbered, too

    def _stores(self, nodes: Sequence[fx.Node], external: Collection[torch.Tensor]) -> dict[str, str]:
        """The nodes that store into buffers from outside, by name, with the nodes of these buffers.

        Raises InDoubt for ends of gradients and other nodes that write to what is outside.
        """
        outside, stores = memory_of(external), dict[str, str]()
        for node in nodes:
            if ends_gradients(node):
                raise InDoubt("gradients end in it")
            if mutates(node) and not outside.isdisjoint(memory_of(written_by(node))):
                if not is_store(node):
                    raise InDoubt("it changes a tensor that it is given")
                stores[node.name] = node.args[0].name  # type: ignore[union-attr]
        return stores


def _place(node: fx.Node) -> str:
    """The path of the module whose code made a node, while torch traces."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return clean(stack[-1][0].removeprefix(_ROOT)) if stack else ""


def _is_function(node: fx.Node) -> bool:
    """Whether a node is a function that higher-order operators run."""
    return node.op == "get_attr" and all(isinstance(user.target, HigherOrderOperator) for user in node.users)


def _own_tensor(nodes: Sequence[fx.Node], of_numbers: Sequence[fx.Node]) -> fx.Node | None:
    """The first node for a tensor of no module, but for those of numbers in a layer's code."""
    known = set(map(id, of_numbers))
    tensors = (node for node in nodes if node.op == "get_attr" and not _is_function(node))
    return next((node for node in tensors if id(node) not in known), None)


def _arguments(forward: functools.partial[Any]) -> Any:
    """The arguments of a layer: a partial of its forward has the layer before them."""
    return forward.args[1:], forward.keywords


def _types(arguments: Any) -> Any:
    """The containers, types of tensors and plain values that a layer is called with; of an object its class."""
    with DisableTorchFunction():
        leaves, spec = tree_flatten(arguments, is_leaf=lambda x: opening_of(type(x)) is Opening.ATTRIBUTES)
        return str(spec), tuple(map(_type, leaves))


def _type(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return leaf.dtype, leaf.dim()
    return repr(leaf) if isinstance(leaf, (bool, int, float, str, type(None))) else type(leaf)


def _site() -> tuple[tuple[str, int], ...]:
    """The lines of the forwards that lead to a call, innermost first."""
    found: list[tuple[str, int]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "forward":
            if is_own_file(frame.f_code.co_filename):
                break
            found.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return tuple(found)


def _guards(template: Template) -> int:
    """The number of conditions on sizes that are known."""
    env = next((t.fake_mode.shape_env for t in template.tensors if isinstance(t, FakeTensor)), None)
    return 0 if env is None else len(env.guards) + len(env.deferred_runtime_asserts)
