"""The options of a compilation: names, values, defaults, flags and help texts. A new option is a field of `Options`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from codegen.picture.detail import Detail
from ir.errors import CompileError, OptionError
from passes.options.kinds import (
    BYTES,
    CLUSTER,
    CLUSTERS,
    COUNT,
    COUNTS,
    DEVICES,
    FOLDERS,
    INPUTS,
    MODULES,
    PASS,
    PASS_OPTIONS,
    PASS_OR_ALL,
    PATH,
    PREFIX,
    SECONDS,
    SHAPES,
    SHARE,
    SIZES,
    SWITCH,
    VARIANT,
    WORKLOAD,
    Flag,
    ValueKind,
    one_of,
    option,
)
from passes.options.sizes import WantedCall
from passes.partitioners.problem.objective import DEFAULT_OBJECTIVE, Objective

if TYPE_CHECKING:
    from ir.capture.sizes.dynamic import DynamicShapes
    from ir.machine.cluster import Cluster


class Shared(str, Enum):
    """The place of a parameter that several nodes read."""

    colocate = "colocate"  # one copy, on one device, with all its readers
    replicate = "replicate"  # a read-only copy on each device that reads it
    auto = "auto"  # copies where memory allows and they shorten the bottleneck


class CostSource(str, Enum):
    """The source of the seconds of a node."""

    roofline = "roofline"  # from its cost and the table of the device
    profiled = "profiled"  # from running its operator on the device


class Weights(str, Enum):
    """The part of the weights that is written."""

    copy = "copy"  # each stage's slice is written beside it
    link = "link"  # each stage reads its slice from the checkpoint's own files
    none = "none"  # only the code and the plan


class Quantized(str, Enum):
    """The form in which stages hold quantized weights."""

    keep = "keep"  # as they are stored, where they can; dequantized at each use
    dequantize = "dequantize"  # dequantized while stages are written


class OverPages(str, Enum):
    """The way of attention over a decoder's pages."""

    auto = "auto"  # paged where all devices are accelerators
    paged = "paged"  # pages are read where they lie
    plain = "plain"  # pages are copied and masked, as the model is captured


class CutAt(str, Enum):
    """The places where a cut may lie."""

    anywhere = "anywhere"  # between any two operators
    between_modules = "between-modules"  # never inside a layer


