"""A .pt2 file: a model that torch.export has exported already."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from ir.checkpoint.names import own_tensors
from ir.errors import SourceError, in_one_line
from ir.sources.source import Reading, Source
from ir.sources.unpickled import check_expressions, import_containers, require_program, without_pickled_code


def read_program_file(path: Path, reading: Reading) -> Source:
    """Read a file of torch.export.save, with the dynamic sizes that it was exported with.

    No code in the file is run.  Raises SourceError that names the file and what is wrong with it.
    """
    if reading.dtype is not None:
        raise SourceError(f"{path} is an exported program, whose dtypes are fixed; export it in another one")
    if option := "--checkpoint" if reading.checkpoint is not None else reading.of_checkpoint:
        raise SourceError(f"{path} is an exported program with weights of its own; leave {option} out")
    program = _load(path)
    inputs = _inputs(program)
    args, kwargs = _example(program, list(inputs.values()))
    model = program.module(check_guards=False)
    model.register_forward_pre_hook(partial(_by_position, tuple(kwargs)), with_kwargs=True, prepend=True)
    return Source(
        name=path.stem,
        model=model,
        args=args,
        kwargs=kwargs,
        dynamic_shapes=_dynamic(program, model, inputs),
        weights=own_tensors(model),
    )


def _load(path: Path) -> ExportedProgram:
    try:
        require_program(path)
        check_expressions(path)
        import_containers(path)
        with without_pickled_code(path):
            return torch.export.load(path)
    except SourceError:
        raise
    except BadZipFile as e:
        raise SourceError(f"{path} is not what torch.export.save writes: {e}") from e
    except Exception as e:  # torch's readers raise all kinds for a file that is damaged, or of another version
        raise SourceError(f"cannot read {path}: {in_one_line(e)}") from e


def _by_position(
    keywords: tuple[str, ...], model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by position and keyword as in the export: the module that torch makes of it takes no others."""
    bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    return tuple(v for k, v in bound.items() if k not in keywords), {k: bound[k] for k in keywords}


def _inputs(program: ExportedProgram) -> dict[str, Any]:
    """A fake tensor or the fixed value for each leaf of the arguments, by name."""
    nodes = [n for n in program.graph.nodes if n.op == "placeholder"]
    specs = zip(nodes, program.graph_signature.input_specs, strict=True)
    return {n.name: n.meta["val"] for n, spec in specs if spec.kind is InputKind.USER_INPUT}


def _example(program: ExportedProgram, inputs: list[Any]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The example inputs of the file, or zeros of their types where it has none."""
    if program.example_inputs:
        args, kwargs = program.example_inputs
        return tuple(args), dict(kwargs)
    made = [torch.zeros([int(d) for d in v.shape], dtype=v.dtype) if isinstance(v, torch.Tensor) else v for v in inputs]
    args, kwargs = _unflatten(made, program)
    return tuple(args), dict(kwargs)


def _unflatten(leaves: list[Any], program: ExportedProgram) -> Any:
    assert program.call_spec.in_spec is not None
    return pytree.tree_unflatten(leaves, program.call_spec.in_spec)


def _dynamic(program: ExportedProgram, model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The dynamic sizes by parameter, named after input and dimension: a file keeps their ranges alone."""
    marks: list[dict[int, Any] | None] = []
    names: dict[Any, Any] = {}
    for name, value in inputs.items():
        dims = value.shape if isinstance(value, torch.Tensor) else ()
        marked = {i: d.node.expr for i, d in enumerate(dims) if isinstance(d, torch.SymInt)}
        for dim, expr in marked.items():
            if expr not in names:
                found = program.range_constraints.get(expr)
                high = int(found.upper) if found is not None and found.upper.is_Integer else None
                names[expr] = Dim(f"{name}_{dim}", min=1, max=high)
        marks.append({dim: names[expr] for dim, expr in marked.items()} or None)
    args, kwargs = _unflatten([_Leaf(m) for m in marks], program)
    parameters = inspect.signature(model.forward).parameters
    bound = dict(zip(parameters, args, strict=False)) | kwargs
    return pytree.tree_map(lambda leaf: leaf.mark, bound)


class _Leaf:
    """A mark in the place of a tensor, which pytrees do not flatten."""

    def __init__(self, mark: dict[int, Any] | None) -> None:
        self.mark = mark
