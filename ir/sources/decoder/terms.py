"""The terms of a checkpoint's texts: what ends them, how long they may be, how they are sampled."""

from __future__ import annotations

from typing import Any

from ir.decoding import Decoding
from ir.errors import SourceError

_LONGEST = 4096  # tokens of a text where nobody says how many, and the model has positions for as many
_LARGEST_PAGE = 256  # tokens, which attention kernels on GPUs ask for
_TOP_K = 50  # of sampling where a checkpoint samples and says no other, as transformers has it


def decoding_terms(model: Any, max_length: int | None, page: int | None, positions: int) -> Decoding:
    """The terms of a transformers model.  `positions`: the most tokens that it has positions for.

    Raises SourceError for texts that are longer.
    """
    if max_length is not None and max_length > positions:
        raise SourceError(f"--max-length {max_length} is more than the {positions} positions that the model has")
    longest = max_length or min(positions, _LONGEST)
    config, says = model.config.get_text_config(decoder=True), model.generation_config
    vocabulary = model.get_output_embeddings().weight.shape[0]
    stop = tuple(i for i in _ids(says.eos_token_id) if 0 <= i < vocabulary)
    return Decoding(
        page=page or page_for(longest),
        window=getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None) or 0,
        max_length=longest,
        vocabulary=vocabulary,
        stop=stop,
        pad=next((i for i in (*_ids(says.pad_token_id), *stop)), 0),
        defaults=_defaults(says, vocabulary),
    )


def page_for(max_length: int) -> int:
    """Tokens a page: a power of two, so that a text has 8 pages or more."""
    page = _LARGEST_PAGE
    while page > 4 and page * 8 > max_length:
        page //= 2
    return page


def _ids(given: Any) -> list[int]:
    return [] if given is None else [given] if isinstance(given, int) else list(given)


_NOT_FOLLOWED = {
    "num_beams": 1,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "sequence_bias": None,
    "exponential_decay_length_penalty": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "penalty_alpha": None,
    "dola_layers": None,
    "guidance_scale": None,
    "prompt_lookup_num_tokens": None,
    "watermarking_config": None,
    "top_h": None,
    "stop_strings": None,
    "max_time": None,
    "token_healing": False,
    "force_words_ids": None,
    "constraints": None,
    "num_return_sequences": 1,
}  # fields of generation_config.json that change the tokens of `model.generate`, with the value that changes nothing


def not_followed(model: Any) -> tuple[str, ...]:
    """A note on what the generation config of a transformers model asks for and stages do not do."""
    says = getattr(model, "generation_config", None)
    given = {name: getattr(says, name, None) for name in _NOT_FOLLOWED}
    if not model.config.is_encoder_decoder:
        given["forced_bos_token_id"] = getattr(says, "forced_bos_token_id", None)
    asked = [f"{name} {value}" for name, value in given.items() if value not in (None, _NOT_FOLLOWED.get(name))]
    if not asked:
        return ()
    return (
        f"its generation config asks for {', '.join(asked)}, which stages do not follow: one likeliest or drawn text",
    )


def _defaults(says: Any, vocabulary: int) -> dict[str, Any]:
    """The options of texts that the checkpoint says; none of drawing where texts are continued greedily."""
    penalty = getattr(says, "repetition_penalty", None)
    always: dict[str, Any] = {"repetition_penalty": penalty} if penalty not in (None, 1.0) else {}
    for name in ("suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id"):
        if ids := [i for i in _ids(getattr(says, name, None)) if 0 <= i < vocabulary]:
            always[name] = ids
    counts = ("max_length", "max_new_tokens", "min_length", "min_new_tokens", "no_repeat_ngram_size")
    for name in (*counts, "bad_words_ids"):
        if value := getattr(says, name, None):
            always[name] = value
    if not says.do_sample:
        return always
    named = {name: getattr(says, name, None) for name in ("temperature", "top_k", "top_p", "min_p")}
    given = {name: value for name, value in named.items() if value is not None}
    return {"temperature": 1.0, "top_k": _TOP_K} | given | always
