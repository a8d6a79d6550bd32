"""``python -m training average``: one set of weights out of several of the same run of stages.

Checkpoints on one path of training lie in one valley of the loss; their mean generalises at
least as well as each and costs nothing at inference (M. Wortsman et al., "Model soups", 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.sources import BadSource


def average(checkpoints: Sequence[Path], out: Path) -> None:
    """Write the mean of the checkpoints' (averaged, where they hold such) weights.

    Args:
        checkpoints: two or more of Ultralytics, of one architecture and the same classes.
        out: checkpoint to write; without optimizer, so that it can be exported or started from.

    Raises:
        BadSource: a file is missing, there are fewer than two, or they do not fit each other.
    """
    import torch

    if len(checkpoints) < 2:
        raise BadSource("an average takes two checkpoints or more")
    loaded = [_load(torch, path) for path in checkpoints]
    networks = [(one.get("ema") or one["model"]).float() for one in loaded]
    states = [network.state_dict() for network in networks]
    for path, network, state in zip(checkpoints, networks, states, strict=True):
        same = {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in states[0].items()}
        if not same or network.names != networks[0].names:
            raise BadSource(f"{path} is of another architecture or classes than {checkpoints[0]}")
    mean = {
        key: torch.stack([state[key] for state in states]).mean(0) if value.is_floating_point()
        else value
        for key, value in states[0].items()
    }  # fmt: skip
    networks[0].load_state_dict(mean)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(loaded[0] | {"model": networks[0], "ema": None, "optimizer": None}, out)


def _load(torch: Any, path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadSource(f"{path} does not exist")
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    return checkpoint
