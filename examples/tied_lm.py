"""A small transformer language model whose embedding and head are one weight.

Special here: the first and the last stage both read `embedding.weight`.  `--shared colocate` keeps it
once, with both stages on one device; `--shared replicate` gives each a copy.
"""

import torch
import torch.nn.functional as F
from torch import nn

VOCABULARY, WIDTH, HEADS, LAYERS, LONGEST = 8000, 256, 8, 6, 512


class Block(nn.Module):
    """Causal self-attention and a feed-forward network, each added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        heads = self.query_key_value(self.norm1(hidden)).unflatten(-1, (3, HEADS, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.out(attended.transpose(1, 2).flatten(2))
        return hidden + self.feed_forward(self.norm2(hidden))


class TiedLanguageModel(nn.Module):
    """Scores of the next token: int64[batch, seq] -> float32[batch, seq, VOCABULARY]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Embedding(LONGEST, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.embedding(tokens) + self.position(places)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(self.norm(hidden))


def model() -> nn.Module:
    torch.manual_seed(0)
    return TiedLanguageModel().eval()


def example_inputs() -> tuple[torch.Tensor]:
    torch.manual_seed(0)
    return (torch.randint(VOCABULARY, (2, 32)),)


dynamic_shapes = {"tokens": {0: "batch", 1: "seq"}}
