"""A pipeline of diffusers whose model runs as stages, with the library's own schedule and loop around them.

    stagecut compile PIPELINE/unet --stages 2 -o build/unet
    python examples/diffusers_pipeline.py PIPELINE build/unet "a prompt"

PIPELINE is a folder of `save_pretrained`; a pipeline without texts takes no prompt.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from diffusers import DiffusionPipeline

from stagecut import Pipeline

NAMES = ("unet", "transformer")  # that pipelines call in each step of their schedule


class Staged(torch.nn.Module):
    """Stages in the place of a model of diffusers."""

    def __init__(self, model: Any, stages: Pipeline) -> None:
        super().__init__()
        self.config, self.dtype, self.device, self.stages = model.config, model.dtype, model.device, stages

    def forward(self, *args: Any, return_dict: bool = True, **kwargs: Any) -> Any:
        out = self.stages(*args, **{name: value for name, value in kwargs.items() if value is not None})
        return out if return_dict else out.to_tuple()


def staged(folder: str, stages: Pipeline) -> Any:
    """The pipeline of a folder with stages in the place of the model that it calls in each step."""
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    name = next(name for name in NAMES if getattr(pipeline, name, None) is not None)
    setattr(pipeline, name, Staged(getattr(pipeline, name), stages))
    return pipeline


def main() -> None:
    folder, artifact, *prompt = sys.argv[1:]
    with Pipeline.load(artifact) as stages:
        staged(folder, stages)(*prompt).images[0].save("image.png")


if __name__ == "__main__":
    main()
