"""Pipelines of diffusers: each runs its own loop, around its own models and around stages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from torch import nn

from tests.zoo.checkpoints.kinds import Kind, Tried

BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
UNET: dict[str, Any] = {
    "sample_size": 8,
    "cross_attention_dim": 32,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
    **BLOCKS,
}
SIZES = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
CLIP: dict[str, Any] = {**SIZES, "vocab_size": 60, "projection_dim": 32, "bos_token_id": 0, "eos_token_id": 2}
CALL = {"num_inference_steps": 2, "output_type": "np"}


def pipeline(
    make: Callable[[Any, Path], Any],
    variant: str | None = None,
    adapt: Callable[[Any, Path], Mapping[str, Any]] | None = None,
    **call: Any,
) -> Kind:
    """A pipeline that `make` returns, saved; what its loop gives around the stages is compared with what it gave.

    `variant`: of its files.  `adapt`: changes it after it was saved, and returns the options that do the same.
    """

    def kind(folder: Path) -> Tried:
        torch.manual_seed(0)
        whole = make(import_module("diffusers"), folder)
        for part in whole.components.values():
            if isinstance(part, nn.Module):
                part.eval()
        whole.save_pretrained(folder / "m", variant=variant)
        chosen = {} if variant is None else {"variant": variant}
        options = {**chosen, **(adapt(whole, folder) if adapt else {})}
        images = made_by(whole, call)
        return Tried(
            str(folder / "m"), call, images, options, run=lambda pipe, call: around(pipe, folder / "m", call, **chosen)
        )

    return kind


def with_lora(whole: Any, folder: Path) -> Mapping[str, Any]:
    """LoRA as diffusers saves it, for the UNet and the text encoder, merged into these."""
    tensors = dict[str, torch.Tensor]()
    for part in ("unet", "text_encoder"):
        for name, layer in getattr(whole, part).named_modules():
            if name.endswith(("to_q", "v_proj")):
                down, up = torch.randn(4, layer.in_features) / 4, torch.randn(layer.out_features, 4) / 4
                tensors |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
                with torch.no_grad():
                    layer.weight += up @ down
    (folder / "lora").mkdir()
    save_file(tensors, folder / "lora/pytorch_lora_weights.safetensors")
    return {"adapter": [folder / "lora"]}


def made_by(whole: Any, call: Mapping[str, Any]) -> torch.Tensor:
    whole.set_progress_bar_config(disable=True)
    made = whole(**CALL, **call, generator=torch.Generator().manual_seed(1))
    return torch.from_numpy(made.images if hasattr(made, "images") else made.frames)


def around(stages: Any, folder: Path, call: Mapping[str, Any], **loading: Any) -> torch.Tensor:
    from examples.diffusers_pipeline import staged  # where diffusers is installed

    return made_by(staged(str(folder), stages, **loading), call)


def autoencoder(diffusers: Any) -> Any:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return diffusers.AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=8, sample_size=16, **blocks)


def tokenizer(folder: Path) -> Any:
    letters = [chr(c) for c in range(97, 123)]
    tokens = ["<|startoftext|>", "!", "<|endoftext|>", *letters, *[f"{c}</w>" for c in letters]]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return hf.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


def stable_diffusion(diffusers: Any, folder: Path) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder(diffusers),
        text_encoder=hf.CLIPTextModel(hf.CLIPTextConfig(**CLIP)),
        tokenizer=tokenizer(folder),
        unet=diffusers.UNet2DConditionModel(**UNET),
        scheduler=diffusers.EulerDiscreteScheduler(),  # whose steps are no whole numbers
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def distilled(diffusers: Any, folder: Path) -> Any:
    """A latent consistency model, which is told its guidance."""
    plain = stable_diffusion(diffusers, folder)
    told = diffusers.UNet2DConditionModel(**UNET, time_cond_proj_dim=16)
    return diffusers.StableDiffusionPipeline(**{**plain.components, "unet": told}, requires_safety_checker=False)


def stable_diffusion_xl(diffusers: Any, folder: Path) -> Any:
    words = tokenizer(folder)
    sized = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    return diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(diffusers),
        text_encoder=hf.CLIPTextModel(hf.CLIPTextConfig(**CLIP)),
        text_encoder_2=hf.CLIPTextModelWithProjection(hf.CLIPTextConfig(**CLIP)),
        tokenizer=words,
        tokenizer_2=words,
        unet=diffusers.UNet2DConditionModel(
            **{**UNET, "cross_attention_dim": 64}, **sized, projection_class_embeddings_input_dim=80
        ),
        scheduler=diffusers.DDIMScheduler(),
    )


def words_of_t5() -> Any:
    """A tokenizer whose ids end with 1, as those of T5 do."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0), *((chr(c), -3.0) for c in range(97, 123))]
    made = Tokenizer(Unigram(pieces, unk_id=2))
    made.pre_tokenizer = Metaspace()
    made.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def t5() -> Any:
    sizes: dict[str, Any] = {"d_model": 32, "d_ff": 37, "d_kv": 8, "num_heads": 4, "num_layers": 2, "vocab_size": 60}
    return hf.T5EncoderModel(hf.T5Config(**sizes))


