"""Options of a text: its length, how its tokens are drawn, what ends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from random import SystemRandom
from typing import Any

from runtime.call.adapter_rows import AdapterNames
from runtime.errors import InputError, demand
from runtime.generation.token_rules import RULE_OPTIONS, TokenRules
from runtime.manifest.manifest import ADAPTER, Generation
from runtime.options import is_whole_number

_DRAWING = ("temperature", "top_k", "top_p", "min_p")
_SUPPRESSED = ("suppress_tokens", "begin_suppress_tokens")
_LIMITS = ("max_new_tokens", "max_length")  # of a text: the first one counts
_SPARE_SEED = "default_seed"
_OTHERS = ("do_sample", "seed", _SPARE_SEED, *_LIMITS, "eos_token_id", "stop", ADAPTER)
NO_ADAPTERS = AdapterNames()
"""Those of an artifact that keeps none."""
_ALWAYS = ("repetition_penalty", "logit_bias")
_MOST = 1e300  # a number, which a whole one of hundreds of digits is not
_NEUTRAL = {"num_beams": (1,), "use_cache": (True, False), "return_dict_in_generate": (False,)}  # change no token


@dataclass(frozen=True)
class Sampling:
    """Rules for drawing the next token from softmax(logits / `temperature`); at temperature 0 it is the likeliest.

    Of all tokens those take part that are among the `top_k` likeliest (0: all), among the likeliest that make up
    `top_p` of the probability, and at least `min_p` times as likely as the likeliest.  The draw hangs on the `seed`
    and the token's position alone: a text comes out the same alone and in a batch.  Before that, the logits of tokens
    in the text are divided by `repetition_penalty`, negative ones multiplied, and `logit_bias` is added to those of its
    ids.  The ids in `suppressed` are never written, those in `suppressed_first` not as the first new token.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()

    @cached_property
    def numbers(self) -> tuple[float, float, float, float]:
        """Those that a decoder takes: temperature, top_k, top_p and min_p."""
        return self.temperature, self.top_k, self.top_p, self.min_p

    def drawn_from(self, vocabulary: int) -> int:
        """The number of tokens that may be drawn at most, and one more, which may be as likely as the last."""
        if not self.temperature:
            return 1
        return min(self.top_k + 1, vocabulary) if self.top_k else vocabulary


@dataclass(frozen=True)
class TextOptions:
    """Options of a continuation: at most `new` tokens, until one of the ids in `stop` or one of the texts in `ends`."""

    new: int
    sampling: Sampling = Sampling()
    stop: frozenset[int] = frozenset()
    ends: tuple[str, ...] = ()
    rules: TokenRules = TokenRules()
    adapter: int = 0  # the index of one that the artifact keeps; 0: none

    @cached_property
    def reads_tokens(self) -> bool:
        """Whether the next token hangs on the tokens before it beyond what the model makes of them."""
        return self.sampling.repetition_penalty != 1 or self.rules.reads_tokens

    @cached_property
    def changes_nothing(self) -> bool:
        """Whether all logits are as the model makes them."""
        its = self.sampling
        changed = its.logit_bias or its.suppressed or its.suppressed_first or its.repetition_penalty != 1
        return not changed and self.rules == TokenRules()


def pad_id(generation: Generation, given: Mapping[str, Any]) -> int:
    """The id behind the end of a text that is shorter than others: of a call, else the checkpoint's.

    Raises InputError.
    """
    pad = given.get("pad_token_id")
    demand(pad is None or is_whole_number(pad), "pad_token_id", pad, "a token id")
    return generation.pad if pad is None else pad


def told_padding(generation: Generation, given: Mapping[str, Any]) -> int | None:
    """The id of padding, where it is told from the ids that end a text, as transformers has it.  Raises InputError."""
    pad, ends = pad_id(generation, given), given.get("eos_token_id")
    told = not any(is_whole_number(one) and one == pad for one in _each(generation.stop if ends is None else ends))
    return pad if told else None


def text_options(
    generation: Generation,
    prompt: int,
    given: dict[str, Any],
    adapters: AdapterNames = NO_ADAPTERS,
    padding: int = 0,
) -> TextOptions:
    """The options of a prompt of `prompt` tokens, from the arguments of a call as `model.generate` takes them.

    `padding`: tokens that count besides for `max_length` and `min_length`.

    What is not given is as the checkpoint says, which draws if it says how.  Without a length, there too, a text ends
    where the model can hold no more of it.  Naming a way to draw (`temperature`, `top_k`, `top_p`, `min_p`, `seed`) is
    a wish to draw.  `default_seed` is that of a text that is drawn and names none.  Raises InputError.
    """
    named = {key: value for key, value in given.items() if value is not None}
    if named.get("num_beams", 1) != 1:
        raise InputError("num_beams is for beam search, which stages do not do", "leave it out, or let it draw")
    named = {key: value for key, value in named.items() if value not in _NEUTRAL.get(key, ())}
    if unknown := named.keys() - {*_DRAWING, *_ALWAYS, *_SUPPRESSED, *_OTHERS, *RULE_OPTIONS}:
        raise InputError(f"generate takes no {', '.join(sorted(unknown))}")
    new = _length(generation, prompt, named, padding)
    stop, ends = _ends(generation, named)
    sampling = _sampling(generation, named)
    forced = max(len(generation.begin) - 1, 0)
    rules = TokenRules.of({**generation.defaults, **named}, prompt - forced, generation.vocabulary, stop, padding)
    return TextOptions(new, sampling, stop, ends, rules, adapters.index(named.get(ADAPTER)))


