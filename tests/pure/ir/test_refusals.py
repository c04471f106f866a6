"""Messages for inputs that are refused, where no other test meets them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from ir.capture import capture
from ir.errors import CaptureError, CompileError, SourceError
from ir.sources.checkpoint_folder import _generation_config, read_checkpoint_folder
from ir.sources.decoder.own import own_step
from ir.sources.model_class import _check_code, _make_config
from ir.sources.source import Reading
from passes import auto_partition


@pytest.mark.parametrize("name", ["2n", "class", "a b"])
def test_a_size_that_is_no_identifier(name: str) -> None:
    message = f"a dynamic size of `input` is named {name!r}; use a Python identifier"
    with pytest.raises(CaptureError, match=re.escape(message)):
        capture(nn.ReLU(), (torch.ones(2, 3),), dynamic_shapes={"input": {0: name}})


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (
            lambda path: _check_code(path, {"model_type": "mine", "auto_map": {"a": "b"}}, transformers, Reading()),
            r"is of no model that transformers has; .*--trust-remote-code",
        ),
        (
            lambda path: _check_code(path, {"model_type": "mine"}, transformers, Reading()),
            "config.json names model_type 'mine', which transformers .* does not know; a newer version may know it",
        ),
        (
            lambda path: _make_config(path, {"model_type": "llama"}, transformers, Reading()),
            "config.json is no llama configuration: ",
        ),
        (
            lambda path: _generation_config(path, transformers),
            "generation_config.json is no configuration of sampling: ",
        ),
    ],
)
def test_a_checkpoint_folder_that_cannot_be_read(
    refused: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_text("{")
    with pytest.raises(SourceError, match=message):
        refused(tmp_path)


def test_an_adapter_whose_settings_do_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(SourceError, match=r"cannot read .*adapter_config.json: "):
        read_checkpoint_folder(tmp_path, Reading())


class Pooled(nn.Module):
    """A decoder by its signature, with one pool of a shape and another that does not go with it."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        for i, shape in enumerate(shapes):
            self.register_buffer(f"pool_{i}", torch.zeros(shape))

    def forward(self, input_ids: Tensor, lengths: Tensor, counts: Tensor, table: Tensor) -> Tensor:
        for pool in self.buffers():
            pool.add_(1)
        return torch.zeros(input_ids.shape[0], 8)


@pytest.mark.parametrize(
    ("model", "page", "message"),
    [
        (Pooled((4, 16, 2)), 8, "the pools of Pooled have pages of 16 tokens, not 8"),
        (Pooled(), None, r"Pooled changes no buffers \[pages, page, …\] of one size, which would be pools"),
        (Pooled((4, 16, 2), (4, 8, 2)), None, "Pooled changes no buffers"),
        (
            nn.Linear(2, 2),
            None,
            "Linear is no decoder of transformers, and its forward does not take input_ids, lengths",
        ),
    ],
)
def test_a_decoder_of_ones_own_that_has_no_pools(model: nn.Module, page: int | None, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        own_step(model, 32, page)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((torch.ones(1, 2),), {"weights": "none"}, "auto_partition runs the stages, which needs their weights"),
        (2, {}, re.escape("devices is a keyword: auto_partition(…, devices=2)")),
    ],
)
def test_a_call_of_auto_partition_that_cannot_run(args: object, options: dict[str, str], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        auto_partition(nn.Linear(2, 2), args, **options)  # type: ignore[arg-type]


@torch.library.custom_op("test_refusals::rows", mutates_args=())
def rows(x: Tensor) -> int:
    return x.shape[0]


@rows.register_fake
def _(x: Tensor) -> int:
    return 3


class TimesRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * rows(x)


def test_an_operator_of_ones_own_that_returns_a_number() -> None:
    message = r"test_refusals\.rows\.default returns None while it is traced, not tensors"
    with pytest.raises(CaptureError, match=message):
        capture(TimesRows(), (torch.ones(3, 2),))


def test_an_operator_without_a_fake_implementation_is_named() -> None:
    @torch.library.custom_op("test_refusals::unstated", mutates_args=())
    def unstated(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    class Unstated(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return unstated(x)

    message = (
        r'test_refusals::unstated does not say what it returns where(.*\n)+.*register_fake\("test_refusals::unstated'
    )
    with pytest.raises(CaptureError, match=message):
        capture(Unstated(), (torch.ones(2, 4),))
