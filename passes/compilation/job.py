"""One compilation from options to an artifact folder: what the command line and the Python calls share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from shutil import which
from typing import Any

from rich.console import Console

from codegen.artifact.folder import check_replaceable, new_folder
from codegen.report.page import REPORT
from ir.checkpoint.checkpoint import Checkpoint
from ir.errors import CompileError, PipelineError
from ir.plan import StagePlan
from ir.sources import Source, path_of
from ir.text.printer import print_graph
from ir.text.units import format_bytes
from passes.cli.browser import open_in_browser
from passes.cli.table import size_lines
from passes.cli.terminal import Terminal, stderr
from passes.compilation.changes import changes
from passes.compilation.compiler import EXPORT, TOKENIZER, Compiled, Compiler, copied_bytes
from passes.compilation.given import read_given
from passes.compilation.sizes.pools import Room, require_one_text
from passes.compilation.target import target
from passes.defaults import DEFAULT_PASSES, default_passes
from passes.options.options import CUT, DECODER, Options, Weights, flags
from passes.options.scoped import scoped
from passes.pipeline import PassPipeline, PassResult


@dataclass(frozen=True)
class Job:
    """A compilation whose options have been checked; nothing has been read yet."""

    options: Options
    compiler: Compiler
    terminal: Terminal

    @classmethod
    def of(cls, options: Options, dumps: Console = stderr) -> Job:
        """Raises CompileError, before anything takes time, for options that are wrong or do not go together."""
        terminal = Terminal.of(options, dumps)
        passes = passes_of(options, terminal)
        check_decoder_options(options)
        room = Room(options.sequences, options.tokens)
        machine, tell = target(options), terminal.tell
        compiler = Compiler(passes, machine, options.weights, options.draw, options.workload, room, options.cache, tell)
        if options.out is None and options.stop_after is None:
            raise CompileError("where to? name the artifact folder with -o OUT")
        if options.verify and options.weights is Weights.none:
            raise CompileError("--verify runs the stages, which needs their weights; drop --weights none")
        if options.stop_after and (options.verify or options.json):
            asked = "--verify" if options.verify else "--json"
            raise CompileError(f"{asked} needs the whole plan, which --stop-after leaves out; drop one of the two")
        return cls(options, compiler, terminal)

    def read(
        self,
        source_or_model: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        variants: Mapping[str, Any] | None = None,
    ) -> Source:
        """The model, its call and its weights.

        Raises OutputError, first, for a folder that cannot be replaced, and SourceError for what cannot be read.
        """
        named = [path_of(source_or_model)] if isinstance(source_or_model, (str, Path)) else []
        self._check_replaceable(named)
        with self.terminal.during("model"):
            source = read_given(source_or_model, args, kwargs, self.options, variants)
        source = replace(source, files=(*named, *_checkpoint(source), *source.files))
        self._check_replaceable(source.files)
        return source

    def _check_replaceable(self, inputs: Sequence[Path]) -> None:
        if self.options.out is not None:
            check_replaceable(self.options.out, force=self.options.force, inputs=inputs)

    def run(self, source: Source) -> Compiled | None:
        """Compile a source; None where the passes were to stop early.  Raises CompileError; `out` is then as it was."""
        steps, dumps = self._steps(source)
        out = self.options.out
        if self.options.stop_after is not None or out is None:
            return None
        plan = self.compiler.plan(steps)
        with new_folder(out, force=self.options.force, inputs=source.files) as folder:
            _write_dumps(dumps, folder)
            with self.terminal.writing(copied_bytes(plan, self.options.weights)) as wrote:
                compiled = self.compiler.write(source, steps, folder, wrote, plan)
            if self.options.verify:
                with self.terminal.during("verify"):
                    verify = import_module("passes.cli.verify_stages")  # with the runtime, which no plan needs
                    verdict = verify.compare(source, folder, plan.graph)
                self.terminal.note(f"verify: {verdict}")
        return compiled

    def _steps(self, source: Source) -> tuple[list[PassResult], dict[str, str]]:
        """The graph after each pass, and by file name the dumps that were asked for, which are printed as they come."""
        dumps: dict[str, str] = {}
        steps: list[PassResult] = []
        for step in self.terminal.shown(self.compiler.steps(source), changes):
            if self.options.print_after in (step.name, "all"):
                dumps[f"{len(steps):02}-{step.name}.txt"] = f"{print_graph(step.graph)}\n"
                self.terminal.dump(f"# after {step.name}\n{print_graph(step.graph)}\n")
            steps.append(step)
        return steps, dumps

    def tell_notes(self, compiled: Compiled) -> None:
        """The sizes and the notes, which the command prints below its table."""
        for line in size_lines(compiled.summary):
            self.terminal.note(line)
        for note in compiled.summary.notes:
            self.terminal.note(f"note: {note}")

    def tell_result(self, compiled: Compiled) -> None:
        """Say where the artifact is and what can be done with it, and open its report if that was asked for."""
        out = self.options.out
        assert out is not None
        if not any(file.name == "graph.svg" for file in compiled.files):
            why = "it took dot over a minute" if which("dot") else "install graphviz (apt-get install graphviz)"
            self.terminal.note(f"no picture: {why}; to draw it: dot -Tsvg {out}/graph.dot")
        self.terminal.note(f"wrote {out}: {_contents(compiled.plan, self.options.weights)}; see {out / REPORT}")
        if self.options.weights is not Weights.none:
            how = f"to run it: stagecut run {out} --input x.safetensors --output y.safetensors"
            if compiled.plan.graph.decoding.page:
                prompt = "'a prompt'" if (out / TOKENIZER / "tokenizer.json").is_file() else "--ids '1 15 27'"
                how = f"to continue a text: stagecut generate {out} {prompt}"
            self.terminal.note(f"{how}, or Pipeline.load({str(out)!r}) in Python")
        if self.options.open_report:
            open_in_browser(out / REPORT)


def check_decoder_options(options: Options) -> None:
    """Raise CompileError for options of decoders that do not go together, or not with what is no decoder."""
    given = [name for name in ("max_length", "sequences", "tokens", "page") if getattr(options, name) is not None]
    if given and not options.generate:
        raise CompileError(f"--{given[0].replace('_', '-')} is for decoders that continue texts; say --generate, too")
    if options.sequences is not None and options.tokens is not None:
        raise CompileError("say either for how many texts there is room (--sequences), or for how many --tokens")
    require_one_text(options.tokens, options.max_length)  # before the model is exported


def passes_of(options: Options, terminal: Terminal) -> PassPipeline:
    """The passes that are to run.  Raises PipelineError for a name among the options that no pass has."""
    taken = {field.name for cls in DEFAULT_PASSES for field in fields(cls)}
    shared = {
        name: getattr(options, name) for name, flag in flags().items() if flag.group in (CUT, DECODER) and name in taken
    }
    pipeline = PassPipeline(scoped(default_passes(**shared, progress=terminal.tell), options.pass_options))
    names = [EXPORT, *(p.name for p in pipeline.passes)]
    for name in {options.print_after, options.stop_after} - {None, "all", *names}:
        raise PipelineError(f"no pass is named {name!r}; there are {', '.join(names)}")
    return PassPipeline(pipeline.passes[: names.index(options.stop_after)]) if options.stop_after else pipeline


def _checkpoint(source: Source) -> Sequence[Path]:
    return [source.weights.path] if isinstance(source.weights, Checkpoint) else []


def _contents(plan: StagePlan, weights: Weights) -> str:
    stages = f"{len(plan.stages)} stage{'s' * (len(plan.stages) > 1)}"
    match weights:
        case Weights.copy:
            return f"{stages} with {format_bytes(copied_bytes(plan, weights))} of weights"
        case Weights.link:
            return f"{stages} that read their weights from the checkpoint's files"
        case Weights.none:
            return f"{stages} without weights"


def _write_dumps(dumps: Mapping[str, str], folder: Path) -> None:
    for name, text in dumps.items():
        (folder / "passes").mkdir(exist_ok=True)
        (folder / "passes" / name).write_text(text)
