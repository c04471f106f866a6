"""The continuation of a prompt, as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Condition, RLock
from typing import Any, NamedTuple

from runtime.generation.options import TextOptions


class Step(NamedTuple):
    """A token that was written in a row, the text that it adds, and whether it is the last one of the row, and why."""

    row: int
    token: int
    text: str
    done: bool
    logprob: float = 0.0  # of the token under the model, before sampling
    reason: str = ""  # why it is the last one: "stop", by an id or a text, or "length"; empty while the row goes on


Told = Callable[[Step | BaseException | None], None]


class Continuation:
    """The text that is written behind a prompt.

        text = pipe.start("a prompt", max_new_tokens=64)
        for step in text: print(step.text, end="")
        text.result()

    Any thread may read it, several at once: each iteration begins with the first token.
    """

    def __init__(
        self,
        row: int,
        options: TextOptions,
        cancel: Callable[[Continuation], None],
        reader: Any = None,
        told: Told | None = None,
    ) -> None:
        """`Pipeline.start` makes these.  `reader`: what turns ids into text, None for a prompt of ids.

        `told`: called with each step, and with the error that ends it or None behind the last one.
        """
        self.row = row
        self.prompt_tokens = 0
        self._options = options
        self._cancel = cancel
        self._reader = reader
        self._told = told
        self._steps: list[tuple[Any, ...]] = []  # the fields of a Step each, which is made as it is read
        self._done = False
        self._error: BaseException | None = None
        lock = self._lock = RLock()  # entered itself where nobody waits: a condition enters it by two calls more
        self._changed = Condition(lock)
        self._waiting = 0  # readers that wait for a token
        self._ended = Condition(lock)  # so that no token wakes a thread that waits for the last one

    @property
    def done(self) -> bool:
        """Whether no token follows: it has ended, failed or was cancelled."""
        return self._done

    @property
    def steps(self) -> tuple[Step, ...]:
        """The tokens written until now, the one that ended it included."""
        return tuple(map(Step._make, self._steps))

    def __iter__(self) -> Iterator[Step]:
        """Each token as it comes.  Raises what `result` raises."""
        at = 0
        while True:
            with self._changed:
                while len(self._steps) == at and not self._done:
                    self._waiting += 1
                    self._changed.wait()
                    self._waiting -= 1
                new = self._steps[at:]
            if not new:
                break
            yield from map(Step._make, new)
            at += len(new)
        if self._error is not None:
            raise self._error

    def result(self, timeout: float | None = None) -> Any:
        """The new text of a text, the new ids of ids, without what ended it; of a cancelled one, what there is.

        Raises StageError or PipelineClosed if it was lost, TimeoutError after `timeout` seconds.
        """
        with self._ended:
            if not self._ended.wait_for(lambda: self._done, timeout):
                raise TimeoutError(f"the text is not done after {timeout} s")
        if self._error is not None:
            raise self._error
        if self._reader is not None:
            return "".join(step.text for step in self.steps)
        tokens = [step.token for step in self.steps]
        return tokens[:-1] if tokens and tokens[-1] in self._options.stop else tokens

    def cancel(self) -> None:
        """Stop writing.  Its pages are free at once; no other text is disturbed."""
        self._cancel(self)

    # ---- what the generator tells

    def add(self, token: int, logprob: float) -> bool:
        """A new token.  Returns whether it is the last one."""
        options = self._options
        stops, last = token in options.stop, len(self._steps) + 1 == options.new
        text, found = "", False
        if self._reader is not None:
            text, found = (self._reader.end(), True) if stops else self._reader.add(token, last)
        done = stops or found or last
        reason = "" if not done else "stop" if stops or found else "length"
        step = self.row, token, text, done, logprob, reason
        with self._lock:
            if self._done:
                return True
            self._steps.append(step)
            if self._told is not None:
                self._told(Step._make(step))
            if self._waiting:
                self._changed.notify_all()
            if done:
                self.end()
        return done

    def end(self, error: BaseException | None = None) -> None:
        """No more tokens come: it is done, an error ended it, or nobody wants them."""
        with self._changed:
            if not self._done:
                self._done, self._error = True, error
                if self._told is not None:
                    self._told(error)
                self._changed.notify_all()
                self._ended.notify_all()
