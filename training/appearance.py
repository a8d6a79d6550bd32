"""How the same anatomy looks from another scanner: random changes of gray values for training.

A cohort comes from a few scanners, whose contrast, coil shading, noise and sharpness a network
learns along with the lesions. Each picture of a training batch is therefore shown with other ones.
Geometry is Ultralytics' work; this is about gray values alone, which its colour augmentation only
scales.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from slicewatch.dataset_checks import manifest_text, picture_digest, read_manifest
from training.sources import BadSource, read_gray

#: Largest changes; each picture draws its own below them.
GAMMA = 0.45
CONTRAST = 0.2
BRIGHTNESS = 0.06
SHADING = 0.25
NOISE = 0.03
BLURRED = 0.15
#: Share of pictures that are changed at all: the others stay as serving sees them.
CHANGED = 0.7


def change_appearance(
    pictures: torch.Tensor, generator: torch.Generator, *, share: float = CHANGED
) -> torch.Tensor:
    """Change the gray values of most pictures of a batch, each in a way of its own.

    In the order in which a scanner would: transfer curve (gamma), coil shading (a smooth
    multiplicative field), contrast and brightness, sharpness, noise.

    Args:
        pictures: N×3×H×W in [0, 1], three equal channels.
        generator: source of the random numbers, on the CPU.
        share: of the pictures that are changed.

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
    return torch.where(draw(0, 1) < share, changed.expand_as(pictures), pictures)


def write_changed(data: Path, out: Path, *, split: str = "val", seed: int = 0) -> int:
    """Write one split of a prepared data set with the appearance of every picture changed.

    What a detector loses there tells how much it leans on the scanners it was trained with.

    Args:
        data: a data set that `prepare` wrote.
        out: folder of the changed one, which must not exist.

    Returns:
        The number of pictures.

    Raises:
        BadSource: no such data set or split, or `out` exists.
    """
    if not (data / "manifest.csv").is_file():
        raise BadSource(f"{data} holds no manifest.csv; run: python -m training prepare")
    if out.exists():
        raise BadSource(f"{out} exists: name a new folder")
    entries = [
        entry
        for entry in read_manifest((data / "manifest.csv").read_text("utf-8"))
        if entry.split == split
    ]
    if not entries:
        raise BadSource(f"{data} has no split {split}")
    for kind in ("images", "labels"):
        (out / kind / split).mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    for number, entry in enumerate(entries):
        gray = read_gray(data / "images" / split / f"{entry.name}.png")
        tensor = torch.from_numpy(gray.copy()).float().div(255).expand(1, 3, *gray.shape)
        changed = change_appearance(tensor, generator, share=1)[0, 0]
        picture = out / "images" / split / f"{entry.name}.png"
        Image.fromarray((changed * 255).round().numpy().astype(np.uint8)).save(picture)
        label = f"labels/{split}/{entry.name}.txt"
        (out / label).write_bytes((data / label).read_bytes())
        digest, _ = picture_digest(picture.read_bytes())
        entries[number] = replace(entry, picture_sha256=digest)
    (out / "dataset.yaml").write_bytes((data / "dataset.yaml").read_bytes())
    (out / "manifest.csv").write_text(manifest_text(entries), "utf-8")
    return len(entries)
