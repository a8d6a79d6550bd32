"""``python -m training train``: one detector from scratch, resumable.

There are no pretrained weights: the network starts from random numbers, and the recipe in
`training.domains` is made for that and for a CPU. Ultralytics shows its own progress bar.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.domains import RECIPE, Domain
from training.sources import BadSource


def train(
    domain: Domain,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    start_from: Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    overrides: dict[str, Any] | None = None,
) -> Path:
    """Train and return the last checkpoint (averaged weights).

    The last checkpoint is returned, not the best of the validation fold: the cosine schedule ends
    in it, and choosing an epoch by the validation patients would flatter the measured quality.

    Args:
        domain: recipe and input size.
        data: a data set that `prepare` wrote.
        out: folder of the run.
        resume: go on with the run in `out`, with its own settings.
        start_from: checkpoint to start from, in place of random weights.
        device: ``cpu``, or a CUDA device, which trains with Ultralytics' own mixed precision.
        threads: of torch on the CPU.
        overrides: Ultralytics arguments that win over the recipe.

    A run that has ended is not trained again: `resume` then gives its checkpoint.

    Raises:
        BadSource: no data set, nothing to resume, or a run that began in another folder.
    """
    if not (data / "dataset.yaml").is_file():
        raise BadSource(f"{data} holds no dataset.yaml; run: python -m training prepare")
    last = out / "weights" / "last.pt"
    if resume and not last.is_file():
        raise BadSource(f"{last} does not exist, so there is nothing to resume")
    if resume and _has_ended(last, out):
        print(f"{last}: the run has ended; nothing is trained")
        return last
    arguments: dict[str, Any] = {
        **RECIPE,
        **domain.recipe,
        "data": str(_absolute_yaml(data)),
        "imgsz": domain.size,
        "device": device,
        "amp": device != "cpu",
        "nms": False,  # validate the head that is served
        "project": str(out.parent.resolve()),
        "name": out.name,
        "exist_ok": True,
        **(overrides or {}),
    }
    if start_from is not None:
        arguments |= {"model": str(start_from), "pretrained": True}
    if resume:
        arguments |= {"resume": str(last), "model": str(last)}
    _trainer(device, threads)(overrides=arguments).train()
    return last


def _has_ended(last: Path, out: Path) -> bool:
    """Whether the checkpoint is a run's last. Raises `BadSource` for a run of another folder."""
    import torch

    checkpoint = torch.load(last, map_location="cpu", weights_only=False)
    if checkpoint["epoch"] < 0:
        return True
    arguments = checkpoint["train_args"]
    begun = Path(arguments["project"]) / arguments["name"]
    if begun.resolve() != out.resolve():
        raise BadSource(
            f"{last} is of a run in {begun}, and would go on there: move it back, or begin a new "
            f"run with --start-from {last}"
        )
    return False


def _trainer(device: str, threads: int | None) -> Any:
    from training.trainer import CpuTrainer, SliceTrainer

    if device != "cpu":
        return SliceTrainer
    CpuTrainer.threads = threads
    return CpuTrainer


def _absolute_yaml(data: Path) -> Path:
    """Ultralytics resolves a relative path against its own settings, so it gets an absolute one."""
    text = (data / "dataset.yaml").read_text("utf-8")
    path = data / "ultralytics.yaml"
    path.write_text(f"path: {data.resolve()}\n{text}", "utf-8")
    return path