def of_flow(diffusers: Any) -> dict[str, Any]:
    """The parts that pipelines of rectified flow share."""
    blocks = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    plain = {"use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 1.5, "shift_factor": 0.06}
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=8, sample_size=16, latent_channels=4, **blocks, **plain
    )
    return {"vae": vae, "scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}


def stable_diffusion_3(diffusers: Any, folder: Path) -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=16,
    )
    return diffusers.StableDiffusion3Pipeline(
        **of_flow(diffusers),
        transformer=transformer,
        text_encoder=hf.CLIPTextModelWithProjection(hf.CLIPTextConfig(**CLIP)),
        text_encoder_2=hf.CLIPTextModelWithProjection(hf.CLIPTextConfig(**CLIP)),
        text_encoder_3=t5(),
        tokenizer=tokenizer(folder),
        tokenizer_2=tokenizer(folder),
        tokenizer_3=words_of_t5(),
    )


def flux(diffusers: Any, folder: Path) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    return diffusers.FluxPipeline(
        **of_flow(diffusers),
        transformer=transformer,
        text_encoder=hf.CLIPTextModel(hf.CLIPTextConfig(**CLIP)),
        text_encoder_2=t5(),
        tokenizer=tokenizer(folder),
        tokenizer_2=words_of_t5(),
    )


def class_conditional(diffusers: Any, folder: Path) -> Any:
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
    )
    return diffusers.DiTPipeline(transformer, autoencoder(diffusers), diffusers.DDIMScheduler(), {0: "a", 1: "b"})


def controlled(diffusers: Any, folder: Path) -> Any:
    """Stable Diffusion with a ControlNet, which alone is in stages."""
    plain = stable_diffusion(diffusers, folder)
    control = diffusers.ControlNetModel.from_unet(plain.unet, conditioning_embedding_out_channels=(8, 16))
    for parameter in control.controlnet_down_blocks.parameters():  # zeros before they are trained
        nn.init.normal_(parameter)
    parts = {**plain.components, "image_encoder": None}
    return diffusers.StableDiffusionControlNetPipeline(**parts, controlnet=control, requires_safety_checker=False)


def pixart(diffusers: Any, folder: Path) -> Any:
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        cross_attention_dim=32,
        sample_size=8,
        caption_channels=32,
        norm_num_groups=8,
    )
    return diffusers.PixArtAlphaPipeline(
        words_of_t5(), t5(), autoencoder(diffusers), transformer, diffusers.DPMSolverMultistepScheduler()
    )


def wan(diffusers: Any, folder: Path) -> Any:
    sizes: dict[str, Any] = {"d_model": 32, "d_ff": 37, "d_kv": 8, "num_heads": 4, "num_layers": 2, "vocab_size": 60}
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )
    return diffusers.WanPipeline(
        tokenizer=words_of_t5(),
        text_encoder=hf.UMT5EncoderModel(hf.UMT5Config(**sizes)),
        vae=diffusers.AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def cog_video(diffusers: Any, folder: Path) -> Any:
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=32,
        num_layers=2,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=True,
    )
    blocks = {
        "down_block_types": ("CogVideoXDownBlock3D",) * 4,
        "up_block_types": ("CogVideoXUpBlock3D",) * 4,
        "block_out_channels": (8, 8, 8, 8),
    }
    vae = diffusers.AutoencoderKLCogVideoX(**blocks, latent_channels=4, layers_per_block=1, norm_num_groups=2)
    return diffusers.CogVideoXPipeline(words_of_t5(), t5(), vae, transformer, diffusers.CogVideoXDDIMScheduler())


PIPELINES: dict[str, Kind] = {
    "Stable Diffusion": pipeline(stable_diffusion, prompt="a cat"),
    "Stable Diffusion, wide images": pipeline(stable_diffusion, prompt="a cat", height=16, width=48),
    "Stable Diffusion, `--variant fp16`": pipeline(stable_diffusion, variant="fp16", prompt="a cat"),
    "Stable Diffusion, as a latent consistency model": pipeline(distilled, prompt="a cat", guidance_scale=2.0),
    "Stable Diffusion, with LoRA of diffusers": pipeline(stable_diffusion, adapt=with_lora, prompt="a cat"),
    "Stable Diffusion XL": pipeline(stable_diffusion_xl, prompt="a cat"),
    "Stable Diffusion 3": pipeline(stable_diffusion_3, prompt="a cat", height=16, width=16),
    "Flux": pipeline(flux, prompt="a cat", height=16, width=32, max_sequence_length=32),
    "Stable Diffusion with a ControlNet": pipeline(
        controlled,
        prompt="a cat",
        image=torch.full((1, 3, 16, 16), 0.5),
        height=16,
        width=16,
        controlnet_conditioning_scale=0.7,
    ),
    "PixArt": pipeline(pixart, prompt="a cat", height=16, width=16, use_resolution_binning=False, clean_caption=False),
    "DiT": pipeline(class_conditional, class_labels=[0, 1]),
    "Wan": pipeline(wan, prompt="a cat", height=16, width=32, num_frames=9, max_sequence_length=16),
    "CogVideoX": pipeline(cog_video, prompt="a cat", height=16, width=16, num_frames=9, max_sequence_length=16),
}
