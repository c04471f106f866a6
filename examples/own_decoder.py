"""A decoder that is written for a cache in pages, without transformers.

Special here: `forward` takes the new tokens of each row and the pages in which its earlier ones lie, and returns the
logits behind the last.  Keys and values are buffers `[pages, page, heads, dim]`; `--sequences` or `--tokens` says how
many pages there are, and drawing a token from the logits is added to the last stage:

    stagecut compile examples/own_decoder.py --stages 2 --generate -o build/own_decoder
    stagecut generate build/own_decoder --ids '5 9 2' --max-new-tokens 20
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ir.sources.decoder.rows import TextRows

WIDTH, HEADS, LAYERS, VOCABULARY, LONGEST, PAGE = 64, 4, 4, 256, 128, 16


class Block(nn.Module):
    """Causal self-attention and a feed-forward network, each added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(8, PAGE, HEADS, WIDTH // HEADS), persistent=False)

    def forward(self, x: Tensor, rows: TextRows) -> Tensor:
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(self.attention_norm(x)).chunk(3, -1))
        k, v = rows.put(self.keys, k), rows.put(self.values, v)  # those of the whole text
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=rows.mask)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class OwnDecoder(nn.Module):
    """Logits of the next token of each row: float32[batch, VOCABULARY]."""

    max_length = LONGEST  # tokens of a text
    stop = (0,)  # ids that end one

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor, lengths: Tensor, counts: Tensor, table: Tensor) -> Tensor:
        rows = TextRows.of(input_ids, lengths, counts, table, PAGE)
        x = self.tokens(input_ids) + self.places(rows.positions.clamp(min=0))
        for block in self.blocks:
            x = block(x, rows)
        return self.head(self.norm(x[:, -1]))  # rows are padded on the left


def model() -> nn.Module:
    torch.manual_seed(0)
    return OwnDecoder().eval()


def example_inputs() -> dict[str, Tensor]:
    """Two texts: one of 5 tokens, and one that has 20 in its pages and 2 new ones, behind padding."""
    ids = torch.randint(1, VOCABULARY, (2, 5))
    table = torch.tensor([[1, 2], [3, 4]])
    return {"input_ids": ids, "lengths": torch.tensor([0, 20]), "counts": torch.tensor([5, 2]), "table": table}


dynamic_shapes = {
    "input_ids": {0: "batch", 1: "seq"},
    "lengths": {0: "batch"},
    "counts": {0: "batch"},
    "table": {0: "batch", 1: "pages"},
}