class DType(str, Enum):
    """The dtypes that weights may be given."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


_SOURCE, _MACHINE, CUT = "The model", "The machine (one of the first three)", "The cut"
DECODER = "Text, token by token"
_RESULT, _TERMINAL = "What is written", "What is printed"
_MACHINES = "The machines"


@dataclass(frozen=True)
class Options:
    """The options of a compilation, on the command line and in Python alike.

    An option of the cut that is also a field of a pass is handed to that pass.
    Raises CompileError where a value is not of its kind.
    """

    out: Path | None = option(None, PATH, _RESULT, "the artifact folder to write", "--out", "-o")
    force: bool = option(False, SWITCH, _RESULT, "move a folder that holds files of others, or edited ones, to OUT.old")

    dynamic_shapes: DynamicShapes | Sequence[str] = option(
        None, SIZES, _SOURCE, "sizes that change from call to call: input_ids:0=batch,1=seq", "--dynamic"
    )
    example: tuple[tuple[str, tuple[int, ...]], ...] = option(
        (), SHAPES, _SOURCE, "sizes of the example inputs that may change, in place of the source's: input_ids=1x4096"
    )
    fix: tuple[str, ...] = option(
        (),
        INPUTS,
        _SOURCE,
        "fix an input whose values decide shapes: grid, or grid=1x28x42; several values make variants",
    )
    checkpoint: Path | None = option(None, PATH, _SOURCE, "the weights of a model file or folder, in place of its own")
    weights_prefix: str = option("", PREFIX, _SOURCE, "names of the weights that are meant begin so, as with ema.")
    variant: str = option("", VARIANT, _SOURCE, "the files that are meant: fp16 of model.fp16.safetensors")
    adapter: tuple[Path, ...] = option(
        (),
        FOLDERS,
        _SOURCE,
        "an adapter's folder, to merge into the weights; several of LoRA, and keep: rows choose one",
    )
    dtype: DType | None = option(None, one_of(DType), _SOURCE, "of the weights; else as the source has them")
    quantized: Quantized = option(
        Quantized.keep, one_of(Quantized), _SOURCE, "keep a checkpoint's weights as stored, where it can, or dequantize"
    )
    padding: bool = option(
        True, SWITCH, _SOURCE, "call a checkpoint's model without attention_mask", "--no-padding", turns_off=True
    )
    cache: bool = option(
        True, SWITCH, _SOURCE, "export the model anew, also where an earlier run did", "--no-cache", turns_off=True
    )
    trust_remote_code: bool = option(False, SWITCH, _SOURCE, "run Python files of a checkpoint or an artifact")

    generate: bool = option(False, SWITCH, DECODER, "continue texts token by token, with a cache in pages")
    max_length: int | None = option(
        None, COUNT, DECODER, "tokens of a text, prompt included (default: the model's positions, at most 4096)"
    )
    sequences: int | None = option(
        None, COUNT, DECODER, "texts of that length to have room for (default: as many as fit; 32 on CPUs)"
    )
    tokens: int | None = option(None, COUNT, DECODER, "or the tokens to have room for, of all texts together")
    page: int | None = option(None, COUNT, DECODER, "tokens a page (default: 256, less where texts are short)")
    attention: OverPages = option(
        OverPages.auto, one_of(OverPages), DECODER, "read pages where they lie, or copy them; auto: paged on GPUs"
    )

    stages: int | None = option(None, COUNT, _MACHINE, "that many equal devices of this host")
    devices: int | Sequence[str] | None = option(None, DEVICES, _MACHINE, "devices of this host: cuda:0,cuda:1")
    cluster: Cluster | str | Path | None = option(
        None, CLUSTER, _MACHINE, "a file of devices and links, or a name such as h200x4"
    )
    memory: int | None = option(None, BYTES, _MACHINE, "the most that one device may hold, such as 16GiB")

    workload: tuple[WantedCall, ...] = option(
        (), WORKLOAD, CUT, "the sizes to cut for, or a mix: batch=1,seq=4096:0.7;batch=32,seq=512:0.3"
    )
    objective: Objective = option(
        DEFAULT_OBJECTIVE, one_of(Objective), CUT, ", or ".join(objective.help for objective in Objective)
    )
    in_flight: int = option(1, COUNT, CUT, "microbatches whose activations a stage holds at once")
    shared: Shared = option(
        Shared.auto, one_of(Shared), CUT, "a weight read in several places: one copy, copies, or as it pays"
    )
    cost: CostSource = option(
        CostSource.roofline, one_of(CostSource), CUT, "predict seconds, or time each operator on the devices"
    )
    slack: float = option(0.03, SHARE, CUT, "how far above the best bottleneck a cut may be that is plainer: 3%")
    cut_at: CutAt = option(CutAt.anywhere, one_of(CutAt), CUT, "between any two operators, or never inside a layer")
    cut_before: tuple[str, ...] = option((), MODULES, CUT, "the module with which a stage begins: model.layers.8")
    time_limit: float = option(60.0, SECONDS, CUT, "seconds to search for a better cut, or for a proof")
    size_limit: float = option(10.0, SECONDS, CUT, "seconds to search for the sizes over which the cut stays good")
    pass_options: tuple[str, ...] = option(
        (), PASS_OPTIONS, CUT, "any option of a pass: split-stages{time-limit=20}", "--option"
    )

    weights: Weights = option(Weights.copy, one_of(Weights), _RESULT, "copies, links into the checkpoint, or none")
    draw: Detail = option(Detail.modules, one_of(Detail), _RESULT, "how much the picture shows")
    verify: bool = option(False, SWITCH, _RESULT, "run the stages and the uncut model, and compare")
    open_report: bool = option(False, SWITCH, _RESULT, "open the report in the browser", "--open")

    json: bool = option(False, SWITCH, _TERMINAL, "print the plan as JSON in place of the table", command_only=True)
    print_after: str | None = option(None, PASS_OR_ALL, _TERMINAL, "print the graph after a pass, export or all")
    stop_after: str | None = option(
        None, PASS, _TERMINAL, "run no pass after this one, and write nothing", command_only=True
    )
    progress: bool = option(True, SWITCH, _TERMINAL, "print no progress and no notes", "--quiet", "-q", turns_off=True)
    verbose: bool = option(False, SWITCH, _TERMINAL, "print what each pass changed", "--verbose", "-v")

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def of(cls, given: Mapping[str, Any], taken: Collection[str] = ()) -> Options:
        """From keywords of a call, which takes those of `taken`, by default all.

        Raises CompileError for one that is no option of Python calls, or of this one.
        """
        known = [name for name, flag in flags().items() if not flag.command_only and name in (taken or flags())]
        for name in given:
            if name in flags() and flags()[name].command_only:
                raise CompileError(f"{name} is for the command line alone")
            if name not in known:
                near = get_close_matches(name, known, n=1)
                raise CompileError(
                    f"there is no option {name!r}; "
                    + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}")
                )
        return cls(**given)


@dataclass(frozen=True)
class Candidates:
    """The further options of a comparison.  Raises CompileError where a value is not of its kind."""

    clusters: tuple[Cluster | str | Path, ...] = option(
        (), CLUSTERS, _MACHINES, "files of devices and links, or names: h100x4,l4x8"
    )
    stages: tuple[int, ...] = option((), COUNTS, _MACHINES, "numbers of equal devices of this host: 2,4,8")
    out: Path | None = option(None, PATH, _RESULT, "the file for the picture, such as compare.svg", "--out", "-o")

    def __post_init__(self) -> None:
        _check(self)


def flags(of: type[Any] = Options) -> dict[str, Flag]:
    """The flag of each option, by the name of its field."""
    return {f.name: f.metadata["flag"] for f in fields(of)}


def compared_options() -> tuple[str, ...]:
    """The options that a comparison of machines takes: all but those of one machine, and of what is written for it."""
    groups, others = (_SOURCE, CUT, DECODER), ("memory", "json", "progress")
    left_out = ("size_limit",)  # whether a cut is good at other sizes is not asked
    names = (name for name, flag in flags().items() if flag.group in groups or name in others)
    return tuple(name for name in names if name not in left_out)


def recut_options() -> tuple[str, ...]:
    """The options of another cut of an artifact: all but those that its graph has settled."""
    others, left_out = ("sequences", "tokens", "attention", "trust_remote_code"), ("verify",)
    groups = (_MACHINE, CUT, _RESULT, _TERMINAL)
    names = (name for name, flag in flags().items() if flag.group in groups or name in others)
    return tuple(name for name in names if name not in left_out)


def reading_options() -> tuple[str, ...]:
    """The options that say how a source is read."""
    return (*(name for name, flag in flags().items() if flag.group in (_SOURCE, DECODER)), "weights")


def _check(options: Any) -> None:
    """Give options the values that they read as."""
    for name, flag in flags(type(options)).items():
        value = getattr(options, name)
        if value is not getattr(type(options), name):
            object.__setattr__(options, name, _read(name, value, flag.kind))


def _read(name: str, value: Any, kind: ValueKind) -> Any:
    try:
        return kind.read(value)
    except (ValueError, TypeError):
        raise OptionError(name, f"is {value!r}; it must be {kind.what}") from None


_Call = TypeVar("_Call", bound=Callable[..., Any])


def with_options(call: _Call, taken: Collection[str] = ()) -> _Call:
    """The same call, whose signature lists the options, those of `taken` or all, in place of `**options`."""
    signature = inspect.signature(call)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    listed = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
        for f in fields(Options)
        if f.name not in signature.parameters and not flags()[f.name].command_only and f.name in (taken or flags())
    ]
    call.__signature__ = signature.replace(parameters=[*own, *listed])  # type: ignore[attr-defined]
    return call
