"""A share of the checkpoints that `python -m tests.zoo.checkpoints` makes and tries."""

from __future__ import annotations

import pytest

from tests.zoo.checkpoints import FOLDERS, TRAINED, tried


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_nested_distributed_checkpoint_is_cut_and_run() -> None:
    assert tried(TRAINED["torch.distributed.checkpoint, nested, with an optimizer"]) == "difference 0"


def test_a_kept_adapter_is_chosen_by_its_name() -> None:
    assert tried(FOLDERS["LoRA beside the weights, with `--adapter keep`"]).startswith("difference ")


def test_a_component_of_another_library_is_refused_in_words() -> None:
    assert tried(FOLDERS["a component of diffusers"]).startswith("refused: m is a diffusers checkpoint, whose inputs")
