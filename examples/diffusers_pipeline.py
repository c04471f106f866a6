"""A pipeline of diffusers whose models run as stages of one artifact, with the library's own schedule and loop around them.

    stagecut compile PIPELINE --stages 2 -o build/pipeline
    python examples/diffusers_pipeline.py PIPELINE build/pipeline "a prompt"

PIPELINE is a folder of `save_pretrained`; a pipeline without texts takes no prompt.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch
from diffusers import DiffusionPipeline

from stagecut import Pipeline

IGNORED = ("return_dict", "generator")  # arguments of calls that change no values


class Staged(torch.nn.Module):
    """Programs of an artifact in the place of a pipeline's model: `unet`, or `vae_decode` and `vae_encode`."""

    def __init__(self, name: str, model: Any, stages: Pipeline) -> None:
        super().__init__()
        self.config, self.dtype, self.device = model.config, model.dtype, model.device
        for program in stages.manifest.programs:
            part, _, method = program.name.removeprefix(name).partition("_")
            if program.name.startswith(name) and not part and hasattr(model, method or "forward"):
                setattr(self, method or "forward", called(program, getattr(model, method or "forward"), stages))


def called(program: Any, method: Any, stages: Pipeline) -> Any:
    """A method of a model, as a program of stages."""
    names, trees = list(inspect.signature(method).parameters), dict(program.signature.arguments["dict"])
    taken = dict(trees[program.name]["dict"])  # the inputs, and the values that others were fixed at
    dtypes = {tensor.name: getattr(torch, tensor.dtype) for tensor in program.inputs}

    def call(*args: Any, **kwargs: Any) -> Any:
        given = {n: v for n, v in {**dict(zip(names, args, strict=False)), **kwargs}.items() if v is not None}
        if lost := given.keys() - {*taken, *IGNORED}:
            raise ValueError(f"{program.name} was compiled without {', '.join(lost)}")
        inputs = {n: given.get(n, tree.get("value")) for n, tree in taken.items()}
        if "timestep" in inputs:  # a whole number in some schedules
            inputs["timestep"] = inputs["timestep"].to(dtypes[f"{program.name}_timestep"])
        out = stages(**{program.name: inputs})
        return out if given.get("return_dict", True) else out.to_tuple()

    return call


def staged(folder: str, stages: Pipeline) -> Any:
    """The pipeline of a folder with stages in the place of the models that they have."""
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    names = {parameter.name for program in stages.manifest.programs for parameter in program.signature.parameters}
    for name, model in pipeline.components.items():
        if isinstance(model, torch.nn.Module) and any(n == name or n.startswith(f"{name}_") for n in names):
            setattr(pipeline, name, Staged(name, model, stages))
    return pipeline


def main() -> None:
    folder, artifact, *prompt = sys.argv[1:]
    with Pipeline.load(artifact) as stages:
        staged(folder, stages)(*prompt).images[0].save("image.png")


if __name__ == "__main__":
    main()
