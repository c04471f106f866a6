"""A share of the checkpoints that `python -m tests.zoo.checkpoints` makes and tries."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.diffusers_pipeline import is_given, staged
from passes.compilation.api import compile_model
from runtime import Pipeline
from tests.zoo.checkpoints import ADAPTERS, QUICK, TRAINED, tried
from tests.zoo.checkpoints.libraries import unet


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_nested_distributed_checkpoint_is_cut_and_run() -> None:
    assert tried(TRAINED["torch.distributed.checkpoint, nested, with an optimizer"]) == "difference 0"


def test_a_kept_adapter_is_chosen_by_its_name() -> None:
    assert tried(ADAPTERS["LoRA beside the weights, with `--adapter keep`"]).startswith("difference ")


def test_a_pipeline_of_diffusers_runs_its_own_loop_around_our_stages(tmp_path: Path) -> None:
    diffusers: Any = import_module("diffusers")
    torch.manual_seed(0)
    model, _ = unet(diffusers, tmp_path / "alone")
    whole = diffusers.DDPMPipeline(model.eval(), diffusers.DDPMScheduler(num_train_timesteps=10))
    whole.set_progress_bar_config(disable=True)
    whole.save_pretrained(tmp_path / "pipeline")
    compile_model(tmp_path / "pipeline", out=tmp_path / "out", **QUICK)
    given = {"batch_size": 3, "num_inference_steps": 2, "output_type": "np"}
    with Pipeline.load(tmp_path / "out", devices=["cpu"]) as stages:
        found = staged(str(tmp_path / "pipeline"), stages)
        found.set_progress_bar_config(disable=True)
        images = [pipeline(**given, generator=torch.Generator().manual_seed(1)).images for pipeline in (whole, found)]
    assert (images[0] == images[1]).all()


def test_arguments_that_say_nothing_need_no_place_in_stages() -> None:
    """Flux passes an empty dict to its transformer, and asks its text encoder for less than a program returns."""
    empty = {"guidance": None, "joint_attention_kwargs": {}, "output_hidden_states": False}
    said = {"hidden_states": torch.zeros(0), "output_hidden_states": True, "return_dict": False, "timestep": 0}
    assert not any(is_given(name, value) for name, value in empty.items())
    assert all(is_given(name, value) for name, value in said.items())
