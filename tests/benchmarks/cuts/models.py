"""Models that are worth cutting, at their real sizes: made from their configurations, without memory for weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as t
from diffusers import UNet2DConditionModel
from torch import nn

from ir.machine.cluster import Cluster, Device, Link
from ir.sources import read_source
from tests.support.checking import Call
from tests.support.models.planning import machine

H100 = Device("cuda", flops=4e14, bandwidth=3.3e12, memory=80 << 30, launch=5e-6)
NVLINK = Link(bandwidth=4e11, latency=1e-5)
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def server(devices: int) -> Cluster:
    return Cluster.uniform((H100,) * devices, NVLINK)


@dataclass(frozen=True)
class Entry:
    """A model, a call of it, and the devices that it is cut for.

    `layer` matches the module paths of the repeated blocks, which people count when they cut by hand.
    """

    make: Callable[[], tuple[nn.Module, Call]]
    layer: str
    cluster: Callable[[int], Cluster] = server


@contextmanager
def without_weights(dtype: torch.dtype = torch.bfloat16) -> Iterator[None]:
    """While this lasts, parameters go to the meta device as modules get them; buffers have their values."""
    register = nn.Module.register_parameter

    def register_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:  # a tied one is on meta already, and stays the same object
            param = nn.Parameter(param.to("meta"), requires_grad=False)
        register(self, name, param)

    before = torch.get_default_dtype()
    nn.Module.register_parameter = register_meta
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        nn.Module.register_parameter = register


def tokens(batch: int, seq: int, vocabulary: int) -> torch.Tensor:
    return torch.randint(vocabulary, (batch, seq))


def language_model(cls: Any, config: t.PreTrainedConfig, batch: int = 4, seq: int = 512) -> tuple[nn.Module, Call]:
    with without_weights():
        model = cls(config).eval()
    return model, Call.of(input_ids=tokens(batch, seq, config.vocab_size), use_cache=False)


def llama_70b() -> tuple[nn.Module, Call]:
    config = t.LlamaConfig(
        vocab_size=128256,
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    )
    return language_model(t.LlamaForCausalLM, config)


def mixtral_8x7b() -> tuple[nn.Module, Call]:
    config = t.MixtralConfig(sliding_window=None, experts_implementation="grouped_mm")
    return language_model(t.MixtralForCausalLM, config)


def deepseek_v3() -> tuple[nn.Module, Call]:
    return language_model(t.DeepseekV3ForCausalLM, t.DeepseekV3Config(experts_implementation="grouped_mm"))


def t5_11b() -> tuple[nn.Module, Call]:
    config = t.T5Config(d_model=1024, d_ff=65536, d_kv=128, num_heads=128, num_layers=24)
    model, call = language_model(t.T5ForConditionalGeneration, config)
    return model, Call.of(**call.kwargs, decoder_input_ids=tokens(4, 256, config.vocab_size))


def stable_diffusion() -> tuple[nn.Module, Call]:
    with without_weights():
        model = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval()
        return model, Call.of(torch.randn(4, 4, 64, 64), torch.tensor(500), torch.randn(4, 77, 768), return_dict=False)


def example(name: str, layer: str) -> Entry:
    def make() -> tuple[nn.Module, Call]:
        source = read_source(str(EXAMPLES / f"{name}.py"))
        return source.model, Call(source.args, source.kwargs)

    return Entry(make, layer, machine)


MODELS = {
    "Llama-3-70B": Entry(llama_70b, r"model\.layers\.\d+"),
    "Mixtral-8x7B": Entry(mixtral_8x7b, r"model\.layers\.\d+"),
    "T5-11B": Entry(t5_11b, r"(en|de)coder\.block\.\d+"),
    "DeepSeek-V3": Entry(deepseek_v3, r"model\.layers\.\d+"),
    "SD-UNet": Entry(stable_diffusion, r"(down_blocks|up_blocks)\.\d+\.resnets\.\d+|mid_block"),
    "example-bert": example("bert", r"bert\.encoder\.layer\.\d+"),
    "example-gpt2": example("gpt2", r"transformer\.h\.\d+"),
    "example-resnet50": example("resnet50", r"resnet\.encoder\.stages\.\d+\.layers\.\d+"),
    "example-t5": example("t5", r"(en|de)coder\.block\.\d+"),
    "example-tied_lm": example("tied_lm", r"blocks\.\d+"),
    "example-unet": example("unet", r"(down|middle|up)\.\d+"),
}
