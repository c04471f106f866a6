"""Pipeline: a model cut into stages, called as the model was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from runtime.call.programs import BatchParts
from runtime.call.untouched import Untouched
from runtime.device.placement import places_text
from runtime.device.settings import warn_of_autocast
from runtime.distributed.bootstrap import TIMEOUT, start
from runtime.distributed.job_address import JobAddress
from runtime.engine.collector import Finish
from runtime.engine.in_flight import each_submitted, results_in_order
from runtime.engine.message import FinishKernels, Reset, Values
from runtime.errors import demand
from runtime.generation.continuation import Continuation
from runtime.generation.generate import TextGeneration
from runtime.generation.generator import CLOSED
from runtime.generation.stages import GeneratingStages, StepSubmission
from runtime.options import PREFILL_SHARE, check_ways, checked_folder, is_count
from runtime.running_stages import RunningStages
from runtime.stage.callers import CALLERS
from runtime.stage.recurring_shapes import RECURS
from runtime.stage.speed import Speed
from runtime.trace import perfetto
from runtime.trace.traces import Trace


class Pipeline:
    """A running artifact.

        with Pipeline.load("build/gpt2") as pipe:
            y = pipe(*args, **kwargs)                 # what the model returns
            for y in pipe.map(batches, in_flight=8):  # a stream: the stages work at once
                ...

    Inputs may be on any device; one that lies in memory otherwise than the example did (transposed, channels last)
    is copied to lie so, as stages are made for that.  Inputs must not be changed before their result is there.
    Outputs are on the device of the inputs if they share one, else on that of the stage that makes them.  They
    are the caller's: none lies in the memory of an input or of a stage, also where the model returns its input.
    Of several programs, a call runs the first that its arguments fit.
    Any thread may call; batches run in the order of the calls.  After a StageError the pipeline goes on
    with the next batch.  `manifest` and `folder` are those of the artifact, `devices` has that of each stage.
    """

    def __init__(
        self, stages: RunningStages, folder: Path, outputs_stay: bool = False, prefill_share: float = PREFILL_SHARE
    ) -> None:
        """Most callers want `Pipeline.load` or `Pipeline.distributed`."""
        self.manifest = stages.manifest
        self.devices = stages.devices
        self.folder = folder
        self._stages = stages
        self._programs = stages.programs
        self._outputs_stay = outputs_stay
        self._prefill_share = prefill_share
        self._generation: TextGeneration | None = None
        self._beginning = Lock()  # held while the first text begins

    @classmethod
    def load(
        cls,
        folder: str | Path,
        devices: Sequence[str | torch.device] | str | torch.device | None = None,
        *,
        strict: bool = False,
        timeout: float | None = None,
        compile: bool = False,
        cuda_graphs: bool | None = None,
        processes: bool | None = None,
        outputs: str = "return",
        tokens: int | None = None,
        prefill_share: float = PREFILL_SHARE,
    ) -> Pipeline:
        """Load an artifact folder and start it.

        `devices`: one for each stage, or one for each device of the plan in the order in which the
        stages use them, or fewer, to share; by default, the plan's.  `strict` refuses files that differ
        from the manifest; otherwise an edited stage file runs with a warning.  A stage that is busy with
        one batch for `timeout` seconds is given up: all batches in flight fail with a StageError that
        names it, and the pipeline is closed.  `compile` makes the stages faster by torch.compile, whose results are
        kept in the folder for the next load of the same files on such a device;
        `cuda_graphs` launches all kernels of a stage at once; both prepare at the first batch of a size.  By default,
        a stage that draws no random numbers does so from the third batch of a size among 16 on, once its kernels are
        compiled, for at most 8 sizes of each of its programs (64 of a decoder), where its outputs take less than
        256 MiB, and for no more once less than a tenth of the device's memory is free; graphs of a stage without state
        give way to a batch that needs their memory.

        `processes`: whether the stages run in processes that this one starts, one for each device, and ends; by
        default, on several accelerators, of a decoder if they read each other's memory, and on large CPU stages.  Of a
        decoder, this one runs the stages of the first of several accelerators.  A process that is lost, or silent for
        `timeout` seconds (300 by default), closes the pipeline with a StageLost; `restart` opens it again.

        `outputs`: "stay" leaves them on the devices of the stages that make them; by default, they are brought to the
        device of the inputs.

        `tokens`: of all texts together that the pools of a decoder have room for; by default, as many as planned.
        `prefill_share`: of the batches of a decoder, how many are chunks of prompts while other texts go on (0.8 by
        default): with 1 a new text has its first token as soon as if it were alone, with 0.2 others lose at most every
        fifth batch.

        Raises ManifestError for a folder that cannot be run, DeviceError for devices that are not here.
        """
        switches = {"strict": strict, "compile": compile, "cuda_graphs": cuda_graphs or False}
        folder = checked_folder(folder, timeout, tokens, **switches)
        check_ways(processes, outputs, prefill_share)
        stages = RunningStages.load(
            folder,
            devices,
            processes=processes,
            strict=strict,
            timeout=timeout,
            speed=Speed(compile, cuda_graphs),
            tokens=tokens or 0,
        )
        return cls(stages, folder, outputs == "stay", prefill_share)

    @classmethod
    def distributed(
        cls,
        folder: str | Path,
        device: str | torch.device | None = None,
        *,
        rank: int | None = None,
        world: int | None = None,
        address: str | None = None,
        strict: bool = False,
        timeout: float = TIMEOUT,
        compile: bool = False,
        cuda_graphs: bool | None = None,
        tokens: int | None = None,
        prefill_share: float = PREFILL_SHARE,
    ) -> Pipeline:
        """Load an artifact folder in the processes that torchrun started, one for each stage or fewer.

            with Pipeline.distributed("build/gpt2") as pipe:
                if pipe.rank == 0:
                    y = pipe(*args, **kwargs)

        Rank 0 calls; the others leave the block when rank 0 does.  Each loads only the weights of its stages, onto its
        `device`, by default one of the plan's kind.  Where another than torchrun starts the processes, each is told its
        `rank`, of how many (`world`), and the `address` of rank 0, such as "10.0.0.1:29400".  A stage that is busy with
        one batch, a process without a heartbeat, and one that does not arrive or load, are each given up after
        `timeout` seconds: then rank 0 gets a StageError, and the other processes end, with status 1.
        `strict`, `compile` and `cuda_graphs`: as for `load`; so are `tokens` and `prefill_share`, of which those of
        rank 0 count.

        Raises ManifestError, DeviceError or DistributedError, on rank 0 for all.
        """
        switches = {"strict": strict, "compile": compile, "cuda_graphs": cuda_graphs or False}
        folder = checked_folder(folder, timeout, tokens, **switches)
        check_ways(None, "return", prefill_share)
        at = JobAddress.find(rank, world, address)
        speed = Speed(compile, cuda_graphs)
        job = start(folder, device, at, strict=strict, timeout=timeout, speed=speed, tokens=tokens or 0)
        return cls(RunningStages.of_job(job), folder, prefill_share=prefill_share)

    def __repr__(self) -> str:
        """The stages on their devices: "<Pipeline gpt2 from build/gpt2: stages 0-1 on cuda:0; open>".

        Programs are listed before them where there are several.
        """
        rank = "" if self._stages.monitor is None else f"rank {self.rank}, "
        state = "open" if self._stages.engine.is_open else "closed"
        names = [program.name for program in self.manifest.programs]
        programs = f"programs {', '.join(names)}; " if len(names) > 1 else ""
        stages = places_text(self.devices)
        return f"<Pipeline {self.manifest.name} from {self.folder}: {programs}{stages}; {rank}{state}>"

    @property
    def rank(self) -> int:
        """The rank of this process among those that run the pipeline.  Rank 0 makes the calls."""
        return 0 if self._stages.monitor is None else self._stages.monitor.rank

    def __call__(self, *args: Any, microbatches: int = 1, outputs: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """The model's result.  Raises InputError before anything runs, or StageError.

        `microbatches`: the number of parts into which the batch is split, so that all stages work on it at once.
        `outputs`: names of outputs as in the manifest, or parts of them such as "logits[:, -1]": the result is then a
        dict of these, and the rest stays on the stages' devices.
        """
        return self._run(self._parts_of(args, kwargs, microbatches, outputs))

    def submit(
        self, *args: Any, microbatches: int = 1, outputs: Sequence[str] | None = None, **kwargs: Any
    ) -> Future[Any]:
        """Start a batch; the future holds the model's result, or a StageError.

        Until then its tensors must stay as they are: where one is changed in place, the future holds an InputError.
        Of slices of a larger tensor, samples are compared, on an accelerator none.
        Raises InputError before anything runs.
        """
        return self._send(self._parts_of(args, kwargs, microbatches, outputs))

    def map(self, batches: Iterable[Any], in_flight: int = 8) -> Iterator[Any]:
        """Run a stream of batches, at most `in_flight` at a time, and yield their results in order.

        A batch that is a tuple is called as `pipe(*batch)`, a mapping as `pipe(**batch)`, anything else as
        `pipe(batch)`.  `batches` is read as results are taken, and ahead of them, so each batch needs tensors of its
        own.  An error in reading, checking or running a batch is raised in its place, after the results before it;
        then, as when the caller stops early, batches in flight are finished and dropped.  Raises InputError if
        `in_flight` is less than 1.
        """
        demand(is_count(in_flight), "in_flight", in_flight, "a whole number of batches, at least 1")
        self._stages.engine.require_open()
        return results_in_order(each_submitted(self.submit, batches), in_flight)

    def run_named(
        self, tensors: Mapping[str, torch.Tensor], *, microbatches: int = 1, outputs: Sequence[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """Run one batch.  Inputs and outputs are tensors by their names in the manifest, of the shapes given there.

        Raises InputError before anything runs, or StageError.
        """
        return self._run(self._named_parts_of(tensors, microbatches, outputs))

    def submit_named(
        self, tensors: Mapping[str, torch.Tensor], *, microbatches: int = 1, outputs: Sequence[str] | None = None
    ) -> Future[dict[str, torch.Tensor]]:
        """Start a batch of tensors by their names, as `run_named` takes them; the future holds what that returns.

        Raises InputError before anything runs.
        """
        return self._send(self._named_parts_of(tensors, microbatches, outputs))

    def submit_shared(
        self, tensors: Mapping[str, torch.Tensor], outputs: Sequence[str], callers: Sequence[Mapping[str, int]]
    ) -> Future[list[dict[str, torch.Tensor]]]:
        """Start a batch whose rows are those of several callers; the future holds the `outputs` that each asks for.

        `callers`: the sizes of each that are other than the batch's, by their symbols, as its rows and its length
        without padding.  Raises InputError before anything runs.
        """
        self._stages.engine.require_open()
        batch = self._programs.bind_named(tensors)
        return self._send(self._programs.program_of(batch).shared(batch, outputs, callers))

    def generate(
        self,
        prompts: Any,
        attention_mask: torch.Tensor | None = None,
        *,
        stream: bool = False,
        num_return_sequences: int = 1,
        **options: Any,
    ) -> Any:
        """Continue prompts, as `model.generate` does, for an artifact that was compiled with `--generate`.

            ids = pipe.generate(input_ids, max_new_tokens=64)
            texts = pipe.generate(["a prompt", "another"], max_new_tokens=64)
            for step in pipe.generate(prompts, stream=True, temperature=0.7, top_p=0.95, seed=1): ...

        `prompts`: int64 [batch, length], of which `attention_mask` tells the padding: the result is
        [batch * num_return_sequences, length + new], with the prompts and the ids that ended them, then padding.
        Or a text, a chat (a list of messages) or a list of ids, or a list of these: the result is what
        `Continuation.result` returns for each.  With `stream`, an iterator over the `Step`s of all rows as they come.
        `options`: `max_new_tokens` or `max_length`, `do_sample`, `temperature`, `top_k`, `top_p`, `min_p`, `seed`,
        `repetition_penalty`, `logit_bias` (a dict from ids to what is added to their logits), `eos_token_id`, `stop`
        (texts and ids that end a text), `pad_token_id`; by default the checkpoint's; and by its name what a model takes
        beside ids, as `pixel_values` [batch, …].

        Any thread may call; all texts share the batches that run.  Raises InputError, StageError or PipelineClosed.
        """
        return self._texts().generate(prompts, attention_mask, num_return_sequences, stream, options)

    def start(self, prompt: Any, *, written: Sequence[int] = (), **options: Any) -> Continuation:
        """Begin to continue one prompt, with the options of `generate`, and return at once.

        `written`: ids of the first tokens, as of a text that was lost with its pipeline.  It goes on behind them; they
        count for the options, and are its first steps, without a `logprob`.
        """
        return self._texts().start(prompt, options, written)

    def _texts(self) -> TextGeneration:
        self._stages.engine.require_open()
        with self._beginning:
            if self._generation is None:
                running = self._stages
                submit = StepSubmission(running.engine, running.programs, running.processes)
                stages = GeneratingStages.on(self.devices, running.process_count, submit, self._prefill_share)
                self._generation = TextGeneration(self.manifest, self.folder, stages)
            return self._generation

    def prepare(self, **sizes: int) -> None:
        """Record, and compile, what stages do for a batch of these sizes, so that the next one is as fast as others.

            pipe.prepare(batch=4, seq=512)

        Sizes that are not named are those of the example.  State begins anew, as after `reset`: call it before the
        first batch.  Of a decoder, the steps of 1, 2, 4, … up to `batch` texts (2 by default): what longer ones need is
        recorded as they come, and nothing is compiled for them.  Raises InputError for sizes that the model does not
        take.
        """
        if self.manifest.generation.page:
            self._texts().prepare(**sizes)
            self._stages.engine.send(FinishKernels()).result()
            self._texts().prepare(**sizes)  # with kernels
            return
        for batch in self._programs.of_sizes(sizes):
            for _ in range(RECURS):
                self._run(BatchParts([batch], tuple))
                self._stages.engine.send(FinishKernels()).result()
        self.reset()

    def reset(self) -> None:
        """Restore the state of all stages (caches, running statistics) to its values when loaded.

        Batches sent before are not affected, but texts in progress fail with PipelineClosed: they are of many batches.
        Returns when those, and the reset, are done.
        """
        with self._beginning:
            self._end_texts("the pipeline was reset")  # what they have in common with later ones is forgotten, too
            self._stages.engine.send(Reset()).result()

    @contextmanager
    def trace(self, path: str | Path | None = None) -> Iterator[Trace]:
        """Trace the batches that are sent within the block, and write the trace to `path`, if given, at its end.

            with pipe.trace("trace.json") as trace:
                results = list(pipe.map(batches))
            print(trace.runs[0].ended - trace.runs[0].started)  # seconds on the device

        ui.perfetto.dev and chrome://tracing open the file.  The block ends when its batches are done.
        Raises RuntimeError within another trace, FileNotFoundError if the folder of `path` is missing.
        """
        trace = Trace(self.manifest, self.devices)
        with perfetto.writing(path, trace), self._stages.engine.trace(trace):
            yield trace

    @property
    def closed(self) -> bool:
        """Whether the pipeline runs no more batches: it was closed, or a fault closed it."""
        return not self._stages.engine.is_open

    @property
    def pids(self) -> dict[int, tuple[int, ...]]:
        """The ids of the processes that this one started for stages, and the stages of each."""
        return {} if self._stages.processes is None else self._stages.processes.pids

    def restart(self) -> None:
        """Open the pipeline again after a StageLost: lost processes are started, the others keep their weights.

        The state of all stages is what it was when they were loaded.  Raises RuntimeError where the stages do not run
        in processes that this one started, StageLost if one is lost again, PipelineClosed after `close`.
        """
        self._stages.engine.require_here()
        if self._stages.processes is None:
            raise RuntimeError("this pipeline has no processes of its own; load it again with Pipeline.load")
        self._stages.stop()
        self._end_texts()
        self._stages.engine = self._stages.processes.begin()

    def close(self) -> None:
        """Stop, and release the stages.  Batches in flight fail with PipelineClosed.  May be called twice.

        On other ranks than 0: run the stages until rank 0 closes the pipeline.  In a fork of the process that loaded
        it, nothing happens.
        """
        if not self._stages.engine.is_here:
            return
        self._stages.stop()
        self._end_texts()
        self._stages.end()

    def _end_texts(self, why: str = CLOSED) -> None:
        if self._generation is not None:
            self._generation.close(why)
            self._generation = None

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self._stages.monitor is not None and error is not None:
            self._stages.monitor.leave_by(error)
        self.close()

    def _parts_of(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], microbatches: int, outputs: Sequence[str] | None
    ) -> BatchParts:
        self._stages.engine.require_open()
        batch = self._programs.bind(args, kwargs)
        calls, sizes = self._programs.program_of(batch), batch.sizes
        return calls.parts(batch, microbatches, outputs, lambda made: calls.returns.build(made, sizes))

    def _named_parts_of(
        self, tensors: Mapping[str, torch.Tensor], microbatches: int, outputs: Sequence[str] | None
    ) -> BatchParts:
        self._stages.engine.require_open()
        batch = self._programs.bind_named(tensors)
        calls = self._programs.program_of(batch)
        return calls.parts(batch, microbatches, outputs, calls.named)

    def _run(self, batch: BatchParts) -> Any:
        """The result that a future of `_send` would hold."""
        with CALLERS.waiting():  # from here on, or a stage could be at its recording before
            if len(batch.parts) > 1:
                return self._send(batch).result()
            warn_of_autocast()
            (part,) = batch.parts
            return self._stages.engine.run(*self._sendable(part, lambda outputs: batch.result([outputs])))

    def _send(self, batch: BatchParts) -> Future[Any]:
        CALLERS.called()
        warn_of_autocast()
        (*first, last), result = batch.parts, batch.result
        futures = [self._send_part(part, tuple) for part in first]
        # The last part is done after all others, so its `finish` joins them.
        return self._send_part(last, lambda outputs: result([*(part.result() for part in futures), outputs]))

    def _send_part(self, part: Values, finish: Finish) -> Future[Any]:
        return self._stages.engine.send(*self._sendable(part, finish))

    def _sendable(self, part: Values, finish: Finish) -> tuple[Values, Finish, torch.device | None]:
        """A batch as the engine takes it, what makes the result, and where that is to be."""
        part = self._programs.laid_out(part)
        inputs = self._programs.program_of(part).entry.inputs
        given = Untouched.of(zip((tensor.name for tensor in inputs), part.tensors, strict=True))
        return part, partial(self._finish, finish, given), None if self._outputs_stay else part.device

    def _finish(self, finish: Finish, given: Untouched, outputs: tuple[torch.Tensor, ...]) -> Any:
        given.check()
        return finish(outputs)  # a method, so that a batch in flight keeps the pipeline alive, though not its inputs
