"""Rules on which tokens may follow, by the tokens of a text and their number."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import InputError
from runtime.options import is_whole_number

RULE_OPTIONS = ("min_length", "min_new_tokens", "bad_words_ids", "no_repeat_ngram_size", "forced_eos_token_id")
"""The options of `model.generate` that these rules are."""

_FORCED = 1e30  # is added to a logit, and leaves it finite


@dataclass(frozen=True)
class TokenRules:
    """Tokens that are not written, and those that must be, as `model.generate` has it."""

    least: int = 0  # tokens of a text, prompt included, before one ends it
    bad_words: tuple[tuple[int, ...], ...] = ()  # ids in a row that are not written
    ngram: int = 0  # ids in a row that do not come a second time; 0: any may
    last: tuple[int, ...] = ()  # ids of which one is the last that a text may have

    @classmethod
    def of(
        cls, given: Mapping[str, Any], prompt: int, vocabulary: int, stop: Collection[int], padding: int = 0
    ) -> TokenRules:
        """The rules in the options of a text that begins with `prompt` tokens and ends with one of the ids in `stop`.

        `padding`: tokens that count for `min_length` besides.  Raises InputError.
        """
        counts = {name: given.get(name) or 0 for name in ("min_length", "min_new_tokens", "no_repeat_ngram_size")}
        for name, count in counts.items():
            if not is_whole_number(count) or count < 0:
                raise InputError(f"{name} is {count!r}; it must be a number of tokens")
        words, forced = given.get("bad_words_ids") or (), given.get("forced_eos_token_id")
        if not isinstance(words, (list, tuple)) or any(not isinstance(w, (list, tuple)) or not w for w in words):
            raise InputError(f"bad_words_ids is {words!r}; it must be a list of lists of token ids")
        last = () if forced is None else tuple(forced) if isinstance(forced, (list, tuple)) else (forced,)
        for token in (*last, *(token for word in words for token in word)):
            if not is_whole_number(token) or not 0 <= token < vocabulary:
                raise InputError(f"{token!r} in bad_words_ids or forced_eos_token_id is no token id of this artifact")
        new = counts["min_new_tokens"]
        least = prompt + new if new else max(counts["min_length"] - padding, 0)
        written = (tuple(word) for word in words if len(word) > 1 or word[0] not in stop)
        return cls(least, tuple(written), counts["no_repeat_ngram_size"], last)

    @property
    def reads_tokens(self) -> bool:
        """Whether what may follow depends on the tokens before, not on their number alone."""
        return self.ngram > 0 or any(len(word) > 1 for word in self.bad_words)

    def changes(self, tokens: Sequence[int], written: int, room: int, stop: Collection[int]) -> dict[int, float]:
        """Additions to the logits of the token behind `tokens`, of which some are not read where they do not count.

        `written`: the number of tokens; `room`: of those that may follow; `stop`: the ids that end the text.
        """
        if self.last and room == 1:
            return dict.fromkeys(self.last, _FORCED)
        early = stop if written < self.least else ()
        ended = (word[-1] for word in self.bad_words if _ends_with(tokens, word[:-1]))
        return dict.fromkeys({*early, *ended, *self._repeated(tokens)}, float("-inf"))

    def _repeated(self, tokens: Sequence[int]) -> set[int]:
        """The ids that would make the last ones a second time."""
        if not self.ngram or len(tokens) + 1 < self.ngram:
            return set()
        size = self.ngram - 1
        before = tuple(tokens[len(tokens) - size :])
        starts = range(len(tokens) - size)
        return {tokens[i + size] for i in starts if tuple(tokens[i : i + size]) == before}


def _ends_with(tokens: Sequence[int], end: Sequence[int]) -> bool:
    return tuple(tokens[len(tokens) - len(end) :]) == tuple(end) if len(end) < len(tokens) else not end
