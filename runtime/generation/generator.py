"""The thread that sends batches of texts to the stages, and hands out the tokens that they return."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Lock, Thread, current_thread
from time import perf_counter
from typing import Any

import torch

from runtime.errors import InputError, PipelineClosed, StageError, StageLost
from runtime.generation.continuation import Continuation, Told
from runtime.generation.options import TextOptions
from runtime.generation.outputs import HostOutputs, StepOutputs, TokenCopies
from runtime.generation.prompts.media import TextMedia
from runtime.generation.scheduling.batches import TextBatch
from runtime.generation.scheduling.scheduler import CHUNK, Scheduler
from runtime.generation.scheduling.sequences import Pools, TextInProgress, TextSource
from runtime.generation.scheduling.step_inputs import StepInputs
from runtime.generation.stages import GeneratingStages
from runtime.manifest.manifest import Generation

_Event = Callable[[], None]  # what happened, as what is to be done about it
LOOKS = 1e-4, 5e-3  # least and most seconds between two looks at whether tokens have come to the host
SURE = 0.85  # of the time of the step before: its tokens are not looked for earlier
CLOSED = "the pipeline was closed"


@dataclass(frozen=True)
class _Unread:
    """A batch whose tokens are on their way to the host: the texts that they belong to, with their rows."""

    outputs: HostOutputs
    told: list[tuple[TextInProgress, int]]
    since: float  # when the stages began it, on the host's clock
    decodes: bool  # whether each text had one new token


class Generator:
    """Continues texts.  Any thread may start and cancel them; one thread of its own does all the rest, event by event.

    It orders steps ahead of the tokens that it has read, which go from the last stage to the first on the devices.

    A batch that a stage fails is computed again from the same places in the pools, each of its texts alone, so that
    only a text that fails by itself is lost.
    """

    def __init__(
        self,
        generation: Generation,
        takes: Collection[str],
        stages: GeneratingStages,
        first: Collection[str] = (),
        media: Collection[str] = (),
    ) -> None:
        """`takes`: the names of the decoder's inputs.

        `first`: those of the first step of a text that has a source, `media` of one that has media.
        """
        self._generation, self._stages = generation, stages
        self._copies = TokenCopies()
        self._unread: deque[_Unread] = deque()  # in their order
        self._last_read = 0.0  # when tokens were read, on the host's clock
        self._step = 0.0  # seconds that the last step took of texts that had one new token each
        self._takes, self._first, self._media = takes, first, media
        self._steps = StepInputs(takes, generation, stages.pads, stages.packs)
        chunk = CHUNK
        if generation.window:
            room = (generation.window_pages - 2) * generation.page - generation.window
            chunk = max(1, min(CHUNK, room))
        # One more, where the host is between two steps; stages that share a device read their weights once for all.
        groups = stages.at_once + (stages.at_once > 1 and not stages.runs_ahead)
        self._scheduler = Scheduler(
            Pools.of(generation), groups, chunk, generation.chunk, generation.together, stages.prefill_share
        )
        self._texts: dict[Continuation, TextInProgress] = {}
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._lock = Lock()  # held while the thread starts or ends
        self._runs = False
        self._thread: Thread | None = None  # the last one that ran
        self._closed = ""  # the reason, once it is

    def start(
        self,
        prompt: Sequence[int],
        options: TextOptions,
        row: int = 0,
        reader: Any = None,
        told: Told | None = None,
        source: TextSource | None = None,
        media: TextMedia | None = None,
        written: Sequence[int] = (),
    ) -> Continuation:
        """Continue a prompt; `reader` and `told` are those of the Continuation.  `source`: what an encoder reads of it.

        `media`: what stands before it; `written`: the first tokens of its continuation, which are known.  Raises
        InputError where no room could ever hold it, or PipelineClosed.
        """
        found = Continuation(row, options, self._cancel, reader, told)
        found.prompt_tokens = len(prompt)
        for token in written:
            found.add(token, 0.0)
        text = TextInProgress([*prompt, *written], options, found, source=source, media=media)
        self._require_room(text, len(prompt))
        if self._closed:
            raise PipelineClosed(self._closed)
        self._tell(lambda: self._add(text))
        return found

    def _require_room(self, text: TextInProgress, prompt: int) -> None:
        """Raise InputError for a text, of a prompt of so many tokens, that the pools could never hold."""
        pools, most = self._scheduler.pools, prompt + text.options.new
        pages = text.needed(pools, most)
        if pages > pools.full.count - 1 and "table" in self._takes:
            raise InputError(
                f"a text of {most} tokens needs {pages} pages, and the artifact has {pools.full.count - 1}",
                "load it with more tokens, or compile with more --tokens",
            )
        sliding = -(-prompt // pools.page)
        if text.media is not None and pools.window and sliding > pools.sliding.count - 1:
            raise InputError(
                f"a prompt of {prompt} tokens with media is computed at once, and the layers that slide have room "
                f"for {(pools.sliding.count - 1) * pools.page}",
                "compile with more --tokens",
            )

    def close(self, why: str = CLOSED) -> None:
        """Texts that are not done fail with PipelineClosed; returns when nothing runs.  May be called twice."""
        self._closed = why
        self._tell(lambda: self._end_all(PipelineClosed(why)))
        if (thread := self._thread) is not None and thread is not current_thread():
            thread.join()  # or Python's end would meet it inside of torch

    def _tell(self, event: _Event) -> None:
        """Have the thread act on an event; it runs while there is something to do, so that it keeps nothing alive."""
        with self._lock:
            self._events.put(event)
            if not self._runs:
                self._runs = True
                self._thread = Thread(target=self._run, name="generation", daemon=True)
                self._thread.start()

    def _cancel(self, found: Continuation) -> None:
        found.end()  # on the caller's thread, who gets no more tokens from now on
        self._tell(lambda: self._forget(found))

    # ---- on the thread

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._events.empty() and not self._texts and not self._unread:
                    self._steps.forget()  # a text knows this generator: a pipeline that is dropped would stay
                    self._runs = False
                    return
            try:
                self._act()
            except Exception as e:  # nobody may wait for ever
                self._end_all(e)

    def _act(self) -> None:
        """Wait for an event, act on all that happened, and send what can run."""
        self._wait()
        self._catch_up()
        while (batch := self._scheduler.next_batch()) is not None:
            self._send(batch)
            self._catch_up()  # there is always a next batch where stages are faster than the host
        if self._texts and not self._scheduler.is_busy:
            raise RuntimeError("no text can go on; this is a fault of stagecut")

    def _catch_up(self) -> None:
        """Act on all that happened, so that the next batch is made with it."""
        while not self._events.empty():
            self._events.get()()
        self._read()

    def _wait(self) -> None:
        """Until there is an event, which is acted on, or tokens are there that nobody has read."""
        if not self._unread:
            return self._events.get()()
        while not self._unread[0].outputs.are_there:
            self._stages.require_open()
            with suppress(Empty):
                return self._events.get(timeout=self._until_look())()

    def _until_look(self) -> float:
        """Seconds until the oldest unread tokens are looked for: a look takes the host longer than the wait costs.

        They come about as long behind those before them as those did: steps that follow each other are alike.
        """
        batch, (least, most) = self._unread[0], LOOKS
        passed = perf_counter() - max(self._last_read, batch.since)
        surely = SURE * self._step - passed if batch.decodes else 0.0
        return min(max(least, surely, passed / 16), most)

    def _add(self, text: TextInProgress) -> None:
        if self._closed:
            text.continuation.end(PipelineClosed(self._closed))
        elif not text.continuation.done:
            self._texts[text.continuation] = text
            self._scheduler.add(text)

    def _send(self, batch: TextBatch) -> None:
        text = batch.texts[0]
        takes = self._first if text.starts else self._media if text.looks else self._takes
        try:
            given, ready = self._inputs(batch, takes)
            begun = self._stages.submit(given, ready)
        except PipelineClosed as e:  # as a stage was lost, or while texts are in progress
            self._scheduler.failed(batch)
            self._end_all(e.__cause__ if isinstance(e.__cause__, StageLost) else e)
            return
        except Exception as e:  # no program takes it, as one for media may have bounds of its own, or memory ran out
            self._scheduler.failed(batch)
            for one in batch.texts:
                self._leave(one, e)
            return
        if isinstance(begun, StepOutputs):
            self._follow(batch, begun)
        elif begun.done():
            self._take(batch, begun)
        else:
            begun.add_done_callback(lambda done: self._tell(lambda: self._take(batch, done)))

    def _inputs(
        self, batch: TextBatch, takes: Collection[str]
    ) -> tuple[Mapping[str, torch.Tensor], tuple[torch.Event, ...]]:
        """The inputs of a batch, and the events after which they exist."""
        if batch.texts[0].starts or batch.texts[0].looks:
            return batch.inputs(takes, self._generation), ()
        if max(batch.counts) > 1:
            return self._steps.of_prompts(batch), ()
        given, rows = self._steps.of(batch), self._steps.rows
        ahead = any(text.unread for text in batch.texts)
        if self._stages.runs_ahead or ahead:  # known or not, a device of this process may have them as they are
            step = batch.follows
            if step is not None and len(step.token) == rows:
                return given.beside(input_ids=step.token[:, None]), step.ready
        if not ahead:
            return given.beside(**self._steps.ids(batch)), ()
        ids, ready = self._copies.ids(batch.last_tokens(), rows - len(batch.texts))
        return given.beside(input_ids=ids), ready

    def _take(self, batch: TextBatch, future: Future[StepOutputs]) -> None:
        """The stages have begun a batch, or failed to."""
        try:
            step = future.result()
        except Exception as e:
            failed = self._scheduler.failed(batch)
            if not isinstance(e, StageError) or isinstance(e, StageLost):
                return self._end_all(e)
            for text in failed:
                self._leave(text, e)
            return
        self._follow(batch, step)

    def _follow(self, batch: TextBatch, step: StepOutputs) -> None:
        """Have the outputs of a batch, which the stages have begun, come to the host."""
        told = self._scheduler.computed(batch, step)
        self._unread.append(_Unread(self._copies.to_host(step), told, perf_counter(), max(batch.counts) == 1))
        self._read()

    def _read(self) -> None:
        """Hand out the tokens that are there.  Those behind the end of a text are dropped."""
        while self._unread and self._unread[0].outputs.are_there:
            batch, now = self._unread.popleft(), perf_counter()
            took = now - max(self._last_read, batch.since)
            self._scheduler.all_read(took)
            self._step = took if batch.decodes else self._step
            self._last_read = now
            tokens, logprobs = batch.outputs.token.tolist(), batch.outputs.logprob.tolist()
            pools, texts = self._scheduler.pools, self._texts
            for text, row in batch.told:
                text.read(pools, token := tokens[row])
                if text.continuation in texts and text.continuation.add(token, logprobs[row]):
                    self._leave(text)

    def _leave(self, text: TextInProgress, error: BaseException | None = None) -> None:
        self._scheduler.remove(text)
        del self._texts[text.continuation]
        if error is not None:
            text.continuation.end(error)

    def _forget(self, found: Continuation) -> None:
        text = self._texts.pop(found, None)
        if text is not None:
            self._scheduler.remove(text)

    def _end_all(self, error: BaseException) -> None:
        for found, text in list(self._texts.items()):
            self._scheduler.remove(text)
            found.end(error)
        self._texts.clear()
        self._scheduler.unread = 0
        self._unread.clear()