def _sampling(generation: Generation, named: Mapping[str, Any]) -> Sampling:
    """The way to choose tokens.  Raises InputError."""
    wishes = named.keys() & {*_DRAWING, "seed"}
    demand(isinstance(named.get("do_sample", True), bool), "do_sample", named.get("do_sample"), "True or False")
    draws = named.get("do_sample", bool(wishes) or any(name in generation.defaults for name in _DRAWING))
    sampling = Sampling()
    if draws:
        known = {key: generation.defaults[key] for key in _DRAWING if generation.defaults.get(key) is not None}
        seed = named.get(_SPARE_SEED, SystemRandom().getrandbits(48))
        drawn = {"seed": seed, **known, **{key: named[key] for key in wishes}}
        sampling = replace(Sampling(temperature=1.0), **drawn)
    penalty = {"repetition_penalty": 1.0, **generation.defaults, **named}["repetition_penalty"]
    bias = _bias(generation, named.get("logit_bias", {}))
    never, first = (
        _suppressed(generation, name, {**generation.defaults, **named}.get(name, ())) for name in _SUPPRESSED
    )
    sampling = replace(sampling, repetition_penalty=penalty, logit_bias=bias, suppressed=never, suppressed_first=first)
    _check_sampling(sampling)
    if abs(sampling.seed) >= 1 << 62:  # what is added to it must fit an int64, too
        return replace(sampling, seed=sampling.seed % (1 << 62))
    return sampling


def _length(generation: Generation, prompt: int, named: dict[str, Any], padding: int) -> int:
    room = generation.max_length - prompt
    if room < 1:
        raise InputError(
            f"the prompt has {prompt} tokens, and a text of this artifact at most {generation.max_length} with what "
            "follows",
            "compile with a larger --max-length",
        )
    limits = {name: named[name] for name in _LIMITS if name in named}
    asked = limits or {name: generation.defaults[name] for name in _LIMITS if name in generation.defaults}
    forced = max(len(generation.begin) - 1, 0)  # new ones, too, as transformers counts
    if "max_new_tokens" in asked:
        new, name = asked["max_new_tokens"], "max_new_tokens"
        new = new - forced if is_whole_number(new) and new > forced else new
    elif is_whole_number(asked.get("max_length", 1)):
        new, name = asked.get("max_length", generation.max_length + padding) - padding - prompt, "max_length"
    else:
        new, name = 0, "max_length"
    if not is_whole_number(new) or new < 1:
        raise InputError(f"{name} is {asked.get(name)}, which leaves no token to write; it must allow at least 1")
    if new > room and limits:
        raise InputError(
            f"a prompt of {prompt} tokens and {new} new ones are {prompt + new}, and a text of this artifact has at "
            f"most {generation.max_length}",
            "ask for less, or compile with a larger --max-length",
        )
    return min(new, room)


def _ends(generation: Generation, named: dict[str, Any]) -> tuple[frozenset[int], tuple[str, ...]]:
    """The ids and the texts that end a text."""
    ids = named.get("eos_token_id", generation.stop)
    stop = named.get("stop", ())
    parts = [*_each(ids), *_each(stop)]
    wrong = [part for part in parts if not (isinstance(part, str) or is_whole_number(part)) or part == ""]
    if wrong:
        raise InputError(f"{wrong[0]!r} ends no text; stop takes texts and token ids")
    return frozenset(p for p in parts if isinstance(p, int)), tuple(p for p in parts if isinstance(p, str))


def _bias(generation: Generation, given: Any) -> tuple[tuple[int, float], ...]:
    """The ids and what is added to their logits."""
    if not isinstance(given, Mapping):
        raise InputError(f"logit_bias is of type {type(given).__name__}; it must be a dict from token ids to numbers")
    for token, value in given.items():
        if not isinstance(token, int) or not 0 <= token < generation.vocabulary:
            raise InputError(f"logit_bias names {token!r}; token ids are 0 to {generation.vocabulary - 1}")
        if not isinstance(value, (int, float)) or not value < _MOST or -float("inf") < value < -_MOST:
            raise InputError(f"logit_bias is {value} for the token {token}; it must be a number")
    return tuple((token, float(value)) for token, value in sorted(given.items()))


def _suppressed(generation: Generation, name: str, ids: Any) -> tuple[int, ...]:
    """Ids that are not written; those outside of the vocabulary are none."""
    if not isinstance(ids, (list, tuple)) or any(not isinstance(token, int) for token in ids):
        raise InputError(f"{name} is {ids!r}; it must be a list of token ids")
    return tuple(token for token in ids if 0 <= token < generation.vocabulary)


def _check_sampling(sampling: Sampling) -> None:
    """Raises InputError for a value that makes no sense, NaN included."""
    ranges: dict[str, tuple[Callable[[Any], bool], str]] = {
        "temperature": (lambda value: 0 <= value < _MOST, "at least 0"),
        "top_p": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
        "min_p": (lambda value: 0 <= value <= 1, "from 0 to 1"),
        "repetition_penalty": (lambda value: 0 < value < _MOST, "a number above 0"),
        "top_k": (lambda value: is_whole_number(value) and 0 <= value < 1 << 62, "a whole number, 0 for all"),
        "seed": (is_whole_number, "a whole number"),
    }
    for name, (fits, what) in ranges.items():
        value = getattr(sampling, name)
        demand(isinstance(value, Real) and not isinstance(value, bool) and fits(value), name, value, what)


def _each(given: Any) -> list[Any]:
    """The ids and texts of an option that takes one or several."""
    return [*given] if isinstance(given, (list, tuple, set, frozenset)) else [given]
