"""A Stage as one Python file that needs nothing but torch and safetensors."""

from __future__ import annotations

import keyword
from collections.abc import Callable

from torch.utils._pytree import tree_leaves

from codegen.expr import argument_source, shape_source
from codegen.loading import emit_load, emit_reader, imports
from codegen.source import Source, formatted
from codegen.stage_file import StageFile
from codegen.whole import SUPPORT
from ir.graph import THIS_DEVICE, Call, Constant, Param, Value, Where
from ir.memory import stored_bytes
from ir.opaque import is_whole, opaque_of
from ir.units import format_bytes


def emit(file: StageFile, linked: bool = False) -> str:
    """The source of a stage file, whose weights are copies or `linked` to the checkpoint's files."""
    src = Source()
    _head(file, src, linked)
    _tables(file, src)
    src.line()
    src.lines(_SUPPORT)
    if file.whole.modules:
        src.line()
        src.lines(SUPPORT)
        src.line()
        src.lines("\n".join(file.whole.shared()))
    src.line()
    with src.block(f"class {file.cls}(Block):"):
        _init(file, src)
        src.line()
        _forward(file, src)
        src.line()
        emit_load(src)
    src.line()
    emit_reader(src, linked)
    return formatted(str(src))


# ---- head and tables


def _head(file: StageFile, src: Source, linked: bool) -> None:
    stage, plan = file.stage, file.plan
    src.line(f'"""{file.model}, stage {stage.index} of {len(plan.stages)}, for {stage.device.name}.')
    src.line()
    for value in stage.graph.inputs:
        source = file.stage.source_of(value)
        src.line(f"takes    {value.name}: {value.type}, {_origin(source)}")
    for value in stage.graph.outputs:
        src.line(f"returns  {value.name}: {value.type}, {_goal(file, value)}")
    if file.whole.packages:
        src.line(f"needs    {', '.join(file.whole.packages)}, for {', '.join(file.whole.modules)}")
    params = len(stage.graph.params)
    src.line(f"holds    {params} parameters, {format_bytes(stored_bytes(stage.stored))}")
    src.line()
    arguments = [*(v.name for v in stage.graph.inputs), *(f"{s}={s}" for s in file.sizes)]
    src.line(f'Alone:   {file.cls}.load("{file.weights}", device="cpu")({", ".join(arguments)})')
    src.line('"""')
    src.line()
    src.lines(f"{imports(linked)}\nimport torch\nfrom torch import nn")
    for statement in file.whole.imports():
        src.line(statement)
    src.lines("\naten = torch.ops.aten\n")


def _origin(source: int | None) -> str:
    return "an input of the model" if source is None else f"from stage {source}"


def _goal(file: StageFile, value: Value) -> str:
    stages = [f"stage {s}" for s in file.stage.targets_of(value)]
    outputs = [f"output {i} of the model" for i in file.outputs_of(value)]
    return "to " + " and ".join(stages + outputs)


def _tables(file: StageFile, src: Source) -> None:
    stage = file.stage
    src.line()
    src.line("# name: (from which stage, or None for an input of the model; dtype; shape)")
    with src.block("RECEIVES = {"):
        for v in stage.graph.inputs:
            src.line(f'"{v.name}": ({file.stage.source_of(v)}, {v.type.dtype}, {_shape(v)}),')
    src.line("}")
    src.line()
    src.line("# name: (to which stages; as which outputs of the model; dtype; shape)")
    with src.block("SENDS = {"):
        for v in stage.graph.outputs:
            row = f"{list(file.stage.targets_of(v))}, {list(file.outputs_of(v))}, {v.type.dtype}, {_shape(v)}"
            src.line(f'"{v.name}": ({row}),')
    src.line("}")
    for title in ("PARAMETERS", "BUFFERS", "CONSTANTS"):
        held = [v for v in stage.stored if _table(v) == title]
        if held:
            src.line()
            src.line(f"# {_TITLES[title]}")
            with src.block(f"{title} = {{"):
                for v in held:
                    src.line(f'"{file.fqns[v]}": ({v.type.dtype}, {_shape(v)}),')
            src.line("}")


_TITLES = {
    "PARAMETERS": "name: (dtype, shape)",
    "BUFFERS": "name: (dtype, shape), from the checkpoint as well",
    "CONSTANTS": "name: (dtype, shape), in no checkpoint",
}


def _table(value: Value) -> str:
    """Which table a stored tensor stands in; constants are in no checkpoint, and not in the state dict."""
    if isinstance(value, Constant):
        return "CONSTANTS"
    return "PARAMETERS" if isinstance(value, Param) and not value.buffer else "BUFFERS"


def _shape(value: Value) -> str:
    items = [f'"{d}"' if isinstance(d, str) else str(d) for d in shape_source(value.type.shape)]
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


# ---- the module


