"""A UNet that predicts the noise in an image at a step of diffusion.

Special here: long skips.  What the first layers on the way down make is read by the last layers on the
way up, so a cut in the middle is crossed by every skip; and the embedded time step goes to all blocks.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

WIDTHS = (64, 128, 256)
TIME = 256


def embed_time(time: torch.Tensor, width: int) -> torch.Tensor:
    """Sines and cosines of the step at many frequencies: int64[batch] -> float32[batch, width]."""
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(width // 2, device=time.device) / (width // 2))
    angles = time[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Block(nn.Module):
    """Two convolutions around the time step, added to what came in."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.time = nn.Linear(TIME, outside)
        self.norm2 = nn.GroupNorm(8, outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, image: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        hidden = self.conv1(F.silu(self.norm1(image)))
        hidden = hidden + self.time(F.silu(time))[:, :, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return hidden + self.skip(image)


class Attention(nn.Module):
    """Every place of the image looks at every other."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, width)
        self.query_key_value = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        heads = self.query_key_value(self.norm(image)).flatten(2).unflatten(1, (3, self.heads, -1))
        query, key, value = heads.transpose(-1, -2).unbind(1)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(-1, -2).flatten(1, 2)
        return image + self.out(attended.unflatten(-1, image.shape[2:]))


class UNet(nn.Module):
    """float32[batch, 3, height, width], int64[batch] -> the noise, of the image's shape."""

    def __init__(self) -> None:
        super().__init__()
        first, *_, deepest = WIDTHS
        self.embed = nn.Sequential(nn.Linear(first, TIME), nn.SiLU(), nn.Linear(TIME, TIME))
        self.first = nn.Conv2d(3, first, 3, padding=1)
        inside = (first, *WIDTHS[:-1])
        self.down = nn.ModuleList(Block(a, b) for a, b in zip(inside, WIDTHS, strict=True))
        self.shrink = nn.ModuleList(nn.Conv2d(w, w, 3, stride=2, padding=1) for w in WIDTHS)
        self.middle = nn.ModuleList([Block(deepest, deepest), Block(deepest, deepest)])
        self.attention = Attention(deepest)
        outside = (*WIDTHS[-2::-1], first)
        self.up = nn.ModuleList(Block(2 * a, b) for a, b in zip(reversed(WIDTHS), outside, strict=True))
        self.norm = nn.GroupNorm(8, first)
        self.last = nn.Conv2d(first, 3, 3, padding=1)

    def forward(self, image: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        time = self.embed(embed_time(time, WIDTHS[0]))
        hidden = self.first(image)
        skips = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            hidden = block(hidden, time)
            skips.append(hidden)
            hidden = shrink(hidden)
        hidden = self.middle[0](hidden, time)
        hidden = self.middle[1](self.attention(hidden), time)
        for block in self.up:
            hidden = F.interpolate(hidden, scale_factor=2.0, mode="nearest")
            hidden = block(torch.cat([hidden, skips.pop()], dim=1), time)
        return self.last(F.silu(self.norm(hidden)))


def model() -> nn.Module:
    torch.manual_seed(0)
    return UNet().eval()


def example_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 3, 64, 64), torch.randint(1000, (2,))


dynamic_shapes = {"image": {0: "batch"}, "time": {0: "batch"}}
