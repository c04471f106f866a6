"""The arguments of a diffusers model whose calls are not known: its forward's, in shapes with which that runs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor, nn

from ir.errors import SourceError
from ir.sources.libraries.known_folder import LibraryCall

_BATCH, _TOKENS = 2, 77
_GRID = 2, 4, 8  # frames, rows and columns of patches, where a model takes these one after the other
_PATCHES = 64
_FRAMES = 5, 4, 9
_MOST = 400  # combinations that are tried
_LARGEST = 64  # side of a picture, where the configuration names a larger one
_CHANNELS = ("in_channels", "in_dim", "audio_channels", "sample_channels")
_IMAGES = ("hidden_states", "sample", "x")
_LEFT_OUT = ("return_dict", "generator", "sample_posterior")
_TEXT = r"cross_attention_dim|joint_attention_dim|caption|cap_feat|text|context|condition|llm|encoder_hid|prompt"
_OPTIONAL = re.compile(
    r"encoder_(hidden_states|attention_mask).*|timesteps?|pooled_\w+|(img|txt)_ids|num_frames|height|width"
)


@dataclass(frozen=True)
class Shaped:
    """A value for an argument, and its sizes that may change by their dimensions."""

    value: Any
    sizes: Mapping[int, str]


def derived_call(model: Any) -> LibraryCall:
    """The arguments with which a model's forward runs, found by trying shapes on the meta device.

    Raises SourceError where none that are tried fit.
    """
    config = model.config
    named = {p.name: p for p in inspect.signature(type(model).forward).parameters.values() if p.name != "self"}
    taken = [name for name, p in named.items() if _is_taken(name, p, config)]
    choices = {name: [*_choices(name, config, type(model).__name__)] for name in taken}
    if unknown := [name for name in taken if not choices[name] and named[name].default is inspect.Parameter.empty]:
        raise SourceError(f"what {type(model).__name__} takes as {', '.join(unknown)} is not known")
    choices = {name: found for name, found in choices.items() if found}
    for chosen in islice(product(*choices.values()), _MOST):
        call = dict(zip(choices, chosen, strict=True))
        if _runs(model, {name: shaped.value for name, shaped in call.items()}):
            sizes = {name: dict(shaped.sizes) for name, shaped in call.items() if shaped.sizes}
            return LibraryCall({name: shaped.value for name, shaped in call.items()}, sizes)
    raise SourceError(f"no shapes that were tried for {', '.join(choices)} fit {type(model).__name__}")


def _is_taken(name: str, parameter: inspect.Parameter, config: Any) -> bool:
    """Whether an argument is given: those that must be, and those that pipelines give."""
    if name in _LEFT_OUT or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    if parameter.default is inspect.Parameter.empty:
        return True
    if name == "guidance":
        return any("guidance" in key and value is True for key, value in config.items())
    if re.search(r"_(image|2|t5)$", name):  # a second text, or an image, that some models of a class have
        return any(key.endswith(name.rpartition("_")[2] + "_dim") and value for key, value in config.items())
    return _OPTIONAL.fullmatch(name) is not None and parameter.default is None


def _choices(name: str, config: Any, cls: str) -> Iterator[Shaped]:
    """Values for an argument, the likeliest first; none for one that is not known."""
    rows = {0: "batch"}
    if name in _IMAGES:
        yield from _images(config, cls)
    elif re.fullmatch(r"t|timesteps?|timestep_r|r_timestep|guidance", name):
        yield Shaped(torch.full((_BATCH,), 10.0), rows)
        yield Shaped(torch.tensor(10.0), {})
    elif "mask" in name:
        for dtype in (torch.int64, torch.bool, torch.float32):
            yield Shaped(torch.ones(_BATCH, _TOKENS, dtype=dtype), {**rows, 1: "tokens"})
    elif re.fullmatch(r"encoder_hidden_states.*|text_bth|cap_feats", name):
        for width in _widths(name, config, _TEXT):
            yield Shaped(torch.randn(_BATCH, _TOKENS, width), {**rows, 1: "tokens"})
    elif name.startswith("pooled") or name.endswith("pooled"):
        for width in _widths(name, config, "pool"):
            yield Shaped(torch.randn(_BATCH, width), rows)
    elif name in ("img_ids", "txt_ids"):
        count, size = (_PATCHES, "patches") if name == "img_ids" else (_TOKENS, "tokens")
        axes = len(config.get("axes_dims_rope") or config.get("axes_dim") or (0, 0, 0))
        yield Shaped(torch.zeros(count, axes), {0: size})
        yield Shaped(torch.zeros(_BATCH, count, axes), {**rows, 1: size})
    elif name in ("num_frames", "height", "width"):
        yield Shaped(_GRID[("num_frames", "height", "width").index(name)], {})
    elif name in ("original_size", "target_size", "crop_coords"):
        yield Shaped(torch.full((_BATCH, 2), 512.0), rows)
    elif name == "added_time_ids":
        yield Shaped(torch.ones(_BATCH, 3), rows)
    elif name == "class_labels":
        yield Shaped(torch.zeros(_BATCH, dtype=torch.int64), rows)


def _images(config: Any, cls: str) -> Iterator[Shaped]:
    """Latents or pixels: pictures, videos, or patches one after the other; sounds where the class says so."""
    channels = next((config[key] for key in _CHANNELS if config.get(key)), 3)
    size = config.get("sample_size") or (64 if cls.startswith("Autoencoder") else 32)
    sides = (size[-2], size[-1]) if isinstance(size, (list, tuple)) else (size, size)
    height, width = (min(side, _LARGEST) for side in sides)
    height, width = config.get("sample_height") or height, config.get("sample_width") or width
    rows = {0: "batch"}
    patches = Shaped(torch.randn(_BATCH, _PATCHES, channels), {**rows, 1: "patches"})
    sounds = Shaped(torch.randn(_BATCH, channels, 256), {**rows, 2: "samples"})
    picture = Shaped(torch.randn(_BATCH, channels, height, width), {**rows, 2: "height", 3: "width"})
    sides_of_video = {3: "height", 4: "width"}
    drawn = [torch.randn(_BATCH, channels, frames, height, width) for frames in _FRAMES]
    videos = [Shaped(video, {**rows, 2: "frames", **sides_of_video}) for video in drawn]
    turned = [Shaped(v.transpose(1, 2).contiguous(), {**rows, 1: "frames", **sides_of_video}) for v in drawn]
    if "1D" in cls or "Audio" in cls or "Oobleck" in cls:
        yield from (sounds, patches)
    elif re.search("3D|Video|Temporal|Motion|Wan", cls):
        yield from (*videos, *turned, patches, picture)
    else:
        yield from (picture, patches, *videos)


def _widths(name: str, config: Any, words: str) -> Sequence[int]:
    """The widths in a configuration that an argument may have; first those that have the end of its name in theirs."""
    found = [(key, value) for key, value in config.items() if re.search(words, key)]
    flat = [(key, n) for key, value in found for n in (value if isinstance(value, (list, tuple)) else (value,))]
    whole = [(key, n) for key, n in flat if isinstance(n, int) and not isinstance(n, bool) and n > 1]
    end = name.rpartition("_")[2]
    of_end = [n for key, n in whole if re.search(rf"(^|_){end}(_|$)", key)] if end in ("2", "t5", "image") else []
    dims = sorted(whole, key=lambda pair: not re.search("dim|channels|size|width|embed", pair[0]))
    return [*dict.fromkeys([*of_end, *(n for _, n in dims)])]


def _runs(model: nn.Module, call: Mapping[str, Any]) -> bool:
    """Whether forward takes the arguments, without values or, where it looks at these, in a few layers of zeros."""
    buffers = [(m, name, b) for m in model.modules() for name, b in m._buffers.items() if b is not None]
    try:
        for module, name, buffer in buffers:
            module._buffers[name] = buffer.to("meta")
        with torch.no_grad(), torch.device("meta"):
            model(**{name: x.to("meta") if isinstance(x, Tensor) else x for name, x in call.items()})
        return True
    except Exception as e:
        why = e
    finally:
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
    return _looks_at_values(why) and _runs_on_zeros(model, call)


def _looks_at_values(e: Exception) -> bool:
    return isinstance(e, NotImplementedError) or "meta" in str(e).lower()


def _runs_on_zeros(model: nn.Module, call: Mapping[str, Any]) -> bool:
    """Whether forward takes the arguments, in two layers of each list, with zeros for weights, without memory."""
    parameters = [(m, name, p) for m in model.modules() for name, p in m._parameters.items() if p is not None]
    lists = [(m, dict(m._modules)) for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 2]
    try:
        for module, name, parameter in parameters:
            zeros = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
            module._parameters[name] = nn.Parameter(zeros, requires_grad=False)
        for module, layers in lists:
            module._modules = dict([*layers.items()][:: len(layers) - 1])  # the last may be of another kind
        with torch.no_grad():
            model(**call)
    except Exception:
        return False
    finally:
        for module, name, parameter in parameters:
            module._parameters[name] = parameter
        for module, layers in lists:
            module._modules = layers
    return True
