"""How the same anatomy looks from another scanner: random changes of gray values for training.

A cohort comes from a few scanners, whose contrast, coil shading, noise and sharpness a network
learns along with the lesions. Each picture of a training batch is therefore shown with other ones.
Geometry is Ultralytics' work; this is about gray values alone, which its colour augmentation only
scales.
"""

from __future__ import annotations

import torch
from torch.nn import functional

#: Largest changes; each picture draws its own below them.
GAMMA = 0.45
CONTRAST = 0.2
BRIGHTNESS = 0.06
SHADING = 0.25
NOISE = 0.03
BLURRED = 0.15
#: Share of pictures that are changed at all: the others stay as serving sees them.
CHANGED = 0.7


def change_appearance(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Change the gray values of most pictures of a batch, each in a way of its own.

    In the order in which a scanner would: transfer curve (gamma), coil shading (a smooth
    multiplicative field), contrast and brightness, sharpness, noise.

    Args:
        pictures: N×3×H×W in [0, 1], three equal channels.
        generator: source of the random numbers, on the CPU.

    Returns:
        N×3×H×W in [0, 1], three equal channels; the unchanged ones bit for bit.
    """
    count, _, height, width = pictures.shape
    device = pictures.device

    def draw(low: float, high: float) -> torch.Tensor:
        values = torch.rand((count, 1, 1, 1), generator=generator) * (high - low) + low
        return values.to(device)

    gray = pictures[:, :1]
    changed = gray.pow(draw(-GAMMA, GAMMA).exp())
    coarse = torch.randn((count, 1, 4, 4), generator=generator).to(device) * draw(0, SHADING)
    field = functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    changed = changed * field.exp()
    changed = changed * draw(1 - CONTRAST, 1 + CONTRAST) + draw(-BRIGHTNESS, BRIGHTNESS)
    smooth = functional.avg_pool2d(changed, 3, stride=1, padding=1, count_include_pad=False)
    changed = torch.where(draw(0, 1) < BLURRED, smooth, changed)
    noise = torch.randn((count, 1, height, width), generator=generator).to(device)
    changed = (changed + noise * draw(0, NOISE)).clamp(0, 1)
    return torch.where(draw(0, 1) < CHANGED, changed.expand_as(pictures), pictures)