def _init(file: StageFile, src: Source) -> None:
    held = {_table(v) for v in file.stage.stored}
    with src.block("def __init__(self):"):
        src.line("super().__init__()")
        for path, opaque in file.whole.modules.items():
            src.line(f'place(self, "{path}", {file.whole.built(opaque)})')
        for title, tensor in _MADE.items():
            if title in held:
                with src.block(f"for name, (dtype, shape) in {title}.items():"):
                    src.line(f"place(self, name, {tensor})")


_MADE = {
    "PARAMETERS": "nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=dtype.is_floating_point)",
    "BUFFERS": "torch.empty(shape, dtype=dtype)",
    "CONSTANTS": "torch.empty(shape, dtype=dtype), persistent=False",
}


def _forward(file: StageFile, src: Source) -> None:
    graph = file.stage.graph
    sizes = [f"{s}: int" for s in file.sizes]
    arguments = [*(v.name for v in graph.inputs), *(["*", *sizes] if sizes else [])]
    with src.block(f"def forward({', '.join(['self', *arguments])}):"):
        for symbol in file.symbols:
            if symbol in file.dims:
                value, dim = file.dims[symbol]
                src.line(f"{symbol} = {value.name}.shape[{dim}]")
        if any(a is THIS_DEVICE for n in file.calls for a in tree_leaves((n.args, dict(n.kwargs)))):
            src.line(f"device = {_device(file)}")
        _body(file, src)
        for state, value in graph.updates:
            src.line(f"{_name(file, state)}.copy_({value.name})")
        outputs = ", ".join(v.name for v in graph.outputs)
        src.line(f"return ({outputs}{',' if len(graph.outputs) == 1 else ''})")


def _body(file: StageFile, src: Source) -> None:
    """One statement a node, a comment where the module changes, a `del` after the last use of a value."""
    last = {v: i for i, n in enumerate(file.calls) for v in n.operands}
    kept = {*file.stage.graph.kept, *file.stage.stored}
    module: str | None = None
    for i, node in enumerate(file.calls):
        if node.where.module != module:
            module = node.where.module
            src.line(f"# {_place(node.where)}")
        src.line(_statement(file, node))
        dead = [v.name for v in dict.fromkeys(node.operands) if last[v] == i and v not in kept]
        if dead:
            src.line(f"del {', '.join(dead)}")


def _place(where: Where) -> str:
    line = f" ({where.file}:{where.line})" if where.file else ""
    return f"{where.module or 'the model itself'}{line}"


def _statement(file: StageFile, node: Call) -> str:
    graph = file.stage.graph
    used = [v in graph.users or v in graph.kept for v in node.results]
    names = [v.name if keep else "_" for v, keep in zip(node.results, used, strict=True)]
    left = ", ".join(names) + ("," if node.unpacks and len(names) == 1 else "")
    write: Callable[[Value], str] = lambda value: _name(file, value)  # noqa: E731
    if is_whole(node):
        return file.whole.statement(node, names, _path(opaque_of(node).path), write)
    args = [argument_source(a, write) for a in node.args]
    args += [f"{k}={argument_source(a, write)}" for k, a in node.kwargs.items()]
    op = str(node.op) if node.op.namespace == "aten" else f"torch.ops.{node.op}"
    return f"{left} = {op}({', '.join(args)})"


def _name(file: StageFile, value: Value) -> str:
    """How `forward` writes a value: a local variable, or the path of a weight (`load` is the stage's own method)."""
    if value not in file.fqns:
        return value.name
    return _path(file.fqns[value])


def _path(fqn: str) -> str:
    first, *parts = fqn.split(".")
    path = f"self{_step(first)}"
    if first == "load":
        path = 'self._modules["load"]' if parts else 'self._parameters["load"]'
    return path + "".join(map(_step, parts))


def _step(part: str) -> str:
    """From a module to what it holds under a name."""
    if part.isidentifier() and not keyword.iskeyword(part):
        return f".{part}"
    return f"[{part}]" if part.isdigit() else f'["{part}"]'


def _device(file: StageFile) -> str:
    """The device of the first thing that the stage has."""
    first = next((v for v in (*file.stage.graph.inputs, *file.stage.stored)), None)
    return f"{_name(file, first)}.device" if first is not None else "torch.get_default_device()"


_SUPPORT = '''
class Block(nn.Module):
    """A module whose numbered parts are reached as h[6]."""

    def __getitem__(self, index):
        return getattr(self, str(index))


def place(module, name, tensor, persistent=True):
    """Put a tensor under its dotted name, making the blocks on the way."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in module._modules:
            module._modules[part] = Block()
        module = module._modules[part]
    if isinstance(tensor, nn.Module):
        module._modules[leaf] = tensor
    elif isinstance(tensor, nn.Parameter):
        module._parameters[leaf] = tensor
    else:
        module.register_buffer(leaf, tensor, persistent=persistent)
'''.strip()
