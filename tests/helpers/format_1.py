"""The model of tests/fixtures/format_1/small: layers of which a file of format 1 says different things."""

from pathlib import Path

import timm.layers
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[1] / "fixtures" / "format_1"


class Small(nn.Module):
    """A convolution with BatchNorm, a fused qkv, ``nn.MultiheadAttention``, a linear layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8)
        self.attn = timm.layers.attention.Attention(8, num_heads=2)
        self.pool = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x)).relu().flatten(2).transpose(1, 2)  # (N, P, 8)
        x = x + self.attn(x)
        x = x + self.pool(x, x, x, need_weights=False)[0]
        return self.head(self.fc(x).relu().mean(1))


def small_images() -> Tensor:
    """(4, 3, 9, 9), the same on every version of torch."""
    steps = torch.arange(4 * 3 * 9 * 9, dtype=torch.float64)
    return (steps * 0.37).sin().float().view(4, 3, 9, 9)
