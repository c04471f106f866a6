"""nn.TransformerEncoder under a padding mask: the graph returns what the model does in inference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.capture.export.replaced.padding import NOTE

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning"),
]

FIRST = torch.tensor([[False] * 5, [False, False, False, True, True]])
AMID = torch.tensor([[False] * 5, [False, True, False, True, True]])


class Classifier(nn.Module):
    def __init__(self, heads: int = 2, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, heads, 16, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, **options)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor, pad: Tensor) -> Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=pad).mean(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"norm": nn.LayerNorm(12)}, {"enable_nested_tensor": False}, {"heads": 3}], ids=str
)
def test_padded_positions_are_as_in_inference(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Classifier(**options).eval()
    shapes = {"x": {0: "batch", 1: "seq"}, "pad": {0: "batch", 1: "seq"}}
    graph = capture(model, (torch.randn(2, 5, 12), FIRST), dynamic_shapes=shapes)
    assert (NOTE in graph.notes) == bool(options.keys() <= {"norm"})
    for pad in (FIRST, AMID, FIRST[:, :4].repeat(2, 1)):
        x = torch.randn(*pad.shape, 12)
        with torch.no_grad():
            wanted = model(x, pad)
        [found] = interpret(graph, [x, pad], dict(model.named_parameters())).outputs
        torch.testing.assert_close(found, wanted)


def test_where_fused_layers_are_off_nothing_is_zeroed() -> None:
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        graph = capture(Classifier().eval(), (torch.randn(2, 5, 12), FIRST))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert NOTE not in graph.notes
