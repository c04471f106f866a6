"""A pipeline of diffusers whose models run as stages of one artifact, in the library's own loop.

    stagecut compile PIPELINE --stages 2 -o build/pipeline
    python examples/diffusers_pipeline.py PIPELINE build/pipeline "a prompt"

PIPELINE is a folder of `save_pretrained`; a pipeline without texts takes no prompt.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from stagecut import Pipeline

IGNORED = ("return_dict", "generator")  # arguments of calls that change no values
ADDING = ("output_hidden_states", "output_attentions")  # True adds to the results, False leaves the others as they are


def argument_of(program: Any) -> str:
    """The argument that the calls of a program have, which names a model of the pipeline and a method of that."""
    return next(name for name, tree in program.signature.arguments["dict"] if "dict" in tree)


def is_given(name: str, value: Any) -> bool:
    """Whether an argument of a call says anything: no None, no empty dict, and no False for results beside others."""
    empty = value is None or (isinstance(value, dict) and not value)
    return not empty and (value is not False or name not in ADDING)


def called(program: Any, method: Any, stages: Pipeline) -> Any:
    """A method of a model, as a program of stages."""
    argument, names = argument_of(program), list(inspect.signature(method).parameters)
    taken = dict(dict(program.signature.arguments["dict"])[argument]["dict"])  # inputs, and values that were fixed
    dtypes = {tensor.name: getattr(torch, tensor.dtype) for tensor in program.inputs}

    def call(*args: Any, **kwargs: Any) -> Any:
        given = {n: v for n, v in {**dict(zip(names, args, strict=False)), **kwargs}.items() if is_given(n, v)}
        if lost := given.keys() - {*taken, *IGNORED}:
            raise ValueError(f"{argument} was compiled without {', '.join(lost)}")
        inputs = {n: given.get(n, tree.get("value")) for n, tree in taken.items()}
        for n, dtype in ((n, dtypes.get(f"{argument}_{n}")) for n in inputs):
            if n == "timestep" or (dtype is not None and isinstance(inputs[n], (int, float))):
                inputs[n] = torch.as_tensor(inputs[n]).to(dtype)  # steps are whole numbers in some schedules
        of_program: dict[str, Any] = {argument: inputs}
        out = stages(**of_program)
        return out if given.get("return_dict", True) else out.to_tuple()

    return call


def staged(folder: str, stages: Pipeline, **loading: Any) -> Any:
    """The pipeline of a folder whose models call stages, and hold no weights themselves.

    `loading`: what `from_pretrained` is told, as `variant="fp16"`.
    """
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, **loading)
    programs = {argument_of(program): program for program in stages.manifest.programs}
    for name, model in pipeline.components.items():
        methods = {"forward": name, "decode": f"{name}_decode", "encode": f"{name}_encode"}
        for method, argument in methods.items():
            if argument in programs:
                setattr(model, method, called(programs[argument], getattr(model, method), stages))
                for parameter in model.parameters():
                    parameter.data = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
    return pipeline


def main() -> None:
    folder, artifact, *prompt = sys.argv[1:]
    with Pipeline.load(artifact) as stages:
        staged(folder, stages)(*prompt).images[0].save("image.png")


if __name__ == "__main__":
    main()
